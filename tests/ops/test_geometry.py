"""Rotations against numpy, flips, and resampling against scipy."""

import keras  # noqa: F401
import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import tensorflow as tf

from self_supervised_3d_tasks.ops import geometry

# The predecessor's numbering.
TABLE_3D = {
    1: (1, (0, 1)),
    2: (2, (0, 1)),
    3: (3, (0, 1)),
    4: (3, (1, 2)),
    5: (2, (1, 2)),
    6: (1, (1, 2)),
    7: (3, (0, 2)),
    8: (2, (0, 2)),
    9: (1, (0, 2)),
}
INVERSES_3D = {0: 0, 1: 3, 2: 2, 3: 1, 4: 6, 5: 5, 6: 4, 7: 9, 8: 8, 9: 7}


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_3d_classes_are_the_predecessors():
    image = numbered((4, 4, 4, 2))
    classes = geometry.rotation_classes(image.shape)
    assert len(classes) == 10
    rotated = [geometry.rotate(tf.constant(image), tf.constant(i), classes).numpy() for i in range(10)]
    np.testing.assert_array_equal(rotated[0], image)
    for label, (k, axes) in TABLE_3D.items():
        np.testing.assert_array_equal(rotated[label], np.rot90(image, k, axes))
    assert len({volume.tobytes() for volume in rotated}) == 10
    for volume in rotated:
        np.testing.assert_array_equal(np.sort(volume, axis=None), np.sort(image, axis=None))


def test_2d_classes_are_quarter_turns():
    image = numbered((5, 5, 3))
    classes = geometry.rotation_classes(image.shape)
    for k in range(4):
        np.testing.assert_array_equal(geometry.rotate(tf.constant(image), k, classes), np.rot90(image, k))
    assert len(classes) == 4


def test_each_rotation_has_its_inverse():
    image = tf.constant(numbered((4, 4, 4, 1)))
    classes = geometry.rotation_classes(image.shape)
    for label, inverse in INVERSES_3D.items():
        back = geometry.rotate(geometry.rotate(image, label, classes), inverse, classes)
        np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((4, 4, 2, 1), 6),
        ((2, 4, 4, 1), 6),
        ((4, 3, 2, 1), 4),
        ((4, 4, 4, 1), 10),
        ((4, 3, 1), 2),
        ((4, 4, 1), 4),
    ],
)
def test_auto_keeps_the_classes_that_keep_the_shape(shape, count):
    image = numbered(shape)
    classes = geometry.rotation_classes(shape)
    rotated = [geometry.rotate(tf.constant(image), label, classes).numpy() for label in range(len(classes))]
    assert len(classes) == count
    assert all(volume.shape == shape for volume in rotated)
    assert len({volume.tobytes() for volume in rotated}) == count
    assert len(geometry.rotation_classes(shape, "all")) == {2: 4, 3: 10}[len(shape) - 1]


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (2, 3, 4, 1)])
def test_flip_reverses_the_flagged_axes(shape):
    image = numbered(shape)
    flags = [True, False, True][: max(2, len(shape) - 1)]
    expected = np.flip(image, [axis for axis, flag in enumerate(flags) if flag])
    np.testing.assert_array_equal(geometry.flip(tf.constant(image), tf.constant(flags)), expected)
    np.testing.assert_array_equal(geometry.flip(tf.constant(image), tf.constant([False] * len(flags))), image)


def test_flips_are_drawn_with_their_probability():
    assert not geometry.draw_flips([0, 0], 1000, 0.0).numpy().any()
    assert geometry.draw_flips([0, 0], 1000, 1.0).numpy().all()
    assert 0.45 < geometry.draw_flips([0, 0], 1000).numpy().mean() < 0.55


@pytest.mark.parametrize("shape", [(9, 7, 2), (6, 7, 5, 2)])
@pytest.mark.parametrize("order", [0, 1])
def test_affine_agrees_with_scipy(shape, order):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape).astype(np.float32)
    rank = len(shape) - 1
    matrix = np.eye(rank) + rng.normal(scale=0.3, size=(rank, rank))
    centre = (np.array(shape[:-1]) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                image[..., c], matrix, centre - matrix @ centre, order=order, mode="grid-constant", cval=-1.0
            )
            for c in range(shape[-1])
        ],
        axis=-1,
    )
    result = geometry.affine(tf.constant(image), tf.constant(matrix, tf.float32), order=order, fill=-1.0)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("order", [0, 1])
def test_identity_is_exact_and_dtypes_survive(order):
    image = tf.constant(numbered((5, 4, 3, 1)))
    np.testing.assert_array_equal(geometry.affine(image, tf.eye(3), order=order), image)
    mask = tf.cast(image, tf.int32)
    assert geometry.affine(mask, tf.eye(3), order=0).dtype == tf.int32


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2)])
def test_quarter_turn_by_resampling_is_a_quarter_turn(axes):
    image = numbered((5, 5, 5, 1))
    matrix = geometry.plane_rotation(tf.constant(np.pi / 2, tf.float32), 3, axes)
    turned = geometry.affine(tf.constant(image), matrix, order=0).numpy()
    assert any(np.array_equal(turned, np.rot90(image, k, axes)) for k in (1, 3))


def test_outside_is_filled():
    image = tf.ones((6, 6, 1))
    zoomed_out = geometry.affine(image, 2 * tf.eye(2), fill=0.0).numpy()[..., 0]
    assert zoomed_out[0].max() == 0.0
    assert zoomed_out[3, 3] == 1.0


@pytest.mark.parametrize(("shape", "offset"), [((5, 4, 2), (2, -1)), ((4, 5, 3, 1), (-3, 0, 2)), ((3, 3), (0, 0))])
def test_translation_moves_voxels_and_fills_with_zeros(shape, offset):
    image = numbered(shape) + 1
    moved = geometry.translate(tf.constant(image), tf.constant(offset)).numpy()
    expected = np.zeros_like(image)
    for voxel in np.ndindex(shape):
        target = tuple(np.add(voxel, (*offset, *[0] * (len(shape) - len(offset)))))
        if all(0 <= index < size for index, size in zip(target, shape, strict=True)):
            expected[target] = image[voxel]
    np.testing.assert_array_equal(moved, expected)


def test_translation_in_a_graph_keeps_shape_and_dtype():
    mask = tf.reshape(tf.range(12), (3, 4))
    dataset = tf.data.Dataset.from_tensor_slices([[0, 1], [-7, 0]]).map(lambda offset: geometry.translate(mask, offset))
    assert dataset.element_spec == tf.TensorSpec((3, 4), tf.int32)
    first, gone = list(dataset)
    np.testing.assert_array_equal(first, [[0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]])
    assert not gone.numpy().any()


@pytest.mark.parametrize("shape", [(9, 7, 2), (8, 6, 5, 1)])
def test_an_enlarged_box_is_that_of_skimage(shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    *spatial, _ = shape
    enlarge = tf.function(geometry.enlarge_box)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = rng.integers(1, np.add(spatial, 1))
        origin = rng.integers(0, np.subtract(spatial, size) + 1)
        box = image[tuple(slice(start, start + length) for start, length in zip(origin, size, strict=True))]
        result = enlarge(tf.constant(image), tf.constant(origin, tf.int32), tf.constant(size, tf.int32))
        assert result.shape == shape
        expected = skimage.transform.resize(box, shape, order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert result.numpy().min() >= box.min() - 1e-6
        assert result.numpy().max() <= box.max() + 1e-6


def test_a_box_as_large_as_the_image_is_the_image():
    image = numbered((5, 4, 3, 2))
    np.testing.assert_array_equal(geometry.enlarge_box(tf.constant(image), tf.zeros(3, tf.int32), [5, 4, 3]), image)


def test_a_box_of_a_constant_image_is_constant():
    image = np.full((6, 7, 1), 0.3, np.float32)
    np.testing.assert_array_equal(geometry.enlarge_box(tf.constant(image), tf.constant([1, 2]), [4, 3]), image)
