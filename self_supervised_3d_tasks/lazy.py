"""Libraries that are imported when they are first used, so that a command answers before TensorFlow has loaded.

`importlib.util.LazyLoader`, and lazy_loader which is built on it, put their stand-in into ``sys.modules``. TensorFlow
and Keras import each other, and such a stand-in for Keras, met by TensorFlow half-way, stays half-initialised for good.
The stand-ins here are known to nobody but the modules that ask for them.

TensorFlow reads the data whatever the backend is. Where another one computes, TensorFlow leaves the GPUs to it: it
would take all of their memory.
"""

import contextlib
import importlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from self_supervised_3d_tasks import backend

_LOADING = threading.RLock()
# What Keras, which TensorFlow loads, and TensorFlow load if it is there, for a part of them that no command uses.
_OF_KERAS = ("IPython", "matplotlib.pyplot", "pandas", "sklearn")
_FOR_UNUSED_PARTS = {"tensorflow": ("jax", *_OF_KERAS), "keras": _OF_KERAS}
_sparing = threading.Event()
# What TensorFlow's C++ says while it is loaded: about CPU instructions, oneDNN and CUDA.
_OF_LOADING = re.compile(rb"[IWE]\d{4} \d\d:|WARNING: All log messages before absl::Init|To enable the following instr")


class LazyModule:
    """Stands in for a module and imports it at the first access to an attribute.

    Args:
        name: Full name of the module.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        is_first = vars(self).keys() == {"__name__"}
        if is_first and self.__name__ == "keras":
            backend.check()
        with _quiet(self.__name__):
            module = _imported(self.__name__)
            if is_first and self.__name__ == "tensorflow" and backend.name() != "tensorflow":
                module.config.set_visible_devices([], "GPU")
            value = getattr(module, attribute)
        setattr(self, attribute, value)  # from now on found without coming here
        return value


def load(name: str) -> Any:
    """Return a stand-in for the module ``name``, which is imported at its first use."""
    return LazyModule(name)


def spare_unused_parts() -> None:
    """Let TensorFlow and Keras load as if what only unused parts of them need were not installed.

    For a process of our own: in another one, somebody may want `keras.wrappers`, which would then miss scikit-learn.
    """
    _sparing.set()


def _imported(name: str) -> ModuleType:
    if not _sparing.is_set() or name in sys.modules or name not in _FOR_UNUSED_PARTS:
        return importlib.import_module(name)
    if name == "keras":  # which loads TensorFlow
        _imported("tensorflow")
    with _LOADING:
        # TensorFlow loads Keras, which computes with its backend.
        unused = [module for module in _FOR_UNUSED_PARTS[name] if module != backend.name()]
        spared = [module for module in unused if module not in sys.modules]
        sys.modules.update(dict.fromkeys(spared))  # None: it cannot be imported
        try:
            return importlib.import_module(name)
        finally:
            for module in spared:
                sys.modules.pop(module, None)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep from stderr what is said while a module is loaded, where ``TF_CPP_MIN_LOG_LEVEL`` asks for errors alone.

    TensorFlow itself heeds it only once it is loaded. Everything else that was written meanwhile follows in the end.
    """
    if name in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") not in ("2", "3"):
        yield
        return
    in_memory = hasattr(os, "memfd_create")
    with _LOADING, open(os.memfd_create(name), "w+b") if in_memory else tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            os.write(2, b"".join(line for line in kept if not _OF_LOADING.match(line)))


if TYPE_CHECKING:
    import keras
    import tensorflow as tf
else:
    keras, tf = load("keras"), load("tensorflow")
