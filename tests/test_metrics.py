"""Metrics and scores: by hand and against scikit-learn."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from self_supervised_3d_tasks import losses
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.scores import classification as classification_scores
from self_supervised_3d_tasks.scores import metrics


def maps(seed, num_classes=4, shape=(6, 5, 4)):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_classes, shape)
    wrong = generator.random(shape) < generator.uniform(0.1, 0.9)
    return truth, np.where(wrong, generator.integers(0, num_classes, shape), truth)


def logits_of(prediction, num_classes):
    return np.eye(num_classes, dtype="float32")[prediction] * 3


def union(labels, label_map):
    return np.isin(label_map, labels).ravel()


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed):
    truth, prediction = maps(seed)
    flat = truth.ravel(), prediction.ravel()
    foreground = [1, 2, 3]
    assert metrics.score("dice", truth, prediction, 4) == pytest.approx(
        f1_score(*flat, labels=foreground, average="macro")
    )
    assert metrics.score("jaccard", truth, prediction, 4) == pytest.approx(
        jaccard_score(*flat, labels=foreground, average="macro")
    )
    per_class = f1_score(*flat, labels=range(4), average=None)
    for label in range(4):
        assert metrics.score(f"dice_class_{label}", truth, prediction, 4) == pytest.approx(per_class[label])
        assert metrics.score(f"dice_pancreas_{label}", truth, prediction, 4) == pytest.approx(per_class[label])
    for name, labels in {"brats_wt": [1, 2, 3], "brats_tc": [1, 3], "brats_et": [3]}.items():
        expected = f1_score(union(labels, truth), union(labels, prediction))
        assert metrics.score(name, truth, prediction, 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # truth 0 1 1 2 3 3, prediction 1 1 2 2 3 0
        ("dice_class_0", 0),
        ("dice_class_1", 2 * 1 / 4),
        ("dice_class_2", 2 * 1 / 3),
        ("dice_class_3", 2 * 1 / 3),
        ("dice", (1 / 2 + 2 / 3 + 2 / 3) / 3),
        ("jaccard", (1 / 3 + 1 / 2 + 1 / 2) / 3),
        ("brats_wt", 2 * 4 / 10),
        ("brats_tc", 2 * 2 / 7),
        ("brats_et", 2 * 1 / 3),
    ],
)
def test_scores_by_hand(name, expected):
    truth, prediction = np.array([0, 1, 1, 2, 3, 3]), np.array([1, 1, 2, 2, 3, 0])
    assert metrics.score(name, truth, prediction, 4) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["brats_wt", "brats_tc", "brats_et"])
def test_a_region_that_is_almost_right_scores_almost_one(name):
    """The predecessor's score compared two voxel indices: 99 % of a tumour right gave 0."""
    truth = np.zeros((10, 10, 4), "uint8")
    truth[..., :2] = 3
    prediction = truth.copy()
    prediction[0, 0, :2] = 0
    assert metrics.score(name, truth, prediction, 4) == pytest.approx(2 * 198 / 398)
    assert metrics.score(name, truth, truth, 4) == 1
    # Background does not help: every tumour voxel is missed although 97 % of the voxels are right.
    small = np.zeros((10, 10, 1), "uint8")
    small[0, :3] = 3
    assert metrics.score(name, small, np.zeros_like(small), 4) == 0


def test_an_absent_class():
    nothing, class_1 = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert math.isnan(metrics.score("dice_class_2", class_1, class_1, 3))  # in neither map
    assert metrics.score("dice_class_1", nothing, class_1, 3) == 0  # predicted only
    assert metrics.score("dice_class_1", class_1, nothing, 3) == 0  # missed
    assert metrics.score("dice", class_1, class_1, 3) == 1  # class 2 does not count in the mean
    assert metrics.score("dice", class_1, class_1 * 2, 3) == 0
    assert math.isnan(metrics.score("dice", nothing, nothing, 3))
    assert math.isnan(metrics.score("jaccard", nothing, nothing, 3))
    assert math.isnan(metrics.score("brats_et", nothing, nothing, 4))


def test_label_k_is_label_k_when_others_are_absent():
    """The predecessor's dice_pancreas_1 was the second class that occurs, here class 2."""
    truth = np.array([0, 0, 2, 2])
    assert math.isnan(metrics.score("dice_pancreas_1", truth, truth, 3))
    assert metrics.score("dice_pancreas_2", truth, np.array([0, 0, 2, 0]), 3) == pytest.approx(2 / 3)


def test_scores_compare_equal_shapes():
    with pytest.raises(ValueError, match="shapes"):
        metrics.score("dice", np.zeros((2, 2), int), np.zeros((4,), int), 2)


def test_expand():
    assert metrics.expand(["dice", "dice_class", "dice_class_1", "brats_wt", "dice"], 4) == [
        "dice",
        "dice_class_1",
        "dice_class_2",
        "dice_class_3",
        "brats_wt",
    ]
    assert metrics.expand(["dice", "jaccard", "dice_pancreas_0", "dice_pancreas_2"], 3)[-1] == "dice_pancreas_2"


@pytest.mark.parametrize(
    ("name", "num_classes", "message"),
    [
        ("dise", 3, "Did you mean 'dice'"),
        ("dice_class_x", 3, "no score is called"),
        ("dice_pancreas_3", 3, "needs label 3, but num_classes is 3"),
        ("brats_wt", 3, "needs label 3"),
        ("qw_kappa", 3, "qw_kappa is a score of classification, not of segmentation; known: dice, "),
    ],
)
def test_scores_that_cannot_be_computed(name, num_classes, message):
    with pytest.raises(UserError, match=message):
        metrics.expand([name], num_classes)
    with pytest.raises(UserError, match=message):
        metrics.score(name, np.zeros(3, int), np.zeros(3, int), num_classes)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 5, 4)])
def test_training_metrics_per_sample(shape):
    truth, prediction = maps(0, shape=shape)
    logits = logits_of(prediction, 4)
    samples = list(zip(truth, prediction, strict=True))
    (accuracy,) = metrics.get("accuracy", num_classes=4)
    expected = [accuracy_score(t.ravel(), p.ravel()) for t, p in samples]
    np.testing.assert_allclose(accuracy(truth, logits), expected, rtol=1e-6)
    for label, metric in enumerate(metrics.get("weighted_dice_coefficient_per_class_pancreas", num_classes=4)):
        assert metric.__name__ == f"dice_class_{label}"
        expected = [metrics.score(metric.__name__, t, p, 4) for t, p in samples]
        np.testing.assert_allclose(metric(truth, logits), expected, rtol=1e-5)
    for metric in metrics.get("brats_metrics", num_classes=4):
        expected = [metrics.score(metric.__name__, t, p, 4) for t, p in samples]
        np.testing.assert_allclose(metric(truth.astype("float32"), logits), expected, rtol=1e-5)


def test_the_dice_coefficient_is_the_losss_complement():
    truth, prediction = maps(1, shape=(2, 8, 8))
    (metric,) = metrics.get("weighted_dice_coefficient", num_classes=4)
    logits = logits_of(prediction, 4)
    loss = np.array(losses.weighted_dice_loss(truth, logits))
    np.testing.assert_allclose(metric(truth, logits), 1 - loss, rtol=1e-6)


def test_a_training_metric_counts_an_absent_class_as_right():
    truth = np.zeros((1, 4, 4), int)
    values = [
        float(metric(truth, logits_of(truth, 3))[0])
        for metric in metrics.get("weighted_dice_coefficient_per_class_pancreas", num_classes=3)
    ]
    assert values == [1, 1, 1]


def test_accuracy_of_a_classification():
    (accuracy,) = metrics.get_for_classification("accuracy")
    assert accuracy.__name__ == "accuracy"
    np.testing.assert_array_equal(accuracy(np.array([0, 2]), np.array([[1, 0, 0], [1, 0, 0]], "float32")), [1, 0])


def test_accuracy_of_ordinal_targets_compares_the_decoded_grades():
    (accuracy,) = metrics.get_for_classification("accuracy", multilabel=True)
    assert accuracy.__name__ == "accuracy"
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 4, 200), generator.normal(0.5, 1, (200, 4)).astype("float32")
    logits[:3] = [[-1, -1, -1, -1], [2, -1, 2, 2], [2, 1, 1, 2]]
    labels[:3] = [0, 0, 3]
    received = np.array(accuracy(classification_scores.ordinal_encode(labels, 4), logits))
    expected = classification_scores.ordinal_decode(1 / (1 + np.exp(-logits))) == labels
    np.testing.assert_array_equal(received, expected)
    assert received[:3].tolist() == [1, 1, 1]
    assert 0 < received.mean() < 1


def test_a_weighted_mean_by_hand():
    """The weight of a sample is its second target."""
    metric = metrics.weighted_mean("share", lambda y_true, y_pred: (y_true[:, 0] * y_pred[:, 0], y_true[:, 1]))
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
    metric = metrics.weighted_mean("share", lambda y_true, y_pred: (y_true[:, 0] + 0 * y_pred[:, 0], y_true[:, 1]))
    model.compile("sgd", loss=lambda y_true, y_pred: y_pred[:, 0], metrics=[metric])
    history = model.fit(np.ones((6, 1)), targets, batch_size=2, epochs=2, verbose=0).history
    assert history["share"] == pytest.approx([2.5, 2.5])
    assert model.evaluate(np.ones((6, 1)), targets, batch_size=2, verbose=0, return_dict=True)["share"] == 2.5


def test_keras_names_and_averages_the_metrics():
    truth, prediction = maps(2, shape=(4, 8, 8))
    logits = logits_of(prediction, 4)
    names = ["accuracy", "weighted_dice_coefficient", "brats_metrics"]
    functions = [function for name in names for function in metrics.get(name, num_classes=4)]
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, keras.layers.Identity()(image))
    model.compile(loss=losses.get("dice_crossentropy"), metrics=functions)
    values = model.evaluate(logits, truth, batch_size=2, verbose=0, return_dict=True)
    assert set(values) == {
        "loss",
        "accuracy",
        "weighted_dice_coefficient",
        "brats_wt",
        "brats_tc",
        "brats_et",
    }
    for function in functions:
        assert values[function.__name__] == pytest.approx(float(np.mean(function(truth, logits))), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "Did you mean 'accuracy'"),
        ("brats_metrics", "brats_metrics is a metric of segmentation, not of classification; known: accuracy"),
    ],
)
def test_metrics_that_a_classification_does_not_have(name, message):
    with pytest.raises(UserError, match=f"metrics: .*{message}"):
        metrics.get_for_classification(name)


@pytest.mark.parametrize(
    ("name", "num_classes", "message"),
    [("acuracy", 3, "Did you mean 'accuracy'"), ("brats_metrics", 3, "metrics: brats_metrics needs label 3")],
)
def test_metrics_that_cannot_be_computed(name, num_classes, message):
    with pytest.raises(UserError, match=message):
        metrics.get(name, num_classes=num_classes)


def test_accuracy_of_findings_is_the_share_of_right_ones():
    (accuracy,) = metrics.get_for_findings("accuracy")
    truth = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    logits = np.array([[2, -1, -3, 0.1], [-1, -1, 0, -2]], np.float32)
    np.testing.assert_allclose(accuracy(truth, logits), [0.5, 1])
    assert accuracy.__name__ == "accuracy"
    with pytest.raises(UserError, match="metrics: 'dice' is no metric of findings; known: accuracy"):
        metrics.get_for_findings("dice")
