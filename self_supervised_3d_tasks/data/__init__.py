"""From files to batches: formats, labels, layouts, cases, splits, preprocessing, store, stream."""
