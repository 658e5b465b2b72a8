"""The same scan in every format that says where voxels lie, however its axes are stored, is the same scan."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from self_supervised_3d_tasks.data import formats

CANONICAL = np.random.default_rng(0).integers(-1000, 3000, (4, 5, 6)).astype(np.int16)
SPACING = (0.7, 1.3, 2.5)
# Seven of the 48 ways to store axes; in the last one the patient lies oblique, less than 20 degrees off the axes.
ORIENTATIONS = ["RAS", "LPS", "LIA", "ASR", "PIR", "SLA", "RSP oblique"]
LPS = np.diag([-1, -1, 1, 1])


def rotation(axis: int, degrees: float) -> np.ndarray:
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turn, (first, second) = np.eye(3), [other for other in range(3) if other != axis]
    turn[[first, first, second, second], [first, second, first, second]] = cosine, -sine, sine, cosine
    return turn


def canonical_affine(orientation: str) -> np.ndarray:
    turn = rotation(0, 12) @ rotation(1, -9) @ rotation(2, 17) if "oblique" in orientation else np.eye(3)
    return nib.affines.from_matvec(turn @ np.diag(SPACING), (-31.5, 20.25, 7))


def stored_as(orientation: str, array: np.ndarray = CANONICAL) -> tuple[np.ndarray, np.ndarray]:
    """Return array and affine (RAS) of the scan, stored on other axes; by their definition, a voxel at a time."""
    letters = [next(pair for pair in ("LR", "PA", "IS") if letter in pair) for letter in orientation[:3]]
    axes = [("LR", "PA", "IS").index(pair) for pair in letters]
    is_reversed = [letter == pair[0] for letter, pair in zip(orientation, letters, strict=False)]
    stored, to_canonical = np.empty([array.shape[axis] for axis in axes], array.dtype), np.zeros((4, 4))
    to_canonical[3, 3] = 1
    for place, (axis, flip) in enumerate(zip(axes, is_reversed, strict=True)):
        to_canonical[axis, place] = -1 if flip else 1
        to_canonical[axis, 3] = array.shape[axis] - 1 if flip else 0
    for index in np.ndindex(stored.shape):
        stored[index] = array[tuple((to_canonical @ [*index, 1])[:3].astype(int))]
    return stored, canonical_affine(orientation) @ to_canonical


def columns(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return spacing, directions and origin."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing, affine[:3, :3] / spacing, affine[:3, 3]


def text(values: np.ndarray) -> str:
    return " ".join(f"{value:.17g}" for value in np.ravel(values))


def write_nifti(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    spacing, direction, origin = columns(LPS @ affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel())
    sitk.WriteImage(image, str(path), imageIO="NiftiImageIO")


def write_pair(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    plain = path.with_name(path.name.removesuffix(".gz"))
    write_nifti(plain, stored, affine)
    for file in (plain, plain.with_suffix(".img")) if path != plain else ():
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def write_metaimage(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    spacing, direction, origin = columns(LPS @ affine)
    is_local = path.suffix == ".mha"
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {is_local}\nBinaryDataByteOrderMSB = False"
        f"\nTransformMatrix = {text(direction.T)}\nOffset = {text(origin)}\nElementSpacing = {text(spacing)}\n"
        f"DimSize = {text(stored.shape)}\nElementType = MET_SHORT\nElementDataFile = "
    )
    voxels = stored.astype("<i2").tobytes(order="F")
    if is_local:
        path.write_bytes(f"{header}LOCAL\n".encode() + zlib.compress(voxels))
    else:
        path.write_text(f"{header}{path.stem}.raw\n")
        path.with_suffix(".raw").write_bytes(voxels)


def write_nrrd(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    def vector(values: np.ndarray) -> str:
        return f"({text(values).replace(' ', ',')})"

    is_local = path.suffix == ".nrrd"
    header = (
        f"NRRD0004\ntype: int16\ndimension: 3\nspace: {'right-anterior' if is_local else 'left-anterior'}-superior\n"
        f"sizes: {text(stored.shape)}\nendian: big\nencoding: {'gzip' if is_local else 'raw'}\n"
    )
    affine = affine if is_local else np.diag([-1, 1, 1, 1]) @ affine
    header += f"space directions: {' '.join(map(vector, affine[:3, :3].T))}\nspace origin: {vector(affine[:3, 3])}\n"
    voxels = stored.astype(">i2").tobytes(order="F")
    if is_local:
        path.write_bytes(f"{header}\n".encode() + gzip.compress(voxels))
    else:
        path.write_text(f"{header}data file: {path.stem}.raw\n")
        path.with_suffix(".raw").write_bytes(voxels)


def write_freesurfer(path: Path, stored: np.ndarray, affine: np.ndarray) -> None:
    """Write what FreeSurfer's page on the MGH format says: big endian, and the centre instead of the origin."""
    spacing, direction, _ = columns(affine)
    centre = (affine @ [*(np.array(stored.shape) / 2), 1])[:3]
    numbers = np.concatenate([spacing, direction.T.ravel(), centre]).astype(">f4").tobytes()
    head = np.array([1, *stored.shape, 1, 4, 0], ">i4").tobytes() + np.array(1, ">i2").tobytes() + numbers
    content = head.ljust(284, b"\0") + stored.astype(">i2").tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".mgz" else content)


def read_by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    rank = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (rank, rank)) * image.GetSpacing()
    affine = np.eye(4)
    affine[:rank, :rank], affine[:rank, 3] = direction, image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS @ affine


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".gz":  # ITK does not read compressed pairs
        for file in (path, path.with_name(path.name.replace(".hdr", ".img"))):
            file.with_name(file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return read_by_itk(path.with_name(path.name.removesuffix(".gz")))


def read_freesurfer(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".mgz" else path.read_bytes()
    *shape, frames, kind = np.frombuffer(content, ">i4", 5, 4)
    spacing, direction, centre = np.split(np.frombuffer(content, ">f4", 15, 30).astype(float), [3, 12])
    assert (frames, kind) == (1, 0)
    matrix = direction.reshape(3, 3).T * spacing
    affine = nib.affines.from_matvec(matrix, centre - matrix @ shape / 2)
    return np.frombuffer(content, "u1", np.prod(shape), 284).reshape(shape, order="F"), affine


# By the name of the format's module: how other programs write a scan of int16, and read a mask of uint8.
OTHERS = {
    "nifti": (write_nifti, read_by_itk),
    "nifti_pairs": (write_pair, read_pair),
    "metaimage": (write_metaimage, read_by_itk),
    "nrrd": (write_nrrd, read_by_itk),
    "freesurfer": (write_freesurfer, read_freesurfer),
}
# Series of slices have no handedness of their own and are compared in test_dicom.py.
SINGLE_FILES = [module for module in formats.known() if module.HOLDS_VOLUMES and not hasattr(module, "scans_in")]
NAMES = {module.__name__.rpartition(".")[2]: module for module in SINGLE_FILES}
SUFFIXES = [(name, suffix) for name in NAMES.keys() & OTHERS.keys() for suffix in NAMES[name].SUFFIXES]
every_suffix = pytest.mark.parametrize(("name", "suffix"), sorted(SUFFIXES))


def test_every_format_with_an_affine_is_compared(tmp_path: Path) -> None:
    """A new format that keeps the place of voxels needs a line in the table above."""
    write_nifti(tmp_path / "scan.nii", CANONICAL, canonical_affine("RAS"))
    for name, module in NAMES.items():
        for suffix in set(module.SUFFIXES) & set(module.MASK_SUFFIXES):
            path = tmp_path / f"mask{suffix}"
            formats.write_mask(path, CANONICAL > 0, tmp_path / "scan.nii")
            assert (formats.read_header(path, 3).affine is not None) == (name in OTHERS), name


@every_suffix
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_scan_is_the_same_in_every_format(tmp_path: Path, name: str, suffix: str, orientation: str) -> None:
    write, read = OTHERS[name]
    stored, affine = stored_as(orientation)
    path = tmp_path / f"scan{suffix}"
    write(path, stored, affine)
    volume, header = formats.read_image(path, 3), formats.read_header(path, 3)
    np.testing.assert_array_equal(volume.array[..., 0], CANONICAL)
    assert volume.array.dtype == np.float32 and volume.array.flags.c_contiguous
    assert header.shape == (4, 5, 6, 1)
    for found in (volume.affine, header.affine):
        np.testing.assert_allclose(found, canonical_affine(orientation), atol=2e-5)
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(header.spacing, SPACING, rtol=1e-6)

    labels = (CANONICAL > 0) + 2 * (CANONICAL > 2000)
    for ending in NAMES[name].MASK_SUFFIXES:
        mask = tmp_path / "masks" / f"scan{ending}"
        formats.write_mask(mask, labels, path)
        np.testing.assert_array_equal(formats.read_mask(mask, 3).array, labels)
        formats.check_same_grid(header, formats.read_mask_header(mask, 3))
        array, found = read(mask)
        np.testing.assert_array_equal(array, (stored > 0) + 2 * (stored > 2000))
        np.testing.assert_allclose(found, affine, atol=2e-5)
        assert array.dtype == np.uint8


@every_suffix
@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_a_plane_is_the_same_in_every_format(tmp_path: Path, name: str, suffix: str, orientation: str) -> None:
    """A slice of a volume, with its third stored axis of length 1."""
    stored, affine = stored_as(orientation)
    stored = stored[:, :, 1:2]
    for suffix_, writer in ((".nii", write_nifti), (suffix, OTHERS[name][0])):
        writer(tmp_path / f"scan{suffix_}", stored, affine)
    path = tmp_path / f"scan{suffix}"
    reference = nib.as_closest_canonical(nib.load(tmp_path / "scan.nii"))
    volume = formats.read_image(path, 2)
    np.testing.assert_array_equal(volume.array[..., 0], np.squeeze(reference.dataobj))
    np.testing.assert_allclose(volume.spacing, [SPACING[axis] for axis in range(3) if reference.shape[axis] > 1], 1e-6)
    mask = tmp_path / f"mask{suffix}"
    formats.write_mask(mask, volume.array[..., 0] > 0, path)
    array, found = OTHERS[name][1](mask)
    np.testing.assert_array_equal(array.reshape(stored.shape), stored > 0)
    np.testing.assert_allclose(found, affine, atol=2e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr"])
def test_two_axes_with_and_without_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    image = sitk.GetImageFromArray(CANONICAL[0])
    image.SetSpacing((0.5, 2))
    image.SetDirection((0, 1, -1, 0))
    image.SetOrigin((3, 4))
    sitk.WriteImage(image, str(path))
    sitk.WriteImage(image, str(tmp_path / "other.nii"))
    volume, other = formats.read_image(path, 2), formats.read_image(tmp_path / "other.nii", 2)
    np.testing.assert_array_equal(volume.array, other.array)
    np.testing.assert_allclose(volume.affine, other.affine, atol=1e-6)
    assert volume.spacing == other.spacing == (2, 0.5)
    formats.write_mask(tmp_path / f"mask{suffix}", volume.array[..., 0] > 500, path)
    written = sitk.ReadImage(str(tmp_path / f"mask{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), CANONICAL[0] > 500)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)
    assert written.GetSpacing() == image.GetSpacing() and written.GetOrigin() == image.GetOrigin()
    if suffix[1] in "mn" and ".nii" not in suffix:
        colours = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(path))
        # LPS axes are turned to RAS, x before y.
        np.testing.assert_array_equal(formats.read_image(path, 2).array, colours.swapaxes(0, 1)[::-1, ::-1])
        with pytest.raises(formats.UserError, match="expected 3 spatial axes"):
            formats.read_header(path, 3)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii.gz"])
def test_vectors_are_channels(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(1).normal(size=(6, 5, 4, 3)).astype(np.float32)
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetDirection(np.diag([-1.0, -1, 1]).ravel())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    path = tmp_path / f"scan{suffix}"
    assert formats.read_header(path, 3).shape == (4, 5, 6, 3)
    np.testing.assert_array_equal(formats.read_image(path, 3).array, array.transpose(2, 1, 0, 3))
    with pytest.raises(formats.UserError, match="has 3 channels, expected one integer label"):
        formats.read_mask(path, 3)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_a_fourth_axis_is_channels(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(1).normal(size=(2, 6, 5, 4)).astype(np.float32)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetDirection(np.diag([-1.0, -1, 1, 1]).ravel())
    image.SetSpacing((*SPACING, 7))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    volume = formats.read_image(path, 3)
    np.testing.assert_array_equal(volume.array, array.transpose(3, 2, 1, 0))
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
    formats.write_mask(tmp_path / f"mask{suffix}", volume.array[..., 0] > 0, path)
    np.testing.assert_array_equal(read_by_itk(tmp_path / f"mask{suffix}")[0], array[0].T > 0)
