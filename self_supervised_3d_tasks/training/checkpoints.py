"""What a training needs to go on after it was killed, written after every epoch.

``state.json`` in the run folder is the only truth: it is replaced last and names the weight files that belong
to it, each with its SHA-256. A file that it does not name is a leftover of an interrupted write.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.atomic import TEMPORARY_PREFIX, atomic_write, checksum, read_json, write_json
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.tables import write_table
from self_supervised_3d_tasks.lazy import keras

Row = dict[str, float]  # one epoch of the history
# Keras words the one warning that we must not miss, or must not show, like this.
_OPTIMIZER_SKIPPED = "Skipping variable loading for optimizer"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one finished epoch: layers and optimizer, a plain Keras ``.weights.h5`` file.

    Attributes:
        epoch: Number of finished epochs.
        file: Path relative to the run folder, so that the folder can be moved.
        sha256: Of the file: Keras loads an altered ``.weights.h5`` without a word.
    """

    epoch: int
    file: str
    sha256: str


@dataclass(frozen=True)
class State:
    """Content of ``state.json``.

    Attributes:
        phase: Phase of the last finished epoch, counted from 1.
        steps_per_epoch: Steps that an epoch had; with the epoch it gives the position in the training stream.
        last: Weights after the last finished epoch.
        best: Weights with the lowest monitored value, or the last; None until one was finite.
        best_value: That value; None where nothing is monitored.
        seeds: State of every seed generator (dropout); `keras.Model.save_weights` leaves them out.
        history: One row per finished epoch.
    """

    phase: int
    steps_per_epoch: int
    last: Checkpoint
    best: Checkpoint | None
    best_value: float | None
    seeds: list[list[int]]
    history: list[Row]


def read_state(folder: Path) -> State | None:
    """Return the state of the training in a run folder, or None where no epoch was finished.

    Raises:
        UserError: ``state.json`` is damaged.
    """
    path = RunFolder(folder).state
    if not path.exists():
        return None
    content = read_json(path)
    try:
        best, history = content.pop("best"), content.pop("history")
        return State(
            last=Checkpoint(**content.pop("last")),
            best=Checkpoint(**best) if best else None,
            history=[_with_nan(row) for row in history],
            **content,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the state of a training ({error}); delete it to start anew") from error


def read_history(folder: Path) -> list[Row]:
    """Return one row per finished epoch of a run folder; see `training.fit` for its columns."""
    state = read_state(folder)
    return state.history if state else []


def write_state(
    folder: Path, model: keras.Model, row: Row, *, steps_per_epoch: int, monitor: str | None, save_every: int | None
) -> State:
    """Write everything after an epoch; killed at any moment, the folder holds this epoch or the one before.

    Args:
        folder: Run folder.
        model: Compiled model after the epoch.
        row: The epoch's row of the history, with ``epoch`` and ``phase`` counted from 1.
        steps_per_epoch: See `State`.
        monitor: Column of the history; lower is better. None: the last epoch is the best.
        save_every: Keep the weights of every this many epochs beside the best and the last.

    Returns:
        The new state.

    Raises:
        UserError: The history has no column ``monitor``.
    """
    if monitor is not None and monitor not in row:
        known = f"known: {', '.join(row)}.{nearest(monitor, row)}"
        raise UserError(f"monitor: {monitor!r} is not logged; {known}")
    before = read_state(folder)
    last = _write_weights(folder, model, epoch=int(row["epoch"]))
    state = State(
        phase=int(row["phase"]),
        steps_per_epoch=steps_per_epoch,
        last=last,
        best=before.best if before else None,
        best_value=before.best_value if before else None,
        seeds=[keras.ops.convert_to_numpy(seed).tolist() for seed in _seed_states(model)],
        history=[*(before.history if before else []), row],
    )
    value = None if monitor is None else row[monitor]
    if value is None:
        state = replace(state, best=last)
    elif math.isfinite(value) and (state.best_value is None or value < state.best_value):
        state = replace(state, best=last, best_value=value)
    _write_table(RunFolder(folder).history, state.history)
    content = asdict(state) | {"history": [_without_nan(row) for row in state.history]}
    write_json(RunFolder(folder).state, content)
    _prune(folder, state, save_every)
    return state


def restore_state(folder: Path, model: keras.Model, state: State) -> None:
    """Load layers, optimizer and seed generators as they were after the last finished epoch.

    Args:
        folder: Run folder.
        model: Built, and compiled as it was in ``state.phase``.
        state: What `read_state` gave.

    Raises:
        UserError: The weight file is missing or damaged, or belongs to another model.
    """
    model.optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_OPTIMIZER_SKIPPED)
        path = _load_weights(folder, model, state.last)
    seeds = _seed_states(model)
    if len(seeds) != len(state.seeds):
        counts = f"{len(state.seeds)} seed generators, but the model has {len(seeds)}"
        raise UserError(f"{path}: written for {counts}; resume with the settings that it was started with")
    for variable, values in zip(seeds, state.seeds, strict=True):
        variable.assign(np.asarray(values, variable.dtype))


def restore_best(model: keras.Model, folder: Path) -> int:
    """Load the layers' weights of the epoch with the lowest monitored value.

    Args:
        model: Built, whether compiled or not; its optimizer may be of another phase.
        folder: Run folder.

    Returns:
        That epoch, counted from 1.

    Raises:
        UserError: No epoch had a finite monitored value, or the weight file is missing or damaged.
    """
    state = read_state(folder)
    if state is None or state.best is None:
        raise UserError(f"{folder}: no epoch ended with a finite monitored value: no weights are the best")
    with warnings.catch_warnings():
        # Only the layers are wanted; the optimizer in the file may be that of the warm-up.
        warnings.filterwarnings("ignore", message=_OPTIMIZER_SKIPPED)
        _load_weights(folder, model, state.best)
    return state.best.epoch


def _weights_file(epoch: int) -> str:
    return f"{RunFolder.checkpoints}/epoch_{epoch:04d}.weights.h5"


def _write_weights(folder: Path, model: keras.Model, *, epoch: int) -> Checkpoint:
    # A new name for every epoch: state.json and the file that it names cannot be replaced in one step.
    file = _weights_file(epoch)
    with atomic_write(folder / file) as temporary:
        model.save_weights(temporary)
    return Checkpoint(epoch, file, checksum(folder / file))


def _load_weights(folder: Path, model: keras.Model, checkpoint: Checkpoint) -> Path:
    path = folder / checkpoint.file
    restart = f"put the original back, or delete {RunFolder(folder).state} to train from the start"
    if not path.is_file():
        raise UserError(f"{path}: no such file, though state.json names it; {restart}")
    if checksum(path) != checkpoint.sha256:
        raise UserError(f"{path}: truncated or altered (its SHA-256 is not the one in state.json); {restart}")
    try:
        model.load_weights(path)
    except (ValueError, UserWarning) as error:
        raise UserError(f"{path}: does not fit the model of this experiment ({error}); {restart}") from error
    return path


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _without_nan(row: Row) -> dict[str, float | None]:
    """Return the row with None, JSON's null, for a metric that is not a number: JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _with_nan(row: dict[str, float | None]) -> Row:
    return {name: math.nan if value is None else value for name, value in row.items()}


def _write_table(path: Path, history: list[Row]) -> None:
    columns = list(dict.fromkeys(column for row in history for column in row))
    write_table(path, columns, ([row.get(column) for column in columns] for row in history))


def _prune(folder: Path, state: State, save_every: int | None) -> None:
    """Remove the weights that nothing points to any more; state.json is on the disk by now."""
    keep = {checkpoint.file for checkpoint in (state.last, state.best) if checkpoint}
    if save_every:
        keep |= {_weights_file(epoch) for epoch in range(0, state.last.epoch, save_every)}
    for pattern in ("epoch_*.weights.h5", f"{TEMPORARY_PREFIX}*"):
        for path in RunFolder(folder).checkpoints.glob(pattern):
            if path.relative_to(folder).as_posix() not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()
