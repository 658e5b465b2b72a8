"""Keys of the augmentation that contradict each other, or the names of the classes: one message each."""

from collections.abc import Iterator

from absl import logging

from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment
from self_supervised_3d_tasks.experiment.sides import pairs, sided

_OF_AUGMENT = ("augment_flip_axes", "augment_degrees", "augment_swap_labels")


def mistakes(experiment: Experiment) -> Iterator[str]:
    """Yield a message for each contradiction; those behind the first can follow from it."""
    if experiment.augment and experiment.augment_zoom_only:
        yield "augment, augment_zoom_only: augment zooms too; keep one of them"
    given = ", ".join(key for key in _OF_AUGMENT if getattr(experiment, key, None) is not None)
    if given and not experiment.augment:
        yield f'{given}: says what augment does, which is off; set "augment": true, or remove the key'
    axes, rank = experiment.augment_flip_axes or [], experiment.rank
    if len(set(axes)) < len(axes) or any(axis >= rank for axis in axes):
        yield f"augment_flip_axes: expected some of the axes {list(range(rank))}, each once, received {axes}"
    if isinstance(experiment, FinetuneExperiment) and experiment.augment:
        yield from _of_sides(experiment)


def warn(experiment: FinetuneExperiment) -> None:
    """Warn of turns after which left lies where right was, if the labels tell the two from each other."""
    rules = experiment.augment_rules
    degrees = rules.largest_angle(experiment.rank) if experiment.augment else 0
    if degrees > 90 and (rules.swap_labels or sided(experiment)):
        logging.warning(
            "augment_degrees: turns by up to %g degrees bring left to where right was, but the labels tell them apart; "
            "use 30 or less",
            degrees,
        )


def _of_sides(experiment: FinetuneExperiment) -> Iterator[str]:
    """A flip from left to right makes the label of a left organ that of a right one."""
    swaps, axis = experiment.augment_swap_labels, experiment.left_right_axis
    flipped = axis in experiment.augment_rules.axes(experiment.rank)
    labels = [label for pair in swaps or () for label in pair]
    if len(set(labels)) < len(labels) or any(label >= experiment.num_classes for label in labels):
        known = f"classes from 1 to {experiment.num_classes - 1}"
        yield f"augment_swap_labels: expected pairs of {known}, each in one pair, received {list(map(list, swaps))}"
    if swaps and not flipped:
        yield f"augment_swap_labels, augment_flip_axes: axis {axis}, left to right, is not flipped; add it, or no pairs"
    if flipped and swaps is None and (names := sided(experiment)):
        way_out = f"leave {axis} out of augment_flip_axes"
        if experiment.task == "segmentation":
            way_out = f"give their numbers as augment_swap_labels, as {pairs(experiment) or [[1, 2]]}, or {way_out}"
        yield f"augment, class_names: flips of axis {axis} exchange left and right of {', '.join(names)}; {way_out}"
