"""What a sweep leaves behind from one training to the next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_leaves_neither_memory_nor_handles_behind(tmp_path):
    command = [sys.executable, "benchmarks/sweep_memory.py", "--jobs", "12", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    header, _, *rows = (line.strip("| ").split(" | ") for line in result.stdout.splitlines())
    grown = dict(zip(header, map(float, rows[-1][1:]), strict=True))
    assert grown["MiB"] < 5
    assert {name: grown[name] for name in ("threads", "files", "processes")} == dict.fromkeys(
        ("threads", "files", "processes"), 0
    )
    assert list(tmp_path.iterdir()) == []
