"""Devices of one machine or of several under JAX."""

from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.training.distribution.base import Distribution


def start() -> Distribution:
    """Refuse the kind, which is not there yet."""
    if keras.config.backend() != "jax":
        raise UserError(
            f'distribution: "data_parallel" needs JAX, but the backend of Keras is {keras.config.backend()}; set '
            'KERAS_BACKEND=jax in the environment, or use "mirrored"'
        )
    raise UserError('distribution: "data_parallel" is not available; use "none"')
