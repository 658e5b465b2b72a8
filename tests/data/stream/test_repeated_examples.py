"""Several examples of one crop."""

import numpy as np
import tensorflow as tf

from self_supervised_3d_tasks.data.stream.repeated_examples import keep_crop, repeated_examples
from self_supervised_3d_tasks.ops import seeds


def test_each_crop_gives_its_examples_one_after_the_other():
    images = np.random.default_rng(0).random((3, 4, 4, 1)).astype(np.float32)
    crop_seeds = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    crops = tf.data.Dataset.from_tensor_slices((images, crop_seeds)).map(keep_crop).batch(2)

    def example(image, seed):
        return image + tf.random.stateless_uniform((), seed), seed

    found = list(repeated_examples(crops, example, 4).as_numpy_iterator())
    assert len(found) == 12
    for number, (changed, seed) in enumerate(found):
        crop, copy = divmod(number, 4)
        expected = seeds.fold(tf.constant(crop_seeds[crop]), copy)
        np.testing.assert_array_equal(seed, expected)
        np.testing.assert_array_equal(changed, example(images[crop], expected)[0])
    assert len({seed.tobytes() for _, seed in found}) == 12
