"""File formats: each file here reads and writes one of them."""
