"""The experiment file: what is accepted, how keys are routed, and what each mistake says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry, schema
from self_supervised_3d_tasks.experiment.load import load_experiment

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = {"algorithm": "rotation", "dataset_name": "nifti", "data_dir": "scans", "data_dim": 32, "number_channels": 1}
FINETUNE = {
    "algorithm": "cpc",
    "dataset_name": "nifti",
    "model_checkpoint": "runs/cpc",
    "data_dir_train": "scans",
    "data_dim": 32,
    "number_channels": 1,
}
ARCHIVE = {"dataset_name": "medmnist", "data_dir_train": "organ.npz/train", "csv_file": None, "label_column": None}
HU = {"volume_fitting": "crop", "intensity_window": [-1000, 1000]}


def write(folder: Path, values: dict) -> Path:
    path = folder / "experiment.json"
    path.write_text(json.dumps(values))
    return path


def train(folder, **keys):
    return load_experiment("train", write(folder, TRAIN | keys))


def finetune(folder, **keys):
    return load_experiment("finetune", write(folder, FINETUNE | keys))


def classify(folder, **keys):
    head = {"prediction_architecture": "simple_multiclass", "csv_file": "labels.csv", "label_column": "grade"}
    return finetune(folder, **head | keys)


def test_keys_reach_the_callable_that_declares_them(tmp_path):
    experiment = train(tmp_path, rotation_axes="all", enc_filters=4, num_layers=3)
    assert build.make_algorithm(experiment).rotation_axes == "all"
    options = build.options_for(experiment, registry.encoder(experiment.encoder_name))
    assert (options["enc_filters"], options["num_layers"]) == (4, 3)
    assert "rotation_axes" not in options


def test_model_params_reach_the_encoder_under_their_own_names(tmp_path):
    experiment = train(tmp_path, model_params={"use_batch_norm": False, "dropout": 0.25})
    options = build.options_for(experiment, registry.encoder(experiment.encoder_name))
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
        ({**HU, "background_level": -1000}, ["background_level: -1000", "inside intensity_window [-1000, 1000]"]),
        ({**HU, "background_level": 1500}, ["background_level: 1500", "inside intensity_window [-1000, 1000]"]),
        ({"volume_fitting": "crop", "background_level": -150}, ["background_level", "[0, 1]", "intensity_window"]),
        ({"background_level": 0.1}, ["background_level", "random crops", '"resize"', "volume_fitting"]),
        ({**HU, "background_share": [0, 0.85]}, ["background_share", "background_level is missing"]),
        (
            {**HU, "background_level": 0, "background_share": [0.9, 0.8]},
            ["background_share", "least", "most", "[0.9, 0.8]"],
        ),
        ({**HU, "background_level": 0, "background_share": [0, 85]}, ["background_share", "equal to 1", "85"]),
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
        ({"transfer": "decoder"}, ["transfer", "'encoder_decoder'"]),
        (
            {"transfer": "encoder_decoder", "prediction_architecture": "duc"},
            ["transfer, prediction_architecture", "'duc'", '"unet"'],
        ),
    ],
)
def test_a_finetuning_mistake_names_key_value_and_remedy(tmp_path, keys, parts):
    with pytest.raises(UserError) as error:
        finetune(tmp_path, **keys)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"csv_file": None}, ["csv_file", "simple_multiclass", "table of labels"]),
        ({"data_dir_test": "test"}, ["csv_file_test", "data_dir_test"]),
        ({"volume_fitting": "crop"}, ["volume_fitting", "whole scan", '"resize"']),
        ({"volume_fitting": "crop", "patches_per_scan": 3}, ["volume_fitting", "whole scan"]),
        ({"foreground_fraction": 0.5}, ["foreground_fraction", "for masks only"]),
        ({"label_dir_train": "masks", "label_stem": "_m"}, ["label_dir_train, label_stem", "for masks only"]),
        (
            {"dataset_name": "pancreas3d"},
            ["prediction_architecture", "dataset_name", "masks", "'pancreas3d'", "images"],
        ),
        ({"dataset_name": "ukb2d"}, ["dataset_name", "'ukb2d'", "pretraining only", "images"]),
        ({"loss": "dice_crossentropy"}, ["loss", "categorical_crossentropy", "'dice_crossentropy'"]),
        ({"multilabel": True, "loss": "categorical_crossentropy"}, ["loss, multilabel", "use binary_crossentropy"]),
        ({"do_cross_val": True, "repetitions": 1}, ["do_cross_val, repetitions", "at least 2"]),
        ({"prediction_architecture": "simple_multiclas"}, ["prediction_architecture", "simple_multiclass"]),
        ({"transfer": "encoder_decoder"}, ["transfer, prediction_architecture", "remove transfer"]),
        ({"augment": True, "augment_zoom_only": True}, ["augment, augment_zoom_only"]),
        ({"subject_column": "who", "subject_pattern": "^(.)"}, ["subject_column, subject_pattern", "keep one"]),
        ({"do_cross_val": True, "csv_file_test": "test.csv"}, ["do_cross_val, csv_file_test"]),
        (
            {"dataset_name": "images", "encoder_architecture": "densenet121", "encoder_weights": "w.h5"},
            ["encoder_weights", "pretraining only", "model_checkpoint"],
        ),
    ],
)
def test_a_mistake_of_classification_names_key_and_remedy(tmp_path, keys, parts):
    with pytest.raises(UserError) as error:
        classify(tmp_path, **keys)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"csv_file": "labels.csv"}, ["csv_file", "masks", "simple_multiclass"]),
        ({"csv_file_test": "labels.csv"}, ["csv_file_test", "masks"]),
        ({"sample_classes_uniform": True, "multilabel": True}, ["multilabel, sample_classes_uniform", "masks"]),
        ({"augment_zoom_only": True}, ["augment_zoom_only", "use augment"]),
        ({"dataset_name": "kaggle_retina"}, ["prediction_architecture", "dataset_name", "'unet'", "table", "head"]),
        ({"dataset_name": "images", "data_is_3D": True}, ["data_is_3D", "2D"]),
        ({"do_cross_val": True, "data_dir_test": "test"}, ["do_cross_val, data_dir_test", "every fold"]),
    ],
)
def test_a_mistake_of_segmentation_names_key_and_remedy(tmp_path, keys, parts):
    with pytest.raises(UserError) as error:
        finetune(tmp_path, **keys)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"csv_file": "labels.csv"}, ["csv_file: the labels of 'medmnist' are in the archive", "remove"]),
        ({"csv_file_test": "labels.csv", "suffix": ".png"}, ["csv_file_test, suffix", "in the archive"]),
        ({"subject_column": "who"}, ["subject_column", "in the archive"]),
        ({"prediction_architecture": "unet"}, ["prediction_architecture, dataset_name", "use a head", "one label per"]),
        ({"channel_suffixes": ["_t1"]}, ["channel_suffixes", "last axis", "remove"]),
        ({"label_stem": "_m"}, ["label_stem", "for masks only"]),
        ({"volume_fitting": "crop"}, ["volume_fitting", "whole scan"]),
        ({"do_cross_val": True, "data_dir_test": "organ.npz/test"}, ["do_cross_val, data_dir_test"]),
    ],
)
def test_a_mistake_with_an_archive_names_key_and_remedy(tmp_path, keys, parts):
    with pytest.raises(UserError) as error:
        classify(tmp_path, **ARCHIVE | keys)
    for part in parts:
        assert part in str(error.value)


def test_an_archive_needs_no_table(tmp_path):
    experiment = classify(tmp_path, **ARCHIVE, data_dir_test="organ.npz/test")
    assert (experiment.task, experiment.fitting, experiment.rank) == ("classification", "exact", 3)
    assert experiment.has_test_set and experiment.label_table_options(test=True) is None
    assert (experiment.label_key(), experiment.label_key(test=True)) == ("data_dir_train", "data_dir_test")
    assert classify(tmp_path, **ARCHIVE, do_cross_val=True).label_key(test=True) == "data_dir_train"
    assert classify(tmp_path, **ARCHIVE | {"data_dim": [32, 32]}).rank == 2
    table = classify(tmp_path, csv_file_test="test.csv")
    assert (table.label_key(), table.label_key(test=True)) == ("csv_file", "csv_file_test")


def test_flips_that_answer_the_pretext_question_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"augment: .*half turn.*augment_zoom_only"):
        train(tmp_path, augment=True)
    assert train(tmp_path, augment_zoom_only=True).augment_zoom_only
    assert train(tmp_path, algorithm="jigsaw", data_dim=48, augment=True, num_layers=2).augment
    assert finetune(tmp_path, algorithm="rotation", augment=True).augment


def test_the_share_of_background_is_the_papers_where_a_level_is_given(tmp_path):
    assert train(tmp_path, **HU).background_share is None
    assert train(tmp_path, **HU, background_level=-150).background_share == (0.0, 0.85)
    assert train(tmp_path, **HU, background_level=-150, background_share=[0.85, 1]).background_share == (0.85, 1.0)
    with pytest.raises(UserError, match="background_level: unknown key"):
        finetune(tmp_path, **HU, background_level=-150)


def test_defaults_follow_the_layout_and_the_task(tmp_path):
    masks = finetune(tmp_path)
    assert (masks.task, masks.prediction_name) == ("segmentation", "unet")
    assert (masks.num_classes, masks.loss, masks.scores) == (3, "dice_crossentropy", ["dice"])
    assert masks.intensity_window is None
    grades = classify(tmp_path, dataset_name="kaggle_retina")
    assert (grades.task, grades.prediction_name, grades.rank) == ("classification", "simple_multiclass", 2)
    assert (grades.num_classes, grades.loss) == (5, "categorical_crossentropy")
    assert grades.scores == ["balanced_accuracy", "roc_auc"]
    assert grades.intensity_window == (0, 255)
    assert classify(tmp_path, multilabel=True).loss == "binary_crossentropy"
    assert classify(tmp_path, loss="binary_crossentropy", num_classes=2).num_classes == 2
    assert finetune(tmp_path, dataset_name="images").rank == 2
    assert train(tmp_path, dataset_name="images", intensity_window=None).intensity_window is None


@pytest.mark.parametrize("keys", [{}, {"dataset_name": "kaggle_retina", "multilabel": True, "label_map": {"4": 3}}])
def test_a_resolved_file_holds_the_defaults_and_resolves_to_itself(tmp_path, keys, caplog):
    experiment = classify(tmp_path, **keys) if keys else finetune(tmp_path)
    resolved = experiment.model_dump(mode="json")
    assert {"num_classes", "loss", "scores", "intensity_window"} <= resolved.keys()
    caplog.clear()
    assert load_experiment("finetune", write(tmp_path, resolved)).model_dump() == experiment.model_dump()
    assert caplog.records == []


def test_a_wrong_key_is_not_followed_by_complaints_about_defaults(tmp_path):
    with pytest.raises(UserError) as error:
        finetune(tmp_path, dataset_name=3)
    assert str(error.value).endswith("dataset_name: input should be a valid string, received 3")


def test_the_table_of_labels_is_described_in_full(tmp_path):
    assert finetune(tmp_path).label_table_options() is None
    experiment = classify(tmp_path, csv_file_test="test.csv", image_column="file", label_map={"2": 1}, suffix=".png")
    expected = {"path": "labels.csv", "positional": False, "image_column": "file", "label_column": "grade"}
    expected |= {"subject_column": None, "suffix": ".png", "label_map": {2: 1}, "num_classes": 3}
    assert experiment.label_table_options() == expected
    assert experiment.label_table_options(test=True) == expected | {"path": "test.csv"}
    assert experiment.has_test_set


def test_a_head_is_part_of_the_baseline_and_a_pretext_task_is_not(tmp_path):
    """Rotation has head_units and dropout_rate of its own; those of a classification head count all the same."""
    keys = {"algorithm": "rotation", "prediction_architecture": "big_fully"}
    settings = build.baseline_settings(classify(tmp_path, **keys, dropout_rate=0.25))
    assert settings["dropout_rate"] == 0.25
    assert "head_units" in settings
    assert "rotation_axes" not in settings
    other = classify(tmp_path, **keys | {"algorithm": "cpc"}, dropout_rate=0.25)
    assert build.baseline_settings(other) == settings
    spelled = {"prediction_architecture": "Big_Fully", "encoder_architecture": "unet", "class_names": ["a", "b", "c"]}
    assert build.baseline_settings(classify(tmp_path, **keys | spelled, dropout_rate=0.25)) == settings
    masks = build.baseline_settings(finetune(tmp_path, algorithm="rotation"))
    assert masks == build.baseline_settings(finetune(tmp_path))
    assert "head_units" not in masks


OPTIMIZER_KEYS = ("optimizer", "momentum", "lr_schedule", "weight_decay", "weight_decay_form")


def test_keys_of_the_optimizer_have_the_defaults_of_their_kind(tmp_path):
    def chosen(**keys):
        return [getattr(train(tmp_path, **keys), key) for key in OPTIMIZER_KEYS]

    assert chosen() == ["adam", None, "constant", 0.0, None]
    assert chosen(optimizer="sgd") == ["sgd", 0.9, "constant", 0.0, None]
    assert chosen(optimizer="sgd", momentum=0, weight_decay=1e-4) == ["sgd", 0, "constant", 1e-4, "coupled"]
    assert chosen(weight_decay=0.1, weight_decay_form="decoupled")[3:] == [0.1, "decoupled"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentum": 0.9}, 'momentum, optimizer: .* received momentum 0.9 with "adam"'),
        ({"optimizer": "sgd", "momentum": None}, 'momentum, optimizer: .* received momentum None with "sgd"'),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum: .*less than 1, received 1.0"),
        ({"weight_decay_form": "coupled"}, "weight_decay_form, weight_decay: .* received coupled with 0; set weight"),
        ({"weight_decay": 0.1, "weight_decay_form": None}, "weight_decay_form, weight_decay: .* None with 0.1"),
        ({"optimizer": "adamw"}, "optimizer: .*'adam' or 'sgd', received \"adamw\"$"),
    ],
)
@pytest.mark.parametrize("load", [train, finetune])
def test_keys_that_the_optimizer_would_not_look_at_are_refused(tmp_path, load, keys, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **keys)


def test_a_resolved_file_older_than_the_optimizer_keys_has_the_baseline_of_their_defaults(tmp_path):
    experiment = finetune(tmp_path)
    older = {key: value for key, value in experiment.model_dump(mode="json").items() if key not in OPTIMIZER_KEYS}
    settings = build.baseline_settings(load_experiment("finetune", write(tmp_path, older)))
    assert settings == build.baseline_settings(experiment)
    for keys in ({"optimizer": "sgd"}, {"lr_schedule": "cosine"}, {"weight_decay": 0.1}):
        assert build.baseline_settings(finetune(tmp_path, **keys)) != settings


def test_averages_of_group_normalized_maps_are_warned_of(tmp_path, caplog):
    keys = {"normalization": "group", "pooling": "none"}
    classify(tmp_path, **keys)
    assert "global_pooling" in caplog.text
    caplog.clear()
    classify(tmp_path, **keys, global_pooling="max")
    classify(tmp_path, **keys | {"pooling": "max"})
    classify(tmp_path, **keys | {"normalization": "batch"})
    assert caplog.text == ""


def test_a_classification_model_ends_in_one_logit_per_class_and_shares_the_encoder(tmp_path):
    keys = {"enc_filters": 4, "num_layers": 2, "data_dim": 16, "num_classes": 4}
    encoder, model = build.make_model(classify(tmp_path, **keys), seed=3)
    assert model.output_shape == (None, 4)
    assert model.input_shape == (None, 16, 16, 16, 1)
    encoder.trainable = False
    names = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert names
    assert all(name.startswith("head_") for name in names)


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
    for file in ("encoder.keras", "encoder_decoder.keras"):
        experiment = finetune(tmp_path, model_checkpoint=f"runs/cpc_1/{file}")
        assert experiment.run_location() == (Path("runs"), "cpc_1_test")
    assert finetune(tmp_path, run_name="mine").run_location() == (Path("runs"), "mine")


def test_a_mistake_is_found_without_loading_tensorflow(tmp_path):
    path = write(tmp_path, TRAIN | {"epoch": 1})
    code = (
        "import sys\n"
        "from self_supervised_3d_tasks.experiment.load import load_experiment\n"
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
