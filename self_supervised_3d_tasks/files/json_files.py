"""JSON files and texts: one reader, which takes nothing that another reader would understand differently."""

import json
import math
import os
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.paths import escaped, read_text, shown


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` atomically as indented JSON; names that are no UTF-8 are escaped."""
    atomic_write_bytes(path, f"{json.dumps(data, indent=2)}\n".encode())


def read_json(path: Path, where: str | None = None) -> Any:
    """Read a JSON file in UTF-8; a byte order mark may come first.

    Args:
        path: The file.
        where: What messages call it; default: its path.

    Raises:
        UserError: The file is missing, is no regular file, or is not JSON as `parse_json` reads it.
    """
    where = where or str(path)
    if not os.path.lexists(path):
        raise UserError(f"{where}: no such file; is {path.parent} a run folder?")
    text = read_text(path, where)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: expected a JSON file, but not valid JSON at {place}: {error.msg}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        json.JSONDecodeError: It is no JSON.
        UserError: It is, but a key is there twice, a number is NaN, infinite or too long, or it is nested too deep.
    """
    try:
        found = json.loads(text, object_pairs_hook=_checked, parse_int=_integer)
        if not _is_finite(found):
            raise UserError("expected finite numbers, received NaN or Infinity")
    except RecursionError:
        raise UserError("brackets are nested too deep; expected at most a few hundred; close some") from None
    return found


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys differ and whose numbers are finite."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{shown(escaped(double))}: this key is there twice; remove one")
    if endless := next((key for key, value in pairs if not _is_finite(value)), None):
        raise UserError(f"{shown(escaped(endless))}: expected a finite number, received NaN or Infinity")
    return found


def _is_finite(value: Any) -> bool:
    """Return whether a number is, or all in a list are; those of an object have been looked at."""
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python converts some thousand digits only
        raise UserError(f"{shown(text)}: a number of {len(text)} digits; expected a shorter one") from None
