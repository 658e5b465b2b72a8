"""Streams whose settings are given one by one, because tests vary one at a time."""

from __future__ import annotations

from self_supervised_3d_tasks.data.stream import pipeline
from self_supervised_3d_tasks.data.stream.source import Crops, Position
from self_supervised_3d_tasks.ops.sampling import Sampling

CROPS = {
    **{"crop_shape": "shape", "crops_per_scan": "per_scan", "centres": "centres", "background": "background"},
    "foreground_fraction": "foreground_fraction",
}
SAMPLING = ("companions", "min_batch", "distinct_scans", "make_batch")
POSITION = ("seed", "first_step", "training", "share")


def grouped(options: dict) -> dict:
    """Return the options of a stream with those of crops, sampling and position in the values that it takes."""
    crops = {name: options.pop(key) for key, name in CROPS.items() if key in options}
    sampling = {key: options.pop(key) for key in SAMPLING if key in options}
    options["position"] = Position(**{key: options.pop(key) for key in POSITION if key in options})
    options |= {"crops": Crops(**crops)} if crops else {}
    return options | ({"sampling": Sampling(**sampling)} if sampling else {})


def pretraining_dataset(store, **options):
    return pipeline.pretraining_dataset(store, **grouped(options))


def segmentation_dataset(store, **options):
    return pipeline.segmentation_dataset(store, **grouped(options))


def whole_scan_dataset(store, targets, **options):
    return pipeline.whole_scan_dataset(store, targets, **grouped(options))
