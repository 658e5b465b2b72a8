"""DICOM that cannot be a volume ends with the folder, what was expected and a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    HTJ2KLossless,
    JPEGLosslessSV1,
    MRImageStorage,
    NuclearMedicineImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.formats import dicom
from self_supervised_3d_tasks.errors import UserError
from tests.data.formats.dicom_files import DIRECTIONS, add_pixels, header, listed, multi_frame, save, slices, voxels

PYDICOM_FILES = Path(get_testdata_file("CT_small.dcm")).parent


def change(number: int, **elements):
    """Return a series of which one slice is changed; None takes an element away."""
    datasets = slices()
    for keyword, value in elements.items():
        if value is None:
            delattr(datasets[number], keyword)
        else:
            setattr(datasets[number], keyword, value)
    return datasets


def without(*numbers: int):
    return [ds for number, ds in enumerate(slices()) if number not in numbers]


def tilted():
    datasets = slices()
    for number, ds in enumerate(datasets):
        ds.ImagePositionPatient = [-10, 20 + 0.5 * number, 5 + 2.5 * number]
    return datasets


def of_size(number: int, shape: tuple[int, int]):
    datasets = slices()
    add_pixels(datasets[number], np.zeros(shape, np.int16))
    return datasets


def colour():
    datasets = slices()
    for ds in datasets:
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"
    return datasets


def frames_without_positions():
    ds = slices(voxels((4, 5, 1)))[0]
    ds.SOPClassUID, ds.NumberOfFrames = NuclearMedicineImageStorage, 6
    ds.PixelData *= 6
    return [ds]


def echoes():
    return slices() + [ds for ds in slices(voxels(seed=1))]


def with_segments_between():
    segments = header(SegmentationStorage)
    add_pixels(segments, voxels((4, 5)))
    return [*slices(), segments]


CASES = {
    "missing slice": (without(2), r"slices are missing. .* is 2.5 mm, but from 7.5 mm \(im\d+.dcm\) to 12.5 mm .*5 mm"),
    "missing slices": (without(1, 4), r"slices are missing.*to 10 mm.*; from 12.5 mm .* to 17.5 mm"),
    "two of three": (without(1, 4, 5), r"slices are missing. .* is 2.5 mm, but from 5 mm"),
    "uneven": (change(3, ImagePositionPatient=[-10, 20, 12]), "slices are spaced unevenly"),
    "doubled slice": (
        [*slices(), slices()[2]],
        r"im\d+.dcm and im\d+.dcm lie at the same position \(10 mm along the normal, 1 such.*Remove one of the two",
    ),
    "several echoes": (echoes(), r"lie at the same position.*echoes or b-values \(12 slices at 6 positions\)"),
    "shifted slice": (change(2, ImagePositionPatient=[-10, 21, 10]), "lies 1 mm beside the line"),
    "tilted gantry": (tilted(), "sheared.*tilted gantry"),
    "localizer": (change(0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "orientation.*localizer"),
    "other spacing": (change(1, PixelSpacing=[0.8, 0.5]), r"pixel spacing \(0.5, 0.\d+\), but .*\(0.5, 0.\d+\)"),
    "other size": (of_size(5, (5, 5)), r"size \(columns, rows\) \([45], 5\), but .* \([45], 5\)"),
    "zero spacing": (change(1, PixelSpacing=[0, 0.5]), r"PixelSpacing is \[0.0, 0.5\], expected positive"),
    "negative spacing": (change(1, PixelSpacing=[-1, 0.5]), "expected positive"),
    "no position": (change(1, ImagePositionPatient=None), "ImagePositionPatient is absent.*Export the series again"),
    "no orientation": (change(1, ImageOrientationPatient=None), "ImageOrientationPatient is absent"),
    "no spacing": (change(1, PixelSpacing=None), "PixelSpacing is absent"),
    "empty position": (change(1, ImagePositionPatient=[]), "ImagePositionPatient is absent|expected 3 numbers"),
    "infinite position": (change(1, ImagePositionPatient=[0, 0, float("inf")]), "expected 3 numbers|damaged header"),
    "degenerate": (change(1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "expected two unit vectors"),
    "one flat slice": (slices(voxels((4, 5, 1)), SliceThickness=0), "is one slice with SliceThickness"),
    "colours": (colour(), r"colour image \(RGB, CT Image Storage\).*Expected greyscale"),
    "mosaic": (change(0, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic.*dcm2niix"),
    "nuclear frames": (frames_without_positions(), "6 frames and no PerFrameFunctionalGroupsSequence.*NIfTI"),
    "structures": ([header("1.2.840.10008.5.1.4.1.1.481.3")], "no scan but RT Structure Set Storage"),
    "report": ([header("1.2.840.10008.5.1.4.1.1.88.33")], "no scan but Comprehensive SR Storage"),
    "segments": ([header(SegmentationStorage)], "no scan but Segmentation Storage"),
    "segments in the series": (with_segments_between(), "is no scan but Segmentation Storage, in one series"),
    "screenshot": (
        [header(SecondaryCaptureImageStorage, Rows=4, Columns=5)],
        r"has no position in the patient \(Secondary Capture Image Storage\)",
    ),
    "no slope": (change(1, RescaleSlope=0, RescaleIntercept=1), "RescaleSlope is 0 .*expected finite"),
    "no pixels": (change(1, PixelData=None), "its pixels cannot be decoded"),
    "few pixels": (change(1, PixelData=b"1234"), "its pixels cannot be decoded"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_named(tmp_path: Path, name: str) -> None:
    datasets, message = CASES[name]
    folder = save(datasets, tmp_path / "scan")
    for _ in range(2):  # what is remembered of the folder says the same
        with pytest.raises(UserError, match=message) as raised:
            formats.read_image(folder, 3)
        assert str(raised.value).startswith(str(folder))


@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_missing_slice_of_any_orientation(tmp_path: Path, directions: tuple) -> None:
    datasets = slices(directions=directions)
    del datasets[3]
    with pytest.raises(UserError, match="scan: slices are missing"):
        formats.read_header(save(datasets, tmp_path / "scan"), 3)


@pytest.mark.parametrize("digits", [2, 3])
def test_rounded_positions_are_no_gaps(tmp_path: Path, digits: int) -> None:
    spacing = (0.5, 0.75, 0.625)
    datasets = slices(directions=DIRECTIONS["oblique"], spacing=spacing)
    for ds in datasets:
        ds.ImagePositionPatient = np.round(np.array(ds.ImagePositionPatient, float), digits).tolist()
    found = formats.read_header(save(datasets, tmp_path / "scan"), 3)
    np.testing.assert_allclose(found.spacing, spacing, rtol=0.02)


@pytest.mark.parametrize(
    ("order", "message"),
    [([0, 1, 3, 4, 5], "slices are missing.*frame 2 of im.dcm"), ([0, 1, 2, 2, 3], "frame 3 of im.dcm and frame 4 of")],
)
def test_frames(tmp_path: Path, order: list[int], message: str) -> None:
    multi_frame(order=order).save_as(tmp_path / "im.dcm", enforce_file_format=True)
    for path in (tmp_path, tmp_path / "im.dcm"):
        with pytest.raises(UserError, match=message):
            formats.read_header(path, 3)


def test_frames_that_the_header_does_not_tell_of(tmp_path: Path) -> None:
    ds = multi_frame()
    del ds.PerFrameFunctionalGroupsSequence[5]
    ds.save_as(tmp_path / "im.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"im.dcm: has 6 frames, but its header tells of 5"):
        formats.read_image(tmp_path, 3)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, JPEGLosslessSV1])
def test_without_a_decoder(tmp_path: Path, syntax: str) -> None:
    """SimpleITK knows no HTJ2K, and of frames in one file it would not say where they lie."""
    one = header(MRImageStorage) if syntax == HTJ2KLossless else multi_frame()
    for ds in [one] if syntax == JPEGLosslessSV1 else slices():
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = pydicom.encaps.encapsulate([b"12345678"] * int(ds.get("NumberOfFrames", 1)))
        ds["PixelData"].VR = "OB"
        ds.save_as(tmp_path / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
    formats.read_header(tmp_path, 3)
    package = "pylibjpeg-openjpeg" if syntax == HTJ2KLossless else "pylibjpeg-libjpeg"
    with pytest.raises(UserError, match=rf"no decoder for that is installed; pydicom takes: .*{package}.*gdcmconv"):
        formats.read_image(tmp_path, 3)


@pytest.mark.parametrize("content", [b"", b"no scan", b"\0" * 300, b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    """Any slice may be the damaged one, so that no series of its folder is known to be complete."""
    folder = save(slices(), tmp_path / "scan")
    (folder / "im900.dcm").write_bytes(content)
    assert dicom.scans_in(folder) == [folder]
    with pytest.raises(UserError, match="im900.dcm: (has no DICOM header|cannot be read|.*no image)"):
        formats.read_header(folder, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom about headers that were changed
@pytest.mark.parametrize("seed", range(40))
def test_bytes_changed_at_random_end_in_one_message_or_in_voxels(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if seed % 2:
        multi_frame().save_as(tmp_path / "im000.dcm", enforce_file_format=True)
    else:
        save(slices(), tmp_path)
    content = bytearray((tmp_path / "im000.dcm").read_bytes())
    for place in rng.integers(132, len(content), rng.integers(1, 12)):
        content[place] = rng.integers(256)
    (tmp_path / "im000.dcm").write_bytes(content[: rng.integers(132, len(content)) if seed % 5 == 0 else None])
    dicom.scans_in(tmp_path)
    try:
        assert formats.read_image(tmp_path, 3).array.ndim == 4
    except UserError as error:
        assert str(tmp_path) in str(error)


def test_a_file_without_a_preamble(tmp_path: Path) -> None:
    folder = save(slices(), tmp_path / "scan")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    with pytest.raises(UserError, match="im000.dcm: has no DICOM header.*dcmconv"):
        formats.read_header(folder, 3)


def test_a_folder_without_scans_is_not_listed(tmp_path: Path) -> None:
    save([header("1.2.840.10008.5.1.4.1.1.481.3")], tmp_path / "structures")
    save(slices(), tmp_path / "scan")
    assert listed(tmp_path) == [tmp_path / "scan"]
    assert listed(tmp_path / "structures") == []


NO_POSITION = r"has no position in the patient \(Secondary Capture Image Storage\)"
# What each of the files that pydicom brings is: the shape as read, or why it is refused. The first pattern counts.
PYDICOM = {
    "CT_small": (128, 128, 1),
    "693_J2KI|J2K_pixelrep_mismatch": (512, 512, 1),
    "MR_truncated": "pixels cannot be decoded",
    "MR_small.*": (64, 64, 1),
    "examples_overlay": (484, 300, 1),
    "ExplVR_.*NoMeta|no_meta|rtstruct": "has no DICOM header",
    "(SC_|GDCMJ2K|examples_|ExplVR).*": "is a colour image",
    "JPEG.*|JPGExtended|image_dfl": NO_POSITION,
    "rtdose.*|badVR": "no scan but RT Dose Storage",
    "rtplan.*": "no scan but RT Plan Storage",
    "report.*|test-SR": "no scan but .* SR Storage",
    "liver.*": "no scan but Segmentation Storage",
    "waveform.*": "no scan but 12-lead ECG",
    "UN_sequence|priv_SQ|no_meta_group_length": r"has no pixels \((CT|MR|RT) Image Storage\)",
    "empty_charset.*|meta_missing.*|nested_priv.*": "no scan but of unknown kind",
    "dicomdirtests|dicomdirtests/TINY_ALPHA|dicomdirtests/.*DICOMDIR.*": "no scan but Media Storage Directory Storage",
    "dicomdirtests/TINY_ALPHA/.*": r"has no pixels \(CT Image Storage\)",
    "dicomdirtests/.*/CR.": "ImagePositionPatient is absent",
    "dicomdirtests/.*/CR./.*": "ImagePositionPatient is absent",
    "dicomdirtests/77654033/CT2": "slices are missing.*to 103.02 mm .17136. it is 202.5 mm",
    "dicomdirtests/98892001/CT5N": (16, 16, 5),
    "dicomdirtests/98892001/CT2N": "6293 has the orientation",
    "dicomdirtests/98892003/MR700": "4467 has the orientation",
    "dicomdirtests/98892003/MR[12]": "holds 3 series, expected one",
    "dicomdirtests/.*/(CT|MR)[^/]*/[0-9]+": "one slice",
}
FOUND = sorted(
    path.relative_to(PYDICOM_FILES).as_posix()
    for path in PYDICOM_FILES.rglob("*")
    if dicom.is_scan(path) and path.suffix not in (".txt", ".json")
)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom about the headers that its files are meant to have
@pytest.mark.parametrize("name", FOUND)
def test_each_file_and_folder_of_pydicom(name: str) -> None:
    patterns = (expected for key, expected in PYDICOM.items() if re.fullmatch(key, name.removesuffix(".dcm")))
    expected = next(patterns)
    if isinstance(expected, str) and expected != "one slice":
        with pytest.raises(UserError, match=expected) as raised:
            formats.read_image(PYDICOM_FILES / name, 3)
        assert str(PYDICOM_FILES / name) in str(raised.value)
        return
    volume = formats.read_image(PYDICOM_FILES / name, 3)
    assert sorted(volume.array.shape) == [1, 1, 16, 16] if expected == "one slice" else (*expected, 1)
    assert volume.array.max() > volume.array.min()


def test_files_of_pydicom_are_found() -> None:
    assert len(FOUND) > 150
