"""The smallest part of `make bench`: its table has every column, its ratios are numbers, its page keeps the rest."""

from __future__ import annotations

import importlib
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import isolated, networks, page, table, tasks, timing
from benchmarks.isolated import Failed
from benchmarks.settings import Settings
from self_supervised_3d_tasks.lazy import keras

OF_JAX = {"JAX step s", "JAX × TensorFlow"}


def test_the_smallest_part_of_the_table_of_tasks():
    row = tasks.measure("rotation", rank=3, side=16, filters=2, steps=2)
    assert set(row) == set(tasks.COLUMNS) - OF_JAX
    assert (row["task"], row["rank"], row["batch"]) == ("rotation", "3D", 4)
    numbers = [value for value in row.values() if isinstance(value, float)]
    assert len(numbers) == 9
    assert all(math.isfinite(number) for number in numbers)
    assert min(row[name] for name in ("million weights", "step s", "step ÷ bare", "% of matmul", "peak GiB")) > 0
    assert keras.config.dtype_policy().name == "float32"
    text = tasks.page(Settings(tasks=("rotation",)), [row], {"cpc 2D": "a | reason"})
    header, rule, first, _, reason = text.splitlines()[-5:]
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(tasks.COLUMNS)
    assert header.count("|") == rule.count("|") == first.count("|")
    assert reason == "* no number for cpc 2D: a \\| reason"


@pytest.mark.parametrize("rank", [2, 3])
def test_the_operations_of_convolutions(rank):
    """Two 3×…×3 convolutions "same", 1 → 2 → 4 channels: a product and a sum per output, kernel voxel and channel."""
    convolution = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[rank]
    model = keras.Sequential([keras.Input((*[6] * rank, 1)), *(convolution(n, 3, padding="same") for n in (2, 4))])
    batch = keras.ops.ones((5, *[6] * rank, 1))
    _, operations = networks.forward_and_backward([(model, batch)], model)
    first, second = (2 * 5 * 6**rank * 3**rank * channels for channels in (1 * 2, 2 * 4))
    # Forward and both gradients; nobody asks for that of the batch.
    assert operations == 2 * first + 3 * second


def test_functions_are_called_in_turn():
    called = []
    seconds = timing.in_turn([lambda: called.append("a"), lambda: called.append("b")], 3)
    assert called == ["a", "b"] * 3
    assert len(seconds) == 2
    assert np.all(np.array(seconds) >= 0)


@pytest.mark.parametrize(
    ("value", "cell"), [(None, "—"), ("cpc", "cpc"), (12, "12"), (1.23456, "1.23"), (0.01, "0.0100"), (1234.5, "1,234")]
)
def test_cells(value, cell):
    assert table.shown(value) == cell


def test_a_run_replaces_the_sections_that_it_measured():
    before = page.updated("", {"B": "old b", "A": "old a", "gone": "x"}, ["A", "B", "gone"])
    after = page.updated(before, {"B": "new b"}, ["A", "B"])
    assert page.split(after).keys() == {"A", "B"}
    assert "old a" in after
    assert "new b" in after
    assert "old b" not in after
    assert page.updated(after, {}, ["A", "B"]) == after


def test_a_measurement_that_ends_with_an_error_says_why():
    # It loads no library, and files of this kind cannot be written.
    with pytest.raises(Failed, match="ModuleNotFoundError: No module named 'benchmarks.none'"):
        isolated.call(type("F", (), {"__module__": "benchmarks.none", "__qualname__": "f"}), {})


def test_nothing_is_measured_when_the_time_is_over():
    with pytest.raises(Failed, match="the time was over"):
        Settings(tasks=(), until=0.0).check_time()
    Settings(tasks=()).check_time()


@pytest.fixture
def command(monkeypatch):
    """Give a function that runs the command with arguments and stand-ins for its subjects."""
    main = importlib.import_module("benchmarks.__main__")

    def run(*arguments, **subjects):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        monkeypatch.setattr(main, "SUBJECTS", {name: SimpleNamespace(**of) for name, of in subjects.items()})
        return main.main()

    return run


def test_a_subject_that_fails_leaves_what_the_page_says_of_it(command, tmp_path):
    def fail(settings):
        raise Failed("no reason")

    path, title = tmp_path / "page.md", "Growth"
    good = {"TITLE": title, "section": lambda settings: f"side {settings.side}"}
    assert command("--output", path, "--side", 24, one=good) == 0
    assert "side 24" in path.read_text()
    other = {"TITLE": "Other", "section": lambda settings: "measured"}
    assert command("--output", path, one={"TITLE": title, "section": fail}, two=other) == 1
    sections = page.split(path.read_text())
    assert list(sections) == [title, "Other", "On a GPU"]
    assert "side 24" in sections[title]
    assert "It was not run yet" in " ".join(sections["On a GPU"].split())


def test_without_a_gpu_one_message_says_so(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(isolated, "call", lambda function, options: 0)
    path = tmp_path / "page.md"
    assert command("--gpu", "--output", path) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: --gpu: TensorFlow sees no GPU here; run it on a machine with one\n")
    assert not path.exists()
