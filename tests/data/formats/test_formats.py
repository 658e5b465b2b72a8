from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.errors import UserError

# Canonical array of the same anatomy, whatever the order and direction in which it was stored.
CANONICAL = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
CANONICAL_AFFINE = np.array([[1.5, 0, 0, -10], [0, 2, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
AXES = ["RAS", "LPS", "SAR", "IPL", "ASR", "PIL"]


def stored_as(axes: str, array: np.ndarray = CANONICAL) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, CANONICAL_AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    return image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(axes))
    )


def save(image: nib.Nifti1Image, path: Path) -> Path:
    nib.save(image, path)
    return path


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_stored_axes_become_canonical(tmp_path: Path, axes: str, suffix: str) -> None:
    path = save(stored_as(axes), tmp_path / f"a{suffix}")
    volume = formats.read_image(path, 3)
    np.testing.assert_array_equal(volume.array, CANONICAL[..., None])
    np.testing.assert_allclose(volume.affine, CANONICAL_AFFINE)
    assert volume.spacing == (1.5, 2, 3)
    assert volume.array.dtype == np.float32 and volume.array.flags.c_contiguous
    header = formats.read_header(path, 3)
    assert header.shape == (2, 3, 4, 1)
    np.testing.assert_allclose(header.affine, CANONICAL_AFFINE)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_written_mask_lies_on_the_original_grid(tmp_path: Path, axes: str, suffix: str) -> None:
    scan = stored_as(axes)
    scan.header["cal_max"] = 1000
    reference = save(scan, tmp_path / "scan.nii.gz")
    labels = (CANONICAL > 10).astype(int)
    path = tmp_path / "out" / f"mask{suffix}"
    formats.write_mask(path, labels, reference)
    written = nib.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(scan.dataobj) > 10)
    np.testing.assert_allclose(written.affine, scan.affine)
    np.testing.assert_allclose(written.header.get_zooms(), scan.header.get_zooms())
    assert written.get_data_dtype() == np.uint8
    assert written.header["cal_max"] == 0
    assert written.header["qform_code"] == nib.load(reference).header["qform_code"]
    assert written.header["sform_code"] == nib.load(reference).header["sform_code"]
    np.testing.assert_array_equal(formats.read_mask(path, 3).array, labels)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_mask_of_a_scaled_scan_with_channels_and_nifti2(tmp_path: Path) -> None:
    scan = nib.Nifti2Image(np.zeros((2, 3, 4, 2), np.int16), np.diag([-1, 1, 1, 1]))
    scan.header.set_slope_inter(0.5, 100)
    reference = save(scan, tmp_path / "scan.nii.gz")
    assert formats.read_image(reference, 3).array.shape == (2, 3, 4, 2)
    labels = np.zeros((2, 3, 4), int)
    labels[0] = 300  # no uint8
    formats.write_mask(tmp_path / "mask.nii", labels, reference)
    written = nib.load(tmp_path / "mask.nii")
    assert isinstance(written, nib.Nifti2Image) and written.shape == (2, 3, 4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels[::-1])


def test_same_mask_gives_same_bytes(tmp_path: Path) -> None:
    reference = save(stored_as("LPS"), tmp_path / "scan.nii")
    for name in ("a", "b"):
        formats.write_mask(tmp_path / f"{name}.nii.gz", np.ones((2, 3, 4), int), reference)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_npy_reference(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", CANONICAL)
    for name in ("mask.npy", "mask.nii"):
        formats.write_mask(tmp_path / name, CANONICAL > 5, tmp_path / "scan.npy")
        np.testing.assert_array_equal(formats.read_mask(tmp_path / name, 3).array, CANONICAL > 5)


def test_mask_of_another_shape_or_format_is_refused(tmp_path: Path) -> None:
    reference = save(stored_as("RAS"), tmp_path / "scan.nii")
    with pytest.raises(UserError, match=r"mask.nii.*\(4, 3, 2\).*\(2, 3, 4\)"):
        formats.write_mask(tmp_path / "mask.nii", np.zeros((4, 3, 2), int), reference)
    with pytest.raises(UserError, match="mask.png"):
        formats.write_mask(tmp_path / "mask.png", np.zeros((2, 3, 4), int), reference)


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((2, 3, 4), 3, (2, 3, 4, 1)),
        ((2, 3, 4, 5), 3, (2, 3, 4, 5)),
        ((2, 3, 4, 1, 5), 3, (2, 3, 4, 5)),
        ((2, 3, 1), 3, (2, 3, 1, 1)),
        ((2, 3), 2, (2, 3, 1)),
        ((2, 3, 1), 2, (2, 3, 1)),
        ((2, 3, 1, 5), 2, (2, 3, 5)),
    ],
)
def test_nifti_shapes(tmp_path: Path, shape: tuple, rank: int, expected: tuple) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    path = save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    assert formats.read_header(path, rank).shape == expected
    np.testing.assert_array_equal(formats.read_image(path, rank).array, array.reshape(expected))


@pytest.mark.parametrize("axes", AXES)
def test_slice_of_any_orientation(tmp_path: Path, axes: str) -> None:
    image = stored_as(axes)
    image = image.slicer[:, :, 1:2]
    path = save(image, tmp_path / "a.nii")
    volume = formats.read_image(path, 2)
    canonical = nib.as_closest_canonical(image)
    np.testing.assert_array_equal(volume.array[..., 0], np.squeeze(canonical.get_fdata()))
    labels = (volume.array[..., 0] > 10).astype(int)
    formats.write_mask(tmp_path / "mask.nii", labels, path)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii").get_fdata(), image.get_fdata() > 10)


@pytest.mark.parametrize(("shape", "expected"), [((2, 3, 4), (2, 3, 4, 1)), ((2, 3, 4, 5), (2, 3, 4, 5))])
@pytest.mark.parametrize("dtype", ["int16", "float64", "bool", ">f4"])
def test_npy(tmp_path: Path, shape: tuple, expected: tuple, dtype: str) -> None:
    array = np.asfortranarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    np.save(tmp_path / "a.npy", array)
    volume = formats.read_image(tmp_path / "a.npy", 3)
    np.testing.assert_array_equal(volume.array, array.reshape(expected).astype(np.float32))
    assert volume.array.dtype == np.float32 and volume.array.flags.c_contiguous
    assert volume.affine is None and volume.spacing == (1, 1, 1)


def test_masks_are_rounded_within_a_thousandth_and_lose_their_channel_axis(tmp_path: Path) -> None:
    stored = np.array([[0.0009, 0.9992], [1.9999, 2.0]])
    np.save(tmp_path / "a.npy", stored[..., None])
    array = formats.read_mask(tmp_path / "a.npy", 2).array
    assert array.dtype == np.int32
    np.testing.assert_array_equal(array, [[0, 1], [2, 2]])
    path = save(nib.Nifti1Image(stored[..., None], np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(formats.read_mask(path, 2).array, array)


@pytest.mark.parametrize("value", [0.2, 1.2, 1.998, -0.5])
@pytest.mark.parametrize("name", ["a.npy", "a.nii"])
def test_fractions_are_no_labels(tmp_path: Path, name: str, value: float) -> None:
    """A scan that was given as its own mask trained, on intensities that were rounded."""
    stored = np.array([[0.0, 1.0], [value, 2.0]])
    np.save(tmp_path / "a.npy", stored)
    save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match=rf"{name}: has the value {value:g}, expected whole numbers as labels"):
        formats.read_mask(tmp_path / name, 2)


def test_channels_are_concatenated_in_order(tmp_path: Path) -> None:
    paths = [save(nib.Nifti1Image(CANONICAL + shift, np.eye(4)), tmp_path / f"{shift}.nii") for shift in (5, 0)]
    volume = formats.read_channels(paths, 3)
    np.testing.assert_array_equal(volume.array, np.stack([CANONICAL + 5, CANONICAL], axis=-1))
    assert volume.path == paths[0]


def test_channels_on_other_grids_are_refused(tmp_path: Path) -> None:
    one = save(nib.Nifti1Image(CANONICAL, np.eye(4)), tmp_path / "one.nii")
    smaller = save(nib.Nifti1Image(CANONICAL[1:], np.eye(4)), tmp_path / "smaller.nii")
    shifted = save(nib.Nifti1Image(CANONICAL, nib.affines.from_matvec(np.eye(3), [0, 0, 2])), tmp_path / "shifted.nii")
    rounded = save(nib.Nifti1Image(CANONICAL, np.eye(4) + 1e-4 * np.eye(4, k=1)), tmp_path / "rounded.nii")
    formats.read_channels([one, rounded], 3)
    with pytest.raises(UserError, match=r"smaller.nii.*\(1, 3, 4\).*one.nii.*\(2, 3, 4\)"):
        formats.read_channels([one, smaller], 3)
    with pytest.raises(UserError, match=r"shifted.nii.*2 mm.*one.nii"):
        formats.read_channels([one, shifted], 3)


def _nifti_bytes(array: np.ndarray) -> bytes:
    return nib.Nifti1Image(array, np.eye(4)).to_bytes()


NOISE = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
DAMAGED = {
    "empty.npy": b"",
    "empty.nii": b"",
    "empty.nii.gz": b"",
    "text.npy": b"this is no array",
    "text.nii": b"this is no scan" * 100,
    "text.nii.gz": b"this is no scan" * 100,
    "truncated.nii": _nifti_bytes(NOISE)[:-5],
    "truncated.nii.gz": gzip.compress(_nifti_bytes(NOISE))[:-200],
    "no_checksum.nii.gz": gzip.compress(_nifti_bytes(NOISE))[:-6],
    "pickled.npy": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("read", [formats.read_image, formats.read_mask])
def test_damaged_files_are_named(tmp_path: Path, name: str, read) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        read(tmp_path / name, 3)


def test_flipped_bit_fails_the_checksum(tmp_path: Path) -> None:
    # Stored, not compressed: the stream stays valid and only the checksum can tell.
    content = bytearray(gzip.compress(_nifti_bytes(NOISE), compresslevel=0))
    content[1000] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(UserError, match="a.nii.gz.*incorrect data check"):
        formats.read_image(tmp_path / "a.nii.gz", 3)


def test_truncated_and_object_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", NOISE)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-1])
    np.save(tmp_path / "b.npy", np.array([{"a": 1}] * 8).reshape(2, 2, 2), allow_pickle=True)
    for name, message in (("a.npy", "cannot be read"), ("b.npy", "holds Python objects")):
        with pytest.raises(UserError, match=f"{name}: {message}"):
            formats.read_header(tmp_path / name, 3)


def test_missing_file(tmp_path: Path) -> None:
    for name in ("a.npy", "a.nii", "a.nii.gz"):
        with pytest.raises(UserError, match=f"{name}: this file does not exist"):
            formats.read_image(tmp_path / name, 3)


@pytest.mark.parametrize(
    ("shape", "rank"), [((4, 4), 3), ((4, 4, 4, 2, 2), 3), ((4, 4, 4, 2), 2), ((4,), 2), ((4, 0, 4), 3)]
)
def test_wrong_rank(tmp_path: Path, shape: tuple, rank: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(UserError, match="a.npy"):
        formats.read_header(tmp_path / "a.npy", rank)
    if len(shape) > 1 and min(shape) > 0:
        path = save(nib.Nifti1Image(np.zeros(shape), np.eye(4)), tmp_path / "a.nii.gz")
        with pytest.raises(UserError, match=rf"a.nii.gz: has shape .*expected {rank} spatial axes"):
            formats.read_header(path, rank)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_not_finite_float32(tmp_path: Path, value: float) -> None:
    array = np.zeros((4, 4, 4))
    array[1, 2, 3] = value
    np.save(tmp_path / "a.npy", array)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    for name in ("a.npy", "a.nii.gz"):
        with pytest.raises(UserError, match=f"{name}: 1 of 64 voxels"):
            formats.read_image(tmp_path / name, 3)
        with pytest.raises(UserError, match=f"{name}: values range"):
            formats.read_mask(tmp_path / name, 3)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 4), complex))
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii")
    for name in ("a.npy", "a.nii"):
        with pytest.raises(UserError, match=f"{name}: voxels are of type"):
            formats.read_image(tmp_path / name, 3)


def test_mask_with_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 4, 2)))
    with pytest.raises(UserError, match="a.npy: has 2 channels"):
        formats.read_mask(tmp_path / "a.npy", 3)


def test_degenerate_affine(tmp_path: Path) -> None:
    image = nib.Nifti1Image(CANONICAL, None)
    image.header.set_sform(np.diag([1, 1, 0, 1]), 1)
    (tmp_path / "a.nii").write_bytes(nib.Nifti1Image(CANONICAL, np.diag([1, 1, 0, 1]), image.header).to_bytes())
    with pytest.raises(UserError, match="a.nii: its affine is degenerate"):
        formats.read_header(tmp_path / "a.nii", 3)
