"""Keys of a finetuning that come from its checkpoint."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.experiment.pretrained import WITHOUT_TENSORS

DATA = {"dataset_name": "nifti", "data_dim": 16, "number_channels": 1}
PRETRAINING = DATA | {
    **{"algorithm": "rotation", "data_dir": "scans", "enc_filters": 4, "num_layers": 2, "normalization": "group"},
    **{"pooling": "none", "dropout": 0.25},
}
ENCODER = ("algorithm", "enc_filters", "num_layers", "normalization", "pooling", "dropout", "unet_preset")


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
    """The run folder of a pretraining below the current folder, without weights."""
    monkeypatch.chdir(tmp_path)
    Path("train.json").write_text(json.dumps(PRETRAINING))
    folder = Path("runs/rotation")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(load_experiment("train", "train.json").model_dump_json())
    with zipfile.ZipFile(folder / "encoder.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    return folder


def finetune(**keys):
    given = DATA | {"data_dir_train": "scans", "model_checkpoint": "runs/rotation"} | keys
    Path("finetune.json").write_text(json.dumps(given))
    return load_experiment("finetune", "finetune.json")


def of_the_encoder(experiment):
    return {key: getattr(experiment, key) for key in ENCODER}


@pytest.mark.parametrize("checkpoint", ["runs/rotation", "runs/rotation/encoder.keras"])
def test_the_task_and_the_encoder_are_those_of_the_pretraining(checkpoint, caplog):
    stored = json.loads(Path("runs/rotation/config.json").read_text())
    experiment = finetune(model_checkpoint=checkpoint)
    assert of_the_encoder(experiment) == {key: stored[key] for key in ENCODER}
    assert caplog.records == []
    # Nothing else is taken.
    assert (experiment.batch_size, experiment.lr, experiment.seed) == (2, 1e-3, 0)


def test_a_file_may_say_the_same_in_another_spelling(caplog):
    experiment = finetune(algorithm="Rotation", encoder_architecture="UNet", enc_filters=4, dropout=0.25)
    assert of_the_encoder(experiment) == of_the_encoder(finetune())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("keys", "mine", "theirs"),
    [
        ({"enc_filters": 8}, "enc_filters 8", "enc_filters 4"),
        ({"num_layers": 3, "normalization": "batch"}, 'normalization "batch", num_layers 3', "num_layers 2"),
        ({"unet_preset": "paper"}, 'unet_preset "paper"', 'unet_preset "upstream"'),
        ({"algorithm": "cpc"}, 'algorithm "cpc"', 'algorithm "rotation"'),
        ({"encoder_architecture": "resnet18"}, 'encoder_architecture "resnet18"', "encoder_architecture null"),
    ],
)
def test_what_tensors_depend_on_cannot_be_changed(keys, mine, theirs):
    with pytest.raises(UserError) as error:
        finetune(**keys)
    message = str(error.value)
    assert message.startswith("finetune.json: ") and "\n" not in message
    for part in (*keys, mine, theirs, "runs/rotation/config.json", "remove these keys"):
        assert part in message


def test_a_partial_load_is_warned_of(caplog):
    assert finetune(num_layers=1, allow_partial_load=True).num_layers == 1
    assert "num_layers: 1 is in force, but the encoder was pretrained with 2 (runs/rotation/config.json)" in caplog.text


def test_what_no_tensor_depends_on_can_be_chosen_anew_with_a_warning(caplog):
    experiment = finetune(dropout=0.5, pooling="none")
    assert experiment.dropout == 0.5
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "finetune.json: dropout: 0.5 is in force, but the encoder was pretrained with"
    )


def test_keys_without_tensors_are_keys_of_encoders():
    keys = {key for name in registry.known("encoder") for key in registry.options(registry.encoder(name))}
    assert keys >= WITHOUT_TENSORS


def test_a_missing_checkpoint_is_named_where_it_would_have_given_keys():
    with pytest.raises(UserError, match=r"^finetune\.json: runs/none: no such run folder; run the pretraining first"):
        finetune(model_checkpoint="runs/none")
    with pytest.raises(UserError, match=r"use 32x.*model_checkpoint, but runs/none: no such run folder"):
        finetune(model_checkpoint="runs/none", algorithm="rotation")
    assert finetune(model_checkpoint="runs/none", algorithm="rotation", num_layers=2).num_layers == 2


@pytest.mark.parametrize("content", [None, "{", "[]", '{"architectures": ["other"]}'])
def test_without_an_experiment_beside_the_weights_the_files_own_keys_count(run, content):
    (run / "config.json").unlink()
    if content is not None:
        (run / "config.json").write_text(content)
    with pytest.raises(UserError, match="algorithm: this key is required"):
        finetune(model_checkpoint="runs/rotation/encoder.keras")
    experiment = finetune(model_checkpoint="runs/rotation/encoder.keras", algorithm="cpc", num_layers=1)
    assert (experiment.num_layers, experiment.enc_filters, experiment.normalization) == (1, None, "batch")


def test_from_scratch_only_needs_its_own_keys():
    keys = {"model_checkpoint": None, "epochs_initialized": 0, "epochs_frozen": 0}
    with pytest.raises(UserError, match="algorithm: this key is required"):
        finetune(**keys)
    assert finetune(**keys, algorithm="cpc", num_layers=2).enc_filters is None


def test_the_config_of_a_run_is_complete_and_does_not_ask_the_checkpoint_again(run):
    experiment = finetune()
    folder = Path("runs/rotation_test")
    folder.mkdir()
    (folder / "config.json").write_text(experiment.model_dump_json())
    (folder / "status.json").write_text('{"status": "running"}')
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | {"enc_filters": 32, "algorithm": "cpc"}))
    assert load_experiment("finetune", folder / "config.json").model_dump() == experiment.model_dump()
    with pytest.raises(UserError, match="enc_filters"):
        finetune(**of_the_encoder(experiment))


def test_weights_that_pretraining_began_with_are_not_taken(run):
    stored = json.loads((run / "config.json").read_text())
    network = {"encoder_architecture": "densenet121", "pooling": "avg", "encoder_weights": "imagenet.h5"}
    (run / "config.json").write_text(json.dumps(stored | network))
    experiment = finetune(dataset_name="images", data_dim=32, prediction_architecture="softmax", csv_file="t.csv")
    assert (experiment.encoder_name, experiment.pooling, experiment.encoder_weights) == ("densenet121", "avg", None)
