"""The machine and its libraries: what the numbers of a page were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("self_supervised_3d_tasks", "keras", "tensorflow", "jax", "torch", "numpy")
MATRIX = {"cpu": 2048, "gpu": 8192}  # rows, enough for the machine's full rate


def description() -> str:
    """Return processor, cores and versions in one line."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split("\t: ", 1) for line in information.replace("\t\t", "\t").splitlines() if "\t: " in line)
    flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0))
    processor = fields.get("model name", platform.processor() or "a processor without a name")
    versions = [f"{name} {version}" for name in PACKAGES if (version := installed(name))]
    return (
        f"{cores} cores of {processor} ({', '.join(flags) or platform.machine()}), Python {platform.python_version()}, "
        f"{', '.join(versions)}"
    )


def installed(package: str) -> str:
    """Return the version of a package, or nothing where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def peak_gib() -> float:
    """Return the highest resident memory of this process so far or, where there is a GPU, of that one."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matmul() -> tuple[Callable[[], object], int]:
    """Return a float32 matrix product to be timed, and the floating point operations of it."""
    import tensorflow as tf

    size = MATRIX["gpu" if tf.config.list_physical_devices("GPU") else "cpu"]
    matrix = tf.random.stateless_normal((size, size), (0, 0))

    @tf.function
    def product() -> tf.Tensor:
        return tf.matmul(matrix, matrix)

    return lambda: product()[0, 0].numpy(), 2 * size**3
