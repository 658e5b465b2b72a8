"""Augmentation: the same geometry for image and mask, the ranges of what is drawn, and every change by hand."""

import keras  # noqa: F401
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.ops import augment

SHAPES = [(24, 20), (20, 16, 18)]


def labelled(spatial):
    """A mask with two off-centre blocks, and an image that equals it."""
    mask = np.zeros(spatial, np.int32)
    mask[tuple(slice(size // 4, size // 2 + 1) for size in spatial)] = 1
    mask[tuple(slice(size // 2 + 1, size - size // 6) for size in spatial)] = 2
    return tf.constant(mask[..., None], tf.float32), tf.constant(mask)


def draws(rank, number=1500):
    dataset = tf.data.Dataset.range(number).map(lambda i: augment.draw(tf.stack([tf.cast(i, tf.int32), 5]), rank))
    return augment.Augmentation(*(value.numpy() for value in dataset.batch(number).get_single_element()))


@pytest.mark.parametrize("spatial", SHAPES)
def test_image_and_mask_stay_together(spatial):
    image, mask = labelled(spatial)
    moved = 0
    for i in range(12):
        change = augment.draw(tf.constant([i, 1]), len(spatial))
        change = change._replace(brightness=tf.constant(0.0), contrast=tf.constant(1.0))
        new_image, new_mask = augment.apply(image, change), augment.apply_to_mask(mask, change)
        assert new_image.shape == image.shape
        assert new_mask.shape == mask.shape
        assert new_mask.dtype == mask.dtype
        assert set(np.unique(new_mask)) <= {0, 1, 2}
        foreground, expected = new_image.numpy()[..., 0] > 0.5, new_mask.numpy() > 0
        assert 2 * (foreground & expected).sum() > 0.9 * (foreground.sum() + expected.sum())
        moved += not np.array_equal(new_mask, mask)
    assert moved > 6


@pytest.mark.parametrize("spatial", SHAPES)
def test_colour_does_not_touch_the_mask(spatial):
    image, mask = labelled(spatial)
    rank = len(spatial)
    change = augment.Augmentation.none(rank)._replace(brightness=tf.constant(0.1), contrast=tf.constant(0.5))
    new_image, new_mask = augment.apply(image, change), augment.apply_to_mask(mask, change)
    np.testing.assert_array_equal(new_mask, mask)
    assert float(tf.reduce_mean(new_image)) == pytest.approx(float(tf.reduce_mean(image)) + 0.1, abs=1e-5)


@pytest.mark.parametrize("spatial", SHAPES)
def test_same_seed_same_example_in_a_graph(spatial):
    image, mask = labelled(spatial)
    dataset = tf.data.Dataset.range(3).map(
        lambda i: augment.augment_segmentation(image, mask, tf.stack([tf.cast(i, tf.int32), 9]))
    )
    first, second = list(dataset), list(dataset)
    for (image_a, mask_a), (image_b, mask_b) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image_a, image_b)
        np.testing.assert_array_equal(mask_a, mask_b)
    eager = augment.augment_segmentation(image, mask, tf.constant([1, 9]))
    np.testing.assert_allclose(first[1][0], eager[0], atol=1e-5)
    assert not np.array_equal(first[0][0], first[1][0])


@pytest.mark.parametrize("rank", [2, 3])
def test_parameters_have_the_predecessors_ranges(rank):
    change = draws(rank)
    coloured = change.contrast != 1.0
    np.testing.assert_allclose(change.flips.mean(axis=0), 0.5, atol=0.05)
    assert coloured.mean() == pytest.approx(0.7, abs=0.05)
    assert np.abs(change.brightness).max() <= 0.125
    assert 0.5 <= change.contrast.min() < 0.55
    assert 1.45 < change.contrast.max() <= 1.5
    assert not change.brightness[~coloured].any()


def test_2d_zooms_and_does_not_turn():
    change = draws(2)
    scales = np.diagonal(change.matrix, axis1=1, axis2=2)
    assert change.resample.all()
    assert 0.85 <= scales.min() < 0.86
    assert 1.14 < scales.max() <= 1.15
    assert not change.matrix[:, 0, 1].any()


def test_3d_turns_half_of_the_volumes_in_every_plane():
    change = draws(3)
    assert change.resample.mean() == pytest.approx(0.5, abs=0.05)
    products = change.matrix @ change.matrix.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(change.matrix), 1, atol=1e-5)
    fixed = (np.diagonal(change.matrix, axis1=1, axis2=2) == 1).mean(axis=0)
    np.testing.assert_allclose(fixed, 1 / 3, atol=0.05)


def noise(spatial, channels=2, seed=0):
    return np.random.default_rng(seed).uniform(size=(*spatial, channels)).astype(np.float32)


def view_draws(transformations, spatial=(20, 16, 18), number=1500, max_translation=0.25):
    def drawn(i):
        seed = tf.stack([tf.cast(i, tf.int32), 5])
        return augment.draw_view(seed, spatial, transformations, max_translation=max_translation)

    dataset = tf.data.Dataset.range(number).map(drawn).batch(number)
    return augment.Augmentation(*(value.numpy() for value in dataset.get_single_element()))


def assert_unchanged(change, fields):
    plain = augment.Augmentation.none(change.flips.shape[-1])
    for field in fields:
        expected = np.broadcast_to(getattr(plain, field), getattr(change, field).shape)
        np.testing.assert_array_equal(getattr(change, field), expected, err_msg=field)


@pytest.mark.parametrize("spatial", SHAPES)
def test_no_change_is_no_change(spatial):
    image, mask = noise(spatial), labelled(spatial)[1]
    plain = augment.Augmentation.none(len(spatial))
    np.testing.assert_allclose(augment.apply(tf.constant(image), plain), image, atol=1e-6)
    np.testing.assert_array_equal(augment.apply_to_mask(mask, plain), mask)


def test_flip_comes_before_translation_and_colour_last():
    image = tf.reshape(tf.range(6.0), (2, 3, 1))
    change = augment.Augmentation.none(2)._replace(
        flips=tf.constant([False, True]), offset=tf.constant([0, 1]), brightness=tf.constant(10.0)
    )
    np.testing.assert_allclose(augment.apply(image, change)[..., 0], [[10, 12, 11], [10, 15, 14]], rtol=1e-6)
    mask = tf.constant([[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(augment.apply_to_mask(mask, change), [[0, 2, 1], [0, 5, 4]])


def test_2d_images_are_flipped_and_zoomed_and_keep_their_colours():
    image = tf.fill((24, 20, 3), 0.25)
    changed = tf.stack([augment.augment_image(image, tf.constant([i, 0])) for i in range(30)]).numpy()
    np.testing.assert_allclose(changed[:, 6:18, 5:15], 0.25, atol=1e-6)  # a zoom keeps the middle
    assert changed.min() == 0.0  # zooming out fills with 0
    assert changed.max() == pytest.approx(0.25)
    marked = np.zeros((12, 10, 1), np.float32)
    marked[:4, :3] = 1
    corners = {
        tuple(
            augment.augment_image(tf.constant(marked), tf.constant([i, 0])).numpy()[[2, 2, -3, -3], [1, -2, 1, -2], 0]
            > 0.5
        )
        for i in range(40)
    }
    assert corners == {tuple(row) for row in np.eye(4, dtype=bool)}


def test_3d_images_are_changed_as_for_segmentation():
    image, mask = labelled((20, 16, 18))
    for i in range(5):
        seed = tf.constant([i, 3])
        expected, _ = augment.augment_segmentation(image, mask, seed)
        np.testing.assert_array_equal(augment.augment_image(image, seed), expected)


@pytest.mark.parametrize("spatial", SHAPES)
def test_zoom_only(spatial):
    rank, size = len(spatial), np.array(spatial)
    position = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in spatial), indexing="ij"), axis=-1)
    factors = []
    for i in range(20):
        # Each channel holds a coordinate, so that the image shows where every voxel was taken from.
        zoomed = augment.augment_image(
            tf.constant(position), tf.constant([i, 0]), augment.Rules(zoom_only=True)
        ).numpy()
        middle = tuple(size // 2)
        step = [
            zoomed[tuple(np.add(middle, axis))][a] - zoomed[middle][a] for a, axis in enumerate(np.eye(rank, dtype=int))
        ]
        expected = (np.array(middle) - (size - 1) / 2) * step + (size - 1) / 2
        np.testing.assert_allclose(zoomed[middle], expected, atol=1e-3)
        factors.append(step)
    factors = np.array(factors)
    assert 0.85 <= factors.min() < 0.9
    assert 1.1 < factors.max() <= 1.15
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 0.05
    first = augment.augment_image(tf.constant(position), tf.constant([1, 0]), augment.Rules(zoom_only=True))
    again = augment.augment_image(tf.constant(position), tf.constant([1, 0]), augment.Rules(zoom_only=True))
    np.testing.assert_array_equal(first, again)


GEOMETRY = ("flips", "offset", "resample", "matrix")
COLOUR = ("brightness", "contrast")


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_view_changes_only_what_is_asked_for(spatial):
    assert_unchanged(view_draws((), spatial, 50), GEOMETRY + COLOUR)
    assert_unchanged(view_draws(("flip",), spatial, 50), (*GEOMETRY[1:], *COLOUR))
    assert_unchanged(view_draws(("translation",), spatial, 50), (GEOMETRY[0], *GEOMETRY[2:], *COLOUR))
    assert_unchanged(view_draws(("brightness",), spatial, 50), (*GEOMETRY, "contrast"))
    assert_unchanged(view_draws(("contrast",), spatial, 50), (*GEOMETRY, "brightness"))
    assert_unchanged(view_draws(("rotation", "zoom"), spatial, 50), (*GEOMETRY[:2], *COLOUR))


def test_each_change_of_a_view_is_drawn_alike_with_or_without_the_others():
    everything = view_draws(("flip", "translation", "brightness", "contrast", "rotation", "zoom"), number=50)
    for kind, field in {"flip": "flips", "translation": "offset", "brightness": "brightness"}.items():
        np.testing.assert_array_equal(getattr(view_draws((kind,), number=50), field), getattr(everything, field))


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_view_is_translated_by_whole_voxels_up_to_the_share(spatial):
    offset = view_draws(("translation",), spatial).offset
    assert offset.dtype == np.int32
    for axis, size in enumerate(spatial):
        values, counts = np.unique(offset[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(-(size // 4), size // 4 + 1))
        np.testing.assert_allclose(counts / len(offset), 1 / len(values), atol=0.04)
    assert_unchanged(view_draws(("translation",), spatial, 20, max_translation=0.0), GEOMETRY)


def test_flips_and_colours_of_a_view():
    change = view_draws(("flip", "brightness", "contrast"))
    np.testing.assert_allclose(change.flips.mean(axis=0), 0.5, atol=0.05)
    brighter, contrasted = change.brightness != 0, change.contrast != 1
    assert brighter.mean() == pytest.approx(0.5, abs=0.05)
    assert contrasted.mean() == pytest.approx(0.5, abs=0.05)
    assert (brighter & contrasted).mean() == pytest.approx(0.25, abs=0.05)
    assert 0.12 < np.abs(change.brightness).max() <= 0.125
    assert 0.5 <= change.contrast.min() < 0.52
    assert 1.48 < change.contrast.max() <= 1.5


@pytest.mark.parametrize(("spatial", "turned"), [((8, 8), 0.5), ((8, 8, 8), 1 - 0.5**3)])
def test_a_view_is_turned_in_every_plane(spatial, turned):
    change = view_draws(("rotation",), spatial)
    rank = len(spatial)
    assert change.resample.mean() == pytest.approx(turned, abs=0.05)
    products = change.matrix @ change.matrix.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(rank), products.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(change.matrix), 1, atol=1e-5)
    np.testing.assert_array_equal(
        change.matrix[~change.resample], np.broadcast_to(np.eye(rank), products.shape)[~change.resample]
    )
    entries = np.abs(change.matrix)
    right = np.all((entries < 1e-6) | (entries > 1 - 1e-6), axis=(1, 2))
    # No plane is turned by an angle that is not right: half of the half that is turned.
    assert right.mean() == pytest.approx(0.75 ** (1 if rank == 2 else 3), abs=0.05)
    assert len(np.unique(change.matrix[right].round() + 0.0, axis=0)) == {2: 4, 3: 24}[rank]


@pytest.mark.parametrize("spatial", SHAPES)
def test_a_view_is_zoomed_along_each_axis(spatial):
    change = view_draws(("zoom",), spatial)
    assert change.resample.mean() == pytest.approx(0.15, abs=0.03)
    factors = 1 / np.diagonal(change.matrix, axis1=1, axis2=2)
    np.testing.assert_array_equal(factors[~change.resample], 1)
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2 + 1e-6
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 0.2


def test_rotation_and_zoom_are_one_resampling():
    """The matrix is the product of what each alone would be."""
    both, turned, zoomed = (
        view_draws(kinds, number=300).matrix for kinds in (("rotation", "zoom"), ("rotation",), ("zoom",))
    )
    np.testing.assert_allclose(both, turned @ zoomed, atol=1e-6)


@pytest.mark.parametrize("spatial", [(8, 8), (8, 8, 8)])
def test_right_angles_are_exact_turns(spatial):
    image, rank = noise(spatial), len(spatial)
    change = view_draws(("rotation",), spatial, 60)
    rights = [m for m in change.matrix[change.resample] if np.all((np.abs(m) < 1e-6) | (np.abs(m) > 1 - 1e-6))]
    assert len(rights) > 5
    for matrix in rights:
        drawn = augment.Augmentation.none(rank)._replace(resample=tf.constant(True), matrix=tf.constant(matrix))
        turned = augment.apply(tf.constant(image), drawn).numpy()
        np.testing.assert_allclose(np.sort(turned, axis=None), np.sort(image, axis=None), atol=1e-4)
