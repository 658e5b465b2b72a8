"""The 2D encoders of keras.applications, without their tops, under the predecessor's names and MobileNet."""

from __future__ import annotations

import collections
import functools
import os
import random
import re
from pathlib import Path
from typing import Any, Literal

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.models import load_model
from self_supervised_3d_tasks.files.paths import as_path, check_file
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.models.encoders.base import size_text
from self_supervised_3d_tasks.shapes import Layer, Model

FUNCTIONS = "DenseNet121 InceptionResNetV2 InceptionV3 MobileNet ResNet101 ResNet101V2 ResNet152 ResNet50 ResNet50V2"
# A family: each of these names is an encoder, like the name of a module; by name the function that builds it.
ARCHITECTURES = {function.lower(): function for function in FUNCTIONS.split()}
WEIGHT_SUFFIXES = (".keras", ".h5")


def build(
    name: str,
    input_shape: tuple[int | None, ...],
    *,
    pooling: Literal["max", "avg", "none"] = "max",
    encoder_weights: str | None = None,
    seed: int = 0,
) -> Model:
    """Build an encoder of keras.applications with weights of our own; nothing is downloaded.

    Keras's functions take no seed and leave many layers to be numbered over the whole process. Here every layer
    has a name of its own, by which weights are transferred, and draws from ``seed``; batch normalizations keep 0.9 of
    their running statistics in a step, not 0.99, see `layers.normalization`.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(rows, columns, channels)``, with any number of channels.
        pooling: Global pooling of the last map.
        encoder_weights: File of initial weights: a ``.keras`` model without top, the ``.weights.h5`` of one, or a
            ``_notop.h5`` that Keras distributes. The images stay in [0, 1], whatever the file was trained with.
        seed: Seed of the initial weights and of dropout.

    Returns:
        A model named "encoder": image ``(batch, rows, columns, channels)`` → a vector ``(batch, features)``, or
        the last map with ``pooling="none"``.

    Raises:
        UserError: ``input_shape`` is too small or not 2D, or the file does not fit.
    """
    check_input_shape(name, input_shape)
    if encoder_weights:
        check_weight_file(encoder_weights)
    template = _template(name)
    names = _stable_names(template)
    image = keras.Input(input_shape, name="image")
    copy = keras.models.clone_model(
        template,
        input_tensors=[image],
        clone_function=lambda layer: _seeded_copy(layer, name=names[layer.name], seed=seed),
    )
    (x,) = copy.outputs
    if pooling != "none":
        x = layers.global_pool(2, pooling, name="global_pool")(x)
    encoder = keras.Model(image, x, name="encoder")
    if encoder_weights:
        _load_weights(encoder, as_path(encoder_weights))
    return encoder


def check_input_shape(name: str, input_shape: tuple[int | None, ...], *, decoder: bool = False) -> None:
    """Raise if the network cannot take ``input_shape``; loads no Keras.

    Args:
        name: Key of `ARCHITECTURES`.
        input_shape: ``(rows, columns, channels)`` of what the encoder sees.
        decoder: Whether a decoder follows.

    Raises:
        UserError: The images are not 2D or too small, or a decoder follows; the message says what would work.
    """
    fault = f"is for 2D images, but the data are {len(input_shape) - 1}D" if len(input_shape) != 3 else ""
    if decoder and not fault:
        fault = "has no maps that a decoder, for masks or of a pretext task, could enlarge to the image"
    if fault:
        raise UserError(f'encoder_architecture: {name!r} {fault}; use "unet", "resnet18" or "vgg11"')
    smallest = smallest_edge(name)
    sizes = [size for size in input_shape[:-1] if size is not None]
    if min(sizes, default=smallest) < smallest:
        raise UserError(
            f"data_dim: {name!r} receives {size_text(sizes)} pixels, but each axis must be at least {smallest}; "
            "use a larger data_dim, larger patches, or another encoder_architecture"
        )


def smallest_edge(name: str) -> int:
    """Return the smallest edge of an image that a network can take, in pixels."""
    return 75 if name.startswith("inception") else 32


def check_weight_file(encoder_weights: str) -> None:
    """Raise `UserError` if the file of initial weights is not there or has another suffix; loads no Keras."""
    path = as_path(encoder_weights)
    if path.suffix not in WEIGHT_SUFFIXES:
        raise UserError(
            f"encoder_weights: expected a local file that ends in .keras, .weights.h5 or _notop.h5, received "
            f"{str(path)!r}; nothing is downloaded"
        )
    if not os.path.lexists(path):
        raise UserError(f"encoder_weights: {path}: no such file; nothing is downloaded")
    check_file(path, f"encoder_weights: {path}")


# To make the network once more, for another job or size, only takes its layers' settings.
@functools.lru_cache(maxsize=1)
def _template(name: str) -> Model:
    """Return the architecture as Keras makes it, for images of any size."""
    function = getattr(keras.applications, ARCHITECTURES[name])
    # Initializers without a seed draw one from Python's own generator, which is not ours to move.
    state = random.getstate()
    try:
        with keras.device("cpu:0"):  # its weights are never used
            return function(include_top=False, weights=None, input_tensor=keras.Input((None, None, 3)))
    finally:
        random.setstate(state)


def _stable_names(model: Model) -> dict[str, str]:
    """Return for each layer's name one that does not depend on what was built before.

    Keras numbers layers without a name by class and over the whole process, ``conv2d``, ``conv2d_1``, …; here
    they are numbered within the model, from 1.
    """
    counts: collections.Counter[str] = collections.Counter()
    names = {}
    for layer in model.layers:
        stem = re.sub(r"_\d+$", "", layer.name)
        if stem.replace("_", "") == type(layer).__name__.lower():
            counts[stem] += 1
            names[layer.name] = f"{stem}_{counts[stem]}"
        else:
            names[layer.name] = layer.name
    return names


def _seeded_copy(layer: Layer, *, name: str, seed: int) -> Layer:
    """Return a new layer with the settings of ``layer``, of today's precision, with a seed wherever it takes one."""
    config: dict[str, Any] = layer.get_config() | {"name": name}
    del config["dtype"]
    if isinstance(layer, keras.layers.BatchNormalization):
        config["momentum"] = layers.MOMENTUM
    if "seed" in config:
        config["seed"] = layers.layer_seed(seed, name)
    for key, value in config.items():
        options = value.get("config") if isinstance(value, dict) else None
        if options and "seed" in options:
            options["seed"] = layers.layer_seed(seed, f"{name}/{key}")
    return type(layer).from_config(config)


def _load_weights(encoder: Model, path: Path) -> None:
    """Fill every weight of ``encoder`` from a file of the same architecture and channels."""
    model = load_model(path) if path.suffix == ".keras" else None
    try:
        if model:
            _copy_weights(model, encoder)
        else:
            encoder.load_weights(path)
    # A foreign file can fail in any way inside Keras: whatever it is, the user needs the name of the file.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"encoder_weights: {path} does not fit: {reason}; expected the same encoder_architecture without its "
            f"top, for {encoder.input_shape[-1]} channels (number_channels)"
        ) from error


def _copy_weights(source: Model, encoder: Model) -> None:
    """Copy all weights by the layers' stable names.

    Raises:
        ValueError: A layer is missing on either side, or its shapes differ.
    """
    names = _stable_names(source)
    stored = {names[layer.name]: layer for layer in source.layers if layer.weights}
    targets = {layer.name: layer for layer in encoder.layers if layer.weights}
    if unmatched := sorted(stored.keys() ^ targets.keys()):
        raise ValueError(f"{len(unmatched)} layers are not in both, among them {', '.join(unmatched[:3])}")
    for name, layer in targets.items():
        try:
            layer.set_weights(stored[name].get_weights())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
