"""What a downstream sweep will do, known before any voxel is read."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from self_supervised_3d_tasks import training, transfer
from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Case, Labels, find_cases
from self_supervised_3d_tasks.data.labels.tables import Classes, LabelTable
from self_supervised_3d_tasks.data.preparing.spacing import warn_of_grids
from self_supervised_3d_tasks.data.splits import Split
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.downstream.base import DownstreamTask
from self_supervised_3d_tasks.experiment import build, geometry, network_size
from self_supervised_3d_tasks.experiment.keys import FinetuneExperiment
from self_supervised_3d_tasks.finetuning import leakage, misleading
from self_supervised_3d_tasks.finetuning.job import Job, epochs_of_phases, load_pretrained, steps_per_epoch
from self_supervised_3d_tasks.shapes import Model


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
        experiment: The checked experiment file.
        jobs: Every combination of label fraction, repetition and mode, in the order in which they are run.
    """

    experiment: FinetuneExperiment
    jobs: list[Job]

    @property
    def task(self) -> DownstreamTask:
        """What the sweep's kind of label brings to it."""
        return task_of(self.experiment)

    @property
    def cases(self) -> list[Case]:
        """Every case that some job reads from the store, once each."""
        return _unique(case for job in self.jobs for case in self.task.stored_cases(job.split))

    @property
    def learned_from(self) -> list[Case]:
        """Every case that trains or validates some job, once each."""
        return _unique(case for job in self.jobs for case in (*job.split.train, *job.split.validation))

    @property
    def test(self) -> list[Case]:
        """Every case that tests some job, once each; with cross-validation those of all folds."""
        return _unique(case for job in self.jobs for case in job.split.test)

    @property
    def splits(self) -> dict[str, Split]:
        """The split of each label fraction and repetition, by a name for people."""
        return {f"{job.percent:g}%, repetition {job.repetition}": job.split for job in self.jobs}

    def check_headers(self) -> None:
        """Raise `UserError` for scans and masks whose headers stop the run; no voxel is read."""
        cases = list(dict.fromkeys((*self.cases, *self.test)))
        headers = build.usable(self.experiment, cases, self.task.check_header)
        warn_of_grids(headers, self.experiment.preprocessing)
        geometry.warn_of_differences(self.experiment, headers)

    def check_devices(self) -> None:
        """Raise `UserError` if the devices of this machine cannot share a batch evenly."""
        training.start_distribution(self.experiment.distribution).check_batch(self.experiment.batch_size)

    def check_network(self) -> None:
        """Raise `UserError` if the model does not fit into the memory; it is laid out for that, but not made."""
        experiment = self.experiment
        network_size.check(experiment, lambda: build.make_model(experiment, seed=0)[1], experiment.batch_size)

    def check_pretrained(self) -> tuple[Model, Model]:
        """Return an encoder and its network, with pretrained weights if some job begins with them.

        Raises:
            UserError: The weights do not fit.
        """
        encoder, model = build.make_model(self.experiment, seed=self.experiment.seed)
        if any(mode != "random" for mode, _ in self.experiment.modes()):
            load_pretrained(self.experiment, encoder, model)
        return encoder, model

    def read_sample(self) -> VolumeStore:
        """Read and prepare a few scans for training and for testing as the run does; nothing of it is kept.

        Raises:
            UserError: One of them would stop the run.
        """
        task = task_of(self.experiment.model_copy(update={"cache": "memory"}))
        store = task.read(_unique([*build.sample(self.learned_from), *build.sample(self.test)]))
        if len(store) == len(self.cases):
            self.check_labels(store)
        return store

    def check_labels(self, store: VolumeStore) -> None:
        """Warn of what misleads in the masks of the training and validation scans.

        Args:
            store: Holds `cases`, without those that cannot be used.

        Raises:
            UserError: Nothing can be learned from them.
        """
        learned = store.subset(self.learned_from)
        misleading.warn_of_classes(self.experiment, self.jobs, self.task.classes_in(learned))
        if self.experiment.task == "segmentation":
            mapped = set().union(*map(learned.mapped, range(len(learned))))
            where = f"the {len(learned)} masks for training and validation"
            misleading.warn_of_label_map(self.experiment, mapped, where)

    def describe(self) -> str:
        """Return the plan as text, with the size of the model, which is built for that, and what a sample shows.

        Raises:
            UserError: The pretrained weights do not fit, or a scan of the sample would stop the run.
        """
        experiment = self.experiment
        self.check_network()
        encoder, model = self.check_pretrained()
        part = "decoder" if experiment.task == "segmentation" else "head"
        size = (
            f"model            {experiment.encoder_name} encoder {encoder.count_params():,} parameters, with "
            f"{experiment.prediction_name} {part} {model.count_params():,}; input {experiment.input_shape}"
        )
        store = self.read_sample()
        found = [store.classes(index) for index, case in enumerate(store.cases) if case.mask is not None]
        classes = ", ".join(map(str, sorted(set().union(*found))))
        sample = (
            f"sample           {len(store)} of {len(self.cases)} scans were read and prepared"
            f"{f', whose masks have the classes {classes}' if found else ''}; of the others, the headers"
        )
        test = [case for case in self.test if case in set(store.cases)]
        prospects = [f"ceiling          {line}" for line in self.task.prospects(test)] if test else []
        found = leakage.look_for(experiment, self.test)
        leaked = [f"leakage          {found}"] if found else []
        return "\n".join([size, sample, *prospects, self.describe_jobs(), *leaked])

    def describe_jobs(self) -> str:
        """Return the scans, epochs and steps of every job as text."""
        experiment = self.experiment
        folds = f", in {experiment.repetitions} folds" if experiment.do_cross_val else ""
        lines = [f"checkpoint       {experiment.model_checkpoint}", f"test             {len(self.test)} scans{folds}"]
        for job in self.jobs:
            lines.append(
                f"{job.name:<25} {len(job.split.train)} train, {len(job.split.validation)} validation scans, "
                f"{job.epochs} epochs of {steps_per_epoch(experiment, job)} steps"
            )
        return "\n".join(lines)

    def record(self) -> dict:
        """Return what ``split.json`` holds: the names of the cases of each part, and the labels of whole scans.

        Without folds, test and validation are the same for every job.
        """
        first = self.jobs[0].split
        held_out = {"test": _names(first.test), "validation": _names(first.validation)}
        if self.experiment.do_cross_val:
            folds = {f"repetition {job.repetition}": job.split for job in self.jobs}
            held_out = {
                part: {fold: _names(getattr(split, part)) for fold, split in folds.items()} for part in held_out
            }
        train = {name: _names(split.train) for name, split in self.splits.items()}
        return held_out | {"train": train} | self._labels()

    def _labels(self) -> dict[str, dict[str, int | str]]:
        """Return the label of each case, nothing of masks; a test set of its own may repeat names of training cases."""
        own_test = set(self.test if self.experiment.has_test_set else ())
        parts = {"labels": [case for case in self.cases if case not in own_test], "test_labels": _unique(own_test)}
        labels = {part: self.task.recorded_labels(cases) for part, cases in parts.items()}
        return {part: classes for part, classes in labels.items() if classes}


def plan(experiment: FinetuneExperiment) -> Plan:
    """List and split the scans, enumerate the jobs, and warn of what would mislead, see `misleading`.

    Raises:
        UserError: A folder, mask or class is missing, there are too few subjects, the checkpoint does not exist, or the
            learning rate would rise to the end of a phase.
    """
    task = task_of(experiment)
    task.check()
    if any(mode != "random" for mode, _ in experiment.modes()):
        transfer.find_encoder(experiment.model_checkpoint)
        if experiment.transfer == "encoder_decoder":
            transfer.find_decoder(experiment.model_checkpoint)
    train_cases = _find(experiment)
    task.check_cases(train_cases)
    test_cases = _find(experiment, test=True) if experiment.has_test_set else None
    jobs = []
    for percent in experiment.exp_splits:
        for repetition in range(experiment.repetitions):
            split = splits.finetuning_split(
                train_cases,
                test_cases,
                val_split=experiment.val_split,
                test_split=experiment.test_split,
                percent=percent,
                repetition=repetition,
                seed=experiment.seed,
                folds=experiment.repetitions if experiment.do_cross_val else None,
            )
            jobs += [Job(percent, mode, repetition, epochs, split) for mode, epochs in experiment.modes()]
    # Smaller fractions are parts of the largest.
    largest = {tuple(job.split.train): job.split for job in jobs if job.percent == max(experiment.exp_splits)}.values()
    splits.warn_of_lookalikes((split.train, split.validation, split.test) for split in largest)
    if not experiment.val_split:
        jobs = [replace(job, split=replace(job.split, validation=job.split.train)) for job in jobs]
    for job in jobs:
        phases = [epochs * steps_per_epoch(experiment, job) for epochs in epochs_of_phases(experiment, job)]
        build.check_warmup(experiment, phases)
    misleading.warn_of_epochs(experiment)
    misleading.warn_of_validation(experiment)
    misleading.warn_of_fractions(jobs)
    labels = {case: [case.label] for case in train_cases if case.label is not None}
    misleading.warn_of_classes(experiment, jobs, labels)
    whole = Plan(build.settle_spacing(experiment, Plan(experiment, jobs).learned_from), jobs)
    leakage.look_for(experiment, whole.test)  # what names alone forbid is not found after hours of reading
    return whole


def _find(experiment: FinetuneExperiment, *, test: bool = False) -> list[Case]:
    """List the labelled scans of the training folder, or of the test set that has a folder or a table of its own."""
    own_folder = test and experiment.data_dir_test
    table_options = experiment.label_table_options(test=test)
    labels = Labels(
        table_options and LabelTable(**table_options),
        None if experiment.task == "segmentation" else Classes(experiment.num_classes, experiment.label_map),
        experiment.label_dir_test if own_folder else experiment.label_dir_train,
    )
    cases = find_cases(
        experiment.dataset_name,
        experiment.data_dir_test if own_folder else experiment.data_dir_train,
        labels,
        label_stem=experiment.label_stem,
        subject_pattern=experiment.subject_pattern,
        channel_suffixes=experiment.channel_suffixes,
        channel_columns=experiment.channel_columns,
    )
    if labels.classes and not test:
        met = labels.classes.met | (labels.table.classes.met if labels.table else set())
        misleading.warn_of_label_map(experiment, met, f"the labels of {experiment.label_key()}")
    return cases


def _unique(cases: Iterable[Case]) -> list[Case]:
    return sorted(set(cases), key=lambda case: case.name)


def _names(cases: Iterable[Case]) -> list[str]:
    return [case.name for case in cases]
