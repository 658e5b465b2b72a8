"""Pretrained weights into another model, tensor by tensor and with a report."""

from self_supervised_3d_tasks.transfer.decoder import find_decoder, load_decoder
from self_supervised_3d_tasks.transfer.encoder import find_encoder, load_encoder, read_encoder
from self_supervised_3d_tasks.transfer.match import LoadReport

__all__ = ["LoadReport", "find_decoder", "find_encoder", "load_decoder", "load_encoder", "read_encoder"]
