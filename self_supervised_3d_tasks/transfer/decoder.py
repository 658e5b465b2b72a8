"""Moves the weights of a pretrained decoder into the U-Net of a downstream task, beside those of the encoder.

Only for pretext tasks that have a decoder. Theirs has no skip connections, for all has to come through the encoder's
output; the downstream one has them, and there the maps from below stand before those of the encoder.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import check_model_file, load_model
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.transfer.match import LoadReport, Name, match, tensors_of

_REMEDY = (
    "give the run folder of a pretraining with a decoder, such as parts2whole or pcrlv2, as model_checkpoint, or "
    "remove transfer"
)
# The layers with weights of models.decoders.unet.way_up. What follows them makes the output, which is another
# downstream: an image there, classes here.
_WAY_UP = re.compile(r"decoder_(level_\d+|stem)_(up|conv_\d|norm_\d)")


def find_decoder(source: Path | str) -> Path:
    """Return the ``.keras`` file that a decoder can be taken from; loads neither Keras nor the weights.

    Args:
        source: The run folder of a pretraining, whose ``encoder_decoder.keras`` is meant, or a ``.keras`` file with
            encoder and decoder.

    Raises:
        UserError: There is no such file, it has no decoder, or it is damaged or of another format.
    """
    source = as_path(source)
    path = RunFolder(source).encoder_decoder if source.is_dir() else source
    if source.is_dir() and not path.exists():
        raise UserError(
            f'transfer: "encoder_decoder" needs {RunFolder.encoder_decoder}, but {source} holds none; {_REMEDY}'
        )
    check_model_file(path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    if not _WAY_UP.search(config):
        raise UserError(f'transfer: "encoder_decoder" needs a decoder of unet, but {path} has none; {_REMEDY}')
    return path


def load_decoder(model: keras.Model, source: Path | str, *, allow_partial: bool = False) -> LoadReport:
    """Copy pretrained weights into the decoder of ``model``, by layer name and by variable within the layer.

    The first kernel behind the concatenation with a skip sees the channels from below and then those of the skip. One
    that was pretrained without skip gets its weights in the former and keeps its initial ones in the latter. The layer
    that makes the output keeps all of its own.

    Args:
        model: A model that `models.decoders.unet.unet` made. It is changed in place, or not at all if an error is
            raised.
        source: What `find_decoder` takes.
        allow_partial: Whether to go on when only a part of the decoder was found.

    Returns:
        What became of every tensor of the decoder.

    Raises:
        UserError: A tensor of the decoder was not found or has another shape, or one of the file has no place (the
            message is the report), or the source cannot be read.
    """
    path = find_decoder(source)
    pretrained = tensors_of(layer for layer in _decoder_layers(load_model(path)) if _WAY_UP.fullmatch(layer.name))
    tensors, from_below = tensors_of(_decoder_layers(model)), _channels_from_below(model)

    def adapt(name: Name, tensor: keras.Variable, value: np.ndarray) -> tuple[np.ndarray, str] | None:
        shape, below = tuple(tensor.shape), from_below.get(name, 0)
        if not below or value.shape != (*shape[:-2], below, shape[-1]):
            return None
        fresh = keras.ops.convert_to_numpy(tensor)[..., below:, :]
        how = f"{below} input channels, initial values for the {shape[-2] - below} of the skip"
        return np.concatenate([value, fresh], axis=-2), how

    report = LoadReport(str(path), "decoder")
    wanted = {name: tensor for name, tensor in tensors.items() if _WAY_UP.fullmatch(name[0])}
    kept = [f"{'/'.join(name)}: makes the output" for name in tensors if name not in wanted]
    remedy = 'Give the options of the pretraining, set transfer to "encoder"'
    values = match(report, wanted, pretrained, adapt, remedy=remedy, allow_partial=allow_partial, kept=kept)
    for name, value in values.items():
        tensors[name].assign(value)
    return report


def _decoder_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of the decoder, which can be a model in the model."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _decoder_layers(layer)
        elif layer.name.startswith("decoder_"):
            yield layer


def _channels_from_below(model: keras.Model) -> dict[Name, int]:
    """Return for each kernel behind a concatenation how many of its input channels come from below, the first ones."""
    concatenations = [layer for layer in _decoder_layers(model) if isinstance(layer, keras.layers.Concatenate)]
    return {(layer.name.replace("_concat", "_conv_1"), "kernel"): layer.input[0].shape[-1] for layer in concatenations}
