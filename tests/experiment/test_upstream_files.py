"""The predecessor's 47 experiment files, and the page that says what became of their keys."""

from __future__ import annotations

import functools
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import bases, build, legacy, registry
from self_supervised_3d_tasks.experiment.load import COMMANDS, experiment_model, load_experiment

REPOSITORY = Path(__file__).resolve().parents[2]
UPSTREAM = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("upstream_files.py"))))

TOP = "top_architecture is ignored"
OLD_KEYS = [
    "n_channels is called number_channels now",
    "train3D is called data_is_3D now",
    "split_per_side is called patches_per_side now",
]


def expected_warnings(command, name):
    """Return the beginnings of the warnings of a file, from what docs/upstream.md says about its keys."""
    values = UPSTREAM.values(command, name)
    warnings = list(OLD_KEYS) if "train3D" in values else []
    warnings += [f"{key} is ignored" for key in ("embed_dim", "patch_dim") if key in values]
    if command == "train":
        warnings += ["val_split is read as train_val_split = 0.95"] if "val_split" in values else []
    else:
        if "epochs" in values:
            warnings += ["epochs is called epochs_initialized now", "epochs: nothing is trained from scratch"]
        warnings += ["data_dir is called data_dir_train now"] if "data_dir" in values else []
        warnings += [f"{key} is ignored" for key in ("csv_file_train", "csv_file_test") if key in values]
        warnings += ["clipvalue is ignored"] if "clipvalue" in values else []
    if values["algorithm"] in ("cpc", "exemplar") and "top_architecture" in values:
        warnings.append(TOP)
    return warnings


def write(folder: Path, values: dict, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(values))
    return path


def test_the_census_is_complete():
    assert (len(UPSTREAM.TRAIN), len(UPSTREAM.FINETUNE)) == (26, 21)
    for name, values in (UPSTREAM.TRAIN | UPSTREAM.FINETUNE).items():
        assert {"algorithm", "dataset_name", "batch_size", "lr", "data_dim"} <= values.keys(), name


@pytest.mark.parametrize(("command", "name"), UPSTREAM.FILES)
def test_every_file_loads_with_the_documented_warnings_and_resolves_to_itself(tmp_path, caplog, command, name):
    values = UPSTREAM.values(command, name)
    path = write(tmp_path, values)
    with caplog.at_level("WARNING"):
        experiment = load_experiment(command, path)
    said = sorted(record.getMessage().removeprefix(f"{path}: ") for record in caplog.records)
    expected = sorted(expected_warnings(command, name))
    assert len(said) == len(expected), said
    for message, beginning in zip(said, expected, strict=True):
        assert message.startswith(beginning)
    assert experiment.rank == (2 if "_2d" in name else 3)
    assert experiment.input_shape[:-1] == (values["data_dim"],) * experiment.rank
    caplog.clear()
    resolved = write(tmp_path, experiment.model_dump(mode="json"), "resolved.json")
    assert load_experiment(command, resolved).model_dump() == experiment.model_dump()
    assert caplog.records == []


def test_a_retina_file_means_what_it_meant(tmp_path):
    experiment = load_experiment("finetune", write(tmp_path, UPSTREAM.FINETUNE["exemplar_2d"]))
    assert experiment.task == "classification"
    assert (experiment.num_classes, experiment.multilabel, experiment.suffix) == (5, True, ".png")
    assert experiment.augment
    assert experiment.intensity_window == (0, 255)
    assert (experiment.do_cross_val, experiment.has_test_set) == (True, False)
    table = experiment.label_table_options()
    assert table["path"] == "kaggle_retina_2019/labels_shuffled.csv"
    assert table["positional"]
    assert experiment.label_table_options(test=True) is None


def test_the_oldest_finetuning_file_trains_from_pretrained_weights_only(tmp_path):
    experiment = load_experiment("finetune", write(tmp_path, UPSTREAM.FINETUNE["cpc_3d_brats"]))
    assert experiment.modes() == [("initialized", 150)]
    assert (experiment.number_channels, experiment.epochs_warmup) == (4, 20)


# Of the models that the predecessor built from these files, counted there.
PARAMETERS = {
    **{"cpc_2d": 9_598_016, "jigsaw_2d": 28_126_884, "rotation_2d": 11_251_268, "rpl_2d": 13_352_520},
    **{"cpc_3d": 5_311_504, "rotation_3d": 39_214_618, "rpl_3d": 6_725_162},
}
BUILT = [("train", "rotation_2d_pancreas"), ("finetune", "cpc_2d_pancreas"), ("finetune", "rpl_2d")]


@pytest.mark.parametrize(
    ("command", "name"),
    [file if file in BUILT else pytest.param(*file, marks=pytest.mark.slow) for file in UPSTREAM.FILES],
)
def test_the_model_of_every_file_builds(tmp_path, command, name):
    experiment = load_experiment(command, write(tmp_path, UPSTREAM.values(command, name)))
    if command == "finetune":
        encoder, model = build.make_model(experiment, seed=0)
        spatial = () if experiment.task == "classification" else experiment.input_shape[:-1]
        assert model.output_shape == (None, *spatial, experiment.num_classes)
        return
    algorithm = build.make_algorithm(experiment)
    model = algorithm.make_model(build.make_encoder(experiment, algorithm.encoder_shape, seed=0), seed=1)
    assert model.get_layer("encoder").input_shape == (None, *algorithm.encoder_shape)
    if name in PARAMETERS:
        # A batch normalization has two running statistics per channel beside what a group normalization has.
        batch = {"normalization": "batch"} if "normalization" in type(experiment).model_fields else {}
        experiment = load_experiment(command, write(tmp_path, UPSTREAM.values(command, name) | batch))
        algorithm = build.make_algorithm(experiment)
        model = algorithm.make_model(build.make_encoder(experiment, algorithm.encoder_shape, seed=0), seed=1)
        assert model.count_params() == PARAMETERS[name]


# --- docs/upstream.md -------------------------------------------------------------------------------------------------

TRAIN = {"algorithm": "rotation", "dataset_name": "npy", "data_dir": "scans", "data_dim": 32, "data_is_3D": False}
FINETUNE = {"algorithm": "rotation", "dataset_name": "npy", "data_dir_train": "scans", "data_dim": 32} | {
    **{"data_is_3D": False, "epochs_frozen": 0, "epochs_initialized": 0}
}
# A value for each key that is not simply read under its own name.
VALUES = {
    **{"n_channels": 2, "train3D": True, "split_per_side": 4, "embed_dim": 64, "patch_dim": 64, "val_split": 0.05},
    **{"data_dir": "scans", "csv_file_train": "labels.csv", "epochs": 9, "load_weights": False},
    **{"n_prediction_layers": 2, "dim_prediction_layers": 1024, "include_top": True, "shuffle_before_split": True},
    **{"use_batch_norm": False, "dropout": 0.25, "dropout_change_per_layer": 0.05},
    **{"augment": True, "augment_zoom_only": True, "batch_size": 4, "patches_per_scan": 3, "patch_size": 64},
    **{"shuffle": False, "pre_proc_func": "f", "label_stem": "_mask", "suffix": ".png", "multilabel": True},
    **{"n_classes": 4, "gpus": [0], "n_gpus": 1},
}


def rows(heading):
    """Return the cells of the table below a heading of docs/upstream.md, the markers of code taken away."""
    text = (REPOSITORY / "docs" / "upstream.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.replace("`", "").strip("|").split(" | ")] for line in lines]


KEYS = [
    (key, command, verdict, target)
    for key, files, verdict, target, *_ in rows("Keys")
    for command in (COMMANDS if files == "both" else [files])
]
SAME = [(key, command) for key, command, verdict, _ in KEYS if verdict == "same"]
RENAMED = [(key, command, target) for key, command, verdict, target in KEYS if verdict == "renamed"]
IGNORED = [(key, command) for key, command, verdict, _ in KEYS if verdict == "ignored"]
REFUSED = [(key, command) for key, command, verdict, _ in KEYS if verdict == "refused"]


def given(key):
    """Return a file's entry for a key of the table, and the key as messages name it."""
    group, _, last = key.replace("*", legacy.TRAIN_GROUP).rpartition(".")
    entry = {last: VALUES[last]}
    return ({group: entry}, f"{group}.{last}") if group else (entry, last)


@functools.cache
def all_fields(command):
    """Return the keys of a command, whatever its file names."""
    predictions = [*registry.known("decoder"), *registry.known("head")] if command == "finetune" else [None]
    models = [experiment_model(command, name, "unet", predictions[0]) for name in registry.known("algorithm")]
    models += [experiment_model(command, "cpc", name, predictions[0]) for name in registry.known("encoder")]
    models += [experiment_model(command, "cpc", "unet", name) for name in predictions]
    return {key for model in models for key in model.model_fields}


def test_the_table_gives_each_key_one_of_four_fates():
    assert {verdict for _, _, verdict, _ in KEYS} == {"same", "renamed", "ignored", "refused"}
    assert len({(key, command) for key, command, _, _ in KEYS}) == len(KEYS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_has_every_key_of_every_file(command):
    listed = {key for key, of, _, _ in KEYS if of == command}
    used = set()
    for values in (UPSTREAM.TRAIN if command == "train" else UPSTREAM.FINETUNE).values():
        for key, value in values.items():
            used |= {f"*.{nested}" for nested in value} if isinstance(value, dict) else {key}
    assert used <= listed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_that_is_the_same_is_one_of_ours(command):
    assert {key for key, of in SAME if of == command} <= all_fields(command)


@pytest.mark.parametrize(("key", "command", "target"), RENAMED)
def test_a_renamed_key_is_read_under_its_new_name(key, command, target):
    entry, name = given(key)
    values, _ = legacy.translate(command, entry)
    assert target in values
    assert target in all_fields(command)
    assert values.keys() & ({name, *entry} - {target}) == set()


def test_the_table_has_every_alias():
    renamed = {(key, target) for key, _, target in RENAMED}
    shared = legacy.SHARED_ARGUMENTS | {key: key for key in legacy.TRAINING_ARGUMENTS if key != "shuffle"}
    nested = {(f"*.{key}", target) for key, target in shared.items()}
    assert {*legacy.ALIASES.items(), *legacy.FINETUNE_ALIASES.items(), *nested} <= renamed


def test_the_table_has_every_key_that_can_be_ignored():
    listed = {key for key, _, _, _ in KEYS}
    assert listed >= {*legacy.WITHOUT_EFFECT, *legacy.UPSTREAM_KEYS}


@pytest.mark.parametrize(("key", "command"), IGNORED)
def test_an_ignored_key_is_reported(tmp_path, caplog, key, command):
    entry, name = given(key)
    path = write(tmp_path, (TRAIN if command == "train" else FINETUNE) | entry)
    with caplog.at_level("WARNING"):
        load_experiment(command, path)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{name} is ignored" in message


@pytest.mark.parametrize(("key", "command"), REFUSED)
def test_a_refused_key_is_an_error(tmp_path, key, command):
    entry, name = given(key)
    path = write(tmp_path, (TRAIN if command == "train" else FINETUNE) | entry)
    with pytest.raises(UserError, match=re.escape(name)):
        load_experiment(command, path)


def test_the_table_names_an_existing_file_for_each_of_the_predecessors():
    table = {theirs: ours for theirs, ours, *_ in rows("Files")}
    assert table.keys() == {f"{command}/{name}" for command, name in UPSTREAM.FILES}
    for theirs, ours in table.items():
        path = REPOSITORY / "configs_json" / f"{ours}.json"
        assert path.is_file(), ours
        command, _, name = theirs.partition("/")
        upstream = UPSTREAM.values(command, name)
        algorithm = registry.canonical("algorithm", upstream["algorithm"], "algorithm")
        assert path.stem.startswith(algorithm)
        assert bases.read(path)[0]["dataset_name"] == upstream["dataset_name"]
