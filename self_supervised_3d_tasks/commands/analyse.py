"""What a pretraining with a decoder has learned.

RUN_DIR is the folder of a finished pretraining. Parts of validation scans, or of the scans of --data_dir, go through
its encoder and its decoder: are the codes of one whole alike and those of different wholes not, and is the restoration
better than the mean image? Pictures and numbers are written to RUN_DIR/analysis.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from absl import flags, logging

from self_supervised_3d_tasks import commands, plots, training
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.analysis import report, restoration
from self_supervised_3d_tasks.analysis.codes import contrastive_probe, embed, similarities
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.experiment.keys import TrainExperiment
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.pretraining.plan import Plan
from self_supervised_3d_tasks.pretraining.plan import plan as plan_pretraining
from self_supervised_3d_tasks.pretraining.scans import find_scans, read_scans
from self_supervised_3d_tasks.training import checkpoints

USAGE = "RUN_DIR [--data_dir FOLDER] [--num_wholes N] [--parts_per_whole N] [--seed N]"
NUM_PICTURES = 4
MAX_BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags.DEFINE_string("data_dir", None, "Folder of other scans; default: the validation scans of the run.")
    flags.DEFINE_integer("num_wholes", 30, "Images (crops, where it was trained on crops) to analyse.", lower_bound=2)
    flags.DEFINE_integer("parts_per_whole", 20, "Examples of each.", lower_bound=2)
    flags.DEFINE_integer("seed", 0, "Of the choice of scans, crops and parts, and of t-SNE.", lower_bound=0)
    commands.run(execute, usage=USAGE, example="runs/parts2whole_demo", argv=argv)


def execute(argv: list[str]) -> None:
    """Analyse the run with the parsed flags.

    Args:
        argv: Program name, run folder of a pretraining.

    Raises:
        UserError: Not the folder of a finished pretraining of a task with a decoder, or its scans cannot be read.
    """
    if len(argv) != 2:
        raise UserError(commands.usage_line(argv[0], USAGE))
    folder = RunFolder.open(argv[1])
    options = flags.FLAGS
    found = analyse(
        folder,
        data_dir=options.data_dir,
        num_wholes=options.num_wholes,
        parts_per_whole=options.parts_per_whole,
        seed=options.seed,
    )
    print(found)
    print(f"written: {folder.path / 'analysis'}")


def analyse(folder: RunFolder, *, data_dir: str | None, num_wholes: int, parts_per_whole: int, seed: int) -> str:
    """Write ``analysis/`` into a run folder and return the table that sums it up.

    Args:
        folder: Of a finished pretraining.
        data_dir: Folder of scans to analyse; None for the run's validation scans.
        num_wholes: Images, of so many scans as there are; without crops no more than scans.
        parts_per_whole: Examples of each image.
        seed: Of everything that is drawn.

    Raises:
        UserError: See `execute`.
    """
    plan = _finished_plan(folder)
    training.set_precision(plan.experiment.mixed_precision)
    cases = plan.validation if data_dir is None else _other_cases(plan, data_dir)
    restorer = training.load_model(folder.encoder_decoder)
    found, mean = _measure(plan, restorer, cases, num_wholes, parts_per_whole, seed)
    alike, probe = similarities(found.codes), contrastive_probe(found.codes, seed=seed)
    scans = report.scan_errors(found)
    numbers = [*report.of_codes(alike, probe), *report.of_restorations(scans)]
    epoch = checkpoints.read_state(folder.path).best.epoch
    wholes = len(found.scans)
    source = "validation scans" if data_dir is None else f"scans of {Path(data_dir).name}"
    title = f"{plan.algorithm.name}, epoch {epoch}: {wholes} wholes of {len(scans)} {source}"

    target = folder.analysis
    plots.similarity_histogram(target / "similarity.png", *alike)
    points = embed(found.codes.reshape(-1, found.codes.shape[-1]), seed=seed)
    plots.embedding(target / "embedding.png", points, np.repeat(np.arange(wholes), parts_per_whole))
    plots.restorations(target / "restorations.png", found.pictures, f"{plan.algorithm.name}, epoch {epoch}: {source}")
    content = {
        "task": plan.algorithm.name,
        "epoch": epoch,
        "data_dir": plan.experiment.data_dir if data_dir is None else str(data_dir),
        "part": "validation" if data_dir is None else "all",
        "seed": seed,
        "wholes": wholes,
        "parts_per_whole": parts_per_whole,
        "mean_image": {"n": mean.count, "of": "images drawn from the training scans"},
        "numbers": [asdict(number) for number in numbers],
        "per_scan": {
            "unit": report.SQUARE,
            "n": "parts of the scan that the errors are means of",
            "scans": [scan._asdict() for scan in scans],
        },
    }
    RunFolder(target).write_json("analysis.json", content)
    return f"{title}, {parts_per_whole} parts each\n{report.table(numbers)}"


def _measure(
    plan: Plan, restorer: keras.Model, cases: Sequence[Case], num_wholes: int, parts_per_whole: int, seed: int
) -> tuple[report.Measurement, restoration.MeanImage]:
    """Read the scans and pass their parts through the networks."""
    algorithm, batch_size = plan.algorithm, min(plan.scans_per_step, MAX_BATCH)
    experiment = plan.experiment
    crops = experiment.crop_shape is not None
    if len(cases) < 2 and not crops:
        raise UserError(
            f"{cases[0].image}: the only scan to analyse, but wholes are compared with each other and two are needed; "
            "name a folder with more scans with --data_dir"
        )
    # More scans than wholes are not even read.
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(cases), min(num_wholes, len(cases)), replace=False))
    scans = read_scans(experiment, algorithm, [cases[index] for index in chosen])
    per_scan = -(-num_wholes // len(scans.names)) if crops else 1
    wholes = scans.images_for_analysis(per_scan=per_scan, seed=seed).take(num_wholes)
    logging.info("mean image: reading the training scans")
    train = read_scans(experiment, algorithm, plan.train)
    examples = train.images_for_analysis(per_scan=experiment.crops_per_scan, seed=seed)
    mean = restoration.mean_image(
        batch.wanted for batch in restoration.stream_parts(examples, algorithm, 1, batch_size)
    )
    found = report.measure(
        restoration.stream_parts(wholes, algorithm, parts_per_whole, batch_size),
        code=restoration.coding_network(restorer, batch_size),
        restore=restoration.restoring_network(restorer, batch_size),
        mean=mean,
        scans=scans.names,
        parts_per_whole=parts_per_whole,
        num_pictures=NUM_PICTURES,
    )
    return found, mean


def _finished_plan(folder: RunFolder) -> Plan:
    """Return what the run trained, with the scans of its own split."""
    path = folder.path
    if not folder.config.is_file():
        raise UserError(f"{path}: no config.json here: expected the run folder of a pretraining, as train.py prints it")
    if "data_dir_train" in folder.read_json(RunFolder.config):
        raise UserError(f"{path}: the run folder of a finetuning; give that of the pretraining before it")
    experiment: TrainExperiment = load_experiment("train", folder.config)
    _check_task(path, experiment.algorithm)
    if not folder.is_finished:
        raise UserError(f"{path}: this pretraining has not finished; continue it with train.py --resume")
    plan = plan_pretraining(experiment)
    split = folder.read_json(RunFolder.split)
    cases = {case.name: case for case in (*plan.train, *plan.validation)}
    missing = [name for part in ("train", "validation") for name in split[part] if name not in cases]
    if missing:
        raise UserError(
            f"{experiment.data_dir}: {len(missing)} scans of {folder.split} are not there any more, the first "
            f"is {missing[0]!r}; put them back"
        )
    train, validation = ([cases[name] for name in split[part]] for part in ("train", "validation"))
    return replace(plan, train=train, validation=validation)


def _check_task(path: Path, name: str) -> None:
    """Raise `UserError` for a task without a decoder."""
    able = [task for task in registry.known("algorithm") if issubclass(registry.algorithm(task), RestoringAlgorithm)]
    if name not in able:
        raise UserError(
            f"{path}: pretrained with {name}, which has no decoder; tasks that can be analysed: {', '.join(able)}"
        )


def _other_cases(plan: Plan, data_dir: str) -> list[Case]:
    """Return the scans of another folder; warn of those that trained the run."""
    cases = find_scans(plan.experiment, data_dir)
    known = {os.path.realpath(case.image) for case in plan.train}
    if trained := sum(os.path.realpath(case.image) in known for case in cases):
        logging.warning("%s: %d of the %d scans trained the run: they are not unseen", data_dir, trained, len(cases))
    return cases


if __name__ == "__main__":
    main()
