"""Predictions on the voxel grid of the scan itself, whatever grid the model sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from self_supervised_3d_tasks.data.preparing.placement import Placement
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.files.scratch import scratch
from self_supervised_3d_tasks.inference.pieces import Piece, cover, moved, outside, slabs
from self_supervised_3d_tasks.inference.windows import Predict, predictor, sliding_pieces
from self_supervised_3d_tasks.lazy import keras


@dataclass(frozen=True)
class PreparedScan:
    """A scan as a model sees it, and the way back to its own grid.

    Args:
        preprocessing: Preprocessing that the model was trained with.
        image: ``(*spatial, channels)``, float32 in [0, 1].
        placement: What the image shows of the scan.
    """

    preprocessing: Preprocessing
    image: np.ndarray
    placement: Placement

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*spatial)`` of the scan."""
        return self.placement.shape

    @classmethod
    def of(cls, volume: Volume, preprocessing: Preprocessing) -> PreparedScan:
        """Return a prepared scan, which does not keep the voxels of ``volume``; `UserError` where it does not fit."""
        return cls(preprocessing, *preprocessing.prepare(volume))

    def predict(self, predict: Predict, *, num_classes: int, overlap: float, batch_size: int = 1) -> Iterator[Piece]:
        """Yield the probabilities of every voxel of the scan's own grid, piece by piece.

        "resize" and "exact" take one forward pass over the whole image, "crop" slides a window of ``data_dim``
        over it. What the foreground crop cut off is background, class 0.

        Args:
            predict: From a batch of images to probabilities.
            num_classes: Classes including background.
            overlap: Share of a window that its neighbour covers too, in [0, 1).
            batch_size: Windows per call of ``predict``.
        """
        settings = {"num_classes": num_classes, "overlap": overlap, "batch_size": batch_size}
        pieces = sliding_pieces(predict, self.image, self.preprocessing.data_dim, **settings)
        box, shift = self.placement.box, self.placement.shift(self.image.shape[:-1])
        if shift is not None:
            for piece in pieces:
                yield from moved(piece, shift, box)
            yield from outside(box, self.shape, np.eye(1, num_classes, dtype=np.float32)[0])
            return
        with scratch((*self.image.shape[:-1], num_classes)) as fitted:
            cover(fitted, pieces)
            others = tuple(slice(0, size) for size in self.shape[1:])
            for rows in slabs(self.shape, _row_bytes(self.shape, num_classes)):
                yield (rows, *others), self.placement.restore(fitted, rows)


def mean_pieces(
    predictions: Iterable[tuple[float, Iterable[Piece]]], shape: Sequence[int], num_classes: int
) -> Iterator[Piece]:
    """Yield the weighted mean of several predictions of one scan, piece by piece.

    Args:
        predictions: Weights, which sum to 1, and pieces on the scan's own grid; one prediction is read after the other.
        shape: ``(*spatial)`` of the scan.
        num_classes: Classes including background.
    """
    with scratch((*shape, num_classes)) as total:
        for weight, pieces in predictions:
            for place, values in pieces:
                total[place] += np.float32(weight) * values
        others = tuple(slice(0, size) for size in shape[1:])
        for rows in slabs(shape, _row_bytes(shape, num_classes)):
            yield (rows, *others), total[rows]


def labels_of(pieces: Iterable[Piece], shape: Sequence[int]) -> np.ndarray:
    """Return the likeliest class of each voxel ``(*shape)``, uint8; of equal ones the lowest."""
    mask = np.zeros(shape, np.uint8)
    return cover(mask, ((place, np.argmax(values, axis=-1)) for place, values in pieces))


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

    Probabilities, not labels, are brought back to the scan's grid: borders are rounded once. Those of all classes never
    exist there at once.

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
    scan = PreparedScan.of(volume, preprocessing)
    pieces = scan.predict(predict, num_classes=num_classes, overlap=overlap, batch_size=batch_size)
    return labels_of(pieces, scan.shape)


def _row_bytes(shape: Sequence[int], num_classes: int) -> int:
    return 4 * num_classes * int(np.prod(shape[1:]))
