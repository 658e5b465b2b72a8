"""What the tasks on whole scans share: how images are changed while training, and what a network makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.experiment import FinetuneExperiment
from self_supervised_3d_tasks.ops import augment

if TYPE_CHECKING:
    import keras
else:
    keras = lazy.load("keras")


def augmentation(experiment: FinetuneExperiment, *, training: bool) -> Callable | None:
    """Return what changes an image, ``(image, seed) -> image``, or None."""
    if not training or not (experiment.augment or experiment.augment_zoom_only):
        return None
    return functools.partial(augment.augment_image, zoom_only=experiment.augment_zoom_only)


def outputs(model: keras.Model, images: Iterable[np.ndarray], experiment: FinetuneExperiment) -> np.ndarray:
    """Return the activated outputs ``(n, num_classes)``, in [0, 1]: of a sigmoid each, or of one softmax.

    Args:
        model: Images to logits ``(batch, num_classes)``.
        images: Prepared images ``(*spatial, channels)``, at least one; they are read one batch at a time.
        experiment: That the model was trained with: its loss says what the logits are.
    """
    activate = keras.ops.sigmoid if experiment.loss == "binary_crossentropy" else keras.ops.softmax
    found = []
    for batch in _batches(images, experiment.batch_size):
        # Filled up, the last batch has the shape of the others: nothing is compiled twice.
        filled = np.zeros((experiment.batch_size, *batch[0].shape), np.float32)
        filled[: len(batch)] = batch
        logits = keras.ops.cast(model.predict_on_batch(filled)[: len(batch)], "float32")
        found.append(keras.ops.convert_to_numpy(activate(logits)))
    return np.concatenate(found)


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    images = iter(images)
    while batch := list(islice(images, size)):
        yield batch
