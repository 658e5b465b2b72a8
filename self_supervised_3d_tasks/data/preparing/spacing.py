"""The size of voxels over a cohort: its median, and what a user must know where it differs."""

from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.preprocessing import Preprocessing, millimetres
from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.errors import UserError

MIXED = 1.2  # largest voxel size over smallest, along one axis; what scanners round is far below
MUCH_PADDING = 0.1


def median_spacing(headers: Iterable[Header]) -> tuple[float, ...]:
    """Return the median voxel size in mm along each spatial axis, to a thousandth.

    Raises:
        UserError: No scan says how large its voxels are.
    """
    spacings = _known(headers)
    if not len(spacings):
        raise UserError(
            'target_spacing: "median" needs scans that say how large their voxels are, and none does. Give it in mm '
            "for scans with a header, or remove it."
        )
    return tuple(round(float(size), 3) for size in np.median(spacings, axis=0))


def warn_of_grids(headers: Sequence[Header], preprocessing: Preprocessing) -> None:
    """Warn of voxel sizes that differ and are left as they are, and of windows that are larger than the scans.

    Args:
        headers: Of all scans of a run.
        preprocessing: What happens to them.
    """
    spacings = _known(headers)
    if preprocessing.target_spacing is None and len(spacings):
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        if np.any(high > MIXED * low):
            ranges = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True))
            logging.warning(
                "target_spacing: none, but the voxels of %d scans differ in size: %s mm along their axes. The same "
                'organ then has different sizes for the network; "median" resamples all scans to %s',
                len(spacings),
                ranges,
                millimetres(np.median(spacings, axis=0)),
            )
    if preprocessing.volume_fitting == "crop":
        shares = np.array([preprocessing.padding_share(header) for header in headers])
        if smaller := int(np.count_nonzero(shares)):
            logging.log(
                logging.WARNING if shares.mean() > MUCH_PADDING else logging.INFO,
                "data_dim: %s voxels are more than %d of %d scans have along some axis; they are padded with zeros, "
                "%.0f %% of the voxels of all scans together",
                preprocessing.data_dim,
                smaller,
                len(shares),
                100 * shares.mean(),
            )


def _known(headers: Iterable[Header]) -> np.ndarray:
    """Return the voxel sizes ``(n, rank)`` of the scans that say them."""
    return np.array([header.spacing for header in headers if header.affine is not None])
