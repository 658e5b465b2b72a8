"""What the data pipeline must know of a pretext task."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How scans are drawn for a pretext task and put into batches; the defaults fit a task that looks at one scan."""

    companions: int = 0
    """How many other scans of the same part of the split ``make_example`` gets after its seed."""

    min_batch: int = 1
    """How many examples a batch needs at least: 2 where they are compared, 3 where they normalize each other."""

    min_batch_because: str = "compares the scans of a batch"
    """What the task does with a batch that needs so many."""

    distinct_scans: bool = False
    """Whether no batch may hold a scan twice, as where the negatives of an example come from its batch."""

    examples_per_scan: int = 1
    """How many examples the key ``batch_size`` counts for one scan."""

    crop_centres: Callable | None = None
    """What finds the voxels that crops are centred on; None: crops come from anywhere in the scan.

    ``(image (*spatial, channels), spacing (rank,) in mm) -> (number, rank)`` integers, numpy, of a whole prepared scan.
    Its ``repr`` says everything that the result depends on: the result is kept on disk under it.
    """

    make_batch: Callable | None = None
    """What completes a batch, ``(inputs, targets, seed (2,) int32) -> (inputs, targets)``, in a `tf.data` graph.

    For what all examples of a batch share; None: a batch is its examples. Of several processes that train together each
    completes its own part of the batch, with the same seed: nothing may go from one example to another.
    """

    flips_keep_labels: bool = True
    """Whether a scan that was flipped beforehand poses the same task; two flips are a half turn."""
