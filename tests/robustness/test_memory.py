"""What a sweep leaves behind from one training to the next."""

from __future__ import annotations

import pytest

from benchmarks import isolated, sweep_memory


@pytest.mark.slow
def test_a_training_leaves_neither_memory_nor_handles_behind(tmp_path):
    rows = isolated.call(sweep_memory.measure, {"jobs": 12}, {"TMPDIR": str(tmp_path)})
    assert len(rows) == 12
    grown = sweep_memory.growth(rows)
    assert grown.pop("MiB") < 5
    assert grown == dict.fromkeys(("threads", "files", "processes"), 0)
    assert list(tmp_path.iterdir()) == []
