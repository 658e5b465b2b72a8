"""Names in experiment files are mostly module names: ``"rotation"`` is ``algorithms/rotation.py``.

A new task in ``algorithms/``, or a new network in ``models/encoders/`` or ``models/decoders/``, is known at once, and
its signature declares the JSON keys that it takes; only modules that hold no task of their own are listed below. Two
kinds of names are not modules: those of an encoder family are the keys of its ``ARCHITECTURES``, and those of heads the
keys of ``HEADS`` in ``models/heads.py``.
"""

import contextlib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from types import ModuleType
from typing import get_type_hints

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.files.paths import shown
from self_supervised_3d_tasks.models import heads

_PACKAGES = {
    "algorithm": "self_supervised_3d_tasks.algorithms",
    "encoder": "self_supervised_3d_tasks.models.encoders",
    "decoder": "self_supervised_3d_tasks.models.decoders",
}
# Modules of `algorithms` that hold no task, but what tasks derive from.
_CONTRACTS = {"base", "classifying", "kinds", "patch_tasks", "restoring"}
# The predecessor's spellings of names that are modules here; capitals never matter.
_DECODERS = {"unet_3d_upconv": "unet", "unet_2d_upconv": "unet"}
ALIASES = {"algorithm": {"rpl": "relative_patch_location"}, "encoder": {}, "decoder": _DECODERS, "head": {}}
_BROKEN = {
    "unet_3d_upconv_patches": "it could not be built in the predecessor either; use 'unet'",
    "none": "a downstream task needs a prediction network; use 'unet', or a head for classes of whole scans",
}


def known(kind: str) -> list[str]:
    """Return the sorted names of a kind: ``"algorithm"``, ``"encoder"``, ``"decoder"`` or ``"head"``."""
    if kind == "head":
        return sorted(heads.HEADS)
    return sorted(_encoders() if kind == "encoder" else _modules(kind))


def canonical(kind: str, name: str, key: str) -> str:
    """Return the known name behind ``name``.

    Args:
        kind: ``"algorithm"``, ``"encoder"``, ``"decoder"`` or ``"head"``.
        name: A known name or one of the predecessor's spellings, in capitals or not.
        key: The JSON key that held the name, for the message.

    Raises:
        UserError: No such name.
    """
    names, resolved = known(kind), _resolve(kind, name)
    if resolved in names:
        return resolved
    hint = f"known names: {', '.join(names)}.{nearest(name.lower(), [*names, *ALIASES[kind]])}"
    raise UserError(f"{key}: no {kind} is called {shown(name)!r}; {hint}")


def prediction(name: str) -> tuple[str, str]:
    """Return the kind, ``"head"`` or ``"decoder"``, and the known name of a ``prediction_architecture``.

    Raises:
        UserError: Neither is called so.
    """
    for kind in ("decoder", "head"):
        if _resolve(kind, name) in known(kind):
            return kind, _resolve(kind, name)
    masks, classes = known("decoder"), known("head")
    hint = _BROKEN.get(name.lower()) or (
        f"known names: {', '.join(masks)} for masks; {', '.join(classes)} for classes of whole scans."
        f"{nearest(name.lower(), [*masks, *ALIASES['decoder'], *classes])}"
    )
    raise UserError(f"prediction_architecture: no decoder or head is called {shown(name)!r}; {hint}")


def algorithm(name: str) -> type:
    """Return the one ``Algorithm`` subclass that ``algorithms/<name>.py`` defines."""
    module = _module("algorithm", name)
    base = importlib.import_module(_PACKAGES["algorithm"] + ".base").Algorithm
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    classes = [value for value in own if inspect.isclass(value) and issubclass(value, base)]
    if len(classes) != 1:
        raise TypeError(f"{module.__name__} must define exactly one Algorithm subclass, found {len(classes)}")
    return classes[0]


def encoder(name: str) -> Callable:
    """Return the builder in ``models/encoders/<name>.py``, the function of the same name, or that of a family."""
    module = _encoders()[name]
    return functools.partial(module.build, name) if hasattr(module, "ARCHITECTURES") else getattr(module, name)


def encoder_check(name: str) -> Callable:
    """Return the encoder's ``check_input_shape``, which needs neither Keras nor TensorFlow."""
    module = _encoders()[name]
    check = module.check_input_shape
    return functools.partial(check, name) if hasattr(module, "ARCHITECTURES") else check


def decoder(name: str) -> Callable:
    """Return the builder in ``models/decoders/<name>.py``: the function of the same name."""
    return getattr(_module("decoder", name), name)


def head(name: str) -> Callable:
    """Return the head called ``name`` in ``models/heads.py``."""
    return heads.HEADS[canonical("head", name, "prediction_architecture")]


def prediction_network(name: str) -> Callable:
    """Return the builder of the decoder, or the head, behind a ``prediction_architecture``."""
    kind, name = prediction(name)
    return head(name) if kind == "head" else decoder(name)


def options(consumer: Callable) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a class or function: the JSON keys that it takes.

    ``seed``, ``num_classes`` and ``name`` are left out because the experiment owns them.
    """
    is_class = inspect.isclass(consumer)
    parameters = inspect.signature(consumer, eval_str=not is_class).parameters.items()
    # What a class inherits is written in the names of the file that it comes from.
    types = get_type_hints(consumer, include_extras=True) if is_class else {}
    with contextlib.suppress(NameError):  # one that a dataclass was given, whose inherited fields come from other files
        types |= get_type_hints(consumer.__init__, include_extras=True) if is_class else {}
    own = {name: parameter for name, parameter in parameters if name not in ("seed", "num_classes", "name")}
    own = {name: parameter for name, parameter in own.items() if parameter.kind is parameter.KEYWORD_ONLY}
    return {name: value.replace(annotation=types.get(name, value.annotation)) for name, value in own.items()}


def descriptions(consumer: Callable) -> dict[str, str]:
    """Return what the docstring of a class or function says of its arguments, in the section ``Args:``."""
    text = inspect.getdoc(getattr(consumer, "func", consumer)) or ""
    section = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(words.replace("``", "").split()) for name, words in found}


def _resolve(kind: str, name: str) -> str:
    return ALIASES[kind].get(name.lower(), name.lower())


def _modules(kind: str) -> list[str]:
    package = importlib.import_module(_PACKAGES[kind])
    return [module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in _CONTRACTS]


def _encoders() -> dict[str, ModuleType]:
    """Return for each encoder's name the module that it is in."""
    modules = {name: _module("encoder", name) for name in _modules("encoder")}
    return {name: module for own, module in modules.items() for name in getattr(module, "ARCHITECTURES", [own])}


def _module(kind: str, name: str) -> ModuleType:
    return importlib.import_module(f"{_PACKAGES[kind]}.{name}")
