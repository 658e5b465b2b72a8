"""Batches for training: crops of the stored scans as a tf.data stream."""
