"""JSON Schema of the experiment files, for completion and checking in an editor.

No key is required: bases and the checkpoint of a finetuning give keys too.
"""

import itertools
from typing import Any

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.experiment import legacy, registry
from self_supervised_3d_tasks.experiment.load import COMMANDS, experiment_model

# Which kinds of names a key takes.
_NAMES = {
    **{"algorithm": ["algorithm"], "encoder_architecture": ["encoder"]},
    "prediction_architecture": ["decoder", "head"],
}
_FILE = {"type": "string"}
_BASE = "Experiment files that this one builds on, relative to it; later keys win."
_OF_FILES = {"$schema": _FILE, "base": {"anyOf": [_FILE, {"type": "array", "items": _FILE}], "description": _BASE}}
_OLD = {"description": "Accepted from the predecessor's files."}


def json_schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of a command's files: the keys of all that they can name together.

    Args:
        command: ``"train"`` or ``"finetune"``.
    """
    predictions = [*_distinct("decoder"), *_distinct("head")] if command == "finetune" else [None]
    properties: dict[str, list[dict]] = {}
    for names in itertools.product(_distinct("algorithm"), _distinct("encoder"), predictions):
        for key, value in experiment_model(command, *names).model_json_schema()["properties"].items():
            variants = properties.setdefault(key, [])
            if value not in variants:
                variants.append(value)
    texts, merged = _descriptions(command), {}
    for key, variants in properties.items():
        merged[key] = (variants[0] if len(variants) == 1 else {"anyOf": variants}) | {"description": texts[key]}
    for key, kinds in _NAMES.items():
        if key in merged:
            names = [name for kind in kinds for name in (*registry.known(kind), *registry.ALIASES[kind])]
            merged[key] = {**merged[key], "enum": names + ([None] if key == "encoder_architecture" else [])}
    merged["dataset_name"]["enum"] = sorted(layouts.LAYOUTS)
    own = {"train": ["val_split"], "finetune": [*legacy.FINETUNE_ALIASES, "load_weights"]}
    old = {*legacy.ALIASES, *legacy.WITHOUT_EFFECT, *legacy.UPSTREAM_KEYS, *legacy.LOADER_GROUPS, "model_params"}
    merged |= {key: _OLD for key in {*old, *own[command]} - merged.keys()} | _OF_FILES
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Experiment file of {command}.py",
        "type": "object",
        "properties": dict(sorted(merged.items())),
        "additionalProperties": False,
    }


def _descriptions(command: str) -> dict[str, str]:
    """Return what each key means; of one that means several things, what it means where."""
    texts: dict[str, dict[str, str]] = {}
    consumers = [(kind, name) for kind in registry.ALIASES for name in _distinct(kind)]
    for kind, name in consumers:
        for key, text in registry.descriptions(getattr(registry, kind)(name)).items():
            texts.setdefault(key, {}).setdefault(text, name if kind == "algorithm" else f"{kind} {name}")
    found = {
        key: " ".join(text if len(origins) == 1 else f"{name}: {text}" for text, name in origins.items())
        for key, origins in texts.items()
    }
    for model in reversed(COMMANDS[command].__mro__):
        found |= registry.descriptions(model)
    return found


def _distinct(kind: str) -> list[str]:
    """Return one name of a kind for each set of keys: the encoders of a family share theirs."""
    find = getattr(registry, kind)
    return list({str(registry.options(find(name))): name for name in reversed(registry.known(kind))}.values())[::-1]
