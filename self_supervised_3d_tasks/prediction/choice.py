"""Which finished jobs of a finetuning run predict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.run_files import JobScores
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.scores.statistics import BASELINE, MODES

MAX_NAMED = 10
_NAME = re.compile(rf"(\d[\d.e-]*)_({'|'.join(MODES)})_(\d+)")  # as `finetuning.job.Job.name` has it


class FinishedJob(NamedTuple):
    """A job whose model can predict.

    Attributes:
        name: Folder name under ``jobs/``.
        percent: Label fraction in percent.
        mode: "frozen", "initialized" or "random".
        loss: Lowest validation loss.
    """

    name: str
    percent: float
    mode: str
    loss: float


def finished_jobs(run: Path) -> list[FinishedJob]:
    """Return the finished jobs of a run, sorted by name, and warn of what else lies among them.

    Raises:
        UserError: No job has finished, or the scores of one cannot be read.
    """
    jobs, foreign = [], []
    for path in sorted(RunFolder(run).jobs.iterdir()):
        folder, parsed = RunFolder(path), _parsed(path.name)
        if parsed is None and not path.name.startswith("."):
            foreign.append(path.name)
        elif parsed and folder.scores.exists() and folder.model.exists():
            jobs.append(FinishedJob(path.name, *parsed, folder.read(RunFolder.scores, JobScores).best_val_loss))
    if foreign:
        shown = ", ".join(map(repr, foreign[:MAX_NAMED])) + (", …" if len(foreign) > MAX_NAMED else "")
        logging.warning("%s: %s: no folders of jobs; they are left out", RunFolder(run).jobs, shown)
    if not jobs:
        raise UserError(f"{run}: no job has finished; run finetune.py with --resume")
    return jobs


def _parsed(name: str) -> tuple[float, str] | None:
    """Return label fraction and mode of the folder of a job; None for any other name."""
    match = _NAME.fullmatch(name)
    try:
        percent = float(match[1]) if match else 0.0
    except ValueError:
        return None
    return (percent, match[2]) if match and name == f"{percent:03g}_{match[2]}_{int(match[3])}" else None


def chosen(run: Path, job: str | None, ensemble: str | None) -> tuple[list[str], str]:
    """Return the names of the jobs of a run that predict, and why.

    Args:
        run: Run folder of a finetuning.
        job: Name of the only one.
        ensemble: "all": every finished job. "best": all repetitions of the mode and the label fraction of `default`. Or
            names with commas between them.

    Raises:
        UserError: There is no such job with a model, or both are given.
    """
    if job and ensemble:
        raise UserError("--job, --ensemble: one names a model, the other several; leave out one of them")
    if job or ensemble not in (None, "all", "best"):
        flag, names = ("--job", [job]) if job else ("--ensemble", ensemble.split(","))
        for name in names:
            _check_model(run, name, flag)
        return list(dict.fromkeys(names)), f"named by {flag}"
    jobs = finished_jobs(run)
    if ensemble == "all":
        return [each.name for each in jobs], "every finished job"
    best, reason = default(jobs)
    if ensemble is None:
        return [best.name], reason
    names = [each.name for each in jobs if (each.percent, each.mode) == (best.percent, best.mode)]
    return names, f"all repetitions of the mode of {best.name}: {reason}"


def default(jobs: Sequence[FinishedJob]) -> tuple[FinishedJob, str]:
    """Return the job that predicts if nobody names one, and why.

    Among the jobs with most labels it is the one with the lowest validation loss. If that one was trained from scratch,
    but the mean of a pretrained mode is not further from that of scratch than either of them varies over repetitions
    (sd), it is the best job of that mode: such a difference says nothing.

    Args:
        jobs: Finished jobs, at least one.
    """
    most = max(job.percent for job in jobs)
    modes: dict[str, list[FinishedJob]] = {}
    for job in jobs:
        if job.percent == most:
            modes.setdefault(job.mode, []).append(job)
    of_modes = {mode: min(group, key=lambda job: job.loss) for mode, group in modes.items()}
    best = min(of_modes.values(), key=lambda job: job.loss)
    labels = f"{most:g} % of the labels"
    if best.mode == BASELINE:
        means = {mode: _mean_and_sd([job.loss for job in group]) for mode, group in modes.items()}
        mean, sd = means[BASELINE]
        close = [mode for mode in means if mode != BASELINE and means[mode][0] - mean <= max(means[mode][1], sd)]
        if close:
            mode = min(close, key=lambda name: means[name])
            theirs = f"{means[mode][0]:.3g} ± {means[mode][1]:.2g}"
            reason = f"validation loss of {mode} {theirs}, within the spread of {BASELINE}, {mean:.3g} ± {sd:.2g}"
            return of_modes[mode], f"{labels}; {reason}"
    count = sum(map(len, modes.values()))
    return (
        best,
        f"{labels}; {f'lowest of {count} validation losses' if count > 1 else 'validation loss'}, {best.loss:.3g}",
    )


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation; that of one value is 0."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _check_model(run: Path, name: str, flag: str) -> None:
    folder = RunFolder(run)
    if not name or not folder.job(name).model.exists():
        with_model = sorted(path.parent.name for path in folder.jobs.glob(f"*/{RunFolder.model}"))
        raise UserError(f"{flag}: {folder.job(name).path} holds no {RunFolder.model}.{nearest(name, with_model)}")
