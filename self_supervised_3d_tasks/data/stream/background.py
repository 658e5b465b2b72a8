"""Which crops of a scan hold too much background, such as air, or too little of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from absl import logging

TRIES = 10  # places that are looked at for one crop
Place = tuple[slice, ...]


@dataclass(frozen=True)
class Background:
    """The share of background that a crop is to have.

    Zhou et al. 2023, "A Unified Visual Information Preservation Framework for Self-supervised Pre-training in Medical
    Image Analysis", section 4.3, leave out crops of CT with more than 85 % of their voxels below -150 HU: (0, 0.85).
    Their code keeps no others, since lung is mostly air: (0.85, 1).

    Args:
        level: Voxels with every channel below it are background; in [0, 1], as the prepared scans.
        share: Least and most, in [0, 1].
    """

    level: float
    share: tuple[float, float]

    @classmethod
    def in_window(cls, level: float, share: tuple[float, float], window: tuple[float, float] | None) -> Background:
        """Return that of a level in the units of the files, which ``window`` maps to [0, 1]; None: it is in [0, 1]."""
        low, high = window or (0.0, 1.0)
        return cls((level - low) / (high - low), share)

    def excess(self, crop: np.ndarray) -> float:
        """Return how far the share of background in a crop ``(*spatial, channels)`` lies outside the range, or 0."""
        below = np.all(crop < self.level, axis=-1)
        share = np.count_nonzero(below) / below.size  # three times as fast as the mean
        return max(self.share[0] - share, share - self.share[1], 0.0)

    def choose(
        self, read: Callable[[Place], np.ndarray], places: Iterable[Place], name: str
    ) -> tuple[Place, np.ndarray]:
        """Return the first place with a share in the range, or with none that of the nearest share, and its crop.

        Of several places with the nearest share it is the first.

        Args:
            read: Gives the crop ``(*spatial, channels)`` in [0, 1] at a place.
            places: At least one; no more are drawn than are looked at.
            name: Name of the scan, for the warning, once in a process, that no place was good.
        """
        chosen, nearest = None, np.inf
        for place in places:
            excess = self.excess(crop := read(place))
            if excess < nearest:
                chosen, nearest = (place, crop), excess
            if nearest == 0:
                return chosen
        logging.log_first_n(
            logging.WARNING,
            "background_share: of %d random crops of %s none has a share from %g to %g below background_level; the "
            "nearest, %.2g off, is used. If most scans are like this one, change one of the two keys.",
            1,
            *(TRIES, name, *self.share, nearest),
        )
        return chosen
