"""Adam in one operation per variable.

Keras's takes a dozen, each of which goes through the memory of all weights once more and is laid out for every variable
before the first step.
"""

from __future__ import annotations

from typing import Any

from self_supervised_3d_tasks.lazy import keras, tf


def adam() -> type:
    """Return Keras's class, on TensorFlow with its updates in TensorFlow's own operation for them.

    It is the same formula; 1 - β is rounded to float32 before it is used, which moves an update by 1e-5 of its size.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.optimizers.Adam

    class FusedAdam(keras.optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # Of several devices each has copies of its own, which Keras's step finds.
            if self.amsgrad or not isinstance(gradient, tf.Tensor) or tf.distribute.has_strategy():
                super().update_step(gradient, variable, learning_rate)
                return
            index = self._get_variable_index(variable)
            variable = variable.value if isinstance(variable, keras.Variable) else variable
            dtype = variable.dtype
            step = keras.ops.cast(self.iterations + 1, dtype)  # iterations of an accumulation are a tensor
            betas = [tf.constant(beta, dtype) for beta in (self.beta_1, self.beta_2)]
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=tf.pow(betas[0], step),
                beta2_power=tf.pow(betas[1], step),
                lr=tf.cast(learning_rate, dtype),
                beta1=betas[0],
                beta2=betas[1],
                epsilon=tf.constant(self.epsilon, dtype),
                grad=tf.cast(gradient, dtype),
            )

    return FusedAdam
