"""What people get wrong, as tables: each row goes through a real command and must end in one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.reliability import bad_files, bad_keys, bad_names, bad_tables, surroundings, world
from benchmarks.reliability.process import command, no_training, run
from benchmarks.reliability.trials import Trial, flaw, refused

Row = tuple[str, Callable[[], None], Sequence[object], Sequence[str], bool]
"""Name, what is done in a copy of the world, the command line, what the message names one of, may it be accepted."""

SECONDS = 30
MAY_END = (0, 1, 141)  # done, some scans failed, nobody reads what is printed
# The others are seen to be accepted as soon as they would train.
TRAINED = "sizes that nobody meant"


def trials(made: Path) -> list[Trial]:
    """Return all rows; ``made`` is the world."""
    kinds = {
        "bad keys": bad_keys.rows(),
        "sizes that nobody meant": bad_keys.sizes(),
        "names and paths": bad_names.rows(),
        "tables of labels": bad_tables.rows(),
        "bad scans": bad_files.rows(),
        "surroundings": surroundings.rows(),
    }
    return [
        Trial(kind, row[0], _tried(made, row, trains=kind == TRAINED)) for kind, rows in kinds.items() for row in rows
    ]


def _tried(made: Path, row: Row, *, trains: bool) -> Callable[[Path], str | None]:
    name, change, line, mentions, may_pass = row

    def tried(folder: Path) -> str | None:
        world.copy(made, folder)
        ended = run(_in_turn(change, command(*line)), folder, seconds=SECONDS, stop=None if trains else no_training)
        if may_pass and ended.code in MAY_END:
            return flaw(ended, folder)
        return refused(ended, *mentions, folder=folder)

    return tried


def _in_turn(change: Callable[[], None], then: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        change()
        then()

    return both
