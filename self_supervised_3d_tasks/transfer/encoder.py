"""Moves the weights of a pretrained encoder into a downstream model, tensor by tensor and with a report.

Taleb et al., "3D Self-Supervised Methods for Medical Imaging" (NeurIPS 2020): the encoder is kept, every head
is dropped, and an input layer pretrained on fewer modalities is duplicated for the new ones. The predecessor
loaded by position and went on from random weights where nothing fitted; here whatever is not loaded is named,
and stops the run unless that is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import check_model_file, load_model
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.transfer.match import LoadReport, Name, match, tensors_of


def find_encoder(source: Path | str) -> Path:
    """Return the ``.keras`` file behind a run folder or a file name; loads neither Keras nor the weights.

    Args:
        source: The run folder of a pretraining, whose ``encoder.keras`` is meant, or a ``.keras`` file.

    Raises:
        UserError: There is no such file, or it is damaged or of another format.
    """
    source = as_path(source)
    if not source.exists() and not source.suffix:
        raise UserError(f"{source}: no such run folder; run the pretraining first (train.py), or name another one")
    if not source.is_dir():
        return check_model_file(source)
    path = RunFolder(source).encoder
    if not path.exists():
        if not RunFolder(source).config.exists() and (others := _runs_beside(source)):
            raise UserError(f"{source}: holds no run; the finished runs of that name are {', '.join(map(str, others))}")
        raise UserError(
            f"{source}: holds no {RunFolder.encoder}; expected the run folder of a finished pretraining "
            "(train.py --resume finishes an interrupted one)"
        )
    return check_model_file(path)


def _runs_beside(source: Path) -> list[Path]:
    """Return the finished pretrainings whose folders have a name with a number behind it: ``<source>_1`` and so on."""
    return [run.path for run in RunFolder.all(source.parent, source.name) if run.encoder.exists()]


def read_encoder(source: Path | str) -> keras.Model:
    """Return the pretrained encoder: the model in the file, or its layer "encoder" where it has one.

    Args:
        source: What `find_encoder` takes.

    Raises:
        UserError: There is no such file, or it is damaged or of another format.
    """
    model = load_model(find_encoder(source))
    nested = [layer for layer in model.layers if layer.name == "encoder"]
    return nested[0] if nested else model


def load_encoder(
    encoder: keras.Model,
    source: Path | str,
    *,
    channel_map: Sequence[int] | None = None,
    rescale: bool = True,
    allow_partial: bool = False,
) -> LoadReport:
    """Copy pretrained weights into ``encoder``, by layer name and by variable within the layer.

    Where the number of input channels differs, the kernels that see the input are duplicated along that axis:
    ``W'[..., j, :] = W[..., m(j), :] / n_m(j)``, where n counts the copies of a source channel. So a scan
    whose channels repeat the old ones gives the old activations, which matters wherever no batch statistics
    undo the scale: a frozen BatchNormalization, a bias, a ReLU before the normalization.

    Args:
        encoder: A functional model. It is changed in place, or not at all if an error is raised.
        source: What `find_encoder` takes.
        channel_map: This is m: for each input channel of ``encoder`` the pretrained channel that feeds it. By default
            each pretrained channel is repeated for neighbouring input channels, 2 → 4 gives [0, 0, 1, 1]. It is needed
            where there are fewer channels than before.
        rescale: Whether copies are divided by their number; if not, the kernels are copied as they are.
        allow_partial: Whether to go on when only a part of the encoder was found.

    Returns:
        What became of every tensor.

    Raises:
        UserError: A tensor of the encoder was not found or has another shape, or one of the file has no place in
            the encoder (the message is the report), nothing at all was found, ``channel_map`` does not fit, or the
            source cannot be read.
    """
    pretrained = read_encoder(source)
    channels = _channel_map(pretrained.input_shape[-1], encoder.input_shape[-1], channel_map)
    # A finetuned model may be the source: its decoder or head is not expected here.
    stored = tensors_of(layer for layer in pretrained.layers if not layer.name.startswith(("decoder_", "head_")))
    tensors, report = tensors_of(encoder.layers), LoadReport(str(source))
    input_kernels = _input_kernels(encoder) if channels else set()

    def adapt(name: Name, tensor: keras.Variable, value: np.ndarray) -> tuple[np.ndarray, str] | None:
        shape = tuple(tensor.shape)
        if name not in input_kernels or value.shape != (*shape[:-2], pretrained.input_shape[-1], shape[-1]):
            return None
        copies = np.bincount(channels)[channels] if rescale else np.ones(len(channels))
        how = f"input channels {channels}{' rescaled' if rescale else ''}"
        return np.take(value, channels, axis=-2) / copies[:, None].astype(value.dtype), how

    remedy = "Give the encoder options of the pretraining"
    values = match(report, tensors, stored, adapt, remedy=remedy, allow_partial=allow_partial)
    if channels and not (report.adapted or report.left):
        raise UserError(f"channel_map: {channels} has no effect, for no kernel of the encoder sees the input itself")
    for name, value in values.items():
        tensors[name].assign(value)
    _warn_of_other_scales(pretrained, encoder, source)
    return report


def scale_differences(pretrained: keras.Model, encoder: keras.Model) -> list[str]:
    """Return the convolutions whose kernels see another scale in one model than in the other, in words.

    Nothing else would tell: what reduces a map between them has no weights, or the same ones.
    """
    before, after = _scales(pretrained), _scales(encoder)
    shared = [name for name in after if name in before]
    return [f"{name} ({before[name]} there, {after[name]} here)" for name in shared if before[name] != after[name]]


def _warn_of_other_scales(pretrained: keras.Model, encoder: keras.Model, source: Path | str) -> None:
    if differences := scale_differences(pretrained, encoder):
        logging.warning(
            "%s: %d kernels fit, but see another scale than in pretraining, the first being %s. For the same scale set "
            "pool_schedule (vgg11) or output_stride (resnet18) in both.",
            source,
            len(differences),
            differences[0],
        )


def _scales(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Return by layer how many voxels of the image lie between neighbouring weights of a kernel, along each axis."""
    none = np.ones(len(model.input_shape) - 2, int)
    reductions: dict[int, np.ndarray] = {}
    scales = {}
    for layer in model.layers:
        inputs = keras.tree.flatten(layer.input)
        reduction = np.max([none, *(reductions.get(id(tensor), none) for tensor in inputs)], axis=0)
        if hasattr(layer, "dilation_rate") and max(layer.kernel_size) > 1:
            scales[layer.name] = tuple((reduction * layer.dilation_rate).tolist())
        reductions[id(layer.output)] = reduction * getattr(layer, "strides", 1)
    return scales


def _channel_map(old: int, new: int, given: Sequence[int] | None) -> list[int] | None:
    """Return which old channel feeds each new one; None where the kernels can be copied as they are."""
    if given is None:
        if new < old:
            raise UserError(
                f"channel_map: the encoder was pretrained on {old} channels and the data have {new}; give "
                f"{new} numbers from 0 to {old - 1}: which pretrained channel feeds each channel of the data"
            )
        return None if new == old else [channel * old // new for channel in range(new)]
    if len(given) != new or not all(0 <= channel < old for channel in given):
        raise UserError(
            f"channel_map: expected {new} numbers from 0 to {old - 1}, for each channel of the data the "
            f"pretrained channel that feeds it; received {list(given)}"
        )
    return None if list(given) == list(range(old)) else list(given)


def _input_kernels(model: keras.Model) -> set[Name]:
    """Return the kernels that are applied to the input itself.

    Layers without weights (padding, dropout) may come before. A kernel is not told by its shape alone: with
    as many filters as channels, deeper ones look the same.
    """
    raw = {id(tensor) for tensor in model.inputs}
    kernels = set()
    for layer in model.layers:
        if not any(id(tensor) in raw for tensor in keras.tree.flatten(layer.input)):
            continue
        if not layer.weights:
            raw.add(id(layer.output))
        # A depthwise kernel sums over no input channels: its copies would come out as more filters.
        elif hasattr(layer, "kernel") and not hasattr(layer, "depth_multiplier"):
            kernels.add((layer.name, "kernel"))
    return kernels
