"""Moves the weights of a pretrained encoder into a downstream model, tensor by tensor and with a report.

Taleb et al., "3D Self-Supervised Methods for Medical Imaging" (NeurIPS 2020): the encoder is kept, every head
is dropped, and an input layer pretrained on fewer modalities is duplicated for the new ones. The predecessor
loaded by position and went on from random weights where nothing fitted; here whatever is not loaded is named,
and stops the run unless that is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import check_model_file, load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras

Name = tuple[str, str]  # layer, and variable within the layer


@dataclass
class LoadReport:
    """What became of every tensor of the encoder, or of the decoder.

    Attributes:
        source: File that the weights came from.
        part: "encoder" or "decoder".
        matched: Tensors copied unchanged.
        adapted: Tensors fitted to other input channels, with how.
        left: Tensors that keep their initial values, with why.
        unused: Tensors of the file that there is no place for.
    """

    source: str
    part: str = "encoder"
    matched: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of tensors of the part."""
        return len(self.matched) + len(self.adapted) + len(self.left)

    def __str__(self) -> str:
        """Return the counts, and one line for every tensor that was not simply copied."""
        head = (
            f"{self.part} weights from {self.source}: {len(self.matched)} of {self.total} tensors matched, "
            f"{len(self.adapted)} adapted, {len(self.left)} left, {len(self.unused)} unused"
        )
        rows = [
            f"  {status:<8} {tensor}" for status in ("adapted", "left", "unused") for tensor in getattr(self, status)
        ]
        return "\n".join([head, *rows])


def find_encoder(source: Path | str) -> Path:
    """Return the ``.keras`` file behind a run folder or a file name; loads neither Keras nor the weights.

    Args:
        source: Run folder of a pretraining (its ``encoder.keras``), or a ``.keras`` file.

    Raises:
        UserError: There is no such file, or it is damaged or of another format.
    """
    source = Path(source).expanduser()
    if not source.exists() and not source.suffix:
        raise UserError(f"{source}: no such run folder; run the pretraining first (train.py), or name another one")
    if not source.is_dir():
        return check_model_file(source)
    path = RunFolder(source).encoder
    if not path.exists():
        raise UserError(
            f"{source}: holds no {RunFolder.encoder}; expected the run folder of a finished pretraining "
            "(train.py --resume finishes an interrupted one)"
        )
    return check_model_file(path)


def read_encoder(source: Path | str) -> keras.Model:
    """Return the pretrained encoder: the model in the file, or its layer "encoder" where it has one.

    Args:
        source: See `find_encoder`.

    Raises:
        UserError: See `find_encoder`.
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
        encoder: Functional model; changed in place, or not at all if an error is raised.
        source: See `find_encoder`.
        channel_map: m: for each input channel of ``encoder`` the pretrained channel that feeds it. Default:
            each pretrained channel is repeated for neighbouring input channels, 2 → 4 gives [0, 0, 1, 1].
            Needed where there are fewer channels than before.
        rescale: Divide by the number of copies; False copies the kernels as they are.
        allow_partial: Go on when only a part of the encoder was found.

    Returns:
        What became of every tensor.

    Raises:
        UserError: A tensor of the encoder was not found or has another shape, or one of the file has no place in
            the encoder (the message is the report), nothing at all was found, ``channel_map`` does not fit, or the
            source cannot be read.
    """
    pretrained = read_encoder(source)
    channels = _channel_map(pretrained.input_shape[-1], encoder.input_shape[-1], channel_map)
    stored = {name: keras.ops.convert_to_numpy(tensor) for name, tensor in tensors_of(pretrained.layers).items()}
    tensors = tensors_of(encoder.layers)
    input_kernels = _input_kernels(encoder) if channels else set()
    values: dict[Name, np.ndarray] = {}
    # A finetuned model may be the source: its decoder or head is not expected here.
    unused = [
        "/".join(name) for name in stored if name not in tensors and not name[0].startswith(("decoder_", "head_"))
    ]
    report = LoadReport(str(source), unused=unused)
    for name, tensor in tensors.items():
        label, shape, value = "/".join(name), tuple(tensor.shape), stored.get(name)
        if value is None:
            report.left.append(f"{label}: not in the file")
        elif name in input_kernels and _fits(value.shape, shape, pretrained.input_shape[-1]):
            values[name] = duplicate_channels(value, channels, rescale=rescale)
            report.adapted.append(f"{label}: input channels {channels}{' rescaled' if rescale else ''}")
        elif value.shape != shape:
            report.left.append(f"{label}: shape {shape} here, {value.shape} in the file")
        else:
            values[name] = value
            report.matched.append(label)
    _check(report, channels, allow_partial=allow_partial)
    for name, value in values.items():
        tensors[name].assign(value)
    if differences := scale_differences(pretrained, encoder):
        logging.warning(
            "%s: %d kernels fit, but see another scale than in pretraining, the first being %s. For the same scale set "
            "pool_schedule (vgg11) or output_stride (resnet18) in both.",
            source,
            len(differences),
            differences[0],
        )
    return report


def scale_differences(pretrained: keras.Model, encoder: keras.Model) -> list[str]:
    """Return the convolutions whose kernels see another scale in one model than in the other, in words.

    Nothing else would tell: what reduces a map between them has no weights, or the same ones.
    """
    before, after = _scales(pretrained), _scales(encoder)
    shared = [name for name in after if name in before]
    return [f"{name} ({before[name]} there, {after[name]} here)" for name in shared if before[name] != after[name]]


def _scales(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Return by layer how many voxels of the image lie between neighbouring weights of a kernel, along each axis."""
    none = np.ones(len(model.input_shape) - 2, int)
    reductions: dict[int, np.ndarray] = {}
    scales = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        reduction = np.max([none, *(reductions.get(id(tensor), none) for tensor in inputs)], axis=0)
        if hasattr(layer, "dilation_rate") and max(layer.kernel_size) > 1:
            scales[layer.name] = tuple((reduction * layer.dilation_rate).tolist())
        reductions[id(layer.output)] = reduction * getattr(layer, "strides", 1)
    return scales


def duplicate_channels(kernel: np.ndarray, channels: Sequence[int], *, rescale: bool = True) -> np.ndarray:
    """Return a kernel for other input channels.

    Args:
        kernel: ``(*window, old channels, filters)``.
        channels: For each new channel the old one that feeds it.
        rescale: Divide each copy by the number of copies of its channel.

    Returns:
        ``(*window, len(channels), filters)``.
    """
    copies = np.bincount(channels)[list(channels)] if rescale else np.ones(len(channels))
    return np.take(kernel, channels, axis=-2) / copies[:, None].astype(kernel.dtype)


def _check(report: LoadReport, channels: list[int] | None, *, allow_partial: bool) -> None:
    """Raise `UserError` if the report is not one to go on with."""
    found = bool(report.matched or report.adapted)
    if (report.left or report.unused) and not (allow_partial and found):
        raise UserError(
            f"{report}\nThe encoder was not loaded completely. Give the encoder options of the pretraining"
            + (", or set allow_partial_load to go on with what matched." if found else ".")
        )
    if channels and not (report.adapted or report.left):
        raise UserError(f"channel_map: {channels} has no effect, for no kernel of the encoder sees the input itself")


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


def tensors_of(layers: Iterable[keras.Layer]) -> dict[Name, keras.Variable]:
    """Return every weight of layers by layer and by path within the layer.

    The start of a path depends on what the model is nested in, so only what follows the layer's name counts.
    """
    return {
        (layer.name, variable.path.split(f"{layer.name}/", 1)[-1]): variable
        for layer in layers
        for variable in layer.weights
    }


def _input_kernels(model: keras.Model) -> set[Name]:
    """Return the kernels that are applied to the input itself.

    Layers without weights (padding, dropout) may come before. A kernel is not told by its shape alone: with
    as many filters as channels, deeper ones look the same.
    """
    raw = {id(tensor) for tensor in model.inputs}
    kernels = set()
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        if not any(id(tensor) in raw for tensor in inputs):
            continue
        if not layer.weights:
            raw.add(id(layer.output))
        # A depthwise kernel sums over no input channels: its copies would come out as more filters.
        elif hasattr(layer, "kernel") and not hasattr(layer, "depth_multiplier"):
            kernels.add((layer.name, "kernel"))
    return kernels


def _fits(stored: tuple[int, ...], shape: tuple[int, ...], old_channels: int) -> bool:
    """Whether a kernel in the file sees the old channels and otherwise has the shape of the one here."""
    return stored == (*shape[:-2], old_channels, shape[-1])
