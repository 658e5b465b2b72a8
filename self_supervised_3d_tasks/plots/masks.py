"""Masks drawn on their scans."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks.plots import canvas

# Bright colours first: they lie on grey pictures.
LABEL_COLOURS = (canvas.ORANGE, canvas.SKY, canvas.GREEN, canvas.YELLOW, canvas.PURPLE, canvas.VERMILION, canvas.BLUE)
# Where the axes of a canonical scan point to: right, anterior, superior.
DIRECTIONS = "RAS"
PLANES = ("sagittal", "coronal", "axial")


class View(NamedTuple):
    """One plane of a scan, ready to be drawn.

    Attributes:
        picture: ``(rows, columns)``, row 0 at the top.
        mask: Labels ``(rows, columns)`` in the same plane.
        size: Width and height in mm.
        title: Text above the plane, for example "axial, slice 12 of 64".
        sides: Letters for the left and the top edge; empty for axes of unknown direction.
    """

    picture: np.ndarray
    mask: np.ndarray
    size: tuple[float, float]
    title: str
    sides: str


def largest_slices(mask: np.ndarray) -> tuple[int, ...]:
    """Return for each axis of ``(*spatial)`` the slice with most foreground; without any, the middle one."""
    foreground = mask != 0
    if not foreground.any():
        return tuple(length // 2 for length in mask.shape)
    axes = range(mask.ndim)
    return tuple(int(foreground.sum(tuple(set(axes) - {axis})).argmax()) for axis in axes)


def views(
    image: np.ndarray, mask: np.ndarray, spacing: Sequence[float], slices: Sequence[int], *, canonical: bool
) -> list[View]:
    """Return the planes of `overlay`: axial, coronal and sagittal, or the 2D image itself.

    Canonical scans are shown in radiological convention: patient right and anterior at the left, superior up.

    Args:
        image: Scan ``(*spatial)``.
        mask: Integer labels ``(*spatial)``.
        spacing: Distance of voxels in mm, one number per axis.
        slices: One index per axis.
        canonical: Whether the axes run to the patient's right, anterior and superior, as the NIfTI reader gives them.
            If not, nothing is mirrored and no directions are written.
    """
    if image.ndim == 2:
        size = (image.shape[1] * spacing[1], image.shape[0] * spacing[0])
        return [View(image, mask, size, "", "")]
    planes = []
    for axis, index in reversed(list(enumerate(slices))):
        across, up = (other for other in range(3) if other != axis)
        flips = (slice(None, None, -1), slice(None, None, -1 if canonical else 1))
        picture, labels = (np.take(array, index, axis).T[flips] for array in (image, mask))
        size = (image.shape[across] * spacing[across], image.shape[up] * spacing[up])
        name = PLANES[axis] if canonical else f"axis {axis}"
        sides = DIRECTIONS[across] + DIRECTIONS[up] if canonical else ""
        planes.append(View(picture, labels, size, f"{name}, slice {index + 1} of {image.shape[axis]}", sides))
    return planes


def overlay(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray,
    title: str,
    spacing: Sequence[float],
    *,
    truth: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    canonical: bool = True,
) -> None:
    """Draw a mask on its scan: three orthogonal planes through the largest foreground, or the 2D image.

    Args:
        path: PNG file.
        image: Scan ``(*spatial)`` or ``(*spatial, channels)``, of which the first channel is shown.
        mask: Integer labels ``(*spatial)``, 0 is background.
        title: Heading.
        spacing: Distance of voxels in mm, one number per axis: pixels are drawn in their true proportions.
        truth: Reference mask ``(*spatial)``, drawn in a row of its own. Unless empty, it chooses the slices.
        names: Names of the labels, for the legend.
        canonical: Whether the axes have the directions that `views` describes.
    """
    image = image[..., 0] if image.ndim > mask.ndim else image
    slices = largest_slices(mask if truth is None or not truth.any() else truth)
    masks = {"": mask} if truth is None else {"Reference": truth, "Prediction": mask}
    rows = {name: views(image, labels, spacing, slices, canonical=canonical) for name, labels in masks.items()}
    labels = sorted({int(label) for labels in masks.values() for label in np.unique(labels)} - {0})
    legend = {label: (names or {}).get(label, f"label {label}") for label in labels}
    _draw(path, title, rows, np.percentile(image, (0.5, 99.5)), legend)


def _draw(
    path: Path, title: str, rows: Mapping[str, Sequence[View]], limits: Sequence[float], legend: Mapping[int, str]
) -> None:
    """Place the planes of each row side by side at one scale, the legend below; lengths in inches."""
    planes = next(iter(rows.values()))
    gap, left, head = 0.1, 0.35 if len(rows) > 1 else 0.1, 0.22
    scale = min(7.0 / sum(view.size[0] for view in planes), 3.4 / max(view.size[1] for view in planes))
    # Planes stand in the middle of black frames of one height, each wide enough for its title.
    widths = [max(1.4 if view.title else 0.0, view.size[0] * scale) for view in planes]
    tall = max(view.size[1] for view in planes) * scale
    content = sum(widths) + gap * len(widths)
    width = max(4.0, left + content)
    columns = max(1, int(width / (0.5 + 0.07 * max(map(len, legend.values()), default=1))))
    top, below = 0.38, 0.17 + 0.19 * max(1, math.ceil(len(legend) / columns))
    with canvas.figure(path, width, top + len(rows) * (head + tall) + below) as figure:
        canvas.write(figure, width / 2, 0.2, canvas.shorten(title, int(width / 0.085)), fontsize=10)
        for name, row in rows.items():
            top += head
            canvas.write(figure, 0.17, top + tall / 2, name, fontsize=9, rotation=90)
            across = left + (width - left - content) / 2
            for view, wide in zip(row, widths, strict=True):
                axes = canvas.place(figure, across, top, wide, tall)
                _draw_view(axes, view, (wide / scale, tall / scale), limits)
                across += wide + gap
            top += tall
        _draw_legend(figure, legend, columns)


def _draw_view(axes: canvas.Axes, view: View, frame: tuple[float, float], limits: Sequence[float]) -> None:
    """Draw a plane in the middle of a black frame; width and height of the frame in mm."""
    from matplotlib.colors import to_rgba
    from matplotlib.patheffects import withStroke

    (width, height), (low, high) = view.size, limits
    place = {"extent": (0, width, height, 0), "aspect": "auto"}
    axes.imshow(view.picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", **place)
    fill = np.zeros((*view.mask.shape, 4))
    for label in np.unique(view.mask[view.mask != 0]):
        region = view.mask == label
        fill[region] = to_rgba(_colour(label), 0.4)
        # A rim of background closes contours at the edge of the picture.
        edges = zip(region.shape, (height, width), strict=True)
        y, x = ((np.arange(-1, length + 1) + 0.5) * size / length for length, size in edges)
        axes.contour(x, y, np.pad(region, 1), [0.5], colors=_colour(label), linewidths=1.0)
    axes.imshow(fill, interpolation="nearest", **place)
    axes.set_facecolor("black")
    axes.set_xlim((width - frame[0]) / 2, (width + frame[0]) / 2)
    axes.set_ylim((height + frame[1]) / 2, (height - frame[1]) / 2)
    axes.set_title(view.title, fontsize=7.5, pad=3)
    outline = [withStroke(linewidth=1.5, foreground="black")]
    edges = ((0.03, 0.5, "left", "center"), (0.5, 0.98, "center", "top"))
    for letter, (x, y, ha, va) in zip(view.sides, edges, strict=False):
        text = axes.text(x, y, letter, transform=axes.transAxes, ha=ha, va=va, fontsize=8, color="white")
        text.set_path_effects(outline)


def _draw_legend(figure: canvas.Figure, legend: Mapping[int, str], columns: int) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=_colour(label), label=name) for label, name in legend.items()]
    handles = handles or [Patch(visible=False, label="no foreground")]
    figure.legend(handles=handles, loc="lower center", ncols=columns, handlelength=1.0, handleheight=0.9)


def _colour(label: int) -> str:
    return LABEL_COLOURS[(int(label) - 1) % len(LABEL_COLOURS)]
