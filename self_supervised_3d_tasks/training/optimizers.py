"""Optimizers with the schedules and the weight decay of the papers, whose code is PyTorch's."""

from __future__ import annotations

from typing import Any, Literal

from self_supervised_3d_tasks.lazy import keras


def make_optimizer(
    learning_rate: float,
    *,
    optimizer: Literal["adam", "sgd"] = "adam",
    momentum: float | None = 0.9,
    lr_schedule: Literal["constant", "cosine"] = "constant",
    total_steps: int | None = None,
    weight_decay: float = 0.0,
    weight_decay_form: Literal["coupled", "decoupled"] | None = "coupled",
    clipnorm: float | None = None,
    clipvalue: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return an optimizer for `keras.Model.compile`.

    A checkpoint holds its moments and the number of its steps, which is all that the schedule depends on: a training
    that is resumed goes on where it was.

    Args:
        learning_rate: The learning rate lr of all steps, or with "cosine" that of the first.
        optimizer: The kind of optimizer, "adam" or "sgd".
        momentum: The momentum of "sgd", in [0, 1); with None it has none. Keras adds lr · gradient to the momentum,
            PyTorch multiplies the momentum by lr: this is the same while lr is constant, and all but the same while it
            changes slowly.
        lr_schedule: With "constant" the learning rate stays as it is; with "cosine" it is
            lr · (1 + cos(π step / total_steps)) / 2, then 0.
        total_steps: The number of steps that "cosine" takes to come down to 0.
        weight_decay: The weight decay w of every trainable variable, normalization and biases included, as in PyTorch.
        weight_decay_form: With "coupled", w · variable is added to the gradient, before moments and momentum, as in
            PyTorch's SGD and Adam: with a momentum m its effect adds up to 1 / (1 - m) times lr · w. It also moves
            variables with a gradient of zeros, such as a head that was not drawn in this step; PyTorch skips a
            parameter without a gradient. With "decoupled", each step first shrinks the variable by the factor
            1 - lr · w, as in AdamW.
        clipnorm: Each gradient tensor is scaled down to this norm. Clipping sees the gradient of the loss alone, in
            both forms of weight decay, as where PyTorch's `clip_grad_norm_` comes before the step.
        clipvalue: Each gradient entry is clipped to ± this value.

    Raises:
        ValueError: Both kinds of clipping were given, or "cosine" without a number of steps.
    """
    if lr_schedule == "cosine":
        if not total_steps:
            raise ValueError(f"lr_schedule 'cosine' needs the number of steps, received total_steps={total_steps}")
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=total_steps)
    options: dict[str, Any] = {"clipnorm": clipnorm, "clipvalue": clipvalue}
    if optimizer == "sgd":
        options["momentum"] = momentum or 0.0
    kind = keras.optimizers.SGD if optimizer == "sgd" else keras.optimizers.Adam
    if weight_decay and weight_decay_form == "decoupled":
        options["weight_decay"] = weight_decay
    elif weight_decay:
        kind = _coupled(kind, weight_decay)
    return kind(learning_rate, **options)


def _coupled(kind: type, weight_decay: float) -> type:
    """Return an optimizer class with PyTorch's weight decay: Keras knows the decoupled form alone."""

    class Coupled(kind):
        # Not in `apply`, where the gradients are clipped: what arrives here has been.
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            gradient = keras.ops.cast(gradient, variable.dtype)
            super().update_step(gradient + weight_decay * variable, variable, learning_rate)

    return Coupled
