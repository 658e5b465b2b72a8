"""A disk that takes no more, at every writer: an `OSError` that names the file, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from contextlib import contextmanager

import keras
import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.files import atomic
from self_supervised_3d_tasks.files.json_files import write_json
from self_supervised_3d_tasks.files.models import in_memory, save_model
from self_supervised_3d_tasks.files.scratch import scratch
from self_supervised_3d_tasks.files.tables import write_table
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.prediction.probabilities import write_probabilities

LIMIT = 1000  # bytes
NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 16), np.uint8)


@contextmanager
def full_disk(limit=LIMIT):
    """No file may become larger, which every writer meets as it meets a full disk, until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((20,))
    return keras.Model(inputs, keras.layers.Dense(20)(inputs))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(NOISE, np.eye(4)), path)
    return path


def draw(path):
    with canvas.figure(path, 2, 2) as figure:
        figure.text(0.5, 0.5, "text")


def mask(path, scan):
    formats.write_mask(path, NOISE, scan)


def probabilities(path, scan):
    header = formats.read_header(scan, 3)
    write_probabilities(path, NOISE[..., None].astype(np.float32), header)


WRITERS = {
    "rows.csv": lambda path, *_: write_table(path, ["a"], [[number] for number in range(LIMIT)]),
    "state.json": lambda path, *_: write_json(path, list(range(LIMIT))),
    "model.keras": lambda path, model, _: save_model(model, path),
    "a.weights.h5": lambda path, model, _: atomic.atomic_write_bytes(path, in_memory(model.save_weights, path.name)),
    "picture.png": lambda path, *_: draw(path),
    "scan.b2nd": lambda path, *_: disk.write(path, disk.pack(NOISE, 3, {})),
    "centres.npy": lambda path, *_: disk.recall(path, lambda: NOISE, lambda array: True),
    "probabilities.nii.gz": lambda path, _, scan: probabilities(path, scan),
    "probabilities.npy": lambda path, _, scan: probabilities(path, scan),
    **{
        f"mask{suffix}": lambda path, _, scan: mask(path, scan)
        for suffix in (".nii", ".nii.gz", ".npy", ".nrrd", ".mha", ".mhd", ".hdr", ".mgz")
    },
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_file_is_named_and_the_old_one_stays(name, tmp_path, model, scan):
    path = tmp_path / name
    mpl.rcParams["font.size"]  # loaded, with its own cache of fonts, before the disk is full
    path.write_text("old") if name != "centres.npy" else None
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with full_disk(), pytest.raises(OSError) as caught:
        WRITERS[name](path, model, scan)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert "unfinished" not in str(caught.value)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    WRITERS[name](path, model, scan)  # there is room again
    assert path.stat().st_size > LIMIT / 10


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("context", [atomic.atomic_write, atomic.atomic_write_files])
def test_what_the_system_says_last_counts_too(code, context, tmp_path, monkeypatch):
    """Network drives and quotas refuse when a file is brought to the disk, or when it gets its name."""

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(atomic.os, function, refuse)
            with pytest.raises(OSError) as caught, context(tmp_path / "file.csv") as temporary:
                temporary.write_text("new")
        assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "file.csv"))
        assert list(tmp_path.iterdir()) == []


def test_a_writer_that_keeps_the_cause_to_itself_is_asked_again(tmp_path):
    with full_disk(), pytest.raises(OSError) as caught, atomic.atomic_write(tmp_path / "scan.nrrd") as temporary:
        temporary.write_bytes(bytes(LIMIT))
        raise RuntimeError("the library could not write, for whatever reason")
    assert caught.value.errno == errno.EFBIG and isinstance(caught.value.__cause__, RuntimeError)


def test_a_mistake_of_the_writer_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="other"), atomic.atomic_write(tmp_path / "scan.nrrd"):
        raise RuntimeError("other")
    with pytest.raises(FileNotFoundError, match="'elsewhere'"), atomic.atomic_write(tmp_path / "scan.nrrd"):
        open("elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught, atomic.atomic_write(tmp_path / "file" / "new.csv"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


def test_an_array_in_a_file_has_its_room_before_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with full_disk(), pytest.raises(OSError) as caught, scratch((10, 100), limit=0):
        pass
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))


@pytest.mark.parametrize("name", ["ü" * 120 + ".nii.gz", "x" * 240 + ".weights.h5", "a." * 125 + "json"])
def test_the_longest_names_can_be_written(name, tmp_path):
    assert len(name.encode()) > 240
    for _ in range(2):
        atomic.atomic_write_bytes(tmp_path / name, b"content")
        with atomic.atomic_write_files(tmp_path / name) as temporary:
            temporary.write_text("content")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_named(tmp_path):
    path = tmp_path / ("x" * 256)
    with pytest.raises(OSError) as caught:
        atomic.atomic_write_bytes(path, b"content")
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, str(path))
    assert list(tmp_path.iterdir()) == []
