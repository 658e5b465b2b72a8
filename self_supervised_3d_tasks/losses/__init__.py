"""Losses: from logits, in float32, one value per sample.

Keras averages the values over the batch itself; a loss that returned a scalar would silently double the gradients under
a distribution strategy of two devices. `LOSSES` has those that finetuning finds by their names.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

from self_supervised_3d_tasks.errors import UserError, nearest
from self_supervised_3d_tasks.losses import classification, segmentation
from self_supervised_3d_tasks.shapes import Tensor

LOSSES = {
    loss.__name__: loss
    for loss in (
        segmentation.weighted_dice_loss,
        segmentation.weighted_sum_loss,
        segmentation.jaccard_distance,
        classification.weighted_categorical_crossentropy,
        classification.categorical_crossentropy,
        classification.binary_crossentropy,
        segmentation.dice_crossentropy,
    )
}


def get(
    name: str, *, class_weights: Sequence[float] | None = None, choices: Sequence[str] = tuple(LOSSES)
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss called ``name`` as a function ``(y_true, y_pred) -> (batch,)``; loads no Keras.

    Args:
        name: A key of `LOSSES`.
        class_weights: One positive weight per class, background included, for the losses that take them.
        choices: Names of the losses that the caller could use instead; a message recommends no other.

    Raises:
        UserError: The name is unknown, or the loss takes no weights.
    """
    if name not in LOSSES:
        known = ", ".join(LOSSES)
        raise UserError(f"loss: no loss is called {name!r}; known: {known}.{nearest(name, LOSSES)}")
    loss = LOSSES[name]
    if class_weights is None:
        return loss
    takers = [key for key, value in LOSSES.items() if "class_weights" in inspect.signature(value).parameters]
    if name not in takers:
        usable = [key for key in takers if key in choices]
        alternative = f", or use {' or '.join(usable)}" if usable else ""
        raise UserError(f"class_weights: {name} takes none; remove them{alternative}")
    weighted = functools.partial(loss, class_weights=tuple(class_weights))
    return functools.update_wrapper(weighted, loss)  # Keras names a loss by its __name__
