"""The learning rate in the course of a training: a linear warm-up, then constant, a half cosine or a polynomial."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from self_supervised_3d_tasks.lazy import keras

ScheduleName = Literal["constant", "cosine", "poly"]


def make_schedule(
    learning_rate: float,
    *,
    lr_schedule: ScheduleName = "constant",
    lr_power: float | None = None,
    lr_warmup_steps: int = 0,
    gradient_accumulation_steps: int = 1,
    total_steps: int | None = None,
) -> Any:
    """Return the learning rate as a function of the step, or the number itself where it stays the same.

    Counted are updates of the weights u = 0, 1, …, of which there is one in ``gradient_accumulation_steps`` steps;
    Keras alone would move on within an update. For u below W = ``lr_warmup_steps`` the learning rate is
    lr · (u + 1) / W. Then it comes down over the rest, with p = (u - W) / (updates - W).

    Args:
        learning_rate: The highest learning rate lr.
        lr_schedule: "constant": lr. "cosine": lr · (1 + cos(π p)) / 2. "poly": lr · (1 - p) ^ power.
        lr_power: The power of "poly".
        lr_warmup_steps: Updates of the warm-up.
        gradient_accumulation_steps: Steps in an update.
        total_steps: Steps of the training; "cosine" and "poly" are 0 behind them.

    Raises:
        ValueError: "cosine" or "poly" without a number of steps, or not more updates than those of the warm-up.
    """
    if lr_schedule == "constant" and not lr_warmup_steps:
        return learning_rate
    updates = None
    if lr_schedule != "constant":
        updates = (total_steps or 0) // gradient_accumulation_steps - lr_warmup_steps
        if updates < 1:
            raise ValueError(
                f"lr_schedule {lr_schedule!r} needs the number of steps, beyond those of the warm-up; received "
                f"total_steps={total_steps}, lr_warmup_steps={lr_warmup_steps}"
            )

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            ops = keras.ops
            update = ops.cast(ops.floor_divide(step, gradient_accumulation_steps), "float32")
            rate = ops.full_like(update, learning_rate)
            if updates:
                part = ops.clip((update - lr_warmup_steps) / updates, 0.0, 1.0)
                rate *= (1 + ops.cos(math.pi * part)) / 2 if lr_schedule == "cosine" else (1 - part) ** lr_power
            if lr_warmup_steps:
                rate = ops.minimum(rate, learning_rate * (update + 1) / lr_warmup_steps)
            return rate

        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("optimizers are not saved, only their variables")

    return Schedule()


def learning_rates(schedule: Any, total_steps: int) -> np.ndarray:
    """Return the learning rate of each step, ``(total_steps,)``, of what `make_schedule` gave."""
    steps = np.arange(total_steps)
    return keras.ops.convert_to_numpy(schedule(steps)) if callable(schedule) else np.full(len(steps), schedule)
