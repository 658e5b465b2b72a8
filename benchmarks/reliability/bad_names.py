"""Names that are no files, folders of another kind, and special files, at every place that takes a path."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.reliability import world

CAPABILITIES_VERSION = 0x20080522

# Each is made in the current folder; a name alone has no file.
NAMES: dict[str, str] = {
    "missing": "nowhere/at/all",
    "240 characters": "n" * 240,
    "300 characters": "n" * 300,
    "5,000 characters": "n" * 5000,
    "NUL": "a\0b",
    "empty": "",
    "no such user": "~nosuchuser/x",
    "below a file": "train.json/below",
    "not UTF-8": os.fsdecode(b"M\xfcller"),
    "/proc": "/proc/self",
    "/dev/null": "/dev/null",
    "/dev/zero": "/dev/zero",
    "a fifo": "fifo",
    "a dangling link": "dangling",
    "a link to itself": "loop",
    "an empty folder": "empty",
    "a folder without permission": "locked/x",
    "a newline": "a\nb",
    "a mathtext": "a$_{b$",
}
OUTPUTS = ("output", "workspace", "cache", "run name", "prepare", "index output", "schema")
# What the place does with a name: the command line, or keys of an experiment.
PLACES: dict[str, Callable[[str], tuple]] = {
    "experiment": lambda name: ("train", name),
    "data_dir": lambda name: ("train", {"data_dir": name}),
    "workspace": lambda name: ("train", {"base_workspace": name}),
    "cache": lambda name: ("train", {"cache_dir": name, "cache": "disk"}),
    "run name": lambda name: ("train", {"run_name": name}),
    "model_checkpoint": lambda name: ("finetune", {"model_checkpoint": name}),
    "label_dir_train": lambda name: ("finetune", {"label_dir_train": name}),
    "data_dir_test": lambda name: ("finetune", {"data_dir_test": name}),
    "random_from": lambda name: ("finetune", {"random_from": name}),
    "csv_file": lambda name: ("classify", {"csv_file": name}),
    "index": lambda name: ("index", {"data_dir_train": name}),
    "run folder": lambda name: ("predict", name, "new", "out"),
    "input": lambda name: ("predict", "runs/fine", name, "out"),
    "output": lambda name: ("predict", "runs/fine", "new", name),
    "scores": lambda name: ("predict", "runs/fine", "new", "out", "--scores", name),
    "also": lambda name: ("predict", "runs/fine", "new", "out", "--also", name),
    "job": lambda name: ("predict", "runs/fine", "new", "out", "--job", name),
    "analysed": lambda name: ("analyse", name),
    "indexed": lambda name: ("prepare", "index", name, "--output", "new.csv"),
    "index output": lambda name: ("prepare", "index", "images", "--output", name and f"{name}/i.csv"),
    "example": lambda name: ("example", name),
    "schema": lambda name: ("schema", name),
}


def rows() -> Iterator[tuple]:
    """Yield a row for each name at each place."""
    for place, line_of in PLACES.items():
        for what, name in NAMES.items():
            line = line_of(name)
            mentions = [
                name[:40] or "error: .",
                repr(name)[1:-1][:40],
                place,
                *(line[1] if isinstance(line[1], dict) else ()),
                "the name",
            ]
            # Nothing outside the trial's folder may be written, whatever a command does.
            if place in OUTPUTS and name.startswith("/"):
                continue
            # A shell cannot give such an argument, and JSON no such text.
            if what == ("not UTF-8" if isinstance(line[1], dict) else "NUL"):
                continue
            yield f"{place}: {what}", _change(line, what), _line(line), mentions, place in OUTPUTS or what == "empty"


def give_up_rights() -> None:
    """Let permissions count for root too, where Linux offers that: all capabilities of this process go."""
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, none)


def _line(line: tuple) -> tuple:
    return (world.COMMAND_OF[line[0]], "experiment.json") if isinstance(line[1], dict) else line


def _change(line: tuple, what: str) -> Callable[[], None]:
    def change() -> None:
        if isinstance(line[1], dict):
            values = world.EXPERIMENTS[line[0]] | line[1]
            values = {key: value for key, value in values.items() if value is not None}
            Path("experiment.json").write_text(json.dumps(values))
        os.mkfifo("fifo")
        os.symlink("nothing", "dangling")
        os.symlink("loop", "loop")
        os.mkdir("empty")
        os.mkdir("locked", 0)
        if "permission" in what:
            os.environ.pop("HOME", None)
            give_up_rights()

    return change
