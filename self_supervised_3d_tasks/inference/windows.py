"""Dense prediction for images of any size: sliding windows, blended with Gaussian weights and given piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, islice, product

import numpy as np

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.inference.pieces import Piece, moved
from self_supervised_3d_tasks.lazy import keras

# (batch, *window, channels) -> probabilities (batch, *window, num_classes)
Predict = Callable[[np.ndarray], np.ndarray]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return the first voxel of every window along one axis: regular stride, last window moved to the border.

    Args:
        length: Voxels along the axis, at least ``window``.
        window: Voxels of the window along the axis.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
    """
    stride = max(1, round(window * (1.0 - overlap)))
    return [*range(0, length - window, stride), length - window]


def gaussian_weights(window: int) -> np.ndarray:
    """Return a Gaussian bump ``(window,)`` along one axis, sigma = window / 8 (nnU-Net, Isensee et al. 2021).

    Predictions are worse near the border of a window, where the context is cut off: they count less there.
    """
    distance = np.arange(window) - (window - 1) / 2.0
    return np.exp(-0.5 * (distance / (window / 8.0)) ** 2)


def blending_weights(starts: Sequence[int], window: int) -> np.ndarray:
    """Return weights ``(len(starts), window)`` of the windows along one axis; at every voxel they sum to one.

    An n-dimensional Gaussian is the product of its axes and windows stand on a product grid, so normalising
    each axis normalises the blend: no second volume of summed weights, no division by tiny sums in corners.
    """
    profile = gaussian_weights(window)
    total = np.zeros(starts[-1] + window)
    for start in starts:
        total[start : start + window] += profile
    return np.stack([profile / total[start : start + window] for start in starts]).astype(np.float32)


def sliding_pieces(
    predict: Predict,
    image: np.ndarray,
    window: Sequence[int],
    *,
    num_classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
) -> Iterator[Piece]:
    """Predict an image of any size by overlapping windows with Gaussian-weighted blending, piece by piece.

    A piece is given as soon as no further window touches it. Memory beside the image: what the next windows along the
    first axis of the order share with the last ones, some rows of windows, and one batch of them.

    Args:
        predict: Function from ``(batch, *window, channels)`` to probabilities ``(batch, *window, num_classes)``.
        image: Image ``(*spatial, channels)`` of any rank. Where it is smaller than the window it is zero-padded
            on both sides; the pieces cover the image's own voxels.
        window: Shape of the window in voxels, one number per spatial axis.
        num_classes: Channels of the result.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        batch_size: Windows per call of ``predict``. The last batch is filled with zeros, so that every call
            has the same shape and nothing is compiled twice.

    Yields:
        Pieces of probabilities, float32; each voxel is in one of them. A piece is overwritten when the next is asked
        for.

    Raises:
        UserError: The window has another rank than the image, or overlap or batch size is out of range.
    """
    window = tuple(window)
    if len(window) != image.ndim - 1 or min(*window, batch_size) < 1 or not 0.0 <= overlap < 1.0:
        raise UserError(
            f"Sliding window: expected {image.ndim - 1} numbers of at least 1 as the window of an image of shape "
            f"{image.shape} (*spatial, channels), a batch size of at least 1 and an overlap in [0, 1); received window "
            f"{window}, batch size {batch_size} and overlap {overlap}."
        )
    padded, inside = _pad(image, window)
    axes = [_axis_windows(*axis, overlap) for axis in zip(padded.shape[:-1], window, strict=True)]
    order = sorted(range(len(axes)), key=lambda axis: axes[axis][0].carried / padded.shape[axis])
    # In the order in which the blend asks for them; each place has one window per axis, in the order of the axes.
    places = [
        tuple(place[order.index(axis)] for axis in range(len(axes)))
        for place in product(*(axes[axis] for axis in order))
    ]
    batches = predict_in_batches(
        lambda batch: _call(predict, batch, num_classes),
        (padded[tuple(each.region for each in place)] for place in places),
        min(batch_size, len(places)),
    )
    blend = _Blend(axes, order, _weighted(places, chain.from_iterable(batches), num_classes), num_classes)
    back = [-part.start for part in inside]
    bounds = [slice(0, size) for size in image.shape[:-1]]
    for piece in blend.pieces():
        yield from moved(piece, back, bounds)


@dataclass(frozen=True)
class _Window:
    """A window along one axis.

    Attributes:
        region: Its voxels.
        weights: ``(window,)``, see `blending_weights`.
        finished: Voxels from its first one on that no further window touches.
        carried: The most voxels that a window of this axis leaves to the next one.
    """

    region: slice
    weights: np.ndarray
    finished: int
    carried: int


@dataclass(frozen=True)
class _Blend:
    """The blend of all windows, axis after axis.

    Attributes:
        axes: The windows along each axis.
        order: The axes, the outermost loop first: the one along which windows share the smallest part of the image.
        values: Weighted predictions ``(*window, num_classes)`` of all windows, in that order; they are overwritten.
        num_classes: Channels of the predictions.
    """

    axes: Sequence[Sequence[_Window]]
    order: Sequence[int]
    values: Iterator[np.ndarray]
    num_classes: int

    def pieces(self, level: int = 0) -> Iterator[Piece]:
        """Yield what is finished, in voxels of the image along the axes from ``level`` on, of a window along others."""
        if level == len(self.order):
            yield (slice(None),) * level, next(self.values)
            return
        axis = self.order[level]
        windows = self.axes[axis]
        carry = np.empty(self._carry_shape(level), np.float32)
        arrived = 0  # voxels of the window that the one before has begun
        for window in windows:
            left = len(window.weights) - window.finished
            for place, values in self.pieces(level + 1):
                values[_along(axis, slice(0, arrived))] += carry[_at(place, axis, slice(0, arrived))]
                carry[_at(place, axis, slice(0, left))] = values[_along(axis, slice(window.finished, None))]
                first = window.region.start
                done = _at(place, axis, slice(first, first + window.finished))
                yield done, values[_along(axis, slice(0, window.finished))]
            arrived = left

    def _carry_shape(self, level: int) -> tuple[int, ...]:
        """Return the shape of what windows along an axis leave to the next one: a window along the axes before it."""
        shape = [self.axes[axis][-1].region.stop for axis in range(len(self.axes))]
        for axis in self.order[:level]:
            shape[axis] = len(self.axes[axis][0].weights)
        shape[self.order[level]] = self.axes[self.order[level]][0].carried
        return (*shape, self.num_classes)


def _weighted(
    places: Sequence[Sequence[_Window]], predictions: Iterator[np.ndarray], num_classes: int
) -> Iterator[np.ndarray]:
    """Yield the weighted prediction of each place, always in the same array: two fewer of them in memory at once."""
    weighted = np.empty((*(len(each.weights) for each in places[0]), num_classes), np.float32)
    for place in places:
        weights = reduce(np.multiply.outer, [each.weights for each in place])
        yield np.multiply(weights[..., None], next(predictions), out=weighted)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    """Return the index that takes a part of one axis and all of the others."""
    return (*(slice(None),) * axis, part)


def _at(place: tuple[slice, ...], axis: int, part: slice) -> tuple[slice, ...]:
    """Return a place with another part of one axis."""
    return (*place[:axis], part, *place[axis + 1 :])


def predict_in_batches(
    predict: Callable[[np.ndarray], np.ndarray], images: Iterable[np.ndarray], batch_size: int
) -> Iterator[np.ndarray]:
    """Yield the predictions of one batch of images after the other; the images are read one batch at a time.

    The last batch is filled up with zeros, so that all have the same shape and nothing is compiled twice.

    Args:
        predict: The function from ``(batch_size, *spatial, channels)`` to an array of as many predictions.
        images: Images ``(*spatial, channels)`` of one shape.
        batch_size: Images per call of ``predict``.
    """
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        filled = np.zeros((batch_size, *batch[0].shape), np.float32)
        filled[: len(batch)] = batch
        yield predict(filled)[: len(batch)]


def predictor(model: keras.Model) -> Predict:
    """Return the function that turns a batch of images into class probabilities with ``model``.

    Args:
        model: Model that gives logits ``(batch, *spatial, num_classes)``. Its compiled predict step is kept by the
            model itself, so a second predictor of the same model does not trace again.
    """

    def predict(batch: np.ndarray) -> np.ndarray:
        logits = model.predict_on_batch(batch)
        # With several replicas each one predicts the whole batch and Keras strings the copies together.
        logits = keras.ops.cast(logits[: len(batch)], "float32")
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits, axis=-1))

    return predict


def _pad(image: np.ndarray, window: tuple[int, ...]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Zero-pad symmetrically up to the window; return the image and the slices that undo it."""
    missing = [max(0, size - length) for length, size in zip(image.shape[:-1], window, strict=True)]
    before = [count // 2 for count in missing]
    inside = tuple(slice(first, first + size) for first, size in zip(before, image.shape[:-1], strict=True))
    if not any(missing):
        return image, inside
    widths = [(first, count - first) for first, count in zip(before, missing, strict=True)]
    return np.pad(image, [*widths, (0, 0)]), inside


def _axis_windows(length: int, window: int, overlap: float) -> list[_Window]:
    starts = window_starts(length, window, overlap)
    finished = [following - start for start, following in zip(starts, [*starts[1:], length], strict=True)]
    carried = max(window - count for count in finished)
    weights = blending_weights(starts, window)
    regions = [slice(start, start + window) for start in starts]
    return [_Window(*each, carried) for each in zip(regions, weights, finished, strict=True)]


def _call(predict: Predict, windows: np.ndarray, num_classes: int) -> np.ndarray:
    probabilities = np.asarray(predict(windows), np.float32)
    expected = (*windows.shape[:-1], num_classes)
    if probabilities.shape != expected:
        raise ValueError(f"predict returned shape {probabilities.shape} for {windows.shape}, expected {expected}.")
    return probabilities
