"""Slices of one DICOM series, or frames of one file, as a grid: sorted along their normal, with one affine.

Slices are sorted by where they lie, for neither file names nor instance numbers need follow the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from self_supervised_3d_tasks.errors import UserError

_SAME = 1e-3  # what rounding changes of a direction's cosines, or as a share of a voxel size
_UNEVEN = 0.1  # of a step between slices; a missing slice makes it 1 or more
_OFF_LINE = 0.5  # of a pixel that a slice may lie beside the line through the first and the last one
_MOST_NAMED = 3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Slice:
    """Where one slice lies.

    Args:
        file: Its file.
        frame: Its number in a multi-frame file, from 0; None in a file of one slice.
        size: Columns and rows.
        spacing: Distance between columns and between rows in mm.
        directions: Unit vectors ``(2, 3)``, towards the next column and the next row, in LPS.
        position: Centre of the first pixel in mm, LPS.
        thickness: Distance to the next slice in mm as the header says it, or None; counts where there is no other.
    """

    file: Path
    frame: int | None
    size: tuple[int, int]
    spacing: tuple[float, float]
    directions: np.ndarray
    position: np.ndarray
    thickness: float | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file.name if self.frame is None else f"frame {self.frame + 1} of {self.file.name}"


@dataclass(frozen=True)
class Stack:
    """A whole series.

    Args:
        places: File and frame of each slice, in the direction of the normal.
        shape: ``(columns, rows, slices)``.
        affine: ``(4, 4)``, index to mm in RAS directions.
    """

    places: tuple[tuple[Path, int | None], ...]
    shape: tuple[int, int, int]
    affine: np.ndarray


def stack(slices: Sequence[Slice], path: Path) -> Stack:
    """Return the grid of the slices of a series.

    Args:
        slices: One or more, in any order.
        path: The scan, which messages name.

    Raises:
        UserError: The slices differ in orientation, pixel spacing or size; two lie at one position, or one is missing.
    """
    first = slices[0]
    _check_alike(slices, path)
    normal = np.cross(*first.directions)
    along = np.array([piece.position @ normal for piece in slices])
    order = np.argsort(along, kind="stable")
    slices, along = [slices[number] for number in order], along[order]
    _check_doubles(slices, along, path)
    _check_gaps(slices, along, path)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[0]
    affine[:3, 1] = first.directions[1] * first.spacing[1]
    affine[:3, 2] = _step(slices, normal, path)
    affine[:3, 3] = slices[0].position
    _check_line(slices, affine, path)
    return Stack(tuple((piece.file, piece.frame) for piece in slices), (*first.size, len(slices)), _LPS_TO_RAS @ affine)


def _step(slices: Sequence[Slice], normal: np.ndarray, path: Path) -> np.ndarray:
    """Return the way from one slice to the next, ``(3,)``, in mm."""
    if len(slices) > 1:
        return (slices[-1].position - slices[0].position) / (len(slices) - 1)
    thickness = slices[0].thickness
    if thickness is None or not thickness > 0:
        raise UserError(
            f"{path}: is one slice with SliceThickness {thickness}; expected how thick it is in mm, or more slices. "
            "Set SliceThickness, or add the other slices."
        )
    return normal * thickness


def _check_alike(slices: Sequence[Slice], path: Path) -> None:
    first = slices[0]
    for piece in slices:
        for what, one, other, same in (
            ("size (columns, rows)", first.size, piece.size, first.size == piece.size),
            ("pixel spacing", first.spacing, piece.spacing, np.allclose(first.spacing, piece.spacing, rtol=_SAME)),
            (
                "orientation",
                first.directions.round(4).tolist(),
                piece.directions.round(4).tolist(),
                np.allclose(first.directions, piece.directions, rtol=0, atol=_SAME),
            ),
        ):
            if not same:
                raise UserError(
                    f"{path}: {first.name} has the {what} {one}, but {piece.name} {other}; expected one {what} in a "
                    "series. Is one a localizer? Move the slices that differ into a folder of their own."
                )


def _check_doubles(slices: Sequence[Slice], along: np.ndarray, path: Path) -> None:
    doubled = np.flatnonzero(np.diff(along) < _SAME * min(slices[0].spacing))
    if not len(doubled):
        return
    one, other = slices[doubled[0]], slices[doubled[0] + 1]
    distinct = len(slices) - len(doubled)
    several = len(slices) % distinct == 0
    remedy = (
        f"Is it a time series, or has it several echoes or b-values ({len(slices)} slices at {distinct} positions)? "
        "Move the slices of each into a folder of their own."
        if several
        else "Remove one of the two."
    )
    raise UserError(
        f"{path}: {one.name} and {other.name} lie at the same position ({along[doubled[0]]:g} mm along the normal, "
        f"{len(doubled)} such pairs); expected one slice per position. {remedy}"
    )


def _check_gaps(slices: Sequence[Slice], along: np.ndarray, path: Path) -> None:
    gaps = np.diff(along)
    if len(gaps) < 2:
        return
    multiples = gaps / gaps.min()
    is_incomplete = np.abs(multiples - multiples.round()).max() < _UNEVEN
    step = gaps.min() if is_incomplete else np.median(gaps)
    uneven = np.flatnonzero(np.abs(gaps - step) > _UNEVEN * step)
    if not len(uneven):
        return
    named = "; ".join(
        f"from {along[number]:.6g} mm ({slices[number].name}) to {along[number + 1]:.6g} mm "
        f"({slices[number + 1].name}) it is {gaps[number]:.4g} mm"
        for number in uneven[:_MOST_NAMED]
    )
    more = f"; {len(uneven) - _MOST_NAMED} more such gaps" if len(uneven) > _MOST_NAMED else ""
    what = "slices are missing" if is_incomplete else "slices are spaced unevenly"
    raise UserError(
        f"{path}: {what}. The distance along the normal is {step:.4g} mm, but {named}{more}. Expected one distance in "
        f"a series. {'Copy the others, too' if is_incomplete else 'Resample it onto an even grid'}."
    )


def _check_line(slices: Sequence[Slice], affine: np.ndarray, path: Path) -> None:
    line = affine[:3, 3] + np.arange(len(slices))[:, None] * affine[:3, 2]
    distance = np.linalg.norm([piece.position for piece in slices] - line, axis=1)
    worst = int(distance.argmax())
    if distance[worst] > _OFF_LINE * min(np.linalg.norm(affine[:3, :3], axis=0)):
        raise UserError(
            f"{path}: {slices[worst].name} lies {distance[worst]:.3g} mm beside the line through the first and the "
            "last slice; expected slices above each other. Are these two scans? Move one into a folder of its own."
        )
