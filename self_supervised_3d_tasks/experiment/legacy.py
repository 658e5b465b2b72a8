"""The predecessor's spellings: aliases, keys that never had an effect, and nested loader arguments.

Experiment files of HealthML/self-supervised-3d-tasks keep their meaning. A key that is called something else now, or
means nothing here, is reported with one warning; any other unknown key is an error that names the nearest known one.
"""

from collections.abc import Iterator
from typing import Any

from absl import logging

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.paths import shown

ALIASES = {"n_channels": "number_channels", "train3D": "data_is_3D", "split_per_side": "patches_per_side"}
# Of finetuning; data_dir and epochs are keys of pretraining.
FINETUNE_ALIASES = {"data_dir": "data_dir_train", "epochs": "epochs_initialized", "csv_file_train": "csv_file"}
WITHOUT_EFFECT = {
    "embed_dim": "it was never read; code_size is the width of the code",
    "patch_dim": "it was never read",
    "shuffle_before_split": "every split is drawn at random from seed",
}
# Keys that the predecessor read for some algorithm, encoder or layout; elsewhere it swallowed them.
UPSTREAM_KEYS = frozenset(
    "code_size crop_size dropout_rate enc_filters include_top num_layers patch_jitter patches_per_side pooling "
    "sample_neg_examples_from top_architecture n_prediction_layers dim_prediction_layers".split()
)
TRAIN_GROUP = "train_data_generator_args"
LOADER_GROUPS = (TRAIN_GROUP, "val_data_generator_args", "test_data_generator_args")
# Loader argument -> flat key, for what every part of the data must share.
SHARED_ARGUMENTS = {key: key for key in ("label_stem", "suffix", "multilabel")}
SHARED_ARGUMENTS |= {"n_classes": "num_classes", "patch_size": "data_dim"}
# Loader arguments of which only the training group's counts; "shuffle" has no flat key.
TRAINING_ARGUMENTS = ("augment", "augment_zoom_only", "batch_size", "patches_per_scan", "shuffle")


def translate(command: str, raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values under today's keys, and one warning for every key that was renamed or dropped.

    Args:
        command: ``"train"`` or ``"finetune"``.
        raw: The file's content; it is not changed.

    Raises:
        UserError: Two spellings of one key disagree, or a loader argument cannot be honoured.
    """
    values = {key: value for key, value in raw.items() if key not in ("$schema", *WITHOUT_EFFECT)}
    warnings = [*_rename(values, ALIASES)]
    warnings += _validation_share(values) if command == "train" else _finetune_keys(values)
    warnings += [f"{key} is ignored: {reason}" for key, reason in WITHOUT_EFFECT.items() if key in raw]
    _flatten_model_params(values)
    warnings += _flatten_loaders(command, values)
    if values.get("clipnorm") is not None and values.get("clipvalue") is not None:
        del values["clipvalue"]
        warnings.append("clipvalue is ignored: clipnorm is given too and only one can be in force")
    return values, warnings


def reject_unknown(values: dict[str, Any], known: set[str], command: str) -> None:
    """Drop upstream's keys that this experiment does not consume; raise for any other unknown key.

    Raises:
        UserError: Some keys are unknown; the message has each of them and the nearest known one.
    """
    unknown = [key for key in values if key not in known]
    for key in [key for key in unknown if key in UPSTREAM_KEYS]:
        del values[key]
        logging.warning("%s is ignored: nothing in this %s experiment reads it", key, command)
    if mistakes := [f"{key}: unknown key.{nearest(key, known)}" for key in unknown if key in values]:
        raise UserError("; ".join(mistakes))


def _rename(values: dict[str, Any], aliases: dict[str, str]) -> Iterator[str]:
    for old, new in aliases.items():
        if old in values:
            _set(values, new, values.pop(old), old)
            yield f"{old} is called {new} now"


def _set(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    if values.setdefault(key, value) != value:
        raise UserError(
            f"{source}, {key}: both are given and disagree ({shown(repr(value))}, {shown(repr(values[key]))}); keep one"
        )


def _pop_group(values: dict[str, Any], name: str) -> dict[str, Any]:
    group = values.pop(name, None)
    if not isinstance(group, dict | None):
        raise UserError(f"{name}: expected a group of keys, received {shown(repr(group))}")
    return dict(group or {})


def _validation_share(values: dict[str, Any]) -> Iterator[str]:
    """``val_split`` was never read in pretraining; it can only have meant the share that validates."""
    if "val_split" in values:
        share = values.pop("val_split")
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise UserError(f"val_split: expected a number, received {shown(repr(share))}")
        _set(values, "train_val_split", round(1 - share, 9), "val_split")
        yield f"val_split is read as train_val_split = {values['train_val_split']}"


def _finetune_keys(values: dict[str, Any]) -> Iterator[str]:
    yield from _tables(values)
    # From the time when a file meant one training per fraction, from pretrained weights.
    if "epochs" in values and not values.setdefault("epochs_random", 0):
        yield "epochs: nothing is trained from scratch to compare with; give epochs_initialized and epochs_random"
    yield from _rename(values, FINETUNE_ALIASES)
    # "load_weights: false" was documented as training from scratch but never read; it is honoured here.
    load_weights = values.pop("load_weights", None)
    if load_weights is False:
        epochs = values.get("epochs_random") or values.get("epochs_initialized", 5)
        values |= {"epochs_random": epochs, "epochs_initialized": 0, "epochs_frozen": 0}
        yield "load_weights: false is read as epochs_random only"
    elif load_weights is not None:
        yield "load_weights: true is the default and can be removed"


def _tables(values: dict[str, Any]) -> Iterator[str]:
    """Leave the tables that the predecessor read: with cross-validation one, otherwise one per part."""
    if values.get("do_cross_val") and "csv_file_train" in values:
        for key in ("csv_file_train", "csv_file_test"):
            if values.pop(key, None) is not None:
                yield f"{key} is ignored: cross-validation divides csv_file"
    elif "csv_file_train" in values and values.pop("csv_file", None) is not None:
        yield "csv_file is ignored: csv_file_train is given, and do_cross_val is not"


def _flatten_model_params(values: dict[str, Any]) -> None:
    """Move the encoder's nested options to flat keys, which the decoder shares where it has them."""
    names = ("use_batch_norm", "dropout", "dropout_change_per_layer")
    for key, value in _pop_group(values, "model_params").items():
        source = f"model_params.{key}"
        if key not in names:
            raise UserError(f"{source}: unknown key.{nearest(key, names)}")
        if key == "use_batch_norm":
            if not isinstance(value, bool):
                raise UserError(f"{source}: expected true or false, received {shown(repr(value))}")
            key, value = "normalization", "batch" if value else "none"
        _set(values, key, value, source)


def _flatten_loaders(command: str, values: dict[str, Any]) -> Iterator[str]:
    """Move the nested loader arguments to flat keys; the same argument must agree in all groups."""
    for group in LOADER_GROUPS:
        arguments = _pop_group(values, group)
        if arguments.get("augment") and arguments.get("augment_zoom_only"):
            del arguments["augment_zoom_only"]
            yield f"{group}.augment_zoom_only is ignored: augment zooms too"
        for key, value in arguments.items():
            name = f"{group}.{key}"
            if key == "pre_proc_func":
                raise UserError(f"{name}: code cannot be given in an experiment file; remove it")
            if key in TRAINING_ARGUMENTS:
                yield from _training_argument(values, name, value)
            elif key not in SHARED_ARGUMENTS:
                raise UserError(f"{name}: unknown key.{nearest(key, [*SHARED_ARGUMENTS, *TRAINING_ARGUMENTS])}")
            elif command == "train" and key != "patch_size":
                yield f"{name} is ignored: pretraining reads no labels"
            elif key != "patch_size" or value not in ([values.get("data_dim")] * 2, [values.get("data_dim")] * 3):
                _set(values, SHARED_ARGUMENTS[key], value, name)


def _training_argument(values: dict[str, Any], name: str, value: Any) -> Iterator[str]:
    group, _, key = name.partition(".")
    if key == "shuffle":
        if group == TRAIN_GROUP and value is False:
            yield f"{name} is ignored: training scans are reshuffled every epoch"
    elif group == TRAIN_GROUP and key == "batch_size":
        # As in the predecessor, the nested value beats the outer one.
        if values.get(key, value) != value:
            yield f"batch_size is ignored: {name} = {shown(repr(value))} is in force"
        values[key] = value
    elif group == TRAIN_GROUP:
        _set(values, key, value, name)
    elif key in ("augment", "augment_zoom_only"):
        if value:
            yield f"{name} is ignored: only training scans are augmented"
    elif values.get(key) != value:
        yield f"{name} is ignored: that of {TRAIN_GROUP} is in force everywhere"
