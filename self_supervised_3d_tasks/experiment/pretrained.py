"""Keys that a finetuning takes from the run that pretrained its encoder."""

import json
from pathlib import Path
from typing import Any

from absl import logging
from pydantic import ValidationError, create_model

from self_supervised_3d_tasks.data.layouts import LAYOUTS
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment, TrainExperiment
from self_supervised_3d_tasks.experiment.shared_keys import names_of_channels
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.transfer.encoder import find_encoder

# Keys of encoders that change no tensor: finetuning may choose them anew.
WITHOUT_TENSORS = frozenset({"dropout", "dropout_change_per_layer", "pooling", "pool_schedule", "output_stride"})
# Keys that say what a scan looks like when it reaches the encoder, beside those that `_preparation` derives.
PREPARATION = (
    *("intensity_window", "intensity_scaling", "foreground_crop", "number_channels"),
    *("target_spacing", "interpolation", "channel_suffixes", "channel_columns", "normalization"),
)
# Of these, what a finetuning takes over where its file is silent: voxels of the size that the encoder knows.
_TAKEN_OVER = ("target_spacing", "interpolation")
# Of these keys null says nothing: the order of channels is then the file's, the normalization the encoder's own.
_UNSAID_BY_NULL = ("channel_suffixes", "channel_columns", "normalization")
# What was done before these keys were there. The file of a run holds every key of its time.
_BEFORE = {"intensity_scaling": "min_max", "foreground_crop": "none"}
# All that is read of a pretraining, beside the keys of its encoder.
_READ = {*PREPARATION, "volume_fitting", "data_dim", "dataset_name"}
_RESTORE = "restore it from a copy, or put the weights into a folder of their own"
# Where a pretraining begins; a finetuning begins with what came out of it.
_OF_PRETRAINING = frozenset({"encoder_weights"})


def inherit(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of a finetuning, completed from the ``config.json`` of its checkpoint, and warnings.

    The pretext task, the keys of the encoder and the size of the voxels are taken over where ``values`` is silent.
    Without a checkpoint, or where no experiment lies beside its file, ``values`` are returned as they are.

    Raises:
        UserError: The ``config.json`` cannot be read. Or keys that the tensors of the encoder depend on have other
            values than in the pretraining; with ``allow_partial_load`` this is a warning, as it is for keys that no
            tensor depends on.
    """
    path, stored = _stored(values)
    if stored is None:
        return values, []
    theirs = {key: stored.get(key) for key in ("algorithm", "encoder_architecture")}
    encoder = registry.canonical("encoder", theirs["encoder_architecture"] or "unet", str(path))
    keys = registry.options(registry.encoder(encoder)).keys() - _OF_PRETRAINING
    theirs |= {key: stored[key] for key in sorted(keys & stored.keys())}
    taken = {key: stored[key] for key in _TAKEN_OVER if key in stored}
    if values.get("channel_map") is None and (channels := _channels_by_name(values, stored, path)):
        values = values | {"channel_map": channels}
    _check_channels(values, stored.get("number_channels", 1), path)
    others = [key for key in theirs if key in values and _differ(key, values[key], theirs[key])]
    lost = [key for key in others if key not in WITHOUT_TENSORS]
    if lost and values.get("allow_partial_load") is not True:
        here, there = (", ".join(f"{key} {json.dumps(source[key])}" for key in lost) for source in (values, theirs))
        raise UserError(
            f"{', '.join(lost)}: the file has {here}, but {path} of model_checkpoint has {there}; weights fit into "
            "their own encoder only; remove these keys from the file, or name another model_checkpoint"
        )
    named = [key for key in others if key not in PREPARATION]
    pairs = {key: [json.dumps(source[key]) for source in (values, theirs)] for key in named}
    warning = "{}: {} is in force, but the encoder was pretrained with {} ({})"
    return theirs | taken | values, [warning.format(key, *pair, path) for key, pair in pairs.items()]


def _check_channels(values: dict[str, Any], old: int, path: Path) -> None:
    """Raise `UserError` if a channel that is to feed another one was not pretrained."""
    given = values.get("channel_map")
    absent = [number for number in given if number not in range(old)] if isinstance(given, list) else []
    if absent:
        raise UserError(
            f"channel_map: there is no pretrained channel {absent[0]}; {path} of model_checkpoint has {old}, numbered "
            "from 0"
        )


def warn_of_preparation(experiment: FinetuneExperiment, name: str) -> None:
    """Warn, once and with every difference, of scans that are prepared otherwise than those of the pretraining.

    An encoder that learned from intensities of a window, or from voxels of another size, meets inputs that it does not
    know. Nothing is said where the ``config.json`` of the pretraining is missing or cannot be read.

    Args:
        experiment: The finetuning, with all its defaults.
        name: What the warning calls it.
    """
    values = experiment.model_dump(mode="json")
    try:
        path, stored = _stored(values)
    except UserError:
        return
    mine, theirs = _preparation(values), _preparation(stored or {})
    others = [key for key in mine if key in theirs and mine[key] != theirs[key]]
    if {mine.get("volume_fitting"), theirs.get("volume_fitting")} == {"crop", "exact"}:
        others.remove("volume_fitting")  # both leave every voxel as it is
    if values["channel_map"] and "number_channels" in others:
        others.remove("number_channels")  # the file, or the names, say how they follow from those of the pretraining
    if values["channel_map"]:
        others = [key for key in others if key not in ("channel_suffixes", "channel_columns")]
    lines = [f"  {key}: {json.dumps(mine[key])}, in the pretraining {json.dumps(theirs[key])}" for key in others]
    if lines:
        text = (
            "%s: the scans are prepared otherwise than those of the pretraining (%s), of which its encoder learned:\n%s"
        )
        logging.warning(text, name, path, "\n".join(lines))


def require_checkpoint(values: dict[str, Any], because: str = "") -> None:
    """Raise `UserError`, beginning with ``because``, if ``model_checkpoint`` is given and is no model yet."""
    if isinstance(values.get("model_checkpoint"), str) and _config(values) is None:
        try:
            find_encoder(values["model_checkpoint"])
        except UserError as error:
            raise UserError(f"{because}{error}") from None


def _stored(values: dict[str, Any]) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the ``config.json`` of the pretraining and its keys; None for keys that are not of an experiment."""
    path = _config(values)
    try:
        stored = read_json(path) if path else None
    except UserError as error:
        raise UserError(f"model_checkpoint: {error}; {_RESTORE}") from None
    if isinstance(stored, dict) and isinstance(stored.get("algorithm"), str):
        _check(path, stored)
    elif stored is not None and Path(values["model_checkpoint"]).expanduser().is_dir():
        raise UserError(f"model_checkpoint: {path}: expected the keys of a pretraining, with its algorithm; {_RESTORE}")
    else:
        stored = None  # beside a .keras file may lie whatever somebody else calls config.json
    return path, stored


def _check(path: Path, stored: dict[str, Any]) -> None:
    """Raise `UserError` if a key of a pretraining that a finetuning reads has another type."""
    registry.canonical("algorithm", stored["algorithm"], str(path))
    name = stored.get("encoder_architecture") or "unet"
    encoder = registry.canonical("encoder", name if isinstance(name, str) else repr(name), str(path))
    options = registry.options(registry.encoder(encoder)).items()
    types = {key: field.annotation for key, field in TrainExperiment.model_fields.items() if key in _READ}
    types |= {key: parameter.annotation for key, parameter in options}
    fields = {key: (types[key], ...) for key in types.keys() & stored.keys()}
    try:
        create_model("Pretraining", **fields).model_validate_json(json.dumps(stored))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"model_checkpoint: {path}: {key}: {first['msg']}; {_RESTORE}") from None


def _preparation(values: dict[str, Any]) -> dict[str, Any]:
    """Return what decides what scans look like to the encoder, as far as the keys of an experiment say it."""
    found = dict(_BEFORE) if "intensity_window" in values else {}
    found |= {key: values[key] for key in PREPARATION if key in values}
    found = {key: value for key, value in found.items() if value is not None or key not in _UNSAID_BY_NULL}
    if values.get("intensity_window"):
        found.pop("intensity_scaling", None)  # the window says it
    layout = LAYOUTS.get(values.get("dataset_name"))
    by_default = "crop" if values.get("target_spacing") else layout and layout.volume_fitting
    fitting = values.get("volume_fitting") or by_default
    found |= {"volume_fitting": fitting} if fitting else {}
    if fitting == "resize" and "data_dim" in values:
        found["data_dim"] = values["data_dim"]  # the size of a voxel follows from it; that of crops is free
    for key in {"data_dim", "target_spacing"} & found.keys():
        sizes = found[key]
        found[key] = sizes[0] if isinstance(sizes, list) and len(set(sizes)) == 1 else sizes
    return found | ({"grey photographs (dataset_name)": layout.grey} if layout else {})


def _channels_by_name(values: dict[str, Any], stored: dict[str, Any], path: Path) -> list[int] | None:
    """Return for each channel the pretrained one of the same name, where channels are named and their order differs.

    A channel of a name that the pretraining did not have gets the one that its place would have given it.

    Raises:
        UserError: No name is common, so that nobody knows which channel is which.
    """
    try:
        mine, theirs = (names_of_channels(_channel_keys(source)) for source in (values, stored))
    except (AttributeError, TypeError):
        return None  # no list of names; this is told when the keys are checked
    if not mine or not theirs or mine == theirs:
        return None
    if not set(mine) & set(theirs):
        if len(mine) == len(theirs) == 1:
            return None
        raise UserError(
            f"channel_suffixes, channel_columns: the channels are {', '.join(mine)}, in the pretraining ({path}) "
            f"{', '.join(theirs)}; no name is common; say with channel_map which pretrained channel feeds each of them"
        )
    by_place = [number * len(theirs) // len(mine) for number in range(len(mine))]
    channels = [theirs.index(name) if name in theirs else place for name, place in zip(mine, by_place, strict=True)]
    fed = ", ".join(f"{name} by {theirs[channel]}" for name, channel in zip(mine, channels, strict=True))
    logging.info("channel_map: channels are matched by name: %s", fed)
    return channels


def _channel_keys(values: dict[str, Any]) -> list[str] | None:
    return values.get("channel_suffixes") or values.get("channel_columns")


def _config(values: dict[str, Any]) -> Path | None:
    """Return the file with the keys of the pretraining, if there is one."""
    checkpoint = values.get("model_checkpoint")
    if not isinstance(checkpoint, str):
        return None
    source = as_path(checkpoint)
    path = RunFolder(source if source.is_dir() else source.parent).config
    return path if source.exists() and path.exists() else None


def _differ(key: str, mine: Any, theirs: Any) -> bool:
    kind = {"algorithm": "algorithm", "encoder_architecture": "encoder"}.get(key)
    if kind and isinstance(mine, str | None):
        mine, theirs = (registry.canonical(kind, name or "unet", key) for name in (mine, theirs))
    # None leaves the choice to the encoder; whether it is the same shows when the weights are loaded.
    return mine != theirs and (key in WITHOUT_TENSORS or None not in (mine, theirs))
