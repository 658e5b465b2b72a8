"""Keys of both commands, and of pretraining, that contradict each other."""

import pytest

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from tests.experiment.experiment_files import HU, TRAIN, finetune, train, write


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"epoch": 3}, ["epoch", "unknown key", "'epochs'"]),
        ({"epochs": "many"}, ["epochs", "integer", '"many"']),
        ({"epochs": 0}, ["epochs", "greater than or equal to 1", "0"]),
        ({"epochs": 2.5}, ["epochs", "2.5"]),
        ({"lr": -1}, ["lr", "greater than 0"]),
        ({"algorithm": "rotaton"}, ["algorithm", "rotaton", "'rotation'"]),
        ({"algorithm": None}, ["algorithm", "required"]),
        ({"dataset_name": "pancreas"}, ["dataset_name", "pancreas3d"]),
        ({"encoder_architecture": "unett"}, ["encoder_architecture", "'unet'"]),
        ({"data_dim": [32, 32]}, ["data_dim", "2 axes", "3D"]),
        ({"data_dim": 8}, ["data_dim", "num_layers"]),
        ({"algorithm": "cpc", "patches_per_side": 3}, ["patches_per_side", "greater than or equal to 4", "3"]),
        ({"algorithm": "rpl", "patches_per_side": 1}, ["patches_per_side", "greater than or equal to 3", "1"]),
        ({"algorithm": "tcpc", "slic_sigma": float("inf")}, ["slic_sigma", "finite number"]),
        ({"algorithm": "tcpc", "slic_compactness": float("nan")}, ["slic_compactness", "finite number"]),
        ({"train_val_split": 1.0}, ["train_val_split", "less than 1"]),
        ({"intensity_window": [100, -100]}, ["intensity_window", "low"]),
        ({"model_params": {"droput": 0.1}}, ["model_params.droput", "'dropout'"]),
        ({"target_spacing": [1, 2]}, ["target_spacing", "2 axes", "3D"]),
        ({"target_spacing": 0}, ["target_spacing", "greater than 0"]),
        ({"target_spacing": "mean"}, ["target_spacing", "'median'"]),
        ({"target_spacing": 1, "volume_fitting": "resize"}, ["target_spacing, volume_fitting", '"resize"', '"crop"']),
        ({"target_spacing": 1, "volume_fitting": "exact"}, ["target_spacing, volume_fitting", '"exact"']),
        ({"interpolation": "nearest"}, ["interpolation", "'linear' or 'cubic'"]),
        ({"rotation_axes": "x"}, ["rotation_axes", "auto"]),
        ({"patches_per_scan": 5}, ["patches_per_scan", "volume_fitting"]),
        ({**HU, "background_level": -1000}, ["background_level: -1000", "inside intensity_window [-1000, 1000]"]),
        ({**HU, "background_level": 1500}, ["background_level: 1500", "inside intensity_window [-1000, 1000]"]),
        ({"volume_fitting": "crop", "background_level": -150}, ["background_level", "[0, 1]", "intensity_window"]),
        ({"background_level": 0.1}, ["background_level", "random crops", '"resize"', "volume_fitting"]),
        ({**HU, "background_share": [0, 0.85]}, ["background_share", "background_level is missing"]),
        (
            {**HU, "background_level": 0, "background_share": [0.9, 0.8]},
            ["background_share", "least", "most", "[0.9, 0.8]"],
        ),
        ({**HU, "background_level": 0, "background_share": [0, 85]}, ["background_share", "equal to 1", "85"]),
        ({"train_data_generator_args": {"agument": True}}, ["train_data_generator_args.agument", "'augment'"]),
        ({"channel_columns": ["t1"]}, ["channel_columns", "'nifti'", "channel_suffixes"]),
        ({"dataset_name": "index", "channel_suffixes": ["_a"]}, ["channel_suffixes: 'index'", "channel_columns"]),
        ({"dataset_name": "index", "label_stem": "_m"}, ["label_stem: 'index' names the files"]),
        ({"n_channels": 2, "number_channels": 3}, ["n_channels", "number_channels", "disagree"]),
    ],
)
def test_a_mistake_names_key_value_and_remedy(tmp_path, keys, parts):
    values = {key: value for key, value in (TRAIN | keys).items() if value is not None}
    with pytest.raises(UserError) as error:
        load_experiment("train", write(tmp_path, values))
    message = str(error.value)
    assert "experiment.json" in message
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentum": 0.9}, 'momentum, optimizer: .* received momentum 0.9 with "adam"'),
        ({"optimizer": "sgd", "momentum": None}, 'momentum, optimizer: .* received momentum None with "sgd"'),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum: .*less than 1, received 1.0"),
        ({"weight_decay_form": "coupled"}, "weight_decay_form, weight_decay: .* received coupled with 0; set weight"),
        ({"weight_decay": 0.1, "weight_decay_form": None}, "weight_decay_form, weight_decay: .* None with 0.1"),
        ({"optimizer": "adagrad"}, "optimizer: .*'adam', 'adamw' or 'sgd', received \"adagrad\"$"),
        ({"optimizer": "adamw", "momentum": 0.9}, 'momentum, optimizer: .* received momentum 0.9 with "adamw"'),
        ({"optimizer": "adamw", "weight_decay": 0.0}, 'optimizer: "adamw" has .* received weight_decay 0, .*"adam"'),
        ({"optimizer": "adamw", "weight_decay_form": "coupled"}, "optimizer: .* weight_decay_form coupled"),
        ({"lr_power": 2.0}, 'lr_power, lr_schedule: .* received lr_power 2.0 with "constant"'),
        ({"lr_schedule": "poly", "lr_power": None}, "lr_power, lr_schedule: .* received lr_power None"),
        ({"lr_schedule": "poly", "lr_power": 0.0}, "lr_power: .*greater than 0"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps: .*greater than or equal to 0"),
        ({"ema_momentum": 1.0}, "ema_momentum: .*less than 1"),
        ({"early_stopping_patience": 0}, "early_stopping_patience: .*greater than or equal to 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: .*greater than or equal to 1"),
        (
            {"steps_per_epoch": 10, "gradient_accumulation_steps": 4},
            "steps_per_epoch, gradient_accumulation_steps: .* 10 steps .* update of 4; use 8 or 12 steps",
        ),
        (
            {"steps_per_epoch": 2, "gradient_accumulation_steps": 4},
            "steps_per_epoch, gradient_accumulation_steps: .*use 4 steps",
        ),
        ({"jit_compile": True, "deterministic": True}, 'jit_compile, deterministic: XLA .*; use jit_compile "auto"'),
        ({"jit_compile": "yes"}, "jit_compile"),
        ({"distribution": "both"}, "distribution: .*'none', 'mirrored' or 'data_parallel'"),
        ({"distribution": "mirrored", "workers": 2}, "distribution, workers: .*one of its own; set workers to 1"),
        ({"distribution": "mirrored", "jit_compile": True}, 'distribution, jit_compile: .*use jit_compile "auto"'),
        (
            {"distribution": "mirrored", "gradient_accumulation_steps": 4, "batch_size": 3},
            "distribution, gradient_accumulation_steps: .*remove the key and use batch_size 12",
        ),
        ({"distribution": "mirrored", "mixed_precision": "float16"}, 'distribution, mixed_precision: .*use "bfloat16"'),
    ],
)
@pytest.mark.parametrize("load", [train, finetune])
def test_keys_that_the_optimizer_would_not_look_at_are_refused(tmp_path, load, keys, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **keys)


def test_a_task_whose_loss_changes_does_not_stop_early(tmp_path):
    with pytest.raises(UserError, match="early_stopping_patience: the loss of pcrlv2 changes"):
        train(tmp_path, algorithm="pcrlv2", early_stopping_patience=3)


@pytest.mark.parametrize("load", [train, finetune])
def test_defaults_follow_the_optimizer_and_the_schedule(tmp_path, load):
    plain, adamw = load(tmp_path), load(tmp_path, optimizer="adamw")
    assert (plain.weight_decay, plain.weight_decay_form, plain.lr_power) == (0.0, None, None)
    assert (adamw.weight_decay, adamw.weight_decay_form, adamw.momentum) == (0.01, "decoupled", None)
    assert load(tmp_path, lr_schedule="poly").lr_power == 0.9
