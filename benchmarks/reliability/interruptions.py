"""Commands that are killed, told to stop, or out of disk, and then resumed: the result must be the undisturbed one."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability import products, world
from benchmarks.reliability.process import AtWrite, Ended, command, run
from benchmarks.reliability.trials import Trial, flaw, refused

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 120
KINDS = ("SIGTERM", "SIGINT", "full disk")  # beside the killed ones
ROOM = "64m"
CPC = {"code_size": 8, "context_units": 8}
# Keys of a pretraining of each family.
FAMILIES = {
    "rotation": {"head_units": [8]},
    "cpc": {"patches_per_side": 4} | CPC,
    "tcpc": {"volume_fitting": "crop", "num_segments": 10, "min_foreground": 0.0} | CPC,
    "exemplar": {"code_size": 8},
    "jigsaw": {"patches_per_side": 2, "num_permutations": 4, "head_units": [8]},
    "relative_patch_location": {"patches_per_side": 3, "head_units": [8]},
    "rubiks_cube": {"patches_per_side": 2, "num_permutations": 4, "head_units": [8]},
    "parts2whole": {"volume_fitting": "crop"},
    "pcrlv2": {"batch_size": 3, "patches_per_scan": 2, "volume_fitting": "crop", "global_dim": 8, "local_dim": 4},
}


@dataclass(frozen=True)
class Subject:
    """A command that is interrupted.

    Attributes:
        name: What it is called in the table.
        line: The command line; with ``--resume`` it goes on.
        products: Folder of what it makes.
    """

    name: str
    line: tuple[str, ...]
    products: str


def subjects(part: str) -> list[Subject]:
    """Return the commands of a part."""
    families = [Subject(name, ("train", f"{name}.json"), "runs") for name in FAMILIES]
    finetuning = Subject("finetune", ("finetune", "finetune.json"), "runs")
    prediction = Subject("predict", ("predict", "runs/fine", "new", "masks", "--overlay"), "masks")
    return [*families, finetuning, prediction] if part == "whole" else families[:1]


def prepare(made: Path, folder: Path, subject: Subject) -> None:
    """Fill an empty folder with what a command starts from."""
    shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("half", "class"))
    if subject.name in FAMILIES:
        values = {key: value for key, value in world.TRAIN.items() if key != "head_units"}
        keys = {"algorithm": subject.name, "run_name": "pre"} | FAMILIES[subject.name]
        world.write_experiment(folder, subject.name, values | keys)
        shutil.rmtree(folder / "runs")
    if subject.name == "finetune":
        shutil.rmtree(folder / "runs" / "fine")


def undisturbed(made: Path, subject: Subject) -> Path:
    """Return a folder in which a command has run to its end, with the list of its writes in ``writes``."""
    folder = made.with_name("undisturbed") / subject.name
    if not folder.exists():
        folder.mkdir(parents=True)
        prepare(made, folder, subject)
        record = AtWrite(folder, None, record=folder.with_name(f"{subject.name}.writes"))
        world.expect(0, command(*subject.line), folder, stop=record)
    return folder


def trials(made: Path, *, part: str, seed: int, wanted: Callable[[str], bool]) -> list[Trial]:
    """Return the trials of a part of the kinds that are wanted; the undisturbed runs are made here."""
    found = []
    exact, later, processes, signals, disks = (9, 8, 3, 4, 4) if part == "whole" else (1, 1, 0, 0, 0)
    for subject in subjects(part):
        stopped = subject.name in ("rotation", "finetune", "predict")
        if not wanted(f"killed: {subject.name}") and not (stopped and any(map(wanted, KINDS))):
            continue
        reference = undisturbed(made, subject)
        lines = reference.with_name(f"{subject.name}.writes").read_text().splitlines()
        moments = _moments(lines, random.Random(f"{seed}-{subject.name}"), exact, later)
        common = (made, reference, subject)
        for number, delay in moments:
            name = f"seed {seed}, at write {number} of {len(lines)} ({lines[number]}) + {delay:.2f} s"
            found.append(Trial(f"killed: {subject.name}", name, functools.partial(_killed, *common, number, delay)))
        for number in range(processes):
            moment = 12 * random.Random(f"{seed}-{subject.name}-{number}").random()
            name = f"seed {seed}, process killed after {moment:.1f} s"
            found.append(Trial(f"killed: {subject.name}", name, functools.partial(_process_killed, *common, moment)))
        if not stopped:
            continue
        for number, delay in _moments(lines, random.Random(f"{seed}-{subject.name}-signal"), signals, signals):
            for which in (signal.SIGTERM, signal.SIGINT):
                name = f"{subject.name}, seed {seed}, at write {number} ({lines[number]}) + {delay:.2f} s"
                how = functools.partial(_told_to_stop, *common, number, delay, which)
                found.append(Trial(signal.Signals(which).name, name, how))
        for number in range(disks if can_mount() else 0):
            share = (number + random.Random(f"{seed}-{subject.name}-{number}").random()) / disks
            name = f"{subject.name}, seed {seed}, room for {share:.0%}"
            found.append(Trial("full disk", name, functools.partial(_disk_full, *common, share)))
    return found


def _moments(lines: list[str], rng: random.Random, exact: int, later: int) -> Iterator[tuple[int, float]]:
    """Yield the number of a write and a delay in seconds: every kind of write in turn, then any."""
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    kinds = sorted(places)
    rng.shuffle(kinds)
    for turn in range(exact):
        yield rng.choice(places[kinds[turn % len(kinds)]]), 0.0
    for _ in range(later):
        yield rng.randrange(len(lines)), rng.uniform(0, 0.5)


def _killed(made: Path, reference: Path, subject: Subject, number: int, delay: float, folder: Path) -> str | None:
    prepare(made, folder, subject)
    run(command(*subject.line), folder, seconds=SECONDS, stop=AtWrite(folder, number, delay=delay))
    return products.damage(folder / subject.products) or _resumed(reference, subject, folder)


def _process_killed(made: Path, reference: Path, subject: Subject, moment: float, folder: Path) -> str | None:
    prepare(made, folder, subject)
    name, *arguments = subject.line
    line = [sys.executable, str(REPOSITORY / f"{name}.py"), *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, **quiet)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    process.kill()
    process.wait()
    return products.damage(folder / subject.products) or _resumed(reference, subject, folder)


def _told_to_stop(made, reference: Path, subject: Subject, number: int, delay: float, which: int, folder: Path):
    prepare(made, folder, subject)
    stop = AtWrite(folder, number, kill=which, delay=delay)
    ended = run(command(*subject.line), folder, seconds=SECONDS, stop=stop)
    # The signal may come when everything is done.
    if (lost := flaw(ended)) or ended.code not in (0, 128 + which):
        return lost or f"exit code {ended.code}"
    return products.damage(folder / subject.products) or _resumed(reference, subject, folder)


def _resumed(reference: Path, subject: Subject, folder: Path, *options: str) -> str | None:
    ended = run(command(*subject.line, *options, "--resume"), folder, seconds=SECONDS)
    if (lost := flaw(ended)) or ended.code != 0:
        return f"resumed: {lost or _last(ended)}"
    return products.difference(reference / subject.products, folder / subject.products)


def _last(ended: Ended) -> str:
    return f"exit code {ended.code}: {(ended.err.strip().splitlines() or [''])[-1][:300]}"


@functools.cache
def can_mount() -> bool:
    """Return whether small file systems can be mounted, for which one must be root."""
    if os.getuid() != 0:
        return False
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        with tempfile.TemporaryDirectory(prefix="reliability-") as folder, _mounted(Path(folder), 4096):
            return True
    return False


@contextlib.contextmanager
def _mounted(folder: Path, size: int) -> Iterator[None]:
    options = {"check": True, "capture_output": True}
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], **options)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], **options)


def _disk_full(made: Path, reference: Path, subject: Subject, share: float, folder: Path) -> str | None:
    prepare(made, folder, subject)
    wanted = reference / subject.products
    target = folder / subject.products
    before = {path.name for path in target.iterdir()} if target.exists() else set()
    size = sum(
        -(-path.stat().st_size // 4096) * 4096
        for path in wanted.rglob("*")
        if path.is_file() and path.relative_to(wanted).parts[0] not in before
    )
    # Other runs there are kept beside, and linked.
    beside = folder / "beside"
    if target.exists():
        target.rename(beside)
    target.mkdir()
    with _mounted(target, max(4096, int(share * size))):
        for name in before:
            (target / name).symlink_to(beside / name)
        ended = run(command(*subject.line), folder, seconds=SECONDS)
        lost = None if ended.code == 0 else refused(ended, folder=target)
        if lost := lost or products.damage(target):
            return lost
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(target)], check=True, capture_output=True)
        for name in before:
            (target / name).unlink()
            shutil.copytree(beside / name, target / name)
        return _resumed(reference, subject, folder)
