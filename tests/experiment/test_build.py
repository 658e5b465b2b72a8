"""What an experiment's keys build."""

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry
from tests.experiment.experiment_files import classify, finetune, train


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


def test_flips_that_answer_the_pretext_question_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"augment: .*half turn.*augment_zoom_only"):
        train(tmp_path, augment=True)
    for keys in (
        {"augment_flip_axes": [0]},
        {"augment_degrees": 44},
        {"augment_flip_axes": [0], "augment_degrees": 45},
    ):
        with pytest.raises(
            UserError, match=r"half turn.*or one axis in augment_flip_axes and augment_degrees below 45"
        ):
            train(tmp_path, augment=True, **keys)
    assert train(tmp_path, augment=True, augment_flip_axes=[0], augment_degrees=44).augment
    assert train(tmp_path, augment_zoom_only=True).augment_zoom_only
    assert train(tmp_path, algorithm="jigsaw", data_dim=48, augment=True, num_layers=2).augment
    assert finetune(tmp_path, algorithm="rotation", augment=True).augment


def test_a_classification_model_ends_in_one_logit_per_class_and_shares_the_encoder(tmp_path):
    keys = {"enc_filters": 4, "num_layers": 2, "data_dim": 16, "num_classes": 4}
    encoder, model = build.make_model(classify(tmp_path, **keys), seed=3)
    assert model.output_shape == (None, 4)
    assert model.input_shape == (None, 16, 16, 16, 1)
    encoder.trainable = False
    names = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert names
    assert all(name.startswith("head_") for name in names)
