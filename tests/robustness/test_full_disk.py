"""A disk that takes no more, at every writer: an `OSError` that names the file, and nothing half-written."""

from __future__ import annotations

import ast
import errno
import json
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import keras
import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest

import self_supervised_3d_tasks
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files import atomic
from self_supervised_3d_tasks.files.json_files import write_json
from self_supervised_3d_tasks.files.models import in_memory, load_model, save_model
from self_supervised_3d_tasks.files.run_folder import RunFolder
from self_supervised_3d_tasks.files.scratch import scratch
from self_supervised_3d_tasks.files.tables import write_table
from self_supervised_3d_tasks.finetuning import sweep
from self_supervised_3d_tasks.plots import canvas
from self_supervised_3d_tasks.prediction.probabilities import write_probabilities
from self_supervised_3d_tasks.training import read_history

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


def test_every_file_of_the_package_is_written_in_one_place():
    """What writes by itself is given a temporary path: the formats of masks, and the probabilities of a mask."""
    package, found = Path(self_supervised_3d_tasks.__file__).parent, set()
    names = {"write_text", "write_bytes", "to_csv", "to_filename", "mkdtemp", "mkstemp", "TemporaryDirectory", "tofile"}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            function = node.func if isinstance(node, ast.Call) else None
            name = getattr(function, "attr", getattr(function, "id", None))
            writes = name == "open" and any(
                isinstance(each, ast.Constant) and each.value in ("w", "wb", "a", "ab", "x", "xb") for each in node.args
            )
            if name in names or writes:
                found.add(path.relative_to(package).as_posix())
    formats_of_masks = {file for file in found if file.startswith("data/formats/")}
    # Streams that are nowhere, and folders that are gone when a sample has been read, or a process has trained.
    no_products = {"terminal.py", "pretraining/plan.py", "commands/together.py"}
    assert found - formats_of_masks == {"files/atomic.py"} | no_products


SWEEP = {
    "algorithm": "rotation",
    "dataset_name": "nifti",
    "data_dim": 8,
    "num_classes": 2,
    "enc_filters": 2,
    "num_layers": 1,
    "pooling": "none",
    "batch_size": 1,
    "exp_splits": [100],
    "epochs_initialized": 0,
    "epochs_frozen": 0,
    "epochs_random": 2,
    "repetitions": 1,
    "tensorboard": False,
}


@pytest.mark.slow
def test_a_sweep_goes_on_where_the_disk_was_full_and_ends_the_same(tmp_path, write_scans, monkeypatch):
    write_scans(tmp_path / "train", 3, shape=(8, 8, 8))
    write_scans(tmp_path / "test", 1, shape=(8, 8, 8), prefix="test")
    folders = {"data_dir_train": str(tmp_path / "train"), "data_dir_test": str(tmp_path / "test")}
    (tmp_path / "experiment.json").write_text(json.dumps(SWEEP | folders))
    plan = sweep.plan(load_experiment("finetune", tmp_path / "experiment.json"))
    writes, sync = [], atomic._sync_file

    def run(name, full_at):
        """Run the sweep on a disk that is full at a certain write; return the weights and scores."""
        folder = RunFolder(tmp_path / name)
        writes.clear()

        def count(path):
            writes.append(path)
            if len(writes) == full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(path)

        monkeypatch.setattr(atomic, "_sync_file", count)
        if full_at:
            with pytest.raises(OSError) as caught:
                sweep.run(plan, folder)
            assert caught.value.errno == errno.ENOSPC and caught.value.filename.startswith(str(folder.path))
            assert not any(path.name.startswith(".unfinished") for path in folder.path.rglob("*"))
        sweep.run(plan, folder)
        job = folder.job(plan.jobs[0].name)
        rows = [[row[column] for column in ("epoch", "loss", "val_loss")] for row in read_history(job)]
        return rows, [weight.tolist() for weight in load_model(job.model).get_weights()], job.scores.read_text()

    expected, count = run("whole", None), len(writes)
    assert [row[0] for row in expected[0]] == [1, 2]
    for full_at in np.unique(np.linspace(2, count, 4).astype(int)):
        assert run(f"full_{full_at}", full_at) == expected
