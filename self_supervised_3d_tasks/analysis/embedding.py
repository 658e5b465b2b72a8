"""Codes as points of a plane."""

from __future__ import annotations

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.analysis.collapse import unit_length

manifold = lazy.load("sklearn.manifold")

PERPLEXITY = 30.0


def embed(codes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the t-SNE embedding ``(n, 2)`` of unit-length codes (van der Maaten and Hinton 2008), without units.

    The perplexity, roughly the number of neighbours that a point is to keep, is 30 or a third of the other points.

    Args:
        codes: ``(n, size)`` of any length, n at least 4.
        seed: Of the start.
    """
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    # A random start, not principal components: those of collapsed codes have no spread to be scaled to.
    embedding = manifold.TSNE(n_components=2, perplexity=perplexity, init="random", random_state=seed)
    return embedding.fit_transform(unit_length(codes).astype(np.float32))
