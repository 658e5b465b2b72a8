"""Which backend Keras computes with, known before Keras is loaded, which takes seconds.

It is chosen as Keras has it: by the environment variable ``KERAS_BACKEND``, or else by ``~/.keras/keras.json``.
"""

import importlib.util
import json
import os
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError

SUPPORTED = ("tensorflow", "jax")
_VARIABLE = "KERAS_BACKEND"


def name() -> str:
    """Return the name of the backend, such as "tensorflow"; loads nothing."""
    if chosen := os.environ.get(_VARIABLE):
        return chosen
    try:
        settings = json.loads(_settings().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SUPPORTED[0]
    return settings.get("backend", SUPPORTED[0]) if isinstance(settings, dict) else SUPPORTED[0]


def check() -> None:
    """Raise `UserError` for a backend that is not supported or not installed."""
    where = _VARIABLE if os.environ.get(_VARIABLE) else str(_settings())
    if name() not in SUPPORTED:
        raise UserError(f"{where}: the backend {name()!r} is not supported; use {' or '.join(SUPPORTED)}")
    if importlib.util.find_spec(name()) is None:
        raise UserError(
            f"{where}: {name()} is not installed; install self_supervised_3d_tasks[{name()}], or use {SUPPORTED[0]}"
        )


def make_deterministic() -> None:
    """Let JAX choose deterministic kernels; it asks once, when it starts to compute."""
    if name() == "jax":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()


def _settings() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
