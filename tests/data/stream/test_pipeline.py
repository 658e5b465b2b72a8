from __future__ import annotations

import itertools
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.data.stream.repeated_examples import repeated_examples
from self_supervised_3d_tasks.data.stream.source import crop_origin
from self_supervised_3d_tasks.data.stream.wait_clock import WaitClock
from self_supervised_3d_tasks.errors import UserError
from tests.data.stream.streams import pretraining_dataset, segmentation_dataset

DRAWS = np.random.default_rng(3)


def numbered(count: int, shape=(4, 4, 4, 1)) -> list[np.ndarray]:
    """Scan i is everywhere i / 100."""
    return [np.full(shape, index / 100, np.float32) for index in range(count)]


def identity(image, seed):
    """The image's number, and the seed."""
    return image, seed


def take(dataset, steps: int) -> list:
    return list(itertools.islice(dataset.as_numpy_iterator(), steps))


def scan_numbers(batches) -> list[int]:
    return [round(100 * float(image.flat[0])) for images, _ in batches for image in images]


def assert_equal(one, other) -> None:
    for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(left, right)


def test_an_example_is_traced_as_written(make_store) -> None:
    """An `if` of a tensor is an error, not a branch taken for good; what an operation chooses is chosen each time."""

    def branching(image, seed):
        return (image, seed) if seed[0] > 0 else (-image, seed)

    def choosing(image, seed):
        return tf.where(seed[0] > 0, image, -image), seed

    with pytest.raises(TypeError, match="as a Python `bool` is not allowed"):
        pretraining_dataset(make_store(numbered(2)), make_example=branching, batch_size=1, seed=0)
    batches = take(pretraining_dataset(make_store(numbered(2)), make_example=choosing, batch_size=2, seed=0), 8)
    for image, seed in ((image, seed) for images, seeds in batches for image, seed in zip(images, seeds, strict=True)):
        assert (image >= 0).all() if seed[0] > 0 else (image <= 0).all()
    assert len({seed[0] > 0 for _, seeds in batches for seed in seeds}) == 2


@pytest.mark.parametrize("num_scans", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", [0, 1, -5, 2**40])
def test_each_epoch_visits_every_scan_once(make_store, num_scans: int, seed: int) -> None:
    dataset = pretraining_dataset(make_store(numbered(num_scans)), make_example=identity, batch_size=1, seed=seed)
    numbers = scan_numbers(take(dataset, 4 * num_scans))
    for epoch in range(4):
        assert sorted(numbers[epoch * num_scans : (epoch + 1) * num_scans]) == list(range(num_scans))


def test_every_crop_is_visited_once_and_batches_are_full(make_store) -> None:
    dataset = pretraining_dataset(
        make_store(numbered(5)), make_example=identity, batch_size=4, crop_shape=(2, 2, 2), crops_per_scan=3, seed=0
    )
    batches = take(dataset, 15)  # 4 epochs of 15 crops in batches of 4
    assert {len(images) for images, _ in batches} == {4}
    numbers = scan_numbers(batches)
    for epoch in range(4):
        assert Counter(numbers[15 * epoch : 15 * (epoch + 1)]) == dict.fromkeys(range(5), 3)


def test_epochs_differ_in_order_and_seeds(make_store) -> None:
    dataset = pretraining_dataset(make_store(numbered(8)), make_example=identity, batch_size=8, seed=4)
    batches = take(dataset, 6)
    assert len({tuple(scan_numbers([batch])) for batch in batches}) == 6
    seeds = np.concatenate([seeds for _, seeds in batches])
    assert seeds.dtype == np.int32 and len({tuple(seed) for seed in seeds}) == 48


def test_seeds_of_experiments_differ(make_store) -> None:
    store = make_store(numbered(8))
    orders = {
        tuple(scan_numbers(take(pretraining_dataset(store, make_example=identity, batch_size=8, seed=seed), 1)))
        for seed in (0, 1, 2, 3, -1)
    }
    assert len(orders) == 5


@pytest.mark.parametrize("first_step", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_stream_continues_bit_for_bit(make_store, first_step: int, batch_size: int) -> None:
    images = [DRAWS.uniform(size=(5 + i, 6, 7, 2)).astype(np.float32) for i in range(4)]
    store = make_store(images, [DRAWS.integers(0, 3, size=image.shape[:-1]) for image in images], data_dim=(4, 4, 4))
    options = {"batch_size": batch_size, "crop_shape": (4, 4, 4), "crops_per_scan": 2, "seed": 9}

    def example(image, seed):
        return {"image": image, "noise": tf.random.stateless_uniform((3,), seed)}, seed

    def batch(inputs, targets, seed):
        return inputs | {"batch": tf.random.stateless_uniform((2,), seed)}, targets

    def augment(image, mask, seed):
        return image + tf.random.stateless_uniform((), seed), mask

    def pretraining(**where):
        return pretraining_dataset(store, make_example=example, make_batch=batch, **options, **where)

    def segmentation(**where):
        return segmentation_dataset(store, foreground_fraction=0.5, augment=augment, **options, **where)

    for stream in (pretraining, segmentation):
        resumed = take(stream(first_step=first_step), 4)
        assert_equal(resumed, take(stream().skip(first_step), 4))
        assert_equal(resumed, take(stream(first_step=first_step), 4))


@pytest.mark.parametrize("first_step", [0, 5])
@pytest.mark.parametrize("distinct_scans", [False, True])
def test_shares_together_are_the_batches_of_one_process(make_store, first_step: int, distinct_scans: bool) -> None:
    options = {"make_example": identity, "batch_size": 6, "seed": 3, "first_step": first_step}
    options |= {"distinct_scans": distinct_scans}
    store = make_store(numbered(9))
    alone = take(pretraining_dataset(store, **options), 5)
    shares = [take(pretraining_dataset(store, **options, share=(number, 3)), 5) for number in range(3)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert [len(images) for images, _ in parts] == [2, 2, 2]
        assert_equal(whole, tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *parts))


def test_validation_is_not_shared(make_store) -> None:
    options = {"make_example": identity, "batch_size": 2, "seed": 0, "training": False}
    dataset = pretraining_dataset(make_store(numbered(5)), **options, share=(1, 2))
    assert scan_numbers(list(dataset.as_numpy_iterator())) == [0, 1, 2, 3, 4]


def test_validation_is_one_pass_in_order_the_same_each_time(make_store) -> None:
    dataset = pretraining_dataset(make_store(numbered(5)), make_example=identity, batch_size=2, seed=0, training=False)
    assert dataset.cardinality() == 3
    first, second = list(dataset.as_numpy_iterator()), list(dataset.as_numpy_iterator())
    assert scan_numbers(first) == [0, 1, 2, 3, 4]
    assert [len(images) for images, _ in first] == [2, 2, 1]
    assert_equal(first, second)


@pytest.mark.parametrize("training", [True, False])
def test_no_thread_tunes_a_stream(make_store, training: bool) -> None:
    """It sleeps through the end of its iterator now and then, for seconds, and trainings wait for it."""
    options = {"make_example": identity, "batch_size": 2, "seed": 0, "training": training}
    dataset = pretraining_dataset(make_store(numbered(5)), **options)
    for stream in (dataset, WaitClock().attach(dataset), repeated_examples(dataset, identity, 2)):
        assert stream.options().autotune.enabled is False


def test_batch_seeds_differ_by_step(make_store) -> None:
    dataset = pretraining_dataset(
        make_store(numbered(2)),
        make_example=identity,
        make_batch=lambda inputs, targets, seed: (inputs, seed),
        batch_size=2,
        seed=0,
    )
    assert len({tuple(seed) for _, seed in take(dataset, 10)}) == 10


def test_shapes_are_static(make_store) -> None:
    images = [DRAWS.uniform(size=(6, 5, 4, 2)).astype(np.float32)] * 2
    store = make_store(images, [np.zeros((6, 5, 4), int)] * 2)
    spec = segmentation_dataset(store, batch_size=2, crop_shape=[3, 5, 2], seed=0).element_spec
    assert [(part.shape.as_list(), part.dtype) for part in spec] == [
        ([2, 3, 5, 2, 2], tf.float32),
        ([2, 3, 5, 2], tf.int32),
    ]
    seen = []
    pretraining_dataset(
        store, make_example=lambda image, seed: (seen.append(image.shape) or image, seed), batch_size=1, seed=0
    )
    assert seen[-1] == (6, 5, 4, 2)


def test_two_dimensions(make_store) -> None:
    images = [DRAWS.uniform(size=(6, 5, 3)).astype(np.float32)]
    store = make_store(images, [DRAWS.integers(0, 3, size=(6, 5))])
    ((image, mask),) = take(segmentation_dataset(store, batch_size=1, seed=0), 1)
    np.testing.assert_array_equal(image[0], images[0])
    np.testing.assert_array_equal(mask[0], store.mask(0))


def test_origins_cover_exactly_what_fits() -> None:
    last_uniform = np.nextafter(1, 0)
    assert crop_origin((5, 4), (3, 4), np.array([0, 0.0])) == (0, 0)
    assert crop_origin((5, 4), (3, 4), np.array([last_uniform] * 2)) == (2, 0)
    drawn = Counter(crop_origin((6,), (3,), np.array([u]))[0] for u in np.linspace(0, 0.99999, 4000))
    assert drawn == dict.fromkeys(range(4), 1000)


def test_centred_origins_are_moved_inside() -> None:
    voxels = {0: 0, 1: 0, 2: 0, 3: 1, 5: 3, 9: 6}
    for voxel, expected in voxels.items():
        assert crop_origin((10,), (4,), np.zeros(1), np.array([voxel])) == (expected,)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_crops_lie_inside_and_reach_every_origin(make_store, tmp_path, cache: str) -> None:
    # Each voxel holds its own coordinates, so a crop tells where it comes from.
    shape = (5, 4, 3)
    coordinates = np.stack(np.indices(shape), axis=-1).astype(np.float32) / 10
    store = make_store([coordinates], [np.zeros(shape, int)], cache=cache, cache_dir=tmp_path / "cache")
    dataset = segmentation_dataset(store, batch_size=20, crop_shape=(3, 2, 3), crops_per_scan=20, seed=0)
    origins = Counter()
    for crops, _ in take(dataset, 30):
        for crop in crops:
            origin = tuple(np.rint(10 * crop[0, 0, 0]).astype(int).tolist())
            inside = tuple(slice(first, first + size) for first, size in zip(origin, (3, 2, 3), strict=True))
            np.testing.assert_array_equal(crop, coordinates[inside])
            origins[origin] += 1
    assert set(origins) == set(itertools.product(range(3), range(3), range(1)))
    assert min(origins.values()) > 600 / 9 / 2


def coordinate_scans(shapes) -> list[np.ndarray]:
    """Voxels hold their scan's number and their own coordinates, over 100, so a crop tells where it comes from."""
    return [
        np.stack([np.full(shape, number), *np.indices(shape)], axis=-1).astype(np.float32) / 100
        for number, shape in enumerate(shapes)
    ]


def origins(crops) -> list[tuple[int, ...]]:
    """Return the scan and the first voxel of each crop of `coordinate_scans`."""
    return [tuple(np.rint(100 * crop[(0,) * (crop.ndim - 1)]).astype(int).tolist()) for crop in crops]


CENTRES = [np.array([[0, 0, 0], [3, 3, 3], [7, 2, 5]]), np.array([[4, 4, 9]], np.int32)]
# Half of the crop's (4, 2, 3), rounded down, before the centre; moved into the scan where that is outside.
CENTRED_ORIGINS = {0: {(0, 0, 0), (1, 2, 2), (4, 1, 4)}, 1: {(2, 3, 7)}}


def test_crops_are_those_at_the_centres_and_each_is_as_likely(make_store) -> None:
    store = make_store(coordinate_scans([(8, 6, 7), (9, 6, 10)]), data_dim=(4, 2, 3))
    dataset = pretraining_dataset(
        store, make_example=identity, batch_size=8, crop_shape=(4, 2, 3), crops_per_scan=4, centres=CENTRES, seed=0
    )
    counts = Counter()
    for crops, _ in take(dataset, 120):
        assert crops.shape == (8, 4, 2, 3, 4)
        for crop, (number, *first) in zip(crops, origins(crops), strict=True):
            inside = tuple(slice(one, one + size) for one, size in zip(first, (4, 2, 3), strict=True))
            np.testing.assert_array_equal(crop, store.image(number)[inside])
            counts[number, tuple(first)] += 1
    assert set(counts) == {(number, first) for number, firsts in CENTRED_ORIGINS.items() for first in firsts}
    assert counts.pop((1, (2, 3, 7))) == 480  # every scan is visited as often
    assert min(counts.values()) > 160 * 0.8


def test_centred_crops_lie_in_the_padded_scan(make_store) -> None:
    scan = np.full((3, 9, 5, 1), 0.5, np.float32)
    store = make_store([scan], data_dim=(6, 4, 8))
    assert store.shape(0) == (6, 9, 8, 1)
    corners = np.array(list(itertools.product((0, 5), (0, 8), (0, 7))))
    options = {"make_example": identity, "batch_size": 4, "crop_shape": (6, 4, 8), "crops_per_scan": 4, "seed": 1}
    for crops, _ in take(pretraining_dataset(store, centres=[corners], **options), 20):
        assert crops.shape == (4, 6, 4, 8, 1)
        assert {int(crop.sum()) for crop in crops} == {3 * 4 * 5 // 2}


def test_centred_companions_resuming_and_validation(make_store) -> None:
    store = make_store(coordinate_scans([(8, 6, 7), (9, 6, 10)]), data_dim=(4, 2, 3))
    options = {
        "make_example": lambda image, seed, other: (tf.stack([image, other]), seed),
        "batch_size": 2,
        "crop_shape": (4, 2, 3),
        "centres": CENTRES,
        "companions": 1,
        "min_batch": 2,
        "distinct_scans": True,
        "seed": 5,
    }
    whole = take(pretraining_dataset(store, **options), 30)
    seen = {0: set(), 1: set()}
    for pairs, _ in whole:
        found = [origins(pair) for pair in pairs]
        assert sorted(pair[0][0] for pair in found) == [0, 1]
        for number, *first in itertools.chain(*found):
            seen[number].add(tuple(first))
    assert seen == CENTRED_ORIGINS
    assert_equal(whole[17:], take(pretraining_dataset(store, first_step=17, **options), 13))
    validation = pretraining_dataset(store, training=False, **options)
    assert_equal(list(validation.as_numpy_iterator()), list(validation.as_numpy_iterator()))


@pytest.mark.parametrize("centres", [CENTRES[:1], [CENTRES[0], CENTRES[1][:0]], [CENTRES[0], CENTRES[1][:, :2]]])
def test_centres_of_other_scans(make_store, centres) -> None:
    store = make_store(coordinate_scans([(8, 6, 7), (9, 6, 10)]), data_dim=(4, 2, 3))
    with pytest.raises(ValueError, match="one or more rows of 3 numbers for each of 2 scans"):
        pretraining_dataset(store, make_example=identity, batch_size=1, crop_shape=(4, 2, 3), centres=centres, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_foreground_fraction(make_store, fraction: float) -> None:
    mask = np.zeros((16, 16, 16), int)
    mask[3, 12, 0] = 2
    store = make_store([np.zeros((16, 16, 16, 1), np.float32)], [mask])
    dataset = segmentation_dataset(
        store, batch_size=50, crop_shape=(2, 2, 2), crops_per_scan=50, foreground_fraction=fraction, seed=0
    )
    hits = np.concatenate([masks.any(axis=(1, 2, 3)) for _, masks in take(dataset, 8)])
    # A uniform crop meets the one voxel with a probability below 0.2 %.
    assert abs(hits.mean() - fraction) < 0.08
    if fraction == 1:
        assert hits.all()


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_foreground_crops_are_of_every_class_alike(make_store, tmp_path, cache: str) -> None:
    mask = np.zeros((32, 32, 40), int)
    mask[:, :, :16] = 1  # 16384 voxels
    mask[30:, 30:, 38:] = 2  # 8 voxels
    images = [np.zeros((*mask.shape, 1), np.float32)]
    store = make_store(images, [mask], cache=cache, cache_dir=tmp_path / "cache")
    options = {"batch_size": 50, "crop_shape": (3, 3, 3), "crops_per_scan": 50, "seed": 0, "foreground_fraction": 0.8}
    batches = take(segmentation_dataset(store, **options), 24)
    rare = np.concatenate([(masks == 2).any(axis=(1, 2, 3)) for _, masks in batches])
    assert abs(rare.mean() - 0.8 / 2) < 0.045  # three standard errors of 1200 crops
    assert_equal(batches[7:10], take(segmentation_dataset(store, first_step=7, **options), 3))


def test_scans_without_foreground_still_give_crops(make_store) -> None:
    store = make_store(numbered(3), [np.zeros((4, 4, 4), int)] * 3)
    dataset = segmentation_dataset(store, batch_size=3, crop_shape=(2, 2, 2), foreground_fraction=1.0, seed=0)
    assert sorted(scan_numbers(take(dataset, 1))) == [0, 1, 2]


def test_image_and_mask_are_cropped_and_augmented_together(make_store) -> None:
    mask = DRAWS.integers(0, 3, size=(6, 7, 8))
    store = make_store([(mask / 2).astype(np.float32)[..., None]], [mask])

    def flip(image, labels, seed):
        turn = tf.random.stateless_uniform((), seed) < 0.5
        return tf.cond(turn, lambda: (image[::-1], labels[::-1]), lambda: (image, labels))

    options = {"batch_size": 4, "crop_shape": (3, 3, 3), "crops_per_scan": 4, "seed": 0}
    for images, masks in take(segmentation_dataset(store, augment=flip, **options), 5):
        np.testing.assert_array_equal(2 * images[..., 0], masks)
    plain = take(segmentation_dataset(store, training=False, **options), 1)
    assert_equal(plain, take(segmentation_dataset(store, training=False, augment=flip, **options), 1))


def test_stored_scans_never_change(make_store) -> None:
    store = make_store(numbered(2))
    before = [store.image(index).copy() for index in range(2)]
    dataset = pretraining_dataset(store, make_example=lambda image, seed: (image * 0 + 5, seed), batch_size=2, seed=0)
    take(dataset, 3)
    assert_equal(before, [store.image(index) for index in range(2)])


def test_scans_of_several_shapes_need_crops(make_store) -> None:
    store = make_store([np.zeros((4, 4, 4, 1), np.float32), np.zeros((6, 4, 4, 1), np.float32)])
    with pytest.raises(UserError, match=r"case00.npy has shape \(4, 4, 4\).*case01.npy has \(6, 4, 4\)"):
        pretraining_dataset(store, make_example=identity, batch_size=1, seed=0)
    for crop_shape in ((5, 4, 4), (4, 4)):
        with pytest.raises(UserError, match="case00.npy"):
            pretraining_dataset(store, make_example=identity, batch_size=1, crop_shape=crop_shape, seed=0)


def test_segmentation_needs_masks(make_store) -> None:
    with pytest.raises(UserError, match="without masks"):
        segmentation_dataset(make_store(numbered(1)), batch_size=1, seed=0)


def test_fit_consumes_both_streams(make_store) -> None:
    store = make_store(numbered(3), [np.ones((4, 4, 4), int)] * 3)
    layer = keras.layers.Conv3D(3, 1, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    model = keras.Sequential([keras.Input((4, 4, 4, 1)), layer])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    options = {"batch_size": 2, "seed": 0}
    history = model.fit(
        segmentation_dataset(store, **options),
        validation_data=segmentation_dataset(store, training=False, **options),
        steps_per_epoch=3,
        epochs=2,
        shuffle=False,  # Keras warns that it cannot shuffle a dataset, by default
        verbose=0,
    )
    assert len(history.history["val_loss"]) == 2


def test_too_few_scans_to_compare(make_store) -> None:
    store = make_store(numbered(2))
    for options in ({"companions": 2}, {"min_batch": 3, "distinct_scans": True, "batch_size": 4}):
        with pytest.raises(UserError, match=r"at least 3 in each part of the split, received 2 \(case00, case01\)"):
            pretraining_dataset(store, make_example=identity, **({"batch_size": 2, "seed": 0} | options))
    with pytest.raises(UserError, match="batch_size: .*at least 2 scans"):
        pretraining_dataset(store, make_example=identity, batch_size=1, min_batch=2, seed=0)


@pytest.mark.parametrize(("num_scans", "min_batch", "sizes"), [(7, 1, [3, 3, 1]), (7, 2, [3, 3]), (8, 2, [3, 3, 2])])
def test_a_last_batch_that_is_too_small_is_left_out(make_store, num_scans: int, min_batch: int, sizes) -> None:
    options = {"make_example": identity, "batch_size": 3, "min_batch": min_batch, "seed": 0}
    store = make_store(numbered(num_scans))
    validation = list(pretraining_dataset(store, training=False, **options).as_numpy_iterator())
    assert [len(images) for images, _ in validation] == sizes
    assert scan_numbers(validation) == list(range(sum(sizes)))
    assert {len(images) for images, _ in take(pretraining_dataset(store, **options), 6)} == {3}


def test_augmentation_is_for_training_and_comes_first(make_store) -> None:
    store = make_store(numbered(4))
    seen = []

    def augment(image, seed):
        seen.append(seed)
        return image + tf.random.stateless_uniform((), seed, 1, 2)

    def example(image, seed, other):
        return tf.stack([image[0, 0, 0, 0], other[0, 0, 0, 0]]), seed

    options = {"make_example": example, "companions": 1, "batch_size": 4, "seed": 0}
    plain = take(pretraining_dataset(store, **options), 4)
    changed = take(pretraining_dataset(store, augment=augment, **options), 4)
    assert len(seen) == 2
    assert_equal([seeds for _, seeds in plain], [seeds for _, seeds in changed])
    added = np.concatenate([new - old for (new, _), (old, _) in zip(changed, plain, strict=True)])
    assert added.min() > 0.99 and added.max() < 2.01
    assert len(np.unique(added.round(4))) > 28  # 4 epochs of 4 scans and 4 companions, each with its own seed
    validation = take(pretraining_dataset(store, training=False, **options), 1)
    assert_equal(validation, take(pretraining_dataset(store, training=False, augment=augment, **options), 1))
