from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from self_supervised_3d_tasks.ops import supervoxels
from self_supervised_3d_tasks.ops.patches import FOREGROUND
from self_supervised_3d_tasks.ops.supervoxels import PRESETS, Supervoxels

ONES = (1.0, 1.0, 1.0)


def label(finder, image, spacing):
    """Return the number of the supervoxel of each voxel, from 1 on: ``(*spatial)``."""
    blocks = supervoxels.Blocks.of(image.shape[:-1], spacing)
    labels = finder.clusters(blocks, blocks.means(image))
    for axis, (size, factor) in enumerate(zip(blocks.shape, blocks.factors, strict=True)):
        labels = labels.repeat(factor, axis).take(range(size), axis)
    return labels


def centres_slowly(labels, image, spacing, min_foreground) -> list[np.ndarray]:
    """Return all voxels of each foreground supervoxel that are as near to its centroid as the nearest one."""
    nearest = []
    for number in range(1, labels.max() + 1):
        voxels = np.argwhere(labels == number)
        if (image[labels == number] > FOREGROUND).any(axis=-1).mean() >= min_foreground:
            distances = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1)
            nearest.append(voxels[distances <= distances.min() + 1e-6])
    return nearest


@pytest.mark.parametrize("max_blocks", [1, 60, 10**6])
@pytest.mark.parametrize("shape", [(9, 12), (1, 11), (7, 10, 6), (8, 1, 9), (5, 1, 1), (1, 1, 1), (13, 12, 3)])
def test_labels_and_centres_by_brute_force(monkeypatch, max_blocks: int, shape) -> None:
    monkeypatch.setattr(supervoxels, "_MAX_BLOCKS", max_blocks)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = rng.uniform(0, 0.1, (*shape, rng.integers(1, 4))).astype(np.float32)
        spacing = rng.uniform(0.3, 5, len(shape))
        finder = Supervoxels(
            num_segments=int(rng.integers(1, 30)),
            compactness=float(rng.choice([0.01, 0.1, 10])),
            sigma=float(rng.choice([0, 1, 10])),
            min_foreground=float(rng.uniform()),
        )
        labels, centres = label(finder, image, spacing), finder(image, spacing)
        assert labels.shape == shape and centres.dtype == np.int32
        np.testing.assert_array_equal(np.unique(labels), np.arange(1, labels.max() + 1))
        expected = centres_slowly(labels, image, spacing, finder.min_foreground)
        assert centres.shape == (len(expected), len(shape))
        for centre, candidates in zip(centres.tolist(), expected, strict=True):
            assert centre in candidates.tolist()


def test_supervoxels_are_connected() -> None:
    image = np.random.default_rng(0).uniform(size=(16, 17, 18, 1)).astype(np.float32)
    labels = label(Supervoxels(compactness=0.01), image, ONES)
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number)[1] == 1


def test_bright_boxes_have_their_centres() -> None:
    image = np.zeros((16, 16, 16, 1), np.float32)
    image[1:8, 0:7, 1:8] = 1
    image[8:15, 8:15, 7:14] = 0.8
    # Nothing but the boxes is mostly bright.
    finder = Supervoxels(num_segments=8, sigma=0, min_foreground=0.9)
    centres = finder(image, ONES)
    assert {float(image[tuple(centre)][0]) for centre in centres} == {np.float32(1), np.float32(0.8)}
    assert len(dataclasses.replace(finder, min_foreground=0.0)(image, ONES)) > len(centres)


def test_centre_of_a_ring_lies_on_it(monkeypatch) -> None:
    monkeypatch.setattr(Supervoxels, "clusters", lambda self, blocks, image: (image[..., 0] > 0.5) + 1)
    radius = np.hypot(*np.indices((24, 24)) - 11.5)
    ring = (radius > 6) & (radius < 11)
    image = ring[..., None].astype(np.float32)
    (centre,) = Supervoxels(min_foreground=0.5)(image, (1, 1))
    assert ring[tuple(centre)] and not ring[11, 11]  # the centroid
    assert 6 < radius[tuple(centre)] < 7


def test_foreground_share_is_exact() -> None:
    # One supervoxel; 30 of its 200 voxels are tissue, half of them only in the second channel.
    image = np.zeros((10, 20, 2), np.float32)
    image.reshape(200, 2)[:15, 0] = image.reshape(200, 2)[15:30, 1] = 1
    assert len(Supervoxels(num_segments=1, min_foreground=0.15)(image, (1, 1))) == 1
    assert Supervoxels(num_segments=1, min_foreground=0.151)(image, (1, 1)).shape == (0, 2)
    image[image > 0] = FOREGROUND
    assert len(Supervoxels(num_segments=1, min_foreground=0.01)(image, (1, 1))) == 0


def test_spacing_shapes_the_partition() -> None:
    # As far as the noise lets them, supervoxels extend along the axis whose voxels are short.
    image = np.random.default_rng(0).uniform(size=(16, 16, 16, 1)).astype(np.float32)

    def extent(spacing) -> np.ndarray:
        labels = label(Supervoxels(num_segments=8), image, spacing)
        return np.mean([np.std(np.argwhere(labels == number), axis=0) for number in range(1, labels.max() + 1)], axis=0)

    for axis in range(3):
        short, long = ([length if other == axis else 1.0 for other in range(3)] for length in (0.2, 5.0))
        assert extent(short)[axis] > 1.2 * extent(long)[axis]


def test_unit_of_the_spacing_does_not_matter() -> None:
    image = np.random.default_rng(1).uniform(size=(12, 14, 8, 1)).astype(np.float32)
    in_mm, in_um = (label(Supervoxels(), image, np.multiply((0.5, 0.5, 2), unit)) for unit in (1, 1000))
    np.testing.assert_array_equal(in_mm, in_um)


@pytest.mark.parametrize(
    ("max_blocks", "sigma", "lengths"), [(512, (2, 2, 0.25), (1, 1, 8)), (128, (1, 1, 0.25), (2, 2, 8))]
)
def test_lengths_that_slic_is_given(monkeypatch, max_blocks: int, sigma, lengths) -> None:
    given = {}

    def slic(image, **options):
        given.update(options)
        return np.ones(image.shape[:-1], int)

    monkeypatch.setattr(supervoxels, "_MAX_BLOCKS", max_blocks)
    monkeypatch.setattr(supervoxels, "segmentation", SimpleNamespace(slic=slic))
    label(Supervoxels(sigma=1.0), np.zeros((8, 8, 8, 1), np.float32), (1, 1, 8))
    np.testing.assert_allclose(given["sigma"], sigma)  # in blocks: 2 mm, the mean side of a voxel, along each axis
    np.testing.assert_allclose(given["spacing"], np.array(lengths) / np.prod(lengths) ** (1 / 3))


def test_blocks_are_near_to_cubes_and_few() -> None:
    blocks = supervoxels.Blocks.of((512, 512, 60), (0.5, 0.5, 4.0))
    assert blocks.factors == (8, 8, 1)
    np.testing.assert_allclose(blocks.spacing, (4, 4, 4))
    assert supervoxels.Blocks.of((64, 64, 64), ONES).factors == (1, 1, 1)
    assert supervoxels.Blocks.of((128, 128, 128), ONES).factors == (2, 2, 2)
    assert supervoxels.Blocks.of((2048, 1024), (1.0, 1.0)).factors == (3, 3)


def test_block_means_by_hand(monkeypatch) -> None:
    monkeypatch.setattr(supervoxels, "_MAX_BLOCKS", 6)
    blocks = supervoxels.Blocks.of((3, 5), (1.0, 1.0))
    assert blocks.factors == (2, 2)
    image = np.arange(15, dtype=np.float32).reshape(3, 5, 1)
    np.testing.assert_array_equal(blocks.means(image)[..., 0], [[3, 5, 6.5], [10.5, 12.5, 14]])


def test_blocks_follow_the_intensities_too(monkeypatch) -> None:
    # Eight boxes of different brightness that meet in a point which is not the middle.
    inside = (np.indices((32, 32, 32)) >= np.array([12, 20, 16])[:, None, None, None]).astype(int)
    boxes = inside[0] + 2 * inside[1] + 4 * inside[2]
    image = ((boxes + 1) / 8).astype(np.float32)[..., None]
    for max_blocks in (32**3, 16**3):
        monkeypatch.setattr(supervoxels, "_MAX_BLOCKS", max_blocks)
        labels = label(Supervoxels(num_segments=8, compactness=0.01, sigma=0.0), image, ONES)
        table = np.histogram2d(labels.ravel(), boxes.ravel(), bins=(labels.max(), 8))[0]
        assert table.max(axis=1).sum() / labels.size > 0.9  # 0.77 if cut in the middle


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(8, 8), (6, 7, 8), (8, 8, 1), (1, 1)])
def test_constant_images(shape, value: float) -> None:
    image = np.full((*shape, 1), value, np.float32)
    for preset in PRESETS.values():
        centres = preset(image, (1.0,) * len(shape))
        assert (len(centres) > 0) == (value > 0)


def test_three_channels_are_no_colours() -> None:
    image = np.random.default_rng(2).uniform(size=(12, 12, 3)).astype(np.float32)
    labels = label(Supervoxels(), image, (1, 1))
    # Lab would not treat the channels alike.
    np.testing.assert_array_equal(label(Supervoxels(), image[..., ::-1], (1, 1)), labels)


@pytest.mark.parametrize("name", PRESETS)
def test_same_input_same_output_and_input_unchanged(name: str) -> None:
    image = np.random.default_rng(3).uniform(size=(14, 13, 12, 2)).astype(np.float32)
    image.flags.writeable = False
    np.testing.assert_array_equal(PRESETS[name](image, ONES), PRESETS[name](image, ONES))
    np.testing.assert_array_equal(label(PRESETS[name], image, ONES), label(PRESETS[name], image, ONES))


def test_presets() -> None:
    assert PRESETS["ours"] == Supervoxels(num_segments=15, compactness=0.1, sigma=1.0, min_foreground=0.15)
    assert PRESETS["paper"] == dataclasses.replace(PRESETS["ours"], sigma=10.0)
    assert repr(PRESETS["paper"]) == "Supervoxels(num_segments=15, compactness=0.1, sigma=10.0, min_foreground=0.15)"
