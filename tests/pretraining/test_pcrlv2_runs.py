"""A pretraining with PCRLv2 from its file to what transfers: all that a run has beyond those of other tasks."""

from __future__ import annotations

import csv
import json

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks import training, transfer
from self_supervised_3d_tasks.algorithms.pcrlv2 import PCRLv2
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.models.decoders.unet import unet as decoder
from self_supervised_3d_tasks.pretraining import run as pretraining
from self_supervised_3d_tasks.pretraining.analysis import Sample, analyse
from self_supervised_3d_tasks.training import checkpoints
from self_supervised_3d_tasks.transfer import decoder as transfer_decoder

NETWORK = {"enc_filters": 4, "num_layers": 2, "pooling": "none", "normalization": "batch"}
KEYS = NETWORK | {
    "algorithm": "pcrlv2",
    "dataset_name": "nifti",
    "data_dim": 16,
    "volume_fitting": "crop",
    "train_val_split": 0.5,
    "num_local_views": 2,
    "dropout": 0.5,
    "batch_size": 3,
    "epochs": 2,
    "steps_per_epoch": 2,
    "lr": 0.05,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_schedule": "cosine",
    "weight_decay": 0.01,
    "restoration_picture_every_n_epochs": 2,
    "tensorboard": False,
}


class Killed(Exception):
    """In place of SIGKILL."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, write_scans):
    """Eight scans, a little larger than the crops."""
    folder = tmp_path_factory.mktemp("workspace")
    write_scans(folder / "scans", 8, shape=(18, 18, 18))
    return folder


def load(workspace, **keys):
    path = workspace / "train.json"
    values = KEYS | {"data_dir": str(workspace / "scans"), "base_workspace": str(workspace / "runs")} | keys
    path.write_text(json.dumps(values))
    return load_experiment("train", path)


@pytest.fixture(scope="module")
def experiment(workspace):
    return load(workspace)


def test_too_few_scans_to_normalize_codes_over_a_batch(workspace):
    with pytest.raises(UserError, match="batch_size: pcrlv2 compares the scans of a batch and needs at least 3"):
        pretraining.plan(load(workspace, batch_size=2))
    with pytest.raises(UserError, match="at least 3 scans or crops in each part of the split, but validation has 1;"):
        pretraining.plan(load(workspace, train_val_split=0.9))
    assert len(pretraining.plan(load(workspace, train_val_split=0.9, patches_per_scan=3)).validation) == 1


@pytest.fixture(scope="module")
def run(experiment):
    """The folder of a finished run."""
    folder = RunFolder.create(*experiment.run_location(), {})
    folder.write_json("config.json", experiment.model_dump(mode="json"))
    pretraining.run(pretraining.plan(experiment), folder)
    folder.mark("finished")
    return folder


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_half_precision_ends_in_float32(experiment):
    algorithm = build.make_algorithm(experiment)
    try:
        training.set_precision("bfloat16")
        model = pretraining.plan(experiment).build_model()
        assert model.get_layer("encoder").output.dtype == "bfloat16"
        assert model.output.dtype == algorithm.restorer(model).output.dtype == "float32"
        codes = algorithm.codes(model)
        assert {name: code.dtype for name, code in codes.items() if not name.endswith("_pooled")} == {
            "scale_1": "float32",
            "scale_2": "float32",
        }
        generator = np.random.default_rng(0)
        inputs = {name: generator.random((2, *x.shape[1:]), np.float32) for name, x in model.input.items()}
        terms = keras.ops.convert_to_numpy(model(inputs, training=True))
        assert terms.dtype == np.float32 and np.isfinite(terms).all()
    finally:
        training.set_precision("none")


@pytest.mark.slow
def test_every_epoch_tells_of_the_restoration_and_of_the_codes_at_each_scale(run):
    rows = table(run.path / "history.csv")
    assert len(rows) == 2
    possible = 4 * 2 - 1  # two global views of four validation scans
    for row in rows:
        assert 0 < float(row["restoration_mse"]) < 1 and 0 < float(row["val_restoration_mse"]) < 1
        for name in ("comparison", "local_comparison"):
            assert -1 <= float(row[name]) <= 1 and -1 <= float(row[f"val_{name}"]) <= 1
        for scale in ("scale_1", "scale_2"):
            for kind in (scale, f"{scale}_pooled"):
                assert 1 <= float(row[f"val_rank_{kind}"]) <= possible
            # Normalized over the batch, codes are always spread; means of positive values hardly are.
            assert 0 < float(row[f"val_spread_{scale}_pooled"]) < float(row[f"val_spread_{scale}"]) <= 1
        assert -1 <= float(row["val_similarity_same"]) <= 1 and float(row["val_probe"]) > 0


@pytest.mark.slow
def test_the_last_epoch_is_kept(run):
    state = checkpoints.read_state(run)
    assert state.best == state.last
    assert (state.last.epoch, state.best_value) == (2, None)
    scores = {row["metric"]: row for row in table(run.path / "pretext_scores.csv")}
    last = table(run.path / "history.csv")[-1]
    for name in ("restoration_mse", "rank_scale_2"):
        assert scores[name]["epoch"] == "2"
        assert float(scores[name]["validation"]) == float(last[f"val_{name}"])


@pytest.mark.slow
def test_what_is_kept_are_its_weights_with_statistics_of_global_views(run, experiment):
    """Running means of the checkpoint are mixtures with local views; everything else is as it was."""
    model = pretraining.plan(experiment).build_model()
    training.restore_best(model, run)
    kept, whole = load_model(run.path / "encoder.keras"), load_model(run.path / "encoder_decoder.keras")
    statistics = 0
    for before, after, again in zip(
        model.get_layer("encoder").weights, kept.weights, whole.get_layer("encoder").weights, strict=True
    ):
        np.testing.assert_array_equal(after, again)
        mixed = after.name in ("moving_mean", "moving_variance")
        statistics += mixed
        assert np.array_equal(before, after) != mixed, after.path
    assert statistics == 2 * 6  # two convolutions at each of two levels and the bottom
    image = np.random.default_rng(0).random((1, *build.make_algorithm(experiment).encoder_shapes[0]), np.float32)
    restored = whole.predict_on_batch(image)
    assert restored.shape == image.shape and 0 <= restored.min() < restored.max() <= 1


@pytest.mark.slow
def test_encoder_and_decoder_move_into_a_network_with_skips(run, experiment):
    encoder = build.make_encoder(experiment, experiment.input_shape, seed=5)
    model = decoder(encoder, num_classes=3, normalization="batch", seed=5)
    assert not transfer.load_encoder(encoder, run.path).left
    report = transfer_decoder.load_decoder(model, run.path)
    assert {line.split("/")[0] for line in report.left} == {"decoder_logits"}
    # What makes an image of the last map is the only thing without a place; it is not of the way up.
    assert not report.unused
    assert [line.split("/")[0] for line in report.adapted] == ["decoder_level_1_conv_1", "decoder_level_0_conv_1"]
    found = {layer.name: layer for layer in model.layers}
    for layer in load_model(run.path / "encoder_decoder.keras").layers:
        if layer.name.startswith("decoder_") and layer.weights:
            for one, other in zip(layer.weights, found[layer.name].weights, strict=True):
                rows = one.shape[-2] if one.ndim > 1 else None  # those of a skip come behind
                np.testing.assert_array_equal(one, other[..., :rows, :] if rows else other)


@pytest.mark.slow
def test_killed_after_an_epoch_and_resumed_is_as_uninterrupted(run, workspace, monkeypatch):
    """The weight of the restoration, the learning rate, and the seeds of views, scales and dropout go on."""
    experiment = load(workspace, run_name="killed")
    folder = RunFolder.create(*experiment.run_location(), {})
    original = PCRLv2.callbacks

    def stop(epoch, logs):
        if epoch == 1:
            raise Killed

    def stopping(*arguments):
        return [*original(*arguments), keras.callbacks.LambdaCallback(on_epoch_begin=stop)]

    monkeypatch.setattr(PCRLv2, "callbacks", stopping)
    with pytest.raises(Killed):
        pretraining.run(pretraining.plan(experiment), folder)
    monkeypatch.setattr(PCRLv2, "callbacks", original)
    assert len(training.read_history(folder)) == 1
    assert not (folder.path / "encoder.keras").exists()
    pretraining.run(pretraining.plan(experiment), folder)
    for name in ("encoder.keras", "encoder_decoder.keras"):
        models = load_model(run.path / name), load_model(folder.path / name)
        for one, other in zip(*(model.variables for model in models), strict=True):  # seeds of dropout too
            np.testing.assert_array_equal(one, other, err_msg=one.path)
    before, after = (training.read_history(each) for each in (run, folder))
    timing = {"seconds", "samples_per_second", "wait_share"}
    for one, other in zip(before, after, strict=True):
        assert {key: one[key] for key in one.keys() - timing} == {key: other[key] for key in other.keys() - timing}


@pytest.mark.slow
def test_the_run_can_be_analysed(run):
    text = analyse(run, Sample(data_dir=None, num_images=4, parts_per_image=2, seed=0))
    assert "pcrlv2, epoch 2: 4 wholes of 4 validation scans, 2 parts each" in text
    content = run.read_json("analysis/analysis.json")
    found = {number["name"]: number["value"] for number in content["numbers"]}
    assert 0 < found["mse_mean"] < 1 and 0 < found["mean_image_mse_mean"] < 1
    assert {path.name for path in (run.path / "analysis").iterdir()} == {
        *("similarity.png", "embedding.png", "restorations.png", "analysis.json")
    }
