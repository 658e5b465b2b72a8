"""``train.py``: unlabelled scans and a pretext task → an encoder."""
