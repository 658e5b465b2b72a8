"""Names and paths as people, disks and other programs write them: read, or refused in one sentence."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.folders import index
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.data.splits import pretraining_split
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files import paths
from self_supervised_3d_tasks.files.json_files import read_json, write_json
from self_supervised_3d_tasks.files.tables import read_table, write_table
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.preparation import index as index_of_folder

KEYS = {"algorithm": "rotation", "dataset_name": "nifti", "data_dim": 32, "number_channels": 1}
LATIN_1 = os.fsdecode(b"M\xfcller")
TAKEN_APART = unicodedata.normalize("NFD", "M\u00fcller")

BAD = {
    "unknown home": ("~nosuchuser/scans", "home folder"),
    "NUL": ("scans\0", "NUL"),
    "5,000 characters": ("x/" * 2500, "has 5000 "),
    "a name of 256 bytes": ("x" * 256, "has 256 bytes"),
    "a name of 129 umlauts": ("\u00e4" * 129, "has 258 bytes"),
    "no text": ("a\ud800b", "holds no valid text"),
    "missing": ("nowhere", "this folder does not exist"),
    "a folder below a file": ("file.txt/scans", "a part of this path is a file"),
    "a file": ("file.txt", "is a file, expected a folder"),
    "a pipe": ("pipe", "is a pipe, expected a folder"),
    "a device": ("/dev/null", "is a device, expected a folder"),
    "a file of the kernel": ("/proc/version", "is a file, expected a folder"),
    "dangling": ("gone", "is a link to nowhere, which is not there"),
    "a circle of links": ("circle", "links lead in a circle"),
    "empty": ("empty", "found none"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which there are things that are no folders of scans."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("hello")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"no text"}))
def test_a_folder_of_scans_that_is_none_is_refused_with_its_cause(name, folder, run_command):
    path, cause = BAD[name]
    (folder / "train.json").write_text(json.dumps(KEYS | {"data_dir": path}))
    ended = run_command("train", "train.json", "--dry_run")
    assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended
    assert cause in ended.err and len(ended.err) < 1000
    assert "copy it again" not in ended.err.lower()


@pytest.mark.parametrize("command", ["train", "finetune", "predict", "analyse", "prepare"])
@pytest.mark.parametrize("name", ["unknown home", "NUL", "5,000 characters", "a name of 256 bytes", "no text"])
def test_every_command_refuses_what_is_no_path(command, name, folder, run_command):
    path, cause = BAD[name]
    arguments = {"predict": [path, "in", "out"], "prepare": ["index", path, "--output", "index.csv"]}
    ended = run_command(command, *arguments.get(command, [path]))
    assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended
    assert cause in ended.err and len(ended.err) < 1000


def test_without_a_home_a_tilde_is_refused_and_nothing_else(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", lambda path: unknown(path) if str(path).startswith("~") else path)
    with pytest.raises(UserError, match="^~/x: whose home folder"):
        paths.as_path("~/x")
    assert paths.as_path("x") == Path("x")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.as_path("~/scans") == tmp_path / "scans"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_refuses_is_no_damage(code, tmp_path, monkeypatch):
    """Permission asks for permission, not for another copy. Simulated: an administrator may read everything."""
    scan = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), scan)
    original = open

    def refuse(file, *arguments, **options):
        if str(file).endswith("a.nii"):
            raise OSError(code, os.strerror(code), str(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"a\.nii: cannot be read: ") as error:
        formats.read_image(scan, 3)
    assert "copy it again" not in str(error.value) and "Expected a complete" not in str(error.value)


def test_damage_asks_for_another_copy(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"\0" * 1000)
    with pytest.raises(UserError, match=r"a\.nii: cannot be read .*copy it again"):
        formats.read_image(tmp_path / "a.nii", 3)


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.uint8), np.eye(4)), path)


def test_a_name_that_is_no_utf8_is_read_split_written_and_drawn(tmp_path, caplog):
    for name in (LATIN_1, "Meier"):
        save(tmp_path / "scans" / f"{name}.nii")
        save(tmp_path / "masks" / f"{name}.nii")
    cases = find_cases("nifti", tmp_path / "scans", Labels(mask_dir=tmp_path / "masks"))
    names = [case.name for case in cases]
    assert names == ["Meier", LATIN_1]
    parts = pretraining_split(cases, 0.5, 0)
    assert sorted(case.name for part in parts.values() for case in part) == names
    write_table(tmp_path / "t.csv", ["case"], [[name] for name in names])
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "case\nMeier\nM\\udcfcller\n"
    assert read_table(tmp_path / "t.csv", ["case"], "") == [["Meier"], [LATIN_1]]
    write_json(tmp_path / "t.json", names)
    assert read_json(tmp_path / "t.json") == names
    with canvas.chart(tmp_path / "t.png", 2, 2) as (_, axes):
        axes.set_title(LATIN_1)
    assert (tmp_path / "t.png").stat().st_size > 0


def test_an_index_of_names_that_are_no_utf8(tmp_path):
    save(tmp_path / "scans" / f"{LATIN_1}.nii")
    save(tmp_path / "scans" / "Meier.nii")
    index_of_folder.prepare(tmp_path / "scans", tmp_path / "index.csv", index_of_folder.Options())
    assert not (tmp_path / "index_left_out.csv").read_text().count("\n") > 1
    rows = index.read(tmp_path / "index.csv")
    assert [row.name for row in rows] == ["Meier", LATIN_1]
    assert all(row.images[0].is_file() for row in rows)


@pytest.mark.parametrize(("on_disk", "written"), [(TAKEN_APART, "M\u00fcller"), ("M\u00fcller", TAKEN_APART)])
def test_accents_that_are_taken_apart_name_the_same_file(on_disk, written, tmp_path):
    save(tmp_path / on_disk / f"{on_disk}.nii")
    save(tmp_path / f"{on_disk}_labels" / f"{written}.nii", 1)
    folder = paths.as_path(tmp_path / written)
    assert folder.name == on_disk
    (case,) = find_cases("nifti", tmp_path / written, Labels())
    assert case.name == "M\u00fcller" and case.image.is_file() and case.mask.is_file()
    (tmp_path / "i.csv").write_text(f"id,image\nx,{written}/{written}.nii\n", encoding="utf-8")
    assert index.read(tmp_path / "i.csv")[0].images == (tmp_path / on_disk / f"{on_disk}.nii",)
    (tmp_path / "l.csv").write_text(f"id,label\n{written},1\n", encoding="utf-8")
    table = LabelTable(tmp_path / "l.csv", 2, positional=True)
    assert table.rows_by_name(folder, {case.name: case.images}).keys() == {case.name}


def test_a_name_in_both_forms_is_one_name_too_many(tmp_path):
    for name in ("M\u00fcller", TAKEN_APART):
        save(tmp_path / "scans" / f"{name}.nii")
    with pytest.raises(UserError, match="expected one file of this name"):
        find_cases("nifti", tmp_path / "scans")


@pytest.mark.parametrize("suffix", [".Nii.gz", ".NII.GZ", ".nii.GZ", ".Nii", ".NPY", ".MHA", ".Nrrd", ".MGZ"])
def test_suffixes_in_any_case_are_read_and_written(suffix, tmp_path):
    mask, plain = np.arange(64, dtype=np.uint8).reshape(4, 4, 4) % 3, tmp_path / f"plain{suffix.lower()}"
    save(tmp_path / "reference.nii")
    formats.write_mask(plain, mask, tmp_path / "reference.nii")
    (tmp_path / "scans").mkdir()
    plain.rename(tmp_path / "scans" / f"a{suffix}")
    (case,) = find_cases("volumes", tmp_path / "scans")
    assert case.name == "a"
    np.testing.assert_array_equal(formats.read_mask(case.image, 3).array, mask)
    formats.write_mask(tmp_path / f"b{suffix}", mask, tmp_path / "reference.nii")
    np.testing.assert_array_equal(formats.read_mask(tmp_path / f"b{suffix}", 3).array, mask)


def test_sessions_of_a_person_stay_on_one_side(tmp_path):
    for subject in (1, 2):
        for session in ("test", "retest"):
            save(tmp_path / "bids" / f"sub-{subject:02}_ses-{session}_T1w.nii")
    assert {case.subject for case in find_cases("nifti", tmp_path / "bids")} == {"sub-01", "sub-02"}


def test_masks_beside_scans_are_told_and_left_out_by_their_ending(tmp_path, caplog):
    for name in ("s0", "s1"):
        save(tmp_path / "scans" / f"{name}.nii")
        save(tmp_path / "scans" / f"{name}_seg.nii", 1)
    assert len(find_cases("nifti", tmp_path / "scans")) == 4
    assert "set label_stem to '_seg'" in caplog.text
    assert [case.name for case in find_cases("nifti", tmp_path / "scans", label_stem="_seg")] == ["s0", "s1"]
