"""One trainer for pretraining and finetuning: `keras.Model.fit` in phases, resumable after every epoch."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from absl import logging
from tqdm import tqdm

from self_supervised_3d_tasks import backend
from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.training.averaging import averaging_callbacks
from self_supervised_3d_tasks.training.callbacks import EpochRecorder, check_weights
from self_supervised_3d_tasks.training.checkpoints import (
    Row,
    read_history,
    read_state,
    remove_unnamed_weights,
    restore_state,
    write_state,
)
from self_supervised_3d_tasks.training.distribution.base import ONE_DEVICE, Distribution
from self_supervised_3d_tasks.training.distribution.processes import is_first
from self_supervised_3d_tasks.training.first_step import make_variables

_POLICIES = {"none": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@dataclass(frozen=True)
class Phase:
    """Epochs that share trainable flags and optimizer.

    Attributes:
        epochs: Number of epochs; 0 leaves the phase out.
        prepare: Sets the trainable flags of the model and compiles it with a fresh optimizer.
    """

    epochs: int
    prepare: Callable[[keras.Model], None]


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        train: ``train(n)`` gives the endless stream of batches from step n on, counted from 0 over all phases.
        validation: A finite dataset, the same batches every time.
        steps_per_epoch: Training steps per epoch.
        samples_per_step: Number of scans in a training step, for the throughput.
    """

    train: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    steps_per_epoch: int
    samples_per_step: int


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and the backend; with ``deterministic`` also choose deterministic kernels.

    TensorFlow cannot leave deterministic kernels again within one process. JAX chooses them as it starts, see
    `backend.make_deterministic`.
    """
    tf.config.get_visible_devices()  # Keras loads TensorFlow next, and would let it see the GPUs of another backend
    keras.utils.set_random_seed(seed)
    if deterministic and backend.name() == "tensorflow":
        tf.config.experimental.enable_op_determinism()


def check_compilation(jit_compile: bool | str) -> None:
    """Raise `UserError` for ``jit_compile`` false on JAX, where steps would be run operation by operation."""
    if jit_compile is False and backend.name() == "jax":
        raise UserError(
            "jit_compile: false: the backend JAX would compile and start every operation by itself, many times slower; "
            'use "auto" or true, or KERAS_BACKEND=tensorflow'
        )


def check_precision(mixed_precision: str, rank: int) -> None:
    """Refuse what this machine cannot compute: on a CPU TensorFlow pools no volume in float16.

    Args:
        mixed_precision: As `set_precision` takes it.
        rank: 2 for pictures, 3 for volumes.

    Raises:
        UserError: It cannot; what can be chosen is named.
    """
    on_tensorflow = backend.name() == "tensorflow"
    if on_tensorflow and mixed_precision == "float16" and rank == 3 and not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "mixed_precision: float16 needs a GPU, and TensorFlow sees none here; "
            'use "bfloat16" or "none", or a machine with a GPU'
        )


def set_precision(mixed_precision: str) -> None:
    """Choose the compute type of layers built from now on: ``"none"``, ``"bfloat16"`` or ``"float16"``.

    Variables stay float32. "float16" scales the loss automatically once a model is compiled.
    """
    keras.config.set_dtype_policy(_POLICIES[mixed_precision])


def fit(
    model: keras.Model,
    *,
    data: TrainingData,
    phases: Sequence[Phase],
    folder: RunFolder,
    monitor: str | None = "val_loss",
    save_every: int | None = None,
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribution: Distribution = ONE_DEVICE,
) -> list[Row]:
    """Train a model through its phases; killed at any moment and called again, it ends with the same weights.

    After every epoch the files of ``folder`` are brought up to date. A training that it holds already goes on.

    Args:
        model: Built; need not be compiled.
        data: What it is trained and validated on.
        phases: Run one after the other, epochs numbered through.
        folder: The run folder, which is made if it does not exist.
        monitor: Column of the history that chooses the best weights, the lowest value; None: the last epoch is best.
        save_every: Also keep the weights of every this many epochs.
        patience: Epochs of the last phase in a row without a lower ``monitor`` than before, after which it stops.
        callbacks: With epochs from 0 over all phases; what they add to the logs becomes columns of the history.
        distribution: The one whose scope the model was built in.

    Returns:
        One row per epoch, earlier ones included: ``epoch`` and ``phase`` (from 1), the logs of Keras, ``seconds`` (with
        validation), ``samples_per_second`` and ``wait_share``, that of the training time which was spent on waiting for
        data. The model has the weights of the last epoch, or their `averaging` ones.

    Raises:
        TrainingDiverged: A loss or a weight became NaN or infinite. The folder holds the epoch before.
        UserError: ``folder`` holds a training that does not fit the arguments, or its files are damaged.
    """
    finished, ready = _resume(model, phases, data.steps_per_epoch, folder, save_every)
    clock, is_over = WaitClock(), functools.partial(_stands_still, folder, len(phases), monitor, patience)

    def save(row: Row) -> None:
        check_weights(model, row["epoch"])
        write_state(folder, model, row, steps_per_epoch=data.steps_per_epoch, monitor=monitor, save_every=save_every)
        model.stop_training = is_over()

    timed = replace(data, train=lambda first_step: clock.attach(data.train(first_step)))
    epochs, steps = sum(phase.epochs for phase in phases), data.steps_per_epoch
    progress = tqdm(total=epochs * steps, initial=finished * steps, unit="step", disable=None if is_first() else True)
    with progress, _told_when_interrupted(folder, epochs):
        for number, phase, first, end in _remaining(() if is_over() else phases, finished):
            if number != ready:
                phase.prepare(model)
            recorder = EpochRecorder(number, steps, data.samples_per_step, clock, save, epochs, progress)
            _fit_phase(model, timed, (first, end), [*callbacks, recorder.callback()], distribution)
    return read_history(folder)


def _fit_phase(
    model: keras.Model,
    data: TrainingData,
    epochs: tuple[int, int],
    callbacks: Sequence[keras.callbacks.Callback],
    distribution: Distribution,
) -> None:
    """Train a compiled model from an epoch to another one."""
    first, end = epochs
    averaging = averaging_callbacks(model)
    validation, validating = distribution.validation(model, data.validation, averaging)
    batches = data.train(first * data.steps_per_epoch)
    make_variables(model, batches)
    model.fit(
        batches,
        initial_epoch=first,
        epochs=end,
        steps_per_epoch=data.steps_per_epoch,
        validation_data=validation,
        shuffle=False,  # Keras warns where it is asked to shuffle a Dataset
        callbacks=[*averaging, *validating, *callbacks],
        verbose=0,
    )


@contextlib.contextmanager
def _told_when_interrupted(folder: RunFolder, epochs: int) -> Iterator[None]:
    """Say what is kept of a training that a signal ends: whole epochs, so that it goes on bit for bit."""
    try:
        yield
    except KeyboardInterrupt:
        kept = len(read_history(folder))
        logging.warning("%s: %d of %d epochs are kept; what came after them is dropped", folder.path, kept, epochs)
        raise


def _stands_still(folder: RunFolder, phase: int, monitor: str | None, patience: int | None) -> bool:
    """Return whether a phase has not become better for ``patience`` epochs; the history alone says so."""
    if monitor is None or patience is None:
        return False
    history = read_history(folder)
    values = [row[monitor] for row in history if row["phase"] == phase]
    values = [value if math.isfinite(value) else math.inf for value in values]
    if len(values) <= patience or min(values[-patience:]) < min(values[:-patience]):
        return False
    logging.info("stopped after epoch %d: %d epochs without a lower %s", history[-1]["epoch"], patience, monitor)
    return True


def _resume(
    model: keras.Model, phases: Sequence[Phase], steps_per_epoch: int, folder: RunFolder, save_every: int | None
) -> tuple[int, int]:
    """Bring the model to where it was; return the numbers of finished epochs and of the compiled phase."""
    state = read_state(folder)
    if state is None:
        return 0, 0
    if state.steps_per_epoch != steps_per_epoch or state.phase > len(phases):
        raise UserError(
            f"{folder.path}: trained with {state.steps_per_epoch} steps per epoch up to phase {state.phase}; now "
            f"there are {steps_per_epoch} steps per epoch and {len(phases)} phases. Resume with the same "
            "data and settings, or start anew"
        )
    # The phase that wrote the state, even where it has no epoch left: only its optimizer fits the file. Where
    # the next phase begins, fit prepares that one as in an uninterrupted run.
    phases[state.phase - 1].prepare(model)
    restore_state(model, folder, state)
    remove_unnamed_weights(folder, state, save_every)  # of one that was killed behind its last epoch
    logging.info("%s: resumed after epoch %d", folder.path, state.last.epoch)
    return state.last.epoch, state.phase


def _remaining(phases: Sequence[Phase], finished: int) -> Iterator[tuple[int, Phase, int, int]]:
    """Yield number, phase, first epoch and end of every phase with epochs left, counted over all phases."""
    end = 0
    for number, phase in enumerate(phases, start=1):
        first, end = max(end, finished), end + phase.epochs
        if first < end:
            yield number, phase, first, end
