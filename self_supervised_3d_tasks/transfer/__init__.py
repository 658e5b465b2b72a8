"""Pretrained weights into another model, tensor by tensor and with a report."""

from self_supervised_3d_tasks.transfer.decoder import find_decoder, load_decoder
from self_supervised_3d_tasks.transfer.encoder import find_encoder, load_encoder
