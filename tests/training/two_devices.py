"""Trainings on one and on two devices, compared: a process of its own, as TensorFlow lays devices out when it starts.

``python -m tests.training.two_devices CASE ...`` prints a JSON object per case, ``{case: [weights, logs, moved]}``: the
largest absolute difference of a weight, the largest one of a logged number, and how far a weight went at most. A case
is a pretext task or a key of `CASES`; followed by ": resumed" it is an epoch on two devices, one on one and one on two,
each going on where the last stopped, against three on one. A key of `CHECKS` gives two differences of values instead,
and infinity.
"""

import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from self_supervised_3d_tasks import training
from self_supervised_3d_tasks.algorithms.kinds import ScheduledAlgorithm
from self_supervised_3d_tasks.downstream import task_of
from self_supervised_3d_tasks.experiment import build
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.models import layers
from self_supervised_3d_tasks.ops import global_batch
from self_supervised_3d_tasks.training.distribution.base import Distribution
from self_supervised_3d_tasks.training.optimizers import make_optimizer
from tests.test_conformance import batches, build_algorithm, build_encoder, smooth_images

STEPS, BATCH = 5, 4
VALIDATION = 7  # scans: the last batch is smaller, and its shares differ
# Higher ones blow rounding up: codes are divided by their spread over four scans, and where rounding decides on which
# side of a kink a value lies (margins, the greatest of a pool), all later gradients are others. With lower ones the
# weights stay where they are, on any number of devices: the codes of CPC's small patches are nearly alike at first.
RATES = {"exemplar": 0.0005, "pcrlv2": 0.0005, "cpc": 0.02}
MEASURED = ("seconds", "samples_per_second", "wait_share")


def divide_the_cpu() -> None:
    """Make two devices of this machine's CPU."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


class Training:
    """One model, its data and how it is compiled.

    Args:
        make_model: Returns the same model each time.
        batches: Endless batches from a step on, and those of the validation.
        loss: As `keras.Model.compile` takes it.
        metrics: Returns fresh ones.
        callbacks: Returns those of a model.
        optimizer: Arguments of `make_optimizer`; SGD by default, which passes a difference on as large as it is.
    """

    def __init__(self, make_model, batches, loss, metrics=list, callbacks=lambda model: [], **optimizer):
        self.make_model, self.batches, self.loss, self.metrics = make_model, batches, loss, metrics
        self.callbacks = callbacks
        optimizer = {"learning_rate": 0.05, "optimizer": "sgd", "momentum": 0.9} | optimizer
        self.make_optimizer = functools.partial(make_optimizer, **optimizer)

    def run(self, *devices: int, steps: int = STEPS) -> tuple[list[np.ndarray], dict[str, float], float]:
        """Train an epoch on each of so many devices in turn, each resuming the one before.

        Returns:
            The weights, what was logged, and how far a weight went at most.
        """
        with tempfile.TemporaryDirectory() as folder:
            for epochs, number in enumerate(devices, start=1):
                distribution = training.start_distribution("mirrored") if number > 1 else Distribution()
                assert distribution.devices == number
                with distribution.scope():
                    model = self.make_model()

                def prepare(model: keras.Model, distribution: Distribution = distribution) -> None:
                    options = {"loss": self.loss, "metrics": self.metrics(), "jit_compile": False}
                    distribution.compile(model, self.make_optimizer, **options)

                history = training.fit(
                    model,
                    data=training.TrainingData(*self.batches, steps_per_epoch=steps, samples_per_step=BATCH),
                    phases=[training.Phase(epochs, prepare)],
                    folder=RunFolder.open(Path(folder)),
                    monitor=None,
                    callbacks=self.callbacks(model),
                )
                model = distribution.on_one_device(model)
                training.restore_best(model, RunFolder.open(Path(folder)))
        weights, first = weights_of(model), weights_of(self.make_model())
        moved = max(np.abs(after - before).max() for after, before in zip(weights, first, strict=True))
        return weights, {name: value for name, value in history[-1].items() if name not in MEASURED}, moved


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights if "seed" not in variable.path]


def of_task(name: str, rank: int = 2, **settings) -> Training:
    """Return the training of a pretext task, with dropout where it has some."""
    algorithm = build_algorithm(name, rank)
    images = smooth_images(8, rank, side=algorithm.input_shape[0])
    make_batch = algorithm.sampling.make_batch or (lambda inputs, targets, seed: (inputs, targets))

    def batched(dataset: tf.data.Dataset) -> tf.data.Dataset:
        made = dataset.batch(BATCH).enumerate()
        return made.map(lambda step, batch: make_batch(*batch, tf.stack([7, tf.cast(step, tf.int32)])))

    def example(index: tf.Tensor, image: tf.Tensor) -> tuple:
        others = [image[::-1]] * algorithm.sampling.companions
        return algorithm.make_example(image, tf.stack([1, tf.cast(index, tf.int32)]), *others)

    source = tf.data.Dataset.from_tensor_slices(images)

    def callbacks(model: keras.Model) -> list[keras.callbacks.Callback]:
        return algorithm.callbacks(model, 3) if isinstance(algorithm, ScheduledAlgorithm) else []

    return Training(
        lambda: algorithm.make_model(build_encoder(algorithm.encoder_shape), seed=1),
        (
            lambda first: batched(source.repeat().enumerate().skip(first * BATCH).map(example)),
            batched(source.take(VALIDATION).enumerate().map(example)),
        ),
        algorithm.loss,
        algorithm.metrics,
        callbacks,
        **({"learning_rate": RATES.get(name, 0.005)} | settings),
    )


def plain(normalization: str = "batch", dropout: float = 0.0, rows: int = 9, **optimizer) -> Training:
    """Return the training of a small network; of ``rows`` in validation, the last one is alone: a device has none."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)).astype("float32"), rng.normal(size=(24, 2)).astype("float32")

    def make_model() -> keras.Model:
        inputs = keras.Input((6,))
        features = layers.dense(8, activation="relu", seed=1, name="dense")(inputs)
        features = layers.normalization(normalization, 8, name="norm")(features)
        if dropout:
            features = layers.dropout(dropout, seed=2, name="dropout")(features)
        return keras.Model(inputs, layers.dense(2, seed=3, name="top")(features))

    data = tf.data.Dataset.from_tensor_slices((x, y))
    streams = (lambda first: data.repeat().skip(first * BATCH).batch(BATCH), data.take(rows).batch(BATCH))
    return Training(make_model, streams, squared_error, lambda: [absolute_error], **optimizer)


def of_labels(prediction_architecture: str, **keys) -> Training:
    """Return the training of a finetuning, whose loss and metrics are those of its kind of label."""
    values = {"algorithm": "rotation", "data_dim": 16, "data_is_3D": False, "dataset_name": "images"}
    values |= {"enc_filters": 4, "num_layers": 2, "epochs_initialized": 0, "data_dir_train": "scans"}
    values |= {"prediction_architecture": prediction_architecture} | keys
    values |= {} if prediction_architecture == "unet" else {"csv_file": "labels.csv"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.json"
        path.write_text(json.dumps(values))
        experiment = load_experiment("finetune", str(path), [])
    task = task_of(experiment)
    images = smooth_images(8, 2, side=16)
    masks = np.minimum(3 * images[..., 0], 2).astype("int32") if experiment.task == "segmentation" else np.arange(8) % 3
    data = tf.data.Dataset.from_tensor_slices((images, masks))
    streams = (lambda first: data.repeat().skip(first * BATCH).batch(BATCH), data.take(VALIDATION).batch(BATCH))
    return Training(
        lambda: build.make_model(experiment, seed=1)[1], streams, task.loss(), task.metrics, learning_rate=0.001
    )


def squared_error(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def absolute_error(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


CASES: dict[str, Callable[[], Training]] = {
    "batch normalization": plain,
    "dropout": lambda: plain("group", 0.5),
    "three to validate": lambda: plain("group", rows=3),
    "clipnorm": lambda: plain("group", clipnorm=0.1),
    "clipvalue": lambda: plain("group", clipvalue=0.02),
    "averages": lambda: plain("group", ema_momentum=0.9),
    "coupled decay": lambda: plain("group", weight_decay=0.1),
    "decoupled decay": lambda: plain("group", weight_decay=0.1, weight_decay_form="decoupled"),
    "adamw": lambda: plain("group", optimizer="adamw", weight_decay=0.5, weight_decay_form="decoupled"),
    "segmentation": lambda: of_labels("unet"),
    "classification": lambda: of_labels("simple_multiclass"),
    "remat": lambda: of_labels("unet", remat=True, normalization="batch"),
    "warm-up": lambda: plain("group", lr_warmup_steps=3),
}


def gathered() -> list[float]:
    """Return how far `gather` and its gradient are from what they should be, for shares of three rows and of one."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    strategy = training.start_distribution("mirrored").strategy
    shares = [rows[:3], rows[3:]]
    share = strategy.experimental_distribute_values_from_function(lambda c: shares[c.replica_id_in_sync_group])

    def step(share: tf.Tensor) -> tuple:
        factor = 1.0 + tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(share)
            whole = global_batch.gather(share)
            loss = factor * tf.reduce_sum(whole**2)
        own = global_batch.own_rows(whole, share)
        return whole, own - share, global_batch.first_row(share), tape.gradient(loss, share)

    results = [strategy.experimental_local_results(result) for result in tf.function(strategy.run)(step, (share,))]
    whole, off, first, gradient = results
    assert [int(number) for number in first] == [0, 3]
    values = [np.abs(rows - found).max() for found in whole] + [np.abs(found).max() for found in off]
    # The losses of both devices see every row: with the factors 1 and 2.
    of_gradients = [np.abs(2 * (1 + 2) * part - found).max() for part, found in zip(shares, gradient, strict=True)]
    return [float(max(values)), float(max(of_gradients)), float("inf")]


def negatives() -> list[float]:
    """Return how far losses are from chance among the scans of all devices, where all codes are alike."""
    distribution, off = training.start_distribution("mirrored"), []
    for name in ("cpc", "tcpc"):
        algorithm = build_algorithm(name, 2)
        inputs, targets = next(iter(batches(algorithm, smooth_images(BATCH, 2, side=algorithm.input_shape[0]))))
        targets = keras.ops.maximum(targets, 0)  # every scan counts
        with distribution.scope():
            model = algorithm.make_model(build_encoder(algorithm.encoder_shape), seed=1)
        for variable in model.trainable_variables:
            variable.assign(keras.ops.zeros_like(variable))
        per_replica = [keras.tree.map_structure(lambda x, i=i: x[2 * i : 2 * i + 2], (inputs, targets)) for i in (0, 1)]
        share = distribution.strategy.experimental_distribute_values_from_function(
            lambda context, parts=per_replica: parts[context.replica_id_in_sync_group]
        )
        losses = distribution.strategy.run(
            tf.function(lambda inputs, targets, model=model, task=algorithm: task.loss(targets, model(inputs))), share
        )
        chance = -np.log(algorithm.chance(BATCH)["accuracy"])
        off += [np.abs(found - chance).max() for found in distribution.strategy.experimental_local_results(losses)]
    return [float(max(off)), 0.0, float("inf")]


CHECKS = {"gathered": gathered, "negatives": negatives}


def differences(one: tuple, other: tuple) -> list[float]:
    """Return the largest differences of weights and of logs, and how far a weight went at least."""
    (weights, logs, moved), (other_weights, other_logs, other_moved) = one, other
    assert logs.keys() == other_logs.keys()
    assert len(weights) == len(other_weights)
    of_weights = max(np.abs(a - b).max() for a, b in zip(weights, other_weights, strict=True))
    of_logs = max(abs(logs[name] - other_logs[name]) for name in logs)
    return [float(of_weights), of_logs, float(min(moved, other_moved))]


def compared(case: str) -> list[float]:
    if case in CHECKS:
        return CHECKS[case]()
    name, _, how = case.partition(": ")
    made = CASES[name] if name in CASES else functools.partial(of_task, name)
    if how == "resumed":
        return differences(made().run(1, 1, 1), made().run(2, 1, 2))
    return differences(made().run(1), made().run(2))


if __name__ == "__main__":
    divide_the_cpu()
    for case in sys.argv[1:]:
        print(json.dumps({case: compared(case)}), flush=True)
