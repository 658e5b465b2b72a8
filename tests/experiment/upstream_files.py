"""The experiment files of HealthML/self-supervised-3d-tasks at ecc86ef (2022): 26 of pretraining, 21 of finetuning.

Keys and values only, put together from what the files share. The folders are named as the predecessor names them.
"""

ALGORITHMS = ("cpc", "exemplar", "jigsaw", "rotation", "rpl")


def _group(algorithms, suffix, shared, own):
    """Return ``{<algorithm><suffix>: keys}``: the keys that all files share, then those of each file."""
    return {f"{name}{suffix}": {"algorithm": name} | shared | own.get(name, {}) for name in algorithms}


RETINA = {"dataset_name": "kaggle_retina", "data_dir": "kaggle_retina_2019/images/resized_224"}
FUNDUS = {
    "dataset_name": "ukb2d",
    "data_dir": "/mnt/projects/ukbiobank/derived/imaging/retinal_fundus/images_resized_224",
}
SLICES = {"dataset_name": "pancreas2d", "data_dir": "pancreas_data/img_slices_128_single"}
PANCREAS = {"dataset_name": "pancreas3d", "data_dir": "Task07_Pancreas/images_resized_128_bbox/"}
BRAIN_FOLDER = "/mnt/projects/ukbiobank/derived/imaging/brain_mri/images_resized_128_labeled/"
BRAIN = {"dataset_name": "ukb3d", "data_dir": f"{BRAIN_FOLDER}train/"}
PHOTOGRAPHS = {
    **{"data_is_3D": False, "data_dim": 224, "number_channels": 3, "lr": 1e-5, "val_split": 0.05, "epochs": 1000},
    **{"encoder_architecture": "DenseNet121", "top_architecture": "big_fully"},
}
VOLUMES = {
    **{"data_is_3D": True, "data_dim": 128, "enc_filters": 16, "top_architecture": "big_fully", "lr": 1e-4},
    "epochs": 1000,
}
CODE, DATASET_NEGATIVES = {"code_size": 1024}, {"sample_neg_examples_from": "dataset"}
OFTEN_SAVED = {"save_checkpoint_every_n_epochs": 25}
CODE_OF = {"cpc": CODE, "exemplar": CODE}


def _grid(side, jitter):
    return {"patches_per_side": side, "patch_jitter": jitter}


def _augmented(**train):
    return {"train_data_generator_args": {**train, "shuffle": True}, "val_data_generator_args": {"augment": False}}


TRAIN = {
    **_group(
        *(ALGORITHMS, "_2d", RETINA | PHOTOGRAPHS | _augmented(augment=True)),
        {
            "cpc": {"batch_size": 64, "patches_per_side": 5, "crop_size": 224} | OFTEN_SAVED | CODE,
            "exemplar": {"batch_size": 16} | CODE | DATASET_NEGATIVES,
            "jigsaw": {"batch_size": 32} | _grid(3, 8),
            "rotation": {"batch_size": 32} | _augmented(augment_zoom_only=True),
            "rpl": {"batch_size": 32} | _grid(3, 8),
        },
    ),
    **_group(
        *(ALGORITHMS, "_2d_ukb", FUNDUS | PHOTOGRAPHS | _augmented(augment=False)),
        {
            "cpc": {"batch_size": 64, "patches_per_side": 5, "crop_size": 224} | CODE,
            "exemplar": {"batch_size": 16} | CODE | DATASET_NEGATIVES,
            "jigsaw": {"batch_size": 64} | _grid(3, 8),
            "rotation": {"batch_size": 64},
            "rpl": {"batch_size": 128} | _grid(3, 8),
        },
    ),
    **_group(
        *(ALGORITHMS, "_2d_pancreas"),
        {
            **{**SLICES, "data_is_3D": False, "data_dim": 128, "number_channels": 1, "batch_size": 64, "lr": 1e-5},
            **{"val_split": 0.05, "epochs": 250, "top_architecture": "big_fully"},
        },
        {
            "cpc": {"batch_size": 256, "patches_per_side": 5, "crop_size": 128} | OFTEN_SAVED | CODE,
            "exemplar": CODE | DATASET_NEGATIVES,
            "jigsaw": _grid(3, 4),
            "rpl": _grid(3, 4),
        },
    ),
    **_group(
        *(ALGORITHMS, "_3d", PANCREAS | VOLUMES | {"number_channels": 1}),
        {
            "cpc": {"batch_size": 32, "patches_per_side": 4, "embed_dim": 64} | CODE,
            "exemplar": {"batch_size": 2} | CODE | DATASET_NEGATIVES,
            "jigsaw": {"batch_size": 8} | _grid(3, 3),
            "rotation": {"batch_size": 4},
            "rpl": {"batch_size": 32} | _grid(3, 3),
        },
    ),
    **_group(
        *(ALGORITHMS, "_3d_ukb", BRAIN | VOLUMES | {"number_channels": 2}),
        {
            "cpc": {"batch_size": 32, "patches_per_side": 4, "embed_dim": 64, "lr": 1e-3} | CODE,
            "exemplar": {"batch_size": 2} | CODE | DATASET_NEGATIVES,
            "jigsaw": {"batch_size": 8} | _grid(3, 3),
            "rotation": {"batch_size": 4},
            "rpl": {"batch_size": 32} | _grid(3, 3),
        },
    ),
    "cpc_3d_brats": {
        **{"algorithm": "cpc", "batch_size": 64, "data_dir": "brats/images_resized_128", "dataset_name": "brats"},
        **{"train3D": True, "data_dim": 128, "n_channels": 4, "embed_dim": 128, "split_per_side": 4, "epochs": 500},
        **{"lr": 1e-3, "num_layers": 4},
    },
}


def _labels(**arguments):
    return {
        "train_data_generator_args": {**arguments, "shuffle": True},
        "val_data_generator_args": arguments,
        "test_data_generator_args": arguments,
    }


def _folders(folder):
    return {"data_dir_train": f"{folder}/train", "data_dir_test": f"{folder}/test"}


def _epochs(initialized, warmup):
    return {"epochs_initialized": initialized, "epochs_frozen": 0, "epochs_random": 0, "epochs_warmup": warmup}


FROM_SCRATCH = {"algorithm": "rpl", "model_checkpoint": "~/workspace/random", "epochs_initialized": 0}
GRADES = {"suffix": ".png", "multilabel": True}
ALL_FRACTIONS = [100, 10, 5, 50, 25]
MASK_METRICS = ["accuracy", "weighted_dice_coefficient"]
RETINA_FINETUNE = {
    **RETINA,
    "csv_file": "kaggle_retina_2019/labels_shuffled.csv",
    "csv_file_train": "kaggle_retina_2019/labels_shuffled_train.csv",
    "csv_file_test": "kaggle_retina_2019/labels_shuffled_test.csv",
    "train_data_generator_args": GRADES | {"augment": True, "shuffle": True},
    "val_data_generator_args": GRADES | {"augment": False},
    "test_data_generator_args": GRADES | {"augment": False},
    **{"data_is_3D": False, "data_dim": 224, "number_channels": 3, "val_split": 0.05, "batch_size": 32, "lr": 5e-5},
    **{"loss": "binary_crossentropy", "scores": ["qw_kappa_kaggle", "cat_acc_kaggle"], "metrics": ["accuracy"]},
    **{"top_architecture": "big_fully", "prediction_architecture": "simple_multiclass", "pooling": "avg"},
    **{"encoder_architecture": "DenseNet121", "exp_splits": ALL_FRACTIONS, "repetitions": 5, "do_cross_val": True},
    **_epochs(20, 3),
}
PANCREAS_SCORES = {
    "loss": "weighted_dice_loss",
    "scores": ["dice", "jaccard", "dice_pancreas_0", "dice_pancreas_1", "dice_pancreas_2"],
    "metrics": [*MASK_METRICS, "weighted_dice_coefficient_per_class_pancreas"],
}
SLICES_FINETUNE = {
    **{"dataset_name": "pancreas2d", "data_is_3D": False, "val_split": 0.05, "data_dim": 128, "number_channels": 1},
    "data_dir_train": "pancreas_data/images_slices_128_labeled/img_single",
    "data_dir_test": "pancreas_data/images_slices_128_labeled/test_single",
    **PANCREAS_SCORES,
    **{"top_architecture": "big_fully", "prediction_architecture": "unet_2d_upconv", "batch_size": 64, "lr": 1e-3},
    **{"exp_splits": ALL_FRACTIONS, "repetitions": 3},
    **_epochs(400, 25),
}
VOLUME_FINETUNE = {
    **{"data_is_3D": True, "val_split": 0.05, "enc_filters": 16, "data_dim": 128, "loss": "weighted_dice_loss"},
    **{"prediction_architecture": "unet_3d_upconv", "pooling": "max"},
    **_labels(label_stem=""),
}
PANCREAS_FINETUNE = {
    "dataset_name": "pancreas3d",
    **_folders("Task07_Pancreas/images_resized_128_bbox_labeled"),
    **VOLUME_FINETUNE,
    **PANCREAS_SCORES,
    **{"top_architecture": "big_fully", "number_channels": 1, "batch_size": 2, "lr": 1e-3, "repetitions": 3},
    **{"clipnorm": 1, "clipvalue": 1, "exp_splits": [50, 25]},
    **_epochs(400, 25),
}
BRATS_SCORES = {
    "loss": "weighted_dice_loss",
    "scores": ["dice", "jaccard", "brats_wt", "brats_tc", "brats_et"],
    "metrics": [*MASK_METRICS, "brats_metrics"],
}
GRID_OF = {"cpc": {"patches_per_side": 5}, "jigsaw": {"patches_per_side": 3}, "rpl": {"patches_per_side": 3}}
PRETEXT = {name: CODE_OF.get(name, {}) | GRID_OF.get(name, {}) for name in ALGORITHMS}


def _pretext(checkpoints, more):
    """Return each file's keys of the pretext task, its checkpoint, and ``more`` of its own."""
    return {
        name: PRETEXT[name] | {"model_checkpoint": checkpoint} | more.get(name, {})
        for name, checkpoint in zip(ALGORITHMS, checkpoints, strict=True)
    }


def _without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


FINETUNE = {
    **_group(
        *(ALGORITHMS, "_2d", RETINA_FINETUNE),
        _pretext(
            ["cpc_kaggle_retina/weights-250.hdf5", *(f"{name}_kaggle_retina" for name in ALGORITHMS[1:])],
            {"exemplar": _epochs(15, 2)},
        ),
    ),
    "random_2d": RETINA_FINETUNE | FROM_SCRATCH | {"epochs_random": 20, "epochs_warmup": 0, "patches_per_side": 3},
    **_group(
        *(ALGORITHMS, "_2d_pancreas", SLICES_FINETUNE),
        _pretext(
            [
                *("cpc_pancreas2d_1/weights-250.hdf5", "exemplar_pancreas2d", "jigsaw_pancreas2d_3"),
                *("rotation_pancreas2d_9", "rpl_pancreas2d_5"),
            ],
            {},
        ),
    ),
    "random_2d_pancreas": {
        **(SLICES_FINETUNE | FROM_SCRATCH),
        **{"algorithm": "rotation", "epochs_random": 400, "epochs_warmup": 0},
    },
    **_group(
        *(ALGORITHMS, "_3d", PANCREAS_FINETUNE),
        _pretext(
            [
                *("cpc_pancreas3d_18/weights-400.hdf5", "exemplar_pancreas3d_42/weights-300.hdf5"),
                *("jigsaw_pancreas3d_9", "rotation_pancreas3d_9", "rpl_pancreas3d_9"),
            ],
            {"cpc": {"patches_per_side": 4}},
        ),
    ),
    "random_3d": {
        **_without(PANCREAS_FINETUNE | FROM_SCRATCH, "epochs_warmup"),
        **{"epochs_random": 150, "exp_splits": ALL_FRACTIONS, "patches_per_side": 3},
    },
    "cpc_3d_brats": {
        **{"algorithm": "cpc", "dataset_name": "brats", "model_checkpoint": "cpc_brats/weights-improvement-459.hdf5"},
        **_folders("brats/images_resized_128_labeled"),
        "train_data_generator_args": {"shuffle": True},
        **{"prediction_architecture": "unet_3d_upconv", "n_channels": 4, "batch_size": 1, "patch_dim": 64, "lr": 1e-4},
        **BRATS_SCORES,
        **{"train3D": True, "val_split": 0.05, "data_dim": 128, "split_per_side": 4, "embed_dim": 128},
        **{"exp_splits": [100, 10, 1, 50, 25], "repetitions": 1, "epochs": 150, "epochs_warmup": 20},
    },
    "random_3d_brats": {
        **{"algorithm": "rotation", "dataset_name": "brats"},
        "model_checkpoint": "/home/netstore/workspace/ukb_3d_fast/weights-improvement-011.hdf5",
        **_folders("/home/netstore/brats/images_resized_128_labeled"),
        **VOLUME_FINETUNE,
        **BRATS_SCORES,
        **{"top_architecture": "big_fully", "number_channels": 4, "num_classes": 4, "batch_size": 8, "lr": 1e-4},
        **{"exp_splits": [100], "epochs_initialized": 150, "epochs_frozen": 20, "epochs_random": 0, "repetitions": 1},
    },
    "random_3d_ukb": {
        **{"algorithm": "rotation", "dataset_name": "ukb3d", "model_checkpoint": "~/workspace/random"},
        **_folders(BRAIN_FOLDER.rstrip("/")),
        **VOLUME_FINETUNE,
        **{"scores": ["dice", "jaccard"], "metrics": MASK_METRICS},
        **{"number_channels": 2, "num_classes": 4, "batch_size": 8, "lr": 1e-3, "exp_splits": [100], "repetitions": 1},
        **{"epochs_initialized": 0, "epochs_frozen": 0, "epochs_random": 150},
    },
}
# The one retina file without tables of its own for training and testing.
FINETUNE["cpc_2d"] = _without(FINETUNE["cpc_2d"], "csv_file_train", "csv_file_test")
FILES = [("train", name) for name in TRAIN] + [("finetune", name) for name in FINETUNE]


def values(command, name):
    """Return the keys of a file."""
    return (TRAIN if command == "train" else FINETUNE)[name]
