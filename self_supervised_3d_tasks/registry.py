"""Names in experiment files are module names: ``"rotation"`` is ``algorithms/rotation.py``.

There is no list to edit. A new file in ``algorithms/``, ``models/encoders/`` or ``models/decoders/`` is known at once,
and its signature declares the JSON keys that it takes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from self_supervised_3d_tasks.errors import UserError, nearest

_PACKAGES = {
    "algorithm": "self_supervised_3d_tasks.algorithms",
    "encoder": "self_supervised_3d_tasks.models.encoders",
    "decoder": "self_supervised_3d_tasks.models.decoders",
}
# The predecessor's spellings of names that are modules here.
ALIASES = {
    "algorithm": {"rpl": "relative_patch_location"},
    "encoder": {},
    "decoder": {"unet_3d_upconv": "unet", "unet_2d_upconv": "unet"},
}
_BROKEN = {
    "unet_3d_upconv_patches": "it could not be built in the predecessor either; use 'unet'",
    "none": "a downstream task needs a prediction network; use 'unet'",
}


def known(kind: str) -> list[str]:
    """Return the sorted module names of a kind: ``"algorithm"``, ``"encoder"`` or ``"decoder"``."""
    package = importlib.import_module(_PACKAGES[kind])
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base")


def canonical(kind: str, name: str, key: str) -> str:
    """Return the module name behind ``name``.

    Args:
        kind: ``"algorithm"``, ``"encoder"`` or ``"decoder"``.
        name: A module name or one of the predecessor's spellings.
        key: The JSON key that held the name, for the message.

    Raises:
        UserError: No such module.
    """
    resolved = ALIASES[kind].get(name, name)
    names = known(kind)
    if resolved in names:
        return resolved
    reason = _BROKEN.get(name) if kind == "decoder" else None
    hint = reason or f"known names: {', '.join(names)}.{nearest(name, [*names, *ALIASES[kind]])}"
    raise UserError(f"{key}: no {kind} is called {name!r}; {hint}")


def algorithm(name: str) -> type:
    """Return the one ``Algorithm`` subclass that ``algorithms/<name>.py`` defines."""
    module = _module("algorithm", name)
    base = importlib.import_module(_PACKAGES["algorithm"] + ".base").Algorithm
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one Algorithm subclass, found {len(classes)}")
    return classes[0]


def encoder(name: str) -> Callable:
    """Return the builder in ``models/encoders/<name>.py``: the function of the same name."""
    return getattr(_module("encoder", name), name)


def encoder_check(name: str) -> Callable:
    """Return ``check_input_shape`` of ``models/encoders/<name>.py``, which needs neither Keras nor TensorFlow."""
    return _module("encoder", name).check_input_shape


def decoder(name: str) -> Callable:
    """Return the builder in ``models/decoders/<name>.py``: the function of the same name."""
    return getattr(_module("decoder", name), name)


def layouts() -> Mapping[str, Any]:
    """Return the folder layouts by ``dataset_name``."""
    return importlib.import_module("self_supervised_3d_tasks.data.layouts").LAYOUTS


def options(consumer: Callable) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a class or function: the JSON keys that it takes.

    ``seed`` and ``num_classes`` are left out because the experiment owns them.
    """
    parameters = inspect.signature(consumer, eval_str=True).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("seed", "num_classes")
    }


def _module(kind: str, name: str):
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}")
