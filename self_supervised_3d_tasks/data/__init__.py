"""From files to batches: formats, cases, layouts, splits, preprocessing, store, pipeline."""
