"""The two networks that are analysed: what the encoder sees → a code, and → a restored image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from self_supervised_3d_tasks import inference
from self_supervised_3d_tasks.lazy import keras

Network = Callable[[np.ndarray], np.ndarray]


def coder(restorer: keras.Model, batch_size: int) -> Network:
    """Return the function images ``(n, *spatial, channels)`` to codes ``(n, size)``, float32.

    The code is the encoder's last map, averaged over space (Feng et al. 2020, Section 3.3).

    Args:
        restorer: See `RestoringAlgorithm.restorer`; later changes of its weights show.
        batch_size: Images per forward pass.
    """
    encoder = restorer.get_layer("encoder")
    last = keras.ops.cast(encoder.output, "float32")
    return _network(encoder.inputs, keras.ops.mean(last, axis=tuple(range(1, len(last.shape) - 1))), batch_size)


def restorer_of(restorer: keras.Model, batch_size: int) -> Network:
    """Return the function images ``(n, *spatial, channels)`` to restored images of their size, float32.

    Args:
        restorer: See `RestoringAlgorithm.restorer`; later changes of its weights show.
        batch_size: Images per forward pass.
    """
    return _network(restorer.inputs, keras.ops.cast(restorer.output, "float32"), batch_size)


def _network(inputs: list, output: keras.KerasTensor, batch_size: int) -> Network:
    model = keras.Model(inputs, output)
    # A model that is not compiled would choose XLA, which takes far longer to compile than these few passes take.
    model.jit_compile = False

    def run(images: np.ndarray) -> np.ndarray:
        return np.concatenate(list(inference.predict_in_batches(model.predict_on_batch, images, batch_size)))

    return run
