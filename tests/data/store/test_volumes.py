from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from self_supervised_3d_tasks.data.cases import Case, find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import filling, foreground
from self_supervised_3d_tasks.data.store.volumes import VolumeStore, check_case
from self_supervised_3d_tasks.errors import UserError

DRAWS = np.random.default_rng(2)
IMAGES = [DRAWS.uniform(size=(5 + i, 6, 4, 1)).astype(np.float32) for i in range(3)]
WHOLE = (slice(0, 5), slice(0, 6), slice(0, 4))
MASKS = [DRAWS.integers(0, 3, size=image.shape[:-1]) for image in IMAGES]


def files_of(folder: Path) -> dict[Path, int]:
    """The files of the disk cache, each with the time when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_values(make_store, tmp_path: Path, cache: str) -> None:
    scans = make_store(IMAGES, MASKS, data_dim=(5, 6, 4), cache=cache, cache_dir=tmp_path / "cache")
    assert len(scans) == 3 and scans.skipped == []
    for index, (image, mask) in enumerate(zip(IMAGES, MASKS, strict=True)):
        np.testing.assert_array_equal(scans.image(index), image)
        np.testing.assert_array_equal(scans.mask(index), mask)
        assert scans.image(index).dtype == np.float32 and scans.mask(index).dtype == np.uint8
        assert scans.shape(index) == image.shape
        assert scans.classes(index) == {0, 1, 2}


def test_a_store_in_memory_needs_no_file_any_more(make_store, tmp_path: Path) -> None:
    scans = make_store(IMAGES, MASKS)
    for case in scans.cases:
        case.image.unlink()
        case.mask.unlink()
    for _ in range(3):
        np.testing.assert_array_equal(scans.subset(scans.cases[:2]).image(1), IMAGES[1])


def test_auto_cache_goes_by_the_size_as_kept(make_store, tmp_path: Path, monkeypatch) -> None:
    """Whole numbers up to 255 take a byte, in the image and in the mask."""
    folder, scans = tmp_path / "cache", [np.round(255 * image) for image in IMAGES]
    num_bytes = sum(2 * mask.size for mask in MASKS)
    monkeypatch.setattr(filling, "MEMORY_LIMIT", num_bytes)
    make_store(scans, MASKS, data_dim=(5, 6, 4), cache_dir=folder)
    assert not folder.exists()
    monkeypatch.setattr(filling, "MEMORY_LIMIT", num_bytes - 1)
    make_store(scans, MASKS, data_dim=(5, 6, 4), cache_dir=folder)
    assert len(list(folder.iterdir())) == 9
    with pytest.raises(UserError, match="cache_dir"):
        make_store(scans, MASKS, data_dim=(5, 6, 4))
    monkeypatch.setattr(filling, "MEMORY_LIMIT", num_bytes)
    again = make_store(scans, MASKS, data_dim=(5, 6, 4), cache_dir=folder)
    assert isinstance(again.crop(0, WHOLE), np.ndarray) and files_of(folder), "kept files are counted, not decoded"


def test_subset_shares_arrays_and_keeps_order(make_store) -> None:
    scans = make_store(IMAGES, MASKS, data_dim=(5, 6, 4))
    part = scans.subset([scans.cases[2], scans.cases[0]])
    assert len(part) == 2 and len(scans) == 3
    for one, other in ((0, 2), (1, 0)):
        assert np.shares_memory(part.image(one), scans.image(other))
    with pytest.raises(UserError, match="None of the scans"):
        scans.subset([])


def test_cases_may_be_repeated_in_a_part(make_store) -> None:
    scans = make_store(IMAGES)
    part = scans.subset([scans.cases[1], scans.cases[0], scans.cases[1]])
    assert len(part) == 3
    for index in (0, 2):
        assert np.shares_memory(part.image(index), scans.image(1))


def test_photographs_are_stored(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    pixels = DRAWS.integers(0, 256, (3, 6, 5, 3), np.uint8)
    for number, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / "s" / f"eye{number}.png")
    cases = find_cases("images", tmp_path / "s", subject_pattern="(.*)")
    scans = VolumeStore(cases, Preprocessing((6, 5), 3, intensity_window=(0, 255), volume_fitting="exact"))
    for number, array in enumerate(pixels):
        np.testing.assert_allclose(scans.image(number), array / 255, atol=1e-6)


def test_foreground_voxels_have_labels(make_store, monkeypatch) -> None:
    monkeypatch.setattr(foreground, "MAX_VOXELS", 7)
    empty = np.zeros_like(MASKS[0])
    one = empty.copy()
    one[4, 5, 3] = 2
    scans = make_store([IMAGES[0]] * 3, [empty, one, np.ones_like(empty)])
    assert scans.foreground_voxel(0, 0.5) is None
    np.testing.assert_array_equal(scans.foreground_voxel(1, 0.999), [4, 5, 3])
    drawn = {tuple(scans.foreground_voxel(2, position)) for position in np.linspace(0, 0.999, 100)}
    assert len(drawn) == 7


def test_channel_files_become_channels(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("x_a", "x_b"):
        nib.save(nib.Nifti1Image(DRAWS.normal(size=(4, 4, 4)), np.eye(4)), tmp_path / "s" / f"{name}.nii.gz")
    cases = find_cases("nifti", tmp_path / "s", channel_suffixes=["_a", "_b"])
    scans = VolumeStore(cases, Preprocessing((8, 4, 2), 2))
    assert scans.shape(0) == (8, 4, 2, 2)


def _break(folder: Path, what: str) -> None:
    path, mask = folder / "scans" / "case01.npy", folder / "scans_labels" / "case01.npy"
    image, labels = np.load(path), np.load(mask)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "nan":
        image[0, 0, 0] = np.nan
        np.save(path, image)
    elif what == "rank":
        np.save(path, image[0, 0])
    elif what == "channels":
        np.save(path, np.concatenate([image, image], axis=-1))
    elif what == "grid":
        np.save(mask, labels[1:])
    elif what == "mask channels":
        np.save(mask, np.stack([labels, labels], axis=-1))
    else:
        np.save(mask, labels + 1)


HEADER_FAULTS = {
    "truncated": "case01.npy: cannot be read",
    "rank": "case01.npy: has shape .*expected 3 spatial axes",
    "channels": "case01.npy: has 2 channels",
    "grid": r"scans_labels/case01.npy: its grid is .*scans/case01.npy",
    "mask channels": "scans_labels/case01.npy: has 2 channels",
}
VOXEL_FAULTS = {"nan": "case01.npy: 1 of .* voxels are NaN", "label": r"scans_labels/case01.npy: has label 3"}


@pytest.mark.parametrize(("what", "message"), (HEADER_FAULTS | VOXEL_FAULTS).items())
def test_bad_files_stop_or_are_skipped(make_store, tmp_path: Path, caplog, what, message) -> None:
    good = make_store(IMAGES, MASKS, data_dim=(5, 6, 4))
    _break(tmp_path, what)
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=message):
        VolumeStore(good.cases, good.preprocessing, num_classes=3, cache="disk", cache_dir=cache)
    if what in HEADER_FAULTS:
        assert not files_of(cache), "headers are checked before any voxel is decoded"
    kept = VolumeStore(good.cases, good.preprocessing, num_classes=3, on_bad_file="skip")
    assert [case.name for case in kept.cases] == ["case00", "case02"]
    (skipped,) = kept.skipped
    assert skipped["case"] == "case01" and "case01.npy" in skipped["reason"]
    assert "Skipped case01" in caplog.text
    assert len(kept.subset(good.cases)) == 2
    with pytest.raises(UserError, match="None of the scans of this part"):
        kept.subset([good.cases[1]])
    with pytest.raises(UserError, match="None of 1 scans can be used"):
        VolumeStore([good.cases[1]], good.preprocessing, num_classes=3, on_bad_file="skip")


def test_all_bad_headers_are_listed_at_once(make_store, tmp_path: Path) -> None:
    good = make_store(IMAGES, MASKS, data_dim=(5, 6, 4))
    for name in ("case00", "case02"):
        (tmp_path / "scans" / f"{name}.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)case00.npy.*\n.*case02.npy"):
        VolumeStore(good.cases, good.preprocessing, num_classes=3)


def test_constant_scan_is_zero_and_warned(tmp_path: Path, caplog) -> None:
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "flat.npy", np.full((4, 4, 4), 7.0))
    scans = VolumeStore(find_cases("npy", tmp_path / "s"), Preprocessing((4, 4, 4), 1))
    assert not scans.image(0).any()
    assert "flat.npy" in caplog.text


def test_masks_are_needed_where_classes_are(make_store) -> None:
    scans = make_store(IMAGES[:1])
    with pytest.raises(UserError, match="case00.npy: has no mask"):
        VolumeStore(scans.cases, scans.preprocessing, num_classes=3)


def test_a_scan_is_no_mask_of_itself(tmp_path):
    """Nor is a link to it, or another way of writing its path."""
    array = np.arange(64, dtype=np.int16).reshape(4, 4, 4) % 2
    np.save(tmp_path / "scan.npy", array)
    (tmp_path / "link.npy").symlink_to(tmp_path / "scan.npy")
    for mask in (tmp_path / "scan.npy", tmp_path / "link.npy", tmp_path / "." / "scan.npy"):
        case = Case("scan", tmp_path / "scan.npy", mask, "scan")
        with pytest.raises(UserError, match="is the scan itself, expected its mask"):
            check_case(case, Preprocessing((4, 4, 4), 1), num_classes=2)


def looked_at(tmp_path, arrays, cache="memory", channels=1, **keys):
    cases = []
    for number, array in enumerate(arrays):
        path = tmp_path / f"case{number:02}.npy"
        np.save(path, array.astype(np.float32))
        cases.append(Case(path.stem, path, None, path.stem))
    preprocessing = Preprocessing((8, 8, 8), channels, **keys)
    VolumeStore(cases, preprocessing, cache=cache, cache_dir=tmp_path / "cache").check_contrast()


CT = {"intensity_window": (-1000, 1000), "intensity_scaling": "window"}


def test_a_window_in_other_units_than_the_files_is_refused(tmp_path):
    scans = np.random.default_rng(0).random((3, 8, 8, 8))
    with pytest.raises(
        UserError, match="^intensity_window: nothing is left to see in case00, nor in any other of the 3 scans: "
    ):
        looked_at(tmp_path, scans, intensity_window=(-100, 240), intensity_scaling="window")


def test_scans_with_little_contrast_or_a_narrow_window_are_told(tmp_path, caplog):
    rng = np.random.default_rng(0)
    flat = np.full((8, 8, 8), 0.5)
    flat[1, 1, 1:3] = 0, 1
    looked_at(tmp_path, [rng.random((8, 8, 8)), flat], intensity_scaling="min_max")
    assert "intensity_scaling: little is left to see in case01 after scaling" in caplog.text
    caplog.clear()
    looked_at(tmp_path, rng.random((2, 8, 8, 8)), intensity_window=(0.4, 0.8), intensity_scaling="window")
    assert "intensity_window: clips more than half of 2 of 2 scans, such as case00" in caplog.text
    caplog.clear()
    looked_at(tmp_path, rng.random((2, 8, 8, 8)), intensity_window=(0, 1), intensity_scaling="window")
    assert caplog.text == ""


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_one_scan_in_other_units_among_many_is_told(tmp_path, caplog, cache):
    """With a cache on disk also where its files were there already."""
    scans = np.random.default_rng(0).uniform(-1000, 1000, (20, 8, 8, 8))
    scans[13] = (scans[13] + 1000) / 2000
    for _ in range(2):
        caplog.clear()
        looked_at(tmp_path, scans, cache, **CT)
        assert [record.getMessage() for record in caplog.records] == [
            "intensity_window: little is left to see in case13 after scaling; check these files"
        ]


def test_many_flat_scans_are_told_in_one_line(tmp_path, caplog):
    scans = np.random.default_rng(0).uniform(-1000, 1000, (9, 8, 8, 8))
    scans[:7] /= 1000
    looked_at(tmp_path, scans, **CT)
    assert "in case00, case01, case02, case03, case04 and 2 more after scaling" in caplog.text


def test_a_channel_in_other_units_is_told(tmp_path, caplog):
    """Of two channels in one window the second is in [0, 1]."""
    scans = np.random.default_rng(0).uniform(-1000, 1000, (3, 8, 8, 8, 2))
    scans[..., 1] = (scans[..., 1] + 1000) / 2000
    looked_at(tmp_path, scans, channels=2, **CT)
    (record,) = caplog.records
    where = "channel 1 of case00, case01, case02"
    assert record.getMessage() == f"intensity_window: little is left to see in {where} after scaling; check these files"
    scans[..., 0] /= 1000
    with pytest.raises(UserError, match="nothing is left to see in case00, nor in any other of the 3 scans"):
        looked_at(tmp_path, scans, channels=2, **CT)


def test_the_blue_of_a_retina_is_no_channel_in_other_units(tmp_path, caplog):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    colours[..., 2] //= 64
    Image.fromarray(colours).save(tmp_path / "eye.png")
    case = Case("eye", tmp_path / "eye.png", None, "eye")
    VolumeStore([case], Preprocessing((8, 8), 3, intensity_window=(0, 255))).check_contrast()
    assert caplog.text == ""
