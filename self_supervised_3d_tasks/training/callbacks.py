"""What happens around the steps of `keras.Model.fit`: divergence guard, history, progress, TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from absl import logging
from tqdm import tqdm

from self_supervised_3d_tasks import terminal
from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import TrainingDiverged
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.training.checkpoints import Row
from self_supervised_3d_tasks.training.epoch_line import epoch_line

Logs = dict[str, float] | None


def check_weights(model: keras.Model, epoch: int) -> None:
    """Raise `TrainingDiverged` if a weight is not finite.

    The loss does not always show it: on a CPU the maximum of 0 and NaN is 0, so that a ReLU turns the NaN of a broken
    convolution into zeros and the loss stays at chance.
    """
    for variable in model.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise TrainingDiverged(f"the weight {variable.path} became NaN or infinite in epoch {epoch}")


@dataclass
class EpochRecorder:
    """Turns every epoch into one row of the history and hands it to ``save``.

    An epoch is checked before it is saved, and saved before it is reported. It stands behind the callbacks that add
    columns to the logs of an epoch.

    Attributes:
        phase: Number of the phase, from 1.
        steps_per_epoch: Training steps per epoch.
        samples_per_step: Number of scans in a step, for the column ``samples_per_second``.
        clock: Measures the waiting for data, for the column ``wait_share``.
        save: Receives the row when the epoch and its validation are over.
        epochs: Number of epochs of all phases.
        progress: Bar over the steps of all epochs, disabled where there is no terminal.
    """

    phase: int
    steps_per_epoch: int
    samples_per_step: int
    clock: WaitClock
    save: Callable[[Row], object]
    epochs: int
    progress: tqdm
    _started: float = field(default=0.0, init=False)
    _trained: float = field(default=0.0, init=False)
    _waited: float = field(default=0.0, init=False)
    _epoch: int = field(default=0, init=False)

    def callback(self) -> keras.callbacks.Callback:
        """Return the Keras callback."""
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=self._begin_epoch, on_train_batch_end=self._end_step, on_epoch_end=self._end_epoch
        )

    def _begin_epoch(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1
        self.progress.set_description(f"epoch {self._epoch}/{self.epochs}", refresh=False)
        self._started, self._waited = time.perf_counter(), self.clock.seconds()

    def _end_step(self, step: int, logs: Logs = None) -> None:
        # Keras logs the mean over the epoch so far: it stays non-finite from the first bad step on, so none
        # is missed.
        self._check("loss", float((logs or {}).get("loss", 0.0)), step + 1)
        self._trained = time.perf_counter()
        self.progress.update()
        terminal.check()

    def _end_epoch(self, epoch: int, logs: Logs = None) -> None:
        metrics = {name: float(value) for name, value in sorted((logs or {}).items())}
        self._check("validation loss", metrics.get("val_loss", 0.0), self.steps_per_epoch)
        # Throughput and waiting are those of the training part of the epoch alone.
        trained = max(self._trained - self._started, 1e-9)
        row = {
            "epoch": self._epoch,
            "phase": self.phase,
            **metrics,
            "seconds": time.perf_counter() - self._started,
            "samples_per_second": self.steps_per_epoch * self.samples_per_step / trained,
            "wait_share": min(max((self.clock.seconds() - self._waited) / trained, 0.0), 1.0),
        }
        self.save(row)
        with tqdm.external_write_mode():  # the line stands above the bar
            logging.info("%s", epoch_line(row, self.epochs))

    def _check(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            place = f"epoch {self._epoch}, step {step} of {self.steps_per_epoch}"
            raise TrainingDiverged(f"the {name} became {value} in {place}")


def add_columns(measure: Callable[[int], Row]) -> keras.callbacks.Callback:
    """Return the callback that adds columns to the logs of every epoch when its validation is over.

    Args:
        measure: Is given the number of the epoch, counted from 1, and returns the values by column.
    """
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(measure(epoch + 1)))


def tensorboard_callbacks(folder: RunFolder) -> list[keras.callbacks.Callback]:
    """Return the callback that logs into the run folder for TensorBoard, or none without that package.

    It draws what it finds in the logs of an epoch, so it stands behind the callbacks that add columns to them.
    """
    if importlib.util.find_spec("tensorboard") is None:
        logging.info("no TensorBoard logs are written: the package tensorboard is not installed")
        return []
    return [keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False)]
