from __future__ import annotations

import os
from pathlib import Path

import pytest

from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.folders import naming, trees
from self_supervised_3d_tasks.data.folders.trees import Place
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.errors import UserError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names_of(root: Path, dataset: str = "nifti", **options) -> list[str]:
    return [case.name for case in find_cases(dataset, root, **options)]


def test_a_stem_names_a_case_unless_another_has_it(tmp_path: Path) -> None:
    make(tmp_path, "a/one.nii", "a/two.nii.gz", "b/c/one.nii", "three.nii")
    assert names_of(tmp_path) == ["a_one", "b_c_one", "three", "two"]
    make(tmp_path, "a_one.nii")
    with pytest.raises(UserError, match=r"a/one and a_one|a_one and a/one"):
        find_cases("nifti", tmp_path)


def test_what_is_left_out_is_counted_in_one_line(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="absl")
    make(tmp_path, "p/a.nii", "p/a.json", "q/.b.nii", "q/b.nii", "q/x.tsv", "q/y.json", ".git/c.nii", "empty/notes.txt")
    (tmp_path / "again").symlink_to(tmp_path / "p")
    assert names_of(tmp_path) == ["a", "b"]
    (told,) = (message for message in caplog.messages if "left out" in message)
    assert "2 scans; left out: 2 hidden, " in told and "4 of other formats (.json 2, " in told
    assert "1 sub-folders without scans" in told and "1 links into the same folder" in told


def test_a_clean_folder_says_nothing(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="absl")
    make(tmp_path, "a.nii", "b.nii")
    assert names_of(tmp_path) == ["a", "b"]
    assert not caplog.records


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    make(tmp_path, "store/p1/a.nii", "scans/b.nii")
    (tmp_path / "scans/linked").symlink_to(tmp_path / "store")
    (tmp_path / "store/up").symlink_to(tmp_path / "scans")
    (tmp_path / "store/loop").symlink_to(tmp_path / "store")
    assert names_of(tmp_path / "scans") == ["a", "b"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.nii", "b_bold.nii", "b_T1w.nii")
    (tmp_path / "c_bold.nii").symlink_to("annex/c")
    with pytest.raises(UserError, match=r"1 of 4 files are links that lead nowhere, the first .*c_bold.nii -> annex/c"):
        find_cases("nifti", tmp_path)
    # What is not asked for need not be there.
    assert names_of(tmp_path, channel_suffixes=["_T1w"]) == ["b"]


def test_what_only_has_the_name_of_a_scan_is_named(tmp_path: Path) -> None:
    make(tmp_path / "folder", "a.nii", "b.nii.gz/b.nii")
    with pytest.raises(UserError, match=r"b.nii.gz: has the name of a scan, but is a folder, expected a file"):
        find_cases("nifti", tmp_path / "folder")
    make(tmp_path / "fifo", "a.nii")
    os.mkfifo(tmp_path / "fifo" / "b.nii")
    with pytest.raises(UserError, match=r"b.nii: has the name of a scan, but is a pipe"):
        find_cases("nifti", tmp_path / "fifo")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.*does not exist"):
        find_cases("nifti", tmp_path / "nowhere")
    make(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"expected .nii or .nii.gz files here or in sub-folders, found none \(1 other"):
        find_cases("nifti", tmp_path)


def test_suffixes_of_any_case_and_two_files_of_one_name(tmp_path: Path) -> None:
    make(tmp_path, "p/a.Nii.gz", "q/a.NII")
    assert list(trees.walk(tmp_path, (".nii", ".nii.gz")).files) == [Place("p", "a"), Place("q", "a")]
    make(tmp_path, "p/a.nii")
    with pytest.raises(UserError, match="expected one file of this name"):
        find_cases("nifti", tmp_path)


def test_bids(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="absl")
    for subject in ("01", "02"):
        for session in ("a", "b"):
            stem = f"sub-{subject}_ses-{session}"
            make(tmp_path / f"raw/sub-{subject}/ses-{session}", f"anat/{stem}_T1w.nii.gz", f"func/{stem}_bold.nii.gz")
            make(tmp_path / "lesions", f"sub-{subject}/ses-{session}/anat/{stem}_desc-lesion_mask.nii.gz")
    make(tmp_path / "raw", "derivatives/sub-01/anat/sub-01_T1w.nii.gz", "dataset_description.json")
    options = {"channel_suffixes": ["_T1w"]}
    cases = find_cases("nifti", tmp_path / "raw", **options)
    assert [(case.name, case.subject) for case in cases] == [
        ("sub-01_ses-a", "sub-01"),
        ("sub-01_ses-b", "sub-01"),
        ("sub-02_ses-a", "sub-02"),
        ("sub-02_ses-b", "sub-02"),
    ]
    assert "1 derivatives or sourcedata of BIDS" in caplog.text and "4 with none of the endings" in caplog.text
    labels = Labels(mask_dir=tmp_path / "lesions")
    cases = find_cases("nifti", tmp_path / "raw", labels, label_stem="_desc-lesion_mask", **options)
    assert cases[3].mask == tmp_path / "lesions/sub-02/ses-b/anat/sub-02_ses-b_desc-lesion_mask.nii.gz"


@pytest.mark.parametrize("inside", [True, False])
def test_decathlon(tmp_path: Path, inside: bool) -> None:
    make(
        tmp_path / "Task04", *(f"{folder}/h_{number}.nii.gz" for number in "12" for folder in ("imagesTr", "labelsTr"))
    )
    cases = find_cases("nifti", tmp_path / "Task04" / ("" if inside else "imagesTr"), Labels())
    assert [case.mask for case in cases] == [tmp_path / f"Task04/labelsTr/h_{number}.nii.gz" for number in "12"]
    assert names_of(tmp_path / "Task04") == ["h_1", "h_2"]


def test_nnunet(tmp_path: Path) -> None:
    make(tmp_path, *(f"imagesTr/case_{case}_000{channel}.nii.gz" for case in "ab" for channel in "01"))
    make(tmp_path, "labelsTr/case_a.nii.gz", "labelsTr/case_b.nii.gz")
    cases = find_cases("nifti", tmp_path / "imagesTr", Labels(), channel_suffixes=["_0000", "_0001"])
    assert [(case.name, len(case.images), case.mask.name) for case in cases] == [
        ("case_a", 2, "case_a.nii.gz"),
        ("case_b", 2, "case_b.nii.gz"),
    ]


@pytest.mark.parametrize("ends", [("_t1", "_t1ce", "_seg"), ("-t1n", "-t1c", "-seg")])
def test_brats(tmp_path: Path, caplog, ends: tuple[str, ...]) -> None:
    make(tmp_path, *(f"HGG/{case}/{case}{end}.nii.gz" for case in ("B_001", "B_002") for end in ends))
    cases = find_cases("nifti", tmp_path, Labels(), channel_suffixes=ends[:2], label_stem=ends[2])
    assert [(case.name, case.subject) for case in cases] == [("B_001", "B_001"), ("B_002", "B_002")]
    assert cases[0].mask.name == f"B_001{ends[2]}.nii.gz" and not caplog.records
    assert len(find_cases("nifti", tmp_path)) == 6
    told = caplog.text
    assert "2 files look like masks beside their scans" in told and f"label_stem to '{ends[2]}'" in told
    assert f"several kinds ({', '.join(f'{end} 2' for end in sorted(ends[:2]))})" in told


def test_files_that_are_called_alike_in_every_folder(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{number}/{file}.nii" for number in "123" for file in ("T1", "T2", "mask")))
    cases = find_cases("nifti", tmp_path, Labels(), channel_suffixes=["T1", "T2"], label_stem="mask")
    assert [(case.name, case.subject, case.mask.parent.name) for case in cases] == [
        (p, p, p) for p in ("p1", "p2", "p3")
    ]


def test_channels_of_two_folders_are_never_one_case(tmp_path: Path) -> None:
    make(tmp_path, "p1/x_t1.nii", "p2/x_t2.nii")
    with pytest.raises(UserError, match="p1: case 'x' has no file for _t2"):
        find_cases("nifti", tmp_path, channel_suffixes=["_t1", "_t2"])


def test_masks_by_place_and_by_name(tmp_path: Path) -> None:
    make(tmp_path / "s", "p1/a.nii", "p2/a.nii", "p2/b.nii")
    make(tmp_path / "by_place", "p1/a.nii", "p2/a.nii", "b.nii")
    make(tmp_path / "by_name", "p1_a.nii", "p2_a.nii", "b.nii")
    for folder in ("by_place", "by_name"):
        cases = find_cases("nifti", tmp_path / "s", Labels(mask_dir=tmp_path / folder))
        assert [case.name for case in cases] == ["b", "p1_a", "p2_a"]
    assert [case.mask.name for case in cases] == ["b.nii", "p1_a.nii", "p2_a.nii"]
    make(tmp_path / "wrong", "a.nii", "b.nii")
    with pytest.raises(UserError, match="2 of 3 scans have no mask"):
        find_cases("nifti", tmp_path / "s", Labels(mask_dir=tmp_path / "wrong"))


def test_a_folder_of_masks_inside_that_of_the_scans(tmp_path: Path) -> None:
    make(tmp_path, "a.nii", "b.nii", "drawn/a.nii", "drawn/b.nii")
    cases = find_cases("nifti", tmp_path, Labels(mask_dir=tmp_path / "drawn"))
    assert [(case.image.parent, case.mask.parent) for case in cases] == [(tmp_path, tmp_path / "drawn")] * 2


def test_masks_beside_scans(tmp_path: Path, caplog) -> None:
    make(tmp_path, "s0.nii", "s0_seg.nii", "s1.nii", "s1_seg.nii", "odd_seg.nii")
    assert names_of(tmp_path, label_stem="_seg") == ["odd_seg", "s0", "s1"]
    assert not caplog.records
    assert len(names_of(tmp_path)) == 5
    assert "2 files look like masks" in caplog.text
    (tmp_path / "odd_seg.nii").unlink()
    assert [case.mask.name for case in find_cases("nifti", tmp_path, Labels(), label_stem="_seg")] == [
        "s0_seg.nii",
        "s1_seg.nii",
    ]


def test_a_folder_of_masks_alone_is_not_suspected(tmp_path: Path, caplog) -> None:
    make(tmp_path, "s0_seg.nii", "s1_seg.nii")
    assert len(names_of(tmp_path)) == 2
    assert not caplog.records


def test_tables_name_files_of_a_tree(tmp_path: Path) -> None:
    make(tmp_path / "s", "p1/a.png", "p2/a.png", "p2/b.png")
    (tmp_path / "t.csv").write_text("file,grade\np1/a.png,0\np2/a,1\nb.png,2\n")
    cases = find_cases("images", tmp_path / "s", Labels(LabelTable(tmp_path / "t.csv", 3, "file", "grade")))
    assert [(case.name, case.label) for case in cases] == [("b", 2), ("p1_a", 0), ("p2_a", 1)]
    (tmp_path / "t.csv").write_text("file,grade\na.png,0\n")
    with pytest.raises(UserError, match=r"row 2 names 'a.png', of which .* has several"):
        find_cases("images", tmp_path / "s", Labels(LabelTable(tmp_path / "t.csv", 3, "file", "grade")))


@pytest.mark.parametrize(
    ("stem", "kind", "mask", "session"),
    [
        ("sub-01_ses-2_T1w", ("sub-01_ses-2", "_T1w"), "", "ses-2"),
        ("sub-01_task-rest", ("sub-01_task-rest", ""), "", ""),
        ("x-t1c", ("x", "-t1c"), "", ""),
        ("T1", ("", "T1"), "", ""),
        ("hippocampus_001", ("hippocampus_001", ""), "", ""),
        ("x_seg", ("x_seg", ""), "_seg", ""),
        ("x_Visit2_mask", ("x_Visit2_mask", ""), "_mask", "Visit2"),
        ("scan_2021-03-04", ("scan_2021-03-04", ""), "", "2021-03-04"),
    ],
)
def test_what_names_say(stem: str, kind: tuple[str, str], mask: str, session: str) -> None:
    if not mask:
        assert naming.split_kind(stem) == kind
    assert naming.split_mask(stem)[1] == mask
    assert naming.session_of(stem) == session
