from __future__ import annotations

from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.data.layouts import LAYOUTS
from self_supervised_3d_tasks.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_cases_are_sorted_with_their_masks(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "b.npy", "a.npy", ".DS_Store", "readme.txt")
    touch(tmp_path / "scans_labels", "a_label.npy", "b_label.npy", "c_label.npy")
    cases = find_cases("pancreas3d", scans, Labels())
    assert [(case.name, case.subject) for case in cases] == [("a", "a"), ("b", "b")]
    assert cases[0].image == scans / "a.npy" and cases[0].images == (scans / "a.npy",)
    assert cases[0].mask == tmp_path / "scans_labels" / "a_label.npy"


def test_trailing_slash_and_relative_folders_mean_the_same(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path / "scans", "a.npy")
    touch(tmp_path / "scans_labels", "a.npy")
    expected = find_cases("pancreas2d", tmp_path / "scans", Labels())
    monkeypatch.chdir(tmp_path / "scans")
    for folder in (f"{tmp_path}/scans/", "../scans/", ".", "./"):
        assert find_cases("pancreas2d", folder, Labels()) == expected


def test_a_linked_folder_has_its_own_labels(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(touch(tmp_path / "scans", "a.npy"))
    touch(tmp_path / "link_labels", "a.npy")
    (case,) = find_cases("npy", tmp_path / "link", Labels())
    assert case.mask == tmp_path / "link_labels" / "a.npy"


def test_nifti_stems_may_differ_in_compression(tmp_path: Path) -> None:
    touch(tmp_path / "scans", "a.nii", "b.nii.gz", "ignored.npy")
    masks = touch(tmp_path / "masks", "a_seg.nii.gz", "b_seg.nii")
    cases = find_cases("nifti", tmp_path / "scans", Labels(mask_dir=masks), label_stem="_seg")
    assert [case.mask.name for case in cases] == ["a_seg.nii.gz", "b_seg.nii"]


def test_masks_beside_the_scans_are_no_scans(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.npy", "a_label.npy", "b.npy", "b_label.npy")
    assert [case.name for case in find_cases("pancreas3d", scans)] == ["a", "b"]
    cases = find_cases("pancreas3d", scans, Labels(mask_dir=scans))
    assert [case.mask.name for case in cases] == ["a_label.npy", "b_label.npy"]


def test_channel_suffixes_group_files(tmp_path: Path) -> None:
    scans = touch(tmp_path / "s", *(f"{case}{end}.nii.gz" for case in "xy" for end in ("_t1", "_ce_t1", "_seg")))
    cases = find_cases("nifti", scans, Labels(mask_dir=scans), label_stem="_seg", channel_suffixes=["_ce_t1", "_t1"])
    assert [case.name for case in cases] == ["x", "y"]
    assert [path.name for path in cases[0].images] == ["x_ce_t1.nii.gz", "x_t1.nii.gz"]
    assert cases[1].mask.name == "y_seg.nii.gz"
    (scans / "y_t1.nii.gz").unlink()
    with pytest.raises(UserError, match="'y' has no file for _t1;"):
        find_cases("nifti", scans, channel_suffixes=["_ce_t1", "_t1"])
    with pytest.raises(UserError, match="no file ends in"):
        find_cases("nifti", scans, channel_suffixes=["_flair"])


def test_subject_pattern(tmp_path: Path) -> None:
    scans = touch(tmp_path / "s", "p1_s1.npy", "p1_s2.npy", "p2_s1.npy")
    cases = find_cases("npy", scans, subject_pattern=r"^(p\d+)_")
    assert [case.subject for case in cases] == ["p1", "p1", "p2"]


@pytest.mark.parametrize("pattern", ["(", "p1", "(p)(1)", "^(p1)_", "(x)?_"])
def test_bad_subject_pattern(tmp_path: Path, pattern: str) -> None:
    scans = touch(tmp_path / "s", "p1_s1.npy", "p2_s1.npy")
    with pytest.raises(UserError, match="subject_pattern"):
        find_cases("npy", scans, subject_pattern=pattern)


def test_missing_masks_are_counted_and_named(tmp_path: Path) -> None:
    scans = touch(tmp_path / "scans", "a.npy", "b.npy", "c.npy")
    with pytest.raises(UserError, match="scans_labels: this folder of masks does not exist"):
        find_cases("brats", scans, Labels())
    touch(tmp_path / "scans_labels", "b_label.npy")
    with pytest.raises(UserError, match=r"2 of 3 scans have no mask.*a_label.npy for .*a.npy.*label_stem"):
        find_cases("brats", scans, Labels())


def test_two_files_of_one_name(tmp_path: Path) -> None:
    scans = touch(tmp_path / "s", "a.nii", "a.nii.gz")
    with pytest.raises(UserError, match=r"a.nii and .*a.nii.gz"):
        find_cases("nifti", scans)


def test_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pancreas3d"):
        find_cases("pancreas_3d", tmp_path)


def test_upstream_layouts() -> None:
    assert {name: (layout.rank, layout.volume_fitting, layout.label_stem) for name, layout in LAYOUTS.items()} == {
        "pancreas3d": (3, "exact", "_label"),
        "brats": (3, "crop", "_label"),
        "ukb3d": (3, "crop", "_label"),
        "pancreas2d": (2, "exact", ""),
        "kaggle_retina": (2, "exact", ""),
        "ukb2d": (2, "exact", ""),
        "images": (2, "resize", ""),
        "chestxray": (2, "resize", ""),
        "volumes": (None, "resize", ""),
        "index": (None, "resize", ""),
        "nifti": (3, "resize", ""),
        "npy": (None, "exact", ""),
        "medmnist": (None, "exact", ""),
    }


def test_defaults_that_a_layout_brings() -> None:
    retina, volumes = LAYOUTS["kaggle_retina"], LAYOUTS["nifti"]
    assert (retina.num_classes, retina.intensity_window, retina.labels) == (5, (0, 255), "table")
    assert (volumes.num_classes, volumes.intensity_window, volumes.labels) == (3, None, "any")
    assert (LAYOUTS["ukb2d"].labels, LAYOUTS["images"].labels, LAYOUTS["pancreas3d"].labels) == ("none", "any", "masks")


def write_table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows))
    return path


def test_a_table_chooses_labels_and_groups_the_scans(tmp_path: Path, caplog) -> None:
    scans = touch(tmp_path / "photos", "1_L.JPG", "1_R.jpg", "2_L.jpg", "3_L.jpg")
    csv = write_table(tmp_path / "t.csv", "eye,grade,who", "1_R.jpg,2,p1", "1_L.jpg,0,p1", "2_L.jpg,1,p2")
    table = LabelTable(csv, 3, "eye", "grade", "who")
    caplog.set_level("INFO", logger="absl")
    cases = find_cases("images", scans, Labels(table))
    assert [(case.name, case.label, case.subject, case.mask) for case in cases] == [
        ("1_L", 0, "p1", None),
        ("1_R", 2, "p1", None),
        ("2_L", 1, "p2", None),
    ]
    assert [case.image.name for case in cases] == ["1_L.JPG", "1_R.jpg", "2_L.jpg"]
    assert "1 scans are not in" in caplog.text and "subject of its own" not in caplog.text


def test_subjects_of_a_table_without_their_column(tmp_path: Path, caplog) -> None:
    scans = touch(tmp_path / "photos", "1_L.jpg", "1_R.jpg")
    table = LabelTable(write_table(tmp_path / "t.csv", "id_code,diagnosis", "1_L,0", "1_R,4"), 5, positional=True)
    cases = find_cases("kaggle_retina", scans, Labels(table))
    assert [(case.subject, case.label) for case in cases] == [("1_L", 0), ("1_R", 4)]
    assert "photographs of one person" in caplog.text and "subject_column" in caplog.text
    caplog.clear()
    cases = find_cases("kaggle_retina", scans, Labels(table), subject_pattern="^(.+)_")
    assert [case.subject for case in cases] == ["1", "1"]
    assert not caplog.records


@pytest.mark.parametrize(("layout", "suffix"), [("nifti", ".nii.gz"), ("npy", ".npy")])
def test_a_table_labels_volumes_and_their_channels(tmp_path: Path, layout: str, suffix: str) -> None:
    scans = touch(tmp_path / "scans", *(f"{case}{end}{suffix}" for case in "xy" for end in ("_t1", "_t2")))
    csv = write_table(tmp_path / "t.csv", "case,class", "x,1", "y,0")
    cases = find_cases(layout, scans, Labels(LabelTable(csv, 2, "case", "class")), channel_suffixes=["_t2", "_t1"])
    assert [(case.name, case.label, len(case.images)) for case in cases] == [("x", 1, 2), ("y", 0, 2)]
    whole = touch(tmp_path / "whole", f"x{suffix}", f"y{suffix}")
    for ending in (None, suffix):
        table = LabelTable(csv, 2, "case", "class", suffix=ending)
        assert [case.label for case in find_cases(layout, whole, Labels(table))] == [1, 0]


def test_images_with_masks(tmp_path: Path) -> None:
    scans = touch(tmp_path / "photos", "a.jpg", "b.tif")
    touch(tmp_path / "photos_labels", "a.png", "b.PNG")
    cases = find_cases("images", scans, Labels())
    assert [case.mask.name for case in cases] == ["a.png", "b.PNG"]
    (tmp_path / "photos_labels" / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png for .*a\.jpg"):
        find_cases("images", scans, Labels())
