"""Rotations against numpy, flips, and resampling against scipy."""

import keras  # noqa: F401
import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial.transform
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
    [((4, 4, 2, 1), 6), ((2, 4, 4, 1), 6), ((4, 3, 2, 1), 4), ((4, 4, 4, 1), 10), ((4, 3, 1), 2), ((4, 4, 1), 4)],
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


def test_flips_are_drawn_with_probability_one_half():
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


def test_outside_is_filled_with_a_tensor():
    image = tf.reshape(tf.range(36.0), (6, 6, 1)) + 5
    for order in (0, 1):
        zoomed_out = tf.function(geometry.affine)(image, 3 * tf.eye(2), order=order, fill=tf.reduce_min(image)).numpy()
        np.testing.assert_array_equal(zoomed_out[[0, -1]], 5)
        assert zoomed_out.max() > 20
    mask = geometry.affine(tf.ones((6, 6, 1), tf.int32), 3 * tf.eye(2), order=0, fill=tf.constant(-1.0))
    np.testing.assert_array_equal(np.unique(mask), [-1, 1])


def test_translation_in_a_graph_keeps_shape_and_dtype():
    mask = tf.reshape(tf.range(12), (3, 4))
    dataset = tf.data.Dataset.from_tensor_slices([[0, 1], [-7, 0]]).map(lambda offset: geometry.translate(mask, offset))
    assert dataset.element_spec == tf.TensorSpec((3, 4), tf.int32)
    first, gone = list(dataset)
    np.testing.assert_array_equal(first, [[0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]])
    assert not gone.numpy().any()


@pytest.mark.parametrize(
    ("shape", "result_shape"), [((9, 7, 2), None), ((8, 6, 5, 1), None), ((8, 6, 5, 2), (3, 9, 4))]
)
def test_a_resized_box_is_that_of_skimage(shape, result_shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    *spatial, channels = shape
    expected_shape = (*(result_shape or spatial), channels)
    resize = tf.function(lambda *arguments: geometry.resize_box(*arguments, result_shape))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        size = rng.integers(1, np.add(spatial, 1))
        origin = rng.integers(0, np.subtract(spatial, size) + 1)
        box = cut(image, origin, size)
        result = resize(tf.constant(image), tf.constant(origin, tf.int32), tf.constant(size, tf.int32))
        assert result.shape == expected_shape
        expected = skimage.transform.resize(box, expected_shape, order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert result.numpy().min() >= box.min() - 1e-6
        assert result.numpy().max() <= box.max() + 1e-6


def cut(image, origin, size):
    return image[tuple(slice(start, start + length) for start, length in zip(origin, size, strict=True))]


@pytest.mark.parametrize("shape", [(32, 24, 2), (24, 32, 16, 1)])
@pytest.mark.parametrize("factor", [0.4, 2.3])
def test_a_box_is_enlarged_and_reduced_to_a_given_size(shape, factor):
    image = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    size, origin = np.array([11, 20, 13][: len(shape) - 1]), np.array([3, 1, 2][: len(shape) - 1])
    result_shape = tuple(np.round(size * factor).astype(int).tolist())
    place = tf.constant(origin, tf.int32), tf.constant(size, tf.int32)
    result = geometry.resize_box(tf.constant(image), *place, result_shape)
    box = cut(image, origin, size)
    expected = skimage.transform.resize(box, (*result_shape, shape[-1]), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_box_that_has_the_size_is_cut_out():
    image = numbered((5, 4, 3, 2))
    np.testing.assert_array_equal(geometry.resize_box(tf.constant(image), tf.zeros(3, tf.int32), [5, 4, 3]), image)
    box = geometry.resize_box(tf.constant(image / 7), tf.constant([2, 0, 1]), tf.constant([3, 2, 2]), (3, 2, 2))
    np.testing.assert_array_equal(box, (image / 7)[2:5, 0:2, 1:3])


def test_the_size_of_a_resized_box_is_known_in_a_graph():
    image = tf.ones((8, 8, 8, 1))
    dataset = tf.data.Dataset.from_tensor_slices([[1, 2, 3], [8, 8, 8]])
    dataset = dataset.map(lambda size: geometry.resize_box(image, tf.zeros(3, tf.int32), size, (4, 2, 4)))
    assert dataset.element_spec == tf.TensorSpec((4, 2, 4, 1), tf.float32)
    np.testing.assert_array_equal(list(dataset), np.ones((2, 4, 2, 4, 1)))


def test_a_box_of_a_constant_image_is_constant():
    image = np.full((6, 7, 1), 0.3, np.float32)
    np.testing.assert_array_equal(geometry.resize_box(tf.constant(image), tf.constant([1, 2]), [4, 3]), image)


def draw_affines(rank, scale, degrees, count=300):
    seeds = tf.stack([tf.range(count), tf.fill([count], 3)], axis=1)
    draw = tf.function(lambda seed: geometry.draw_affine(seed, rank, scale=scale, degrees=degrees))
    return tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec((rank, rank))).numpy()


@pytest.mark.parametrize("rank", [2, 3])
def test_no_scale_and_no_degrees_are_the_identity(rank):
    np.testing.assert_array_equal(draw_affines(rank, 0.0, 0.0, 3), [np.eye(rank)] * 3)


@pytest.mark.parametrize("rank", [2, 3])
def test_drawn_scales_are_one_per_axis_in_their_range(rank):
    matrices = draw_affines(rank, 0.1, 0.0)
    factors = 1 / np.diagonal(matrices, axis1=1, axis2=2)
    np.testing.assert_array_equal(matrices * (1 - np.eye(rank)), 0)
    assert factors.min() == pytest.approx(0.9, abs=2e-3)
    assert factors.max() == pytest.approx(1.1, abs=2e-3)
    assert np.abs(np.corrcoef(factors.T) - np.eye(rank)).max() < 0.2


@pytest.mark.parametrize("rank", [2, 3])
def test_drawn_rotations_turn_in_every_plane(rank):
    matrices = draw_affines(rank, 0.0, 10.0)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), [np.eye(rank)] * 300, atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-6)
    if rank == 2:
        degrees = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))[:, None]
    else:  # the rotation in the plane of axes 0 and 1 comes first: R01 R02 R12
        degrees = np.rad2deg(scipy.spatial.transform.Rotation.from_matrix(matrices).as_euler("ZYX"))
    assert np.abs(degrees).max() <= 10 + 1e-4
    np.testing.assert_allclose(degrees.min(axis=0), -10, atol=0.3)
    np.testing.assert_allclose(degrees.max(axis=0), 10, atol=0.3)
    np.testing.assert_allclose(degrees.std(axis=0), 10 / np.sqrt(3), rtol=0.1)


def test_a_drawn_scale_magnifies():
    image = np.zeros((41, 41, 1), np.float32)
    image[10:31, 10:31] = 1
    for seed in range(5):
        matrix = geometry.draw_affine([seed, 0], 2, scale=0.5, degrees=0.0)
        zoomed = geometry.affine(tf.constant(image), matrix).numpy()[..., 0]
        expected = 21 / np.diagonal(matrix)
        np.testing.assert_allclose([zoomed[:, 20].sum(), zoomed[20].sum()], expected, atol=1)
