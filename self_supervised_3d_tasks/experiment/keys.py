"""The keys of an experiment: flat, typed, under the predecessor's names.

A key belongs to the experiment (the classes below, and `shared_keys`) or to what consumes it: the algorithm, the
encoder, the decoder. The keyword-only parameters of those callables declare their keys, types and defaults; `build`
routes the values back to them. What a key means is read off the docstrings.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.experiment import defaults, registry
from self_supervised_3d_tasks.experiment.shared_keys import Experiment
from self_supervised_3d_tasks.files.paths import as_path
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.limits import (
    Count,
    Few,
    ForegroundLabel,
    Intensity,
    Label,
    OpenShare,
    Percent,
    PositiveFew,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareBelowOne,
    SourceLabel,
)
from self_supervised_3d_tasks.ops.augment import Rules


class TrainExperiment(Experiment):
    """Keys of pretraining: ``python train.py FILE.json``.

    Args:
        data_dir: Folder of unlabelled scans, with its sub-folders; or an index; or <archive>.npz/<part>.
        lr: Learning rate, the highest one where it changes; default: 1e-3, for exemplar 1e-4.
        epochs: Number of epochs.
        train_val_split: Share of the subjects that trains; the rest validates.
        restoration_picture_every_n_epochs: Draw restored validation scans every n epochs; for tasks with a decoder.
        background_level: Voxels below it are background (volume_fitting crop); in the units of intensity_window.
        background_share: [least, most] of a crop that is background, else it is drawn again; default: up to 0.85.
    """

    data_dir: str
    lr: PositiveFloat = Field(default_factory=defaults.pretraining_lr)
    epochs: PositiveInt = 250
    train_val_split: OpenShare = 0.9
    restoration_picture_every_n_epochs: PositiveInt = 10
    background_level: Intensity | None = None
    background_share: tuple[Share, Share] | None = Field(default_factory=defaults.background_share)

    def run_location(self) -> tuple[Path, str]:
        """Return the parent and the name of the run folder: ``<base_workspace>/<algorithm>_<dataset_name>``."""
        return as_path(self.base_workspace), self.run_name or f"{self.algorithm}_{self.dataset_name}"


class FinetuneExperiment(Experiment):
    """Keys of finetuning: ``python finetune.py FILE.json``.

    Args:
        model_checkpoint: Run folder of the pretraining, or a .keras file; the pretext task and the keys of the encoder
            come from the config.json there.
        data_dir_train: Folder of labelled scans, with its sub-folders; or an index; or <archive>.npz/<part>.
        data_dir_test: Folder of labelled test scans; default: test_split takes them from data_dir_train.
        label_dir_train: Folder of the masks; default: <data_dir_train>_labels, labelsTr beside imagesTr, or, with a
            label_stem, the folders of the scans.
        label_dir_test: Folder of the test masks; default: as label_dir_train.
        csv_file: Table of the labels of whole scans.
        csv_file_test: Table of the test scans; they lie in data_dir_test or, without it, in data_dir_train.
        image_column: Column of the scans' files.
        label_column: Column of the labels.
        subject_column: Column of the subjects.
        suffix: Ending of the scans' files, where the table leaves it out.
        label_map: Class of each label in the files; labels that are not named keep their number.
        class_names: Names of the classes, for tables and pictures; of chestxray the findings that are predicted.
        num_classes: Classes, background included; default: 3, brats 4, kaggle_retina 5; chestxray: all findings.
        prediction_architecture: Decoder, for masks, or head, for classes of whole scans.
        global_pooling: How a classification head pools the encoder's map: avg, max, or none (it is flattened).
        pool_bins: Bins per axis that global_pooling avg averages over; they are flattened.
        multilabel: Whether classes are ordered: output k then tells whether a scan has class k or a higher one.
        sample_classes_uniform: Whether training scans are repeated until the classes are even.
        do_cross_val: Whether to cross-validate; repetitions is then the number of folds.
        exp_splits: Label fractions, in percent of the training share.
        repetitions: Repetitions with their own seed and subset; a difference has an interval from three on.
        epochs_initialized: Epochs from pretrained weights, warm-up included.
        epochs_random: Epochs from scratch.
        epochs_frozen: Epochs with the pretrained encoder frozen throughout; 0: no such training.
        epochs_warmup: First epochs of initialized with the encoder frozen.
        val_split: Share of the training folder's subjects that validates; 0: the training scans do.
        test_split: Share of the subjects that tests, without data_dir_test.
        foreground_fraction: Share of the crops centred on a foreground voxel, of every class that the scan has alike.
        augment_swap_labels: Pairs of classes that augment exchanges in a mask whose left-right axis it flips, as
            [[3, 4]]: those of paired organs. []: none, though class_names tell left from right.
        loss: Default: dice_crossentropy; in classification categorical_crossentropy, with multilabel or of findings
            binary_crossentropy.
        class_weights: Weight of each class, for losses with cross-entropy.
        metrics: Metrics that are logged while training.
        scores: Scores of masks per case on its own grid, default: dice; also hd95, and nsd_2mm for a surface Dice; of
            classes over the test set, default: balanced_accuracy and roc_auc; of findings mean_auroc and auroc (one per
            finding).
        random_from: Sweep with the same settings: its finished from-scratch jobs are taken over, not repeated.
        transfer: What is taken from model_checkpoint: the encoder, or encoder_decoder for unet, from a task that trains
            a decoder.
        channel_map: For each input channel, the pretrained channel whose weights feed it.
        allow_partial_load: Whether to go on when only a part of the encoder could be loaded.
        forbid_leakage: Whether test cases that the encoder was pretrained on, by their voxels or the name of their
            subject, stop the run, and also not knowing it; else they are counted below the tables.
        overlap: Share of a sliding window that overlaps the next one.
    """

    model_checkpoint: str | None = None
    data_dir_train: str
    data_dir_test: str | None = None
    label_dir_train: str | None = None
    label_dir_test: str | None = None
    csv_file: str | None = None
    csv_file_test: str | None = None
    image_column: str | None = defaults.of_layout(lambda layout: layout.columns[0])
    label_column: str | None = defaults.of_layout(lambda layout: layout.columns[1])
    subject_column: str | None = Field(default_factory=defaults.subject_column)
    suffix: str | None = None
    label_map: dict[SourceLabel, Label] = {}
    class_names: list[str] | None = defaults.of_layout(lambda layout: list(layout.findings) or None)
    num_classes: Annotated[int, Field(ge=2, le=2**16)] = Field(default_factory=defaults.num_classes)
    prediction_architecture: str = "unet"
    global_pooling: Literal["avg", "max", "none"] = "avg"
    pool_bins: PositiveFew = 1
    multilabel: bool = False
    sample_classes_uniform: bool = False
    do_cross_val: bool = False
    exp_splits: Annotated[list[Percent], Field(min_length=1, max_length=100)] = [100, 10, 1]
    repetitions: PositiveFew = 3
    epochs_initialized: Count = 5
    epochs_random: Count = 5
    epochs_frozen: Count = 0
    epochs_warmup: Count = 2
    val_split: ShareBelowOne = 0.1
    test_split: OpenShare = 0.2
    foreground_fraction: Share = 0.0
    augment_swap_labels: list[tuple[ForegroundLabel, ForegroundLabel]] | None = None
    loss: str = Field(default_factory=defaults.loss)
    class_weights: list[PositiveFloat] | None = None
    metrics: list[str] = ["accuracy"]
    scores: list[str] = Field(default_factory=defaults.scores, min_length=1)
    random_from: str | None = None
    transfer: Literal["encoder", "encoder_decoder"] = "encoder"
    channel_map: list[Few] | None = None
    allow_partial_load: bool = False
    forbid_leakage: bool = False
    overlap: ShareBelowOne = 0.5

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

    @field_validator("exp_splits")
    @classmethod
    def _tell_apart(cls, percents: list[float]) -> list[float]:
        """A job has a folder by its label fraction, so that two of one name would be one job."""
        for number, percent in enumerate(percents):
            same = [other for other in percents[:number] if f"{other:g}" == f"{percent:g}"]
            if same:
                raise ValueError(f"{same[0]!r} and {percent!r} are the same label fraction up to 6 digits; keep one")
        return percents

    def modes(self) -> list[tuple[str, int]]:
        """Return the enabled ``(mode, epochs)`` in upstream's order: frozen, initialized, random."""
        epochs = {"frozen": self.epochs_frozen, "initialized": self.epochs_initialized, "random": self.epochs_random}
        return [(mode, count) for mode, count in epochs.items() if count]

    def run_location(self) -> tuple[Path, str]:
        """Return parent and name of the run folder: as upstream, ``<checkpoint>_test`` beside the checkpoint."""
        if self.run_name or not self.model_checkpoint:
            return as_path(self.base_workspace), self.run_name or "random_test"
        checkpoint = as_path(self.model_checkpoint)
        if checkpoint.name in map(str, (RunFolder.encoder, RunFolder.encoder_decoder)):
            checkpoint = checkpoint.parent
        return checkpoint.parent, f"{checkpoint.name.removesuffix('.keras')}_test"

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to every scan and its mask once, before training."""
        return replace(super().preprocessing, label_map=self.label_map)

    @property
    def augment_rules(self) -> Rules | None:
        """What the changes of training scans, and of their masks, may be; None where they stay as they are."""
        rules = super().augment_rules
        return replace(rules, swap_labels=tuple(self.augment_swap_labels or ())) if rules else None

    @property
    def label_names(self) -> dict[int, str]:
        """``class_names`` by label, for pictures."""
        return dict(enumerate(self.class_names or []))

    def label_key(self, *, test: bool = False) -> str:
        """Return the key that says where the classes of whole scans are, for messages."""
        if self.layout.labels in ("archive", "index"):
            return "data_dir_test" if test and self.data_dir_test else "data_dir_train"
        return "csv_file_test" if test and self.csv_file_test else "csv_file"

    def label_table_options(self, *, test: bool = False) -> dict[str, Any] | None:
        """Return the keyword arguments of `data.labels.tables.LabelTable`, or None where no table is given.

        Args:
            test: Of the test scans, where they have a table of their own.
        """
        path = self.csv_file_test if test else self.csv_file
        if path is None:
            return None
        names = ("image_column", "label_column", "subject_column", "suffix", "label_map", "num_classes")
        options = {name: getattr(self, name) for name in names}
        options |= {"path": path, "positional": self.layout.labels == "table"}
        return options | {"findings": tuple(self.class_names)} if self.task == "findings" else options
