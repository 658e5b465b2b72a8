"""What every decoder keeps of the encoder beneath it."""

from __future__ import annotations

import pytest

from self_supervised_3d_tasks.models.decoders.duc import duc
from self_supervised_3d_tasks.models.decoders.unet import unet
from self_supervised_3d_tasks.models.encoders import unet as encoders


@pytest.mark.parametrize(("decoder", "left_out"), [(unet, []), (duc, ["final_pool"])])
def test_the_layers_of_the_encoder_are_shared_and_the_decoders_are_named(decoder, left_out):
    encoder = encoders.unet((8, 8, 1), enc_filters=2, num_layers=2)
    model = decoder(encoder, num_classes=2)
    own = [layer for layer in model.layers if layer not in encoder.layers]
    assert [layer.name for layer in encoder.layers if layer not in model.layers] == left_out
    assert all(layer.name.startswith("decoder_") for layer in own)
    decoder_weights = sum(len(layer.trainable_weights) for layer in own)
    encoder.trainable = False
    assert len(model.trainable_weights) == decoder_weights
    encoder.trainable = True
    assert len(model.trainable_weights) == decoder_weights + len(encoder.trainable_weights)
