from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.downstream.case_predictions import CasePredictions
from self_supervised_3d_tasks.errors import UserError


def test_predictions_by_hand_and_back(tmp_path):
    cases = [
        Case(name, Path(f"{name}.png"), None, subject, label=label)
        for name, subject, label in (("a", "p", 1), ("b,", "q", 0))
    ]
    written = CasePredictions.of(cases, np.array([1, 1]), np.array([[0.25, 0.75], [0.1, 0.9]]))
    written.write(tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_text() == (
        'case,subject,truth,prediction,probability_0,probability_1\na,p,1,1,0.25,0.75\n"b,",q,0,1,0.1,0.9\n'
    )
    read = CasePredictions.read(tmp_path / "predictions.csv")
    assert (read.names, read.subjects) == (["a", "b,"], ["p", "q"])
    np.testing.assert_array_equal(read.truth, [1, 0])
    np.testing.assert_array_equal(read.prediction, [1, 1])
    np.testing.assert_array_equal(read.probabilities, written.probabilities)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "a,b\n1,2\n",
        "case,subject,truth,prediction,probability_0\n",
        "case,subject,truth,prediction,probability_0\na,p,1,1\na,p,1,1,1\n",
        "case,subject,truth,prediction,probability_0\na,p,one,1,1\n",
    ],
)
def test_a_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"predictions\.csv: expected the predictions of a classification job"):
        CasePredictions.read(path)
