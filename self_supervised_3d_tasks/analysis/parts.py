"""The parts of some wholes, read as a stream: what the encoder sees and what it is to lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.data.stream.repeated_examples import repeated_examples


class Parts(NamedTuple):
    """Some parts, each ``(batch, *spatial, channels)``.

    Attributes:
        seen: What the encoder sees.
        wanted: The images to be restored from it.
    """

    seen: np.ndarray
    wanted: np.ndarray


def stream(wholes: Any, algorithm: RestoringAlgorithm, parts_per_whole: int, batch_size: int) -> Iterator[Parts]:
    """Yield batches of parts, those of the first whole first; a batch can hold parts of two wholes.

    Of a task with several views per example the first one counts: the others are placed near it on purpose.

    Args:
        wholes: Dataset of one image and its seed at a time, as `pretraining.wholes` gives it.
        algorithm: A task with a decoder.
        parts_per_whole: Examples that are drawn of each whole.
        batch_size: Parts per batch; the last one may have fewer.
    """
    examples = repeated_examples(wholes, algorithm.make_example, parts_per_whole)
    for inputs, targets in examples.batch(batch_size).as_numpy_iterator():
        seen, wanted = algorithm.restorations(inputs, targets)
        yield Parts(np.asarray(seen)[:, 0], np.asarray(wanted)[:, 0])
