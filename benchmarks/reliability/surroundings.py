"""What a shell, a cluster or a container gives a command: encodings, closed streams, no home, no current folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.reliability.process import renew_streams


def _encoding(name: str) -> Callable[[], None]:
    def change() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=name, errors="strict")

    return change


def _full() -> None:
    """Let stdout be a file on a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    renew_streams()


def _nobody_reads() -> None:
    """Make stdout a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    renew_streams()


def _no_current_folder() -> None:
    """Remove the current folder; what commands name by absolute paths stays."""
    gone = Path("gone")
    gone.mkdir()
    os.chdir(gone)
    shutil.rmtree(Path.cwd())


def _environment(**values: str | None) -> Callable[[], None]:
    def change() -> None:
        for name, value in values.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    return change


CHANGES: dict[str, Callable[[], None]] = {
    "stdout is ascii": _encoding("ascii"),
    "stdout is cp1252": _encoding("cp1252"),
    "stdout is full": _full,
    "nobody reads stdout": _nobody_reads,
    "stdout is closed": lambda: os.close(1),
    "stdin is closed": lambda: os.close(0),
    "no home": _environment(HOME=None),
    "a home that is missing": _environment(HOME="/nowhere"),
    "a temporary folder that is missing": _environment(TMPDIR="/nowhere"),
    "no terminal size": _environment(COLUMNS="0", LINES="x", TERM="dumb"),
    "no current folder": _no_current_folder,
}
LINES: dict[str, tuple] = {
    "train": ("train", "train.json"),
    "dry run": ("train", "train.json", "--dry_run"),
    "finetune": ("finetune", "finetune.json"),
    "predict": ("predict", "runs/fine", "new", "masks"),
    "prepare": ("prepare", "index", "images", "--output", "made.csv"),
    "example": ("example",),
}


def rows() -> Iterator[tuple]:
    """Yield a row for each command in each surroundings; the scans' names have letters beyond ASCII."""
    for what, change in CHANGES.items():
        for name, line in LINES.items():

            def changed(change=change) -> None:
                for folder in ("images", "images_labels", "new"):
                    first = min(Path(folder).iterdir())
                    first.rename(first.with_name("Mu\u0308ller \u0142 $x$.nii.gz"))
                change()

            yield f"{name}: {what}", changed, line, (), True
