"""The predecessor's spellings."""

from __future__ import annotations

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import legacy
from tests.experiment.experiment_files import train


def test_the_predecessors_spellings_are_translated_with_one_warning_each():
    values, warnings = legacy.translate(
        "train", {"n_channels": 4, "train3D": True, "split_per_side": 4, "embed_dim": 128, "val_split": 0.05}
    )
    assert values == {"number_channels": 4, "data_is_3D": True, "patches_per_side": 4, "train_val_split": 0.95}
    assert len(warnings) == 5
    values, warnings = legacy.translate("finetune", {"epochs": 150, "patch_dim": 64, "clipnorm": 1, "clipvalue": 1})
    assert values == {"epochs_initialized": 150, "epochs_random": 0, "clipnorm": 1}
    assert len(warnings) == 4


def test_epochs_alone_say_that_nothing_is_compared():
    _, warnings = legacy.translate("finetune", {"epochs": 150})
    assert [warning.partition(";")[0] for warning in warnings] == [
        "epochs: nothing is trained from scratch to compare with",
        "epochs is called epochs_initialized now",
    ]
    values, warnings = legacy.translate("finetune", {"epochs": 150, "epochs_random": 150})
    assert values == {"epochs_initialized": 150, "epochs_random": 150}
    assert warnings == ["epochs is called epochs_initialized now"]


def test_load_weights_false_means_from_scratch():
    values, _ = legacy.translate("finetune", {"load_weights": False, "epochs_initialized": 7})
    assert values == {"epochs_random": 7, "epochs_initialized": 0, "epochs_frozen": 0}


def test_loader_groups_become_flat_keys():
    groups = {
        "train_data_generator_args": {"augment": True, "label_stem": "", "shuffle": True, "patches_per_scan": 2},
        "val_data_generator_args": {"augment": False, "label_stem": ""},
    }
    values, warnings = legacy.translate("finetune", groups)
    assert values == {"augment": True, "label_stem": "", "patches_per_scan": 2}
    assert warnings == []
    groups["test_data_generator_args"] = {"label_stem": "_label"}
    with pytest.raises(UserError, match="label_stem: both are given and disagree"):
        legacy.translate("finetune", groups)


def test_what_only_training_needs_is_the_training_groups():
    groups = {
        "batch_size": 8,
        "train_data_generator_args": {"augment": True, "augment_zoom_only": True, "batch_size": 4, "shuffle": False},
        "val_data_generator_args": {"augment": True, "batch_size": 2},
    }
    values, warnings = legacy.translate("train", groups)
    assert values == {"augment": True, "batch_size": 4}
    said = [warning.partition(" is ignored")[0] for warning in warnings]
    assert said == [
        "train_data_generator_args.augment_zoom_only",
        "batch_size",
        "train_data_generator_args.shuffle",
        "val_data_generator_args.augment",
        "val_data_generator_args.batch_size",
    ]


@pytest.mark.parametrize(
    ("given", "left", "ignored"),
    [
        ({"csv_file": "a", "csv_file_train": "b"}, {"csv_file": "b"}, ["csv_file"]),
        ({"csv_file": "a", "csv_file_test": "c"}, {"csv_file": "a", "csv_file_test": "c"}, []),
        ({"csv_file_train": "b", "csv_file_test": "c"}, {"csv_file": "b", "csv_file_test": "c"}, []),
        (
            {"do_cross_val": True, "csv_file": "a", "csv_file_train": "b", "csv_file_test": "c"},
            {"do_cross_val": True, "csv_file": "a"},
            ["csv_file_train", "csv_file_test"],
        ),
    ],
)
def test_tables_of_labels_as_the_predecessor_chose_among_them(given, left, ignored):
    values, warnings = legacy.translate("finetune", given)
    assert values == left
    assert [warning.partition(" is ignored")[0] for warning in warnings if "ignored" in warning] == ignored


def test_loader_arguments_that_cannot_be_honoured():
    with pytest.raises(UserError, match=r"train_data_generator_args\.pre_proc_func: code"):
        legacy.translate("train", {"train_data_generator_args": {"pre_proc_func": "f"}})
    groups = {"train_data_generator_args": {"suffix": ".png"}, "test_data_generator_args": {"suffix": ".jpeg"}}
    with pytest.raises(UserError, match="suffix: both are given and disagree"):
        legacy.translate("finetune", groups)
    values, _ = legacy.translate("finetune", {"data_dim": 64, "train_data_generator_args": {"patch_size": [64] * 3}})
    assert values == {"data_dim": 64}


def test_a_key_of_another_algorithm_is_reported_not_swallowed(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        train(tmp_path, patch_jitter=3)
    assert "patch_jitter is ignored" in caplog.text
