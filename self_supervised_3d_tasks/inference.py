"""Dense prediction for images of any size: sliding windows, Gaussian blending, masks on the scan's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice, product

import numpy as np

from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.errors import UserError
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


def sliding_window(
    predict: Predict,
    image: np.ndarray,
    window: Sequence[int],
    *,
    num_classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
) -> np.ndarray:
    """Predict an image of any size by overlapping windows with Gaussian-weighted blending.

    Memory beside the image: one accumulator of the result's size and one batch of windows.

    Args:
        predict: Function from ``(batch, *window, channels)`` to probabilities ``(batch, *window, num_classes)``.
        image: Image ``(*spatial, channels)`` of any rank. Where it is smaller than the window it is zero-padded
            on both sides; the result has the image's shape again.
        window: Shape of the window in voxels, one number per spatial axis.
        num_classes: Channels of the result.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        batch_size: Windows per call of ``predict``. The last batch is filled with zeros, so that every call
            has the same shape and nothing is compiled twice.

    Returns:
        Probabilities ``(*spatial, num_classes)``, float32.

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
    if padded.shape[:-1] == window:
        return _call(predict, padded[None], num_classes)[0][inside]

    axes = [_axis_windows(*axis, overlap) for axis in zip(padded.shape[:-1], window, strict=True)]
    places = [tuple(zip(*place, strict=True)) for place in product(*axes)]
    windows = (padded[region] for region, _ in places)
    blended = np.zeros((*padded.shape[:-1], num_classes), np.float32)
    batches = predict_in_batches(
        lambda batch: _call(predict, batch, num_classes), windows, min(batch_size, len(places))
    )
    for (region, weights), values in zip(places, chain.from_iterable(batches), strict=True):
        blended[region] += reduce(np.multiply.outer, weights)[..., None] * values
    return blended[inside]


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


def predict_case(
    model: keras.Model | Predict,
    volume: Volume,
    preprocessing: Preprocessing,
    *,
    num_classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
) -> np.ndarray:
    """Predict the integer mask of one scan on the scan's own voxel grid.

    "resize" and "exact" take one forward pass over the whole image, "crop" slides a window of ``data_dim``
    over it. Probabilities, not labels, are brought back to the scan's grid: borders are rounded once.

    Args:
        model: Model that gives logits, or a function from a batch of images to probabilities.
        volume: Scan as it was read; its array is ``(*spatial, channels)``.
        preprocessing: Preprocessing that the model was trained with.
        num_classes: Classes including background.
        overlap: Share of a window that its neighbour covers too, in [0, 1).
        batch_size: Windows per call of the model.

    Returns:
        Mask ``(*spatial)``, uint8, labels 0 to ``num_classes - 1``.
    """
    predict = predictor(model) if hasattr(model, "predict_on_batch") else model
    settings = {"num_classes": num_classes, "overlap": overlap, "batch_size": batch_size}
    image, placement = preprocessing.prepare(volume)
    probabilities = sliding_window(predict, image, preprocessing.data_dim, **settings)
    restored = preprocessing.restore(probabilities, placement)
    return np.argmax(restored, axis=-1).astype(np.uint8)


def _pad(image: np.ndarray, window: tuple[int, ...]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Zero-pad symmetrically up to the window; return the image and the slices that undo it."""
    missing = [max(0, size - length) for length, size in zip(image.shape[:-1], window, strict=True)]
    before = [count // 2 for count in missing]
    inside = tuple(slice(first, first + size) for first, size in zip(before, image.shape[:-1], strict=True))
    if not any(missing):
        return image, inside
    widths = [(first, count - first) for first, count in zip(before, missing, strict=True)]
    return np.pad(image, [*widths, (0, 0)]), inside


def _axis_windows(length: int, window: int, overlap: float) -> list[tuple[slice, np.ndarray]]:
    starts = window_starts(length, window, overlap)
    regions = [slice(start, start + window) for start in starts]
    return list(zip(regions, blending_weights(starts, window), strict=True))


def _call(predict: Predict, windows: np.ndarray, num_classes: int) -> np.ndarray:
    probabilities = np.asarray(predict(windows), np.float32)
    expected = (*windows.shape[:-1], num_classes)
    if probabilities.shape != expected:
        raise ValueError(f"predict returned shape {probabilities.shape} for {windows.shape}, expected {expected}.")
    return probabilities
