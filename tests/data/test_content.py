"""Hashes of voxels: the same scan in another file is known again, another scan is not."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest

from self_supervised_3d_tasks.data.cases import Case
from self_supervised_3d_tasks.data.content import hash_channels
from self_supervised_3d_tasks.data.formats import read_channels
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.seen import Seen, record_scans
from self_supervised_3d_tasks.data.store import entries
from self_supervised_3d_tasks.data.store.volumes import VolumeStore
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.files.json_files import write_json

ARRAY = np.random.default_rng(0).integers(-500, 500, (6, 5, 4, 2)).astype(np.int16)


def volume(array, path="scan"):
    return Volume.without_affine(np.asarray(array, np.float32), 3, path)


def text(*paths, rank=3):
    return hash_channels(read_channels(paths, rank))


def test_a_hash_by_the_formula():
    channel = np.arange(8, dtype="<f4").reshape(2, 2, 2)
    expected = hashlib.blake2b(b"(2, 2, 2)" + channel.tobytes(), digest_size=16).hexdigest()
    assert hash_channels(volume(channel[..., None])) == [expected]


def test_the_same_voxels_are_known_in_every_file(tmp_path):
    """Formats, names, compression, types, axes, scale factors, and channels apart or in one file."""
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])  # the first axis is stored from right to left
    canonical = ARRAY[::-1]
    np.save(tmp_path / "a.npy", canonical)
    np.save(tmp_path / "double.npy", canonical.astype(np.float64))
    nib.save(nib.Nifti1Image(ARRAY, affine), tmp_path / "b.nii")
    nib.save(nib.Nifti1Image(ARRAY, affine), tmp_path / "other name.nii.gz")
    nib.save(nib.Nifti1Image(ARRAY.astype(np.float32), affine), tmp_path / "float.nii.gz")
    nib.save(nib.Nifti1Image(ARRAY.transpose(2, 0, 1, 3), affine[:, [2, 0, 1, 3]]), tmp_path / "turned.nii.gz")
    scaled = nib.Nifti1Image(ARRAY, affine)
    scaled.header.set_slope_inter(1, 0)
    nib.save(scaled, tmp_path / "scaled.nii.gz")
    expected = text(tmp_path / "a.npy")
    assert len(set(expected)) == 2
    for path in sorted(tmp_path.iterdir()):
        assert text(path) == expected
    for channel in (0, 1):
        np.save(tmp_path / f"channel{channel}.npy", canonical[..., channel])
        assert text(tmp_path / f"channel{channel}.npy") == expected[channel : channel + 1]
    assert text(tmp_path / "channel1.npy", tmp_path / "channel0.npy") == expected[::-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array + np.eye(1, array.size).reshape(array.shape),  # one voxel
        lambda array: array[::-1],
        lambda array: array[:-1],
        lambda array: array.reshape(5, 6, 4, 1),  # the same numbers in another shape
        lambda array: array / 2,
    ],
)
def test_other_voxels_have_another_hash(change):
    before = ARRAY[..., :1].astype(np.float32)
    assert hash_channels(volume(before)) != hash_channels(volume(change(before)))


def test_a_channel_that_is_the_same_everywhere_tells_nothing():
    """Else every scan with an empty channel would be every other one of that shape."""
    array = ARRAY.astype(np.float32)
    array[..., 1] = 7
    (alone,) = hash_channels(volume(array))
    assert hash_channels(volume(array[..., :1])) == [alone] and len(alone) == 32


def test_minus_zero_is_zero():
    array = np.array([0.0, -0.0, 1.0, 2.0], np.float32).reshape(2, 2, 1, 1)
    assert hash_channels(volume(array)) == hash_channels(volume(np.abs(array)))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_the_store_hashes_what_it_reads_once(tmp_path, monkeypatch, cache):
    np.save(tmp_path / "scan.npy", ARRAY)
    case = Case("scan", tmp_path / "scan.npy", None, "anna")
    reads, read = [], entries.read_channels
    monkeypatch.setattr(entries, "read_channels", lambda *arguments: reads.append(1) or read(*arguments))
    for _ in range(2):
        store = VolumeStore([case], Preprocessing((4, 4, 4), 2), cache=cache, cache_dir=tmp_path / "cache")
        assert store.content(0) == text(case.image)
        assert store.image(0).shape == (4, 4, 4, 2)
    assert len(reads) == {"memory": 2, "disk": 1}[cache]


def test_what_was_seen_is_read_back(tmp_path):
    np.save(tmp_path / "scan.npy", ARRAY)
    np.save(tmp_path / "other.npy", ARRAY[::-1])
    cases = [Case(name, tmp_path / f"{name}.npy", None, name.upper()) for name in ("scan", "other")]
    train, validation = (VolumeStore([case], Preprocessing((4, 4, 4), 2)) for case in cases)
    found = record_scans({"train": train, "validation": validation})
    channels = [text(case.image) for case in cases]
    assert found["scans"] == [
        {"part": "train", "case": "scan", "subject": "SCAN", "channels": channels[0]},
        {"part": "validation", "case": "other", "subject": "OTHER", "channels": channels[1]},
    ]
    write_json(tmp_path / "seen.json", found)
    seen = Seen.read(tmp_path / "seen.json")
    assert seen == Seen(frozenset(sum(channels, [])), frozenset(["SCAN", "OTHER"]))
    assert seen.has_voxels(["00", channels[1][0]]) and not seen.has_voxels(["00"]) and not seen.has_voxels([])
    assert seen.has_subject(cases[0]) and not seen.has_subject(Case("scan", cases[0].image, None, "bob"))


@pytest.mark.parametrize("content", ['{"scans": [{"case": "a"}]}', "[]", '{"scans": 3}', "{", '{"seen": []}'])
def test_a_damaged_list_is_named(tmp_path, content):
    (tmp_path / "seen.json").write_text(content)
    with pytest.raises(UserError, match=r"seen\.json"):
        Seen.read(tmp_path / "seen.json")
