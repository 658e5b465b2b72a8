"""The scans that an encoder was pretrained on, as its run folder keeps them: names, subjects and hashes of voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.files import run_files
from self_supervised_3d_tasks.files.run_files import SeenScans


def record_scans(parts: Mapping[str, VolumeStore]) -> dict[str, Any]:
    """Return what `Seen.read` reads: a line per scan of each part of the split."""
    return {
        "scans": [
            {"part": part, "case": case.name, "subject": case.subject, "channels": store.content(index)}
            for part, store in parts.items()
            for index, case in enumerate(store.cases)
        ]
    }


@dataclass(frozen=True)
class Seen:
    """What is known of the scans of a pretraining, those that only validated it included.

    Attributes:
        channels: A hash of each channel of each scan, see `content`.
        subjects: Whose scans they are.
    """

    channels: frozenset[str]
    subjects: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Seen:
        """Read what `record_scans` gave.

        Raises:
            UserError: The file is missing or damaged.
        """
        scans = run_files.read(path, SeenScans).scans
        channels = frozenset(channel for scan in scans for channel in scan.channels)
        return cls(channels, frozenset(scan.subject for scan in scans))

    def has_voxels(self, channels: list[str]) -> bool:
        """Return whether some channel, given by its hash, is one of the pretraining."""
        return not self.channels.isdisjoint(channels)

    def has_subject(self, case: Case) -> bool:
        """Return whether a subject of the pretraining has the name of that of a case."""
        return case.subject in self.subjects
