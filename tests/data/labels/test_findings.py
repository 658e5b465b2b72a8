from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.labels.findings import NIH_FINDINGS, as_text, parse
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.data.layouts import LAYOUTS
from self_supervised_3d_tasks.errors import UserError

KNOWN = ("Mass", "Edema", "Lung Opacity")
# The header of the release: names that hold commas, and a last column without a name.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
REST = "58,M,PA,2682,2749,0.143,0.143,"


def write(path: Path, *rows: tuple[str, str, str]) -> Path:
    path.write_text("\n".join([HEADER, *(f"{name},{cell},0,{patient},{REST}" for name, cell, patient in rows)]))
    return path


def table(path: Path, **options) -> LabelTable:
    columns = dict(zip(("image_column", "label_column", "subject_column"), LAYOUTS["chestxray"].columns, strict=True))
    return LabelTable(path, **{"num_classes": 14, "findings": NIH_FINDINGS} | columns | options)


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("Mass", (1, 0, 0)),
        ("Edema|Mass", (1, 1, 0)),
        ("Mass|Edema|Lung Opacity", (1, 1, 1)),
        ("No Finding", (0, 0, 0)),
        ("", (0, 0, 0)),
        ("  ", (0, 0, 0)),
        (" Edema | Lung Opacity ", (0, 1, 1)),
        ("Mass|Mass", (1, 0, 0)),
        ("Mass|", (1, 0, 0)),
    ],
)
def test_a_cell_becomes_a_vector(cell, label):
    assert parse(cell, KNOWN, "t.csv: row 2") == label


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        (
            "Mass|Oedema",
            ["t.csv: row 7 has the finding 'Oedema'", "Mass, Edema, Lung Opacity", "class_names", "'Edema'"],
        ),
        ("mass", ["'mass'", "Did you mean 'Mass'?"]),
        ("Mass;Edema", ["'Mass;Edema'", 'separated by "|"']),
        ("No Finding|Mass", ["row 7", '"No Finding" beside a finding', "Remove one"]),
        ("1", ["'1'", '"No Finding"']),
    ],
)
def test_a_wrong_cell_is_named(cell, parts):
    with pytest.raises(UserError) as error:
        parse(cell, KNOWN, "t.csv: row 7")
    assert all(part in str(error.value) for part in parts), error.value


def test_text_and_vector_are_inverse_over_many_draws():
    rng = np.random.default_rng(0)
    for _ in range(200):
        label = tuple(int(bit) for bit in rng.integers(0, 2, len(NIH_FINDINGS)))
        assert parse(as_text(label, NIH_FINDINGS), NIH_FINDINGS, "here") == label
    assert as_text((0, 0, 0), KNOWN) == "No Finding"
    assert as_text((1, 0, 1), KNOWN) == "Mass|Lung Opacity"


def test_the_release_is_read_as_it_is(tmp_path):
    path = write(
        *(tmp_path / "Data_Entry_2017.csv", ("00000001_000.png", "Cardiomegaly", "1")),
        *(("00000001_001.png", "Cardiomegaly|Emphysema", "1"), ("00000002_000.png", "No Finding", "2")),
    )
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("00000001_000", "00000001_001", "00000002_000", "00000003_000"):
        (folder / f"{name}.png").touch()
    cases = find_cases("chestxray", folder, Labels(table(path)))
    assert [(case.name, case.subject) for case in cases] == [
        *(("00000001_000", "1"), ("00000001_001", "1"), ("00000002_000", "2"))
    ]
    expected = np.zeros((3, 14), int)
    expected[0, 1] = expected[1, 1] = expected[1, 10] = 1
    assert [case.label for case in cases] == [tuple(row) for row in expected.tolist()]
    assert len({*cases, *cases}) == 3  # hashable
    assert len(find_cases("chestxray", folder, subject_pattern="^([0-9]+)_")) == 4


def test_row_and_column_are_named(tmp_path):
    path = write(tmp_path / "t.csv", ("a.png", "Mass", "1"), ("b.png", "Massive", "2"))
    with pytest.raises(UserError, match=r"t\.csv: row 3 has the finding 'Massive'.*Did you mean 'Mass'\?"):
        table(path).read()
    with pytest.raises(UserError, match=r"label_column: there is no column 'Findings'.*'Finding Labels'"):
        table(path, label_column="Findings").read()


def test_the_findings_of_the_release():
    assert len(NIH_FINDINGS) == len(set(NIH_FINDINGS)) == LAYOUTS["chestxray"].num_classes == 14
    assert (NIH_FINDINGS[0], NIH_FINDINGS[7], NIH_FINDINGS[-1]) == ("Atelectasis", "Pneumothorax", "Hernia")
