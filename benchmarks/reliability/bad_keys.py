"""Experiment files with wrong values, which the schema refuses or the machine cannot hold, and files that are none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema

from benchmarks.reliability import world
from self_supervised_3d_tasks.experiment.load import experiment_model

# For each key those are tried that the published schema refuses.
VALUES = (None, {"a": {"b": 1}}, "no such", -1, 1.5, [[]], True, ["x"], 0, 5)
PER_KEY = 3
HUGE = (10**9, 10**18, 2**63)
SIZES = {
    "train": {
        "steps_per_epoch": HUGE,
        "batch_size": HUGE,
        "epochs": (10**18,),
        "data_dim": HUGE,
        "number_channels": HUGE,
        "seed": (2**32, 10**18, 2**64),
        "enc_filters": HUGE,
        "num_layers": (30, 1000, 10**9),
        "head_units": ([10**9], [10**12], [10**18], [8] * 2000),
        "patches_per_scan": HUGE,
        "intensity_window": ([0, 1e308], [-1e308, 1e308]),
        "use_gpu": ([10**18],),
        "mixed_precision": ("float16",),
        "lr": (1e308,),
        "target_spacing": (1e-9, 1e-300, 1e300),
    },
    "finetune": {
        "repetitions": HUGE,
        "num_classes": HUGE,
        "exp_splits": ([100] * 3, [50.0000001, 50], []),
        "epochs_random": (10**18,),
        "pool_bins": HUGE,
        "label_map": ({"1": 10**18}, {"1" * 30: 1}),
        "class_weights": ([1e308, 1e308],),
    },
}
WHOLE = json.dumps(world.TRAIN).encode()
TEXTS = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"5",
    "cut off": b'{"algorithm": "rot',
    "binary": bytes(range(256)),
    "UTF-16": '{"algorithm": "rotation"}'.encode("utf-16"),
    "Latin-1": '{"algorithm": "r\xf6t"}'.encode("latin-1"),
    "100,000 brackets": b"[" * 100_000,
    "100,000 nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of 5,000 digits": b'{"epochs": ' + b"9" * 5000 + b"}",
    "a number of 5,000 digits in a text": b'{"seed": "' + b"9" * 5000 + b'"}',
    "a value of 1 MB": b'{"algorithm": "' + b"x" * 1_000_000 + b'"}',
    "a key of 1 MB": b'{"' + b"x" * 1_000_000 + b'": 1}',
    "its own base": b'{"base": "experiment.json"}',
    "a base that is missing": b'{"base": "no.json"}',
    "a base that is a number": b'{"base": 5}',
    "a base with NUL": b'{"base": "a\\u0000b"}',
    "a surrogate": b'{"algorithm": "\\ud800"}',
    "NaN": b'{"algorithm": "rotation", "lr": NaN}',
    "zeros": bytes(1000),
    "a key twice": WHOLE[:-1] + b', "epochs": 77}',
    "Infinity": WHOLE[:-1] + b', "intensity_window": [-10, Infinity]}',
}
SETS = (
    *("epochs", "=5", "epochs=", "epochs=one", "epochs=1e999", "epochs=-1", "no_such=1", "epochs.a=1", "data_dim.0=5"),
    *("algorithm=nothing", "lr=NaN", "head_units=[", "=", "epochs=" + "9" * 5000, "a" * 300 + "=1", "..=1"),
)
CONFLICTS = {
    "train": (
        *({"momentum": 0.5}, {"intensity_window": [5, 5]}, {"data_dim": [16, 16]}),
        *({"augment_flip_axes": [7]}, {"subject_pattern": "("}, {"subject_pattern": "no group"}, {"num_layers": 5}),
        *({"channel_suffixes": ["_a"]}, {"cache_dir": "images/s00.nii.gz", "cache": "disk"}, {"augment_degrees": 30.0}),
        *({"algorithm": "jigsaw", "patches_per_side": 17}, {"head_units": [0]}),
        *({"algorithm": "jigsaw", "patches_per_side": 10**9}, {"algorithm": "rubiks_cube", "num_permutations": 10**12}),
        *({"algorithm": "cpc", "code_size": 10**12}, {"augment": 1}),
        *({"background_share": [0.9, 0.1]}, {"algorithm": "tcpc", "num_segments": 10**12, "volume_fitting": "crop"}),
    ),
    "finetune": (
        *({"num_classes": 3, "class_weights": [1.0]}, {"class_names": ["one"]}, {"scores": ["dise"]}),
        {"channel_map": [5]},
        *({"transfer": "encoder_decoder"}, {"metrics": ["no_such"]}, {"loss": "no_such"}),
        *(
            {"epochs_random": 0, "epochs_initialized": 0},
            {"augment_swap_labels": [[1, 9]]},
            {"model_checkpoint": "images"},
        ),
        *({"prediction_architecture": "simple_multiclass"}, {"model_checkpoint": "runs/fine"}, {"epochs_warmup": 99}),
        *({"do_cross_val": True, "repetitions": 99}, {"data_dir_test": "images_labels"}),
    ),
}


def rows() -> Iterator[tuple]:
    """Yield the rows of values that are wrong by themselves, of files that are no experiments, and of conflicts."""
    for name in ("train", "finetune"):
        base = world.EXPERIMENTS[name]
        schema = experiment_model(name, "rotation", "unet", "unet" if name == "finetune" else None).model_json_schema()
        for key, rule in schema["properties"].items():
            check = jsonschema.Draft202012Validator(rule | {"$defs": schema.get("$defs", {})})
            wrong = (value for value in VALUES if not check.is_valid(value))
            for value in itertools.islice(wrong, PER_KEY):
                yield _row(name, base, {key: value}, [key])
        yield _row(name, base, {"epochz": 3}, ["epochz"])
        for values in CONFLICTS[name]:
            yield _row(name, base, values, [*values, "conv", "encoder", "checkpoint", "images"])
    for what, text in TEXTS.items():
        yield (
            *(f"experiment file: {what}", lambda text=text: Path("experiment.json").write_bytes(text)),
            *(("train", "experiment.json"), ["experiment.json"], False),
        )
    for text in SETS:
        line = ("train", "train.json", "--set", text)
        yield f"--set {text[:40]}", _nothing, line, [text.partition("=")[0][:50] or "--set"], False


def sizes() -> Iterator[tuple]:
    """Yield the rows of values that the machine cannot hold."""
    for name, keys in SIZES.items():
        for key, values in keys.items():
            for value in values:
                yield _row(name, world.EXPERIMENTS[name], {key: value}, [key])


def _row(name: str, base: dict, values: dict, mentions: list[str]) -> tuple:
    def write() -> None:
        # Not every algorithm has a head.
        kept = {key: value for key, value in base.items() if key != "head_units" or "algorithm" not in values}
        Path("experiment.json").write_text(json.dumps(kept | values))

    title = f"{name}: {json.dumps(values)[:80]}"
    return title, write, (name, "experiment.json"), mentions, False


def _nothing() -> None:
    """Change nothing."""
