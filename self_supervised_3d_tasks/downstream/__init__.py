"""What is predicted downstream: masks, classes or findings. `base` says what a task brings to the sweep."""
