"""The prepared scans of a run, in memory or on disk."""
