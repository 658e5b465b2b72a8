"""Averages of the weights over the updates (EMA): trained are the weights, validated and exported are their averages.

Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging". Between two epochs, and so in every
checkpoint, the model has the averages, and the optimizer keeps the weights in their place. Whatever looks at the model
after an epoch, or loads the best one, meets the averages; a training that is resumed goes on with the weights.
"""

from __future__ import annotations

from typing import Any

from absl import logging

from self_supervised_3d_tasks.lazy import keras
from self_supervised_3d_tasks.training import batch_statistics


def averaging_callbacks(model: keras.Model) -> list[keras.callbacks.Callback]:
    """Return the callback that exchanges weights and averages, or none where the optimizer has no averages.

    It stands before the callbacks that look at the model after an epoch, which has a validation.

    Args:
        model: Compiled with an optimizer of `optimizers.make_optimizer`.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 scales the loss around ours
    if not optimizer.use_ema:
        return []
    if not model.optimizer.built:  # else it would be in the first step, behind the first exchange
        model.optimizer.build(model.trainable_variables)
    if batch_statistics.normalizations(model):
        logging.warning(
            "ema_momentum: the running statistics of batch normalizations are those of the weights, not of their "
            'averages; use "normalization": "group", or validate with care'
        )

    def swap(*_: Any) -> None:
        optimizer.swap_averages()

    return [keras.callbacks.LambdaCallback(on_epoch_begin=swap, on_test_begin=swap)]
