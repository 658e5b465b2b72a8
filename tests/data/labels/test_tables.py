from __future__ import annotations

from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.errors import UserError

FOLDER = Path("photos")


def scans(*files: str) -> dict[str, tuple[Path, ...]]:
    return {file.rsplit(".", 1)[0]: (FOLDER / file,) for file in files}


def write(path: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return path


@pytest.fixture
def make(tmp_path: Path):
    """Write rows and return their table; without names of columns it is positional."""

    def make(*rows: str, num_classes: int = 5, encoding: str = "utf-8", **options) -> LabelTable:
        path = write(tmp_path / "labels.csv", *rows, encoding=encoding)
        return LabelTable(path, num_classes, **({"positional": True} | options))

    return make


def labels(table: LabelTable, *files: str) -> dict[str, int]:
    return {name: row.label for name, row in table.rows_by_name(FOLDER, scans(*files)).items()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_named_columns_stand_anywhere(make, encoding: str) -> None:
    table = make(
        "note, grade ,Bild,who",
        '"x, y",2,é1.png,p1',
        "",
        " ,,, ",
        ",3.0, b ,p2",
        image_column="Bild",
        label_column="grade",
        subject_column="who",
        positional=False,
        encoding=encoding,
    )
    assert table.read() == [(2, "é1.png", 2, "p1"), (5, "b", 3, "p2")]


def test_first_column_with_a_byte_order_mark(make) -> None:
    table = make("id,grade", "a,1", image_column="id", label_column="grade", positional=False, encoding="utf-8-sig")
    assert table.read() == [(2, "a", 1, None)]


def test_positional_columns_and_names_that_override_them(make) -> None:
    rows = ("id_code,diagnosis,other,patient", "a,4,1,p")
    assert make(*rows).read() == [(2, "a", 4, None)]
    assert make(*rows, label_column="other", subject_column="patient").read() == [(2, "a", 1, "p")]


def test_lines_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"id,label\r\na,1\r\n\r\nb,2\r\n")
    rows = LabelTable(str(tmp_path / "labels.csv"), 3, positional=True).read()
    assert [(row.number, row.file, row.label) for row in rows] == [(2, "a", 1), (4, "b", 2)]


def test_label_map_comes_before_the_range(make) -> None:
    table = make("id,label", "a,-1", "b,7", "c,1", num_classes=2, label_map={-1: 0, 7: 1})
    assert labels(table, "a.png", "b.png", "c.png") == {"a": 0, "b": 1, "c": 1}


def test_a_label_that_the_label_map_makes_wrong_is_told_as_such(make) -> None:
    with pytest.raises(UserError, match=r"row 3 has label 1, which label_map turns into 5, expected 0 to 1") as error:
        make("id,label", "a,0", "b,1", num_classes=2, label_map={1: 5}).read()
    assert str(error.value).endswith("Change num_classes, or correct label_map.")


def test_a_suffix_is_added_or_replaced(make) -> None:
    rows = ("id,label", "a,0", "b.jpeg,1", "c.PNG,2", "d.1,3")
    table = make(*rows, suffix=".png")
    assert [row.file for row in table.read()] == ["a.png", "b.png", "c.png", "d.1.png"]
    assert labels(table, "a.png", "b.PNG", "c.png", "d.1.png") == {"a": 0, "b": 1, "c": 2, "d.1": 3}
    assert make("id,label", "a,0", suffix="_left.jpeg").read()[0].file == "a_left.jpeg"
    assert table.suffixes((".jpg", ".png")) == (".png",)
    assert make(*rows).suffixes((".jpg", ".png")) == (".jpg", ".png")


def test_without_a_suffix_the_file_or_the_one_with_this_stem(make) -> None:
    table = make("id,label", "a.jpg,0", "b,1", "c.d,2")
    assert labels(table, "a.jpg", "b.tif", "c.d.png", "unnamed.png") == {"a": 0, "b": 1, "c.d": 2}
    with pytest.raises(UserError, match=r"1 of 3 rows have no file in photos; the first is row 2, 'a.jpg'"):
        labels(table, "a.png", "b.tif", "c.d.png")


@pytest.mark.parametrize("suffix", ["png", ".bmp", ""])
def test_bad_suffix(make, suffix: str) -> None:
    with pytest.raises(UserError, match="suffix: expected an ending in .jpg, .png"):
        make("id,label", "a,0", suffix=suffix).suffixes((".jpg", ".png"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "is empty"),
        (("", " , "), "is empty"),
        (("id,label",), "has no rows"),
        (("id", "a"), "has one column, 'id'"),
        (("id;label", "a;0"), "has one column, 'id;label'"),
        (("a.png,0", "b.png,1"), "row 1 has label 0; expected the names of the columns"),
        (("id,label", "a,0", "b,"), "row 3 has label '', expected an integer"),
        (("id,label", "a,mild"), "row 2 has label 'mild', expected an integer"),
        (("id,label", "a,1.5"), "row 2 has label '1.5', expected an integer"),
        (("id,label", "a,1_0"), "row 2 has label '1_0', expected an integer"),
        (("id,label", "a,5"), r"row 2 has label 5, expected 0 to 4 \(num_classes = 5\).*label_map"),
        (("id,label", "a,-1"), "row 2 has label -1"),
        (("id,label", ",1"), "row 2 has no name"),
        (("id,label", "a,1,2"), "row 2 has 3 cells, expected 2"),
        (("id,label", "a"), "row 2 has 1 cells, expected 2"),
        (("id,label", "../a,1"), "row 2: '../a' is no plain file name"),
        (("id,label", "/etc/a,1"), "row 2: '/etc/a' is no plain file name"),
        (("id,label", "..\\a,1"), "row 2: .* is no plain file name"),
        (("id,label", '"a,1'), "is no CSV table: .*quotes"),
    ],
)
def test_bad_tables_are_named_with_their_row(make, rows, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s)labels.csv.*{message}"):
        make(*rows).read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "image"}, r"label_column: is not set.*labels.csv has the columns 'image', 'lebel', 'x', 'x'"),
        ({"label_column": "lebel"}, "image_column: is not set"),
        (
            {"image_column": "image", "label_column": "label"},
            r"label_column: there is no column 'label'.*'image', 'lebel'.*Did you mean 'lebel'",
        ),
        ({"image_column": "image", "label_column": "x"}, "label_column: 'x' is the name of several columns"),
        (
            {"image_column": "image", "label_column": "lebel", "subject_column": "patient"},
            "subject_column: there is no column 'patient'",
        ),
    ],
)
def test_missing_columns_are_named_with_those_there_are(make, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make("image,lebel,x,x", "a,0,1,1", positional=False, **options).read()


def test_empty_subjects(make) -> None:
    with pytest.raises(UserError, match="row 3 has no subject"):
        make("id,label,who", "a,0,p", "b,0,", subject_column="who").read()


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.csv: this table does not exist"):
        LabelTable(tmp_path / "nothing.csv", 2, positional=True).read()
    with pytest.raises(UserError, match="is a folder, expected a file"):
        LabelTable(tmp_path, 2, positional=True).read()
    for content in (b"PK\x03\x04\xff\xfe", "id,label\né,0".encode("latin-1"), b"id,label\na\x00,1"):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"t.csv"):
            labels(LabelTable(tmp_path / "t.csv", 2, positional=True), "a.png")


def test_ids_without_files_are_counted(make) -> None:
    table = make("id,label", "a,0", "b,1", "c,2", suffix=".png")
    with pytest.raises(UserError, match=r"2 of 3 rows have no file in photos; the first is row 3, 'b.png'.*suffix"):
        labels(table, "a.png")


@pytest.mark.parametrize("again", ["a", "a.png", "a.PNG"])
def test_duplicate_ids(make, again: str) -> None:
    with pytest.raises(UserError, match="rows 2 and 4 are both about"):
        labels(make("id,label", "a,0", "b,1", f"{again},0"), "a.png", "b.png")
