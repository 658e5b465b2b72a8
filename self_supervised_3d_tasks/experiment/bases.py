"""Experiment files that build on others: ``"base"`` names one file or several, whose keys they take over."""

import json
import os
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError


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
    if chain[-1].resolve() in [file.resolve() for file in chain[:-1]]:
        raise UserError(f"{where}: no file can be its own base; remove one of these")
    values = _json_object(chain[-1], where)
    bases = values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{where}: base: expected the name of a file or a list of names, received {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        path = chain[-1].parent / Path(base).expanduser()
        seen[os.path.normpath(path)] = None
        merged |= _read((*chain, path), seen)
    return merged | values


def _json_object(path: Path, where: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where}: no such experiment file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise UserError(f"{where}: has a number of thousands of digits, or thousands of nested brackets") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object of keys, found {type(values).__name__}")
    return values
