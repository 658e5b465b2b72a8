"""What is predicted downstream: masks or classes of whole scans. `base` says what a task brings to the sweep."""
