"""Tries to break every command, and prints a table of what survived.

python -m benchmarks.reliability [--part small|whole] [--kind NAME ...] [--only TEXT] [--seed N] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}

from benchmarks.reliability import kinds, process, report, trials, world  # noqa: E402 - after the settings


def main() -> int:
    """Run the trials and return the exit code: 1 where one was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("small", "whole"), default="whole")
    parser.add_argument("--kind", action="append", help="only kinds that contain this text")
    parser.add_argument("--only", help="only trials whose names contain this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="Markdown file that is written")
    parser.add_argument("--world", type=Path, help="folder of the tiny scans and runs, made where it is missing")
    options = parser.parse_args()
    began = time.monotonic()

    def wanted(kind: str) -> bool:
        return not options.kind or any(text in kind for text in options.kind)

    process.preload()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        made = options.world or Path(folder) / "world"
        if not made.exists():
            world.make(made, part=options.part)
        chosen = [
            trial
            for trial in kinds.trials(made, part=options.part, seed=options.seed, wanted=wanted)
            if not options.only or options.only in trial.name
        ]
        outcomes = []
        for outcome in trials.run_all(chosen, processes=options.processes, folder=Path(folder)):
            outcomes.append(outcome)
            if outcome.lost:
                print(f"LOST {outcome.kind}: {outcome.name}: {outcome.lost}", flush=True)
    text = report.markdown(outcomes, part=options.part, seed=options.seed, seconds=time.monotonic() - began)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return int(any(outcome.lost for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
