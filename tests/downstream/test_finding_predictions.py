from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.layouts import Case
from self_supervised_3d_tasks.downstream.finding_predictions import FindingPredictions
from self_supervised_3d_tasks.errors import UserError

FINDINGS = ["Mass", "Lung Opacity"]
HEADER = "case,subject,truth_Mass,truth_Lung Opacity,probability_Mass,probability_Lung Opacity\n"


def test_predictions_by_hand_and_back(tmp_path):
    cases = [
        Case(name, Path(f"{name}.png"), None, subject, label=label)
        for name, subject, label in (("a", "p", (1, 0)), ("b,", "q", (1, 1)))
    ]
    written = FindingPredictions.of(cases, np.array([[0.25, 0.75], [0.1, 1 / 3]]), FINDINGS)
    written.write(tmp_path / "predictions.csv")
    text = (tmp_path / "predictions.csv").read_text()
    assert text == f'{HEADER}a,p,1,0,0.25,0.75\n"b,",q,1,1,0.1,{1 / 3!r}\n'
    read = FindingPredictions.read(tmp_path / "predictions.csv", FINDINGS)
    assert (read.findings, read.names, read.subjects) == (FINDINGS, ["a", "b,"], ["p", "q"])
    np.testing.assert_array_equal(read.truth, [[1, 0], [1, 1]])
    np.testing.assert_array_equal(read.probabilities, written.probabilities)


@pytest.mark.parametrize(
    "content",
    [None, "", "a,b\n1,2\n", HEADER, HEADER + "a,p,1,0,0.5\n", HEADER + "a,p,1,yes,0.5,0.5\n"],
)
def test_a_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"predictions\.csv: expected the predictions of a job on Mass, Lung Opacity"):
        FindingPredictions.read(path, FINDINGS)
