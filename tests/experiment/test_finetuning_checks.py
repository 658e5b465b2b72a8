"""Keys of a finetuning that contradict each other, and the defaults of one on findings."""

from __future__ import annotations

import pytest

from self_supervised_3d_tasks.data.labels.findings import NIH_FINDINGS
from self_supervised_3d_tasks.experiment.load import load_experiment
from tests.experiment.experiment_files import ARCHIVE, assert_refused, classify, finetune, write

PRETRAINING = {"algorithm": "rotation", "dataset_name": "chestxray", "data_dim": 32}
CHESTXRAY = PRETRAINING | {
    "model_checkpoint": "runs/rotation_chestxray",
    "data_dir_train": "images",
    "csv_file": "Data_Entry_2017.csv",
    "prediction_architecture": "softmax",
}


def load(folder, command, values):
    return load_experiment(command, write(folder, values))


def findings(folder, **keys):
    return load(folder, "finetune", CHESTXRAY | keys)


def test_defaults_are_those_of_the_release(tmp_path):
    experiment = findings(tmp_path)
    assert (experiment.task, experiment.rank, experiment.fitting) == ("findings", 2, "resize")
    assert (experiment.num_classes, experiment.class_names) == (14, list(NIH_FINDINGS))
    assert (experiment.loss, experiment.scores) == ("binary_crossentropy", ["mean_auroc", "auroc"])
    assert (experiment.number_channels, experiment.intensity_window) == (1, (0, 255))
    options = experiment.label_table_options()
    assert (options["image_column"], options["label_column"]) == ("Image Index", "Finding Labels")
    assert (options["subject_column"], options["findings"]) == ("Patient ID", NIH_FINDINGS)
    resolved = experiment.model_dump(mode="json")
    assert load(tmp_path, "finetune", resolved).model_dump() == experiment.model_dump()
    assert load(tmp_path, "train", PRETRAINING | {"data_dir": "images"}).preprocessing.grey


def test_other_findings_and_columns(tmp_path):
    names = ["Lung Opacity", "Edema", "Fracture"]
    keys = {"class_names": names, "image_column": "Path", "label_column": "Findings", "subject_pattern": "^(.+)_"}
    experiment = findings(tmp_path, **keys)
    assert (experiment.num_classes, experiment.class_names) == (3, names)
    options = experiment.label_table_options(test=True)
    assert options is None
    options = experiment.label_table_options()
    assert (options["image_column"], options["label_column"], options["subject_column"]) == ("Path", "Findings", None)
    assert options["findings"] == tuple(names)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"multilabel": True}, ["multilabel: means ordered classes", "'chestxray'", "remove the key"]),
        ({"sample_classes_uniform": True}, ["sample_classes_uniform", "several findings", "remove the key"]),
        ({"label_map": {"1": 0}}, ["label_map", "findings", "class_names"]),
        ({"num_classes": 5}, ["num_classes, class_names", "class_names has 14", "received num_classes 5"]),
        ({"class_names": ["Mass"]}, ["class_names", "two findings or more"]),
        ({"class_names": None}, ["class_names", "two findings or more"]),
        ({"class_names": ["Mass", "mass"]}, ["class_names", "different names"]),
        ({"class_names": ["Mass", "No Finding"]}, ["class_names", '"No Finding"', "remove it"]),
        ({"class_names": ["Mass", "Edema|Nodule"]}, ["class_names", "'Edema|Nodule'", "rename"]),
        ({"class_names": ["Mass", " Edema"]}, ["class_names", "' Edema'", "rename"]),
        ({"loss": "categorical_crossentropy"}, ["loss", "use binary_crossentropy", "'categorical_crossentropy'"]),
        ({"csv_file": None}, ["csv_file", "table"]),
        ({"data_dir_test": "test"}, ["csv_file_test", "data_dir_test"]),
        ({"prediction_architecture": "unet"}, ["prediction_architecture, dataset_name", "a table of findings", "head"]),
        ({"volume_fitting": "crop"}, ["volume_fitting", "whole scan"]),
        ({"label_stem": "_m"}, ["label_stem", "for masks only"]),
        ({"subject_column": "Patient ID", "subject_pattern": "^(.+)_"}, ["subject_column, subject_pattern", "one of"]),
        ({"data_is_3D": True}, ["data_is_3D", "2D"]),
    ],
)
def test_a_mistake_is_one_message_with_key_and_remedy(tmp_path, keys, parts):
    assert_refused(findings, tmp_path, keys, parts)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"epochs_initialized": 5, "epochs_warmup": 5}, ["epochs_warmup", "below epochs_initialized"]),
        ({"epochs_initialized": 0, "epochs_random": 0, "epochs_frozen": 0}, ["at least one must be above 0"]),
        ({"model_checkpoint": None}, ["model_checkpoint", "needed by initialized;"]),
        ({"model_checkpoint": None, "epochs_frozen": 1}, ["model_checkpoint", "needed by frozen and initialized"]),
        ({"data_dim": 40}, ["data_dim", "use 32x32x32 or 64x64x64"]),
        ({"prediction_architecture": "none"}, ["prediction_architecture", "'unet'"]),
        ({"class_weights": [1, 2]}, ["class_weights", "expected 3"]),
        ({"exp_splits": [100, 100]}, ["exp_splits", "are the same label fraction"]),
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
    assert_refused(finetune, tmp_path, keys, parts)


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
    assert_refused(classify, tmp_path, keys, parts)


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
    assert_refused(finetune, tmp_path, keys, parts)


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
    assert_refused(classify, tmp_path, ARCHIVE | keys, parts)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_head_that_normalizes_a_batch_of_one_or_two_is_refused(tmp_path, batch_size):
    keys = {"normalization": "batch", "batch_size": batch_size}
    assert_refused(classify, tmp_path, keys, ["batch_size, normalization", '"group"'])
    classify(tmp_path, **keys | {"prediction_architecture": "softmax"})
    classify(tmp_path, **keys | {"batch_size": 3})


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"label_dir_train": "m"}, ["label_dir_train: the masks of 'index'", "column mask"]),
        ({"csv_file": "t.csv"}, ["csv_file"]),
        ({"prediction_architecture": "softmax", "csv_file": "t.csv"}, ["csv_file: the labels of 'index'", "index"]),
        ({"prediction_architecture": "softmax", "label_column": "age"}, ["label_column: the labels of 'index'"]),
    ],
)
def test_an_index_says_itself_where_masks_and_labels_are(tmp_path, keys, parts):
    assert_refused(finetune, tmp_path, {"dataset_name": "index"} | keys, parts)
    assert finetune(tmp_path, dataset_name="index").task == "segmentation"
    heads = {"dataset_name": "index", "prediction_architecture": "softmax"}
    assert finetune(tmp_path, **heads).label_key() == "data_dir_train"
