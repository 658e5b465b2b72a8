import csv
import math

import pytest

from self_supervised_3d_tasks.pretraining import scores as pretext_scores

HISTORY = [
    {
        "epoch": 1,
        "phase": 1,
        "loss": 4.0,
        "accuracy": 0.1,
        "spread": 0.5,
        "val_loss": 5.0,
        "val_accuracy": 0.2,
        "val_spread": 0.4,
    },
    {
        "epoch": 2,
        "phase": 1,
        "loss": 2.0,
        "accuracy": 0.6,
        "spread": math.nan,
        "val_loss": 3.0,
        "val_accuracy": 0.5,
        "val_spread": 0.3,
    },
    {
        "epoch": 3,
        "phase": 1,
        "loss": 1.0,
        "accuracy": 0.9,
        "spread": 0.2,
        "val_loss": 3.5,
        "val_accuracy": 0.7,
        "val_spread": "",
    },
]


CHANCE = {"training_chance": {"accuracy": 0.01}, "validation_chance": {"accuracy": 0.02}}


def test_scores_are_those_of_the_epoch_whose_encoder_is_kept():
    rows = pretext_scores.of_epoch(HISTORY, 2, **CHANCE)
    assert [tuple(row) for row in rows] == [pretext_scores.COLUMNS] * 3
    assert [tuple(row.values()) for row in rows] == [
        ("loss", 2, 2.0, None, 3.0, None),
        ("accuracy", 2, 0.6, 0.01, 0.5, 0.02),
        ("spread", 2, None, None, 0.3, None),
    ]


def test_table_and_file_say_the_same(tmp_path):
    rows = pretext_scores.of_epoch(HISTORY, 2, **CHANCE)
    assert [line.split() for line in pretext_scores.table(rows).splitlines()[1:]] == [
        ["loss", "2.000", "-", "3.000", "-"],
        ["accuracy", "0.600", "0.010", "0.500", "0.020"],
        ["spread", "-", "-", "0.300", "-"],
    ]
    pretext_scores.write(tmp_path / "pretext_scores.csv", rows)
    with open(tmp_path / "pretext_scores.csv", newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == list(pretext_scores.COLUMNS)
    assert written[2:] == [["accuracy", "2", "0.6", "0.01", "0.5", "0.02"], ["spread", "2", "", "", "0.3", ""]]


def row(training, chance, validation, level, metric="accuracy"):
    return dict(zip(pretext_scores.COLUMNS, (metric, 3, training, chance, validation, level), strict=True))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0.9, 0.1, 0.8, 0.1), ""),  # learned
        ((0.15, 0.1, 0.2, 0.1), ""),  # begun to
        ((0.9, 0.1, 0.12, 0.1), "learned by heart"),
        ((0.66, 0.667, 0.663, 0.667), "stands at chance, 0.667, with 0.660 in training and 0.663 in validation"),
        ((0.0, 0.01, 0.05, 0.01), "it was not learned"),
        ((0.14, 0.1, 0.14, 0.1), "it was not learned"),
        ((0.14, 0.1, 0.19, 0.1), ""),
        ((0.9, None, 0.1, None), ""),  # nobody knows what a guess reaches
        ((None, 0.1, None, 0.1), ""),
    ],
)
def test_what_was_not_learned_is_said(numbers, said):
    found = pretext_scores.standstill([row(0.9, 0.1, 0.9, 0.1, "another"), row(*numbers)])
    assert len(found) == bool(said)
    assert all(text.startswith("accuracy ") and said in text for text in found)
