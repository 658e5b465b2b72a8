"""Keys that a finetuning takes from the run that pretrained its encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.transfer.encoder import find_encoder

# Keys of encoders that change no tensor: finetuning may choose them anew.
WITHOUT_TENSORS = frozenset({"dropout", "dropout_change_per_layer", "pooling", "pool_schedule", "output_stride"})
# Where a pretraining begins; a finetuning begins with what came out of it.
_OF_PRETRAINING = frozenset({"encoder_weights"})


def inherit(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of a finetuning, completed from the ``config.json`` of its checkpoint, and warnings.

    The pretext task and the keys of the encoder are taken over where ``values`` is silent. Without a checkpoint, or
    where no experiment lies beside its file, ``values`` are returned as they are.

    Raises:
        UserError: Keys that the tensors of the encoder depend on have other values than in the pretraining. With
            ``allow_partial_load`` this is a warning, as it is for keys that no tensor depends on.
    """
    path = _config(values)
    stored = _read(path) if path else None
    if stored is None:
        return values, []
    theirs = {key: stored.get(key) for key in ("algorithm", "encoder_architecture")}
    encoder = registry.canonical("encoder", theirs["encoder_architecture"] or "unet", str(path))
    keys = registry.options(registry.encoder(encoder)).keys() - _OF_PRETRAINING
    theirs |= {key: stored[key] for key in sorted(keys & stored.keys())}
    others = [key for key in theirs if key in values and _differ(key, values[key], theirs[key])]
    lost = [] if values.get("allow_partial_load") is True else [key for key in others if key not in WITHOUT_TENSORS]
    if lost:
        raise UserError(
            f"{', '.join(lost)}: the file has {_listed(lost, values)}, but {path} of model_checkpoint has "
            f"{_listed(lost, theirs)}; weights fit into the encoder that they were trained in: remove these keys from "
            "the file, or name another model_checkpoint"
        )
    warnings = [
        f"{key}: {json.dumps(values[key])} is in force, but the encoder was pretrained with {json.dumps(theirs[key])} "
        f"({path})"
        for key in others
    ]
    return theirs | values, warnings


def require_checkpoint(values: dict[str, Any], because: str = "") -> None:
    """Raise `UserError`, beginning with ``because``, if ``model_checkpoint`` is given and is no model yet."""
    if isinstance(values.get("model_checkpoint"), str) and _config(values) is None:
        try:
            find_encoder(values["model_checkpoint"])
        except UserError as error:
            raise UserError(f"{because}{error}") from None


def _config(values: dict[str, Any]) -> Path | None:
    """Return the file with the keys of the pretraining, if there is one."""
    checkpoint = values.get("model_checkpoint")
    if not isinstance(checkpoint, str):
        return None
    source = Path(checkpoint).expanduser()
    path = RunFolder(source if source.is_dir() else source.parent).config
    return path if source.exists() and path.is_file() else None


def _read(path: Path) -> dict[str, Any] | None:
    """Return the experiment in a file; None where the file holds something else."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and isinstance(stored.get("algorithm"), str) else None


def _differ(key: str, mine: Any, theirs: Any) -> bool:
    kind = {"algorithm": "algorithm", "encoder_architecture": "encoder"}.get(key)
    if kind and isinstance(mine, str | None):
        mine, theirs = (registry.canonical(kind, name or "unet", key) for name in (mine, theirs))
    # None leaves the choice to the encoder; whether it is the same shows when the weights are loaded.
    return mine != theirs and (key in WITHOUT_TENSORS or None not in (mine, theirs))


def _listed(keys: list[str], values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(values[key])}" for key in keys)
