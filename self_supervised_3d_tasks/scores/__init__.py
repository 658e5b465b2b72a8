"""How good predictions are: one file per kind of score, the metrics of the training curves, statistics and tables.

A score is a function of finished `base.Predictions`. A file of this folder that has ``TASK`` brings scores for that
kind of prediction: ``"segmentation"`` (each test case by itself), ``"classification"`` or ``"findings"`` (all test
cases as one set). Its function ``scores(outputs)`` returns, for each name that an experiment file may give, the scores
that the name stands for, by their names in the tables. There is no list to edit.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence

from self_supervised_3d_tasks.scores.base import Score, chosen


def known(task: str, outputs: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return for each name that a task may ask for the scores that it stands for.

    Args:
        task: ``"segmentation"``, ``"classification"`` or ``"findings"``.
        outputs: Names of the classes, background included, or of the findings.
    """
    files = (importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__))
    return {
        name: scores
        for module in files
        if getattr(module, "TASK", "") == task
        for name, scores in module.scores(outputs).items()
    }


def find(task: str, names: Iterable[str], outputs: Sequence[str]) -> dict[str, Score]:
    """Return the scores that ``names`` ask for by their names in the tables, in order and without repetition.

    Args:
        task: See `known`.
        names: What the experiment file gives as ``scores``.
        outputs: See `known`.

    Raises:
        UserError: No score of the task has that name.
    """
    found = chosen("score", names, known(task, outputs), task, outputs)
    return {name: score for scores in found for name, score in scores.items()}
