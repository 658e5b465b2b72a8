"""Several devices for one training: a file per kind, by the name that the key ``distribution`` has for it."""

from typing import Literal

from self_supervised_3d_tasks import backend
from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.training.distribution import data_parallel, mirrored
from self_supervised_3d_tasks.training.distribution.base import Distribution

DistributionName = Literal["none", "mirrored", "data_parallel"]
_KINDS = {"none": Distribution, "mirrored": mirrored.start, "data_parallel": data_parallel.start}


def start(name: DistributionName) -> Distribution:
    """Return what a training asks for the scope of its models; to be called before any of them is built.

    Args:
        name: "none": one device; "mirrored": all devices of this machine, by TensorFlow; "data_parallel": by JAX.

    Raises:
        UserError: The backend of Keras cannot do it.
    """
    if backend.name() == "jax":
        keras.distribution.set_distribution(None)  # that of an earlier training of this process
    return _KINDS[name]()
