"""JSON Schema of the experiment files, for completion and checking in an editor.

``python -m self_supervised_3d_tasks.schema configs_json/schema`` writes one file per command.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.experiment import legacy as legacy_keys
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.load import COMMANDS, experiment_model

# Which kinds of names a key takes.
_NAMES = {
    "algorithm": ("algorithm",),
    "encoder_architecture": ("encoder",),
    "prediction_architecture": ("decoder", "head"),
}


def json_schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of a command's files: the keys of all that they can name together.

    Args:
        command: ``"train"`` or ``"finetune"``.
    """
    predictions = [*_distinct("decoder"), *_distinct("head")] if command == "finetune" else [None]
    properties: dict[str, list[dict]] = {}
    required: list[str] = []
    for names in itertools.product(_distinct("algorithm"), _distinct("encoder"), predictions):
        schema = experiment_model(command, *names).model_json_schema()
        required = [key for key in schema["required"] if key in COMMANDS[command].model_fields]
        for key, value in schema["properties"].items():
            variants = properties.setdefault(key, [])
            if value not in variants:
                variants.append(value)
    merged = {key: variants[0] if len(variants) == 1 else {"anyOf": variants} for key, variants in properties.items()}
    for key, kinds in _NAMES.items():
        if key in merged:
            names = [name for kind in kinds for name in (*registry.known(kind), *registry.ALIASES[kind])]
            merged[key] = {**merged[key], "enum": names + ([None] if key == "encoder_architecture" else [])}
    merged["dataset_name"]["enum"] = sorted(layouts.LAYOUTS)
    legacy = [*legacy_keys.ALIASES, *legacy_keys.WITHOUT_EFFECT, *legacy_keys.UPSTREAM_KEYS, *legacy_keys.LOADER_GROUPS]
    own = {"train": ["val_split"], "finetune": [*legacy_keys.FINETUNE_ALIASES, "load_weights"]}
    legacy += [*own[command], "model_params"]
    for key in sorted({*legacy, "$schema"} - merged.keys()):
        merged[key] = (
            {"description": "Accepted from the predecessor's files."} if key != "$schema" else {"type": "string"}
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Experiment file of {command}.py",
        "type": "object",
        "properties": dict(sorted(merged.items())),
        "required": required,
        "additionalProperties": False,
    }


def _distinct(kind: str) -> list[str]:
    """Return one name of a kind for each set of keys: the encoders of a family share theirs."""
    find = {
        "algorithm": registry.algorithm,
        "encoder": registry.encoder,
        "decoder": registry.decoder,
        "head": registry.head,
    }[kind]
    return list({str(registry.options(find(name))): name for name in reversed(registry.known(kind))}.values())[::-1]


def main(folder: str = "configs_json/schema") -> None:
    """Write ``train.json`` and ``finetune.json`` into ``folder``."""
    for command in COMMANDS:
        path = Path(folder) / f"{command}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(json_schema(command), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
