from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.downstream.predictions import CasePredictions, Columns
from self_supervised_3d_tasks.errors import UserError

CLASSES = Columns(("0", "1"), exclusive=True)
FINDINGS = Columns(("Mass", "Lung Opacity"), exclusive=False)
OF_CLASSES = "case,subject,truth,prediction,probability_0,probability_1\n"
OF_FINDINGS = "case,subject,truth_Mass,truth_Lung Opacity,probability_Mass,probability_Lung Opacity\n"


def cases_of(*labels) -> list[Case]:
    return [
        Case(name, Path(f"{name}.png"), None, subject, label=label)
        for name, subject, label in zip(("a", "b,"), ("p", "q"), labels, strict=True)
    ]


@pytest.mark.parametrize(
    ("columns", "labels", "prediction", "text"),
    [
        (CLASSES, (1, 0), np.array([1, 1]), f'{OF_CLASSES}a,p,1,1,0.25,0.75\n"b,",q,0,1,0.1,{1 / 3!r}\n'),
        (FINDINGS, ((1, 0), (1, 1)), None, f'{OF_FINDINGS}a,p,1,0,0.25,0.75\n"b,",q,1,1,0.1,{1 / 3!r}\n'),
    ],
)
def test_predictions_by_hand_and_back(tmp_path, columns, labels, prediction, text):
    path = tmp_path / "predictions.csv"
    written = CasePredictions.of(cases_of(*labels), prediction, np.array([[0.25, 0.75], [0.1, 1 / 3]]))
    written.write(path, columns)
    assert path.read_text() == text
    read = CasePredictions.read(path, columns)
    assert (read.names, read.subjects) == (["a", "b,"], ["p", "q"])
    np.testing.assert_array_equal(read.truth, labels)
    np.testing.assert_array_equal(read.prediction, prediction)
    np.testing.assert_array_equal(read.probabilities, written.probabilities)


@pytest.mark.parametrize(
    ("columns", "content"),
    [
        *((columns, content) for columns in (CLASSES, FINDINGS) for content in (None, "", "a,b\n1,2\n")),
        (CLASSES, OF_CLASSES),
        (CLASSES, OF_CLASSES + "a,p,1,1,0.5,0.5\na,p,1,1,1\n"),
        (CLASSES, OF_CLASSES + "a,p,one,1,0,1\n"),
        (CLASSES, OF_FINDINGS + "a,p,1,0,0.5,0.5\n"),
        (CLASSES, OF_CLASSES.replace("\n", ",probability_2\n") + "a,p,1,1,0.5,0.5,0\n"),
        (FINDINGS, OF_FINDINGS),
        (FINDINGS, OF_FINDINGS + "a,p,1,0,0.5\n"),
        (FINDINGS, OF_FINDINGS + "a,p,1,yes,0.5,0.5\n"),
        (FINDINGS, OF_CLASSES + "a,p,1,0,0.5,0.5\n"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, columns, content):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    what = "classes 0, 1" if columns.exclusive else "findings Mass, Lung Opacity"
    with pytest.raises(UserError, match=rf"predictions\.csv.*: expected .* a job on the {what}: delete"):
        CasePredictions.read(path, columns)
