from __future__ import annotations

import os
from pathlib import Path

import pytest

from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.labels.tables import Classes
from self_supervised_3d_tasks.errors import UserError

CHANNELS = (
    "id,subject,session,t1,age,t2,mask,label",
    "x,p1,s1,{0}_t1.nii,70,{0}_t2.nii,,1",
    "y,p1,s2,b_t1.nii,,b_t2.nii,b.nii,",
)


def write(
    folder: Path, *rows: str, name: str = "index.csv", files: tuple[str, ...] = (), encoding: str = "utf-8"
) -> Path:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).touch()
    (folder / name).write_text("\n".join(rows), encoding=encoding)
    return folder / name


@pytest.fixture
def two(tmp_path: Path) -> Path:
    files = ("a_t1.nii", "a_t2.nii", "b_t1.nii", "b_t2.nii", "b.nii")
    return write(tmp_path, *(row.format("a") for row in CHANNELS), files=files, encoding="utf-8-sig")


def test_channels_subjects_and_other_columns(two: Path) -> None:
    x, y = find_cases("index", two)
    assert (x.name, x.subject, [path.name for path in x.images]) == ("x", "p1", ["a_t1.nii", "a_t2.nii"])
    assert x.columns == (("session", "s1"), ("age", "70")) and x.row == f"{two}: row 2"
    assert (x.mask, x.label) == (None, None) == (y.mask, y.label)
    (chosen, _) = find_cases("index", two, channel_columns=["t2", "t1"])
    assert [path.name for path in chosen.images] == ["a_t2.nii", "a_t1.nii"]
    with pytest.raises(
        UserError, match=r"channel_columns: .* no column 't3'; its columns are id, subject, session, t1, age"
    ):
        find_cases("index", two, channel_columns=["t3"])


def test_rows_without_a_mask_or_class_are_left_out_and_counted(two: Path, caplog) -> None:
    caplog.set_level("INFO", logger="absl")
    (case,) = find_cases("index", two, Labels())
    assert (case.name, case.mask) == ("y", two.parent / "b.nii")
    assert "1 of 2 rows have no mask; left out" in caplog.text
    (case,) = find_cases("index", two, Labels(classes=Classes(3, {1: 2})))
    assert (case.name, case.label, case.mask) == ("x", 2, None)
    assert "1 of 2 rows have no label; left out" in caplog.text
    with pytest.raises(UserError, match=r"row 2 has label 1, expected 0 to 0"):
        find_cases("index", two, Labels(classes=Classes(1)))


def test_only_an_image_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, "image,site", "sub-1_a.nii,x.nii", f"{tmp_path}/d/c.npy,", files=("sub-1_a.nii", "d/c.npy"))
    cases = find_cases("index", path)
    assert [(case.name, case.subject, case.image) for case in cases] == [
        ("c", "c", tmp_path / "d/c.npy"),
        ("sub-1_a", "sub-1", tmp_path / "sub-1_a.nii"),
    ]
    assert [case.subject for case in find_cases("index", path, subject_pattern="(.)$")] == ["c", "a"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["id,image", "x,no.nii"], r"row 2, column 'image': .*no.nii: this file does not exist; .* 1 of 1 rows"),
        (["id,image", "x,a.nii", "x,b.nii"], "row 3 has the id 'x' of row 2"),
        (["image", "a.nii", "d/a.nii"], "row 3 has the id 'a' of row 2.*column 'id'"),
        (["id,image", "x,"], "row 2 has nothing in the column 'image'"),
        (["id,t1,t2", "x,a.nii,b.nii", "y,b.nii,"], "row 3 has nothing in the column 't2'.*channel_columns"),
        (["id,image", ",a.nii"], "row 2 has nothing in the column 'id'"),
        (["id,subject,image", "x,,a.nii"], "row 2 has nothing in the column 'subject'"),
        (["id,image", "x/y,a.nii"], "row 2 has the id 'x/y', which cannot"),
        (["id,image", "x,a.nii,b"], "row 2 has 3 cells, expected 2"),
        (["id,image", "x,d"], "row 2, column 'image': .*d: is a folder, expected a file"),
        (["id,image", "x,notes.txt"], "row 2, column 'image': .*notes.txt: does not end in"),
        (["id,image", "x,gone.nii"], "row 2, column 'image': .*gone.nii: is a link to nowhere, which is not there"),
        (["id,image", "x,fifo.nii"], "row 2, column 'image': .*fifo.nii: is a pipe, expected a file"),
        (["id,subject,image", "x,p,a.nii", "y,q,a.nii"], "row 3 has the scan .*a.nii of row 2, but another subject"),
        (["id,image,image", "x,a.nii,b.nii"], "several columns are called 'image'"),
        (["id,age", "x,70"], "no column holds names of scans"),
        (["id,image"], "has no rows below"),
        ([], "is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    path = write(tmp_path, *rows, files=("a.nii", "b.nii", "d/a.nii", "notes.txt"))
    (tmp_path / "gone.nii").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.nii")
    with pytest.raises(UserError, match=f"(?s)index.csv.*{message}"):
        find_cases("index", path)


def test_no_masks_no_classes_and_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, "image,mask", "a.nii,", files=("a.nii",))
    with pytest.raises(UserError, match="no row has a mask"):
        find_cases("index", path, Labels())
    with pytest.raises(UserError, match="there is no column 'label'"):
        find_cases("index", path, Labels(classes=Classes(2)))
    with pytest.raises(UserError, match=r"is a folder.*prepare.py index"):
        find_cases("index", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        find_cases("index", tmp_path / "no.csv")
    with pytest.raises(UserError, match='is a table, expected "index"'):
        find_cases("nifti", path)


def test_a_subject_column_and_a_pattern(two: Path) -> None:
    with pytest.raises(UserError, match="subject_pattern: .*column of subjects"):
        find_cases("index", two, subject_pattern="(.)")


def test_a_folder_for_a_model_of_an_index(tmp_path: Path) -> None:
    write(tmp_path, "image", "a.nii", files=("a.nii", "p/b.nii"))
    assert [case.name for case in find_cases("index", tmp_path, suffixes=(".nii",))] == ["a", "b"]


def test_a_subject_of_two_indexes_is_named_with_both_rows(tmp_path: Path) -> None:
    header = "id,subject,image"
    train = write(tmp_path, header, "x,p1,a.nii", "y,p2,b.nii", "w,p4,d.nii", files=("a.nii", "b.nii", "d.nii"))
    test = write(tmp_path, header, "v,p5,e.nii", "z,p2,c.nii", name="test.csv", files=("c.nii", "e.nii"))
    train, test = find_cases("index", train), find_cases("index", test)
    options = {"val_split": 0.3, "test_split": 0.2, "percent": 100, "repetition": 0, "seed": 0}
    with pytest.raises(UserError, match=r"index.csv: row 3 and .*test.csv: row 3: a scan of subject 'p2'"):
        splits.finetuning_split(train, test, **options)
    assert len(splits.finetuning_split(train, test[:1], **options).test) == 1


def test_files_are_looked_up_by_one_listing_per_folder(tmp_path: Path, monkeypatch) -> None:
    files = [f"s{number // 10}/{number % 10}_t{channel}.nii" for number in range(40) for channel in "12"]
    rows = [f"c{number},{files[2 * number]},{files[2 * number + 1]}" for number in range(40)]
    path, listed, scandir = write(tmp_path, "id,t1,t2", *rows, files=tuple(files)), [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    assert len(find_cases("index", path)) == 40
    assert sorted(listed) == [str(tmp_path / f"s{number}") for number in range(4)]
