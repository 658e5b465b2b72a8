"""The folder of a run: every file of it by name, and how far the run is."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import itertools
import json
import platform
import re
import secrets
import shlex
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from absl import logging

from self_supervised_3d_tasks import backend
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import run_files
from self_supervised_3d_tasks.files.atomic import TEMPORARY_PREFIX
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.run_files import Kind, Status

_RECORDED_PACKAGES = (
    "self_supervised_3d_tasks keras tensorflow tensorflow-cpu jax jaxlib numpy nibabel scikit-image SimpleITK".split()
)
# A run folder that has no name yet; other unfinished files go on with hexadecimal digits.
_UNNAMED = f"{TEMPORARY_PREFIX}run-"
_WRITTEN_BY_TRAININGS = ("checkpoints", "plots")  # their folders, beside that of the run or the job itself
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}


class _Name:
    """The path of a file or folder that has this name in every run folder."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, folder: RunFolder | None, owner: type) -> Path:
        return Path(self._name) if folder is None else folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """The folder of a pretraining, of a finetuning sweep, or of one job of a sweep, and the files in it.

    ``folder.config`` is the path of its ``config.json``, whether that exists or not; ``RunFolder.config`` is the bare
    name.

    Attributes:
        path: The folder.
    """

    path: Path

    # Of every run.
    config = _Name("config.json")  # the experiment with all its defaults
    environment = _Name("environment.json")
    geometry = _Name("geometry.json")  # what its scans are like for the network
    split = _Name("split.json")  # names of the scans in each part
    status = _Name("status.json")
    plots = _Name("plots")
    # Of every training: a pretraining and a job.
    state = _Name("state.json")  # what is needed to go on with the training
    checkpoints = _Name("checkpoints")
    tensorboard = _Name("tensorboard")
    history = _Name("history.csv")  # a row per epoch
    # Of a pretraining.
    encoder = _Name("encoder.keras")
    encoder_decoder = _Name("encoder_decoder.keras")
    seen = _Name("seen.json")  # subjects and hashes of all scans that it was pretrained on
    task = _Name("task.json")  # what defines the pretext task beyond the keys of its experiment
    pretext_scores = _Name("pretext_scores.csv")
    analysis = _Name("analysis")
    analysis_numbers = _Name("analysis/analysis.json")
    # Of a sweep.
    jobs = _Name("jobs")  # a folder per job
    logs = _Name("logs")  # a file per job, where processes of their own do them
    leakage = _Name("leakage.json")  # test cases that were pretrained on
    results = _Name("results.csv")
    results_long = _Name("results_long.csv")
    statistics = _Name("statistics.csv")
    # Of a job.
    model = _Name("model.keras")
    failure = _Name("failure.json")  # why the job has no scores
    scores = _Name("scores.json")  # written last: the job has finished
    predictions = _Name("predictions.csv")
    loss = _Name("loss.png")
    first_test_case = _Name("first_test_case.png")  # its mask beside the reference

    @classmethod
    def create(cls, base: Path | str, name: str, config: Any) -> RunFolder:
        """Make a new folder ``<base>/<name>``, with the first free suffix ``_1``, ``_2``, … if it exists.

        Two runs that start at the same moment get different folders. A folder has its ``config.json`` from the moment
        that it has its name, so that a process killed in between leaves none without.

        Args:
            base: The folder around it, which is made if it does not exist.
            name: Its name, without the suffix.
            config: What ``config.json`` holds.

        Raises:
            UserError: ``name`` is not a plain folder name, or ``base`` cannot be written to.
        """
        if name in ("", ".", "..") or Path(name).name != name:
            raise UserError(f"run name: expected a folder name without separators, received {name!r}")
        base = Path(base).expanduser()
        unnamed = base / f"{_UNNAMED}{secrets.token_hex(4)}"
        try:
            unnamed.mkdir(parents=True)
            cls(unnamed).write_json(cls.config, config)
            for number in itertools.count():
                path = base / (f"{name}_{number}" if number else name)
                if not path.is_symlink() and not path.exists() and _renamed(unnamed, path):
                    return cls(path)
        except OSError as error:
            raise UserError(f"{base}: no run folder can be made here ({error}); choose another place") from error
        finally:
            shutil.rmtree(unnamed, ignore_errors=True)

    @staticmethod
    def remove_unnamed(base: Path) -> None:
        """Remove what `create` leaves where it is killed; nobody may be making a folder in ``base`` meanwhile."""
        for path in base.glob(f"{_UNNAMED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove what a training or a sweep that was killed left unfinished; none may be working here meanwhile."""
        trainings = [self.path, *self.jobs.glob("*")]
        places = [*trainings, *(folder / name for folder in trainings for name in _WRITTEN_BY_TRAININGS)]
        for path in itertools.chain(*(place.glob(f"{TEMPORARY_PREFIX}*") for place in places)):
            if path.name.startswith(_UNNAMED):
                continue  # of a run that is being made in this folder
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return an existing run folder.

        Raises:
            UserError: There is no such folder.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise UserError(f"{path}: expected the folder of an earlier run, but there is no such folder")
        return cls(path)

    @classmethod
    def all(cls, base: Path | str, name: str) -> list[RunFolder]:
        """Return the folders that `create` has made for ``name``, oldest first (by number: ``_10`` follows ``_9``)."""
        base = Path(base).expanduser()
        pattern = re.compile(rf"{re.escape(name)}(?:_([1-9]\d*))?")
        found = [(pattern.fullmatch(path.name), path) for path in base.glob("*") if path.is_dir()]
        numbered = [(int(match[1] or 0), path) for match, path in found if match]
        return [cls(path) for _, path in sorted(numbered)]

    def weights(self, epoch: int) -> Path:
        """Return the file of layers and optimizer after an epoch of a training, counted from 1."""
        return self.checkpoints / f"epoch_{epoch:04d}.weights.h5"

    def job(self, name: str) -> RunFolder:
        """Return the folder of one job of the sweep."""
        return RunFolder(self.jobs / name)

    def write_json(self, name: Path | str, data: Any) -> None:
        """Write ``data`` atomically as the folder's JSON file ``name``, such as `RunFolder.config`."""
        write_json(self.path / name, data)

    def read_json(self, name: Path | str) -> Any:
        """Return the content of the folder's JSON file ``name``; `UserError` if it is missing or damaged."""
        return read_json(self.path / name)

    def read(self, name: Path | str, kind: type[Kind]) -> Kind:
        """Return the folder's JSON file ``name`` as its model, see `run_files.read`."""
        return run_files.read(self.path / name, kind)

    def pin(self, name: Path | str, data: Any, kind: type[Kind]) -> None:
        """Write the JSON file ``name`` once; whenever the run goes on, the file must hold the same.

        Args:
            name: Of the file.
            data: What it holds.
            kind: Its model.

        Raises:
            UserError: It holds something else: what it describes has changed since the run began.
        """
        path = self.path / name
        now = run_files.checked(path, json.loads(json.dumps(data)), kind)
        if not path.exists():
            self.write_json(name, data)
        elif self.read(name, kind) != now:
            raise UserError(
                f"{path}: the run was started with other scans than it finds now, so that going on would "
                "mix two splits; restore the folders of scans, or start a new run without --resume"
            )

    def record_environment(self, *, seed: int) -> None:
        """Write ``environment.json``, and warn where a run goes on with another backend than it had."""
        now = environment(seed=seed)
        with contextlib.suppress(UserError):  # a damaged record is written anew
            before = self.read_json(RunFolder.environment) if self.environment.exists() else {}
            if isinstance(before, dict) and before.get("backend", now["backend"]) != now["backend"]:
                logging.warning(
                    "%s: goes on with the backend %s, after %s: its numbers agree with those of an uninterrupted run "
                    "to a few digits only, and dropout draws others",
                    self.path,
                    now["backend"],
                    before["backend"],
                )
        self.write_json(RunFolder.environment, now)

    def mark(self, status: Literal["running", "finished"]) -> None:
        """Record how far the run is in ``status.json``."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.write_json(RunFolder.status, {"status": status, "since": now})

    @property
    def is_finished(self) -> bool:
        """Whether the run was marked as finished; one whose mark cannot be read is gone through again."""
        if not self.status.exists():
            return False
        try:
            return self.read(RunFolder.status, Status).status == "finished"
        except UserError as error:
            logging.warning("%s; the run is taken for an unfinished one, and gone through again", error)
            return False


def _renamed(folder: Path, path: Path) -> bool:
    """Rename a folder that holds files; return False where another one took the name meanwhile."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True


def environment(*, seed: int | None = None) -> dict[str, Any]:
    """Return what a run needs to be repeated: package versions, backend, Python, platform, seed and command line."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "versions": versions,
        "backend": backend.name(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seed": seed,
        "command": shlex.join(sys.argv),
    }
