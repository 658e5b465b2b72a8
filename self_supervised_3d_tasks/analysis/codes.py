"""What codes tell of images: how alike those of one image are, how well they tell images apart, and their map."""

import math
from typing import NamedTuple

import numpy as np

from self_supervised_3d_tasks import lazy
from self_supervised_3d_tasks.analysis.collapse import unit_length

manifold = lazy.load("sklearn.manifold")
special = lazy.load("scipy.special")

PERPLEXITY = 30.0
TEMPERATURE = 0.7  # τ, by which the probe divides cosines
MAX_NEGATIVES = 5000


class Similarities(NamedTuple):
    """Cosine similarities in [-1, 1], each pair of parts once.

    Attributes:
        same: Similarities of parts of the same image, ``(images · parts · (parts - 1) / 2,)``.
        different: Similarities of parts of different images, ``(images · (images - 1) / 2 · parts²,)``.
    """

    same: np.ndarray
    different: np.ndarray


def similarities(codes: np.ndarray) -> Similarities:
    """Compare every part with every other one (Feng et al. 2020, Section 3.3, there for 100 random pairs each).

    Args:
        codes: ``(images, parts, size)`` of any length.
    """
    images, parts, size = codes.shape
    units = unit_length(codes).reshape(images * parts, size)
    first, second = np.triu_indices(images * parts, k=1)
    values = np.clip((units @ units.T)[first, second], -1, 1)  # rounding can lead beyond
    within = first // parts == second // parts
    return Similarities(values[within], values[~within])


class Probe(NamedTuple):
    """Result of `contrastive_probe`.

    Attributes:
        value: Mean cross-entropy in nats; lower is better.
        chance: What codes reach that are all alike, log(1 + negatives).
        negatives: Number of parts of other images that each part is compared with.
        pairs: Number of pairs (part, other part of its image) that were averaged over.
    """

    value: float
    chance: float
    negatives: int
    pairs: int


def contrastive_probe(codes: np.ndarray, *, max_negatives: int = MAX_NEGATIVES, seed: int = 0) -> Probe:
    """Return the cross-entropy of finding another part of the same image among parts of others.

    Feng et al. 2020, footnote 3: -log(exp(p·p'/τ) / (exp(p·p'/τ) + Σ exp(p·n/τ))) with unit-length codes. Every part
    is compared with all others of its image in turn, and with all parts of all other images where there are no more
    than ``max_negatives``, or else with as many of them, drawn for each image.

    Args:
        codes: ``(images, parts, size)`` of any length, two images and two parts at least.
        max_negatives: Largest number of negatives; the default is the paper's.
        seed: Seed of the draw of negatives.
    """
    images, parts, _ = codes.shape
    units = unit_length(codes)
    negatives = min(max_negatives, (images - 1) * parts)
    others = ~np.eye(parts, dtype=bool)
    rng = np.random.default_rng(seed)
    total = 0.0
    for image, own in enumerate(units):
        foreign = np.delete(units, image, axis=0).reshape(-1, units.shape[-1])
        if len(foreign) > negatives:
            foreign = foreign[rng.choice(len(foreign), negatives, replace=False)]
        against = special.logsumexp(own @ foreign.T / TEMPERATURE, axis=1)
        positives = own @ own.T / TEMPERATURE
        total += float((np.logaddexp(positives, against[:, None]) - positives)[others].sum())
    pairs = images * parts * (parts - 1)
    return Probe(total / pairs, math.log(1 + negatives), negatives, pairs)


def embed(codes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the t-SNE embedding ``(n, 2)`` of unit-length codes (van der Maaten and Hinton 2008), without units.

    The perplexity, roughly the number of neighbours that a point is to keep, is 30 or a third of the other points.

    Args:
        codes: ``(n, size)`` of any length, n at least 4.
        seed: Seed of the random start.
    """
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    # A random start, not principal components: those of collapsed codes have no spread to be scaled to.
    embedding = manifold.TSNE(n_components=2, perplexity=perplexity, init="random", random_state=seed)
    return embedding.fit_transform(unit_length(codes).astype(np.float32))
