"""Prediction on the scan's own grid, piece by piece, against the whole computed at once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.data.preparing.resampling import resize
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.inference import PreparedScan, labels_of, mean_pieces, pieces, scans
from self_supervised_3d_tasks.inference.pieces import cover
from self_supervised_3d_tasks.inference.windows import sliding_pieces

RNG = np.random.default_rng(5)


def volume(shape):
    """Noise in a box, and nothing around it."""
    array = np.zeros((*shape, 1), np.float32)
    inner = tuple(slice(size // 4, size - 1) for size in shape)
    array[inner] = RNG.random(array[inner].shape) + 1
    return Volume(array, None, (1.0,) * len(shape), Path("scan.npy"))


def predict(batch):
    """Three classes that change quickly from voxel to voxel."""
    values = np.concatenate([np.sin(9 * batch) ** 2, np.cos(7 * batch) ** 2, np.roll(batch, 1, axis=1)], axis=-1)
    return (values / values.sum(-1, keepdims=True)).astype(np.float32)


def whole(scan):
    """The probabilities on the scan's own grid by one resize of all of them, or by cutting the padding off."""
    settings = {"num_classes": 3, "overlap": 0.5}
    fitted = np.zeros((*scan.image.shape[:-1], 3), np.float32)
    cover(fitted, sliding_pieces(predict, scan.image, scan.preprocessing.data_dim, **settings))
    result = np.zeros((*scan.shape, 3), np.float32)
    result[..., 0] = 1
    box, size = scan.placement.box, scan.placement.size
    first = [(there - here) // 2 for there, here in zip(fitted.shape, size, strict=False)]
    shown = fitted[tuple(slice(f, f + length) for f, length in zip(first, size, strict=True))]
    result[box] = resize(shown, [side.stop - side.start for side in box])
    return result


@pytest.mark.parametrize("crop", ["none", "box"])
@pytest.mark.parametrize("fitting", ["resize", "crop", "spacing"])
@pytest.mark.parametrize(
    ("shape", "data_dim"),
    [((20, 9, 14), (8, 8, 8)), ((5, 6, 7), (8, 12, 9)), ((30, 7), (6, 11))],  # larger, smaller, both
)
@pytest.mark.parametrize("limit", [1, 2000, 2**27])
def test_slabs_of_any_thickness_give_the_whole(monkeypatch, crop, fitting, shape, data_dim, limit):
    monkeypatch.setattr(scans, "slabs", lambda shape, row_bytes: pieces.slabs(shape, row_bytes, limit))
    if fitting == "spacing":  # some axes grow, some shrink
        keys = {"volume_fitting": "crop", "target_spacing": (1.3, 0.8, 1.0)[: len(shape)]}
    else:
        keys = {"volume_fitting": fitting}
    preprocessing = Preprocessing(data_dim, 1, foreground_crop=crop, **keys)
    scan = PreparedScan.of(dataclasses.replace(volume(shape), affine=np.eye(4)), preprocessing)
    found, counts = np.full((*shape, 3), np.nan, np.float32), np.zeros(shape, int)
    for place, values in scan.predict(predict, num_classes=3, overlap=0.5):
        found[place] = values
        counts[place] += 1
    expected = whole(scan)
    assert (counts == 1).all()
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    first, second = np.sort(expected, axis=-1)[..., -1], np.sort(expected, axis=-1)[..., -2]
    mask = labels_of(scan.predict(predict, num_classes=3, overlap=0.5), shape)
    np.testing.assert_array_equal(mask[first - second > 1e-5], expected.argmax(-1)[first - second > 1e-5])
    assert np.mean(first - second > 1e-5) > 0.9


def test_the_mean_of_models_that_see_a_scan_in_different_ways_is_on_its_own_grid():
    shape = (12, 9, 10)
    image = volume(shape)
    seen = [
        PreparedScan.of(image, Preprocessing((8, 8, 8), 1, volume_fitting="resize")),
        PreparedScan.of(image, Preprocessing((6, 6, 6), 1, volume_fitting="crop", foreground_crop="box")),
    ]
    predictions = zip((0.75, 0.25), (scan.predict(predict, num_classes=3, overlap=0.5) for scan in seen), strict=True)
    found = cover(np.full((*shape, 3), np.nan), mean_pieces(predictions, shape, 3))
    np.testing.assert_allclose(found, 0.75 * whole(seen[0]) + 0.25 * whole(seen[1]), atol=1e-6)


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from self_supervised_3d_tasks.data.preprocessing import Preprocessing
from self_supervised_3d_tasks.data.volumes import Volume
from self_supervised_3d_tasks.inference import PreparedScan, labels_of

shape, window, fitting = (256, 256, 300), (64,) * 3, sys.argv[1]
image = np.zeros((*shape, 1), np.float32)
image[100:200] = 1
volume = Volume(image, None, (1.0,) * 3, Path("scan.npy"))
scan = PreparedScan.of(volume, Preprocessing(window, 1, intensity_window=(0, 1), volume_fitting=fitting))
del image, volume

def predict(batch):
    values = np.full((*batch.shape[:-1], 24), 0.01, np.float32)
    values[..., 3], values[..., 7] = 0.5, batch[..., 0]
    return values

mask = labels_of(scan.predict(predict, num_classes=24, overlap=0.5), shape)
assert (mask[104:196] == 7).all() and (mask[:96] == 3).all() and (mask[204:] == 3).all()
# Not ru_maxrss, which a process inherits of the one that started it.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("fitting", ["crop", "resize"])
def test_a_large_scan_with_many_classes_fits(fitting):
    """An eighth of 512 x 512 x 600 voxels, whose probabilities would take 1.8 GiB: a quarter of 4 GiB is less."""
    command = [sys.executable, "-c", PROGRAM, fitting]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1.0
