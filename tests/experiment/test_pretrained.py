"""Keys of a finetuning that come from its checkpoint."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import pretrained, registry
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
        ({"unet_preset": "paper"}, 'unet_preset "paper"', 'unet_preset "plain"'),
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


@pytest.mark.parametrize("content", [None, "[]", '{"architectures": ["other"]}'])
def test_without_an_experiment_beside_the_weights_the_files_own_keys_count(run, content):
    (run / "config.json").unlink()
    if content is not None:
        (run / "config.json").write_text(content)
    with pytest.raises(UserError, match="algorithm: this key is required"):
        finetune(model_checkpoint="runs/rotation/encoder.keras")
    experiment = finetune(model_checkpoint="runs/rotation/encoder.keras", algorithm="cpc", num_layers=1)
    assert (experiment.num_layers, experiment.enc_filters, experiment.normalization) == (1, None, None)


@pytest.mark.parametrize("content", [b"{", b"", b'{"algorithm": "rot', b"\xff\xfe{}"])
@pytest.mark.parametrize("checkpoint", ["runs/rotation", "runs/rotation/encoder.keras"])
def test_a_broken_file_beside_the_weights_is_named(run, checkpoint, content):
    (run / "config.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^finetune\.json: model_checkpoint: runs/rotation/config\.json: (expected a JSON|.*no UTF-8)"
    ):
        finetune(model_checkpoint=checkpoint, algorithm="rotation", num_layers=2)


def pretrained_with(run, **keys):
    """The config.json of a pretraining with other keys, as that of another version may be: nothing checks them."""
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | keys))


@pytest.mark.parametrize(
    ("theirs", "mine", "line"),
    [
        ({"intensity_window": [-100, 240]}, {}, "intensity_window: null, in the pretraining [-100, 240]"),
        ({}, {"intensity_window": [0, 80]}, "intensity_window: [0.0, 80.0], in the pretraining null"),
        ({"intensity_scaling": "min_max"}, {}, 'intensity_scaling: "percentiles", in the pretraining "min_max"'),
        ({"foreground_crop": "box"}, {}, 'foreground_crop: "none", in the pretraining "box"'),
        ({"volume_fitting": "crop"}, {}, 'volume_fitting: "resize", in the pretraining "crop"'),
        ({"dataset_name": "npy"}, {}, 'volume_fitting: "resize", in the pretraining "exact"'),
        ({"data_dim": 32}, {}, "data_dim: 16, in the pretraining 32"),
        ({"data_dim": [16, 16, 32]}, {}, "data_dim: 16, in the pretraining [16, 16, 32]"),
        ({"number_channels": 2}, {}, "number_channels: 1, in the pretraining 2"),
        (
            {"channel_suffixes": ["_flair"]},
            {"channel_suffixes": ["_t1"]},
            'channel_suffixes: ["_t1"], in the pretraining ["_flair"]',
        ),
        (
            {"dataset_name": "chestxray", "volume_fitting": "resize"},
            {},
            "grey photographs (dataset_name): false, in the pretraining true",
        ),
        (
            {"normalization": "batch"},
            {"normalization": "group", "allow_partial_load": True},
            'normalization: "group", in the pretraining "batch"',
        ),
    ],
)
def test_scans_that_are_prepared_otherwise_are_warned_of(run, caplog, theirs, mine, line):
    pretrained_with(run, **theirs)
    finetune(**mine)
    (record,) = caplog.records
    first, *lines = record.getMessage().splitlines()
    assert record.levelname == "WARNING"
    assert first.startswith("finetune.json: the scans are prepared otherwise than those of the pretraining (runs/rotat")
    assert lines == [f"  {line}"]


@pytest.mark.parametrize(
    ("mine", "lines"),
    [
        ({}, ['intensity_scaling: "percentiles", in the pretraining "min_max"']),
        ({"intensity_scaling": "min_max"}, []),
        (
            {"intensity_scaling": "min_max", "foreground_crop": "box"},
            ['foreground_crop: "box", in the pretraining "no'],
        ),
    ],
)
def test_a_run_from_before_a_key_was_there_did_what_was_done_then(run, caplog, mine, lines):
    pretrained_with(run)
    stored = json.loads((run / "config.json").read_text())
    for key in ("intensity_scaling", "foreground_crop"):
        del stored[key]
    (run / "config.json").write_text(json.dumps(stored))
    finetune(**mine)
    found = [line.strip() for record in caplog.records for line in record.getMessage().splitlines()[1:]]
    assert len(found) == len(lines) and all(map(str.startswith, found, lines))


def test_every_difference_is_in_one_block(run, caplog):
    pretrained_with(run, intensity_window=[0, 9], data_dim=32, volume_fitting="resize", number_channels=4)
    finetune()
    (record,) = caplog.records
    keys = [line.split(":")[0].strip() for line in record.getMessage().splitlines()[1:]]
    assert keys == ["intensity_window", "number_channels", "data_dim"]


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        ({"volume_fitting": "resize", "data_dim": [16, 16, 16]}, {}),
        ({"dataset_name": "volumes"}, {}),
        ({"intensity_window": [0, 80]}, {"intensity_window": [0.0, 80.0]}),
        ({"volume_fitting": "crop", "data_dim": 48}, {"volume_fitting": "crop"}),
        ({"volume_fitting": "crop"}, {"volume_fitting": "exact"}),
        ({"target_spacing": [1, 1, 1], "data_dim": 48}, {"target_spacing": 1}),  # which crops
        ({"target_spacing": [1, 1, 1], "volume_fitting": "crop"}, {}),
        ({"number_channels": 2}, {"number_channels": 3, "channel_map": [0, 0, 1]}),
        ({"channel_suffixes": None}, {"channel_suffixes": ["_t1"]}),
        ({"normalization": None}, {"normalization": "group"}),
        ({"lr": 0.5, "epochs": 3, "augment": True, "cache": "disk"}, {}),
        ({"dataset_name": "of another version", "volume_fitting": None}, {}),
    ],
)
def test_scans_that_are_prepared_alike_are_no_warning(run, caplog, theirs, mine):
    pretrained_with(run, **theirs)
    finetune(**mine)
    assert caplog.records == []


@pytest.mark.parametrize(("channels", "absent"), [([5], 5), ([0, 2], 2), ([-1], -1)])
def test_a_channel_that_was_not_pretrained_cannot_feed_another(run, channels, absent):
    pretrained_with(run, number_channels=2)
    with pytest.raises(UserError, match=rf"no pretrained channel {absent}; .*config\.json of model_checkpoint has 2"):
        finetune(number_channels=len(channels), channel_map=channels)


def test_a_finished_finetuning_is_compared_where_its_pretraining_is_readable(run, caplog):
    pretrained_with(run, intensity_window=[0, 9])
    experiment = finetune()
    caplog.clear()
    pretrained.warn_of_preparation(experiment, "runs/rotation_test")
    assert caplog.text.count("runs/rotation_test: the scans are prepared otherwise") == 1
    (run / "config.json").write_text("{")
    pretrained.warn_of_preparation(experiment, "runs/rotation_test")
    (run / "config.json").unlink()
    pretrained.warn_of_preparation(experiment, "runs/rotation_test")
    assert len(caplog.records) == 1


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


def test_the_size_of_voxels_is_that_of_the_pretraining(run, caplog):
    """Taken over where the file is silent, told where it says something else."""
    spaced = PRETRAINING | {"target_spacing": [1.5, 1.5, 3], "interpolation": "cubic"}
    Path("train.json").write_text(json.dumps(spaced))
    (run / "config.json").write_text(load_experiment("train", "train.json").model_dump_json())
    experiment = finetune()
    assert (experiment.target_spacing, experiment.interpolation) == ([1.5, 1.5, 3], "cubic")
    assert experiment.fitting == "crop" and experiment.preprocessing.target_spacing == (1.5, 1.5, 3)
    assert not caplog.records
    assert finetune(target_spacing=None).preprocessing.target_spacing is None
    assert "target_spacing: null, in the pretraining [1.5, 1.5, 3" in caplog.text
