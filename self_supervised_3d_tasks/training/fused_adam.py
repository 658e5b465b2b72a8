"""Adam in one operation per variable.

Keras's takes a dozen, each of which goes through the memory of all weights once more and is laid out for every variable
before the first step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from self_supervised_3d_tasks.lazy import keras, tf


def adam() -> type:
    """Return Keras's class, on TensorFlow with its updates in TensorFlow's own operation for them.

    It is the same formula; 1 - β is rounded to float32 before it is used, which moves an update by 1e-5 of its size.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.optimizers.Adam

    class FusedAdam(keras.optimizers.Adam):
        def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
            # Of several devices each has copies of its own, which Keras's step finds.
            if not (self.amsgrad or tf.distribute.has_strategy()):
                step = tf.cast(self.iterations + 1, tf.float32)  # iterations of an accumulation are a tensor
                betas = [tf.constant(beta, tf.float32) for beta in (self.beta_1, self.beta_2)]
                powers = [tf.pow(beta, step) for beta in betas]
                epsilon = tf.constant(self.epsilon, tf.float32)
                learning_rate = _OfThisStep(*powers, tf.cast(learning_rate, tf.float32), *betas, epsilon)
            super()._backend_update_step(grads, trainable_variables, learning_rate)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            variable = variable.value if isinstance(variable, keras.Variable) else variable
            known = learning_rate if isinstance(learning_rate, _OfThisStep) else None
            dense = isinstance(gradient, tf.Tensor) and variable.dtype == gradient.dtype == tf.float32
            if known is None or not dense:
                super().update_step(gradient, variable, learning_rate if known is None else known.lr)
                return
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                **known._asdict(),
                grad=gradient,
            )

    return FusedAdam


class _OfThisStep(NamedTuple):
    """What the updates of all variables in a step share, as `ResourceApplyAdam` names it: scalar float32 tensors."""

    beta1_power: tf.Tensor
    beta2_power: tf.Tensor
    lr: tf.Tensor
    beta1: tf.Tensor
    beta2: tf.Tensor
    epsilon: tf.Tensor
