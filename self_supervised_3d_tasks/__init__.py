"""Self-supervised pretraining on 3D and 2D medical scans, and what it brings with few labels.

Importing this package loads neither TensorFlow nor Keras; a name of `__all__` is imported when it is first used.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "Algorithm": "algorithms.base",
    "UserError": "errors",
    "load_encoder": "transfer.encoder",
    "load_experiment": "experiment.load",
    "make_encoder": "experiment.build",
    "predict_case": "inference",
    "pyramid_outputs": "models.encoders",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
