"""Pipes, devices, sockets, folders and links to nowhere where a file is expected: refused at once, by name."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.folders import index
from self_supervised_3d_tasks.data.labels.tables import LabelTable
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import checksums, models, paths, tables
from self_supervised_3d_tasks.files.json_files import read_json
from self_supervised_3d_tasks.files.paths import reading

SECONDS = 5
KINDS = {
    "pipe": (os.mkfifo, "is a pipe, expected a file"),
    "socket": (lambda path: _bind(path), "is a socket, expected a file"),
    "device": (lambda path: os.symlink("/dev/zero", path), "is a device, expected a file"),
    "folder": (os.mkdir, "is a folder, expected a file"),
    "dangling": (lambda path: os.symlink("../annex/MD5", path), "link to ../annex/MD5, which is not there"),
    "circle": (lambda path: os.symlink(path.name, path), "its links lead in a circle"),
}


def _bind(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))  # the address of a socket is at most 108 bytes long


@pytest.fixture(autouse=True)
def never_blocks():
    def stop(*_):
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _base(path):
    (path.parent / "mine.json").write_text(f'{{"base": "{path.name}"}}')
    load_experiment("train", path.parent / "mine.json")


def _voxels(path):
    header = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
    (path.parent / "a.mhd").write_text(header + path.name + "\n")
    formats.read_image(path.parent / "a.mhd", 3)


def _image_of_index(path):
    (path.parent / "i.csv").write_text(f"id,image\nx,{path.name}\n")
    index.read(path.parent / "i.csv")


def _mask_of_index(path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), path.parent / "ok.nii")
    (path.parent / "i.csv").write_text(f"id,image,mask\nx,ok.nii,{path.name}\n")
    index.read(path.parent / "i.csv", masks=True)


def _checksum(path):
    model = path.parent / path.name.removesuffix(".sha256")
    model.write_bytes(b"x")
    checksums.verify_checksum(model)


PLACES = {
    "experiment": ("a.json", lambda path: load_experiment("train", path)),
    "base": ("a.json", _base),
    "JSON": ("a.json", read_json),
    "own table": ("a.csv", lambda path: tables.read_table(path, ["case"], "make it anew")),
    "label table": ("a.csv", lambda path: LabelTable(path, 2, positional=True).read()),
    "checksum": ("a.keras.sha256", _checksum),
    "model": ("a.keras", models.check_model_file),
    "image of an index": ("a.nii", _image_of_index),
    "mask of an index": ("a.nii", _mask_of_index),
    "voxels of a header": ("a.raw", _voxels),
    "scans in a folder": ("a.nii.gz", lambda path: find_cases("nifti", path.parent)),
    "masks in a folder": ("a.nii.gz", lambda path: find_cases("nifti", _scan(path), Labels(mask_dir=path.parent))),
    "archive": ("organ.npz", lambda path: find_cases("medmnist", path / "train")),
    **{
        f"{suffix} file": (f"a{suffix}", lambda path: formats.read_image(path, 3))
        for suffix in (".nii", ".nii.gz", ".npy", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr", ".png")
    },
}


def _scan(path):
    folder = path.parent.parent / "scans_of_it"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), folder / "a.nii.gz")
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_only_regular_files_are_opened(place, kind, tmp_path, monkeypatch):
    make, message = KINDS[kind]
    name, read = PLACES[place]
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    make(tmp_path / "in" / name)
    if place == "archive" and kind == "folder":
        message = "is a folder"
    if kind in ("dangling", "circle") and place.endswith("in a folder"):
        message = "links that lead nowhere"
    with pytest.raises(UserError) as error:
        read(tmp_path / "in" / name)
    assert message in str(error.value) and name in str(error.value)
    assert "copy it again" not in str(error.value).lower()


@pytest.mark.parametrize("kind", ["pipe", "dangling"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".npy", ".dcm", ".mha"])
def test_a_scan_of_a_folder_is_never_dropped_without_a_word(kind, suffix, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), folder / "ok.nii")
    KINDS[kind][0](folder / f"b{suffix}")
    with pytest.raises(UserError, match=rf"b{suffix}(: .* is a pipe| -> \.\./annex/MD5)"):
        find_cases("volumes", folder)


def test_content_that_was_never_fetched_is_named(tmp_path, write_scans):
    """Half of the scans are links of git-annex."""
    folder = write_scans(tmp_path / "scans", 6)
    for number in range(3):
        path = folder / f"case{number}.nii.gz"
        path.unlink()
        path.symlink_to(f"../.git/annex/objects/{path.name}")
    with pytest.raises(UserError, match=r"3 of 6 files are links that lead nowhere.*case0.*git annex get"):
        find_cases("nifti", folder)


def test_a_link_that_may_stand_for_a_folder_is_told(tmp_path, write_scans, caplog):
    folder = write_scans(tmp_path / "scans", 2)
    (folder / "sub-03").symlink_to("../annex/sub-03")
    assert len(find_cases("nifti", folder)) == 2
    assert "sub-03: is a link to ../annex/sub-03, which is not there" in caplog.text


def test_a_slice_that_was_never_fetched_spoils_its_series(tmp_path):
    (tmp_path / "im2.dcm").symlink_to("nowhere")
    (tmp_path / "im1.dcm").write_bytes(b"")
    with pytest.raises(UserError, match="im2.dcm: is a link to nowhere"):
        formats.read_header(tmp_path, 3)


def test_files_below_proc_and_devices_end_with_a_sentence():
    for path in ("/proc/self/mem", "/dev/stdin", "/proc/1/root/x", "/dev/null/x"):
        with pytest.raises(UserError, match=path):
            read_json(paths.as_path(path))


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/self/attr/prev"])
def test_what_cannot_be_read_is_named_though_it_could_be_opened(path):
    if not Path(path).exists():
        pytest.skip(f"needs {path}")
    with pytest.raises(OSError) as caught, reading(path), open(path, "rb") as file:
        file.seek(128)
        file.read(4)
        raise OSError(errno.EIO, "not read")  # where the system gives something
    assert caught.value.filename == path
