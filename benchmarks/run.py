"""Speed and memory of every pretext task, as ratios measured in one run.

    python benchmarks/run.py [--algorithm NAME ...] [--side 64] [--filters 8] [--steps 20] [--remat]

For each task, in a process of its own: the batch (as many scans as give the encoder the voxels of four whole ones);
samples/s of the input pipeline alone; seconds per training step; the ratio of the step to a bare forward + backward
pass of the same encoder (and decoder, where the task has one) over the same voxels; the share of time that `fit` waited
for data; peak resident memory. Bare passes and training steps alternate, so that a change of the machine's pace meets
both.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

VOLUMES = 4
COLUMNS = ("algorithm", "batch", "pipeline samples/s", "step s", "bare s", "step / bare", "wait %", "peak GiB")


def measure(name: str, side: int, filters: int, steps: int, *, remat: bool = False) -> dict:
    """Return one row of the table for the task ``name`` on volumes of ``side`` voxels per axis."""
    import keras
    import tensorflow as tf

    from self_supervised_3d_tasks.data.cases import find_cases
    from self_supervised_3d_tasks.data.preprocessing import Preprocessing
    from self_supervised_3d_tasks.data.store.volumes import VolumeStore
    from self_supervised_3d_tasks.data.stream import pipeline
    from self_supervised_3d_tasks.data.stream.source import Position
    from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
    from self_supervised_3d_tasks.experiment import registry
    from self_supervised_3d_tasks.models.rematerialization import rematerialize

    keras.utils.set_random_seed(0)
    algorithm = registry.algorithm(name)((side, side, side, 1))
    # As many scans as give the encoder the voxels of four whole ones: a task that looks at few patches takes more.
    scans = round(VOLUMES * side**3 / encoded_voxels(algorithm))
    encoder = registry.encoder("unet")(algorithm.encoder_shape, enc_filters=filters, num_layers=3, seed=0)
    if remat:
        rematerialize(encoder, encoder)
    model = algorithm.make_model(encoder, seed=1)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=algorithm.loss, metrics=algorithm.metrics())
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for index in range(4 * scans):
            np.save(Path(folder) / f"scan_{index:02d}.npy", rng.random((side, side, side, 1), dtype="float32"))
        cases = find_cases("npy", folder)
        store = VolumeStore(cases, Preprocessing(data_dim=(side,) * 3, number_channels=1, volume_fitting="exact"))

        def stream():
            return pipeline.pretraining_dataset(
                store,
                make_example=algorithm.make_example,
                batch_size=scans,
                position=Position(seed=0),
                sampling=algorithm.sampling,
            )

        pipeline_seconds = per_call(iter(stream()).get_next, 3 * steps)
        inputs, targets = next(iter(stream()))
        bare = bare_pass(tf, algorithm, model, inputs)
        step = functools.partial(model.train_on_batch, inputs, targets)
        bare(), step()
        bare_seconds, step_seconds = alternate(bare, step, steps)
        clock = WaitClock()
        model.fit(clock.attach(stream()), steps_per_epoch=2, verbose=0, shuffle=False)
        waited, began = clock.seconds(), time.perf_counter()
        model.fit(clock.attach(stream()), steps_per_epoch=steps, verbose=0, shuffle=False)
        share = (clock.seconds() - waited) / (time.perf_counter() - began)
    values = (
        name,
        scans,
        round(scans / pipeline_seconds, 1),
        round(step_seconds, 3),
        round(bare_seconds, 3),
        round(step_seconds / bare_seconds, 2),
        round(100 * share, 1),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    )
    return dict(zip(COLUMNS, values, strict=True))


def encoded_voxels(algorithm) -> int:
    """Return how many voxels of a scan the encoder sees."""
    import tensorflow as tf

    specification = tf.TensorSpec(algorithm.input_shape, tf.float32), tf.TensorSpec((2,), tf.int32)
    inputs, _ = tf.function(algorithm.make_example, input_signature=specification).get_concrete_function().output_shapes
    return sum(math.prod(shape) for shape in encoded(inputs).values())


def encoded(inputs) -> dict:
    """Return by name what the encoder sees of a model's inputs: all but images that are called "targets"."""
    return {name: x for name, x in inputs.items() if name != "targets"} if isinstance(inputs, dict) else {"": inputs}


def bare_pass(tf, algorithm, model, inputs):
    """Return a function that runs a task's networks forward and backward over the voxels that a training step encodes.

    What a task decodes is network too, and no overhead; local views lead to maps, but are not restored.
    """
    import keras

    from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm

    encoder = model.get_layer("encoder")
    network = algorithm.restorer(model) if isinstance(algorithm, RestoringAlgorithm) else encoder
    axes = len(network.input_shape) - 1
    passes = []
    # A pass for each size, in which there may be several views or patches of a scan.
    for name, x in encoded(inputs).items():
        local = name == "local_views"
        used = keras.Sequential([encoder, model.get_layer("decoder")]) if local else network
        passes.append((used, tf.reshape(x, (-1, *x.shape[-axes:]))))

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten([used(batch, training=True) for used, batch in passes])
            loss = tf.add_n([tf.reduce_mean(tf.square(output)) for output in outputs])
        return tape.gradient(loss, [variable.value for variable in network.trainable_variables])

    return lambda: [gradient.numpy() for gradient in run()]


def alternate(first, second, count: int) -> tuple[float, float]:
    """Return the median seconds of two functions called in turn."""
    seconds = np.array([[per_call(function, 1) for function in (first, second)] for _ in range(count)])
    return tuple(np.median(seconds, axis=0))


def per_call(function, count: int) -> float:
    """Return the mean seconds of ``count`` calls."""
    began = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - began) / count


def main() -> None:
    """Measure each task in a fresh process and print a Markdown table."""
    from self_supervised_3d_tasks.experiment import registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", action="append", choices=registry.known("algorithm"), help="default: all")
    parser.add_argument("--side", type=int, default=64, help="voxels per axis of a volume")
    parser.add_argument("--filters", type=int, default=8, help="filters of the first U-Net level")
    parser.add_argument("--steps", type=int, default=20, help="steps timed per task")
    parser.add_argument("--remat", action="store_true", help="compute maps inside the encoder again for the gradients")
    parser.add_argument("--row", action="store_true", help="measure one task in this process and print it as JSON")
    options = parser.parse_args()
    names = options.algorithm or registry.known("algorithm")
    if options.row:
        print(json.dumps(measure(names[0], options.side, options.filters, options.steps, remat=options.remat)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    sizes = ["--side", str(options.side), "--filters", str(options.filters), "--steps", str(options.steps)]
    sizes += ["--remat"] if options.remat else []
    for name in names:
        command = [sys.executable, __file__, "--row", "--algorithm", name, *sizes]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        print("| " + " | ".join(str(row[column]) for column in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
