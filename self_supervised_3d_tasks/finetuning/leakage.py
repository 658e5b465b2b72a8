"""Test cases that the encoder was pretrained on: their scores do not tell what it does on scans that it has not seen.

Pretraining needs no labels, so that it is easily run on all scans of a cohort, test scans included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from self_supervised_3d_tasks import transfer
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.seen import Seen
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.files.run_folder import RunFolder

MAX_NAMED = 10
_REMEDY = "pretrain without them, test on others, or remove forbid_leakage"


@dataclass(frozen=True)
class Leakage:
    """Which test cases of a sweep were among the scans of its pretraining.

    Attributes:
        num_cases: Number of test cases.
        unknown: Why it cannot be checked; empty where it can.
        by_voxels: Names of the cases of which a channel was pretrained on; None where their voxels were not looked at.
        by_subject: Names of further ones whose subject has the name of one of the pretraining.
    """

    num_cases: int
    unknown: str = ""
    by_voxels: Sequence[str] | None = None
    by_subject: Sequence[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return a sentence for the log and for the note below the tables."""
        if self.unknown:
            return f"whether test cases were among the scans of the pretraining is unknown: {self.unknown}"
        cases = f"{self.num_cases} test cases"
        if self.by_voxels is None:
            later = "voxels are compared when the scans are read"
            return f"{len(self.by_subject)} of {cases} are of the pretraining by subject name; {later}"
        found = f"{len(self.by_voxels)} of {cases} were among the scans of the pretraining"
        more = f"; {len(self.by_subject)} more are of it by subject name, with other voxels" if self.by_subject else ""
        return found + more

    @property
    def is_clean(self) -> bool:
        """Whether no test case is known to have been pretrained on, and all could be checked."""
        return not (self.unknown or self.by_voxels or self.by_subject)

    def forbid(self) -> None:
        """Raise `UserError` with the names of the cases, unless there are none."""
        if self.unknown:
            raise UserError(f"forbid_leakage: {self}; pretrain again, or remove forbid_leakage")
        lists = {"": self.by_voxels or [], " by subject name": self.by_subject}
        names = [f"{', '.join(cases[:MAX_NAMED])}{how}" for how, cases in lists.items() if cases]
        if names:
            raise UserError(
                f"forbid_leakage: {self}: {'; '.join(names)}"
                f"{', …' if max(map(len, lists.values())) > MAX_NAMED else ''}. {_REMEDY.capitalize()}."
                + (" Other people of the same name can be told apart by subject_pattern." if self.by_subject else "")
            )


def look_for(
    experiment: FinetuneExperiment, cases: Sequence[Case], channels: Mapping[Case, list[str]] | None = None
) -> Leakage | None:
    """Compare test cases with the scans of the pretraining.

    Args:
        experiment: The sweep.
        cases: Its test cases.
        channels: Hashes of the channels of each that can be used, see `data.content`; None: they are not read yet.

    Returns:
        What was found, or None where the sweep has no pretrained mode.

    Raises:
        UserError: The list of the scans of the pretraining is damaged; or ``forbid_leakage`` is set, and test cases are
            among them or may be.
    """
    if all(mode == "random" for mode, _ in experiment.modes()):
        return None
    found = _compare(transfer.find_encoder(experiment.model_checkpoint), cases, channels)
    if experiment.forbid_leakage:
        found.forbid()
    return found


def _compare(encoder: Path, cases: Sequence[Case], channels: Mapping[Case, list[str]] | None) -> Leakage:
    path = RunFolder(encoder.parent).seen
    if not path.exists():
        reason = f"{path} does not exist, as for encoders without their run folder and those of earlier versions"
        return Leakage(len(cases), reason)
    seen = Seen.read(path)
    if channels is None:
        return Leakage(len(cases), by_subject=[case.name for case in cases if seen.has_subject(case)])
    same = [case for case in cases if case in channels and seen.has_voxels(channels[case])]
    others = [case.name for case in cases if seen.has_subject(case) and case not in set(same)]
    return Leakage(len(cases), by_voxels=[case.name for case in same], by_subject=others)
