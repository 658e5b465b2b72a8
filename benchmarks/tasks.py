"""Every pretext task in 2D and 3D: pipeline, step and what of it is network, precisions and backends."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import Any

from benchmarks import isolated, machine, table
from benchmarks.settings import Settings
from benchmarks.timing import in_turn, per_call

TITLE = "Tasks"
COLUMNS = (
    *("task", "rank", "batch", "million weights", "pipeline samples/s", "step s", "step ÷ bare", "% of matmul"),
    *("wait %", "peak GiB", "building s", "bfloat16 × float32", "JAX step s", "JAX × TensorFlow"),
)
TEXT = """\
Volumes of {side}³ voxels, or pictures with about as many pixels, one channel; U-Net with {filters}…{widest} filters;
the tasks' default options; {steps} rounds, in each of which everything that is compared runs once; medians.

* *batch*: as many scans as give the encoder the voxels of four whole ones.
* *pipeline*: scans per second out of the input pipeline alone, from memory.
* *step ÷ bare*: a whole training step (task, heads, loss, metrics, optimizer) over a forward and backward pass of the
  same encoder on the same voxels; the aim is at most 1.05. Of Parts2Whole, whose decoder is most of its network, and of
  PCRLv2 bare is encoder and decoder. What lies above are heads: in 2D most see flattened maps, and all of the *million
  weights* of the model, of which few are the encoder's, are moved by the optimizer in every step.
* *% of matmul*: operations of the convolutions of the bare pass, over the seconds of the step, as a share of what one
  float32 product of two square matrices reaches between the steps.
* *wait*: share of the time in `fit` spent on waiting for data; the aim is at most 5 %.
* *building*: seconds of the first step, with its graphs and the pipeline's, over those of a later one; the aim is at
  most 3 s.
* *bfloat16 × float32*: how many times as fast the same step is with `"mixed_precision": "bfloat16"`; the aim is at
  least 1.5 where the processor has instructions for it. Convolutions alone reach that, the more channels the better;
  a step does not where normalizations and activations take longer than the convolutions, as at the widest maps.
* *JAX*: the same step with `KERAS_BACKEND=jax`, in a process of its own.
"""


def measure(name: str, rank: int, side: int, filters: int, steps: int, remat: bool = False) -> dict[str, Any]:
    """Return one row of the table, without JAX."""
    import keras

    from benchmarks import networks, task_setup
    from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
    from self_supervised_3d_tasks.training.first_step import make_variables

    with task_setup.task(name, rank=rank, side=side, filters=filters, remat=remat) as setup:
        pipeline_seconds = per_call(iter(setup.stream()).get_next, 3 * steps)
        model, clock = setup.make_model(), WaitClock()

        def first_step() -> None:
            batches = setup.stream()
            make_variables(model, batches)
            model.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)

        first = per_call(first_step)
        waited, began = clock.seconds(), time.perf_counter()
        model.fit(clock.attach(setup.stream()), steps_per_epoch=steps, verbose=0, shuffle=False)
        wait_share = (clock.seconds() - waited) / (time.perf_counter() - began)
        peak = machine.peak_gib()
        batch = next(iter(setup.stream()))
        bare, operations = networks.bare_pass(setup.algorithm, model, batch[0])
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            half = setup.make_model()
        finally:
            keras.config.set_dtype_policy(before)
        product, of_product = machine.matmul()
        steps_of = [functools.partial(trained.train_on_batch, *batch) for trained in (model, half)]
        calls = [product, bare, *steps_of]
        in_turn(calls, 1)
        product_seconds, bare_seconds, step_seconds, half_seconds = in_turn(calls, steps)
    return {
        "task": name,
        "rank": f"{rank}D",
        "batch": setup.scans,
        "million weights": model.count_params() / 1e6,
        "pipeline samples/s": setup.scans / pipeline_seconds,
        "step s": step_seconds,
        "step ÷ bare": step_seconds / bare_seconds,
        "% of matmul": 100 * operations / step_seconds / (of_product / product_seconds),
        "wait %": 100 * wait_share,
        "peak GiB": peak,
        "building s": first - step_seconds,
        "bfloat16 × float32": step_seconds / half_seconds,
    }


def measure_jax(name: str, rank: int, side: int, filters: int, steps: int) -> float:
    """Return the seconds of a step; to be called where ``KERAS_BACKEND=jax``."""
    import keras
    import tensorflow as tf

    from benchmarks import task_setup

    assert keras.backend.backend() == "jax"
    tf.config.set_visible_devices([], "GPU")  # it only reads data here
    with task_setup.task(name, rank=rank, side=side, filters=filters) as setup:
        inputs, targets = keras.tree.map_structure(lambda x: x.numpy(), next(iter(setup.stream())))
        model = setup.make_model()
        step = [lambda: model.train_on_batch(inputs, targets)]
        in_turn(step, 1)
        return in_turn(step, steps)[0]


def section(settings: Settings) -> str:
    """Return the text and the table of every task."""

    def fill(row: dict[str, Any]) -> None:
        options = {"name": row["task"], "rank": int(row["rank"][0])}
        options |= {"side": settings.side, "filters": settings.filters}
        row.update(isolated.call(measure, options | {"steps": settings.steps}))
        if settings.jax:
            row.update(_jax(options, settings, row))

    parts = (
        (f"{name} {rank}D", {"task": name, "rank": f"{rank}D"}, fill)
        for name in settings.tasks
        for rank in settings.ranks
    )
    return page(settings, *table.measured(settings, COLUMNS, parts))


def _jax(options: dict[str, Any], settings: Settings, row: dict[str, Any]) -> dict[str, float]:
    if not machine.installed("jax"):
        return {"JAX step s": "not installed"}
    seconds = isolated.call(measure_jax, options | {"steps": settings.slow_steps}, {"KERAS_BACKEND": "jax"})
    return {"JAX step s": seconds, "JAX × TensorFlow": seconds / row["step s"]}


def page(settings: Settings, rows: Iterable[dict[str, Any]], failures: dict[str, str]) -> str:
    """Return the section of some rows."""
    sizes = {"side": settings.side, "filters": settings.filters, "widest": 8 * settings.filters}
    return table.section(TEXT.format(**sizes, steps=settings.steps), COLUMNS, rows, failures)
