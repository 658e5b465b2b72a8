"""DICOM segmentations: written with a reference to the slices of their scan, and read as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.formats import dicom
from self_supervised_3d_tasks.data.volumes import check_same_grid
from self_supervised_3d_tasks.errors import UserError
from tests.data.formats.dicom_files import DIRECTIONS, listed, multi_frame, save, slices, voxels

LABELS = np.random.default_rng(0).integers(0, 4, (4, 5, 6))
directions_of_all = pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)


def labels_for(folder: Path) -> np.ndarray:
    """Return labels on the canonical axes of a scan, whose first slices are empty."""
    labels = np.random.default_rng(0).integers(0, 4, formats.read_header(folder, 3).shape[:-1])
    labels[:, :, :2] = 0
    return labels


@pytest.fixture
def highdicom():
    return pytest.importorskip("highdicom")


@directions_of_all
@pytest.mark.parametrize("as_frames", [False, True], ids=["slices", "frames"])
def test_round_trip(highdicom, tmp_path: Path, directions: tuple, as_frames: bool) -> None:
    if as_frames:
        folder = tmp_path
        multi_frame(order=[3, 0, 5, 1, 4, 2], directions=directions).save_as(
            tmp_path / "im.dcm", enforce_file_format=True
        )
    else:
        folder = save(slices(directions=directions), tmp_path / "scan")
    labels, path = labels_for(folder), tmp_path / "out" / "scan.dcm"
    formats.write_mask(path, labels, folder)
    np.testing.assert_array_equal(formats.read_mask(path, 3).array, labels)
    check_same_grid(formats.read_header(folder, 3), formats.read_mask_header(path, 3))

    # highdicom's own reader places every voxel where the scan has it.
    found = highdicom.seg.segread(path)
    assert [found.get_segment_description(number).segment_label for number in (1, 2, 3)] == [
        "class 1",
        "class 2",
        "class 3",
    ]
    volume = found.get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine
    to_canonical = np.linalg.inv(formats.read_header(folder, 3).affine) @ affine
    for index in np.argwhere(volume.array == 2):
        place = np.rint(to_canonical @ [*index, 1])[:3].astype(int)
        assert labels[tuple(place)] == 2
    assert (volume.array == 2).sum() == (labels == 2).sum()
    sources = {uid for _, _, uid in found.get_source_image_uids()}
    assert sources == {pydicom.dcmread(file).SOPInstanceUID for file in dicom.files_of(folder)}
    assert found.PatientID == "p1" and found.StudyInstanceUID == slices()[0].StudyInstanceUID


@pytest.mark.parametrize("label", [0, 1, 2])
def test_masks_of_one_label(highdicom, tmp_path: Path, label: int) -> None:
    folder = save(slices(), tmp_path / "scan")
    labels = np.zeros((4, 5, 6), int)
    labels[1:, 2:, 3] = label
    formats.write_mask(tmp_path / "mask.dcm", labels, folder)
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.dcm", 3).array, labels)


def test_a_folder_of_segmentations_is_listed_as_masks(highdicom, tmp_path: Path) -> None:
    folder = save(slices(), tmp_path / "scans" / "a")
    for name in ("b", "a"):
        formats.write_mask(tmp_path / "scans_labels" / f"{name}.dcm", labels_for(folder), folder)
    masks = listed(tmp_path / "scans_labels", masks=True)
    assert [path.name for path in masks] == ["a.dcm", "b.dcm"]
    assert dicom.scans_in(tmp_path / "scans_labels") == []
    with pytest.raises(UserError, match="a.dcm: is no scan but Segmentation Storage"):
        formats.read_image(masks[0], 3)


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_other_types(highdicom, tmp_path: Path, kind: str) -> None:
    folder = save(slices(), tmp_path / "scan")
    sources = [pydicom.dcmread(file) for file in dicom.files_of(folder)]
    for source in sources:
        source.PatientName = "No^Body"
    labels = (voxels() % 3).transpose(2, 1, 0).astype(np.uint8)
    description = highdicom.seg.SegmentDescription
    codes = pydicom.sr.codedict.codes
    highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type=kind,
        segment_descriptions=[
            description(number, f"organ {number}", codes.SCT.Organ, codes.SCT.Liver, "MANUAL") for number in (1, 2)
        ],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=1,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    ).save_as(tmp_path / "mask.dcm")
    if kind == "FRACTIONAL":
        with pytest.raises(UserError, match="mask.dcm: holds segments of type FRACTIONAL.*Threshold"):
            formats.read_mask(tmp_path / "mask.dcm", 3)
        return
    expected = labels.transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.dcm", 3).array, expected)


def test_overlapping_segments_are_refused(highdicom, tmp_path: Path) -> None:
    folder = save(slices(), tmp_path / "scan")
    formats.write_mask(tmp_path / "mask.dcm", labels_for(folder), folder)
    ds = pydicom.dcmread(tmp_path / "mask.dcm")
    ds.PixelData = b"\xff" * len(ds.PixelData)
    ds.save_as(tmp_path / "overlap.dcm")
    with pytest.raises(UserError, match=r"overlap.dcm: segments \d and \d overlap in frame \d+ of overlap.dcm"):
        formats.read_mask(tmp_path / "overlap.dcm", 3)


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(slices(), tmp_path / "scan")
    monkeypatch.setattr("self_supervised_3d_tasks.data.dicom.segmentations.highdicom", _Missing())
    with pytest.raises(UserError, match=r"mask.dcm: .*pip install self_supervised_3d_tasks\[dicom\]"):
        formats.write_mask(tmp_path / "mask.dcm", labels_for(folder), folder)
    assert not (tmp_path / "mask.dcm").exists()


class _Missing:
    def __getattr__(self, name: str) -> None:
        raise ModuleNotFoundError("No module named 'highdicom'")


def test_scans_that_are_no_series(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", voxels())
    with pytest.raises(UserError, match=r"mask.dcm: .*scan.npy is none. Write .nii.gz"):
        formats.write_mask(tmp_path / "mask.dcm", np.ones((4, 5, 6), int), tmp_path / "scan.npy")


def test_headers_that_lack_what_a_segmentation_repeats(highdicom, tmp_path: Path) -> None:
    datasets = slices()
    for ds in datasets:
        del ds.FrameOfReferenceUID, ds.StudyInstanceUID
    folder = save(datasets, tmp_path / "scan")
    with pytest.raises(UserError, match="mask.dcm: no DICOM segmentation can refer to.*Write .nii.gz"):
        formats.write_mask(tmp_path / "mask.dcm", np.ones((4, 5, 6), int), folder)
    formats.write_mask(tmp_path / "mask.nii.gz", np.ones((4, 5, 6), int), folder)
