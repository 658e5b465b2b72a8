"""Defaults that follow from other keys."""

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from tests.experiment.experiment_files import HU, classify, finetune, train


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


OPTIMIZER_KEYS = ("optimizer", "momentum", "lr_schedule", "weight_decay", "weight_decay_form")


def test_keys_of_the_optimizer_have_the_defaults_of_their_kind(tmp_path):
    def chosen(**keys):
        return [getattr(train(tmp_path, **keys), key) for key in OPTIMIZER_KEYS]

    assert chosen() == ["adam", None, "constant", 0.0, None]
    assert chosen(optimizer="sgd") == ["sgd", 0.9, "constant", 0.0, None]
    assert chosen(optimizer="sgd", momentum=0, weight_decay=1e-4) == ["sgd", 0, "constant", 1e-4, "coupled"]
    assert chosen(weight_decay=0.1, weight_decay_form="decoupled")[3:] == [0.1, "decoupled"]


@pytest.mark.parametrize("name", registry.known("algorithm"))
def test_the_learning_rate_is_that_of_the_task(tmp_path, name):
    """At 1e-3 the codes of exemplar collapse; a finetuning has its own rate, whatever the task was."""
    keys = {"algorithm": name, "data_dim": 64, "num_layers": 2, "volume_fitting": "crop"}
    assert train(tmp_path, **keys).lr == (1e-4 if name == "exemplar" else 1e-3)
    assert train(tmp_path, **keys, lr=0.5).lr == 0.5
    assert finetune(tmp_path, **keys).lr == 1e-3
