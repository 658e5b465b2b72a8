"""Experiment files that build on others: ``"base"`` names one file or several, whose keys they take over."""

import os
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.paths import as_path, on_disk, shown


def read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of an experiment file and of its bases together, and the names of these bases.

    A base lies relative to the file that names it, and can have bases itself. Later keys win: those of a file over
    those of its bases, and in a list those of a later base. Groups and lists are replaced, not merged.

    Raises:
        UserError: One of the files is missing, is no JSON object, or is its own base; the message names the files that
            lead there.
    """
    bases: dict[str, None] = {}
    return _read((path,), bases), list(bases)


def _read(chain: tuple[Path, ...], seen: dict[str, None]) -> dict[str, Any]:
    """Return the keys of the last file of ``chain``, each of which is a base of the file before; note its bases."""
    where = " → ".join(map(os.path.normpath, chain))
    if os.path.realpath(chain[-1]) in map(os.path.realpath, chain[:-1]):
        raise UserError(f"{where}: no file can be its own base; remove one of these")
    values = _json_object(chain[-1], where)
    bases = values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{where}: base: expected the name of a file or a list of names, received {shown(repr(bases))}")
    merged: dict[str, Any] = {}
    for base in bases:
        path = on_disk(chain[-1].parent / as_path(base))
        seen[os.path.normpath(path)] = None
        merged |= _read((*chain, path), seen)
    return merged | values


def _json_object(path: Path, where: str) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise UserError(f"{where}: no such experiment file")
    values = read_json(path, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object of keys, found {type(values).__name__}")
    return values
