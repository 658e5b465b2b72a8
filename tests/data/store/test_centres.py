from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import centres
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.ops.supervoxels import Supervoxels

DRAWS = np.random.default_rng(6)
IMAGES = [DRAWS.uniform(size=(6 + i, 7, 8, 1)).astype(np.float32) for i in range(3)]
AIR = np.zeros((6, 7, 8, 1), np.float32)


@dataclass(frozen=True)
class Brightest:
    """Finds the voxels above a threshold and remembers what it was asked."""

    threshold: float = 0.99
    asked: list = field(default_factory=list, repr=False)

    def __call__(self, image: np.ndarray, spacing) -> np.ndarray:
        self.asked.append(tuple(spacing))
        return np.argwhere(image[..., 0] > self.threshold)


def test_every_scan_has_its_centres_in_the_order_of_the_cases(make_store, tmp_path: Path) -> None:
    store = make_store(IMAGES, data_dim=(6, 7, 8))
    part = store.subset([store.cases[2], store.cases[0], store.cases[2]])
    finder = Brightest()
    same, found = centres.find(part, finder, tmp_path / "centres")
    assert same is part and finder.asked == [(1.0, 1.0, 1.0)] * 2  # once for a case that is listed twice
    for image, voxels in zip((IMAGES[2], IMAGES[0], IMAGES[2]), found, strict=True):
        np.testing.assert_array_equal(voxels, np.argwhere(image[..., 0] > 0.99))


def test_centres_are_those_of_the_padded_scan(make_store, tmp_path: Path) -> None:
    scan = np.zeros((3, 7, 8, 1), np.float32)
    scan[1, 2, 3] = 1
    _, (voxels,) = centres.find(make_store([scan], data_dim=(6, 7, 8)), Brightest(), tmp_path)
    assert voxels.tolist() == [[2, 2, 3]]


def test_spacing_is_that_of_the_file_on_canonical_axes(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    # Stored as (z, -x, y) with voxels of 3, 0.5 and 1 mm, turned by 30 degrees about z.
    affine = np.array([[0, -0.5, 0, 9], [0, 0, 1, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    cosine, sine = np.sqrt(3) / 2, 0.5
    affine[:2, :3] = [[cosine, -sine], [sine, cosine]] @ affine[:2, :3]
    array = DRAWS.uniform(size=(8, 6, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "scans" / "turned.nii.gz")
    cases = find_cases("nifti", tmp_path / "scans")
    store = VolumeStore(cases, Preprocessing((6, 7, 8), 1, volume_fitting="crop"))
    finder = Brightest()
    centres.find(store, finder, tmp_path / "centres")
    np.testing.assert_allclose(finder.asked, [(0.5, 1, 3)], rtol=1e-6)


def test_two_dimensions(make_store, tmp_path: Path) -> None:
    finder = Brightest()
    _, (voxels,) = centres.find(make_store([np.eye(5, dtype=np.float32)[..., None]]), finder, tmp_path)
    assert voxels.tolist() == [[i, i] for i in range(5)] and finder.asked == [(1.0, 1.0)]


def test_nothing_is_computed_again_until_something_changes(make_store, tmp_path: Path) -> None:
    store = make_store(IMAGES, data_dim=(6, 7, 8))

    def computed(store=store, finder=None) -> int:
        finder = finder or Brightest()
        _, found = centres.find(store, finder, tmp_path / "centres")
        for index, voxels in enumerate(found):
            np.testing.assert_array_equal(voxels, np.argwhere(store.image(index)[..., 0] > finder.threshold))
        return len(finder.asked)

    assert computed() == 3
    names = [path.name for path in (tmp_path / "centres").iterdir()]
    assert len(names) == 3 and all(name.startswith("case0") and name.endswith(".centres.npy") for name in names)
    assert computed() == 0
    assert computed(finder=Brightest(threshold=0.9)) == 3
    other = VolumeStore(store.cases, replace(store.preprocessing, intensity_window=(0, 1.001)))
    assert computed(other) == 3
    os.utime(store.cases[1].image, ns=(1, 1))
    assert computed() == 1
    assert computed() == 0


@pytest.mark.parametrize(
    "change", [{"num_segments": 9}, {"compactness": 0.2}, {"sigma": 2.0}, {"min_foreground": 0.2}], ids=str
)
def test_each_parameter_of_the_supervoxels_is_in_the_key(make_store, tmp_path: Path, change: dict) -> None:
    store = make_store(IMAGES[:1])
    for finder in (Supervoxels(), Supervoxels(**change), Supervoxels()):
        _, (voxels,) = centres.find(store, finder, tmp_path / "centres")
        np.testing.assert_array_equal(voxels, finder(store.image(0), (1.0, 1.0, 1.0)))
    assert len(list((tmp_path / "centres").iterdir())) == 2


def damaged() -> dict[str, bytes]:
    """Return contents of cache files by what is wrong with them."""

    def saved(array, **options) -> bytes:
        np.save(buffer := io.BytesIO(), array, **options)
        return buffer.getvalue()

    return {
        "empty": b"",
        "text": b"these are no numbers",
        "archive": b"PK\x03\x04",
        "cut off": saved(np.zeros((4, 3), np.int32))[:-1],
        "objects": saved(np.array([None]), allow_pickle=True),
        "two axes": saved(np.zeros((4, 2), np.int32)),
        "no rows": saved(np.zeros(3, np.int32)),
        "fractions": saved(np.zeros((4, 3))),
        "negative": saved(np.full((1, 3), -1)),
        "outside": saved(np.array([[0, 0, 0], [0, 7, 0]])),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_computed_again(make_store, tmp_path: Path, caplog, name: str) -> None:
    store = make_store(IMAGES[:1])
    _, expected = centres.find(store, Brightest(), tmp_path / "centres")
    (path,) = (tmp_path / "centres").iterdir()
    path.write_bytes(damaged()[name])
    finder = Brightest()
    _, found = centres.find(store, finder, tmp_path / "centres")
    np.testing.assert_array_equal(found[0], expected[0])
    assert len(finder.asked) == 1 and f"{path}: is damaged" in caplog.text
    caplog.clear()
    centres.find(store, finder, tmp_path / "centres")
    assert len(finder.asked) == 1 and not caplog.text


def test_scans_without_centres_are_reported_together(make_store, tmp_path: Path) -> None:
    faint = AIR.copy()
    faint[0, 0, :5] = 1
    store = make_store([AIR, IMAGES[0], faint])
    for _ in range(2):  # computed, and from the cache
        with pytest.raises(UserError) as error:
            centres.find(store, Supervoxels(), tmp_path / "centres")
        first, second = str(error.value).splitlines()
        for line, number, share in ((first, 0, "0.00%"), (second, 2, "1.49%")):
            assert line.startswith(f"{store.cases[number].image}: ")
            for part in ("supervoxel_foreground", share, "intensity_window", "remove the scan", "on_bad_file"):
                assert part in line


def test_at_most_ten_scans_are_named(make_store, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        centres.find(make_store([AIR] * 13), Supervoxels(), tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "3 more scans have none."


def test_scans_without_centres_can_be_skipped(make_store, tmp_path: Path, caplog) -> None:
    store = make_store([IMAGES[0], AIR, IMAGES[1]], data_dim=(6, 7, 8))
    rest, found = centres.find(store, Supervoxels(), tmp_path, skip=True)
    assert [case.name for case in rest.cases] == ["case00", "case02"]
    for image, voxels in zip((IMAGES[0], IMAGES[1]), found, strict=True):
        np.testing.assert_array_equal(voxels, Supervoxels()(image, (1, 1, 1)))
    (entry,) = rest.skipped
    assert entry["case"] == "case01" and "case01.npy: has no supervoxel" in entry["reason"]
    assert "Skipped case01" in caplog.text
    with pytest.raises(UserError, match="None of the scans"):
        centres.find(store.subset(store.cases[1:2]), Supervoxels(), tmp_path, skip=True)


def test_an_error_of_the_finder_ends_the_search(make_store, tmp_path: Path) -> None:
    def fail(image, spacing):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        centres.find(make_store(IMAGES), fail, tmp_path / "centres")
    assert not (tmp_path / "centres").exists()
