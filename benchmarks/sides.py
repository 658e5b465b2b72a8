"""How the seconds and the memory of a step grow with the size of a volume."""

from __future__ import annotations

from typing import Any

from benchmarks import isolated, machine, table
from benchmarks.settings import Settings
from benchmarks.timing import in_turn

TITLE = "Growth with the side"
COLUMNS = ("side", "step s", "s per megavoxel", "% of matmul", "peak GiB", "GiB per megavoxel")
TEXT = """\
A forward and backward pass of the encoder of rotation, a U-Net with {filters}…{widest} filters, on one volume in
float32; *GiB per megavoxel* leaves out what the process had before the first pass. Both per megavoxel are constant
where time and memory grow with the number of voxels; small volumes have the overheads of a pass on top."""


def measure(side: int, filters: int, steps: int) -> dict[str, Any]:
    """Return one row of the table."""
    import tensorflow as tf

    from benchmarks import networks
    from self_supervised_3d_tasks.experiment import registry

    encoder = registry.encoder("unet")((side, side, side, 1), enc_filters=filters, num_layers=3, seed=0)
    volume = tf.random.stateless_uniform((1, side, side, side, 1), (0, 0))
    before = machine.peak_gib()
    run, operations = networks.forward_and_backward([(encoder, volume)], encoder)
    run()
    peak, megavoxels = machine.peak_gib(), side**3 / 1e6
    product, of_product = machine.matmul()
    in_turn([product, run], 1)
    product_seconds, seconds = in_turn([product, run], steps)
    return {
        "side": side,
        "step s": seconds,
        "s per megavoxel": seconds / megavoxels,
        "% of matmul": 100 * operations / seconds / (of_product / product_seconds),
        "peak GiB": peak,
        "GiB per megavoxel": (peak - before) / megavoxels,
    }


def section(settings: Settings) -> str:
    """Return the text and the table."""

    def fill(row: dict[str, Any]) -> None:
        sizes = {"side": row["side"], "filters": settings.filters, "steps": settings.steps}
        row.update(isolated.call(measure, sizes))

    parts = ((f"{side}³", {"side": side}, fill) for side in settings.sides)
    text = TEXT.format(filters=settings.filters, widest=8 * settings.filters)
    return table.section(text, COLUMNS, *table.measured(settings, COLUMNS, parts))
