from __future__ import annotations

import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data import splits
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.formats import archives, read_header, read_image, read_mask
from self_supervised_3d_tasks.data.labels.tables import Classes
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import disk
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 4096, (5, 4, 5, 6)).astype(np.int16)
LABELS = np.array([[0], [1], [2], [1], [0]], np.uint8)


@pytest.fixture(autouse=True)
def forget():
    """Start every test without decoded parts."""
    archives.release()


def write(folder: Path, save=np.savez_compressed, **arrays) -> Path:
    path = folder / "organ.npz"
    save(path, **({"train_images": IMAGES, "train_labels": LABELS} | arrays))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(tmp_path, val_images=IMAGES[:2] + 1, val_labels=LABELS[:2, 0], class_names=np.array(["a", "b", "c"]))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Return the names of the arrays that are decompressed from now on."""
    names, array = [], archives._array

    def counted(path, name):
        names.append(name)
        return array(path, name)

    monkeypatch.setattr(archives, "_array", counted)
    return names


def test_a_part_is_a_folder_of_scans_with_classes(archive: Path) -> None:
    cases = find_cases("medmnist", f"{archive}/train/", Labels())
    assert [case.name for case in cases] == [f"train_0000{number}" for number in range(5)]
    assert cases[3].images == (archive / "train" / "00003",) and cases[3].mask is None
    assert [case.label for case in cases] == [0, 1, 2, 1, 0]
    assert [case.subject for case in cases] == [case.name for case in cases]
    cases = find_cases("medmnist", archive / "val", Labels())
    assert [(case.name, case.label) for case in cases] == [("val_00000", 0), ("val_00001", 1)]


def test_labels_become_classes(archive: Path) -> None:
    classes = Classes(2, {2: 1})
    cases = find_cases("medmnist", archive / "train", Labels(classes=classes))
    assert [case.label for case in cases] == [0, 1, 1, 1, 0]
    with pytest.raises(UserError, match=r"train/00002 has label 2, expected 0 to 1 \(num_classes = 2\)"):
        find_cases("medmnist", archive / "train", Labels(classes=Classes(2)))


@pytest.mark.parametrize("ending", ["subject", "patient"])
def test_subjects_are_those_of_the_archive_or_of_the_pattern(tmp_path: Path, ending: str) -> None:
    people = np.array(["p1", "p1", "p2", "p3", "p2"])
    path = write(tmp_path, **{f"train_{ending}": people})
    cases = find_cases("medmnist", path / "train")
    assert [case.subject for case in cases] == people.tolist()
    assert [case.label for case in cases] == [None] * 5
    parts = splits.pretraining_split(cases, 0.6, seed=0)
    assert not {case.subject for case in parts["train"]} & {case.subject for case in parts["validation"]}
    cases = find_cases("medmnist", path / "train", subject_pattern="000(.)")
    assert [case.subject for case in cases] == ["0"] * 5


def test_numbers_are_subjects_too(tmp_path: Path) -> None:
    path = write(tmp_path, train_patient=np.array([[7], [7], [8], [9], [9]]))
    assert [case.subject for case in find_cases("medmnist", path / "train")] == ["7", "7", "8", "9", "9"]


def test_pretraining_needs_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "organ.npz"
    np.savez(path, train_images=IMAGES)
    assert len(find_cases("medmnist", path / "train")) == 5
    with pytest.raises(UserError, match=r"organ\.npz: has no train_labels; expected one class per scan"):
        find_cases("medmnist", path / "train", Labels())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float64, bool])
def test_scans_are_read_as_stored(tmp_path: Path, save, dtype) -> None:
    images = IMAGES.astype(dtype)
    path = write(tmp_path, save, train_images=images)
    for number, case in enumerate(find_cases("medmnist", path / "train")):
        volume = read_image(case.image, 3)
        assert volume.array.dtype == np.float32 and volume.array.flags.c_contiguous and volume.affine is None
        np.testing.assert_array_equal(volume.array[..., 0], images[number].astype(np.float32))
        assert read_header(case.image, 3).shape == volume.array.shape == (4, 5, 6, 1)


def test_the_order_of_the_axes_in_the_file_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, train_images=np.asfortranarray(IMAGES))
    np.testing.assert_array_equal(read_image(path / "train" / "00004", 3).array[..., 0], IMAGES[4])


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((3, 4, 5), 2, (4, 5, 1)),
        ((3, 4, 5, 2), 2, (4, 5, 2)),
        ((3, 4, 5, 6), 3, (4, 5, 6, 1)),
        ((3, 4, 5, 6, 2), 3, (4, 5, 6, 2)),
    ],
)
def test_the_number_of_axes_says_what_are_channels(tmp_path: Path, shape, rank, expected) -> None:
    images = np.arange(np.prod(shape)).reshape(shape)
    path = write(tmp_path, train_images=images)
    assert read_header(path / "train" / "00001", rank).shape == expected
    np.testing.assert_array_equal(read_image(path / "train" / "00001", rank).array, images[1].reshape(expected))


@pytest.mark.parametrize(("shape", "rank"), [((3,), 2), ((3, 4), 2), ((3, 4, 5), 3), ((3, 4, 5, 6), 1)])
def test_another_number_of_axes_is_refused(tmp_path: Path, shape, rank) -> None:
    path = write(tmp_path, train_images=np.zeros(shape))
    with pytest.raises(UserError, match=f"train/00001: has shape .*, expected {rank} spatial axes.*change data_dim"):
        read_header(path / "train" / "00001", rank)


def test_a_part_is_decompressed_once_for_all_threads(archive: Path, decoded: list[str]) -> None:
    paths = [case.image for case in find_cases("medmnist", archive / "train", Labels())] * 20
    assert [read_header(path, 3).shape for path in paths] == [(4, 5, 6, 1)] * 100
    assert decoded == ["train_labels"]  # no image for a header
    barrier = threading.Barrier(4)

    def read(path: Path) -> Volume:
        if path in paths[:4]:
            barrier.wait(timeout=10)
        return archives.read_image(path, 3)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, [*paths[:4], *paths[4::5]]))
    np.testing.assert_array_equal([volume.array[..., 0] for volume in found[:4]], IMAGES[:4])
    assert decoded == ["train_labels", "train_images"]


def test_two_parts_stay_decoded_until_they_are_released(archive: Path, decoded: list[str]) -> None:
    for part in ("train", "val", "train", "val"):
        archives.read_image(archive / part / "00000", 3)
    assert decoded == ["train_images", "val_images"]
    archives.release()
    archives.read_image(archive / "val" / "00000", 3)
    assert decoded == ["train_images", "val_images", "val_images"]


def test_an_archive_that_is_written_anew_is_read_anew(archive: Path) -> None:
    scan = archive / "train" / "00000"
    assert read_image(scan, 3).array.max() == IMAGES[0].max()
    write(archive.parent, train_images=np.zeros((1, 3, 3, 3)))
    assert read_header(scan, 3).shape == (3, 3, 3, 1)
    assert read_image(scan, 3).array.max() == 0


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_store_of_an_archive(archive: Path, tmp_path: Path, decoded: list[str], kind: str) -> None:
    cases = find_cases("medmnist", archive / "train")
    preprocessing = Preprocessing((4, 5, 6), 1, intensity_window=(0, 4095), volume_fitting="exact")
    for _ in range(2):
        store = VolumeStore(cases, preprocessing, cache=kind, cache_dir=tmp_path / "cache")
        for number in range(5):
            np.testing.assert_allclose(store.image(number)[..., 0], IMAGES[number] / np.float32(4095), rtol=1e-6)
    assert decoded == ["train_images"] * (2 if kind == "memory" else 1)
    assert archives._decoded.cache_info().currsize == 0  # the store holds the scans now


def test_a_cached_scan_is_that_of_the_archive_as_it_is(archive: Path) -> None:
    cases = find_cases("medmnist", archive / "train")
    preprocessing = Preprocessing((4, 5, 6), 1)
    before = [disk.fingerprint(case.images, preprocessing) for case in cases]
    assert len(set(before)) == 5
    assert before == [disk.fingerprint(case.images, preprocessing) for case in cases]
    os.utime(archive, ns=(1, 1))
    assert not set(before) & {disk.fingerprint(case.images, preprocessing) for case in cases}


def test_an_archive_has_no_masks(archive: Path) -> None:
    with pytest.raises(UserError, match="train/00000: an archive has no masks"):
        read_mask(archive / "train" / "00000", 3)


def test_a_scan_with_nan_is_named(tmp_path: Path) -> None:
    images = IMAGES.astype(np.float32)
    images[2, 0, 0, 0] = np.nan
    path = write(tmp_path, train_images=images)
    cases = find_cases("medmnist", path / "train")
    store = VolumeStore(cases, Preprocessing((4, 5, 6), 1), on_bad_file="skip")
    (skipped,) = store.skipped
    assert skipped["case"] == "train_00002" and "train/00002: 1 of 120 voxels are NaN" in skipped["reason"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "organ.npz",
            r"organ\.npz: is an archive with the parts train, val\. Say which, for example .*organ\.npz/train\.",
        ),
        ("organ.npz/test", r"organ\.npz/test: the archive has no test_images; its parts are train, val\."),
        ("organ.npz/trian", r"its parts are train, val\. Did you mean 'train'\?"),
        (
            "organ.npz/train/00001",
            r"is a single scan of an archive\. Give the part that it is in: .*organ\.npz/train\.",
        ),
        ("scans", "scans: expected an archive of MedMNIST form .*dataset_name"),
        ("other.npz/train", r"other\.npz: this file does not exist"),
    ],
)
def test_a_path_that_is_no_part_is_named(archive: Path, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_cases("medmnist", archive.parent / path)


@pytest.mark.parametrize("path", ["organ.npz", "organ.npz/train"])
def test_other_layouts_send_an_archive_to_its_own(archive: Path, path: str) -> None:
    with pytest.raises(UserError, match="dataset_name: .*is an archive, expected \"medmnist\", received 'npy'"):
        find_cases("npy", archive.parent / path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_labels": np.zeros((5, 14), np.uint8)}, r"train_labels has shape \(5, 14\).*one class.*ChestMNIST"),
        ({"train_labels": LABELS[:4]}, r"train_labels has shape \(4, 1\), but train_images has 5 scans"),
        ({"train_labels": np.arange(5) / 2}, "train_labels .* type float64, expected integers"),
        ({"train_labels": np.array([0, 1, 2, "x", None], object)}, "train_labels holds Python objects"),
        ({"train_patient": np.array(["a", "b"])}, r"train_patient has shape \(2,\), but train_images has 5 scans"),
        ({"train_subject": np.array([None] * 5)}, "train_subject holds Python objects.*pickled"),
        ({"train_images": np.array([IMAGES[0]] * 5 + [None], object)[:5]}, "train_images holds Python objects"),
        ({"train_images": IMAGES[:0]}, r"train_images has shape \(0, 4, 5, 6\)"),
        ({"train_images": np.array(["a"] * 5)}, "train_images .* type <U1, expected one or more scans of integers"),
    ],
)
def test_an_array_that_cannot_be_used_is_named(tmp_path: Path, arrays: dict, message: str) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(UserError, match=rf"organ\.npz: {message}"):
        find_cases("medmnist", path / "train", Labels())


def test_an_archive_of_other_arrays_is_described(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(UserError, match=r"a\.npz: holds images, labels; expected arrays called <part>_images"):
        find_cases("medmnist", tmp_path / "a.npz" / "train", Labels())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_named(archive: Path, share: float) -> None:
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    with pytest.raises(UserError, match=r"organ\.npz: cannot be read .*Expected a complete \.npz file"):
        find_cases("medmnist", archive / "train")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_voxels_are_noticed(tmp_path: Path, save) -> None:
    path = write(tmp_path, save)
    with zipfile.ZipFile(path) as file:
        middle = file.getinfo("train_images.npy").header_offset + 600
    content = bytearray(path.read_bytes())
    content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"organ\.npz: cannot be read"):
        read_image(path / "train" / "00000", 3)
