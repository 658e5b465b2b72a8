"""Which files of a folder, or rows of an index, are scans, channels and masks, and whose they are."""
