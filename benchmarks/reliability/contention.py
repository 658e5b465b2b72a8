"""Two commands that want the same files at once: both are right, or one says that the other is there."""

from __future__ import annotations

import functools
import random
import shutil
import time
from pathlib import Path

from benchmarks.reliability import products
from benchmarks.reliability.process import Forked, command
from benchmarks.reliability.trials import Trial, flaw

SECONDS = 120
TIMES = 5
CACHED = ("--set", "cache=disk", "--set", "cache_dir=cache")
# Two command lines, what is removed before, the runs that are interrupted, and the folders whose content is known.
CASES: dict[str, tuple] = {
    "two starts": (2 * [("train", "train.json")], ["runs/pre"], [], {"runs/pre": "runs/pre", "runs/pre_1": "runs/pre"}),
    "two --resume": (2 * [("train", "train.json", "--resume")], [], ["pre"], {"runs/pre": "runs/pre"}),
    "two --resume of a sweep": (
        2 * [("finetune", "finetune.json", "--resume")],
        [],
        ["fine"],
        {"runs/fine": "runs/fine"},
    ),
    "one cache": (
        [("train", "train.json", "--set", f"run_name={name}", *CACHED) for name in ("a", "b")],
        *([], [], {"runs/a/checkpoints": "runs/pre/checkpoints", "runs/b/checkpoints": "runs/pre/checkpoints"}),
    ),
    "two predictions": (2 * [("predict", "runs/fine", "new", "masks", "--overlay")], [], [], {}),
    "two prepares": (2 * [("prepare", "index", "images", "--output", "made.csv")], [], [], {}),
    "a prediction of a run that goes on": (
        [("finetune", "finetune.json", "--resume"), ("predict", "runs/fine", "new", "masks")],
        *([], ["fine"], {"runs/fine": "runs/fine"}),
    ),
}


def trials(made: Path, *, seed: int) -> list[Trial]:
    """Return each case several times, with seeded moments between the two starts."""
    return [
        Trial("two at once", f"{name}, seed {seed}-{number}", functools.partial(_both, made, name, f"{seed}-{number}"))
        for name in CASES
        for number in range(TIMES)
    ]


def _both(made: Path, name: str, seed: str, folder: Path) -> str | None:
    lines, removed, interrupted, known = CASES[name]
    shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("class"))
    for run in interrupted:
        shutil.rmtree(folder / "runs" / run)
        (folder / "half" / run).rename(folder / "runs" / run)
    for path in removed:
        shutil.rmtree(folder / path)
    running = []
    for line in lines:
        running.append(Forked(command(*line), folder, seconds=SECONDS))
        time.sleep(random.Random(seed).choice((0, 0, 0.3, 2)))
    ended = [one.wait() for one in running]
    lost = next(filter(None, map(flaw, ended)), None) or _files_lost(made, folder, known)
    if not lost and all(one.code for one in ended):
        lost = f"none has finished: {ended[0].err.strip()[-200:]}"
    return lost and f"exit codes {sorted(str(one.code) for one in ended)}: {lost}"


def _files_lost(made: Path, folder: Path, known: dict[str, str]) -> str | None:
    if left := next(folder.rglob(".unfinished-*"), None):
        return f"{left.relative_to(folder)} is left behind"
    for path, like in known.items():
        if (folder / path).exists() and (lost := products.difference(made / like, folder / path)):
            return f"{path}: {lost}"
    return products.damage(folder / "masks") if (folder / "masks").exists() else None
