"""Optimizers with the schedules and the weight decay of the papers, whose code is PyTorch's."""

from __future__ import annotations

from typing import Any, Literal

from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.ops import global_batch
from self_supervised_3d_tasks.training.schedules import ScheduleName, make_schedule

OptimizerName = Literal["adam", "adamw", "sgd"]
# What AdamW does not shrink, by the name of a variable; TensorFlow puts its path before that and behind it the device
# that has a copy, and ":0".
_NOT_DECAYED = [r"(?:^|/)(?:bias|beta|gamma)(?:/replica_\d+)?(?::\d+)?$"]


def make_optimizer(
    learning_rate: float,
    *,
    optimizer: OptimizerName = "adam",
    momentum: float | None = 0.9,
    lr_schedule: ScheduleName = "constant",
    lr_power: float | None = 0.9,
    lr_warmup_steps: int = 0,
    total_steps: int | None = None,
    weight_decay: float = 0.0,
    weight_decay_form: Literal["coupled", "decoupled"] | None = "coupled",
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    ema_momentum: float | None = None,
    gradient_accumulation_steps: int = 1,
) -> keras.optimizers.Optimizer:
    """Return an optimizer for `keras.Model.compile`.

    A checkpoint holds its moments and the number of its steps, which is all that the schedule depends on: a training
    that is resumed goes on where it was.

    Args:
        learning_rate: The highest learning rate lr.
        optimizer: "adam", "sgd", or "adamw": Adam with the decoupled form, without biases and normalizations.
        momentum: The momentum of "sgd", in [0, 1), or None. Keras adds lr · gradient to it, PyTorch multiplies it by
            lr: this is the same while lr is constant, and all but the same while it changes slowly.
        lr_schedule: See `schedules.make_schedule`, as for the next two and ``total_steps``.
        lr_power: The power of "poly".
        lr_warmup_steps: The number of updates in which the learning rate rises to lr.
        total_steps: The number of steps in which "cosine" and "poly" come down to 0.
        weight_decay: The weight decay w of every trainable variable, normalization and biases included, as in PyTorch.
        weight_decay_form: With "coupled", w · variable is added to the gradient, before moments and momentum, as in
            PyTorch's SGD and Adam: with a momentum m its effect adds up to 1 / (1 - m) times lr · w. It also moves
            variables with a gradient of zeros, such as a head that was not drawn; PyTorch skips one without a gradient.
            With "decoupled", each step first shrinks the variable by the factor 1 - lr · w, as in AdamW.
        clipnorm: The gradients of all variables together are scaled down to this norm. Clipping sees the gradient of
            the loss alone, in both forms of weight decay, as where PyTorch's `clip_grad_norm_` comes before the step.
        clipvalue: Each gradient entry is clipped to ± this value.
        ema_momentum: Share of itself that an average of each variable keeps in an update, see `averaging`; None: there
            is no average.
        gradient_accumulation_steps: The number of steps whose mean gradient makes an update.

    Raises:
        ValueError: Both kinds of clipping were given, or the schedule lacks a number of steps.
    """
    accumulated = gradient_accumulation_steps
    shape = {"lr_schedule": lr_schedule, "lr_power": lr_power, "lr_warmup_steps": lr_warmup_steps}
    schedule = make_schedule(learning_rate, **shape, gradient_accumulation_steps=accumulated, total_steps=total_steps)
    options: dict[str, Any] = {"global_clipnorm": clipnorm, "clipvalue": clipvalue}
    options["gradient_accumulation_steps"] = accumulated if accumulated > 1 else None
    options |= {"momentum": momentum or 0.0} if optimizer == "sgd" else {}
    options |= {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    is_coupled = optimizer != "adamw" and weight_decay_form == "coupled"
    options["weight_decay"] = None if is_coupled else weight_decay or None
    made = _kind(optimizer, weight_decay if is_coupled else 0.0, averaging=ema_momentum is not None)(
        schedule, **options
    )
    if optimizer == "adamw":
        made.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return made


def _kind(optimizer: OptimizerName, coupled_decay: float, *, averaging: bool) -> type:
    """Return Keras's class, or one derived from it where something is done in another way."""
    kind = keras.optimizers.SGD if optimizer == "sgd" else keras.optimizers.Adam
    kind = _coupled(kind, coupled_decay) if coupled_decay else kind
    kind = _averaging(kind) if averaging else kind
    return _of_whole_batch(kind) if global_batch.devices() > 1 else kind


def _coupled(kind: type, weight_decay: float) -> type:
    """Return an optimizer class with PyTorch's weight decay: Keras knows the decoupled form alone."""

    class Coupled(kind):
        # Not in `apply`, where the gradients are clipped: what arrives here has been.
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            gradient = keras.ops.cast(gradient, variable.dtype)
            super().update_step(gradient + weight_decay * variable, variable, learning_rate)

    return Coupled


def _of_whole_batch(kind: type) -> type:
    """Return an optimizer class that adds up the gradients of all devices first: Keras clips those of each device."""

    class OfWholeBatch(kind):
        def _backend_apply_gradients(self, grads: list[Any], trainable_variables: list[Any]) -> None:
            grads = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, grads)
            super()._backend_apply_gradients(grads, trainable_variables)

        def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
            return list(grads_and_vars)

    return OfWholeBatch


def _averaging(kind: type) -> type:
    """Return an optimizer class whose averages move once in an update and can be exchanged with the variables."""

    class Averaging(kind):
        def build(self, variables: list[Any]) -> None:
            super().build(variables)
            # Keras's are zeros until the first update: as weights they would be none.
            for variable, average in self._pairs():
                average.assign(variable)

        def swap_averages(self) -> None:
            """Exchange the variables and their averages, bit by bit: Keras's callback adds and subtracts them."""
            for variable, average in self._pairs():
                value = keras.ops.convert_to_numpy(variable).copy()
                variable.assign(average)
                average.assign(value)

        # Keras's moves in every step of an accumulation.
        def _update_model_variables_moving_average(self, trainable_variables: list[Any]) -> None:
            ops, steps = keras.ops, self.gradient_accumulation_steps or 1
            is_update = ops.equal((self._iterations + 1) % steps, 0)
            is_first = ops.equal(self._iterations // steps, 0)
            momentum = ops.where(is_update, ops.where(is_first, 0.0, self.ema_momentum), 1.0)
            for variable, average in self._pairs():
                share = ops.cast(momentum, variable.dtype)
                average.assign(share * average + (1 - share) * variable)

        def finalize_variable_values(self, var_list: list[Any]) -> None:
            """Leave the weights as they are when `fit` ends: by then they are the averages, see `averaging`."""

        def _pairs(self) -> list[tuple[Any, Any]]:
            return list(zip(self._trainable_variables, self._model_variables_moving_average, strict=True))

    return Averaging
