"""Parts of `make torture`: bad inputs, mutated files and killed trainings, of which none may be lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def lost(*options: str) -> list[str]:
    """Run trials in a process of their own, where TensorFlow has not run yet, and return what was lost."""
    command = [sys.executable, "-m", "benchmarks.reliability", *options]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    tried = re.search(r"^\| all \| (\d+) \| ", ended.stdout, re.MULTILINE)
    assert tried, ended.stdout
    assert int(tried[1]) > 0
    return [line for line in ended.stdout.splitlines() if line.startswith("LOST ")]


def test_a_part_of_everything():
    assert lost("--part", "small", "--processes", "1") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bad", "sizes", "names", "tables"])
def test_no_bad_input_is_lost(kind):
    assert lost("--kind", kind) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mutated experiment", "mutated scans", "mutated files"])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_no_mutation_is_lost(kind, seed):
    assert lost("--kind", kind, "--seed", seed) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["killed", "SIG", "full disk", "two at once"])
def test_no_interrupted_run_is_lost(kind):
    assert lost("--kind", kind) == []
