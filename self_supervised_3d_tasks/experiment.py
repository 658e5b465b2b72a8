"""The keys of an experiment: flat, typed, under the predecessor's names.

A key belongs to the experiment (the classes below) or to what consumes it: the algorithm, the encoder, the decoder. The
keyword-only parameters of those callables declare their keys, types and defaults; `Experiment.options_for` routes the
values back to them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from self_supervised_3d_tasks import registry
from self_supervised_3d_tasks.errors import nearest

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
    lr: PositiveFloat = Field(1e-3, description="Adam's learning rate.")
    clipnorm: PositiveFloat | None = Field(None, description="Clip each gradient to this norm.")
    clipvalue: PositiveFloat | None = Field(None, description="Clip each gradient entry; not together with clipnorm.")
    seed: Count = Field(0, description="Seed of splits, initial weights, augmentation and dropout.")
    deterministic: bool = Field(False, description="Deterministic kernels: slower on a GPU, bit-identical reruns.")
    mixed_precision: Literal["none", "bfloat16", "float16"] = Field("none", description="Compute type of the layers.")
    encoder_architecture: str | None = Field(None, description="File in models/encoders/; default: unet.")
    intensity_window: tuple[float, float] | None = Field(
        None, description="[low, high]: intensities are clipped and scaled with it (CT); default: min-max per scan."
    )
    volume_fitting: Literal["resize", "crop", "exact"] | None = Field(
        None, description="How a scan meets data_dim: resized, cropped at random, or it must already fit."
    )
    patches_per_scan: PositiveInt = Field(1, description="Random crops per scan and epoch (volume_fitting crop).")
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

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        layouts = registry.layouts()
        if self.dataset_name not in layouts:
            raise ValueError(
                f"dataset_name: {self.dataset_name!r} is not a known layout ({', '.join(sorted(layouts))})."
                + nearest(self.dataset_name, layouts)
            )
        if isinstance(self.data_dim, list) and len(self.data_dim) != self.rank:
            raise ValueError(f"data_dim: {self.data_dim} has {len(self.data_dim)} axes, but the data are {self.rank}D")
        if self.intensity_window and self.intensity_window[0] >= self.intensity_window[1]:
            raise ValueError(f"intensity_window: low must be below high, received {list(self.intensity_window)}")
        if self.patches_per_scan > 1 and self.fitting != "crop":
            raise ValueError(
                f"patches_per_scan: only crops can be drawn {self.patches_per_scan} times per scan; set volume_fitting "
                'to "crop" or remove the key'
            )
        if self.clipnorm and self.clipvalue:
            raise ValueError("clipnorm, clipvalue: only one of them can be in force; remove one")
        return self

    @property
    def rank(self) -> int:
        """Number of spatial axes: 2 or 3."""
        if self.data_is_3D is not None:
            return 3 if self.data_is_3D else 2
        rank = registry.layouts()[self.dataset_name].rank
        return rank or (len(self.data_dim) if isinstance(self.data_dim, list) else 3)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of the model's input."""
        spatial = self.data_dim if isinstance(self.data_dim, list) else [self.data_dim] * self.rank
        return (*spatial, self.number_channels)

    @property
    def fitting(self) -> str:
        """``volume_fitting``, or what the layout does by default."""
        return self.volume_fitting or registry.layouts()[self.dataset_name].volume_fitting

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

    def options_for(self, consumer: Callable) -> dict[str, Any]:
        """Return the values of the keys that ``consumer`` declares as keyword-only parameters."""
        return {name: getattr(self, name) for name in registry.options(consumer) if name in type(self).model_fields}

    def preprocessing_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `data.preprocessing.Preprocessing`."""
        return {
            "data_dim": self.input_shape[:-1],
            "number_channels": self.number_channels,
            "intensity_window": self.intensity_window,
            "volume_fitting": self.fitting,
        }

    def encoder_options(self) -> dict[str, Any]:
        """Return the encoder's keyword arguments."""
        return self.options_for(registry.encoder(self.encoder_name))

    def make_algorithm(self) -> Any:
        """Return the pretext task, built with its own keys."""
        algorithm = registry.algorithm(self.algorithm)
        return algorithm(self.input_shape, **self.options_for(algorithm))

    def make_encoder(self, input_shape: tuple[int, ...], *, seed: int) -> Any:
        """Return the encoder as a `keras.Model` for inputs ``(*spatial, channels)``."""
        return registry.encoder(self.encoder_name)(input_shape, **self.encoder_options(), seed=seed)

    def check_encoder(self, input_shape: tuple[int, ...], *, decoder: bool) -> None:
        """Raise `UserError` if the encoder cannot take ``input_shape``; loads neither Keras nor TensorFlow."""
        check = registry.encoder_check(self.encoder_name)
        names = registry.options(check)
        check(
            input_shape,
            **{key: value for key, value in self.encoder_options().items() if key in names},
            decoder=decoder,
        )


class TrainExperiment(Experiment):
    """Keys of pretraining: ``python train.py FILE.json``."""

    data_dir: str = Field(description="Folder of unlabelled scans.")
    epochs: PositiveInt = Field(250, description="Number of epochs.")
    train_val_split: OpenShare = Field(0.9, description="Share of the subjects that trains; the rest validates.")

    def run_location(self) -> tuple[Path, str]:
        """Return the parent and the name of the run folder: ``<base_workspace>/<algorithm>_<dataset_name>``."""
        return Path(self.base_workspace).expanduser(), self.run_name or f"{self.algorithm}_{self.dataset_name}"

    def check_geometry(self) -> None:
        """Raise `UserError` for shapes that the task or the encoder cannot take."""
        self.check_encoder(self.make_algorithm().encoder_shape, decoder=False)


class FinetuneExperiment(Experiment):
    """Keys of finetuning: ``python finetune.py FILE.json``."""

    model_checkpoint: str | None = Field(None, description="Run folder of the pretraining, or its encoder.keras.")
    data_dir_train: str = Field(description="Folder of labelled scans.")
    data_dir_test: str | None = Field(None, description="Folder of labelled test scans; default: test_split.")
    label_dir_train: str | None = Field(None, description="Masks; default: <data_dir_train>_labels.")
    label_dir_test: str | None = Field(None, description="Masks; default: <data_dir_test>_labels.")
    label_stem: str | None = Field(None, description="Added to the image's stem to name its mask.")
    label_map: dict[int, Count] = Field({}, description="Source label -> class, applied before num_classes.")
    num_classes: Annotated[int, Field(ge=2)] = Field(3, description="Classes of the masks, background included.")
    class_names: list[str] | None = Field(None, description="Names of the classes, for tables and pictures.")
    prediction_architecture: str = Field("unet", description="File in models/decoders/.")
    exp_splits: list[Percent] = Field([100, 10, 1], description="Label fractions in percent of the training share.")
    repetitions: PositiveInt = Field(2, description="Repetitions with their own seed and subset.")
    epochs_initialized: Count = Field(5, description="Epochs from pretrained weights, warm-up included.")
    epochs_random: Count = Field(5, description="Epochs from scratch.")
    epochs_frozen: Count = Field(5, description="Epochs with the pretrained encoder frozen throughout.")
    epochs_warmup: Count = Field(2, description="First epochs of initialized with the encoder frozen.")
    val_split: OpenShare = Field(0.1, description="Share of the training folder's subjects that validates.")
    test_split: OpenShare = Field(0.2, description="Share of the subjects that tests, without data_dir_test.")
    augment: bool = Field(False, description="Flips, one rotation (2D: zoom), brightness and contrast.")
    foreground_fraction: Share = Field(0.0, description="Share of the crops centred on a foreground voxel.")
    loss: str = Field("dice_crossentropy", description="Loss of the downstream task.")
    class_weights: list[PositiveFloat] | None = Field(None, description="Per class, for cross-entropy losses.")
    metrics: list[str] = Field(["accuracy"], description="Logged while training.")
    scores: list[str] = Field(["dice"], min_length=1, description="Per case, on the case's own grid.")
    random_from: str | None = Field(
        None, description="Sweep with the same settings: its finished from-scratch jobs are taken over, not repeated."
    )
    channel_map: list[Count] | None = Field(None, description="Pretrained channel that feeds each input channel.")
    allow_partial_load: bool = Field(False, description="Go on when only a part of the encoder could be loaded.")
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Overlap of the sliding windows.")

    @model_validator(mode="after")
    def _check_modes(self) -> FinetuneExperiment:
        if self.epochs_initialized and self.epochs_warmup >= self.epochs_initialized:
            raise ValueError(
                f"epochs_warmup: {self.epochs_warmup} must be below epochs_initialized ({self.epochs_initialized}), "
                "which includes the warm-up"
            )
        if len(set(self.exp_splits)) < len(self.exp_splits):
            raise ValueError(f"exp_splits: each fraction once, received {self.exp_splits}")
        if not self.modes():
            raise ValueError("epochs_initialized, epochs_random, epochs_frozen: at least one must be above 0")
        needs = [mode for mode, _ in self.modes() if mode != "random"]
        if needs and self.model_checkpoint is None:
            raise ValueError(f"model_checkpoint: needed by {' and '.join(needs)}; give the run folder of a pretraining")
        if self.class_weights is not None and len(self.class_weights) != self.num_classes:
            raise ValueError(f"class_weights: expected {self.num_classes} numbers, received {len(self.class_weights)}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names: expected {self.num_classes} names, received {len(self.class_names)}")
        if self.channel_map is not None and len(self.channel_map) != self.number_channels:
            raise ValueError(f"channel_map: expected {self.number_channels} entries, received {len(self.channel_map)}")
        return self

    def modes(self) -> list[tuple[str, int]]:
        """Return the enabled ``(mode, epochs)`` in upstream's order: frozen, initialized, random."""
        epochs = {"frozen": self.epochs_frozen, "initialized": self.epochs_initialized, "random": self.epochs_random}
        return [(mode, count) for mode, count in epochs.items() if count]

    def baseline_settings(self) -> dict[str, Any]:
        """Return every value that training from scratch depends on: those two sweeps with one baseline must share."""
        pretext = registry.options(registry.algorithm(self.algorithm)).keys() - registry.options(
            registry.encoder(self.encoder_name)
        )
        return self.model_dump(mode="json", exclude=pretext | _NOT_OF_THE_BASELINE)

    def run_location(self) -> tuple[Path, str]:
        """Return parent and name of the run folder: as upstream, ``<checkpoint>_test`` beside the checkpoint."""
        if self.run_name or not self.model_checkpoint:
            return Path(self.base_workspace).expanduser(), self.run_name or "random_test"
        checkpoint = Path(self.model_checkpoint).expanduser()
        if checkpoint.name == "encoder.keras":
            checkpoint = checkpoint.parent
        return checkpoint.parent, f"{checkpoint.name.removesuffix('.keras')}_test"

    def preprocessing_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `data.preprocessing.Preprocessing`."""
        return super().preprocessing_options() | {"label_map": self.label_map}

    @property
    def label_names(self) -> dict[int, str]:
        """``class_names`` by label, for pictures."""
        return dict(enumerate(self.class_names or []))

    @property
    def decoder_name(self) -> str:
        """Module name of the decoder."""
        return registry.canonical("decoder", self.prediction_architecture, "prediction_architecture")

    def make_model(self, *, seed: int) -> tuple[Any, Any]:
        """Return ``(encoder, model)``: the model ends in logits ``(batch, *spatial, num_classes)``."""
        encoder = self.make_encoder(self.input_shape, seed=seed)
        decoder = registry.decoder(self.decoder_name)
        model = decoder(encoder, num_classes=self.num_classes, **self.options_for(decoder), seed=seed + 10_000)
        return encoder, model

    def check_geometry(self) -> None:
        """Raise `UserError` for shapes that the encoder under its decoder cannot take."""
        self.check_encoder(self.input_shape, decoder=True)


_NOT_OF_THE_BASELINE = {
    *("algorithm", "model_checkpoint", "channel_map", "allow_partial_load", "random_from"),
    *("epochs_initialized", "epochs_frozen", "epochs_warmup"),
    *("run_name", "base_workspace", "cache", "cache_dir", "log_level", "use_gpu", "tensorboard"),
}
