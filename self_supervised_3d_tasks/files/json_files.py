"""JSON files."""

import json
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` atomically as indented JSON."""
    atomic_write_bytes(path, f"{json.dumps(data, indent=2)}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {path.parent} a run folder?") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: expected a JSON file, but it cannot be read ({error})") from error
