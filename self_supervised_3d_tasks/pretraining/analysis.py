"""The analysis of a finished pretraining with a decoder, written into its run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from absl import logging

from self_supervised_3d_tasks import plots, training
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis import report, restoration
from self_supervised_3d_tasks.analysis.codes import contrastive_probe, embed, similarities
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import bases, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.json_files import write_json
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.run_files import PretrainingSplit
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.pretraining.plan import Plan, plan
from self_supervised_3d_tasks.pretraining.scans import find_scans, read_scans
from self_supervised_3d_tasks.training.checkpoints import read_state


@dataclass(frozen=True)
class Sample:
    """What is analysed.

    Attributes:
        data_dir: Folder of scans; None for the run's validation scans.
        num_images: Number of images, of so many scans as there are; without crops no more than scans.
        parts_per_image: Number of examples that are drawn of each image.
        seed: Seed of everything that is drawn.
    """

    data_dir: str | None
    num_images: int
    parts_per_image: int
    seed: int


def analyse(folder: RunFolder, sample: Sample) -> str:
    """Write ``analysis/`` into a run folder and return the table that sums it up.

    Args:
        folder: Folder of a finished pretraining.
        sample: Which scans are analysed, and how many images and parts of them.

    Raises:
        UserError: It is not the folder of a finished pretraining of a task with a decoder, or scans cannot be read.
    """
    plan, state = _finished_plan(folder), read_state(folder)
    if state is None or state.best is None:
        raise UserError(f"{folder.state}: names no weights of a finished training; restore it from a copy")
    training.set_precision(plan.experiment.mixed_precision)
    cases = plan.validation if sample.data_dir is None else _other_cases(plan, sample.data_dir)
    found, mean_of = _measure(plan, load_model(folder.encoder_decoder), cases, sample)
    alike, probe = similarities(found.codes), contrastive_probe(found.codes, seed=sample.seed)
    numbers = report.numbers(alike, probe, found.scans)
    source = "validation scans" if sample.data_dir is None else f"scans of {Path(sample.data_dir).name}"
    task, epoch, images = plan.algorithm.name, state.best.epoch, len(found.codes)

    plots.similarity_histogram(folder.analysis / "similarity.png", *alike)
    points = embed(found.codes.reshape(-1, found.codes.shape[-1]), seed=sample.seed)
    plots.embedding(folder.analysis / "embedding.png", points, np.repeat(np.arange(images), sample.parts_per_image))
    plots.restorations(folder.analysis / "restorations.png", found.pictures, f"{task}, epoch {epoch}: {source}")
    content = {
        "task": task,
        "epoch": epoch,
        "data_dir": sample.data_dir or plan.experiment.data_dir,
        "part": "validation" if sample.data_dir is None else "all",
        "seed": sample.seed,
        "wholes": images,
        "parts_per_whole": sample.parts_per_image,
        "mean_image": {"n": mean_of, "of": "images drawn from the training scans"},
        "numbers": [asdict(number) for number in numbers],
        "per_scan": {
            "unit": report.SQUARE,
            "n": "parts of the scan that the errors are means of",
            "scans": [scan._asdict() for scan in found.scans],
        },
    }
    write_json(folder.analysis_numbers, content)
    wholes = f"{images} wholes of {len(found.scans)} {source}"
    return f"{task}, epoch {epoch}: {wholes}, {sample.parts_per_image} parts each\n{report.table(numbers)}"


def _measure(
    plan: Plan, restorer: keras.Model, cases: Sequence[Case], sample: Sample
) -> tuple[report.Measurement, int]:
    """Pass parts of the scans through the networks; return what was measured and how many images the mean is of."""
    experiment, algorithm = plan.experiment, plan.algorithm
    batch_size = min(plan.scans_per_step, restoration.MAX_BATCH)
    crops = experiment.crop_shape is not None
    if len(cases) < 2 and not crops:
        raise UserError(
            f"{cases[0].image}: the only scan to analyse, but wholes are compared with each other and two are needed; "
            "name a folder with more scans with --data_dir"
        )
    # More scans than images are not even read.
    rng = np.random.default_rng(sample.seed)
    chosen = sorted(rng.choice(len(cases), min(sample.num_images, len(cases)), replace=False))
    scans = read_scans(experiment, algorithm, [cases[index] for index in chosen])
    per_scan = -(-sample.num_images // len(scans.names)) if crops else 1
    images = scans.images_for_analysis(per_scan=per_scan, seed=sample.seed).take(sample.num_images)
    logging.info("mean image: reading the training scans")
    train = read_scans(experiment, algorithm, plan.train)
    examples = train.images_for_analysis(per_scan=experiment.crops_per_scan, seed=sample.seed)
    batches = restoration.stream_parts(examples, algorithm, 1, batch_size)
    mean, mean_of = restoration.mean_image(batch.wanted for batch in batches)
    parts = restoration.stream_parts(images, algorithm, sample.parts_per_image, batch_size)
    networks = restoration.networks(restorer, batch_size)
    return report.measure(parts, networks, mean, scans.names, sample.parts_per_image), mean_of


def _finished_plan(folder: RunFolder) -> Plan:
    """Return what the run trained, with the scans of its own split."""
    path = folder.path
    if not folder.config.is_file():
        raise UserError(f"{path}: no config.json here: expected the run folder of a pretraining, as train.py prints it")
    if "data_dir_train" in bases.read(folder.config)[0]:
        raise UserError(f"{path}: the run folder of a finetuning; give that of the pretraining before it")
    experiment = load_experiment("train", folder.config)
    able = [task for task in registry.known("algorithm") if issubclass(registry.algorithm(task), RestoringAlgorithm)]
    if experiment.algorithm not in able:
        tasks = f"tasks that can be analysed: {', '.join(able)}"
        raise UserError(f"{path}: pretrained with {experiment.algorithm}, which has no decoder; {tasks}")
    if not folder.is_finished:
        raise UserError(f"{path}: this pretraining has not finished; continue it with train.py --resume")
    found, split = plan(experiment), folder.read(RunFolder.split, PretrainingSplit)
    cases = {case.name: case for case in (*found.train, *found.validation)}
    missing = [name for name in (*split.train, *split.validation) if name not in cases]
    if missing:
        raise UserError(
            f"{experiment.data_dir}: {len(missing)} scans of {folder.split} are not there any more, the first "
            f"is {missing[0]!r}; put them back"
        )
    return replace(found, **{part: [cases[name] for name in getattr(split, part)] for part in ("train", "validation")})


def _other_cases(plan: Plan, data_dir: str) -> list[Case]:
    """Return the scans of another folder; warn of those that trained the run."""
    cases = find_scans(plan.experiment, data_dir)
    known = {os.path.realpath(case.image) for case in plan.train}
    if trained := sum(os.path.realpath(case.image) in known for case in cases):
        logging.warning("%s: %d of the %d scans trained the run: they are not unseen", data_dir, trained, len(cases))
    return cases
