"""What happens around the steps of `keras.Model.fit`: divergence guard, history, progress, TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from absl import logging
from tqdm import tqdm

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.training.checkpoints import Row

Logs = dict[str, float] | None


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite: no later step can be trusted, so training stops."""


def check_weights(model: keras.Model, epoch: int) -> None:
    """Raise `TrainingDiverged` if a weight is not finite.

    The loss does not always show it: on a CPU the maximum of 0 and NaN is 0, so that a ReLU turns the NaN of a broken
    convolution into zeros and the loss stays at chance.
    """
    for variable in model.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise TrainingDiverged(f"the weight {variable.path} became NaN or infinite in epoch {epoch}")


class Clock(Protocol):
    """Tells how long training steps have waited for data."""

    def seconds(self) -> float:
        """Return the seconds waited so far."""


@dataclass
class EpochRecorder:
    """Turns every epoch into one row of the history and hands it to ``save``.

    Its methods go into one `keras.callbacks.LambdaCallback`, so that their order is fixed: an epoch is
    checked before it is saved, and saved before it is reported.

    Attributes:
        phase: Number of the phase, from 1.
        steps_per_epoch: Training steps per epoch.
        save: Receives the row when the epoch and its validation are over.
        progress: Bar over epochs; where it is disabled (no terminal) an epoch gives one line of log instead.
        clock: Gives ``wait_share``, None for no such column.
        samples_per_step: Gives ``samples_per_second``, None for no such column.
        observe: Gives further columns of an epoch, counted from 1, when its validation is over.
    """

    phase: int
    steps_per_epoch: int
    save: Callable[[Row], object]
    progress: tqdm
    clock: Clock | None = None
    samples_per_step: int | None = None
    observe: Callable[[int], Row] | None = None
    _epoch: int = field(default=0, init=False)
    _started: float = field(default=0.0, init=False)
    _trained: float = field(default=0.0, init=False)
    _waited: float = field(default=0.0, init=False)

    def callback(self) -> keras.callbacks.Callback:
        """Return the Keras callback."""
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=self._begin_epoch, on_train_batch_end=self._end_step, on_epoch_end=self._end_epoch
        )

    def _begin_epoch(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1
        self._started = time.perf_counter()
        self._waited = self.clock.seconds() if self.clock else 0.0

    def _end_step(self, step: int, logs: Logs = None) -> None:
        # Keras logs the mean over the epoch so far: it stays non-finite from the first bad step on, so none
        # is missed.
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            place = f"epoch {self._epoch}, step {step + 1} of {self.steps_per_epoch}"
            raise TrainingDiverged(f"the loss became {loss} in {place}")
        self._trained = time.perf_counter()

    def _end_epoch(self, epoch: int, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in sorted((logs or {}).items())}
        if not math.isfinite(metrics.get("val_loss", 0.0)):
            place = f"epoch {self._epoch}, after step {self.steps_per_epoch}"
            raise TrainingDiverged(f"the validation loss became {metrics['val_loss']} in {place}")
        timing = self._timing()
        observed = self.observe(self._epoch) if self.observe else {}
        if logs is not None:
            logs.update(observed)  # for the callbacks behind this one: TensorBoard draws what it finds here
        row = {"epoch": self._epoch, "phase": self.phase, **metrics, **observed, **timing}
        self.save(row)
        self._report(row)

    def _timing(self) -> Row:
        """Return the epoch's seconds, and throughput and waiting relative to its training part alone."""
        timing = {"seconds": time.perf_counter() - self._started}
        trained = max(self._trained - self._started, 1e-9)
        if self.samples_per_step is not None:
            timing["samples_per_second"] = self.steps_per_epoch * self.samples_per_step / trained
        if self.clock is not None:
            timing["wait_share"] = min(max((self.clock.seconds() - self._waited) / trained, 0.0), 1.0)
        return timing

    def _report(self, row: Row) -> None:
        losses = {name: f"{row[name]:.4g}" for name in ("loss", "val_loss") if name in row}
        self.progress.set_postfix(losses, refresh=False)
        self.progress.update()
        if self.progress.disable:
            columns = "  ".join(f"{name} {value:.4g}" for name, value in list(row.items())[2:])
            logging.info("epoch %d/%d  %s", row["epoch"], self.progress.total, columns)


def tensorboard_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    """Return the callback that logs into ``folder/tensorboard``, or none without that package."""
    if importlib.util.find_spec("tensorboard") is None:
        logging.info("no TensorBoard logs are written: the package tensorboard is not installed")
        return []
    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]
