"""Small networks of the pretext tasks, which find within seconds what large ones find in hours.

They have few filters, a small head and no dropout, and see volumes that are never twice the same.
"""

from collections.abc import Callable

import numpy as np

from self_supervised_3d_tasks.experiment import registry
from self_supervised_3d_tasks.lazy import keras, tf
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.training import optimizers
from tests.test_conformance import traced

SHAPES = {2: (48, 48, 1), 3: (24, 24, 24, 1)}
BATCHES = 32  # that are scored
SMALL = {"code_size": 32, "context_units": 32, "head_units": (64,), "dropout_rate": 0.0}


def small_task(name, rank, **options):
    """Return a task with a small head; ``options`` that it does not have are left out."""
    task = registry.algorithm(name)
    keys = SMALL | options
    return task(SHAPES[rank], **{key: keys[key] for key in keys.keys() & registry.options(task)})


# All that have an accuracy with a chance level; the others restore images or compare whole scans.
GUESSING = [name for name in registry.known("algorithm") if small_task(name, 3).chance(2)]


def examples(task, images, seed):
    """Return a dataset of examples of ``images``, a batch of volumes, each under a seed of its own."""
    seeds = np.random.default_rng([seed, 1]).integers(0, 2**31, (len(images), 2), dtype=np.int32)
    return tf.data.Dataset.from_tensor_slices((images, seeds)).map(traced(task))


class Learner:
    """A small network of a task, which can begin anew on other volumes: building and tracing it takes longest."""

    def __init__(self, task):
        filters = {2: 8, 3: 4}[task.rank]
        encoder = unet(task.encoder_shape, enc_filters=filters, num_layers=2, pooling="none")
        self.task, self.model = task, task.make_model(encoder, seed=0)
        self.model.compile(optimizers.make_optimizer(3e-3), task.loss)
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.weights, *self.model.optimizer.variables]
        self.first = [keras.ops.copy(variable.value) for variable in self.variables]
        self.metrics = {name: metric for metric in task.metrics() if (name := getattr(metric, "name", ""))}

    def learned(self, volumes: Callable, *, batch: int, steps: int):
        """Train on fresh volumes; return by metric its mean over fresh batches and the standard error.

        Args:
            volumes: ``(number, seed) -> (number, *spatial, channels)``.
            batch: Scans per step.
            steps: Number of steps.
        """
        task, model = self.task, self.model
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)
        model.fit(examples(task, volumes(batch * steps, 1), 1).batch(batch), shuffle=False, verbose=0)
        chances = task.chance(batch)
        found = {name: [] for name in chances}
        answers = dict.fromkeys(found, 0.0)
        for inputs, targets in examples(task, volumes(batch * BATCHES, 2), 2).batch(batch):
            outputs = model.predict_on_batch(inputs)
            for name in found:
                metric = self.metrics[name]
                metric.reset_state()
                metric.update_state(targets, outputs)
                if float(metric.count) > 0:  # no scan counts towards the order of a puzzle in a ball
                    found[name].append(float(metric.result()))
                    answers[name] += float(metric.count)
        values = {name: np.array(values) for name, values in found.items() if values}
        errors = {name: v.std(ddof=1) / np.sqrt(len(v)) for name, v in values.items()}
        # A few batches can be alike by chance; no mean is surer than that of so many independent guesses.
        guesses = {name: np.sqrt(chances[name] * (1 - chances[name]) / answers[name]) for name in values}
        return {name: (v.mean(), max(errors[name], guesses[name])) for name, v in values.items()}
