"""What trainings from scratch depend on."""

from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.finetuning.baseline import baseline_settings
from tests.experiment.experiment_files import classify, finetune, write

OPTIMIZER_KEYS = ("optimizer", "momentum", "lr_schedule", "weight_decay", "weight_decay_form")


def test_a_head_is_part_of_the_baseline_and_a_pretext_task_is_not(tmp_path):
    """Rotation has head_units and dropout_rate of its own; those of a classification head count all the same."""
    keys = {"algorithm": "rotation", "prediction_architecture": "big_fully"}
    settings = baseline_settings(classify(tmp_path, **keys, dropout_rate=0.25))
    assert settings["dropout_rate"] == 0.25
    assert "head_units" in settings
    assert "rotation_axes" not in settings
    other = classify(tmp_path, **keys | {"algorithm": "cpc"}, dropout_rate=0.25)
    assert baseline_settings(other) == settings
    spelled = {"prediction_architecture": "Big_Fully", "encoder_architecture": "unet", "class_names": ["a", "b", "c"]}
    assert baseline_settings(classify(tmp_path, **keys | spelled, dropout_rate=0.25)) == settings
    masks = baseline_settings(finetune(tmp_path, algorithm="rotation"))
    assert masks == baseline_settings(finetune(tmp_path))
    assert "head_units" not in masks


def test_a_resolved_file_older_than_the_optimizer_keys_has_the_baseline_of_their_defaults(tmp_path):
    experiment = finetune(tmp_path)
    older = {key: value for key, value in experiment.model_dump(mode="json").items() if key not in OPTIMIZER_KEYS}
    settings = baseline_settings(load_experiment("finetune", write(tmp_path, older)))
    assert settings == baseline_settings(experiment)
    for keys in ({"optimizer": "sgd"}, {"lr_schedule": "cosine"}, {"weight_decay": 0.1}):
        assert baseline_settings(finetune(tmp_path, **keys)) != settings


def test_the_baseline_depends_on_the_findings(tmp_path):
    keys = {"dataset_name": "chestxray", "prediction_architecture": "softmax", "number_channels": 1}
    one, other = (classify(tmp_path, **keys, class_names=names) for names in (["Mass", "Edema"], ["Edema", "Mass"]))
    assert baseline_settings(one) != baseline_settings(other)
