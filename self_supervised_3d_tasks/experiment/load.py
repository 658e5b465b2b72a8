"""The experiment file: read, translated and checked before TensorFlow or any scan is loaded."""

import json
import re
from pathlib import Path
from typing import Any, Literal

from absl import logging
from pydantic import ValidationError, create_model

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import bases, build, checks, legacy, pretrained, registry
from self_supervised_3d_tasks.experiment.keys import Experiment, FinetuneExperiment, TrainExperiment
from self_supervised_3d_tasks.files.json_files import parse_json
from self_supervised_3d_tasks.files.paths import LONGEST_PATH, as_path, shown
from self_supervised_3d_tasks.files.run_folder import RunFolder

COMMANDS: dict[str, type[Experiment]] = {"train": TrainExperiment, "finetune": FinetuneExperiment}
_MOST_GROUPS = 20


def load_experiment(command: Literal["train", "finetune"], path: str | Path, overrides: list[str] = ()) -> Experiment:
    """Read, complete and check an experiment file.

    A finetuning takes the pretext task and the keys of the encoder from the run of its ``model_checkpoint``, see
    `pretrained`; the ``config.json`` of a run is complete and takes nothing.

    Args:
        command: Which command the file is for.
        path: JSON file, which may name others as its ``"base"``; the predecessor's files are accepted, see `legacy`.
        overrides: ``key=value`` items; the value is JSON, or else a string. ``a.b=value`` reaches into ``a``.

    Raises:
        UserError: The file cannot be read, or a key is unknown, mistyped, out of range or in conflict with another.
    """
    path = as_path(path)
    raw, others = bases.read(path)
    name = f"{path} (with {', '.join(others)})" if others else str(path)
    for item in overrides:
        override(raw, item)
    try:
        _check_size(raw)
        values, warnings = legacy.translate(command, raw)
        is_of_a_run = path.name == str(RunFolder.config) and RunFolder(path.parent).status.exists()
        if command == "finetune" and not is_of_a_run:
            values, more = pretrained.inherit(values)
            warnings += more
        for warning in warnings:
            logging.warning("%s: %s", name, warning)
        experiment = _validate(command, values)
    except ValidationError as error:
        # A default that follows from a wrong key is no mistake of its own.
        items = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
        raise UserError(f"{name}: " + "; ".join(_sentence(item) for item in items)) from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    if command == "finetune" and not is_of_a_run:
        pretrained.warn_of_preparation(experiment, name)
    return experiment


def _check_size(values: dict[str, Any]) -> None:
    """Raise `UserError` for what no key takes: groups in groups without end, or a text longer than any path.

    Beyond this border messages may show names as they are.
    """
    left: list[tuple[Any, int]] = [(values, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, dict):
            left += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, str) and len(value) > LONGEST_PATH:
            raise UserError(
                f"{shown(value)}: has {len(value)} characters; expected a text of at most {LONGEST_PATH}; shorten it"
            )
        if depth > _MOST_GROUPS:
            raise UserError(f"keys and lists are nested more than {_MOST_GROUPS} deep; expected simple keys")


def experiment_model(command: str, algorithm: str, encoder: str, prediction: str | None) -> type[Experiment]:
    """Return the pydantic model of a file: the experiment's keys and those of what it names.

    Args:
        command: ``"train"`` or ``"finetune"``.
        algorithm: Module name of the pretext task.
        encoder: Name of the encoder.
        prediction: Name of the decoder or head; None for pretraining.
    """
    consumers = [registry.algorithm(algorithm), registry.encoder(encoder)]
    if prediction:
        consumers.append(registry.prediction_network(prediction))
    base = COMMANDS[command]
    fields: dict[str, Any] = {}
    for name, parameter in (option for consumer in consumers for option in registry.options(consumer).items()):
        if name not in base.model_fields:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields.setdefault(name, (parameter.annotation, default))
    return create_model(f"{base.__name__}_{algorithm}", __base__=base, **fields)


def _validate(command: str, values: dict[str, Any]) -> Experiment:
    if not isinstance(values.get("algorithm"), str):
        pretrained.require_checkpoint(values)
        names = ", ".join(registry.known("algorithm"))
        raise UserError(f"algorithm: this key is required and names a pretext task ({names})")
    values["algorithm"] = registry.canonical("algorithm", values["algorithm"], "algorithm")
    encoder = registry.canonical("encoder", str(values.get("encoder_architecture") or "unet"), "encoder_architecture")
    prediction = str(values.get("prediction_architecture") or "unet") if command == "finetune" else None
    model = experiment_model(command, values["algorithm"], encoder, prediction)
    legacy.reject_unknown(values, set(model.model_fields), command)
    experiment = model.model_validate_json(_json_text(values))
    checks.check(experiment)
    try:
        build.check_geometry(experiment)
    except UserError as error:
        pretrained.require_checkpoint(values, f"{error}; the encoder's keys can come from model_checkpoint, but ")
        raise
    return experiment


def _json_text(values: dict[str, Any]) -> str:
    """Return ``values`` as pydantic takes them: bytes of names that are no UTF-8 escaped, see `paths`."""
    text = json.dumps(values, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda match: rf"\\u{ord(match[0]):04x}", text)


def _sentence(error: dict[str, Any]) -> str:
    """Turn one pydantic error into ``key: expectation, received …``."""
    key = ".".join(str(part) for part in error["loc"] if isinstance(part, int) or part.isidentifier() or "_" in part)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key}: this key is required"
    if not error["loc"]:
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, received {shown(json.dumps(error['input'], default=str))}"


def override(values: dict[str, Any], item: str) -> None:
    """Set one ``key=value`` of ``--set`` in ``values``; the value is JSON, or else a string.

    Raises:
        UserError: Not of that form.
    """
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise UserError(f"--set {shown(item)}: expected key=value")
    try:
        value = parse_json(text)
    except json.JSONDecodeError:
        value = text
    except UserError as error:
        raise UserError(f"--set {shown(item)}: {error}") from None
    *parents, last = names = key.split(".")
    if not all(names):
        raise UserError(f"--set {shown(item)}: expected key=value, received a key without a name")
    if len(parents) > _MOST_GROUPS:
        raise UserError(f"--set {shown(item)}: {len(parents)} groups of keys; expected at most {_MOST_GROUPS}")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {shown(item)}: {shown(parent)} is not a group of keys")
    values[last] = value
