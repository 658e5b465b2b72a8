"""What a second thread, worker or device brings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks import isolated, table
from benchmarks.settings import Settings
from benchmarks.timing import in_turn
from self_supervised_3d_tasks.training.optimizers import make_optimizer

TITLE = "From one thread or device to two"
COLUMNS = ("what", "1", "2", "2 ÷ 1")
TEXT = """\
Speed with two of a kind over that with one, measured in turn where both fit into one process.

* *pipeline*: samples/s of the input pipeline with so many threads, from memory.
* *mirrored*, *data_parallel*: steps/s of a training of rotation, the same batch on so many devices: logical ones of
  this machine's cores, of one thread each under TensorFlow; JAX gives all cores to one device already.
"""
BATCHES = 30
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")


def pipeline(name: str, side: int, steps: int) -> dict[str, Any]:
    """Return the row of a task's pipeline with one thread and with two."""
    import tensorflow as tf

    from benchmarks import task_setup

    with task_setup.task(name, rank=3, side=side, filters=1) as setup:
        reads: list[Callable[[], Any]] = []
        for threads in (1, 2):
            options = tf.data.Options()
            options.threading.private_threadpool_size = threads
            batches = iter(setup.stream().with_options(options))
            reads.append(functools.partial(_read, batches, BATCHES))
        in_turn(reads, 1)
        seconds = in_turn(reads, steps)
    speeds = [BATCHES * setup.scans / one for one in seconds]
    row = {"what": f"pipeline of {name}, samples/s", "1": speeds[0], "2": speeds[1]}
    return row | {"2 ÷ 1": speeds[1] / speeds[0]}


def _read(batches: Any, count: int) -> None:
    for _ in range(count):
        next(batches)


def steps_per_second(kind: str, devices: int, side: int, filters: int, steps: int) -> float:
    """Return the speed of a training of rotation on devices of this process, which has trained nothing before."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import task_setup
    from self_supervised_3d_tasks import training
    from self_supervised_3d_tasks.experiment import registry

    if kind == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    algorithm = registry.algorithm("rotation")(task_setup.shape(3, side))
    distribution = training.start_distribution(kind if devices > 1 else "none")
    images = np.random.default_rng(0).random((task_setup.VOLUMES, *algorithm.input_shape), np.float32)
    batch = tf.data.Dataset.from_tensors((images, np.arange(task_setup.VOLUMES, dtype=np.int32))).repeat()
    with distribution.scope():
        encoder = registry.encoder("unet")(algorithm.encoder_shape, enc_filters=filters, num_layers=3, seed=0)
        model = algorithm.make_model(encoder, seed=1)
    make = functools.partial(make_optimizer, 1e-3)
    distribution.compile(model, make, loss=algorithm.loss, metrics=algorithm.metrics(), jit_compile="auto")
    _, callbacks = distribution.validation(model, batch.take(0), [])  # which divide the batches under JAX
    fit = functools.partial(model.fit, batch, shuffle=False, verbose=0, callbacks=callbacks)
    fit(steps_per_epoch=2)
    (seconds,) = in_turn([functools.partial(fit, steps_per_epoch=steps)], 1)
    return steps / seconds


def devices(kind: str, settings: Settings) -> dict[str, Any]:
    """Return the row of a kind of distribution."""
    speeds = []
    for number in (1, 2):
        sizes = {"side": settings.side, "filters": settings.filters, "steps": settings.steps}
        flags = f"--xla_force_host_platform_device_count={number}"
        environment = ONE_THREAD if kind == "mirrored" else {"KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
        speeds.append(isolated.call(steps_per_second, {"kind": kind, "devices": number} | sizes, environment))
    row = {"what": f"{kind}, steps/s of rotation", "1": speeds[0], "2": speeds[1]}
    return row | {"2 ÷ 1": speeds[1] / speeds[0]}


def section(settings: Settings) -> str:
    """Return the text and the table."""

    def of_threads(row: dict[str, Any]) -> None:
        sizes = {"side": settings.side, "steps": settings.slow_steps}
        row.update(isolated.call(pipeline, {"name": row["what"]} | sizes))

    def of_devices(row: dict[str, Any]) -> None:
        row.update(devices(row["what"], settings))

    kinds = (*((name, of_threads) for name in settings.tasks), ("mirrored", of_devices), ("data_parallel", of_devices))
    parts = ((name, {"what": name}, fill) for name, fill in kinds)
    return table.section(TEXT, COLUMNS, *table.measured(settings, COLUMNS, parts))
