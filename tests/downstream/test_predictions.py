from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.downstream.predictions import Columns, read_predictions, write_predictions
from self_supervised_3d_tasks.errors import UserError

CLASSES = Columns("classes", ("0", "1"), labels=("truth", "prediction"))
FINDINGS = Columns("findings", ("Mass", "Lung Opacity"), labels=("truth_Mass", "truth_Lung Opacity"))
OF_CLASSES = "case,subject,truth,prediction,probability_0,probability_1\n"
OF_FINDINGS = "case,subject,truth_Mass,truth_Lung Opacity,probability_Mass,probability_Lung Opacity\n"


@pytest.mark.parametrize(
    ("columns", "labels", "text"),
    [
        (CLASSES, [[1, 1], [0, 1]], f'{OF_CLASSES}a,p,1,1,0.25,0.75\n"b,",q,0,1,0.1,{1 / 3!r}\n'),
        (FINDINGS, [[1, 0], [1, 1]], f'{OF_FINDINGS}a,p,1,0,0.25,0.75\n"b,",q,1,1,0.1,{1 / 3!r}\n'),
    ],
)
def test_predictions_by_hand_and_back(tmp_path, columns, labels, text):
    path, probabilities = tmp_path / "predictions.csv", np.array([[0.25, 0.75], [0.1, 1 / 3]])
    write_predictions(path, columns, [("a", "p"), ("b,", "q")], np.array(labels), probabilities)
    assert path.read_text() == text
    read_labels, read_probabilities = read_predictions(path, columns)
    np.testing.assert_array_equal(read_labels, labels)
    np.testing.assert_array_equal(read_probabilities, probabilities)


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
    what = f"{columns.kind} {', '.join(columns.outputs)}"
    with pytest.raises(UserError, match=rf"predictions\.csv.* expected .* a job on the {what}; finetune"):
        read_predictions(path, columns)
