"""Maps that several files score."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def maps():
    """Draw a map of classes and a prediction that is wrong at some of its voxels."""

    def draw(seed, num_classes=4, shape=(6, 5, 4)):
        generator = np.random.default_rng(seed)
        truth = generator.integers(0, num_classes, shape)
        wrong = generator.random(shape) < generator.uniform(0.1, 0.9)
        return truth, np.where(wrong, generator.integers(0, num_classes, shape), truth)

    return draw
