"""Networks: functional Keras graphs with named layers, for any rank and any Keras backend."""
