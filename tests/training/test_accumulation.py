"""Gradient accumulation for every pretext task: two steps of four scans against one step of eight."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from self_supervised_3d_tasks.training.optimizers import make_optimizer
from tests.test_conformance import ALGORITHMS, batches, build_algorithm, build_encoder, smooth_images

LR = 0.1
# Their losses compare scans of a batch, or normalize over it: eight scans meet others than twice four.
COMPARING = ("cpc", "exemplar", "pcrlv2", "tcpc")


def gradients(algorithm, model, batch):
    inputs, targets = batch
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(algorithm.loss(targets, model(inputs, training=True)))
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    # A head that no scan of the batch asks for has none.
    pairs = zip(found, model.trainable_variables, strict=True)
    return [np.zeros(variable.shape) if found is None else found.numpy() for found, variable in pairs]


def only(dataset):
    (batch,) = dataset
    return batch


def part(batch, first, last):
    return keras.tree.map_structure(lambda leaf: leaf[first:last], batch)


def largest_difference(one, other):
    return max(np.abs(left - right).max() for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("rotation", "cpc", "exemplar") else [pytest.mark.slow])
        for name in ALGORITHMS
    ],
)
def test_two_steps_of_four_make_the_update_of_eight(name):
    """For tasks that compare scans: of the mean gradient of both fours, each of which is compared within itself."""
    algorithm = build_algorithm(name, 2)
    model = algorithm.make_model(build_encoder(algorithm.encoder_shape), seed=1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # else each pass drops others
    images = smooth_images(8, 2, side=algorithm.input_shape[0])
    eight = only(batches(algorithm, images))
    if name in COMPARING:
        fours = [only(batches(algorithm, images[:4])), only(batches(algorithm, images[4:], seed=1))]
    else:
        fours = [part(eight, 0, 4), part(eight, 4, 8)]
    before = [variable.numpy() for variable in model.trainable_variables]
    of_eight = gradients(algorithm, model, eight)
    both = [gradients(algorithm, model, four) for four in fours]
    of_fours = [np.mean(pair, axis=0) for pair in zip(*both, strict=True)]
    optimizer = make_optimizer(LR, optimizer="sgd", momentum=None, gradient_accumulation_steps=2)
    model.compile(optimizer, loss=algorithm.loss, run_eagerly=True)
    for four in fours:
        assert largest_difference(before, [variable.numpy() for variable in model.trainable_variables]) == 0
        model.train_on_batch(*four)
    after = [variable.numpy() for variable in model.trainable_variables]
    expected = of_fours if name in COMPARING else of_eight
    assert largest_difference(after, before) > 1e-4
    assert largest_difference(after, [start - LR * slope for start, slope in zip(before, expected, strict=True)]) < 1e-5
    if name in COMPARING:
        assert largest_difference(of_fours, of_eight) > 1e-3
