"""The keys that pretraining and finetuning share, and what is read off them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from self_supervised_3d_tasks.data import layouts
from self_supervised_3d_tasks.data.preparing.foreground_box import ForegroundCrop
from self_supervised_3d_tasks.data.preparing.resampling import Interpolation
from self_supervised_3d_tasks.data.preparing.scaling import Scaling
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.experiment import defaults, registry
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.limits import (
    Count,
    Degrees,
    Few,
    Intensity,
    Length,
    Millimetres,
    OpenShare,
    PositiveFew,
    PositiveFloat,
    PositiveInt,
    Seed,
    ShareBelowOne,
    Strength,
)
from self_supervised_3d_tasks.ops.augment import Rules

LONGEST_RUN_NAME = 240  # bytes


class Experiment(BaseModel):
    """Keys that pretraining and finetuning share.

    Args:
        algorithm: Pretext task: the name of a file in algorithms/.
        dataset_name: Layout of the data folder: what its files are and where labels are found.
        data_dim: Model input: one edge length or one per axis, in voxels.
        data_is_3D: Whether the data have three spatial axes; default: as the layout has.
        number_channels: Channels (modalities) of a scan.
        batch_size: Examples per step; for cpc pairs of context and target, of which a scan has several.
        lr: Learning rate, the highest one where it changes.
        lr_schedule: constant, or down to 0 over the training, in finetuning over each phase: cosine, half of a wave;
            poly: the share that is left to the power of lr_power.
        lr_power: Power of lr_schedule poly; default: 0.9. 1 is a straight line.
        lr_warmup_steps: Updates in which the learning rate rises to lr along a straight line, in finetuning at the
            beginning of each phase.
        optimizer: Optimizer that turns gradients into steps. adamw is adam with a decoupled weight_decay that leaves
            out biases and the scales and offsets of normalizations.
        momentum: Momentum of sgd; default: 0.9. Adam takes none.
        weight_decay: Factor of the weight decay, on every trainable weight but for adamw; default: 0, or 0.01 with
            adamw.
        weight_decay_form: coupled: part of the gradient, as in PyTorch's SGD and Adam, the default; decoupled: as in
            AdamW, and the default of adamw.
        clipnorm: Largest norm of the gradients of all weights together, which keep their direction; not together with
            clipvalue.
        clipvalue: Largest absolute value in each gradient; not together with clipnorm.
        ema_momentum: Share that an average of each weight keeps of itself in an update, such as 0.999: about an average
            over the last 1000. Validated, chosen as the best and exported are the averages, trained are the weights.
            Default: no averages.
        early_stopping_patience: Epochs in a row without a lower validation loss after which the training stops, in
            finetuning behind the warm-up; default: it never does.
        gradient_accumulation_steps: Steps of batch_size whose mean gradient makes one update, for large batches in
            little memory. What is compared within a batch (cpc, exemplar, tcpc, pcrlv2, batch normalizations) meets the
            scans of one step alone.
        seed: Seed of splits, initial weights, augmentation and dropout.
        deterministic: Whether to use deterministic kernels: slower on a GPU, but reruns are identical bit for bit.
        mixed_precision: Type that layers compute in; weights and losses stay float32.
        remat: Whether maps inside the encoder are computed again for the gradients instead of being kept: less memory
            for a third to a half more time; results are the same.
        jit_compile: Whether steps are compiled by XLA; auto: on a GPU. On a CPU it slows 3D down several times. JAX
            always compiles: false is refused.
        distribution: Devices that share each batch and train one model, at the same result: none, one device; mirrored,
            all GPUs of this machine, or logical CPUs, by TensorFlow; data_parallel, all devices of this machine or of
            several, by JAX. batch_size is that of all.
        encoder_architecture: Encoder: the name of a file in models/encoders/, or of a network in one; default: unet.
        intensity_window: [low, high]: intensities are clipped to it and scaled by it (CT), in the units of the files;
            default: [0, 255] for photographs, else none.
        intensity_scaling: What becomes 0 and 1 in each channel of a scan, the rest is clipped. percentiles: the 0.5th
            and 99.5th of what lies above the least; z_score: three standard deviations around its mean; min_max: least
            and most, which one hot voxel moves; window: intensity_window. Default: window where there is one, else
            percentiles, but min_max for the predecessor's layouts.
        foreground_crop: What is cut off each scan before it is fitted. box: borders without a voxel above 5 % of the
            range; inside: all but the largest box of that centre and shape whose corners are filled. Predictions come
            back on the whole grid.
        target_spacing: Size in mm, one number or one per axis, to which the voxels of every scan are resampled; median:
            that of the training scans. data_dim is then a field of view, which scans are cropped or padded to.
            Finetuning: by default what the pretraining had.
        interpolation: How images are resized and resampled; masks always linearly, label by label.
        volume_fitting: How a scan is brought to data_dim: resize, crop (at random), or exact (it must already fit);
            default: as the layout has, with target_spacing crop.
        patches_per_scan: Random crops of each scan per epoch, with volume_fitting crop.
        augment: Whether training scans are flipped, in 3D rotated, in 2D zoomed, and changed in brightness and contrast
            (but not 2D images without masks).
        augment_flip_axes: Spatial axes that augment may flip; default: all. From left to right goes axis 0, in images
            of rows and columns axis 1.
        augment_degrees: Largest angle by which augment turns a scan, in a random plane of two axes; default: 180 in 3D,
            the predecessor's, and 0 in 2D. For anatomy that is always scanned upright, 10 to 30.
        augment_zoom_only: Whether training scans are zoomed only, instead of augment.
        steps_per_epoch: Steps per epoch; default: every scan once.
        channel_suffixes: One file per channel: <case><suffix>.nii.gz; files with none of these endings are no scans.
        channel_columns: Columns of an index that hold the files of the channels, in their order; default: image, or
            every column of scans.
        label_stem: What the name of a mask has more than that of its scan; default: as the layout has. Masks beside
            their scans are no scans.
        subject_pattern: Regular expression with one group, searched in a scan's name, or else in its path below the
            folder: the group is the subject. Default: sub-…, a folder per subject, or the scan's name.
        on_bad_file: Whether a scan that cannot be read stops the run, or is skipped and noted in the run folder.
        cache: Where prepared scans are kept; auto takes memory up to 4 GiB, and above it compressed files on disk.
        cache_dir: Folder of the disk cache, which runs can share; default: <base_workspace>/cache.
        base_workspace: Folder in which run folders are made.
        run_name: Name of the run folder; default: <algorithm>_<dataset_name>, in finetuning <checkpoint>_test.
        save_checkpoint_every_n_epochs: Keep a checkpoint every n epochs.
        tensorboard: Whether TensorBoard logs are written into the run folder.
        log_level: Least severe messages that are written to stderr.
        workers: Processes that train at once: jobs of a sweep, or files given to train.py. Each has its share of the
            cores and, where there are some, a GPU of its own.
        executor: What starts them: local, this machine; slurm, an array job; ray, tasks of a Ray cluster.
        executor_options: Options of slurm, those of submitit, such as slurm_partition and timeout_min; of ray address
            and those of a task, such as num_cpus and num_gpus.
        use_gpu: Indices of the GPUs that may be used; default: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    algorithm: str
    dataset_name: str
    data_dim: Length | list[Length]
    data_is_3D: bool | None = None
    number_channels: PositiveFew = 1
    batch_size: Annotated[PositiveInt, Field(le=2**16)] = 2
    lr: PositiveFloat = 1e-3
    lr_schedule: Literal["constant", "cosine", "poly"] = "constant"
    lr_power: PositiveFloat | None = Field(default_factory=defaults.lr_power)
    lr_warmup_steps: Count = 0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: ShareBelowOne | None = Field(default_factory=defaults.momentum)
    weight_decay: Strength = Field(default_factory=defaults.weight_decay)
    weight_decay_form: Literal["coupled", "decoupled"] | None = Field(default_factory=defaults.weight_decay_form)
    clipnorm: PositiveFloat | None = None
    clipvalue: PositiveFloat | None = None
    ema_momentum: OpenShare | None = None
    early_stopping_patience: PositiveInt | None = None
    gradient_accumulation_steps: Annotated[PositiveInt, Field(le=10_000)] = 1
    seed: Seed = 0
    deterministic: bool = False
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    remat: bool = False
    jit_compile: Literal["auto"] | bool = "auto"
    distribution: Literal["none", "mirrored", "data_parallel"] = "none"
    encoder_architecture: str | None = None
    intensity_window: tuple[Intensity, Intensity] | None = defaults.of_layout(lambda layout: layout.intensity_window)
    intensity_scaling: Scaling = Field(default_factory=defaults.intensity_scaling)
    foreground_crop: ForegroundCrop = "none"
    target_spacing: Literal["median"] | Millimetres | list[Millimetres] | None = None
    interpolation: Interpolation = "linear"
    volume_fitting: Literal["resize", "crop", "exact"] | None = None
    patches_per_scan: Annotated[PositiveInt, Field(le=10_000)] = 1
    augment: bool = False
    augment_flip_axes: list[Few] | None = None
    augment_degrees: Degrees | None = None
    augment_zoom_only: bool = False
    steps_per_epoch: PositiveInt | None = None
    channel_suffixes: list[str] | None = None
    channel_columns: list[str] | None = None
    label_stem: str | None = None
    subject_pattern: str | None = None
    on_bad_file: Literal["stop", "skip"] = "stop"
    cache: Literal["auto", "memory", "disk"] = "auto"
    cache_dir: str | None = None
    base_workspace: str = "runs"
    run_name: str | None = None
    save_checkpoint_every_n_epochs: PositiveInt | None = None
    tensorboard: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    workers: PositiveFew = 1
    executor: Literal["local", "slurm", "ray"] = "local"
    executor_options: dict[str, JsonValue] = {}
    use_gpu: list[Few] | None = None

    @field_validator("run_name")
    @classmethod
    def _is_folder_name(cls, name: str | None) -> str | None:
        """Refuse a name that no folder can have, with room for the number that `RunFolder.create` may add."""
        if name is not None and (name in ("", ".", "..") or any(part in name for part in "/\0")):
            raise ValueError("expected the name of a folder, without separators")
        if name is not None and len(name.encode(errors="surrogatepass")) > LONGEST_RUN_NAME:
            raise ValueError(f"expected at most {LONGEST_RUN_NAME} bytes")
        return name

    @property
    def layout(self) -> layouts.Layout:
        """What ``dataset_name`` says of the data folder."""
        return layouts.get(self.dataset_name)

    @property
    def rank(self) -> int:
        """Number of spatial axes: 2 or 3."""
        if self.data_is_3D is not None:
            return 3 if self.data_is_3D else 2
        return self.layout.rank or (len(self.data_dim) if isinstance(self.data_dim, list) else 3)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(*spatial, channels)`` of the model's input."""
        spatial = self.data_dim if isinstance(self.data_dim, list) else [self.data_dim] * self.rank
        return (*spatial, self.number_channels)

    @property
    def channel_names(self) -> list[str] | None:
        """What the channels are called, in their order, without the marks around: "t1w" for "_T1w"; None: nothing."""
        return names_of_channels(self.channel_suffixes or self.channel_columns)

    @property
    def fitting(self) -> str:
        """``volume_fitting``, or what the layout does by default; a spacing that is asked for must not be resized."""
        return self.volume_fitting or ("crop" if self.target_spacing else self.layout.volume_fitting)

    @property
    def works_elsewhere(self) -> bool:
        """Whether jobs are done by processes of their own."""
        return self.workers > 1 or self.executor != "local"

    @property
    def cache_kind(self) -> str:
        """``cache``, or, where several processes need the same scans, what they can share."""
        return "disk" if self.cache == "auto" and self.works_elsewhere else self.cache

    @property
    def cache_folder(self) -> Path:
        """Where prepared scans are kept when they do not fit into memory."""
        return as_path(self.cache_dir or Path(self.base_workspace) / "cache")

    @property
    def crop_shape(self) -> tuple[int, ...] | None:
        """``(*spatial)`` of a random crop, or None where the whole fitted scan is the input."""
        return self.input_shape[:-1] if self.fitting == "crop" else None

    @property
    def crops_per_scan(self) -> int:
        """How often a scan is drawn per epoch."""
        return self.patches_per_scan if self.fitting == "crop" else 1

    @property
    def left_right_axis(self) -> int:
        """The spatial axis that goes from left to right: the first of a volume, in images the columns."""
        return 1 if self.rank == 2 and layouts.get(self.dataset_name).rows_first else 0

    @property
    def augment_rules(self) -> Rules | None:
        """What the changes of training scans may be; None where they stay as they are."""
        if not (self.augment or self.augment_zoom_only):
            return None
        axes = None if self.augment_flip_axes is None else tuple(self.augment_flip_axes)
        return Rules(axes, self.augment_degrees, left_right_axis=self.left_right_axis, zoom_only=self.augment_zoom_only)

    @property
    def encoder_name(self) -> str:
        """Name of the encoder, as the registry has it."""
        return registry.canonical("encoder", self.encoder_architecture or "unet", "encoder_architecture")

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to every scan once, before training.

        Raises:
            ValueError: ``target_spacing`` is "median", and no `with_median_spacing` has replaced it.
        """
        if self.target_spacing == "median":
            raise ValueError("target_spacing: the median of the scans is not known yet")
        spacing = self.target_spacing
        return Preprocessing(
            data_dim=self.input_shape[:-1],
            number_channels=self.number_channels,
            intensity_window=self.intensity_window,
            intensity_scaling=self.intensity_scaling,
            foreground_crop=self.foreground_crop,
            target_spacing=tuple(spacing) if isinstance(spacing, list) else spacing and (spacing,) * self.rank,
            interpolation=self.interpolation,
            grey=self.layout.grey,
            volume_fitting=self.fitting,
        )


def names_of_channels(suffixes: Sequence[str] | None) -> list[str] | None:
    """Return the names of channels that files are told by, such as "t1ce" for "_t1ce"; None without any."""
    return [suffix.strip("_-. ").lower() for suffix in suffixes] if suffixes else None
