"""What tasks that cut a scan into patches share: one call of the encoder, orders and pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.algorithms.jigsaw import Jigsaw

SHAPES = [(9, 9, 1), (8, 8, 8, 2)]


def jigsaw(shape):
    return Jigsaw(shape, patches_per_side=9 // len(shape), patch_gap=0, patch_jitter=0, num_permutations=5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_class_says_where_the_patches_come_from(shape):
    task = jigsaw(shape)
    corners = np.array(task.grid.cells()) * task.grid.cell_shape
    drawn = set()
    for seed in range(30):
        label, origins = task.draw_order(tf.constant([seed, 1]))
        np.testing.assert_array_equal(origins, corners[task.permutations[int(label)]])
        drawn.add(int(label))
    assert drawn == set(range(5))
    assert task.settings() == {"permutations": task.permutations.tolist()}


@pytest.mark.parametrize("shape", SHAPES)
def test_all_patches_go_through_the_encoder_in_one_call(shape):
    task = jigsaw(shape)
    image = keras.Input(task.encoder_shape)
    encoder = keras.Model(image, 2 * image)
    inputs, codes = task.inputs_and_codes(encoder, task.num_patches)
    patches = np.random.default_rng(0).uniform(size=(2, *inputs.shape[1:])).astype("float32")
    np.testing.assert_allclose(keras.Model(inputs, codes)(patches), 2 * patches.reshape(2, task.num_patches, -1))


@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_show_the_puzzle_and_its_solution(shape):
    task, image = jigsaw(shape), np.random.default_rng(0).uniform(0.1, 1, size=shape).astype("float32")
    inputs, label = (value.numpy() for value in task.make_example(tf.constant(image), tf.constant([3, 1])))
    presented, solved, *patches = task.panels(int(label), inputs, inputs, "solved", lambda place: f", {place}")
    assert presented.title == f"class {label}: presented"
    assert solved.title == "solved"
    np.testing.assert_array_equal(solved.image, image)
    shown = [place for place, cell in enumerate(task.grid.cells()) if len(shape) == 3 or cell[-1] == 1][:7]
    cells = [task.grid.cells()[task.permutations[int(label)][place]] for place in shown]
    assert [panel.title for panel in patches] == [f"from {c}, {p}" for c, p in zip(cells, shown, strict=True)]
