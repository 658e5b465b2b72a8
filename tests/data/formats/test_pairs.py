"""Scans in two files: the header names them, one is nothing without the other, and masks are both or none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Labels, find_cases
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.errors import UserError

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
VOXELS = {".hdr": ".img", ".hdr.gz": ".img.gz", ".mhd": ".zraw", ".nhdr": ".raw.gz"}
SUFFIXES = [suffix for suffix in formats.volume_suffixes() if suffix not in (".npy", ".dcm")]


def write(path: Path, array: np.ndarray = ARRAY) -> Path:
    """Write a scan on RAS axes by the library of its format; ITK's files are compressed."""
    suffix = formats.suffix_of(path)
    path.parent.mkdir(exist_ok=True)
    if suffix in (".mha", ".mhd", ".nrrd", ".nhdr"):
        image = sitk.GetImageFromArray(array.T)
        image.SetDirection(np.diag([-1.0, -1, 1]).ravel())
        sitk.WriteImage(image, str(path), useCompression=True)
    else:
        kind = nib.MGHImage if ".mg" in suffix else nib.Nifti1Pair if "hdr" in suffix else nib.Nifti1Image
        nib.save(kind(array, np.eye(4)), path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", VOXELS)
def test_a_scan_of_two_files_is_listed_once(tmp_path: Path, suffix: str) -> None:
    path, voxels = write(tmp_path / "scans" / f"s01{suffix}"), tmp_path / "scans" / f"s01{VOXELS[suffix]}"
    assert voxels.exists()
    (case,) = find_cases("volumes", path.parent)
    assert case.image == path and case.name == "s01"
    assert formats.files_of(path) == (path, voxels)
    np.testing.assert_array_equal(formats.read_image(path, 3).array[..., 0], ARRAY)
    voxels.unlink()
    message = f"s01{VOXELS[suffix]}: does not exist, but s01{suffix} says that the voxels are there. Copy both files"
    for read in (formats.read_header, formats.read_image, formats.read_mask):
        with pytest.raises(UserError, match=message):
            read(path, 3)


@pytest.mark.parametrize("suffix", [".hdr", ".hdr.gz"])
def test_voxels_without_their_header(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"s01{suffix}")
    write(tmp_path / "s02.nii")
    voxels = formats.files_of(path)[1]
    with pytest.raises(UserError, match=rf"s01{VOXELS[suffix]}: holds the voxels of a scan .* Give s01{suffix}\."):
        formats.read_header(voxels, 3)
    path.unlink()
    with pytest.raises(UserError, match=rf"s01{VOXELS[suffix]}: its header s01{suffix} is missing\. Copy both"):
        find_cases("volumes", tmp_path)
    assert [case.name for case in find_cases("nifti", tmp_path)] == ["s02"]  # .nii and .nii.gz alone


def test_upper_case_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "s01.hdr")
    for file in formats.files_of(path):
        file.rename(tmp_path / file.name.upper())
    (case,) = find_cases("volumes", tmp_path)
    assert case.image.name == "S01.HDR"
    np.testing.assert_array_equal(formats.read_image(case.image, 3).array[..., 0], ARRAY)


def test_the_detached_voxels_of_another_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "s01.mhd")
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "s01.zraw", tmp_path / "data" / "voxels")
    path.write_text(path.read_text().replace("s01.zraw", "data/voxels"))
    np.testing.assert_array_equal(formats.read_image(path, 3).array[..., 0], ARRAY)


def test_a_file_per_slice(tmp_path: Path) -> None:
    lines = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementDataFile = LIST\n"
    for number, plane in enumerate(ARRAY.transpose(2, 0, 1)):
        (tmp_path / f"{number}.raw").write_bytes(plane.tobytes(order="F"))
        lines += f"{number}.raw\n"
    (tmp_path / "s01.mhd").write_text(lines)
    np.testing.assert_array_equal(formats.read_image(tmp_path / "s01.mhd", 3).array[..., 0], ARRAY[::-1, ::-1])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("largest", [1, 255, 70_000])
def test_masks_hold_every_label_in_few_bytes_and_the_same_ones(tmp_path: Path, suffix: str, largest: int) -> None:
    reference = write(tmp_path / f"scan{suffix}", np.zeros((32, 32, 32), np.int16))
    labels = np.zeros((32, 32, 32), int)
    labels[2:4] = largest
    for folder in "ab":
        formats.write_mask(tmp_path / folder / f"mask{suffix}", labels, reference)
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "a" / f"mask{suffix}", 3).array, labels)
    written = formats.files_of(tmp_path / "a" / f"mask{suffix}")
    assert names(tmp_path / "a") == sorted(path.name for path in written)
    for path in written:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    if suffix not in (".nii", ".hdr", ".mgh"):
        assert sum(path.stat().st_size for path in written) < 2000


@pytest.mark.parametrize("target", [".nii.gz", ".hdr", ".mha", ".nhdr", ".mgz"])
@pytest.mark.parametrize("source", [".nii.gz", ".hdr", ".mha", ".nhdr", ".mgz"])
def test_masks_in_another_format_lie_on_the_same_grid(tmp_path: Path, source: str, target: str) -> None:
    reference = write(tmp_path / f"scan{source}")
    formats.write_mask(tmp_path / f"mask{target}", ARRAY > 0, reference)
    volume = formats.read_mask(tmp_path / f"mask{target}", 3)
    np.testing.assert_array_equal(volume.array, ARRAY > 0)
    np.testing.assert_allclose(volume.affine, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("suffix", VOXELS)
def test_a_mask_of_two_files_is_both_or_none(tmp_path: Path, suffix: str, monkeypatch) -> None:
    reference, path = write(tmp_path / f"scan{suffix}"), tmp_path / "out" / f"mask{suffix}"
    formats.write_mask(path, ARRAY > 0, reference)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    module = formats.of(path)
    write_mask = module.write_mask

    def broken(temporary: Path, mask: np.ndarray, header) -> None:
        write_mask(temporary, mask, header)
        temporary.unlink()
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_mask", broken)
        with pytest.raises(OSError, match="no space left"):
            formats.write_mask(path, ARRAY > 500, reference)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before

    replace, replaced = os.replace, []

    def killed(source, to) -> None:
        if replaced:
            raise KeyboardInterrupt
        replaced.append(to)
        replace(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            formats.write_mask(path, ARRAY > 500, reference)
    assert names(path.parent) == [f"mask{VOXELS[suffix]}"] and not path.exists()  # nothing that looks finished
    formats.write_mask(path, ARRAY > 500, reference)
    np.testing.assert_array_equal(formats.read_mask(path, 3).array, ARRAY > 500)


@pytest.mark.parametrize("with_mat", [False, True])
def test_analyze_files(tmp_path: Path, with_mat: bool, caplog) -> None:
    """Without SPM's .mat file the first axis runs from right to left; a mask says so."""
    affine = np.diag([2.0, 3, 4, 1]) if with_mat else None
    image = nib.Spm99AnalyzeImage(ARRAY, affine)
    image.header.set_zooms((2, 3, 4))
    for name in ("s01", "s02"):
        nib.save(image, tmp_path / f"{name}.hdr")
        volume = formats.read_image(tmp_path / f"{name}.hdr", 3)
        assert volume.spacing == (2, 3, 4)
        np.testing.assert_array_equal(volume.array[..., 0], ARRAY if with_mat else ARRAY[::-1])
    assert len(caplog.records) == (not with_mat)
    assert with_mat or "Analyze headers here do not tell left from right" in caplog.text
    formats.write_mask(tmp_path / "mask.hdr", volume.array[..., 0] > 0, tmp_path / "s01.hdr")
    written = nib.load(tmp_path / "mask.hdr")
    assert isinstance(written, nib.Nifti1Pair)
    np.testing.assert_array_equal(written.dataobj, ARRAY > 0)
    np.testing.assert_allclose(written.affine, nib.load(tmp_path / "s01.hdr").affine)
    np.testing.assert_allclose(formats.read_mask(tmp_path / "mask.hdr", 3).affine, volume.affine)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["empty", "text", "header", "half", "end", "bit"])
def test_damaged_files_are_one_message(tmp_path: Path, suffix: str, damage: str, capfd) -> None:
    path = write(tmp_path / f"s01{suffix}")
    file = formats.files_of(path)[-1] if damage in ("half", "end", "bit") else path
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[-20] ^= 1
    cuts = {"empty": 0, "text": 0, "header": 40, "half": len(content) // 2, "end": len(content) - 12}
    file.write_bytes((b"this is no scan\n" * 50 if damage == "text" else b"") + content[: cuts.get(damage)])
    capfd.readouterr()
    if damage == "bit" and not suffix.endswith(("gz", ".mha", ".mhd", ".nrrd", ".nhdr")):
        formats.read_image(path, 3)  # a format without a checksum
    elif damage == "end" and suffix == ".mgh":
        formats.read_image(path, 3)  # what follows the voxels
    else:
        for read in (formats.read_image, formats.read_mask):
            with pytest.raises(UserError, match=rf"s01\S+: cannot be read .*complete {suffix} file: copy") as caught:
                read(path, 3)
            assert "\n" not in str(caught.value) and "0x" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_suffixes_in_any_case_from_the_listing_to_the_mask(tmp_path: Path) -> None:
    spelled = [".Nii.gz", ".NII", ".nRRd", ".MHA", ".Mgz", ".nii.GZ", ".MGH"]
    for number, suffix in enumerate(spelled):
        for folder, array in (("scans", ARRAY), ("scans_labels", (ARRAY > 0).astype(np.uint8))):
            lower = write(tmp_path / folder / f"s{number:02d}{suffix.lower()}", array)
            lower.rename(lower.with_name(f"s{number:02d}{suffix}"))
    cases = find_cases("volumes", tmp_path / "scans", Labels())
    assert [case.name for case in cases] == [f"s{number:02d}" for number in range(7)]
    assert [case.image.name for case in cases] == [f"s{number:02d}{suffix}" for number, suffix in enumerate(spelled)]
    store = VolumeStore(cases, Preprocessing((4, 5, 6), 1, intensity_window=(-1000, 1000)), num_classes=2)
    for number, case in enumerate(cases):
        np.testing.assert_allclose(store.image(number)[..., 0], (ARRAY + 1000) / np.float32(2000), atol=1e-6)
        np.testing.assert_array_equal(store.mask(number), ARRAY > 0)
        for suffix in (formats.of(case.image).MASK_SUFFIXES[0], spelled[number]):
            path = tmp_path / "out" / f"{case.name}{suffix}"
            formats.write_mask(path, ARRAY > 0, case.image)
            np.testing.assert_array_equal(formats.read_mask(path, 3).array, ARRAY > 0)
