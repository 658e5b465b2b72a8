"""From files to batches: readers, layouts, splits, preprocessing, store, pipeline."""
