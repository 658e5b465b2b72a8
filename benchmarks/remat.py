"""What is saved where the maps inside an encoder are computed again instead of being kept."""

from __future__ import annotations

from typing import Any

from benchmarks import isolated, machine, table
from benchmarks.settings import Settings
from benchmarks.timing import in_turn

TITLE = "Maps that are computed again"
COLUMNS = ("remat", "GiB", "step s")
TEXT = """\
`"remat": true` against maps that are kept: the model of rotation alone, without a pipeline, U-Net with
{filters}…{widest} filters, batches of four scans of {side}³ in float32. *GiB*: the peak of memory above what the
process had before the first step. Little is saved, since the first level of a U-Net has most of its maps, and a part
of it is held whole while it is computed again."""


def measure(remat: bool, side: int, filters: int, steps: int) -> dict[str, Any]:
    """Return one row of the table."""
    from benchmarks import task_setup

    with task_setup.task("rotation", rank=3, side=side, filters=filters, remat=remat) as setup:
        model, (inputs, targets) = setup.make_model(), next(iter(setup.stream()))
        before = machine.peak_gib()
        step = [lambda: model.train_on_batch(inputs, targets)]
        in_turn(step, 1)
        (seconds,) = in_turn(step, steps)
        return {"remat": str(remat).lower(), "GiB": machine.peak_gib() - before, "step s": seconds}


def section(settings: Settings) -> str:
    """Return the text and the table."""
    sizes = {"side": 3 * settings.side // 2, "filters": settings.filters}
    options = [sizes | {"remat": remat, "steps": settings.slow_steps} for remat in (False, True)]
    rows = [isolated.call(measure, option) for option in options]
    return f"{TEXT.format(**sizes, widest=8 * settings.filters)}\n\n{table.markdown(COLUMNS, rows)}"
