"""Scans and masks of every format with every defect, among good ones and alone."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.reliability import world
from benchmarks.reliability.bad_tables import SPECIAL


def as_format(suffix: str, folder: str) -> None:
    """Replace the NIfTI scans of a folder by the same ones in another format."""
    import SimpleITK as sitk
    from PIL import Image

    for path in sorted(Path(folder).glob("*.nii.gz")):
        stem = path.name.removesuffix(".nii.gz")
        voxels = np.asarray(nib.load(path).dataobj)
        if suffix == ".npy":
            np.save(path.with_name(stem), voxels)
        elif suffix in (".png", ".jpg", ".tif"):
            plane = voxels[..., 8].astype(np.uint8)
            Image.fromarray(np.stack([plane] * 3, -1)).save(path.with_name(stem + suffix))
        elif suffix != ".nii.gz":
            sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path.with_name(stem + suffix)))
        if suffix != ".nii.gz":
            path.unlink()


FORMATS = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".npy": "npy",
    ".mha": "volumes",
    ".mhd": "volumes",
    ".nrrd": "volumes",
    ".png": "images",
    ".jpg": "images",
    ".tif": "images",
}


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[str], None]:
    def write(path: str) -> None:
        Path(path).write_bytes(change(Path(path).read_bytes()))

    return write


def _replaced(special: Callable[[str], None]) -> Callable[[str], None]:
    def replace(path: str) -> None:
        os.remove(path)
        special(path)

    return replace


DEFECTS: dict[str, Callable[[str], None]] = {
    "cut in half": _bytes(lambda data: data[: len(data) // 2]),
    "empty": _bytes(lambda data: b""),
    "10 bytes": _bytes(lambda data: data[:10]),
    "zeros": _bytes(lambda data: bytes(len(data))),
    "a text": _bytes(lambda data: b"<html>404 not found</html>" * 50),
    "a gzip of nothing": _bytes(lambda data: gzip.compress(b"")),
    "a pointer of git-lfs": _bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "every byte 255": _bytes(lambda data: b"\xff" * len(data)),
} | {name: _replaced(special) for name, special in SPECIAL.items() if name != "removed"}


def _nifti(change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> Callable[[str], None]:
    def write(path: str) -> None:
        image = nib.load(path)
        nib.save(change(nib.Nifti1Image(np.array(image.dataobj), image.affine)), path)

    return write


def _voxels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[str], None]:
    return _nifti(lambda image: nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine))


def _claims(*shape: int, zeros: int = 0) -> Callable[[str], None]:
    """Return a writer of a header that claims a shape, with as many bytes of voxels behind it."""

    def write(path: str) -> None:
        header = nib.Nifti1Header()
        header["dim"][: len(shape) + 1] = (len(shape), *shape)
        header["datatype"], header["bitpix"], header["vox_offset"], header["magic"] = 16, 32, 352, b"n+1"
        header["pixdim"][:4] = 1
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.binaryblock + bytes(4))
            for _ in range(zeros // 2**20):
                file.write(bytes(2**20))

    return write


def _header(key: str, value) -> Callable[[str], None]:
    """Return a writer of a scan with a wrong value in its header, past nibabel's checks."""

    def write(path: str) -> None:
        data = bytearray(gzip.decompress(Path(path).read_bytes()))
        dtype, place = nib.Nifti1Header().structarr.dtype.fields[key]
        field = np.asarray(value, dtype.base).tobytes()
        data[place : place + len(field)] = field
        Path(path).write_bytes(gzip.compress(bytes(data)))

    return write


def _put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(voxels: np.ndarray) -> np.ndarray:
        voxels = voxels.astype(np.float64)
        voxels[3, 4, 5] = value
        return voxels

    return change


NIFTI: dict[str, Callable[[str], None]] = {
    "NaN": _voxels(_put(np.nan)),
    "infinite": _voxels(_put(np.inf)),
    "1e300": _voxels(_put(1e300)),
    "two axes": _voxels(lambda voxels: voxels[..., 0]),
    "five axes": _voxels(lambda voxels: voxels[..., None, None].repeat(2, -1)),
    "two channels": _voxels(lambda voxels: np.stack([voxels, voxels], -1)),
    "no voxel": _voxels(lambda voxels: voxels[:0]),
    "complex": _voxels(lambda voxels: voxels.astype(np.complex64)),
    "claims 2000 x 2000 x 1000": _claims(2000, 2000, 1000),
    "claims 30000 x 30000 x 30000": _claims(30000, 30000, 30000),
    "negative size": _header("dim", [3, -16, 16, 16]),
    "20 axes": _header("dim", [20, 16, 16, 16]),
    "no axes": _header("dim", [0, 16, 16, 16]),
    "no such type": _header("datatype", 999),
    "offset beyond the end": _header("vox_offset", 1e9),
    "offset NaN": _header("vox_offset", np.nan),
    "no affine": _header("srow_x", [0, 0, 0, 0]),
    "affine NaN": _header("srow_x", [np.nan] * 4),
    "slope NaN": _header("scl_inter", np.nan),
}
MASKS = {
    "a label above the classes": _voxels(_put(2)),
    "a negative label": _voxels(_put(-1)),
    "a fraction": _voxels(lambda voxels: voxels * 0.6),
    "another grid": _voxels(lambda voxels: voxels[1:]),
    "another affine": _nifti(lambda image: nib.Nifti1Image(np.asarray(image.dataobj), 2 * np.eye(4))),
    "removed": os.remove,
    "NaN": _voxels(_put(np.nan)),
    "cut in half": DEFECTS["cut in half"],
    "a folder": DEFECTS["a folder"],
    "a fifo": DEFECTS["a fifo"],
    "a dangling link": DEFECTS["a dangling link"],
}
PASSES = {"slope NaN", "1e300", "no affine", "affine NaN"}  # read, or refused


def rows() -> Iterator[tuple]:
    """Yield a row for each defect of each format in pretraining, and of NIfTI in the other commands."""
    for suffix, layout in FORMATS.items():
        file = f"images/s03{suffix}"
        for what, defect in DEFECTS.items():

            def change(suffix=suffix, layout=layout, defect=defect, file=file) -> None:
                as_format(suffix, "images")
                rank = {"data_is_3D": layout != "images", "number_channels": 3 if layout == "images" else 1}
                Path("experiment.json").write_text(json.dumps(world.TRAIN | {"dataset_name": layout} | rank))
                defect(file)

            yield f"{suffix}: {what}", change, ("train", "experiment.json"), ["s03"], False
    for what, defect in NIFTI.items():
        for name, line, file in (
            ("train", ("train", "train.json"), "images/s03.nii.gz"),
            ("test scan", ("finetune", "finetune.json"), "test/s06.nii.gz"),
            ("predict", ("predict", "runs/fine", "new/s08.nii.gz", "out.nii.gz"), "new/s08.nii.gz"),
        ):
            yield (
                *(f"{name}: {what}", lambda defect=defect, file=file: defect(file), line, [Path(file).name[:3]]),
                what in PASSES,
            )
    for what, defect in MASKS.items():
        for file in ("images_labels/s03.nii.gz", "test_labels/s06.nii.gz"):
            mentions = [Path(file).name[:3]]
            change = lambda defect=defect, file=file: defect(file)  # noqa: E731
            yield f"{file}: {what}", change, ("finetune", "finetune.json"), mentions, False
    for what, write in ARCHIVES.items():

        def archive(write=write) -> None:
            write("archive.npz")
            keys = {"dataset_name": "medmnist", "data_dir": "archive.npz/train", "data_is_3D": True}
            Path("experiment.json").write_text(json.dumps(world.TRAIN | keys))

        yield f".npz: {what}", archive, ("train", "experiment.json"), ["archive.npz"], False


def _entry(text: bytes, name: str = "train_images.npy") -> Callable[[str], None]:
    def write(path: str) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, text)

    return write


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


ARCHIVES = {
    "an empty file": lambda path: Path(path).write_bytes(b""),
    "no archive": lambda path: Path(path).write_bytes(b"x" * 1000),
    "no images": _entry(_saved(np.zeros(3)), "other.npy"),
    "claims 1e9 scans": _entry(_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 16, 16, 16)}")),
    "claims 1e12 scans": _entry(_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 16, 16, 16)}")),
    "claims 1e18 scans": _entry(_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (10**18, 16, 16, 16)}")),
    "a negative size": _entry(_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 16, 16, 16)}")),
    "a pickle": _entry(_saved(np.array([{"a": 1}], dtype=object))),
    "a text array": _entry(_saved(np.array(["a", "b"]))),
    "one axis": _entry(_saved(np.zeros(4, np.uint8))),
    "no scans": _entry(_saved(np.zeros((0, 16, 16, 16), np.uint8))),
    "NaN": _entry(_saved(np.full((6, 16, 16, 16), np.nan))),
    "a broken header": _entry(_npy("{'descr': ")),
    "1 GB of zeros": _entry(bytes(2**30)),
}
