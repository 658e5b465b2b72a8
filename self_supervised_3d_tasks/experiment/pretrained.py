"""Keys that a finetuning takes from the run that pretrained its encoder."""

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
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        stored = None
    if not isinstance(stored, dict) or not isinstance(stored.get("algorithm"), str):
        return values, []
    theirs = {key: stored.get(key) for key in ("algorithm", "encoder_architecture")}
    encoder = registry.canonical("encoder", theirs["encoder_architecture"] or "unet", str(path))
    keys = registry.options(registry.encoder(encoder)).keys() - _OF_PRETRAINING
    theirs |= {key: stored[key] for key in sorted(keys & stored.keys())}
    others = [key for key in theirs if key in values and _differ(key, values[key], theirs[key])]
    lost = [key for key in others if key not in WITHOUT_TENSORS]
    if lost and values.get("allow_partial_load") is not True:
        here, there = (", ".join(f"{key} {json.dumps(source[key])}" for key in lost) for source in (values, theirs))
        raise UserError(
            f"{', '.join(lost)}: the file has {here}, but {path} of model_checkpoint has {there}; weights fit into "
            "their own encoder only; remove these keys from the file, or name another model_checkpoint"
        )
    pairs = {key: [json.dumps(source[key]) for source in (values, theirs)] for key in others}
    warning = "{}: {} is in force, but the encoder was pretrained with {} ({})"
    return theirs | values, [warning.format(key, *pair, path) for key, pair in pairs.items()]


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


def _differ(key: str, mine: Any, theirs: Any) -> bool:
    kind = {"algorithm": "algorithm", "encoder_architecture": "encoder"}.get(key)
    if kind and isinstance(mine, str | None):
        mine, theirs = (registry.canonical(kind, name or "unet", key) for name in (mine, theirs))
    # None leaves the choice to the encoder; whether it is the same shows when the weights are loaded.
    return mine != theirs and (key in WITHOUT_TENSORS or None not in (mine, theirs))
