"""Errors of restorations and of the mean image."""

import numpy as np
import pytest

from self_supervised_3d_tasks.analysis.restoration import mean_image, per_scan, squared_errors

IMAGES = np.random.default_rng(0).random((10, 4, 3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1,) * 10])
def test_the_mean_image_of_a_stream(sizes):
    batches = iter(np.split(IMAGES, np.cumsum(sizes)[:-1]))
    image, count = mean_image(batches)
    assert count == 10
    np.testing.assert_allclose(image, IMAGES.astype(float).mean(axis=0), rtol=1e-12)


def test_the_mean_image_errs_by_the_variance():
    image, _ = mean_image([IMAGES])
    assert squared_errors(image, IMAGES).mean() == pytest.approx(IMAGES.astype(float).var(axis=0).mean(), rel=1e-9)


def test_other_images_add_the_distance_of_the_means():
    train, validation = IMAGES[:6], IMAGES[6:]
    image, _ = mean_image([train])
    variance = validation.astype(float).var(axis=0).mean()
    distance = ((validation.astype(float).mean(axis=0) - train.astype(float).mean(axis=0)) ** 2).mean()
    assert squared_errors(image, validation).mean() == pytest.approx(variance + distance, rel=1e-9)


def test_squared_errors_by_hand():
    wanted = np.zeros((2, 2, 2, 1), np.float32)
    predicted = wanted.copy()
    predicted[1, 0, 0, 0] = 0.5
    np.testing.assert_array_equal(squared_errors(predicted, wanted), [0, 0.25 / 4])
    np.testing.assert_array_equal(squared_errors(wanted, wanted), [0, 0])


def test_no_image_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        mean_image([])


def test_errors_are_averaged_over_the_parts_of_a_scan():
    rows = per_scan(["b", "a", "b"], np.array([1.0, 5.0, 2.0]), np.array([3.0, 7.0, 4.0]))
    assert rows == [("b", 1.5, 3.5, 2), ("a", 5.0, 7.0, 1)]
