"""Matches the tensors of a model with those of a file, by layer and by variable within the layer, with a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras

Name = tuple[str, str]  # layer, and variable within the layer
Adapt = Callable[[Name, "keras.Variable", np.ndarray], tuple[np.ndarray, str] | None]


@dataclass
class LoadReport:
    """What became of every tensor of the encoder, or of the decoder.

    Attributes:
        source: The file or run folder that the weights came from.
        part: What the weights belong to, "encoder" or "decoder".
        matched: The tensors that were copied unchanged.
        adapted: The tensors that were fitted to other input channels, each with how.
        left: The tensors that keep their initial values, each with why.
        unused: The tensors of the file that there is no place for.
    """

    source: str
    part: str = "encoder"
    matched: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The number of tensors of the part."""
        return len(self.matched) + len(self.adapted) + len(self.left)

    def __str__(self) -> str:
        """Return the counts, and one line for every tensor that was not simply copied."""
        head = (
            f"{self.part} weights from {self.source}: {len(self.matched)} of {self.total} tensors matched, "
            f"{len(self.adapted)} adapted, {len(self.left)} left, {len(self.unused)} unused"
        )
        rows = (f"  {status:<8} {name}" for status in ("adapted", "left", "unused") for name in getattr(self, status))
        return "\n".join([head, *rows])


def match(
    report: LoadReport,
    tensors: Mapping[Name, keras.Variable],
    pretrained: Mapping[Name, keras.Variable],
    adapt: Adapt,
    *,
    remedy: str,
    allow_partial: bool,
    kept: Sequence[str] = (),
) -> dict[Name, np.ndarray]:
    """Return the new values of the tensors that were found, and add to the report what becomes of every tensor.

    Args:
        report: The report, which is extended.
        tensors: The tensors that are looked for; they are not changed.
        pretrained: The tensors of the file; each that is not among ``tensors`` is reported as unused.
        adapt: Returns for a tensor and the value in the file another value of the tensor's shape and how it was made,
            or None where the value fits as it is or not at all.
        remedy: What the user can do where something is missing, a sentence without its full stop.
        allow_partial: Whether it is enough that some tensors are found.
        kept: What the report says of the tensors that are meant to keep their initial values.

    Raises:
        UserError: A tensor was not found or has another shape, or one of the file has no place; the message is the
            report.
    """
    stored = {name: keras.ops.convert_to_numpy(tensor) for name, tensor in pretrained.items()}
    report.unused = ["/".join(name) for name in stored if name not in tensors]
    values = {}
    for name, tensor in tensors.items():
        label, shape, value = "/".join(name), tuple(tensor.shape), stored.get(name)
        if value is None:
            report.left.append(f"{label}: not in the file")
        elif adapted := adapt(name, tensor, value):
            values[name], how = adapted
            report.adapted.append(f"{label}: {how}")
        elif value.shape == shape:
            values[name] = value
            report.matched.append(label)
        else:
            report.left.append(f"{label}: shape {shape} here, {value.shape} in the file")
    missing = len(report.left)
    report.left += kept
    if (missing or report.unused) and not (allow_partial and values):
        instead = ", or set allow_partial_load to go on with what matched." if values else "."
        raise UserError(f"{report}\nThe {report.part} was not loaded completely. {remedy}{instead}")
    return values


def tensors_of(layers: Iterable[keras.Layer]) -> dict[Name, keras.Variable]:
    """Return every weight of layers by layer and by path within the layer.

    The start of a path depends on what the model is nested in, so only what follows the layer's name counts.
    """
    return {
        (layer.name, variable.path.split(f"{layer.name}/", 1)[-1]): variable
        for layer in layers
        for variable in layer.weights
    }
