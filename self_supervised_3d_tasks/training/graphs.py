"""The graphs that TensorFlow traces, and how a training leaves none of them behind."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.lazy import keras

ops = lazy.load("tensorflow.python.framework.ops")

# The prefix of the names under which TensorFlow keeps gradients for as long as the process lives, and with each the
# graph it is part of: Keras' optimizers make one per traced training step, 25 MB of a small network.
_KEPT = "CustomGradient-"


@contextlib.contextmanager
def own_graphs() -> Iterator[None]:
    """Free what was traced in a block when it ends, so that a thousand trainings take no more memory than one.

    As a decorator it does so when the variables of the function are gone, and with them its models.
    """
    _clear_session()
    # Without a public name; an empty one if TensorFlow should rename it.
    registry = getattr(ops.gradient_registry, "_registry", {})
    before = set(registry)
    try:
        yield
    finally:
        for name in set(registry) - before:
            if name.startswith(_KEPT):
                del registry[name]
        _clear_session()
        gc.collect()  # graphs refer to themselves


def leave_uncompiled(model: keras.Model) -> None:
    """Keep a model of which few passes are taken from XLA, which TensorFlow would choose and take longer to compile.

    JAX has no other way; it would compile operation by operation.
    """
    if keras.config.backend() == "tensorflow":
        model.jit_compile = False


def _clear_session() -> None:
    """Forget names and graphs; Keras would forget with them in which precision to build layers."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)  # `own_graphs` collects, once
    keras.config.set_dtype_policy(policy)
