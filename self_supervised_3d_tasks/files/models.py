"""Models as ``.keras`` files: written atomically, checked when read, no code executed from them."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from self_supervised_3d_tasks.errors import UserError, describe
from self_supervised_3d_tasks.files.atomic import atomic_write_bytes
from self_supervised_3d_tasks.files.checksums import checksum_path, verify_checksum, write_checksum
from self_supervised_3d_tasks.files.paths import as_path, check_file, shown
from self_supervised_3d_tasks.lazy import keras

_CONFIG = "config.json"
_MEMBERS = (_CONFIG, "metadata.json", "model.weights.h5")
# Python functions, models of other libraries, and tables that Keras reads from any file that the archive names.
_WITH_CODE = frozenset(
    "Lambda __lambda__ TFSMLayer TorchModuleWrapper JaxLayer FlaxLayer StringLookup IntegerLookup TextVectorization"
    " IndexLookup FeatureSpace".split()
)


def save_model(model: keras.Model, path: Path | str) -> None:
    """Write a ``.keras`` file with a ``.sha256`` file beside it: what predicts, without optimizer and loss.

    Adam's moments would make the file three times as large, and a class or loss of our own would be needed to
    read it.

    Args:
        model: Functional model or encoder, compiled or not; it stays as it is.
        path: File name that ends in ``.keras``; an older file is replaced.
    """
    path = Path(path)
    bare = keras.Model(model.input, model.output, name=model.name)  # the same layers and weights, never compiled
    # In this order a process killed between two lines leaves a model without a checksum, never one with a
    # wrong checksum.
    checksum_path(path).unlink(missing_ok=True)
    atomic_write_bytes(path, in_memory(bare.save, path.name))
    write_checksum(path)


def in_memory(save: Callable[[io.BytesIO], object], name: str) -> memoryview:
    """Return what a function of Keras would write into a file.

    HDF5 must not write to the disk itself: on a full one it ends the process.

    Args:
        save: ``model.save`` or ``model.save_weights``.
        name: The name of the file, by which Keras chooses the format.
    """
    file = _NamedBytes(name)
    save(file)
    return file.getbuffer()


class _NamedBytes(io.BytesIO):
    """A file in memory where Keras, which looks at the text of a path, expects a path."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __str__(self) -> str:
        return self._name


def load_model(path: Path | str) -> keras.Model:
    """Read a model that `save_model` or plain Keras wrote; it is not compiled.

    Only layers of Keras itself are made, and of these none that carries code or opens files, so a file from a stranger
    cannot run anything.

    Args:
        path: ``.keras`` file. Its ``.sha256`` file is checked where there is one.

    Raises:
        UserError: The file is missing, damaged, of another format, or needs code that the package does not
            have.
    """
    path = check_model_file(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # A foreign archive can fail in any way inside Keras: whatever it is, the user needs the name of the file.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: expected a model of this package or of plain Keras 3 layers, but Keras cannot load it: {reason}"
        ) from error


def check_model_file(path: Path | str) -> Path:
    """Check that a file is an undamaged ``.keras`` archive, without loading Keras.

    Returns:
        The path with ``~`` expanded.

    Raises:
        UserError: It is not; the message says what it is instead.
    """
    path = as_path(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        raise UserError(
            f"{path}: expected a .keras file; Keras 2 weight files of the predecessor cannot be read: "
            "pretrain again with train.py"
        )
    if path.suffix != ".keras":
        raise UserError(f"{path}: expected a .keras file, received {path.suffix or 'no file name extension'}")
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; give a run folder, or a .keras file")
    check_file(path)
    has_checksum = checksum_path(path).exists()
    if has_checksum:
        verify_checksum(path)
    _check_content(path, _read(path, is_checked=has_checksum))
    return path


def _read(path: Path, *, is_checked: bool) -> tuple[list[str], bytes]:
    """Return the names of the files in an archive, and its description of the model."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if damaged := None if is_checked else archive.testzip():
                raise UserError(f"{path}: damaged ({damaged} does not match its checksum); copy or make it again")
            return names, archive.read(_CONFIG) if _CONFIG in names else b""
    except PermissionError as error:
        raise UserError(f"{path}: {describe(OSError(error.errno, error.strerror))}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: truncated, or no .keras file at all ({error}); make it again") from error


def _check_content(path: Path, content: tuple[list[str], bytes]) -> None:
    names, config = content
    if _CONFIG not in names:
        raise UserError(f"{path}: an archive, but not a Keras model: it has no {_CONFIG}")
    if foreign := sorted({name for name in names if name not in _MEMBERS or names.count(name) > 1}):
        raise UserError(f"{path}: holds {shown(foreign[0])!r}; expected only {', '.join(_MEMBERS)}, once each")
    if refused := _refused(config):
        raise UserError(f"{path}: {refused}; expected layers of Keras that hold weights and settings only")


def _refused(config: bytes) -> str:
    """Return what in the description of a model could run code or open files, or ``""``."""
    try:
        left = [json.loads(config)]
    except (ValueError, RecursionError) as error:
        return f"{_CONFIG} cannot be read ({type(error).__name__})"
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if isinstance(value, dict):
            left += value.values()
            name, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
            if name in _WITH_CODE:
                return f"has {name}, which can run code or open files"
            # Whatever another package registers is code of that package.
            is_of_keras = str(module or "keras").split(".")[0] in ("keras", "builtins") and ">" not in str(registered)
            if name is not None and not is_of_keras:
                return f"refers to {shown(f'{module}.{name} ({registered})')}, which is code outside of Keras"
    return ""
