from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.preparation import index

ROOT = Path(__file__).parents[2]


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def prepare(folder: Path, **options) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return the rows, and why files were left out."""
    output = folder.parent / "made" / "index.csv"
    index.prepare(folder, output, index.Options(**options))
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(output.with_name("index_left_out.csv"), newline="") as file:
        return rows, {row["file"]: row["why"] for row in csv.DictReader(file)}


def test_one_folder_per_subject_in_brats_naming(tmp_path: Path) -> None:
    kinds = ("t1", "t1ce", "t2", "flair")
    data = make(tmp_path / "data", *(f"{case}/{case}_{kind}.nii.gz" for case in ("A-1", "B-2", "C") for kind in kinds))
    make(data, "A-1/A-1_seg.nii.gz", "D/D_t1.nii.gz", "D/D_seg.nii.gz", "A-1/readme.txt", "B-2/B-2_t1c-old_pd.nii.gz")
    rows, left_out = prepare(data)
    assert list(rows[0]) == ["id", "subject", "session", *kinds, "mask"]
    assert [(row["id"], row["subject"], row["mask"]) for row in rows] == [
        ("A-1", "A-1", "../data/A-1/A-1_seg.nii.gz"),
        ("B-2", "B-2", ""),
        ("C", "C", ""),
    ]
    assert rows[2]["t1ce"] == "../data/C/C_t1ce.nii.gz"
    assert left_out == {
        "A-1/readme.txt": "of other formats",
        "B-2/B-2_t1c-old_pd.nii.gz": "scans of another kind (pd)",
        "D/D_seg.nii.gz": "masks (_seg) of no case",
        "D/D_t1.nii.gz": "scans of cases without t1ce and t2 and flair",
    }
    found = find_cases("index", tmp_path / "made" / "index.csv", Labels(), channel_columns=["t2", "t1"])
    assert [[path.name for path in case.images] for case in found] == [["A-1_t2.nii.gz", "A-1_t1.nii.gz"]]


def test_bids(tmp_path: Path) -> None:
    data = make(tmp_path / "data", "derivatives/sub-1/anat/sub-1_T1w.nii.gz", "participants.tsv")
    for subject, session in (("1", "a"), ("1", "b"), ("2", "a")):
        stem = f"sub-{subject}_ses-{session}"
        folder = f"sub-{subject}/ses-{session}"
        make(data, f"{folder}/anat/{stem}_T1w.nii.gz", f"{folder}/anat/{stem}_label-lesion_mask.nii.gz")
        make(data, *(f"{folder}/func/{stem}_run-{run}_bold.nii.gz" for run in (1, 2)))
    rows, left_out = prepare(data)
    assert [(row["id"], row["subject"], row["session"]) for row in rows] == [
        ("sub-1_ses-a", "sub-1", "ses-a"),
        ("sub-1_ses-b", "sub-1", "ses-b"),
        ("sub-2_ses-a", "sub-2", "ses-a"),
    ]
    assert all(row["T1w"].endswith("_T1w.nii.gz") and row["mask"].endswith("_label-lesion_mask.nii.gz") for row in rows)
    assert left_out["derivatives"] == "derivatives or sourcedata of BIDS"
    assert left_out["sub-1/ses-a/func/sub-1_ses-a_run-1_bold.nii.gz"] == "scans in a folder func"
    assert len(left_out) == 8


def test_decathlon_and_nnunet(tmp_path: Path) -> None:
    task = make(
        tmp_path / "Task04", "imagesTr/h_1.nii.gz", "labelsTr/h_1.nii.gz", "imagesTs/h_2.nii.gz", "dataset.json"
    )
    make(task, "imagesTr/._h_1.nii.gz", "labelsTr/h_9.nii.gz")
    rows, left_out = prepare(task)
    assert [(row["id"], row["image"], row["mask"]) for row in rows] == [
        ("h_1", "../Task04/imagesTr/h_1.nii.gz", "../Task04/labelsTr/h_1.nii.gz"),
        ("h_2", "../Task04/imagesTs/h_2.nii.gz", ""),
    ]
    assert left_out == {
        "dataset.json": "of other formats",
        "imagesTr/._h_1.nii.gz": "hidden",
        "labelsTr/h_9.nii.gz": "masks of no case",
    }
    other = make(
        tmp_path / "nn" / "set", *(f"imagesTr/c_{case}_000{channel}.nii.gz" for case in "12" for channel in "01")
    )
    make(other, "labelsTr/c_1.nii.gz", "labelsTr/c_2.nii.gz")
    rows, left_out = prepare(other)
    assert [(row["id"], row["channel_0001"][-16:], row["mask"][-10:]) for row in rows] == [
        ("c_1", "/c_1_0001.nii.gz", "c_1.nii.gz"[-10:]),
        ("c_2", "/c_2_0001.nii.gz", "c_2.nii.gz"[-10:]),
    ]
    assert left_out == {}


def test_files_that_are_called_alike_and_numbered_ones(tmp_path: Path) -> None:
    data = make(
        tmp_path / "a" / "data", *(f"p{n}/visit{v}/{file}.nii" for n in "12" for v in "12" for file in ("T1", "mask"))
    )
    rows, _ = prepare(data)
    assert [(row["id"], row["subject"], row["session"], bool(row["mask"])) for row in rows] == [
        (f"p{n}_visit{v}", f"p{n}", f"visit{v}", True) for n in "12" for v in "12"
    ]
    rows, _ = prepare(make(tmp_path / "b" / "flat", *(f"img_{number:04}.nii" for number in range(12))))
    assert [row["id"] for row in rows] == [f"img_{number:04}" for number in range(12)]


def test_masks_where_names_do_not_say_it(tmp_path: Path) -> None:
    data = make(tmp_path / "ct", "x.nii", "y.nii", "y_roi7.nii")
    make(tmp_path / "oar", "x.nii")
    rows, left_out = prepare(data, label_dir=str(tmp_path / "oar"), channels="image", label_stem="")
    assert [(row["id"], row["mask"]) for row in rows] == [("x", "../oar/x.nii"), ("y", ""), ("y_roi7", "")]
    (tmp_path / "made" / "index.csv").unlink()
    rows, left_out = prepare(data, label_stem="_roi7")
    assert [(row["id"], row["mask"]) for row in rows] == [("x", ""), ("y", "../ct/y_roi7.nii")]
    assert left_out == {}


def test_photographs(tmp_path: Path) -> None:
    rows, left_out = prepare(make(tmp_path / "eyes", "1_L.jpg", "1_R.jpg"), subject_pattern="^(.+)_")
    assert [row["subject"] for row in rows] == ["1", "1"]


def test_an_index_that_someone_has_changed_is_kept(tmp_path: Path) -> None:
    data = make(tmp_path / "data", "a.nii")
    prepare(data)
    assert prepare(data)[0][0]["id"] == "a"
    path = tmp_path / "made" / "index.csv"
    path.write_text("id,image\nmine,../data/a.nii\n")
    with pytest.raises(UserError, match="exists with another content"):
        prepare(data)
    assert "mine" in path.read_text()


def test_what_cannot_be_indexed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the name of a CSV file"):
        index.prepare(make(tmp_path / "data", "a_t1.nii"), tmp_path / "out", index.Options())
    with pytest.raises(UserError, match="--channels: no case has t2; there are t1"):
        index.prepare(tmp_path / "data", tmp_path / "out.csv", index.Options(channels="t2"))
    with pytest.raises(UserError, match="holds no"):
        index.prepare(make(tmp_path / "empty", "notes.txt"), tmp_path / "out.csv", index.Options())
    assert not list(tmp_path.glob("out*"))


def test_the_command_takes_a_folder(tmp_path: Path) -> None:
    make(tmp_path / "data", "a.nii")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "prepare.py", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    done = run("index", tmp_path / "data", "--output", tmp_path / "index.csv")
    assert done.returncode == 0, done.stderr
    assert "1 cases of 1 subjects, 0 with a mask; channels image" in done.stderr
    assert (tmp_path / "index.csv").read_text() == "id,subject,session,image,mask\na,a,,data/a.nii,\n"
    missing = run("index", "--output", tmp_path / "x.csv")
    assert missing.returncode == 2 and "FOLDER is missing; usage: python prepare.py index FOLDER" in missing.stderr
    assert "unexpected argument 'b'" in run("index", "a", "b", "--output", "x").stderr
