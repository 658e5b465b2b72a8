"""Sizes along the axes of an image, and names for what Keras computes with."""

from collections.abc import Sequence
from numbers import Integral
from typing import TypeAlias

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras  # noqa: F401 (of the names below)

# Strings, so that evaluating a signature (the experiment file does, to find its keys) does not load Keras.
Model: TypeAlias = "keras.Model"
Layer: TypeAlias = "keras.layers.Layer"
Tensor: TypeAlias = "keras.KerasTensor"


def as_tuple(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """Return one positive integer per axis.

    Args:
        value: One integer for all axes, or ``rank`` of them.
        rank: Number of spatial axes.
        name: The argument or key, for the message.

    Raises:
        UserError: The number of integers is wrong, or one of them is not positive.
    """
    values = (value,) * rank if isinstance(value, Integral) else tuple(value)
    if len(values) != rank or not all(isinstance(item, Integral) and item > 0 for item in values):
        raise UserError(f"{name}: expected one positive integer or {rank} of them, received {value!r}")
    return tuple(int(item) for item in values)
