"""Numbers that nobody meant: each key of an experiment file has bounds, and a network fits into the memory or is none.

Nothing is allocated before that is known: the tests run with little memory to spare.
"""

from __future__ import annotations

import functools
import json
import resource

import keras
import numpy as np
import psutil
import pytest

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import load, network_size, registry
from self_supervised_3d_tasks.experiment.load import experiment_model, load_experiment
from self_supervised_3d_tasks.finetuning import plan as finetuning
from self_supervised_3d_tasks.pretraining import plan as pretraining
from tests.experiment.experiment_files import FINETUNE, TRAIN, write

SPARE = 2**30  # bytes that a test may allocate
NUMBERS = ("1e18", "1000000000000000000", "-1", "0", "1e308", "-1e308", "1" + "0" * 4000, "1" + "0" * 5000)
SMALL = {"data_dim": 16, "num_layers": 2, "enc_filters": 2, "pooling": "none"}


@pytest.fixture
def little_memory():
    """Let nothing of more than `SPARE` be allocated."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + SPARE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def models():
    """Yield the command, the keys that choose a model and the model, so that each name is in one of them."""
    for algorithm in registry.known("algorithm"):
        yield "train", TRAIN | {"algorithm": algorithm}
    for encoder in registry.known("encoder"):
        yield "train", TRAIN | {"encoder_architecture": encoder}
    for prediction in [*registry.known("decoder"), *registry.known("head")]:
        yield "finetune", FINETUNE | {"prediction_architecture": prediction, "model_checkpoint": None}


def properties(command, values):
    names = [values["algorithm"], values.get("encoder_architecture", "unet"), values.get("prediction_architecture")]
    return experiment_model(command, *names).model_json_schema()["properties"]


def numbers_in(schema):
    """Yield the schema of every number in a schema, with the way to it: "item" of a list, "value" of a group."""
    if schema.get("type") in ("integer", "number"):
        yield schema, ()
    for part in schema.get("anyOf", []):
        yield from numbers_in(part)
    for part in [schema["items"]] if isinstance(schema.get("items"), dict) else []:
        yield from ((found, ("item", *way)) for found, way in numbers_in(part))
    for number, part in enumerate(schema.get("prefixItems", [])):
        yield from ((found, (number, *way)) for found, way in numbers_in(part))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from ((found, ("value", *way)) for found, way in numbers_in(schema["additionalProperties"]))


@functools.cache
def numeric_keys():
    """Return the command, the keys that choose a model, key and way of every number that a file can have."""
    found = {}
    for command, values in models():
        for key, schema in properties(command, values).items():
            for _, way in numbers_in(schema):
                found.setdefault((command, key, way), values)
    return [(command, values, key, way) for (command, key, way), values in found.items()]


def nested(way, number):
    """Return the JSON text of a value that has the number at a place of `numbers_in`."""
    if not way:
        return number
    inner = nested(way[1:], number)
    if way[0] == "value":
        return f'{{"1": {inner}}}'
    return f"[{inner}, {inner}]" if isinstance(way[0], int) else f"[{inner}]"


def test_every_number_of_an_experiment_file_has_two_bounds():
    unbounded = set()
    for command, values in models():
        for key, schema in properties(command, values).items():
            for number, _ in numbers_in(schema):
                sides = {side for side in ("inimum", "aximum") if any(side in name for name in number)}
                if len(sides) < 2 and "enum" not in number:
                    unbounded.add((command, key))
    assert unbounded == set()


def test_no_number_is_accepted_that_cannot_be_meant(tmp_path, little_memory, monkeypatch):
    """Loading a file ends in an experiment or in one sentence that names the key, whatever number stands there."""
    monkeypatch.setattr(load, "experiment_model", functools.cache(experiment_model))
    path, tried = tmp_path / "experiment.json", 0
    for command, values, key, way in numeric_keys():
        for number in NUMBERS:
            path.write_text(json.dumps(values | {key: "HERE"}).replace('"HERE"', nested(way, number)))
            tried += 1
            try:
                load_experiment(command, path)
            except UserError as error:
                assert len(str(error)) < 1500, (key, number)
            else:
                assert number in ("-1", "0"), (key, number)
    assert tried > 500


@pytest.fixture(scope="module")
def scans(tmp_path_factory, write_scans):
    return write_scans(tmp_path_factory.mktemp("cohort") / "scans", 4)


def plan(command, folder, scans, values):
    """Plan what a file asks for, which lays its network out."""
    where = {"data_dir": str(scans)} if command == "train" else {"data_dir_train": str(scans)}
    more = {"train_val_split": 0.5} if command == "train" else {"epochs_initialized": 0, "num_classes": 2}
    experiment = load_experiment(command, write(folder, more | values | where))
    planned = (pretraining if command == "train" else finetuning).plan(experiment)
    planned.check_network()
    return planned


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("train", {"enc_filters": 2**16}),
        ("train", {"head_units": [2**16, 2**16], "data_dim": 64}),
        ("train", {"batch_size": 2**16, "data_dim": 64}),
        ("train", {"data_dim": 2048}),
        ("finetune", {"num_classes": 256, "data_dim": 512}),
        ("finetune", {"enc_filters": 2**12, "num_layers": 4}),
    ],
    ids=str,
)
def test_a_network_beyond_the_memory_is_refused_with_its_numbers(command, keys, tmp_path, scans, little_memory):
    base = TRAIN if command == "train" else FINETUNE | {"model_checkpoint": None}
    with pytest.raises(UserError, match=r"parameters need [\d.]+ .?B .* inputs per step .* this machine has [\d.]+ GB"):
        plan(command, tmp_path, scans, base | SMALL | keys)


def test_what_is_laid_out_is_never_made(tmp_path, scans):
    """The check leaves Keras as it was: names, precision, and no weights that are made later on."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        planned = plan("train", tmp_path, scans, TRAIN | SMALL)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    one, two = planned.build_model(), planned.build_model()
    keras.utils.clear_session()
    fresh = planned.build_model()
    assert [layer.name for layer in one.layers] == [layer.name for layer in fresh.layers]
    for weight, other, third in zip(one.weights, two.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
        np.testing.assert_array_equal(weight, third)


@pytest.mark.parametrize(("optimizer", "copies"), [("adam", 4), ("adamw", 4), ("sgd", 3)])
def test_the_memory_is_counted_by_weights_and_by_what_their_layers_give(monkeypatch, tmp_path, optimizer, copies):
    """By hand: (3·2 + 2) + (2·5 + 5) weights, copies of 4 bytes; 2 + 5 outputs of 4 bytes of each of 10 inputs."""

    def make():
        image = keras.Input((3,))
        return keras.Model(image, keras.layers.Dense(5)(keras.layers.ReLU()(keras.layers.Dense(2)(image))))

    experiment = load_experiment("train", write(tmp_path, TRAIN | {"optimizer": optimizer}))
    needs = (3 * 2 + 2 + 2 * 5 + 5) * copies * 4 + (2 + 5) * 4 * 10
    monkeypatch.setattr(machine, "installed_bytes", lambda: needs)
    network_size.check(experiment, make, 10)
    monkeypatch.setattr(machine, "installed_bytes", lambda: needs - 1)
    with pytest.raises(
        UserError, match=f"23 parameters need {92 * copies} bytes .* step 280 bytes .* has {92 * copies + 279} bytes"
    ):
        network_size.check(experiment, make, 10)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.34e13, "23.4 TB"), (1e20, "1e+05 PB")]
)
def test_bytes_for_people(number, text):
    assert machine.readable_bytes(number) == text


def largest(schema):
    return schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1) if "enum" not in schema else schema["enum"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("row", range(len(numeric_keys())))
def test_the_largest_number_of_each_key_is_planned_or_refused(row, tmp_path, scans, little_memory):
    command, values, key, way = numeric_keys()[row]
    schema = next(found for found, at in numbers_in(properties(command, values)[key]) if at == way)
    keys = json.loads(nested(way, json.dumps(largest(schema))))
    known = properties(command, values)
    small = {name: value for name, value in SMALL.items() if name in known}
    try:
        planned = plan(command, tmp_path, scans, values | {"data_dim": 32} | small | {key: keys})
    except UserError as error:
        assert len(str(error)) < 1500
    else:
        assert planned.experiment.model_dump(mode="json")[key] is not None
