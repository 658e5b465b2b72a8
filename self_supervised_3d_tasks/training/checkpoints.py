"""What a training needs to go on after it was killed, written after every epoch.

``state.json`` in the run folder is the only truth: it is replaced last and names the weight files that belong
to it, each with its SHA-256. A file that it does not name is a leftover of an interrupted write.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from typing import Literal

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.checksums import checksum
from self_supervised_3d_tasks.files.json_files import write_json
from self_supervised_3d_tasks.files.models import in_memory
from self_supervised_3d_tasks.files.run_files import Checkpoint, State
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.tables import write_table
from self_supervised_3d_tasks.lazy import keras

Row = dict[str, float]  # one epoch of the history
# Keras words the one warning that we must not miss, or must not show, like this.
_OPTIMIZER_SKIPPED = "Skipping variable loading for optimizer"
_RESTORE = "put the original back, or start a new run without --resume"


def read_state(folder: RunFolder) -> State | None:
    """Return the state of the training in a run folder, or None where no epoch was finished.

    Raises:
        UserError: ``state.json`` is damaged.
    """
    return folder.read(RunFolder.state, State) if folder.state.exists() else None


def read_history(folder: RunFolder) -> list[Row]:
    """Return one row per finished epoch of a run folder; `training.fit` says which columns a row has."""
    state = read_state(folder)
    return rows_of(state) if state else []


def rows_of(state: State) -> list[Row]:
    """Return the rows of the history, NaN where a metric is not a number."""
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in state.history]


def write_state(
    folder: RunFolder,
    model: keras.Model,
    row: Row,
    *,
    steps_per_epoch: int,
    monitor: str | None,
    save_every: int | None,
) -> None:
    """Write everything after an epoch; killed at any moment, the folder holds this epoch or the one before.

    Args:
        folder: The run folder.
        model: Compiled model after the epoch.
        row: The epoch's row of the history, with ``epoch`` and ``phase`` counted from 1.
        steps_per_epoch: Number of training steps in the epoch.
        monitor: Column of the history that chooses the best weights; lower is better. None: the last epoch is the best.
        save_every: The weights of every this many epochs are kept beside the best and the last.
    """
    # A new name for every epoch: state.json and the file that it names cannot be replaced in one step.
    epoch, before = int(row["epoch"]), read_state(folder)
    path = folder.weights(epoch)
    atomic_write_bytes(path, in_memory(model.save_weights, path.name))
    last = Checkpoint(epoch=epoch, file=path.relative_to(folder.path).as_posix(), sha256=checksum(path))
    best, best_value = (before.best, before.best_value) if before else (None, None)
    if monitor is None:
        best = last
    elif math.isfinite(row[monitor]) and (best_value is None or row[monitor] < best_value):
        best, best_value = last, row[monitor]
    seeds = [keras.ops.convert_to_numpy(seed).tolist() for seed in _seed_states(model)]
    history = [*(rows_of(before) if before else []), row]
    columns = list(dict.fromkeys(itertools.chain(*history)))
    write_table(folder.history, columns, ([row.get(column) for column in columns] for row in history))
    # JSON has no NaN: null marks a metric that is not a number.
    rows = [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in history]
    state = State(
        phase=int(row["phase"]),
        steps_per_epoch=steps_per_epoch,
        last=last,
        best=best,
        best_value=best_value,
        seeds=seeds,
        history=rows,
    )
    write_json(folder.state, state.model_dump(mode="json"))
    _remove_unnamed_weights(folder, state, save_every)


def restore_state(model: keras.Model, folder: RunFolder, state: State) -> None:
    """Load layers, optimizer and seed generators as they were after the last finished epoch.

    Args:
        model: Built, and compiled as it was in ``state.phase``.
        folder: The run folder.
        state: What `read_state` gave.

    Raises:
        UserError: The weight file is missing or damaged, or belongs to another model.
    """
    model.optimizer.build(model.trainable_variables)
    _load_weights(model, folder, state.last, missing_optimizer="error")
    seeds = _seed_states(model)
    if len(seeds) != len(state.seeds):
        raise UserError(
            f"{folder.state}: expected the states of {len(seeds)} seed generators, which the model has, received "
            f"{len(state.seeds)}; resume with the settings that the training was started with"
        )
    for variable, values in zip(seeds, state.seeds, strict=True):
        if len(values) != variable.shape[0]:
            raise UserError(
                f"{folder.state}: seeds: expected {variable.shape[0]} numbers per generator, received {len(values)}; "
                f"{_RESTORE}"
            )
        variable.assign(np.asarray(values, variable.dtype))


def restore_best(model: keras.Model, folder: RunFolder) -> int:
    """Load the layers' weights of the epoch with the lowest monitored value and return its number, counted from 1.

    Args:
        model: Built, whether compiled or not; its optimizer may be of another phase.
        folder: The run folder.

    Raises:
        UserError: No epoch had a finite monitored value, or the weight file is missing or damaged.
    """
    state = read_state(folder)
    if state is None or state.best is None:
        raise UserError(f"{folder.path}: no epoch ended with a finite monitored value: no weights are the best")
    # Only the layers are wanted; the optimizer in the file may be that of the warm-up.
    _load_weights(model, folder, state.best, missing_optimizer="ignore")
    return state.best.epoch


def _load_weights(
    model: keras.Model, folder: RunFolder, checkpoint: Checkpoint, *, missing_optimizer: Literal["error", "ignore"]
) -> None:
    path = folder.path / checkpoint.file
    if not path.is_file():
        raise UserError(f"{path}: no such file, though state.json names it; {_RESTORE}")
    if checksum(path) != checkpoint.sha256:
        raise UserError(f"{path}: truncated or altered (its SHA-256 is not the one in state.json); {_RESTORE}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(missing_optimizer, message=_OPTIMIZER_SKIPPED)
            model.load_weights(path)
    # A foreign file can fail in any way inside Keras and HDF5: whatever it is, the user needs the name of the file.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: does not fit the model of this experiment ({reason}); {_RESTORE}") from error


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _remove_unnamed_weights(folder: RunFolder, state: State, save_every: int | None) -> None:
    """Remove the weights that nothing points to any more; state.json is on the disk by now."""
    keep = {folder.path / checkpoint.file for checkpoint in (state.last, state.best) if checkpoint}
    if save_every:
        keep |= {folder.weights(epoch) for epoch in range(0, state.last.epoch, save_every)}
    for path in set(folder.checkpoints.glob("epoch_*.weights.h5")) - keep:
        with contextlib.suppress(OSError):
            path.unlink()
