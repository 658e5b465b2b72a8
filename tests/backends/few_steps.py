"""A process with a backend of its own: it trains pretext tasks for a few steps and keeps losses and weights.

``python few_steps.py FOLDER OUTPUT DISTRIBUTION STEPS CASE …``; a case is ``<algorithm>-<rank>``, or with one of
`VARIANTS` behind it. FOLDER holds what all processes begin with, the weights and the batch of each case: the process
that finds none makes them. A training that OUTPUT holds goes on.
"""

import json
import sys
from pathlib import Path

import numpy as np

BATCH, SMALLER = 4, 3  # scans of a step, and of the batch that is validated
SIDE = {2: 24, 3: 16}
VARIANTS = {
    "ema": {"ema_momentum": 0.5},
    "accumulation": {"gradient_accumulation_steps": 2},
    "remat": {},
    "adamw": {"optimizer": "adamw", "momentum": None, "weight_decay": 0.1},
}
# A higher rate drives what only differs by rounding apart: Adam divides by it, codes by their spread.
RATE = 0.002
RATES = {"cpc": 0.5}  # the codes of its small patches are nearly alike at first, and so its gradients are small


def make_task(name, rank):
    """Return a task without dropout, whose draws belong to a backend."""
    from self_supervised_3d_tasks.experiment import registry

    task, side = registry.algorithm(name), SIDE[rank]
    wanted = {"dropout": 0.0, "dropout_rate": 0.0, "global_dim": side, "local_dim": side // 2, "head_units": (8,)}
    wanted |= {"num_permutations": 6, "min_foreground": 0.0}
    return task((*[side] * rank, 1), **{key: wanted[key] for key in wanted.keys() & registry.options(task)})


def make_model(algorithm, variant):
    from self_supervised_3d_tasks.models.encoders.unet import unet
    from self_supervised_3d_tasks.models.rematerialization import rematerialize

    options = {"enc_filters": 4, "num_layers": 1, "dropout": 0.0, "normalization": "group"}
    encoder = unet(algorithm.encoder_shape, **options, seed=0)
    if variant == "remat":
        rematerialize(encoder, encoder)
    return algorithm.make_model(encoder, seed=1)


def examples(algorithm):
    """Return one batch of examples, as lists of arrays and what puts them together."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    scans = rng.uniform(0.2, 1.0, (BATCH, *algorithm.input_shape)).astype("float32")
    others = scans[::-1][:, None].repeat(algorithm.sampling.companions, axis=1)
    rows = zip(scans, others, strict=True)
    made = [algorithm.make_example(image, tf.constant([5, row]), *more) for row, (image, more) in enumerate(rows)]
    inputs, targets = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *made)
    if algorithm.sampling.make_batch is not None:
        inputs, targets = algorithm.sampling.make_batch(inputs, targets, tf.constant([5, 7]))
    return inputs, targets


def train(case, folder, output, distribution, steps):
    """Train up to some steps.

    Returns:
        Loss and validation loss of each step, the weights, which are also saved, and how far one of them went at most.
    """
    import tensorflow as tf

    from self_supervised_3d_tasks import training
    from self_supervised_3d_tasks.files.models import save_model
    from self_supervised_3d_tasks.files.run_folder import RunFolder
    from self_supervised_3d_tasks.training import optimizers

    name, rank, variant, *_ = (*case.split("-"), None)
    algorithm = make_task(name, int(rank))
    spread = training.start_distribution(distribution)
    with spread.scope():
        model = make_model(algorithm, variant)
    batch = examples(algorithm)
    weights, arrays = folder / f"{case}.weights.h5", folder / f"{case}.npz"
    if not weights.exists():
        model.save_weights(weights)
        np.savez(arrays, *[leaf.numpy() for leaf in tf.nest.flatten(batch)])
    model.load_weights(weights)
    first = values(model)
    with np.load(arrays, allow_pickle=False) as kept:
        batch = tf.nest.pack_sequence_as(batch, [tf.constant(kept[f"arr_{place}"]) for place in range(len(kept.files))])
    number, shares = training.processes.share()
    part = BATCH // shares
    own = tf.nest.map_structure(lambda leaf: leaf[number * part : (number + 1) * part], batch)
    smaller = tf.nest.map_structure(lambda leaf: leaf[:SMALLER], batch)

    def prepare(model):
        options = {"optimizer": "sgd", "momentum": 0.9, "clipnorm": 1.0} | VARIANTS.get(variant, {})
        optimizer = optimizers.make_optimizer(RATES.get(name, RATE), **options)
        model.compile(optimizer, loss=algorithm.loss, metrics=algorithm.metrics())

    data = training.TrainingData(
        train=lambda _: tf.data.Dataset.from_tensors(own).repeat(),
        validation=tf.data.Dataset.from_tensors(batch).concatenate(tf.data.Dataset.from_tensors(smaller)),
        steps_per_epoch=1,
        samples_per_step=BATCH,
    )
    with spread.scope():
        phases, run = [training.Phase(steps, prepare)], RunFolder(output / "runs" / case)
        history = training.fit(model, data=data, phases=phases, folder=run, distribution=spread)
    if spread.devices > 1:  # each has a copy of the weights
        assert {len(variable.value.sharding.device_set) for variable in model.weights} == {spread.devices}
    save_model(model, output / f"{case}.keras")
    last = values(model)
    moved = max(np.abs(after - before).max() for after, before in zip(last, first, strict=True))
    return [[row["loss"], row["val_loss"]] for row in history], last, float(moved)


def values(model):
    """Return copies of a model's weights."""
    import keras

    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.weights]


def main(folder, output, distribution, steps, *cases):
    from self_supervised_3d_tasks import training

    output = Path(output)
    output.mkdir(exist_ok=True)
    for case in cases:
        with training.own_graphs():
            losses, weights, moved = train(case, Path(folder), output, distribution, int(steps))
        (output / f"{case}.json").write_text(json.dumps({"losses": losses, "moved": moved}))
        np.savez(output / f"{case}.npz", *weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
