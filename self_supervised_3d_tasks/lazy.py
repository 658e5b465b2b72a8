"""Libraries that are imported when they are first used, so that a command answers before TensorFlow has loaded.

`importlib.util.LazyLoader`, and lazy_loader which is built on it, put their stand-in into ``sys.modules``. TensorFlow
and Keras import each other, and such a stand-in for Keras, met by TensorFlow half-way, stays half-initialised for good.
The stand-ins here are known to nobody but the modules that ask for them.
"""

import importlib
from typing import TYPE_CHECKING, Any


class LazyModule:
    """Stands in for a module and imports it at the first access to an attribute.

    Args:
        name: Full name of the module.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)  # from now on found without coming here
        return value


def load(name: str) -> Any:
    """Return a stand-in for the module ``name``, which is imported at its first use."""
    return LazyModule(name)


if TYPE_CHECKING:
    import keras
    import tensorflow as tf
else:
    keras, tf = load("keras"), load("tensorflow")
