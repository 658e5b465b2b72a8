"""Classifiers on top of a code: functions on Keras tensors that return float32 logits.

A feature map ``(batch, *spatial, channels)`` is flattened first. Layer order, widths and parameter counts are
the predecessor's; its activations are left to the losses.
"""

from __future__ import annotations

from collections.abc import Callable

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.layers import Tensor

keras = lazy.load("keras")


def big_fully(
    x: Tensor,
    num_outputs: int,
    *,
    head_units: tuple[int, ...] = (2048, 1024),
    dropout_rate: float = 0.5,
    seed: int,
    name: str = "head",
) -> Tensor:
    """Apply one Dense (ReLU) – batch normalization – dropout per entry of ``head_units``, then a Dense.

    Args:
        x: ``(batch, ..., channels)``, of known size.
        num_outputs: Number of logits.
        head_units: Widths of the hidden layers.
        dropout_rate: Rate in [0, 1) after each hidden layer.
        seed: The experiment's seed.
        name: Prefix of the layers' names.

    Returns:
        Logits ``(batch, num_outputs)``, float32.
    """
    x = _flatten(x, name)
    for index, units in enumerate(head_units, start=1):
        x = layers.dense(units, activation="relu", seed=seed, name=f"{name}_dense_{index}")(x)
        x = layers.normalization("batch", units, name=f"{name}_norm_{index}")(x)
        if dropout_rate > 0:
            x = layers.dropout(dropout_rate, seed=seed, name=f"{name}_dropout_{index}")(x)
    return layers.logits_dense(num_outputs, seed=seed, name=f"{name}_logits")(x)


def simple_multiclass(
    x: Tensor, num_outputs: int = 5, *, dropout_rate: float = 0.5, seed: int, name: str = "head"
) -> Tensor:
    """Apply Dense 1024 (ReLU) – batch normalization – dropout – Dense. Arguments as in `big_fully`."""
    return big_fully(x, num_outputs, head_units=(1024,), dropout_rate=dropout_rate, seed=seed, name=name)


def softmax(x: Tensor, num_outputs: int, *, seed: int, name: str = "head") -> Tensor:
    """Apply a single Dense: multinomial regression on the code. Arguments as in `big_fully`."""
    return layers.logits_dense(num_outputs, seed=seed, name=f"{name}_logits")(_flatten(x, name))


HEADS = {head.__name__: head for head in (big_fully, simple_multiclass, softmax)}


def get(name: str) -> Callable[..., Tensor]:
    """Return the head called ``name``.

    Raises:
        UserError: No such head.
    """
    if name not in HEADS:
        known = ", ".join(HEADS)
        raise UserError(f"top_architecture: no head is called {name!r}; known: {known}.{nearest(name, HEADS)}")
    return HEADS[name]


def _flatten(x: Tensor, name: str) -> Tensor:
    return keras.layers.Flatten(name=f"{name}_flatten")(x) if len(x.shape) > 2 else x
