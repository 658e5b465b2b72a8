"""The keys of an experiment on findings: defaults, and what each mistake says."""

from __future__ import annotations

import json

import pytest

from self_supervised_3d_tasks.data.labels.findings import NIH_FINDINGS
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment

TRAIN = {"algorithm": "rotation", "dataset_name": "chestxray", "data_dim": 32}
FINETUNE = TRAIN | {
    "model_checkpoint": "runs/rotation_chestxray",
    "data_dir_train": "images",
    "csv_file": "Data_Entry_2017.csv",
    "prediction_architecture": "softmax",
}


def load(folder, command, values):
    path = folder / "experiment.json"
    path.write_text(json.dumps(values))
    return load_experiment(command, path)


def finetune(folder, **keys):
    return load(folder, "finetune", FINETUNE | keys)


def test_defaults_are_those_of_the_release(tmp_path):
    experiment = finetune(tmp_path)
    assert (experiment.task, experiment.rank, experiment.fitting) == ("findings", 2, "resize")
    assert (experiment.num_classes, experiment.class_names) == (14, list(NIH_FINDINGS))
    assert (experiment.loss, experiment.scores) == ("binary_crossentropy", ["mean_auroc", "auroc"])
    assert (experiment.number_channels, experiment.intensity_window) == (1, (0, 255))
    options = experiment.label_table_options()
    assert (options["image_column"], options["label_column"]) == ("Image Index", "Finding Labels")
    assert (options["subject_column"], options["findings"]) == ("Patient ID", NIH_FINDINGS)
    resolved = experiment.model_dump(mode="json")
    assert load(tmp_path, "finetune", resolved).model_dump() == experiment.model_dump()
    assert load(tmp_path, "train", TRAIN | {"data_dir": "images"}).preprocessing_options()["grey"]


def test_other_findings_and_columns(tmp_path):
    names = ["Lung Opacity", "Edema", "Fracture"]
    keys = {"class_names": names, "image_column": "Path", "label_column": "Findings", "subject_pattern": "^(.+)_"}
    experiment = finetune(tmp_path, **keys)
    assert (experiment.num_classes, experiment.class_names) == (3, names)
    options = experiment.label_table_options(test=True)
    assert options is None
    options = experiment.label_table_options()
    assert (options["image_column"], options["label_column"], options["subject_column"]) == ("Path", "Findings", None)
    assert options["findings"] == tuple(names)


def test_the_baseline_depends_on_the_findings(tmp_path):
    one, other = (finetune(tmp_path, class_names=names) for names in (["Mass", "Edema"], ["Edema", "Mass"]))
    assert build.baseline_settings(one) != build.baseline_settings(other)


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
    with pytest.raises(UserError) as error:
        finetune(tmp_path, **keys)
    assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)
