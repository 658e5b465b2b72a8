"""Encoders: one file each, whose function of the same name builds a functional model called "encoder".

The feature maps that a decoder may use are the outputs of the layers named ``pyramid_0`` (finest),
``pyramid_1``, … An encoder marks them with an identity layer, which has no weights. A name survives saving,
so a pyramid is found in an encoder from a ``.keras`` file too. Beside its builder, an encoder's file has a
``check_input_shape`` that loads no Keras; it refuses a decoder where there is no pyramid.

A file can also hold a family: ``ARCHITECTURES``, whose keys are the names, and the two functions as ``build`` and
``check_input_shape``, each with the name before the other arguments.
"""

from __future__ import annotations

from self_supervised_3d_tasks.shapes import Model, Tensor

PYRAMID_PREFIX = "pyramid_"


def pyramid_outputs(encoder: Model) -> list[Tensor]:
    """Return the feature maps ``(batch, *spatial, channels)``, fine to coarse.

    The last one is the deepest map before any final pooling.

    Raises:
        ValueError: The model has no layer called ``pyramid_0``.
    """
    named = {layer.name: layer for layer in encoder.layers}
    outputs = []
    while layer := named.get(f"{PYRAMID_PREFIX}{len(outputs)}"):
        outputs.append(layer.output)
    if not outputs:
        raise ValueError(f"{encoder.name}: expected layers named {PYRAMID_PREFIX}0, …; found none")
    return outputs
