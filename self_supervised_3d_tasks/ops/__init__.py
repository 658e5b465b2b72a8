"""Pure functions of one image ``(*spatial, channels)`` of any rank with stateless seeds, and what is drawn for them."""
