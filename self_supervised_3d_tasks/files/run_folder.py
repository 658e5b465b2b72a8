"""The folder of a run: every file of it by name, and how far the run is."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import platform
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import read_json, write_json

_RECORDED_PACKAGES = (
    "self_supervised_3d_tasks keras tensorflow tensorflow-cpu numpy nibabel scikit-image SimpleITK".split()
)


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
    def create(cls, base: Path | str, name: str) -> RunFolder:
        """Make a new folder ``<base>/<name>``, with the first free suffix ``_1``, ``_2``, … if it exists.

        Two runs that start at the same moment get different folders, because making a folder is atomic.

        Raises:
            UserError: ``name`` is not a plain folder name, or ``base`` cannot be written to.
        """
        if name in ("", ".", "..") or Path(name).name != name:
            raise UserError(f"run name: expected a folder name without separators, received {name!r}")
        base = Path(base).expanduser()
        try:
            base.mkdir(parents=True, exist_ok=True)
            for number in itertools.count():
                path = base / (f"{name}_{number}" if number else name)
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    return cls(path)
        except OSError as error:
            raise UserError(f"{base}: no run folder can be made here ({error}); choose another place") from error

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

    def pin_json(self, name: Path | str, data: Any) -> None:
        """Write the JSON file ``name`` once; whenever the run goes on, the file must hold the same.

        Raises:
            UserError: It holds something else: what it describes has changed since the run began.
        """
        if not (self.path / name).exists():
            self.write_json(name, data)
        elif self.read_json(name) != json.loads(json.dumps(data)):
            raise UserError(
                f"{self.path / name}: the run was started with other scans than it finds now, so that going on would "
                "mix two splits; restore the folders of scans, or start a new run without --resume"
            )

    def mark(self, status: Literal["running", "finished"]) -> None:
        """Record how far the run is in ``status.json``."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.write_json(RunFolder.status, {"status": status, "since": now})

    @property
    def is_finished(self) -> bool:
        """Whether the run was marked as finished."""
        return self.status.exists() and self.read_json(RunFolder.status).get("status") == "finished"


def environment(*, seed: int | None = None) -> dict[str, Any]:
    """Return what a run needs to be repeated: package versions, Python, platform, seed and command line."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seed": seed,
        "command": shlex.join(sys.argv),
    }
