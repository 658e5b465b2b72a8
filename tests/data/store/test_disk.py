"""The disk cache: read in parts, shared, resumed after a kill, and made again where it is damaged."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest

from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import disk, entries, filling, processes
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.atomic import TEMPORARY_PREFIX

DRAWS = np.random.default_rng(3)
SHAPES = [(9 + i, 8, 7, 2) for i in range(3)]
IMAGES = [DRAWS.integers(-900, 2000, shape).astype(np.int16) for shape in SHAPES]
MASKS = [DRAWS.integers(0, 3, shape[:-1]) for shape in SHAPES]
DIM = (5, 8, 10)
ROOT = Path(__file__).parents[3]


def files_of(folder: Path) -> dict[Path, int]:
    """The files of the disk cache, each with the time when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def on_disk(make_store, tmp_path: Path):
    return functools.partial(make_store, data_dim=DIM, cache="disk", cache_dir=tmp_path / "cache")


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the scans that are decoded, as they are."""
    names, read = [], entries.read_channels

    def count(paths, rank):
        names.append(paths[0].stem)
        return read(paths, rank)

    monkeypatch.setattr(entries, "read_channels", count)
    return names


def again(store: VolumeStore, **changes) -> VolumeStore:
    """Another store of the same files."""
    folder = store._loader.folder
    options = {"num_classes": store.num_classes} | changes
    preprocessing = options.pop("preprocessing", store.preprocessing)
    return VolumeStore(options.pop("cases", store.cases), preprocessing, cache="disk", cache_dir=folder, **options)


def places(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Places of a few crops, at every border."""
    for edge in (1, 3, 5):
        for start in (0, 2):
            yield tuple(slice(start, start + edge) for _ in shape)
        yield tuple(slice(size - edge, size) for size in shape)
    yield tuple(slice(0, size) for size in shape)


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_crops_are_parts_of_the_images_that_preprocessing_gives(on_disk, cache: str, kind, monkeypatch) -> None:
    monkeypatch.setattr(disk, "_EDGES", {1: (64, 8), 3: (4, 2)})  # several chunks
    scans = [(image % 200).astype(kind) + (0.25 if kind is np.float32 else 0) for image in IMAGES]
    store = on_disk([scan.astype(kind) for scan in scans], MASKS, cache=cache)
    for index, case in enumerate(store.cases):
        expected = store.preprocessing.image(entries.read_channels(case.images, 3))
        assert store.shape(index) == expected.shape == (*np.maximum(SHAPES[index][:3], DIM), 2)
        np.testing.assert_array_equal(store.image(index), expected)
        mask = np.pad(MASKS[index], [(0, 0), (0, 0), (1, 2)])
        np.testing.assert_array_equal(store.mask(index), mask)
        assert store.classes(index) == {0, 1, 2}
        for place in places(mask.shape):
            np.testing.assert_array_equal(store.crop(index, place), expected[place])
            np.testing.assert_array_equal(store.mask_crop(index, place), mask[place])
        for position in np.linspace(0, 0.999, 20):
            assert mask[tuple(store.foreground_voxel(index, position))] == 1 + int(position >= 0.5)


def test_two_dimensions_and_masks_without_foreground(make_store, tmp_path: Path) -> None:
    image, mask = DRAWS.integers(0, 256, (9, 8, 3)), np.zeros((9, 8), np.uint8)
    store = make_store([image], [mask], cache="disk", cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(store.crop(0, (slice(2, 4), slice(7, 8))), np.minimum(image[2:4, 7:8], 1))
    assert store.foreground_voxel(0, 0.3) is None and store.classes(0) == {0}


def test_entries_hold_no_voxels(on_disk) -> None:
    """What a process keeps of a scan on the disk does not grow with the scan."""
    store = on_disk(IMAGES, MASKS)
    for entry in store._entries.values():
        arrays = [entry.scan.array, entry.mask, entry.foreground.flat]
        assert all(isinstance(array, disk.DiskArray) for array in arrays)
        held = [getattr(array, field.name) for array in arrays for field in fields(array)]
        assert not any(isinstance(value, np.ndarray) for value in held)
        assert entry.foreground.borders.size <= 3


def test_files_are_compressed_without_pickle(on_disk, tmp_path: Path) -> None:
    image = np.zeros((64, 64, 40, 1), np.int16)
    image[20:40, 20:40, 10:30] = DRAWS.integers(0, 500, (20, 20, 20, 1))
    on_disk([image], [(image[..., 0] > 0).astype(np.uint8)])
    size = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert size < image.size
    for path in (tmp_path / "cache").iterdir():
        # The policy that refuses whatever would have to be unpickled.
        array = blosc2.open(str(path), deserialize="safe")
        assert isinstance(array.schunk.vlmeta["notes"], dict)


def test_disk_cache_is_reused_until_something_changes(on_disk, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = on_disk(IMAGES, MASKS)
    assert len(files_of(cache)) == 9  # of each case an image, a mask, and the voxels of its classes

    def written(num_classes: int | None = 3, **changes) -> int:
        """How many files another store of the same scans writes."""
        before = files_of(cache)
        again(first, preprocessing=replace(first.preprocessing, **changes), num_classes=num_classes)
        return len(files_of(cache).items() - before.items())

    assert written() == 0
    assert written(num_classes=4) == 6
    assert written(intensity_window=(0, 2)) == 9
    os.utime(first.cases[1].image, ns=(1, 1))
    assert written() == 3
    os.utime(first.cases[1].mask, ns=(1, 1))
    assert written() == 2
    for path in cache.iterdir():  # cut off, as by a full disk
        path.write_bytes(path.read_bytes()[:-1])
    assert written() == 9
    assert written() == 0


def test_pretraining_and_finetuning_share_the_scans(on_disk, tmp_path: Path, decoded: list[str]) -> None:
    """Masks, classes, names, and the shape of the crops change nothing of an image that is not resized."""
    labelled = on_disk(IMAGES, MASKS)
    cache, scans = tmp_path / "cache", [replace(case, mask=None, label=3, name="another") for case in labelled.cases]
    for path in cache.iterdir():
        path.unlink()
    pretrained = again(labelled, cases=scans, num_classes=None)
    before = files_of(cache)
    assert len(before) == 3
    decoded.clear()
    for changes in ({}, {"data_dim": (4, 4, 4)}, {"label_map": {1: 2}}):
        store = again(labelled, preprocessing=replace(labelled.preprocessing, **changes))
        assert {path: time for path, time in files_of(cache).items() if ".image" in path.name} == before
        part = (slice(None), slice(None), slice(1, 8) if changes.get("data_dim") else slice(None))
        np.testing.assert_array_equal(store.image(1), pretrained.image(1)[part])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "case00.npy").symlink_to(scans[0].image)
    decoded.clear()
    again(pretrained, cases=[replace(scans[0], image=tmp_path / "linked" / "case00.npy")])
    again(pretrained, preprocessing=replace(pretrained.preprocessing, label_map={1: 2}))
    assert not decoded


def test_resized_scans_are_those_of_one_shape() -> None:
    one, other = (Preprocessing((size, 4, 4), 1, label_map={1: size}) for size in (4, 5))
    assert one.of_scans != other.of_scans
    assert one.of_scans == replace(one, label_map={})


def test_a_stopped_filling_goes_on_where_it_was(on_disk, tmp_path: Path, decoded: list[str], monkeypatch) -> None:
    monkeypatch.setattr(filling, "NUM_MEASURED", 1)
    first, cache = on_disk(IMAGES), tmp_path / "cache"
    last = sorted(cache.iterdir())[-1]
    last.rename(last.with_name(f"{TEMPORARY_PREFIX}1a2b-{last.name}"))  # what a kill leaves behind
    decoded.clear()
    before = files_of(cache)
    store = again(first)
    assert set(decoded) == {"case02"}
    assert files_of(cache).items() > before.items() and last.exists()
    np.testing.assert_array_equal(store.image(2), np.pad(np.clip(IMAGES[2], 0, 1), [(0, 0), (0, 0), (1, 2), (0, 0)]))


@pytest.mark.parametrize("content", [b"", b"these are no numbers", b"PK\x03\x04", None], ids=str)
@pytest.mark.parametrize("kind", ["image", "mask", "foreground"])
def test_damaged_files_are_made_again(on_disk, tmp_path: Path, caplog, kind: str, content: bytes | None) -> None:
    store = on_disk(IMAGES, MASKS)
    expected = store.image(1), store.mask(1), store.foreground_voxel(1, 0.7)
    (path,) = (tmp_path / "cache").glob(f"case01*.{kind}.b2nd")
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    other = again(store)
    assert caplog.text.count(f"{path}: is damaged") == caplog.text.count("is damaged") == 1
    for found, value in zip((other.image(1), other.mask(1), other.foreground_voxel(1, 0.7)), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    caplog.clear()
    again(store)
    assert "is damaged" not in caplog.text


@pytest.mark.parametrize("gone", [True, False])
def test_files_that_are_lost_while_they_are_used_are_made_again(on_disk, tmp_path: Path, caplog, gone: bool) -> None:
    store = on_disk(IMAGES, MASKS)
    expected = [store.image(1), store.mask(1), store.foreground_voxel(1, 0.2)]
    for read, value in zip((store.image, store.mask, lambda i: store.foreground_voxel(i, 0.2)), expected, strict=True):
        for path in (tmp_path / "cache").glob("case01*"):
            path.unlink() if gone else path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        np.testing.assert_array_equal(read(1), value)
        assert "it is decoded again" in caplog.text
        caplog.clear()
        assert read(1) is not None and not caplog.text
    assert len(files_of(tmp_path / "cache")) == 9


def test_more_files_than_a_process_may_open(on_disk) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 100
    scans = on_disk([IMAGES[0]] * 60)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, limits[1]))
    try:
        kept = [scans.image(index) for index in range(60)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(kept) == 60


def test_what_it_takes_is_told_before(on_disk, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 3 * 2**30)
    monkeypatch.setattr(filling, "_measure", lambda loader, shapes: (filling._Needs(9e9, 2**31, 7200.0), {}))
    monkeypatch.setattr(processes, "count", lambda: 1)
    with caplog.at_level("INFO", "absl"):  # whatever commands of other tests have set
        store = on_disk(IMAGES)
    text = f"{tmp_path / 'cache'}: decoding 3 scans takes about 2.0 GiB (3.0 GiB are free) and about 2.0 h"
    assert text in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        again(store)
    assert "decoding" not in caplog.text


def test_the_disk_that_it_takes_is_measured(on_disk, tmp_path: Path, monkeypatch) -> None:
    """Scans of one kind and shape take what the few of them that are measured take."""
    told = []
    monkeypatch.setattr(filling, "NUM_MEASURED", 2)
    monkeypatch.setattr(filling, "_announce", lambda folder, found, missing, needs: told.append(needs))
    on_disk([IMAGES[0]] * 7, [MASKS[0]] * 7)
    (needs,) = told
    assert needs.memory == pytest.approx(7 * (IMAGES[0].nbytes + 9 * 8 * 10))
    assert needs.disk == pytest.approx(sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()), rel=0.01)
    assert 0 < needs.seconds < 60


def test_full_disk_is_noticed_before_decoding(on_disk, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"cache: the decoded scans need 0\.0 GiB for 3 scans, 0\.0 GiB are free"):
        on_disk(IMAGES)
    assert not files_of(tmp_path / "cache")


def test_disk_that_fills_up_meanwhile(on_disk, tmp_path: Path, monkeypatch) -> None:
    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filling, "NUM_MEASURED", 0)
    monkeypatch.setattr(disk, "write", fail)
    with pytest.raises(UserError, match="cache: the disk is full. What was decoded is kept"):
        on_disk(IMAGES)


PROGRAM = """
import sys
from pathlib import Path
from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
folder = Path(sys.argv[1])
preprocessing = Preprocessing((5, 8, 10), 2, intensity_window=(0, 1), volume_fitting="crop")
store = VolumeStore(find_cases("npy", folder / "scans"), preprocessing, cache="disk", cache_dir=folder / "cache")
print(sum(float(store.image(index).sum()) for index in range(len(store))))
"""


def test_two_runs_at_once_share_a_cache(on_disk, tmp_path: Path) -> None:
    store = on_disk([IMAGES[0]] * 12)
    expected = sum(float(store.image(index).sum()) for index in range(12))
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    sums = [float(run.communicate(timeout=120)[0].splitlines()[-1]) for run in runs]
    assert sums == [expected, expected]
    assert len(files_of(tmp_path / "cache")) == 12


def test_processes_give_what_threads_give(on_disk, tmp_path: Path, monkeypatch, caplog) -> None:
    """Their warnings come here, and a bad file is told by its name."""
    images = [*IMAGES, np.full(SHAPES[0], 7, np.int16)]
    expected = [on_disk(images).image(index) for index in range(4)]
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    caplog.clear()
    monkeypatch.setattr(filling, "PROCESSES_FROM", 0)
    monkeypatch.setattr(filling, "NUM_MEASURED", 1)
    monkeypatch.setattr(processes.joblib, "cpu_count", lambda: 2)
    store = on_disk(images)
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(store.image(index), image)
    assert "case03.npy: channel 0, 1 is constant" in caplog.text
    np.save(tmp_path / "scans" / "case02.npy", np.full(SHAPES[2], np.nan))
    with pytest.raises(UserError, match=r"case02.npy: .* voxels are NaN"):
        VolumeStore(store.cases, store.preprocessing, cache="disk", cache_dir=tmp_path / "cache")


def test_a_process_that_is_killed_is_told(monkeypatch) -> None:
    monkeypatch.setattr(processes.joblib, "cpu_count", lambda: 2)
    with pytest.raises(UserError, match=r"reading scans: one of 2 processes was ended .* LOKY_MAX_CPU_COUNT=1"):
        list(processes.map_in_processes(os._exit, [3, 3], "reading scans"))


def test_processes_stop_when_nobody_wants_their_results(monkeypatch) -> None:
    monkeypatch.setattr(processes.joblib, "cpu_count", lambda: 2)
    began = time.monotonic()
    results = processes.map_in_processes(time.sleep, [0.1] * 1000, "sleeping")
    assert next(results) is None
    results.close()
    assert time.monotonic() - began < 30
