"""One epoch as a line of the log."""

from __future__ import annotations

import math

import pytest

from self_supervised_3d_tasks.training.epoch_line import WIDTH, epoch_line

TIMES = {"seconds": 17.73, "samples_per_second": 29.07, "wait_share": 0.009931}


def test_an_epoch_in_words():
    row = {"epoch": 3, "phase": 1, "accuracy": 0.0625, "complete": 0.4, "loss": 1.1094} | TIMES
    row |= {"val_accuracy": 0.5, "val_complete": 1.0, "val_loss": 12.3456, "val_rank_codes": 4.9551}
    lines = epoch_line(row, 15).split("\n")
    assert lines == [
        "epoch 3/15: loss 1.109 (val 12.346), accuracy 0.0625 (val 0.500), scans that count 40 % (val 100 %),",
        "  val rank codes 4.955, 17.7 s, 29.1 scans/s, waited for data 1 %",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (1.5e7, "1.5e+07"), (0.01234, "0.0123"), (-0.5, "-0.500"), (0.0, "0"), (math.nan, "nan")],
)
def test_numbers_have_the_digits_that_say_something(value, text):
    assert epoch_line({"epoch": 1, "loss": value} | TIMES, 2).startswith(f"epoch 1/2: loss {text}, ")


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (600, "10 min"), (36000, "10.0 h")])
def test_times_have_their_unit(seconds, text):
    assert f" {text}, 29.1 scans/s" in epoch_line({"epoch": 1, "loss": 1.0} | TIMES | {"seconds": seconds}, 2)


@pytest.mark.parametrize("count", range(12))
def test_no_line_is_longer_than_a_terminal(count):
    row = {f"val_a_measure_of_some_length_{number}": number / 7 for number in range(count)}
    lines = epoch_line({"epoch": 1, "phase": 1, "loss": 1.0} | row | TIMES, 100).split("\n")
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(line.strip() for line in lines).count("measure") == count
