"""Small files that claim, or hold, gigabytes: refused in one sentence, before the memory is asked for."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks import machine
from self_supervised_3d_tasks.data import formats
from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.decoding import claims
from self_supervised_3d_tasks.data.formats import archives
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.store import filling
from self_supervised_3d_tasks.data.store.entries import Loader
from self_supervised_3d_tasks.data.store.volumes import check_case
from self_supervised_3d_tasks.errors import UserError
from tests.data.formats import dicom_files

MOST = 24 * 2**20  # bytes that refusing a file may take
ZEROS = bytes(64 * 2**20)
SHAPE = (2000, 2000, 1000)
SMALL = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def nifti(shape=SHAPE, kind=nib.Nifti1Image):
    """Return a header that claims voxels of one byte, with the four bytes behind it."""
    header = kind.header_class()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    if kind is nib.Nifti1Image:
        header["vox_offset"], header["magic"] = 352, b"n+1"
    header["pixdim"][1:4] = 1
    return header.binaryblock + bytes(4)


def mgh(shape=SHAPE):
    header = nib.MGHImage.header_class()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    return header.binaryblock.ljust(284, b"\0")


def meta(shape=SHAPE, *, compressed=False, data="LOCAL"):
    lines = {"ObjectType": "Image", "NDims": 3, "BinaryData": True, "CompressedData": compressed}
    lines |= {"DimSize": " ".join(map(str, shape)), "ElementType": "MET_UCHAR", "ElementDataFile": data}
    return "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()


def nrrd(encoding, shape=SHAPE):
    lines = ["NRRD0004", "type: unsigned char", "dimension: 3", f"sizes: {' '.join(map(str, shape))}"]
    lines += [f"encoding: {encoding}", "endian: little", "space: left-posterior-superior"]
    lines += ["space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)", "", ""]
    return "\n".join(lines).encode()


def npy(shape, body=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + body


def npz(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", content)
    return file.getvalue()


def png(side):
    """Return a black picture of one bit per pixel, whose rows are compressed together."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pack = zlib.compressobj()
    rows = b"".join(pack.compress(bytes(1 + -(-side // 8))) for _ in range(side)) + pack.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


CLAIMS = {
    "a.nii.gz": (gzip.compress(nifti()), "claims 2000 × 2000 × 1000 voxels, 4 GB, .* hold at most .*kB"),
    "a.nii": (nifti(), "claims 2000 × 2000 × 1000 voxels, 4 GB, but the file has 0 bytes"),
    "a.mgz": (gzip.compress(mgh()), "claims 2000 × 2000 × 1000 voxels, 4 GB"),
    "a.mgh": (mgh(), "claims 2000 × 2000 × 1000 voxels, 4 GB, but the file has 0 bytes"),
    "a.mha": (meta(), "claims 2000 × 2000 × 1000 × 1 voxels, 4 GB"),
    "deflated.mha": (meta(compressed=True) + zlib.compress(bytes(9)), "claims 2000 × 2000 × 1000 × 1 voxels"),
    "a.nrrd": (nrrd("raw"), "claims 2000 × 2000 × 1000 × 1 voxels"),
    "deflated.nrrd": (nrrd("gzip") + gzip.compress(bytes(9)), "claims 2000 × 2000 × 1000 × 1 voxels"),
    "a.npy": (npy((1000, 1000, 1000)), "mmap length|claims"),
    "zeros.nii.gz": (gzip.compress(nifti((4, 5, 6)) + ZEROS), "claims 472 bytes, but it holds 1.05 MB and more behind"),
    "zeros.nii": (nifti((4, 5, 6)) + ZEROS, "claims 4 × 5 × 6 voxels, 120 bytes, but the file has 67.1 MB"),
    "zeros.mgz": (gzip.compress(mgh((4, 5, 6)) + ZEROS), "claims 404 bytes, but it holds 1.05 MB and more behind"),
    "zeros.mha": (meta((4, 5, 6), compressed=True) + zlib.compress(ZEROS), "claims 120 bytes, but it holds"),
    "zeros.npy": (npy((4, 5, 6), ZEROS), "claims 4 × 5 × 6 voxels, 120 bytes, but the file has 67.1 MB"),
    "a.png": (png(13_000), "has 13000 × 13000 pixels, expected at most 134,217,728. Shrink"),
}
ARCHIVES = {
    "rows.npz": (npz(npy((10**12, 28, 28))), "claims 1000000000000 × 28 × 28 numbers, 784 TB, but .* are stored"),
    "scans.npz": (npz(npy((10**9, 28, 28))), "claims 1000000000 × 28 × 28 numbers, 784 GB, but"),
    "zeros.npz": (npz(npy((2, 4, 5), ZEROS)), "claims 2 × 4 × 5 numbers, 40 bytes, but 67.1 MB are stored"),
    "flat.npz": (npz(npy((len(ZEROS),), ZEROS)), r"shape \(67108864,\) .* expected one or more scans"),
    "voxels.npz": (npz(npy((len(ZEROS), 1, 1), ZEROS)), "has 67108864 scans, expected at most 10000000"),
}


@pytest.fixture
def peak():
    """Return the bytes of the most memory that was taken since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_that_claims_or_holds_gigabytes_is_refused(name, tmp_path, peak):
    content, message = CLAIMS[name]
    path = tmp_path / name
    path.write_bytes(content)
    rank = 2 if name.endswith(".png") else 3
    with pytest.raises(UserError, match=message) as caught:
        formats.read_image(path, rank)
    assert name in str(caught.value) and len(str(caught.value)) < 600
    assert peak() < MOST


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_claims_or_holds_gigabytes_is_refused(name, tmp_path, peak):
    content, message = ARCHIVES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        archives.Part.at(tmp_path / name / "train").paths()
    assert name in str(caught.value)
    assert peak() < MOST


def test_both_files_of_a_pair_are_compared(tmp_path, peak):
    (tmp_path / "a.hdr").write_bytes(nifti(kind=nib.Nifti1Pair))
    (tmp_path / "a.img").write_bytes(bytes(100))
    with pytest.raises(UserError, match="a.hdr: .* claims 2000 × 2000 × 1000 voxels, 4 GB, but the file has 100 bytes"):
        formats.read_header(tmp_path / "a.hdr", 3)
    (tmp_path / "b.mhd").write_bytes(meta(data="b.raw"))
    (tmp_path / "b.raw").write_bytes(bytes(100))
    with pytest.raises(UserError, match="b.mhd: .* claims 2000 × 2000 × 1000 × 1 voxels, 4 GB, but the file has 100"):
        formats.read_header(tmp_path / "b.mhd", 3)
    assert peak() < MOST


def test_slices_that_claim_more_than_the_memory_are_refused(tmp_path, monkeypatch, peak):
    folder = dicom_files.save(dicom_files.slices(dicom_files.voxels((8, 8, 3))), tmp_path / "series")
    formats.read_image(folder, 3)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 3 * 8 * 8 * 4 - 1)
    with pytest.raises(UserError, match="has 8 × 8 × 3 voxels, which take 768 bytes .* there are 767 bytes"):
        formats.read_header(folder, 3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".npy"])
def test_scans_are_refused_by_what_they_take_once_decoded(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, SMALL)
    else:
        nib.save((nib.MGHImage if suffix == ".mgz" else nib.Nifti1Image)(SMALL, np.eye(4)), path)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 480)
    np.testing.assert_array_equal(formats.read_image(path, 3).array[..., 0], SMALL)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 479)
    with pytest.raises(UserError, match="has 4 × 5 × 6 voxels, which take 480 bytes .* there are 479 bytes"):
        formats.read_header(path, 3)


def test_notes_behind_the_voxels_are_no_fault(tmp_path):
    image = nib.Nifti1Image(SMALL, np.eye(4)).to_bytes()
    for name, content in {
        "a.nii": image + b"notes",
        "a.nii.gz": gzip.compress(image) + gzip.compress(b"notes") + bytes(9),
    }.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(formats.read_image(tmp_path / name, 3).array[..., 0], SMALL)


def test_a_picture_of_ten_thousand_squared_is_read(tmp_path):
    path = tmp_path / "slide.png"
    path.write_bytes(png(10_000))
    assert formats.read_header(path, 2).shape == (10_000, 10_000, 1)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_inflated_is_what_was_deflated(seed):
    """In members of any length, whether the end is known or not."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 4, rng.integers(0, 5000), dtype=np.uint8).tobytes() for _ in range(rng.integers(1, 5))]
    whole, expected = b"".join(parts), int(rng.integers(0, 20_000))
    stream = b"".join(map(gzip.compress, parts)) + bytes(int(rng.integers(0, 3)))
    assert claims.inflate(io.BytesIO(stream), expected) == whole[:expected]
    with pytest.raises((ValueError, zlib.error)):
        claims.inflate(io.BytesIO(stream[:-12]), expected)
    assert claims.inflate(io.BytesIO(zlib.compress(whole)), expected) == whole[:expected]


def test_scans_that_grow_beyond_the_memory_are_refused_by_their_headers(tmp_path, monkeypatch):
    """4 × 5 × 6 voxels of 1 mm are 40 × 50 × 60 of 0.1 mm."""
    nib.save(nib.Nifti1Image(SMALL, np.eye(4)), tmp_path / "a.nii")
    case = Case("a", tmp_path / "a.nii", None, "a")
    finer = Preprocessing((8, 8, 8), 1, target_spacing=(0.1, 0.1, 0.1), volume_fitting="crop")
    check_case(case, finer, num_classes=None)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 40 * 50 * 60 * 4 - 1)
    with pytest.raises(UserError, match="a.nii: has 40 × 50 × 60 × 1 voxels, which take 480 kB of memory"):
        check_case(case, finer, num_classes=None)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * 8 * 8 - 1)
    with pytest.raises(UserError, match='cache: "memory", but the decoded scans take .* Set cache to "auto" or "disk"'):
        filling.plan(Loader(finer, None), {case: (8, 8, 8, 1)}, "memory", None)
