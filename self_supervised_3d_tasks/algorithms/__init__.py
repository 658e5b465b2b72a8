"""Pretext tasks: one file each, named as in an experiment file; 2D and 3D from the same lines."""
