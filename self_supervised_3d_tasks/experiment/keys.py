"""The keys of an experiment: flat, typed, under the predecessor's names.

A key belongs to the experiment (the classes below) or to what consumes it: the algorithm, the encoder, the decoder. The
keyword-only parameters of those callables declare their keys, types and defaults; `build` routes the values back to
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.experiment import defaults, registry

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Percent = Annotated[float, Field(gt=0, le=100)]


class Experiment(BaseModel):
    """Keys that pretraining and finetuning share."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    algorithm: str = Field(description="Pretext task: the name of a file in algorithms/.")
    dataset_name: str = Field(description="Layout of the data folder.")
    data_dim: PositiveInt | list[PositiveInt] = Field(
        description="Model input: one edge length or one per axis, in voxels."
    )
    data_is_3D: bool | None = Field(None, description="Rank of the data; default: that of the layout.")
    number_channels: PositiveInt = Field(1, description="Channels (modalities) of a scan.")
    batch_size: PositiveInt = Field(2, description="Examples per step; for cpc context-target pairs, see README.")
    lr: PositiveFloat = Field(1e-3, description="Learning rate; with lr_schedule cosine that of the first step.")
    lr_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: down to 0 over the training; in finetuning over each phase."
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="What makes steps of gradients.")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default_factory=defaults.momentum, description="Of sgd; default: 0.9."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="Of every trainable weight.")
    weight_decay_form: Literal["coupled", "decoupled"] | None = Field(
        default_factory=defaults.weight_decay_form,
        description="coupled: part of the gradient, as in PyTorch's SGD and Adam, the default; decoupled: as in AdamW.",
    )
    clipnorm: PositiveFloat | None = Field(None, description="Clip each gradient to this norm.")
    clipvalue: PositiveFloat | None = Field(None, description="Clip each gradient entry; not together with clipnorm.")
    seed: Count = Field(0, description="Seed of splits, initial weights, augmentation and dropout.")
    deterministic: bool = Field(False, description="Deterministic kernels: slower on a GPU, bit-identical reruns.")
    mixed_precision: Literal["none", "bfloat16", "float16"] = Field("none", description="Compute type of the layers.")
    encoder_architecture: str | None = Field(None, description="File in models/encoders/; default: unet.")
    intensity_window: tuple[float, float] | None = Field(
        default_factory=defaults.intensity_window,
        description="[low, high]: intensities are clipped and scaled with it (CT); default: min-max per scan, "
        "[0, 255] for photographs.",
    )
    volume_fitting: Literal["resize", "crop", "exact"] | None = Field(
        None, description="How a scan meets data_dim: resized, cropped at random, or it must already fit."
    )
    patches_per_scan: PositiveInt = Field(1, description="Random crops per scan and epoch (volume_fitting crop).")
    augment: bool = Field(
        False,
        description="Flips; in 3D a rotation, in 2D zoom; brightness and contrast, but not of 2D images without masks.",
    )
    augment_zoom_only: bool = Field(False, description="Instead of augment: the zoom alone.")
    steps_per_epoch: PositiveInt | None = Field(None, description="Steps per epoch; default: every scan once.")
    channel_suffixes: list[str] | None = Field(None, description="One file per channel: <case><suffix>.nii.gz.")
    subject_pattern: str | None = Field(None, description="Regular expression; its group is the subject of a file.")
    on_bad_file: Literal["stop", "skip"] = Field("stop", description="What an unreadable scan does to the run.")
    cache: Literal["auto", "memory", "disk"] = Field("auto", description="Where prepared scans are kept.")
    cache_dir: str | None = Field(None, description="Disk cache, can be shared; default: <base_workspace>/cache.")
    base_workspace: str = Field("runs", description="Folder in which run folders are made.")
    run_name: str | None = Field(None, description="Name of the run folder; default: upstream's naming.")
    save_checkpoint_every_n_epochs: PositiveInt | None = Field(None, description="Keep a checkpoint every n epochs.")
    tensorboard: bool = Field(True, description="Write TensorBoard logs into the run folder.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Verbosity on stderr.")
    use_gpu: list[Count] | None = Field(None, description="Indices of the GPUs that may be used.")

    @property
    def rank(self) -> int:
        """Number of spatial axes: 2 or 3."""
        if self.data_is_3D is not None:
            return 3 if self.data_is_3D else 2
        return layouts.get(self.dataset_name).rank or (len(self.data_dim) if isinstance(self.data_dim, list) else 3)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of the model's input."""
        spatial = self.data_dim if isinstance(self.data_dim, list) else [self.data_dim] * self.rank
        return (*spatial, self.number_channels)

    @property
    def fitting(self) -> str:
        """``volume_fitting``, or what the layout does by default."""
        return self.volume_fitting or layouts.get(self.dataset_name).volume_fitting

    @property
    def cache_folder(self) -> Path:
        """Where prepared scans are kept when they do not fit into memory."""
        return Path(self.cache_dir or Path(self.base_workspace) / "cache").expanduser()

    @property
    def crop_shape(self) -> tuple[int, ...] | None:
        """``(*spatial)`` of a random crop, or None where the whole fitted scan is the input."""
        return self.input_shape[:-1] if self.fitting == "crop" else None

    @property
    def crops_per_scan(self) -> int:
        """How often a scan is drawn per epoch."""
        return self.patches_per_scan if self.fitting == "crop" else 1

    @property
    def encoder_name(self) -> str:
        """Module name of the encoder."""
        return registry.canonical("encoder", self.encoder_architecture or "unet", "encoder_architecture")

    def preprocessing_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `data.preprocessing.Preprocessing`."""
        return {
            "data_dim": self.input_shape[:-1],
            "number_channels": self.number_channels,
            "intensity_window": self.intensity_window,
            "grey": layouts.get(self.dataset_name).grey,
            "volume_fitting": self.fitting,
        }


class TrainExperiment(Experiment):
    """Keys of pretraining: ``python train.py FILE.json``."""

    data_dir: str = Field(description="Folder of unlabelled scans, or <archive>.npz/<part>.")
    epochs: PositiveInt = Field(250, description="Number of epochs.")
    train_val_split: OpenShare = Field(0.9, description="Share of the subjects that trains; the rest validates.")
    restoration_picture_every_n_epochs: PositiveInt = Field(
        10, description="Draw restored validation scans every n epochs; for tasks with a decoder."
    )
    background_level: float | None = Field(
        None, description="Voxels below it are background (volume_fitting crop); in the units of intensity_window."
    )
    background_share: tuple[Share, Share] | None = Field(
        default_factory=defaults.background_share,
        description="[least, most] of a crop that is background, else it is drawn again; default: up to 0.85.",
    )

    def run_location(self) -> tuple[Path, str]:
        """Return the parent and the name of the run folder: ``<base_workspace>/<algorithm>_<dataset_name>``."""
        return Path(self.base_workspace).expanduser(), self.run_name or f"{self.algorithm}_{self.dataset_name}"


class FinetuneExperiment(Experiment):
    """Keys of finetuning: ``python finetune.py FILE.json``."""

    model_checkpoint: str | None = Field(None, description="Run folder of the pretraining, or its encoder.keras.")
    data_dir_train: str = Field(description="Folder of labelled scans, or <archive>.npz/<part>.")
    data_dir_test: str | None = Field(None, description="Folder of labelled test scans; default: test_split.")
    label_dir_train: str | None = Field(None, description="Masks; default: <data_dir_train>_labels.")
    label_dir_test: str | None = Field(None, description="Masks; default: <data_dir_test>_labels.")
    label_stem: str | None = Field(None, description="Added to the image's stem to name its mask.")
    csv_file: str | None = Field(None, description="Table of labels, for classification.")
    csv_file_test: str | None = Field(
        None, description="Table of the test scans; they lie in data_dir_test or, without it, in data_dir_train."
    )
    image_column: str | None = Field(default_factory=defaults.image_column, description="Column of the scans' files.")
    label_column: str | None = Field(default_factory=defaults.label_column, description="Column of the labels.")
    subject_column: str | None = Field(default_factory=defaults.subject_column, description="Column of the subjects.")
    suffix: str | None = Field(None, description="Ending of the scans' files, where the table leaves it out.")
    label_map: dict[int, Count] = Field({}, description="Source label -> class, applied before num_classes.")
    class_names: list[str] | None = Field(
        default_factory=defaults.class_names,
        description="Names of the classes, for tables and pictures; of chestxray the findings that are predicted.",
    )
    num_classes: Annotated[int, Field(ge=2)] = Field(
        default_factory=defaults.num_classes,
        description="Classes, background included; default: 3, brats 4, kaggle_retina 5; chestxray: all findings.",
    )
    prediction_architecture: str = Field("unet", description="Decoder for masks, or head for classes of whole scans.")
    global_pooling: Literal["avg", "max", "none"] = Field(
        "avg", description="How a classification head pools the encoder's map; none: it is flattened."
    )
    pool_bins: PositiveInt = Field(
        1, description="Bins per axis that global_pooling avg averages over; they are flattened."
    )
    multilabel: bool = Field(False, description="Ordered classes: output k asks for at least class k.")
    sample_classes_uniform: bool = Field(False, description="Repeat training scans until the classes are even.")
    do_cross_val: bool = Field(False, description="Cross-validation; repetitions is the number of folds.")
    exp_splits: list[Percent] = Field([100, 10, 1], description="Label fractions in percent of the training share.")
    repetitions: PositiveInt = Field(2, description="Repetitions with their own seed and subset.")
    epochs_initialized: Count = Field(5, description="Epochs from pretrained weights, warm-up included.")
    epochs_random: Count = Field(5, description="Epochs from scratch.")
    epochs_frozen: Count = Field(5, description="Epochs with the pretrained encoder frozen throughout.")
    epochs_warmup: Count = Field(2, description="First epochs of initialized with the encoder frozen.")
    val_split: OpenShare = Field(0.1, description="Share of the training folder's subjects that validates.")
    test_split: OpenShare = Field(0.2, description="Share of the subjects that tests, without data_dir_test.")
    foreground_fraction: Share = Field(0.0, description="Share of the crops centred on a foreground voxel.")
    loss: str = Field(
        default_factory=defaults.loss,
        description="Default: dice_crossentropy; in classification categorical_crossentropy, with multilabel or of "
        "findings binary_crossentropy.",
    )
    class_weights: list[PositiveFloat] | None = Field(None, description="Per class, for cross-entropy losses.")
    metrics: list[str] = Field(["accuracy"], description="Logged while training.")
    scores: list[str] = Field(
        default_factory=defaults.scores,
        min_length=1,
        description="Dice and others per case, on the case's own grid; default: dice. In classification over the "
        "test set; default: balanced_accuracy, roc_auc; of findings mean_auroc, auroc (one per finding).",
    )
    random_from: str | None = Field(
        None, description="Sweep with the same settings: its finished from-scratch jobs are taken over, not repeated."
    )
    transfer: Literal["encoder", "encoder_decoder"] = Field(
        "encoder", description="What is taken from model_checkpoint; the decoder into unet, from a task that has one."
    )
    channel_map: list[Count] | None = Field(None, description="Pretrained channel that feeds each input channel.")
    allow_partial_load: bool = Field(False, description="Go on when only a part of the encoder could be loaded.")
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Overlap of the sliding windows.")

    @property
    def task(self) -> Literal["classification", "findings", "segmentation"]:
        """What is predicted: a class per scan, any number of findings per scan, or a class per voxel."""
        return defaults.task(self.dataset_name, self.prediction_architecture)

    @property
    def prediction_name(self) -> str:
        """Name of the decoder or head, as the registry has it."""
        return registry.prediction(self.prediction_architecture)[1]

    @property
    def has_test_set(self) -> bool:
        """Whether the test scans are given, not split off."""
        return bool(self.data_dir_test or self.csv_file_test)

    def modes(self) -> list[tuple[str, int]]:
        """Return the enabled ``(mode, epochs)`` in upstream's order: frozen, initialized, random."""
        epochs = {"frozen": self.epochs_frozen, "initialized": self.epochs_initialized, "random": self.epochs_random}
        return [(mode, count) for mode, count in epochs.items() if count]

    def run_location(self) -> tuple[Path, str]:
        """Return parent and name of the run folder: as upstream, ``<checkpoint>_test`` beside the checkpoint."""
        if self.run_name or not self.model_checkpoint:
            return Path(self.base_workspace).expanduser(), self.run_name or "random_test"
        checkpoint = Path(self.model_checkpoint).expanduser()
        if checkpoint.name in ("encoder.keras", "encoder_decoder.keras"):
            checkpoint = checkpoint.parent
        return checkpoint.parent, f"{checkpoint.name.removesuffix('.keras')}_test"

    def preprocessing_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `data.preprocessing.Preprocessing`."""
        return super().preprocessing_options() | {"label_map": self.label_map}

    @property
    def label_names(self) -> dict[int, str]:
        """``class_names`` by label, for pictures."""
        return dict(enumerate(self.class_names or []))

    def label_key(self, *, test: bool = False) -> str:
        """Return the key that says where the classes of whole scans are, for messages."""
        if layouts.get(self.dataset_name).labels == "archive":
            return "data_dir_test" if test and self.data_dir_test else "data_dir_train"
        return "csv_file_test" if test and self.csv_file_test else "csv_file"

    def label_table_options(self, *, test: bool = False) -> dict[str, Any] | None:
        """Return the keyword arguments of `data.label_tables.LabelTable`, or None where masks are the labels.

        With ``findings`` those of `data.finding_tables.FindingTable`.

        Args:
            test: Of the test scans, where they have a table of their own.
        """
        path = self.csv_file_test if test else self.csv_file
        if path is None:
            return None
        names = ("image_column", "label_column", "subject_column", "suffix", "label_map", "num_classes")
        layout = layouts.get(self.dataset_name)
        options = {"path": path, "positional": layout.labels == "table"} | {name: getattr(self, name) for name in names}
        return options | {"findings": tuple(self.class_names)} if self.task == "findings" else options
