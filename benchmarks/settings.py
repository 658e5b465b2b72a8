"""What a run of the benchmarks was asked for."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from benchmarks.isolated import Failed


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurements.

    Attributes:
        tasks: Names of the pretext tasks.
        ranks: 2 for pictures, 3 for volumes.
        side: Voxels per axis of a volume.
        filters: Filters of the first level of a U-Net.
        steps: Rounds that are timed.
        sides: Voxels per axis of the volumes whose growth is measured.
        numbers_of_files: How many files are listed and read.
        jax: Whether steps are measured with JAX too.
        until: Time of `time.monotonic` after which nothing more is measured.
    """

    tasks: tuple[str, ...]
    ranks: tuple[int, ...] = (2, 3)
    side: int = 64
    filters: int = 8
    steps: int = 6
    sides: tuple[int, ...] = (32, 48, 64, 96, 128)
    numbers_of_files: tuple[int, ...] = (100, 1000, 10_000)
    jax: bool = True
    until: float = float("inf")

    def for_gpu(self, until: float) -> Settings:
        """Return the sizes for a GPU and a time that is short."""
        return dataclasses.replace(
            self, side=96, filters=16, steps=10, numbers_of_files=(100, 1000), jax=False, until=until
        )

    @property
    def slow_steps(self) -> int:
        """Rounds of what is several times slower."""
        return max(2, self.steps // 4)

    def check_time(self) -> None:
        """Raise `Failed` where the time is over."""
        if time.monotonic() > self.until:
            raise Failed("the time was over")

    def tell(self, line: str) -> None:
        """Print a line of progress."""
        print(line, flush=True)
