"""DICOM: headers of files, series of slices, their pixels, and segmentations that refer to them."""
