"""Metrics while training: by hand, against scikit-learn and against the scores of finished cases."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from self_supervised_3d_tasks import losses, scores
from self_supervised_3d_tasks.data.labels import ordinal
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import logged
from self_supervised_3d_tasks.scores.base import Predictions


def names_of(num_classes):
    return list(map(str, range(num_classes)))


def score(name, truth, prediction):
    return scores.find("segmentation", [name], names_of(4))[name](Predictions(truth, prediction))


def logits_of(prediction, num_classes):
    return np.eye(num_classes, dtype="float32")[prediction] * 3


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 5, 4)])
def test_training_metrics_per_sample(maps, shape):
    truth, prediction = maps(0, shape=shape)
    logits = logits_of(prediction, 4)
    samples = list(zip(truth, prediction, strict=True))
    (accuracy,) = logged.find("segmentation", ["accuracy"], names_of(4))
    expected = [accuracy_score(t.ravel(), p.ravel()) for t, p in samples]
    np.testing.assert_allclose(accuracy(truth, logits), expected, rtol=1e-6)
    for label, metric in enumerate(
        logged.find("segmentation", ["weighted_dice_coefficient_per_class_pancreas"], names_of(4))
    ):
        assert metric.__name__ == f"dice_class_{label}"
        expected = [score(metric.__name__, t, p) for t, p in samples]
        np.testing.assert_allclose(metric(truth, logits), expected, rtol=1e-5)
    for metric in logged.find("segmentation", ["brats_metrics"], names_of(4)):
        expected = [score(metric.__name__, t, p) for t, p in samples]
        np.testing.assert_allclose(metric(truth.astype("float32"), logits), expected, rtol=1e-5)


def test_the_dice_coefficient_is_the_losss_complement(maps):
    truth, prediction = maps(1, shape=(2, 8, 8))
    (metric,) = logged.find("segmentation", ["weighted_dice_coefficient"], names_of(4))
    logits = logits_of(prediction, 4)
    loss = np.array(losses.get("weighted_dice_loss")(truth, logits))
    np.testing.assert_allclose(metric(truth, logits), 1 - loss, rtol=1e-6)


def test_a_training_metric_counts_an_absent_class_as_right():
    truth = np.zeros((1, 4, 4), int)
    values = [
        float(metric(truth, logits_of(truth, 3))[0])
        for metric in logged.find("segmentation", ["weighted_dice_coefficient_per_class_pancreas"], names_of(3))
    ]
    assert values == [1, 1, 1]


def test_accuracy_of_a_classification():
    (accuracy,) = logged.find("classification", ["accuracy"], names_of(3))
    assert accuracy.__name__ == "accuracy"
    np.testing.assert_array_equal(accuracy(np.array([0, 2]), np.array([[1, 0, 0], [1, 0, 0]], "float32")), [1, 0])


def test_accuracy_of_ordinal_targets_compares_the_decoded_grades():
    (accuracy,) = logged.find("classification", ["accuracy"], names_of(4), multilabel=True)
    assert accuracy.__name__ == "accuracy"
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 4, 200), generator.normal(0.5, 1, (200, 4)).astype("float32")
    logits[:3] = [[-1, -1, -1, -1], [2, -1, 2, 2], [2, 1, 1, 2]]
    labels[:3] = [0, 0, 3]
    received = np.array(accuracy(ordinal.ordinal_encode(labels, 4), logits))
    expected = ordinal.ordinal_decode(1 / (1 + np.exp(-logits))) == labels
    np.testing.assert_array_equal(received, expected)
    assert received[:3].tolist() == [1, 1, 1]
    assert 0 < received.mean() < 1


def test_a_weighted_mean_by_hand():
    """The weight of a sample is its second target."""
    metric = logged.weighted_mean("share", lambda y_true, y_pred: (y_true[:, 0] * y_pred[:, 0], y_true[:, 1]))
    assert metric.name == "share"
    assert float(metric.result()) == 0
    metric.update_state(np.array([[5.0, 0.0]]), np.ones((1, 1)))
    assert float(metric.result()) == 0
    metric.update_state(np.array([[1.0, 1.0], [9.0, 0.0]]), np.ones((2, 1)))
    metric.update_state(np.array([[2.0, 3.0]]), np.full((1, 1), 2.0))
    assert float(metric.result()) == pytest.approx((1 * 1 + 3 * 4) / 4)
    metric.reset_state()
    metric.update_state(np.array([[2.0, 1.0]]), np.ones((1, 1)))
    assert float(metric.result()) == 2
    metric.update_state(np.array([[3.0, 1.0], [8.0, 1.0]]), np.ones((2, 1)), sample_weight=np.array([1.0, 0.0]))
    assert float(metric.result()) == 2.5


def test_a_weighted_mean_in_fit_is_over_the_epoch():
    """Batches of two; only the samples 0 and 3 count, so the mean of the batches' means would be another number."""
    targets = np.array([[1, 1], [7, 0], [7, 0], [3, 3], [7, 0], [7, 0]], "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    metric = logged.weighted_mean("share", lambda y_true, y_pred: (y_true[:, 0] + 0 * y_pred[:, 0], y_true[:, 1]))
    model.compile("sgd", loss=lambda y_true, y_pred: y_pred[:, 0], metrics=[metric])
    history = model.fit(np.ones((6, 1)), targets, batch_size=2, epochs=2, verbose=0).history
    assert history["share"] == pytest.approx([2.5, 2.5])
    assert model.evaluate(np.ones((6, 1)), targets, batch_size=2, verbose=0, return_dict=True)["share"] == 2.5


def test_keras_names_and_averages_the_metrics(maps):
    truth, prediction = maps(2, shape=(4, 8, 8))
    logits = logits_of(prediction, 4)
    names = ["accuracy", "weighted_dice_coefficient", "brats_metrics"]
    functions = [function for name in names for function in logged.find("segmentation", [name], names_of(4))]
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, keras.layers.Identity()(image))
    model.compile(loss=losses.get("dice_crossentropy"), metrics=functions)
    values = model.evaluate(logits, truth, batch_size=2, verbose=0, return_dict=True)
    assert set(values) == {"loss", "accuracy", "weighted_dice_coefficient", "brats_wt", "brats_tc", "brats_et"}
    for function in functions:
        assert values[function.__name__] == pytest.approx(float(np.mean(function(truth, logits))), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "Did you mean 'accuracy'"),
        ("brats_metrics", "is no metric of classification with 3 classes; known: accuracy"),
    ],
)
def test_metrics_that_a_classification_does_not_have(name, message):
    with pytest.raises(UserError, match=f"metrics: .*{message}"):
        logged.find("classification", [name], names_of(3))


@pytest.mark.parametrize(
    ("name", "num_classes", "message"),
    [
        ("acuracy", 3, "Did you mean 'accuracy'"),
        ("brats_metrics", 3, "metrics: 'brats_metrics' is no metric of segmentation with 3 classes"),
    ],
)
def test_metrics_that_cannot_be_computed(name, num_classes, message):
    with pytest.raises(UserError, match=message):
        logged.find("segmentation", [name], names_of(num_classes))


def test_accuracy_of_findings_is_the_share_of_right_ones():
    (accuracy,) = logged.find("findings", ["accuracy"], names_of(4))
    truth = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    logits = np.array([[2, -1, -3, 0.1], [-1, -1, 0, -2]], np.float32)
    np.testing.assert_allclose(accuracy(truth, logits), [0.5, 1])
    assert accuracy.__name__ == "accuracy"
    with pytest.raises(UserError, match="metrics: 'dice' is no metric of findings; known: accuracy"):
        logged.find("findings", ["dice"], names_of(4))
