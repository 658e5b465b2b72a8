"""Measures speed and memory and writes docs/benchmarks.md.

    python -m benchmarks [--output docs/benchmarks.md] [--subject NAME ...] [--task NAME ...] [--gpu]

With --gpu the subjects that a GPU can be measured with, in under eight minutes, into a section of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from types import ModuleType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import (  # noqa: E402 - after the settings
    cohort,
    files,
    isolated,
    page,
    remat,
    scaling,
    sides,
    supervoxels,
    sweep_memory,
    sweep_scaling,
    tasks,
    torch_peer,
)
from benchmarks.settings import Settings  # noqa: E402
from self_supervised_3d_tasks.experiment import registry  # noqa: E402

SUBJECTS: dict[str, ModuleType] = {
    "tasks": tasks,
    "torch": torch_peer,
    "scaling": scaling,
    "sides": sides,
    "files": files,
    "remat": remat,
    "supervoxels": supervoxels,
    "sweep_scaling": sweep_scaling,
    "sweep_memory": sweep_memory,
    "cohort": cohort,
}
LONG = ("cohort",)  # asked for by name only
ON_GPU = ("tasks", "torch", "sides", "files")
GPU_TITLE = "On a GPU"
GPU_MINUTES = 8
NOT_RUN = """\
`python -m benchmarks --gpu --output docs/benchmarks.md` measures tasks, PyTorch, growth with the side and with the
number of files on the first GPU that TensorFlow sees, in under eight minutes, and writes this section. It was not run
yet."""


def main() -> int:
    """Measure and return the exit code: 1 where a subject was not measured, 2 where there is no GPU to measure on."""
    options = _options()
    settings = Settings(tasks=tuple(options.task or registry.known("algorithm")))
    if options.gpu:
        settings = settings.for_gpu(time.monotonic() + 60 * (GPU_MINUTES - 0.75))
    given = {name: value for name in ("side", "filters", "steps", "ranks") if (value := getattr(options, name))}
    settings = dataclasses.replace(settings, **given)
    if options.gpu and not isolated.call(number_of_gpus, {}):
        print("error: --gpu: TensorFlow sees no GPU here; run it on a machine with one", file=sys.stderr)
        return 2
    wanted = options.subject or [name for name in (ON_GPU if options.gpu else SUBJECTS) if name not in LONG]
    measured: dict[str, str] = {}
    for name in wanted:
        subject, began = SUBJECTS[name], time.monotonic()
        settings.tell(f"\n## {subject.TITLE}\n")
        try:
            text = subject.section(settings)
        except isolated.Failed as error:
            settings.tell(f"not measured: {error}")
            continue
        measured[subject.TITLE] = page.stamped(text, time.monotonic() - began)
        settings.tell(measured[subject.TITLE])
        if options.output:
            _write(options.output, _on_gpu(measured) if options.gpu else measured)
    return 0 if len(measured) == len(wanted) else 1


def _on_gpu(measured: dict[str, str]) -> dict[str, str]:
    return {GPU_TITLE: "\n\n".join(f"### {title}\n\n{text}" for title, text in measured.items())}


def _write(path: Path, measured: dict[str, str]) -> None:
    """Bring a page up to date; after each subject, since the next one may take minutes."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    order = [*(subject.TITLE for subject in SUBJECTS.values()), GPU_TITLE]
    kept = {GPU_TITLE: NOT_RUN} | page.split(before)
    path.write_text(page.updated(before, kept | measured, order), encoding="utf-8")


def number_of_gpus() -> int:
    """Return how many GPUs TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="page that is written; without it everything is only printed")
    parser.add_argument("--subject", action="append", choices=SUBJECTS, help=f"default: all but {', '.join(LONG)}")
    parser.add_argument("--task", action="append", choices=registry.known("algorithm"), help="default: all")
    parser.add_argument("--ranks", type=int, nargs="+", choices=(2, 3), help="default: 2 3")
    parser.add_argument("--side", type=int, help="voxels per axis of a volume")
    parser.add_argument("--filters", type=int, help="filters of the first level of a U-Net")
    parser.add_argument("--steps", type=int, help="rounds that are timed")
    parser.add_argument("--gpu", action="store_true", help="measure the GPU, in under eight minutes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
