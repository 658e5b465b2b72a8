"""Less memory for more work: the maps inside an encoder are computed again for the gradients instead of being kept."""

from __future__ import annotations

import itertools
from typing import Any

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.models.encoders import PYRAMID_PREFIX
from self_supervised_3d_tasks.shapes import Layer, Model, Tensor


def rematerialize(model: Model, encoder: Model) -> None:
    """Let passes of training keep only few of an encoder's maps.

    Kept are the maps of the pyramid and, where one map is all that goes on (not inside a residual block), the input of
    each convolution. What lies between, such as the parts of a normalization, is dropped after the pass forward and
    computed once more on the way back. Neither outputs nor gradients change: dropout draws the same again, and running
    statistics move once. What lies behind the encoder keeps its maps. Saved files do not change either: what is
    replaced is how this one model runs.

    Args:
        model: The encoder, or a functional model that was laid out from its layers; changed in place.
        encoder: A functional model with one input and one output.
    """
    # Not a class of our own, without which a saved file could not be read.
    model.call = _Parts(model, encoder)


class _Parts:
    """Runs a model in parts: those of its encoder, and the rest.

    It is no layer, or Keras would find every weight twice.
    """

    def __init__(self, model: Model, encoder: Model) -> None:
        self._whole = model.call
        cuts = _cuts(encoder)
        outputs = [layer.output for layer in cuts]
        self._parts = [keras.Model(before, after) for before, after in itertools.pairwise([encoder.input, *outputs])]
        self._is_read = [layer.name.startswith(PYRAMID_PREFIX) or layer is cuts[-1] for layer in cuts]
        read = list(itertools.compress(outputs, self._is_read))
        self._rest = None if model is encoder else keras.Model(read, model.output)

    def __call__(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return self._whole(inputs, training=training, mask=mask)
        (x,) = keras.tree.flatten(inputs)
        maps = []
        for part in self._parts:
            x = _recomputed(part, x)
            maps.append(x)
        return x if self._rest is None else self._rest(list(itertools.compress(maps, self._is_read)), training=True)


def _cuts(encoder: Model) -> list[Layer]:
    """Return the layers whose maps are kept, from the first to the encoder's last."""
    layers = [layer for layer in encoder.layers if not isinstance(layer, keras.layers.InputLayer)]
    readers = {id(map_): number for number, layer in enumerate(layers) for map_ in keras.tree.flatten(layer.input)}
    cuts, read_until, convolved = [], readers[id(encoder.input)], False
    for number, (layer, follower) in enumerate(zip(layers, [*layers[1:], None], strict=True)):
        alone = read_until <= number  # of the maps before this one, none is read behind it
        read_until = max(read_until, readers.get(id(layer.output), 0))
        convolved |= hasattr(layer, "kernel_size")
        is_wanted = layer.name.startswith(PYRAMID_PREFIX) or (convolved and hasattr(follower, "kernel_size"))
        if follower is None or (alone and is_wanted):
            cuts.append(layer)
            convolved = False
    return cuts


def _recomputed(part: Model, x: Tensor) -> Tensor:
    """Return ``part(x, training=True)``, of which only ``x`` is kept for the gradients."""
    state = part.non_trainable_variables
    # As they are now: a variable that was handed on would have moved when it is read on the way back.
    before, weights = ([keras.ops.copy(variable) for variable in group] for group in (state, part.trainable_variables))

    # Without side effects, since it runs twice: seeds and statistics go in and come out.
    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        y, after = part.stateless_call(list(weights), before, x, training=True)
        return (y, *after)

    y, *after = keras.remat(run)(x, *weights)
    for variable, value in zip(state, after, strict=True):
        variable.assign(value)
    return y
