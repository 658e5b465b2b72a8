"""What a pretraining will do, known before any voxel is read."""

from __future__ import annotations

import functools
import math
import tempfile
from dataclasses import dataclass, replace

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.algorithms.base import Algorithm
from self_supervised_3d_tasks.algorithms.kinds import TurningAlgorithm
from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.preparing.spacing import warn_of_grids
from self_supervised_3d_tasks.data.store.volumes import check_case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, network_size
from self_supervised_3d_tasks.experiment.keys import TrainExperiment
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models.encoders import keras_applications
from self_supervised_3d_tasks.models.rematerialization import rematerialize
from self_supervised_3d_tasks.pretraining.axes import unlike_axes
from self_supervised_3d_tasks.pretraining.scans import find_scans, read_scans


@dataclass(frozen=True)
class Plan:
    """What a pretraining will do.

    Attributes:
        experiment: The checked experiment file.
        algorithm: The pretext task.
        train: The scans to train on.
        validation: The scans to validate on.
        scans_per_step: Number of scans (crops) in a batch.
        steps_per_epoch: Training steps per epoch.
    """

    experiment: TrainExperiment
    algorithm: Algorithm
    train: list[Case]
    validation: list[Case]
    scans_per_step: int
    steps_per_epoch: int

    @property
    def parts(self) -> dict[str, list[Case]]:
        """The scans of each part of the split."""
        return {"training": self.train, "validation": self.validation}

    def check_headers(self) -> None:
        """Raise `UserError` for scans whose headers stop the run; no voxel is read."""
        preprocessing = self.experiment.preprocessing
        check = functools.partial(check_case, preprocessing=preprocessing, num_classes=None)
        found = [build.usable(self.experiment, cases, check, part) for part, cases in self.parts.items()]
        warn_of_grids(sum(found, []), preprocessing)

    def check_sample(self) -> str:
        """Read and prepare a few scans of each part as the run does, and say which; nothing of it is kept.

        Raises:
            UserError: One of them would stop the run.
        """
        with tempfile.TemporaryDirectory(prefix="ss3d-") as folder:
            apart = self.experiment.model_copy(update={"cache": "memory", "cache_dir": folder})
            read = [
                f"{len(read_scans(apart, self.algorithm, build.sample(cases), part).names)} of {len(cases)} {part}"
                for part, cases in self.parts.items()
            ]
        return f"{' and '.join(read)} scans were read and prepared; of the others, the headers"

    def build_model(self) -> keras.Model:
        """Return a new pretext model; its layer ``"encoder"`` is what transfers."""
        seed = self.experiment.seed
        encoder = build.make_encoder(self.experiment, self.algorithm.encoder_shape, seed=seed)
        if self.experiment.remat:
            rematerialize(encoder, encoder)
        return self.algorithm.make_model(encoder, seed=seed + 10_000)

    def check_devices(self) -> None:
        """Raise `UserError` if the devices of this machine cannot share a batch evenly."""
        examples = self.algorithm.sampling.examples_per_scan
        distribution = training.start_distribution(self.experiment.distribution)
        distribution.check_batch(self.scans_per_step, examples_per_scan=examples)

    def check_network(self) -> None:
        """Raise `UserError` if the model does not fit into the memory; it is laid out for that, but not made."""
        update = {"encoder_weights": None} if getattr(self.experiment, "encoder_weights", None) else {}
        random = replace(self, experiment=self.experiment.model_copy(update=update))
        network_size.check(self.experiment, random.build_model, self.scans_per_step)

    def describe(self, model: keras.Model | None = None) -> str:
        """Return the plan as text.

        Args:
            model: The pretext model, whose parameters are counted; None: one is built for that, and a sample of the
                scans is read.
        """
        sample = [f"sample           {self.check_sample()}"] if model is None else []
        if model is None:
            self.check_network()
        model = model or self.build_model()
        encoder = model.get_layer("encoder")
        examples = self.scans_per_step * self.algorithm.sampling.examples_per_scan
        accumulated = self.experiment.gradient_accumulation_steps
        return "\n".join(
            [
                f"pretext task     {self.experiment.algorithm}, input {self.experiment.input_shape}, "
                f"encoder sees {self.algorithm.encoder_shape}",
                f"scans            {len(self.train)} train, {len(self.validation)} validation "
                f"from {self.experiment.data_dir}",
                f"parameters       {model.count_params():,} model, {encoder.count_params():,} encoder",
                f"batch            {self.scans_per_step} scans = {examples} examples per step "
                f"(batch_size {self.experiment.batch_size})",
                f"steps            {self.steps_per_epoch} per epoch, {self.experiment.epochs} epochs"
                + (f"; {accumulated} steps make an update" if accumulated > 1 else ""),
                *sample,
                *([f"turns            {said}"] if (said := getattr(self.algorithm, "kept_apart", "")) else []),
            ]
        )


def plan(experiment: TrainExperiment) -> Plan:
    """List and split the scans and size the steps.

    Raises:
        UserError: The folder or ``encoder_weights`` is missing, there are too few subjects to split, too few scans meet
            in a batch or in a part of the split for a task that compares scans, or the warm-up is too long.
    """
    if weights := getattr(experiment, "encoder_weights", None):
        keras_applications.check_weight_file(weights)
    cases = find_scans(experiment, experiment.data_dir)
    parts = splits.pretraining_split(cases, experiment.train_val_split, experiment.seed)
    splits.warn_of_lookalikes([parts.values()])
    experiment = build.settle_spacing(experiment, parts["train"])
    algorithm = build.make_algorithm(experiment)
    if isinstance(algorithm, TurningAlgorithm):
        algorithm.keep_apart(*unlike_axes(experiment, cases))
    scans_per_step = math.ceil(experiment.batch_size / algorithm.sampling.examples_per_scan)
    _check_other_scans(algorithm, parts, scans_per_step, experiment.crops_per_scan)
    crops = len(parts["train"]) * experiment.crops_per_scan
    steps_per_epoch = build.steps_per_epoch(experiment, crops, scans_per_step)
    build.check_warmup(experiment, [experiment.epochs * steps_per_epoch])
    return Plan(experiment, algorithm, **parts, scans_per_step=scans_per_step, steps_per_epoch=steps_per_epoch)


def _check_other_scans(
    algorithm: Algorithm, parts: dict[str, list[Case]], scans_per_step: int, crops_per_scan: int
) -> None:
    """Raise `UserError` where an example would look for other scans and find none."""
    sampling = algorithm.sampling
    if scans_per_step < sampling.min_batch:
        raise UserError(
            f"batch_size: {algorithm.name} {sampling.min_batch_because} and needs at least {sampling.min_batch} scans "
            f"per step, received {scans_per_step}; raise batch_size, or change what asks for them (exemplar: draw the "
            'negatives from the dataset; a head: "normalization": "group")'
        )
    if sampling.distinct_scans and scans_per_step > len(parts["train"]):
        raise UserError(
            f"batch_size: {algorithm.name} compares the scans of a batch, but {scans_per_step} scans per step of "
            f"{len(parts['train'])} training scans would pair a scan with itself; reduce batch_size or add scans"
        )
    scans = max(sampling.min_batch if sampling.distinct_scans else 1, sampling.companions + 1)
    for part, cases in parts.items():
        if len(cases) < scans:
            raise UserError(
                f"train_val_split: {algorithm.name} compares scans and needs at least {scans} in each part of the "
                f"split, but {part} has {len(cases)}; add scans or change train_val_split"
            )
        if len(cases) * crops_per_scan < sampling.min_batch:
            raise UserError(
                f"train_val_split, patches_per_scan: {algorithm.name} needs at least {sampling.min_batch} scans or "
                f"crops in each part of the split, but {part} has {len(cases) * crops_per_scan}; add some, or change "
                "train_val_split"
            )
