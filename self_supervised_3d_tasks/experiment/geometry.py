"""What the scans of a run are like for the network: the record in its folder, and what two records disagree in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from self_supervised_3d_tasks.data.preprocessing import millimetres
from self_supervised_3d_tasks.data.volumes import Header
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.experiment.shared_keys import Experiment
from self_supervised_3d_tasks.files import run_files
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_files import Geometry
from self_supervised_3d_tasks.files.run_folder import RunFolder

OTHER_SIZE = 1.5  # times the voxel size along an axis: beyond it, what was learned of sizes no longer holds


def record(experiment: Experiment, headers: Sequence[Header]) -> dict[str, Any]:
    """Return what ``geometry.json`` of a run folder holds.

    Args:
        experiment: With its spacing settled.
        headers: Of the scans of the run.

    Returns:
        As JSON has it. ``spacing_of_files``: least, median and largest voxel size in mm per axis, null where no file
        says it. ``spacing``: the voxels that the network sees, in mm, by the median scan. ``field_of_view``: that of
        the network's input, in mm.
    """
    known = [header for header in headers if header.affine is not None]
    files = np.array([header.spacing for header in known]) if known else None
    seen = None if files is None else np.median([_spacing_seen(experiment, header) for header in known], axis=0)
    size = experiment.input_shape[:-1]
    return {
        "axes": _axes(experiment),
        "orientation": _orientation(experiment.rank, len(known), len(headers)),
        "spacing_of_files": None if files is None else {name: _rounded(at) for name, at in _range(files).items()},
        "spacing": None if seen is None else _rounded(seen),
        "data_dim": list(size),
        "field_of_view": None if seen is None else _rounded(seen * size),
        "volume_fitting": experiment.fitting,
        "channels": experiment.channel_names or [str(number) for number in range(experiment.number_channels)],
        "intensity_scaling": experiment.intensity_scaling,
        "intensity_window": experiment.intensity_window and list(experiment.intensity_window),
        "foreground_crop": experiment.foreground_crop,
        "labels": _labels(experiment),
    }


def compare(mine: dict[str, Any], checkpoint: str | Path) -> list[str]:
    """Return in sentences what differs between a run's record and that beside a pretrained encoder, if there is one.

    Args:
        mine: From `record`.
        checkpoint: The run folder of a pretraining, or a ``.keras`` file.
    """
    source = as_path(checkpoint)
    path = RunFolder(source if source.is_dir() else source.parent).geometry
    try:
        theirs = run_files.read(path, Geometry) if path.exists() else None
    except UserError as error:
        return [f"{error}; whether its scans were like these is not known"]
    said = []
    if theirs is None:
        return said
    if theirs.orientation != mine["orientation"]:
        before, now = _directions(theirs.orientation), _directions(mine["orientation"])
        said.append(
            f"the axes of the scans are {now}, in the pretraining ({path}) {before}: check "
            "that an axis means the same direction in both, or convert one of them"
        )
    if mine["spacing"] and theirs.spacing and len(mine["spacing"]) == len(theirs.spacing):
        ratio = np.divide(mine["spacing"], theirs.spacing)
        if max(ratio.max(), 1 / ratio.min()) > OTHER_SIZE:
            said.append(
                f"the network sees voxels of {millimetres(mine['spacing'])}, in the pretraining ({path}) of "
                f"{millimetres(theirs.spacing)}: the same organ has another size; set target_spacing to "
                f"{json.dumps(theirs.spacing)}"
            )
    return said


def warn_of_differences(experiment: FinetuneExperiment, headers: Sequence[Header]) -> None:
    """Warn of what `compare` says of a finetuning and its ``model_checkpoint``."""
    if experiment.model_checkpoint:
        for line in compare(record(experiment, headers), experiment.model_checkpoint):
            logging.warning("model_checkpoint: %s", line)


def unlike_trained(run: Path, header: Header) -> str:
    """Return a sentence on a scan whose voxels are far from those that a run was trained on, or an empty one.

    Nothing is said of a run that resamples its scans, or of which nothing is known.

    Args:
        run: Its run folder.
        header: Of the scan.
    """
    path = RunFolder(run).geometry
    trained = run_files.read(path, Geometry).spacing_of_files if path.exists() else None
    if not trained or header.affine is None or len(trained.least) != header.rank:
        return ""
    low, high = np.divide(trained.least, OTHER_SIZE), np.multiply(trained.largest, OTHER_SIZE)
    if np.all((header.spacing >= low) & (header.spacing <= high)):
        return ""
    return (
        f"{header.path}: has voxels of {millimetres(header.spacing)}, the model was trained on "
        f"{millimetres(trained.least)} to {millimetres(trained.largest)}; train with target_spacing for that"
    )


def _spacing_seen(experiment: Experiment, header: Header) -> np.ndarray:
    """Return the size in mm of the voxels that the network sees of a scan, if nothing is cut off it."""
    shape = header.shape[:-1]
    return np.multiply(header.spacing, shape) / experiment.preprocessing.size_of(shape, header)


def _axes(experiment: Experiment) -> list[str]:
    is_photograph = experiment.rank == 2 and experiment.layout.rows_first
    return ["rows", "columns"] if is_photograph else ["x", "y", "z"][: experiment.rank]


def _orientation(rank: int, known: int, total: int) -> str | None:
    """Return what scans with an affine are turned to; None where no file, "mixed" where not every file has one."""
    if known not in (0, total):
        return "mixed"
    return "RAS"[:rank] if known else None


def _directions(orientation: str | None) -> str:
    names = {None: "without directions, as the files have them", "mixed": "of files with and without directions"}
    return names.get(orientation, f"turned to {orientation}")


def _range(files: np.ndarray) -> dict[str, np.ndarray]:
    return {"least": files.min(axis=0), "median": np.median(files, axis=0), "largest": files.max(axis=0)}


def _rounded(sizes: np.ndarray) -> list[float]:
    return [round(float(size), 4) for size in sizes]


def _labels(experiment: Experiment) -> dict[str, str] | None:
    """Return the meaning of each class by its number; the numbers themselves where nobody has named them."""
    if not isinstance(experiment, FinetuneExperiment):
        return None
    names = experiment.label_names
    return {str(label): names.get(label, str(label)) for label in range(experiment.num_classes)}
