"""One trainer for pretraining and finetuning: `keras.Model.fit` in phases, resumable after every epoch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import logging
from tqdm import tqdm

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.models import load_model, save_model
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.training.callbacks import (
    Clock,
    EpochRecorder,
    TrainingDiverged,
    check_weights,
    tensorboard_callbacks,
)
from self_supervised_3d_tasks.training.checkpoints import (
    Row,
    read_history,
    read_state,
    restore_best,
    restore_state,
    write_state,
)

__all__ = [
    "Phase",
    "TrainingDiverged",
    "fit",
    "load_model",
    "read_history",
    "restore_best",
    "save_model",
    "set_determinism",
    "set_precision",
]

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


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and the backend; with ``deterministic`` also choose deterministic kernels.

    TensorFlow cannot leave deterministic kernels again within one process.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def set_precision(mixed_precision: str) -> None:
    """Choose the compute type of layers built from now on: ``"none"``, ``"bfloat16"`` or ``"float16"``.

    Variables stay float32. "float16" scales the loss automatically once a model is compiled.

    Raises:
        UserError: Another name.
    """
    if mixed_precision not in _POLICIES:
        raise UserError(
            f"mixed_precision: expected one of {', '.join(_POLICIES)}, received {mixed_precision!r}."
            + nearest(str(mixed_precision), _POLICIES)
        )
    keras.config.set_dtype_policy(_POLICIES[mixed_precision])


def fit(
    model: keras.Model,
    *,
    phases: Sequence[Phase],
    train: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset | None,
    steps_per_epoch: int,
    folder: Path,
    resume: bool = False,
    monitor: str | None = "val_loss",
    save_every: int | None = None,
    clock: Clock | None = None,
    samples_per_step: int | None = None,
    observe: Callable[[int], Row] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: bool = True,
) -> list[Row]:
    """Train a model through its phases; killed at any moment and resumed, it ends with the same weights.

    After every epoch, behind its validation, ``state.json``, ``history.csv`` and ``checkpoints/`` are brought
    up to date in ``folder`` (see `checkpoints`).

    Args:
        model: Built; need not be compiled.
        phases: Run one after the other, epochs numbered through.
        train: ``train(n)`` gives the endless stream of batches from step n on, counted from 0 over all phases.
        validation: Finite, the same batches every time; None for no validation.
        steps_per_epoch: Training steps per epoch.
        folder: Run folder; made if it does not exist.
        resume: Go on after the last finished epoch in ``folder``; from the start where there is none.
        monitor: Column of the history that chooses the best weights, lower is better; without validation, of training.
            None: the weights of the last epoch count as the best.
        save_every: Also keep the weights of every this many epochs.
        clock: Gives the column ``wait_share``: the share of the training time spent on waiting for data.
        samples_per_step: Gives the column ``samples_per_second``.
        observe: Gives further columns of an epoch, counted from 1, when its validation is over.
        callbacks: Keras callbacks, whose epochs are counted from 0 over all phases.
        tensorboard: Write TensorBoard logs, if the package tensorboard is installed.

    Returns:
        One row per epoch, those before the interruption included: ``epoch`` and ``phase`` (from 1), the logs
        of Keras, ``seconds`` (validation included), ``samples_per_second``, ``wait_share``. The model has the
        weights of the last epoch.

    Raises:
        TrainingDiverged: A loss or a weight became NaN or infinite. The folder holds the epoch before.
        UserError: ``folder`` holds a training that does not fit the arguments, or its files are damaged.
    """
    if validation is None and monitor is not None:
        monitor = monitor.removeprefix("val_")
    finished, ready = _resume(model, phases, steps_per_epoch, folder) if resume else _begin(folder)

    def save(row: Row) -> None:
        check_weights(model, row["epoch"])
        write_state(folder, model, row, steps_per_epoch=steps_per_epoch, monitor=monitor, save_every=save_every)

    watched = {"clock": clock, "samples_per_step": samples_per_step, "observe": observe}
    record = functools.partial(EpochRecorder, steps_per_epoch=steps_per_epoch, save=save, **watched)
    total = sum(phase.epochs for phase in phases)
    with tqdm(total=total, initial=finished, unit="epoch", disable=not sys.stderr.isatty()) as progress:
        for number, phase, first, end in _remaining(phases, finished):
            if number != ready:
                phase.prepare(model)
            own = [record(number, progress=progress).callback()]
            own += tensorboard_callbacks(folder) if tensorboard else []
            epochs = {"initial_epoch": first, "epochs": end, "steps_per_epoch": steps_per_epoch}
            # The stream has its order; Keras warns where it is asked to shuffle a Dataset.
            options = {"validation_data": validation, "shuffle": False, "callbacks": [*callbacks, *own], "verbose": 0}
            model.fit(train(first * steps_per_epoch), **epochs, **options)
    return read_history(folder)


def _begin(folder: Path) -> tuple[int, int]:
    if read_state(folder) is not None:
        raise UserError(f"{folder}: holds a training already; resume it, or choose a new folder")
    return 0, 0


def _resume(model: keras.Model, phases: Sequence[Phase], steps_per_epoch: int, folder: Path) -> tuple[int, int]:
    """Bring the model to where it was; return the numbers of finished epochs and of the compiled phase."""
    state = read_state(folder)
    if state is None:
        return 0, 0
    if state.steps_per_epoch != steps_per_epoch or state.phase > len(phases):
        raise UserError(
            f"{folder}: trained with {state.steps_per_epoch} steps per epoch up to phase {state.phase}; now "
            f"there are {steps_per_epoch} steps per epoch and {len(phases)} phases. Resume with the same "
            "data and settings, or start anew"
        )
    # The phase that wrote the state, even where it has no epoch left: only its optimizer fits the file. Where
    # the next phase begins, fit prepares that one as in an uninterrupted run.
    phases[state.phase - 1].prepare(model)
    restore_state(folder, model, state)
    logging.info("%s: resumed after epoch %d", folder, state.last.epoch)
    return state.last.epoch, state.phase


def _remaining(phases: Sequence[Phase], finished: int) -> Iterator[tuple[int, Phase, int, int]]:
    """Yield number, phase, first epoch and end of every phase with epochs left, counted over all phases."""
    end = 0
    for number, phase in enumerate(phases, start=1):
        first, end = max(end, finished), end + phase.epochs
        if first < end:
            yield number, phase, first, end
