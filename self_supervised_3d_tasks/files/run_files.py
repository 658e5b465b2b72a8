"""What the JSON files of a run folder hold: a model per file, through which it is read.

Such a file may have been edited, cut off or taken from elsewhere since it was written. Where it does not fit its model,
the message names the file and the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, InstanceOf, JsonValue, ValidationError, model_validator

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.paths import shown

Name = InstanceOf[str]  # of a scan: bytes of file names that are no UTF-8 are kept, which a plain str would refuse
# A whole number stays one. JSON has no NaN: null stands for it.
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)] | FiniteFloat | None
Positive = Annotated[int, Field(gt=0)]
_COLUMNS = {"phase", "loss", "val_loss"}  # beside the epoch; the others belong to the task
_RESTORE = "restore it from a copy, or start a new run without --resume"


class RunFile(BaseModel):
    """A file of a run folder; numbers are numbers and texts texts, nothing is converted."""

    model_config = ConfigDict(strict=True, frozen=True)


class Status(RunFile):
    """``status.json``: how far the run is."""

    status: Literal["running", "finished"]
    since: str = ""


class Skipped(RunFile):
    """A scan that could not be used."""

    case: Name
    reason: Name


class PretrainingSplit(RunFile):
    """``split.json`` of a pretraining: names of the scans of each part."""

    train: list[Name]
    validation: list[Name]
    skipped: list[Skipped] = []


class SweepSplit(RunFile):
    """``split.json`` of a sweep: names of the scans of each part, with folds by repetition; labels of whole scans."""

    train: dict[str, list[Name]]
    validation: list[Name] | dict[str, list[Name]]
    test: list[Name] | dict[str, list[Name]]
    labels: dict[Name, int | str] = {}
    test_labels: dict[Name, int | str] = {}
    skipped: list[Skipped] = []


class SeenScan(RunFile):
    """A scan of a pretraining, with the hash of each of its channels."""

    case: Name = ""
    subject: Name
    channels: list[str]


class SeenScans(RunFile):
    """``seen.json``: the scans that an encoder was pretrained on."""

    scans: list[SeenScan]


class Task(RunFile):
    """``task.json``: what defines a pretext task beyond its keys, which is compared and never used."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]


class Spacings(RunFile):
    """Least, median and largest voxel size of the scans in mm, per axis."""

    least: list[FiniteFloat]
    median: list[FiniteFloat]
    largest: list[FiniteFloat]

    @model_validator(mode="after")
    def _check(self) -> Spacings:
        if not len(self.least) == len(self.median) == len(self.largest):
            raise ValueError("expected as many axes in each of least, median and largest")
        if min(*self.least, *self.median, *self.largest, 1) <= 0:
            raise ValueError("expected sizes above 0")
        return self


class Geometry(RunFile):
    """``geometry.json``: what the scans of a run are like for its network, as far as it is read again."""

    orientation: str | None
    spacing_of_files: Spacings | None
    spacing: list[Annotated[FiniteFloat, Field(gt=0)]] | None


class LeakageRecord(RunFile):
    """``leakage.json``, as far as it is read again."""

    summary: Name


class JobScores(RunFile):
    """``scores.json`` of a job: of each score ``[case, name, value]``, null where the score has no value."""

    best_val_loss: FiniteFloat
    scores: list[Annotated[tuple[Name, str, Number], Field(strict=False)]]


class JobFailure(RunFile):
    """``failure.json`` of a job that has no scores: why.

    Attributes:
        kind: diverged: the loss or a weight became NaN or infinite; mistake: of the user; defect: of the program;
            ended: its process was ended from outside, or never began.
        reason: For people.
        traceback: Of a defect.
    """

    kind: Literal["diverged", "mistake", "defect", "ended"]
    reason: Name
    traceback: str | None


class Checkpoint(RunFile):
    """Weights of one finished epoch: layers and optimizer, a plain Keras ``.weights.h5`` file.

    Attributes:
        epoch: Number of finished epochs.
        file: Path relative to the run folder, so that the folder can be moved.
        sha256: SHA-256 of the file, because Keras loads an altered ``.weights.h5`` without a word.
    """

    epoch: Positive
    file: Annotated[str, Field(pattern=r"^checkpoints/epoch_\d{4,}\.weights\.h5$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class State(RunFile):
    """``state.json``: what a training needs to go on.

    Attributes:
        phase: Phase of the last finished epoch, counted from 1.
        steps_per_epoch: Steps that an epoch had; with the epoch it gives the position in the training stream.
        last: Weights after the last finished epoch.
        best: Weights with the lowest monitored value, or the last; None until one was finite.
        best_value: That value; None where nothing is monitored.
        seeds: State of every seed generator (dropout); `keras.Model.save_weights` leaves them out.
        history: One row per finished epoch; None where a number is not finite.
    """

    phase: Positive
    steps_per_epoch: Positive
    last: Checkpoint
    best: Checkpoint | None
    best_value: Number
    seeds: list[list[Annotated[int, Field(ge=0, lt=2**32)]]]
    history: list[dict[str, Number]]

    @model_validator(mode="after")
    def _check(self) -> State:
        if [row.get("epoch") for row in self.history] != list(range(1, self.last.epoch + 1)):
            raise ValueError(f"history: expected a row for each of the epochs 1 to {self.last.epoch}, last.epoch")
        if self.best and self.best.epoch > self.last.epoch:
            raise ValueError(f"best.epoch: expected at most {self.last.epoch}, last.epoch, received {self.best.epoch}")
        if missing := _COLUMNS - set.intersection(*map(set, self.history)):
            raise ValueError(f"history: expected {' and '.join(sorted(missing))} in every row")
        return self


Kind = TypeVar("Kind", bound=RunFile)
_REMEDIES: dict[type[RunFile], str] = {
    Status: "",  # is made again without a word of the user
    SeenScans: "restore it from a copy, or remove it to go on unchecked",
    Geometry: "restore it from a copy, or remove it to go on unchecked",
    JobFailure: "finetune.py with --resume tries the job again",
    JobScores: "finetune.py with --resume makes it again",
}


def read(path: Path, kind: type[Kind]) -> Kind:
    """Read a JSON file of a run folder.

    Args:
        path: The file.
        kind: What it must hold; other keys are left alone.

    Raises:
        UserError: The file is missing, is no JSON, or holds something else.
    """
    return checked(path, read_json(path), kind)


def checked(path: Path, content: Any, kind: type[Kind]) -> Kind:
    """Return the content of a file as its model; `UserError` where it does not fit."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        parts = f"{path}: {_sentence(first)}{more}", _REMEDIES.get(kind, _RESTORE)
        raise UserError("; ".join(filter(None, parts))) from None


def _sentence(error: dict[str, Any]) -> str:
    """Turn one pydantic error into ``key: expectation, received …``."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{key}: this key is missing"
    if error["type"] == "value_error":
        return ": ".join(filter(None, [key, str(error["ctx"]["error"])]))
    if not key:
        return f"expected a JSON object of keys, received {shown(repr(error['input']))}"
    message = error["msg"].replace("Input should be", "expected")
    return f"{key}: {message}, received {shown(repr(error['input']))}"
