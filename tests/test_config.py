"""The experiment file: what is accepted, how keys are routed, and what each mistake says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks import legacy_keys, schema
from self_supervised_3d_tasks.config import load_experiment
from self_supervised_3d_tasks.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32, "number_channels": 1}
FINETUNE = {
    "algorithm": "cpc",
    "dataset_name": "nifti",
    "model_checkpoint": "runs/cpc",
    "data_dir_train": "scans",
    "data_dim": 32,
    "number_channels": 1,
}


def write(folder: Path, values: dict) -> Path:
    path = folder / "experiment.json"
    path.write_text(json.dumps(values))
    return path


def train(folder, **keys):
    return load_experiment("train", write(folder, TRAIN | keys))


def finetune(folder, **keys):
    return load_experiment("finetune", write(folder, FINETUNE | keys))


def test_keys_reach_the_callable_that_declares_them(tmp_path):
    experiment = train(tmp_path, rotation_axes="all", enc_filters=4, num_layers=3)
    assert experiment.make_algorithm().rotation_axes == "all"
    options = experiment.encoder_options()
    assert (options["enc_filters"], options["num_layers"]) == (4, 3)
    assert "rotation_axes" not in options


def test_model_params_reach_the_encoder_under_their_own_names(tmp_path):
    experiment = train(tmp_path, model_params={"use_batch_norm": False, "dropout": 0.25})
    options = experiment.encoder_options()
    assert options["normalization"] == "none"
    assert options["dropout"] == 0.25
    with pytest.raises(UserError, match="use_batch_norm: expected true or false, received 0.5"):
        train(tmp_path, model_params={"use_batch_norm": 0.5})
    with pytest.raises(UserError, match="dropout"):
        train(tmp_path, model_params={"dropout": 2})


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"epoch": 3}, ["epoch", "unknown key", "'epochs'"]),
        ({"epochs": "many"}, ["epochs", "integer", '"many"']),
        ({"epochs": 0}, ["epochs", "greater than or equal to 1", "0"]),
        ({"epochs": 2.5}, ["epochs", "2.5"]),
        ({"lr": -1}, ["lr", "greater than 0"]),
        ({"algorithm": "rotaton"}, ["algorithm", "rotaton", "'rotation'"]),
        ({"algorithm": None}, ["algorithm", "required"]),
        ({"dataset_name": "pancreas"}, ["dataset_name", "pancreas3d"]),
        ({"encoder_architecture": "unett"}, ["encoder_architecture", "'unet'"]),
        ({"data_dim": [32, 32]}, ["data_dim", "2 axes", "3D"]),
        ({"data_dim": 8}, ["data_dim", "num_layers"]),
        ({"algorithm": "cpc", "patches_per_side": 3}, ["patches_per_side", "3"]),
        ({"train_val_split": 1.0}, ["train_val_split", "less than 1"]),
        ({"intensity_window": [100, -100]}, ["intensity_window", "low"]),
        ({"model_params": {"droput": 0.1}}, ["model_params.droput", "'dropout'"]),
        ({"rotation_axes": "x"}, ["rotation_axes", "auto"]),
        ({"patches_per_scan": 5}, ["patches_per_scan", "volume_fitting"]),
        ({"train_data_generator_args": {"agument": True}}, ["train_data_generator_args.agument", "'augment'"]),
        ({"n_channels": 2, "number_channels": 3}, ["n_channels", "number_channels", "disagree"]),
    ],
)
def test_a_mistake_names_key_value_and_remedy(tmp_path, keys, parts):
    values = {key: value for key, value in (TRAIN | keys).items() if value is not None}
    with pytest.raises(UserError) as error:
        load_experiment("train", write(tmp_path, values))
    message = str(error.value)
    assert "experiment.json" in message
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"epochs_initialized": 5, "epochs_warmup": 5}, ["epochs_warmup", "below epochs_initialized"]),
        ({"epochs_initialized": 0, "epochs_random": 0, "epochs_frozen": 0}, ["at least one must be above 0"]),
        ({"model_checkpoint": None}, ["model_checkpoint", "needed by frozen and initialized"]),
        ({"data_dim": 40}, ["data_dim", "multiple of 32"]),
        ({"prediction_architecture": "none"}, ["prediction_architecture", "'unet'"]),
        ({"class_weights": [1, 2]}, ["class_weights", "expected 3"]),
        ({"exp_splits": [100, 100]}, ["exp_splits", "each fraction once"]),
        ({"label_map": {"a": 1}}, ["label_map", "integer"]),
        ({"scores": []}, ["scores", "at least 1 item"]),
        ({"class_names": ["a"]}, ["class_names", "expected 3"]),
        ({"exp_splits": [0]}, ["exp_splits", "greater than 0"]),
        ({"channel_map": [0, 0]}, ["channel_map", "expected 1"]),
    ],
)
def test_a_finetuning_mistake_names_key_value_and_remedy(tmp_path, keys, parts):
    with pytest.raises(UserError) as error:
        finetune(tmp_path, **keys)
    for part in parts:
        assert part in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: no such experiment file"):
        load_experiment("train", tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"algorithm": "cpc",')
    with pytest.raises(UserError, match=r"broken\.json: not valid JSON at line 1, column 21"):
        load_experiment("train", tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match=r"list\.json: expected a JSON object"):
        load_experiment("train", tmp_path / "list.json")


def test_overrides_are_typed_and_reach_nested_groups(tmp_path):
    path = write(tmp_path, TRAIN)
    overrides = ["epochs=3", "lr=0.5", "data_dir=123abc", "model_params.dropout=0.1", "data_dim=[32, 32, 64]"]
    experiment = load_experiment("train", path, overrides)
    assert (experiment.epochs, experiment.lr, experiment.data_dir) == (3, 0.5, "123abc")
    assert experiment.dropout == 0.1
    assert experiment.input_shape == (32, 32, 64, 1)
    with pytest.raises(UserError, match="--set epochs: expected key=value"):
        load_experiment("train", path, ["epochs"])
    with pytest.raises(UserError, match=r"epochs: .*integer"):
        load_experiment("train", path, ["epochs=x"])


def test_the_predecessors_spellings_are_translated_with_one_warning_each():
    values, warnings = legacy_keys.translate(
        "train", {"n_channels": 4, "train3D": True, "split_per_side": 4, "embed_dim": 128, "val_split": 0.05}
    )
    assert values == {"number_channels": 4, "data_is_3D": True, "patches_per_side": 4, "train_val_split": 0.95}
    assert len(warnings) == 5
    values, warnings = legacy_keys.translate(
        "finetune", {"epochs": 150, "patch_dim": 64, "clipnorm": 1, "clipvalue": 1}
    )
    assert values == {"epochs_initialized": 150, "clipnorm": 1}
    assert len(warnings) == 3


def test_load_weights_false_means_from_scratch():
    values, _ = legacy_keys.translate("finetune", {"load_weights": False, "epochs_initialized": 7})
    assert values == {"epochs_random": 7, "epochs_initialized": 0, "epochs_frozen": 0}


def test_loader_groups_become_flat_keys():
    groups = {
        "train_data_generator_args": {"augment": True, "label_stem": "", "shuffle": True, "patches_per_scan": 2},
        "val_data_generator_args": {"augment": False, "label_stem": ""},
    }
    values, warnings = legacy_keys.translate("finetune", groups)
    assert values == {"augment": True, "label_stem": "", "patches_per_scan": 2}
    assert warnings == []
    groups["test_data_generator_args"] = {"label_stem": "_label"}
    with pytest.raises(UserError, match="label_stem: both are given and disagree"):
        legacy_keys.translate("finetune", groups)


# Keys and values as the predecessor's files have them.
UPSTREAM = {
    "train cpc_3d": {
        **{"algorithm": "cpc", "dataset_name": "pancreas3d", "data_dir": "images_resized_128/", "data_is_3D": True},
        **{"data_dim": 128, "number_channels": 1, "patches_per_side": 4, "code_size": 1024, "embed_dim": 64},
        **{"epochs": 1000, "batch_size": 32, "lr": 1e-4, "enc_filters": 16, "top_architecture": "big_fully"},
    },
    "train rotation_3d_ukb": {
        **{"algorithm": "rotation", "dataset_name": "ukb3d", "data_dir": "/data/ukb/", "data_is_3D": True},
        **{"data_dim": 128, "number_channels": 2, "epochs": 1000, "batch_size": 4, "lr": 1e-4, "enc_filters": 16},
        **{"top_architecture": "big_fully"},
    },
    "train cpc_3d_brats": {
        **{"algorithm": "cpc", "dataset_name": "brats", "data_dir": "brats", "train3D": True, "data_dim": 128},
        **{"n_channels": 4, "split_per_side": 4, "embed_dim": 128, "num_layers": 4, "epochs": 500},
        **{"batch_size": 8, "lr": 1e-3},
    },
    "train rotation_2d_pancreas": {
        **{"algorithm": "rotation", "dataset_name": "pancreas2d", "data_dir": "slices", "data_is_3D": False},
        **{"data_dim": 128, "number_channels": 1, "val_split": 0.05, "epochs": 250, "batch_size": 64, "lr": 1e-5},
        **{"top_architecture": "big_fully"},
    },
    "finetune cpc_3d": {
        **{"algorithm": "cpc", "dataset_name": "pancreas3d", "model_checkpoint": "cpc_pancreas3d/weights.hdf5"},
        **{"data_dir_train": "train", "data_dir_test": "test", "data_is_3D": True, "data_dim": 128},
        **{"number_channels": 1, "patches_per_side": 4, "code_size": 1024, "top_architecture": "big_fully"},
        **{"enc_filters": 16, "pooling": "max", "prediction_architecture": "unet_3d_upconv", "repetitions": 3},
        **{"exp_splits": [50, 25], "epochs_initialized": 400, "epochs_random": 0, "epochs_frozen": 0},
        **{"epochs_warmup": 25, "batch_size": 2, "lr": 1e-3, "clipnorm": 1, "clipvalue": 1, "val_split": 0.05},
        "loss": "weighted_dice_loss",
        "metrics": ["accuracy", "weighted_dice_coefficient", "weighted_dice_coefficient_per_class_pancreas"],
        "scores": ["dice", "jaccard", "dice_pancreas_0", "dice_pancreas_1", "dice_pancreas_2"],
        "train_data_generator_args": {"shuffle": True, "label_stem": ""},
        "val_data_generator_args": {"label_stem": ""},
        "test_data_generator_args": {"label_stem": ""},
    },
    "finetune cpc_3d_brats": {
        **{"algorithm": "cpc", "dataset_name": "brats", "model_checkpoint": "cpc_brats", "data_dir_train": "train"},
        **{"data_dir_test": "test", "train3D": True, "n_channels": 4, "split_per_side": 4, "embed_dim": 128},
        **{"patch_dim": 64, "data_dim": 128, "epochs": 150, "epochs_warmup": 20, "repetitions": 1, "batch_size": 1},
        **{"exp_splits": [100, 10, 1, 50, 25], "lr": 1e-4, "val_split": 0.05, "num_layers": 4, "num_classes": 4},
        "prediction_architecture": "unet_3d_upconv",
        "loss": "weighted_dice_loss",
        "metrics": ["accuracy", "weighted_dice_coefficient", "brats_metrics"],
        "scores": ["dice", "jaccard", "brats_wt", "brats_tc", "brats_et"],
        "train_data_generator_args": {"shuffle": True},
    },
}


@pytest.mark.parametrize("name", UPSTREAM)
def test_files_of_the_predecessor_load_and_resolve(tmp_path, name):
    command = name.split()[0]
    experiment = load_experiment(command, write(tmp_path, UPSTREAM[name]))
    assert experiment.rank == (2 if "2d" in name else 3)
    assert experiment.input_shape[:-1] == (128,) * experiment.rank
    resolved = tmp_path / "resolved.json"
    resolved.write_text(experiment.model_dump_json())
    assert load_experiment(command, resolved).model_dump() == experiment.model_dump()


def test_a_key_of_another_algorithm_is_reported_not_swallowed(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        train(tmp_path, patch_jitter=3)
    assert "patch_jitter is ignored" in caplog.text


@pytest.mark.parametrize("rank", [2, 3])
def test_rank_and_input_shape(tmp_path, rank):
    experiment = train(tmp_path, dataset_name="npy", data_is_3D=rank == 3, data_dim=64)
    assert experiment.input_shape == (*[64] * rank, 1)


def test_run_folders_are_placed_as_upstream_placed_them(tmp_path):
    assert train(tmp_path, base_workspace="w").run_location() == (Path("w"), "rotation_nifti")
    assert finetune(tmp_path).run_location() == (Path("runs"), "cpc_test")
    assert finetune(tmp_path, model_checkpoint="runs/cpc_1/encoder.keras").run_location() == (
        Path("runs"),
        "cpc_1_test",
    )
    assert finetune(tmp_path, run_name="mine").run_location() == (Path("runs"), "mine")


def test_a_mistake_is_found_without_loading_tensorflow(tmp_path):
    path = write(tmp_path, TRAIN | {"epoch": 1})
    code = (
        "import sys\n"
        "from self_supervised_3d_tasks.config import load_experiment\n"
        "try:\n"
        f"    load_experiment('train', {str(path)!r})\n"
        "except ValueError:\n"
        "    heavy = [name for name in ('tensorflow.python', 'keras.src', 'matplotlib') if name in sys.modules]\n"
        "    print(heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_the_example_of_the_readme_loads(tmp_path):
    (example,) = re.findall(r"```json\n(.+?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert load_experiment("train", write(tmp_path, json.loads(example))).algorithm == "cpc"


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_the_committed_schema_is_current(command):
    path = REPOSITORY / "configs_json" / "schema" / f"{command}.json"
    assert json.loads(path.read_text()) == schema.json_schema(command), "run `make schema`"
