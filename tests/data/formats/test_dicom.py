"""DICOM series give what the same scan gives as NIfTI."""

from __future__ import annotations

import locale
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import JPEGLSLossless, RLELossless

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.decoding.simple_itk import locale_kept
from self_supervised_3d_tasks.data.dicom import series as dicom_series
from self_supervised_3d_tasks.data.formats import dicom
from self_supervised_3d_tasks.errors import UserError
from tests.data.formats.dicom_files import (
    DIRECTIONS,
    SPACING,
    affine_of,
    header,
    listed,
    multi_frame,
    save,
    slices,
    voxels,
)

directions_of_all = pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)


def as_nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def assert_same(path: Path, reference: Path) -> None:
    read, expected = formats.read_image(path, 3), formats.read_image(reference, 3)
    np.testing.assert_array_equal(read.array, expected.array)
    np.testing.assert_allclose(read.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(read.spacing, expected.spacing, rtol=1e-6)
    assert read.array.dtype == np.float32 and read.array.flags.c_contiguous
    head = formats.read_header(path, 3)
    assert head.shape == expected.array.shape
    np.testing.assert_array_equal(head.affine, read.affine)


@directions_of_all
def test_a_series_is_read_as_the_same_scan_in_nifti(tmp_path: Path, directions: tuple) -> None:
    folder = save(slices(directions=directions), tmp_path / "scan")
    assert_same(folder, as_nifti(voxels(), affine_of(directions), tmp_path / "a.nii"))


@directions_of_all
def test_simpleitk_sees_the_same_geometry(tmp_path: Path, directions: tuple) -> None:
    folder = save(slices(directions=directions), tmp_path / "scan")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    head = formats.read_header(folder, 3)
    labels = np.zeros(head.shape[:-1], int)
    labels[1, 2, 3] = 1
    formats.write_mask(tmp_path / "mask.nii.gz", labels, folder)
    mask = sitk.ReadImage(tmp_path / "mask.nii.gz")
    assert mask.GetSize() == image.GetSize() == (4, 5, 6)
    for one, other in (
        (mask.GetOrigin(), image.GetOrigin()),
        (mask.GetDirection(), image.GetDirection()),
        (mask.GetSpacing(), image.GetSpacing()),
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)
    (index,) = np.argwhere(sitk.GetArrayFromImage(mask))
    place = mask.TransformIndexToPhysicalPoint([int(number) for number in index[::-1]])
    np.testing.assert_allclose((head.affine @ [1, 2, 3, 1])[:3] * (-1, -1, 1), place, atol=1e-3)
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.nii.gz", 3).array, labels)


@pytest.mark.parametrize("suffix", ["", ".dcm", ".IMA"])
def test_files_are_found_by_their_content(tmp_path: Path, suffix: str) -> None:
    folder = save(slices(), tmp_path / "scan", suffix=suffix)
    (folder / "notes.txt").write_text("no scan")
    (folder / ".hidden.dcm").write_text("no scan")
    assert dicom.scans_in(folder) == [folder]
    assert_same(folder, as_nifti(voxels(), affine_of(DIRECTIONS["axial"]), tmp_path / "a.nii"))


def test_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    datasets = slices()
    for number, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (number + 1), 10 * number - 1024
    expected = voxels() * (0.5 * np.arange(1, 7)) + (10 * np.arange(6) - 1024)
    array = formats.read_image(save(datasets, tmp_path / "scan"), 3).array
    # LPS is stored, RAS is read: both axes of the plane are reversed.
    np.testing.assert_array_equal(array[..., 0], expected[::-1, ::-1].astype(np.float32))


def test_a_table_instead_of_a_slope(tmp_path: Path) -> None:
    ds = slices(np.arange(4).reshape(2, 2, 1))[0]
    table = pydicom.Dataset()
    ds.PixelRepresentation = 0
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.ModalityLUTType = "HU"
    table.add_new("LUTData", "US", [5, 50, 500, 5000])
    ds.ModalityLUTSequence = [table]
    array = formats.read_image(save([ds], tmp_path / "scan"), 3).array
    np.testing.assert_array_equal(array[::-1, ::-1, 0, 0], [[5, 50], [500, 5000]])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]])
@pytest.mark.parametrize("name", ["scan", "scan/im.dcm"])
def test_multi_frame_files(tmp_path: Path, order: list[int], name: str) -> None:
    ds = multi_frame(order=order, directions=DIRECTIONS["oblique"], rescale=lambda number: (number + 1, -number))
    (tmp_path / "scan").mkdir()
    ds.save_as(tmp_path / "scan/im.dcm", enforce_file_format=True)
    expected = voxels() * np.arange(1, 7) - np.arange(6)
    reference = as_nifti(expected.astype(np.int32), affine_of(DIRECTIONS["oblique"]), tmp_path / "a.nii")
    assert_same(tmp_path / name, reference)


def test_slices_of_two_dimensions(tmp_path: Path) -> None:
    folder = save(slices(voxels((4, 5, 1)), directions=DIRECTIONS["sagittal"]), tmp_path / "scan")
    reference = as_nifti(voxels((4, 5, 1)), affine_of(DIRECTIONS["sagittal"]), tmp_path / "a.nii")
    for path in (folder, folder / "im000.dcm"):
        np.testing.assert_array_equal(formats.read_image(path, 2).array, formats.read_image(reference, 2).array)
    with pytest.raises(UserError, match=r"scan: has shape \(4, 5, 6\), expected 2 spatial axes"):
        formats.read_header(save(slices(), tmp_path / "several/scan"), 2)


@pytest.mark.parametrize("compression", [RLELossless, JPEGLSLossless])
def test_compressed_slices(tmp_path: Path, compression: str) -> None:
    datasets = slices(voxels((32, 40, 3)))
    for ds in datasets:
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1024
        ds.compress(compression, ds.pixel_array, generate_instance_uid=False)
    array = formats.read_image(save(datasets, tmp_path / "scan"), 3).array
    np.testing.assert_array_equal(array[::-1, ::-1, :, 0], voxels((32, 40, 3)) * 2.0 - 1024)


@pytest.mark.parametrize("compression", ["JPEG", "JPEG2000"])
def test_slices_that_simpleitk_compressed(tmp_path: Path, compression: str) -> None:
    """Lossless JPEG, the usual compression of archives, is decoded without a further package."""
    stored = voxels((32, 40, 3))
    folder = save(slices(stored), tmp_path / "scan", shuffled=False)
    writer = sitk.ImageFileWriter()
    writer.UseCompressionOn()
    writer.SetCompressor(compression)
    writer.KeepOriginalImageUIDOn()
    for file in sorted(folder.iterdir()):
        writer.SetFileName(file)
        with locale_kept():
            writer.Execute(sitk.ReadImage(file))
        ds = pydicom.dcmread(file)
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1024
        ds.ImagePositionPatient = slices(stored)[int(file.stem[2:])].ImagePositionPatient
        assert ds.file_meta.TransferSyntaxUID.is_compressed
        ds.save_as(file)
    before = locale.setlocale(locale.LC_ALL)
    array = formats.read_image(folder, 3).array
    np.testing.assert_array_equal(array[::-1, ::-1, :, 0], stored * 2.0 - 1024)
    assert locale.setlocale(locale.LC_ALL) == before


def test_series_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for number, (series, description) in enumerate([("2", "T1 w/o!"), ("3", "T2"), ("3", "t2"), ("4", "")]):
        datasets = slices(voxels(seed=number))
        for ds in datasets:
            ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription = f"1.2.{number}.77", series, description
        save(datasets, folder, suffix=f"_{number}.dcm")
    scans = dicom.scans_in(folder)
    assert [path.relative_to(folder).as_posix() for path in scans] == ["2_T1_w_o", "3_T2_2-1-77", "3_t2_2-2-77", "4"]
    for number, path in enumerate(scans):
        assert dicom.is_scan(path) and len(dicom.files_of(path)) == 6
        np.testing.assert_array_equal(formats.read_image(path, 3).array[::-1, ::-1, :, 0], voxels(seed=number))
    with pytest.raises(UserError, match=r"study: holds 4 series, expected one. Say which: .*2_T1_w_o"):
        formats.read_header(folder, 3)
        assert formats.files_of(path) == dicom.files_of(path)
    assert not dicom.is_scan(folder / "5_T2")
    formats.write_mask(tmp_path / "mask.nii.gz", np.ones((4, 5, 6), int), scans[0])


def test_multi_frame_files_of_one_folder_are_scans_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        multi_frame(voxels(seed=number)).save_as(tmp_path / f"p{number}.dcm", enforce_file_format=True)
    scans = listed(tmp_path)
    assert scans == [tmp_path / f"p{number}.dcm" for number in range(3)]
    assert [formats.stem_of(path) for path in scans] == ["p0", "p1", "p2"]
    array = formats.read_image(scans[1], 3).array
    np.testing.assert_array_equal(array[::-1, ::-1, :, 0], voxels(seed=1))


def test_folders_of_slices_are_listed_beside_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(slices(), tmp_path / name)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "c.npy", voxels())
    assert listed(tmp_path) == [tmp_path / name for name in ("a", "b", "c.npy")]
    assert listed(tmp_path / "b") == [tmp_path / "b"]
    assert listed(tmp_path, (".npy",)) == [tmp_path / "c.npy"]


def test_what_is_no_scan_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(slices(), tmp_path / "scan")
    for number in range(2):
        ds = header("1.2.840.10008.5.1.4.1.1.481.3", uid="1.9")
        ds.save_as(folder / f"structures{number}", enforce_file_format=True)
    (folder / "readme").write_text("no scan")
    (folder / "thumb.jpg").write_bytes(b"no scan")
    with caplog.at_level("INFO", "absl"):
        assert dicom.scans_in(folder) == [folder]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: 2 files that are no DICOM belong to no series.",
        f"{folder}: 2 DICOM files are no scans and are left out: 2 × is no scan but RT Structure Set Storage.",
    ]


def test_headers_are_read_once_and_without_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(slices(), tmp_path / "scan")
    read, calls = dicom_series.read, []
    monkeypatch.setattr(dicom_series, "read", lambda file, **options: calls.append(options) or read(file, **options))
    for _ in range(3):
        formats.read_header(folder, 3)
    assert calls == [{"stop_before_pixels": True}] * 6
    (folder / "im000.dcm").unlink()
    os.utime(folder, ns=(1, 1))
    with pytest.raises(UserError):
        formats.read_header(folder, 3)
    assert len(calls) == 11


def test_a_series_of_labels_is_a_mask(tmp_path: Path) -> None:
    labels = voxels() % 3
    np.testing.assert_array_equal(
        formats.read_mask(save(slices(labels), tmp_path / "mask"), 3).array, labels[::-1, ::-1].astype(np.int32)
    )
    assert formats.read_mask_header(tmp_path / "mask", 3).spacing == pytest.approx(SPACING)
