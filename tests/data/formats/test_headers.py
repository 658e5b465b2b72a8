"""What headers say of sizes and directions: units, contradictions, rounding, and numbers that cannot be."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.errors import UserError

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = nib.affines.from_matvec(np.diag([-500.0, 700, 1500]), (1000, -2000, 3000))


def nifti(affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> nib.Nifti1Image:
    return kind(ARRAY, affine)


def content(image: nib.Nifti1Image) -> bytes:
    """Return the file with the header as it is, which nibabel would correct."""
    start = 544 if isinstance(image, nib.Nifti2Image) else 352
    image.header["vox_offset"] = start
    return image.header.binaryblock.ljust(start, b"\0") + np.asarray(image.dataobj).tobytes(order="F")


def save(image: nib.Nifti1Image, path: Path) -> Path:
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("unit", "mm"), [("micron", 0.001), ("mm", 1), ("meter", 1000), ("unknown", 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_units_of_nifti(tmp_path: Path, suffix: str, unit: str, mm: float, caplog) -> None:
    affine = AFFINE.copy()
    affine[:3] /= 1000 * mm
    image = (nib.Nifti1Pair if suffix == ".hdr" else nib.Nifti1Image)(ARRAY, affine)
    image.header.set_xyzt_units(unit)
    path = save(image, tmp_path / f"scan{suffix}")
    volume = formats.read_image(path, 3)
    np.testing.assert_allclose(volume.spacing, (0.5, 0.7, 1.5), rtol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 3], (0.5, -2, 3), rtol=1e-6)  # the first axis is turned
    np.testing.assert_allclose(formats.read_header(path, 3).affine, volume.affine)
    formats.write_mask(tmp_path / f"mask{suffix}", volume.array[..., 0] > 5, path)
    written = nib.load(tmp_path / f"mask{suffix}")
    np.testing.assert_allclose(written.affine, affine)  # in the file's own unit
    assert written.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(formats.read_mask(tmp_path / f"mask{suffix}", 3).affine, volume.affine)
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_micron_in_files_of_itk(tmp_path: Path, suffix: str) -> None:
    path, mask = tmp_path / f"scan{suffix}", tmp_path / f"mask{suffix}"
    image = sitk.GetImageFromArray(ARRAY.T)
    image.SetSpacing((500, 700, 1500))
    sitk.WriteImage(image, str(path))
    field = (
        ("ElementSpacing", "DistanceUnits = um\n") if suffix[1] == "m" else ("kinds", 'space units: "um" "um" "um"\n')
    )
    content = path.read_bytes().replace(field[0].encode(), f"{field[1]}{field[0]}".encode(), 1)
    path.write_bytes(content)
    volume = formats.read_image(path, 3)
    assert volume.spacing == pytest.approx((0.5, 0.7, 1.5))
    formats.write_mask(mask, volume.array[..., 0] > 5, path)
    assert sitk.ReadImage(str(mask)).GetSpacing() == (500, 700, 1500)
    assert formats.read_mask(mask, 3).spacing == pytest.approx((0.5, 0.7, 1.5))


def test_units_that_nobody_meant_are_told(tmp_path: Path, caplog) -> None:
    image = nifti()
    image.header.set_xyzt_units("meter")
    path = save(image, tmp_path / "scan.nii")
    for _ in range(2):
        assert formats.read_header(path, 3).spacing == (500_000, 700_000, 1_500_000)
    (record,) = caplog.records
    assert "scan.nii: by its unit of length, a voxel measures 1.5e+06 mm" in record.getMessage()


@pytest.mark.parametrize(("shift", "told"), [(0, False), (0.2, False), (0.3, True)])
def test_sform_and_qform_that_contradict_are_told_once(tmp_path: Path, shift: float, told: bool, caplog) -> None:
    image = nifti(np.diag([-0.5, 0.5, 0.5, 1]))
    image.set_sform(nib.affines.from_matvec(np.diag([-0.5, 0.5, 0.5]), (shift, 0, 0)), 1)
    image.set_qform(np.diag([-0.5, 0.5, 0.5, 1]), 1)
    path = save(image, tmp_path / "scan.nii.gz")
    for _ in range(2):
        affine = formats.read_image(path, 3).affine
    np.testing.assert_allclose(affine[:3, 3], (shift - 0.5, 0, 0), atol=1e-6)  # the sform
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == told
    if told:
        assert (
            "scan.nii.gz: its sform and its qform contradict each other: they place voxels up to 0.3 mm" in messages[0]
        )
        assert "The sform is taken" in messages[0]


@pytest.mark.parametrize("codes", [(0, 1), (1, 0)])
def test_a_form_without_a_code_contradicts_nothing(tmp_path: Path, codes: tuple[int, int], caplog) -> None:
    image = nifti()
    image.set_sform(np.diag([2, 2, 2, 1]), codes[0])
    image.set_qform(np.diag([3, 3, 3, 1]), codes[1])
    path = save(image, tmp_path / "scan.nii")
    assert formats.read_header(path, 3).spacing == ((3, 3, 3) if codes[1] else (2, 2, 2))
    assert not caplog.records


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("excess", [1e-6, 1e-4])
def test_rounded_quaternions_are_read(tmp_path: Path, kind: type, excess: float) -> None:
    """Half a turn, whose real part is 0: what rounding adds to the others makes its square negative."""
    image = nifti(np.eye(4), kind)
    image.set_sform(None, 0)
    image.set_qform(nib.affines.from_matvec(np.diag([-1.0, -1, 1]) * (1, 2, 3)), 1)
    image.header["quatern_d"] = 1 + excess
    path = tmp_path / "scan.nii"
    path.write_bytes(content(image))
    with pytest.raises(ValueError, match="w2 should be positive"):
        nib.load(path)
    volume = formats.read_image(path, 3)
    np.testing.assert_array_equal(volume.array[..., 0], ARRAY[::-1, ::-1])
    assert volume.spacing == pytest.approx((1, 2, 3))
    formats.write_mask(tmp_path / "mask.nii", ARRAY > 4, path)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii").dataobj, (ARRAY > 4)[::-1, ::-1])


def test_a_qform_that_is_no_rotation(tmp_path: Path, caplog) -> None:
    image = nifti(np.diag([1, 2, 3, 1]))
    image.set_qform(np.diag([-1, -2, 3, 1]), 1)
    image.header["quatern_d"] = 1.2
    path = tmp_path / "scan.nii"
    for sform_code in (1, 0):
        image.header["sform_code"] = sform_code
        path.write_bytes(content(image))
        if sform_code:
            assert formats.read_header(path, 3).spacing == (1, 2, 3)
            assert "its qform is no rotation; the sform is taken" in caplog.text
        else:
            with pytest.raises(UserError, match=r"scan.nii: its qform is no rotation \(a quaternion of length 1.2"):
                formats.read_header(path, 3)


def replaced(path: Path, old: bytes, new: bytes) -> None:
    written = path.read_bytes()
    assert written.count(old) == 1
    path.write_bytes(written.replace(old, new))


@pytest.mark.parametrize("size", [0, -1.5, np.nan])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".mha", ".nrrd", ".mgz", ".mgh"])
def test_sizes_that_are_not_positive_are_refused(tmp_path: Path, suffix: str, size: float, capfd) -> None:
    path = tmp_path / f"scan{suffix}"
    if suffix in (".mha", ".nrrd"):
        image = sitk.GetImageFromArray(ARRAY.T)
        image.SetSpacing((1, 1.5, 2))
        sitk.WriteImage(image, str(path))
        if suffix == ".mha":
            replaced(path, b"ElementSpacing = 1 1.5 2", f"ElementSpacing = 1 {size} 2".encode())
        else:
            replaced(path, b"space directions: (1,0,0) (0,1.5,0) (0,0,2)", f"spacings: 1 {size} 2".encode())
            replaced(path, b"space: left-posterior-superior\n", b"")
            replaced(path, b"space origin: (0,0,0)\n", b"")
            if np.isnan(size):
                return  # of an axis whose size is not known
    elif suffix[1] == "m":
        header = np.array([1, 2, 3, 4, 1, 4, 0], ">i4").tobytes() + b"\0\1" + np.array([1, size, 2], ">f4").tobytes()
        header += np.eye(3, dtype=">f4").tobytes()
        written = header.ljust(284, b"\0") + ARRAY.astype(">i2").tobytes(order="F")
        path.write_bytes(gzip.compress(written) if suffix == ".mgz" else written)
    else:
        image = (nib.Nifti1Pair if suffix == ".hdr" else nib.Nifti1Image)(ARRAY, np.eye(4))
        image.header["pixdim"][2] = size
        written = image.header.binaryblock if suffix == ".hdr" else content(image)
        path.write_bytes(gzip.compress(written) if suffix == ".nii.gz" else written)
        (tmp_path / "scan.img").write_bytes(ARRAY.tobytes(order="F"))
    with pytest.raises(UserError, match=rf"scan{suffix}: its voxel sizes \(\w+\) are 1, {size:g}, .*Repair the header"):
        formats.read_image(path, 3)
    assert capfd.readouterr().err == ""


def test_a_plane_needs_no_third_size(tmp_path: Path, capfd) -> None:
    image = nib.Nifti1Image(ARRAY[..., :1], np.eye(4))
    image.header["pixdim"][3] = 0
    (tmp_path / "scan.nii").write_bytes(content(image))
    np.testing.assert_array_equal(formats.read_image(tmp_path / "scan.nii", 2).array, ARRAY[..., :1])
    assert capfd.readouterr().err == ""  # nibabel prints that it sets the size to 1


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii", ".mgz"])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]], "its axes are sheared .*Resample"),
        ([[1, 1, 0], [0, 0, 0], [0, 0, 1]], "its affine is degenerate; expected three independent axes"),
    ],
)
def test_axes_that_are_not_at_right_angles(tmp_path: Path, suffix: str, matrix, message: str, capfd) -> None:
    path, matrix = tmp_path / f"scan{suffix}", np.array(matrix, float)
    if suffix in (".mha", ".nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), str(path))
        columns = [f"{x:g} {y:g} {z:g}" for x, y, z in matrix.T]
        vectors = " ".join(f"({column.replace(' ', ',')})" for column in columns)
        if suffix == ".mha":
            rows = f"TransformMatrix = {' '.join(columns)}".encode()
            replaced(path, b"TransformMatrix = 1 0 0 0 1 0 0 0 1", rows)
        else:
            replaced(path, b"(1,0,0) (0,1,0) (0,0,1)", vectors.encode())
    elif suffix == ".nii":
        image = nib.Nifti1Image(ARRAY, np.eye(4))
        image.header.set_sform(nib.affines.from_matvec(matrix), 1)
        image.header["qform_code"] = 0
        path.write_bytes(content(image))
    else:
        header = np.array([1, 2, 3, 4, 1, 4, 0], ">i4").tobytes() + b"\0\1" + np.ones(3, ">f4").tobytes()
        header += matrix.T.astype(">f4").tobytes()
        path.write_bytes(gzip.compress(header.ljust(284, b"\0") + ARRAY.astype(">i2").tobytes(order="F")))
    with pytest.raises(UserError, match=f"scan{suffix}: {message}"):
        formats.read_image(path, 3)
    assert capfd.readouterr().err == ""


NRRD = "NRRD0005\ntype: uint8\ndimension: {axes}\nsizes: {sizes}\nencoding: raw\n{fields}\n\n"
LPS = "space: left-posterior-superior\nspace directions: {}(1,0,0) (0,1,0) (0,0,1){}"


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ("2 3 4 5", LPS.format("", " none")),
        ("5 2 3 4", LPS.format("none ", "")),
        ("2 3 4 5", LPS.format("", " none") + "\nkinds: domain domain domain time"),
        ("2 3 4 5", "space: right-anterior-superior-time\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,1,0) (0,0,0,1)"),
    ],
)
def test_channels_of_nrrd_must_be_told_from_space(tmp_path: Path, sizes: str, fields: str) -> None:
    """ITK does not read the first three, and does not turn the last to LPS."""
    path = tmp_path / "scan.nrrd"
    path.write_bytes(NRRD.format(axes=4, sizes=sizes, fields=fields).encode() + bytes(120))
    with pytest.raises(UserError, match="scan.nrrd: has 4 axes in space or time .*kinds: domain domain domain list"):
        formats.read_header(path, 3)


def test_nrrd_without_a_space_is_told_once_a_folder(tmp_path: Path, caplog) -> None:
    for name in "ab":
        header = NRRD.format(axes=3, sizes="2 3 4", fields="spacings: 1 2 3").encode()
        (tmp_path / f"{name}.nrrd").write_bytes(header + bytes(24))
        assert formats.read_header(tmp_path / f"{name}.nrrd", 3).spacing == (1, 2, 3)
    (record,) = caplog.records
    assert "NRRD files here have no space" in record.getMessage() and "(LPS)" in record.getMessage()


def test_axes_of_nrrd_with_several_units_are_refused(tmp_path: Path) -> None:
    fields = LPS.format("", "") + '\nspace units: "mm" "mm" "um"'
    (tmp_path / "scan.nrrd").write_bytes(NRRD.format(axes=3, sizes="2 3 4", fields=fields).encode() + bytes(24))
    with pytest.raises(UserError, match="scan.nrrd: its axes have the units mm, um, expected one"):
        formats.read_header(tmp_path / "scan.nrrd", 3)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_do_not_begin_inside_the_header(tmp_path: Path, kind: type) -> None:
    """nibabel would read the header's own bytes as voxels."""
    image, path = nifti(kind=kind), tmp_path / "scan.nii"
    written = bytearray(content(image))
    image.header["vox_offset"] = 0
    written[: image.header.sizeof_hdr] = image.header.binaryblock
    path.write_bytes(written)
    with pytest.raises(UserError, match=r"scan\.nii: .*begin at byte 0 \(vox_offset\).*expected (352|544) or more"):
        formats.read_header(path, 3)
