"""What is read off the keys of an experiment."""

from pathlib import Path

import pytest

from tests.experiment.experiment_files import ARCHIVE, classify, finetune, train


def test_an_archive_needs_no_table(tmp_path):
    experiment = classify(tmp_path, **ARCHIVE, data_dir_test="organ.npz/test")
    assert (experiment.task, experiment.fitting, experiment.rank) == ("classification", "exact", 3)
    assert experiment.has_test_set and experiment.label_table_options(test=True) is None
    assert (experiment.label_key(), experiment.label_key(test=True)) == ("data_dir_train", "data_dir_test")
    assert classify(tmp_path, **ARCHIVE, do_cross_val=True).label_key(test=True) == "data_dir_train"
    assert classify(tmp_path, **ARCHIVE | {"data_dim": [32, 32]}).rank == 2
    table = classify(tmp_path, csv_file_test="test.csv")
    assert (table.label_key(), table.label_key(test=True)) == ("csv_file", "csv_file_test")


def test_the_table_of_labels_is_described_in_full(tmp_path):
    assert finetune(tmp_path).label_table_options() is None
    experiment = classify(tmp_path, csv_file_test="test.csv", image_column="file", label_map={"2": 1}, suffix=".png")
    expected = {"path": "labels.csv", "positional": False, "image_column": "file", "label_column": "grade"}
    expected |= {"subject_column": None, "suffix": ".png", "label_map": {2: 1}, "num_classes": 3}
    assert experiment.label_table_options() == expected
    assert experiment.label_table_options(test=True) == expected | {"path": "test.csv"}
    assert experiment.has_test_set


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
