"""Pure TensorFlow functions on one image ``(*spatial, channels)`` of any rank, with stateless seeds."""
