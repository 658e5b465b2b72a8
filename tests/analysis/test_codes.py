"""How alike codes are, the contrastive probe, and t-SNE of codes."""

import math

import numpy as np
import pytest

from self_supervised_3d_tasks.analysis.codes import TEMPERATURE, contrastive_probe, embed, similarities


def test_similarities_by_hand():
    # Two wholes of two parts: (1, 0) and (1, 1); (0, 2) and (-3, 0).
    codes = np.array([[[1, 0], [1, 1]], [[0, 2], [-3, 0]]], float)
    half = np.sqrt(0.5)
    same, different = similarities(codes)
    np.testing.assert_allclose(same, [half, 0], atol=1e-7)
    np.testing.assert_allclose(sorted(different), sorted([0, -1, half, -half]), atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 3, 5), (3, 5, 1), (1, 4, 2)])
def test_every_pair_is_counted_once(shape):
    rng = np.random.default_rng(sum(shape))
    codes = rng.normal(size=shape)
    wholes, parts, _ = shape
    expected = {True: [], False: []}
    flat = [(whole, codes[whole, part]) for whole in range(wholes) for part in range(parts)]
    for index, (whole, code) in enumerate(flat):
        for other, second in flat[index + 1 :]:
            cosine = code @ second / np.linalg.norm(code) / np.linalg.norm(second)
            expected[whole == other].append(cosine)
    same, different = similarities(codes * rng.uniform(0.5, 9, (wholes, parts, 1)))  # lengths do not matter
    np.testing.assert_allclose(np.sort(same), np.sort(expected[True]), atol=1e-6)
    np.testing.assert_allclose(np.sort(different), np.sort(expected[False]), atol=1e-6)


@pytest.mark.parametrize(("wholes", "parts"), [(2, 2), (5, 3), (3, 7)])
def test_codes_that_are_all_alike_are_at_chance(wholes, parts):
    codes = np.tile([2.0, -1.0, 0.5], (wholes, parts, 1))
    value, chance, negatives, pairs = contrastive_probe(codes)
    assert negatives == (wholes - 1) * parts
    assert pairs == wholes * parts * (parts - 1)
    assert chance == math.log(1 + negatives)
    assert value == pytest.approx(chance, abs=1e-12)


def test_ideal_codes_by_hand():
    # Parts of a whole are the same, those of different wholes at right angles.
    codes = np.repeat(np.eye(4)[:, None], 3, axis=1)
    value, chance, negatives, _ = contrastive_probe(codes)
    own = math.exp(1 / 0.7)
    assert negatives == 9
    assert value == pytest.approx(-math.log(own / (own + 9)), abs=1e-6)
    assert value < chance


def test_the_paper_s_chance_level():
    _, chance, negatives, _ = contrastive_probe(np.ones((11, 501, 1)))
    assert negatives == 5000
    assert chance == pytest.approx(8.517, abs=5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_random_codes_by_the_slow_formula(seed):
    codes = np.random.default_rng(seed).normal(size=(3, 4, 5))
    units = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    losses = []
    for whole in range(3):
        foreign = np.concatenate([units[other] for other in range(3) if other != whole])
        for part in range(4):
            against = sum(math.exp(units[whole, part] @ code / TEMPERATURE) for code in foreign)
            for other in set(range(4)) - {part}:
                positive = math.exp(units[whole, part] @ units[whole, other] / TEMPERATURE)
                losses.append(-math.log(positive / (positive + against)))
    assert contrastive_probe(codes).value == pytest.approx(np.mean(losses), abs=1e-6)


def test_a_draw_of_negatives_is_the_same_for_the_same_seed_and_near_the_whole():
    codes = np.random.default_rng(0).normal(size=(6, 10, 4))
    first, again, other = (contrastive_probe(codes, max_negatives=20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.value != other.value
    assert first.negatives == 20
    # What lies above chance hardly depends on their number.
    every = contrastive_probe(codes)
    assert first.value - first.chance == pytest.approx(every.value - every.chance, abs=0.1)


def test_wholes_that_are_far_apart_stay_apart():
    rng = np.random.default_rng(0)
    centres = np.eye(5)[:3].repeat(10, axis=0)
    codes = (centres + 0.05 * rng.normal(size=(30, 5))) * rng.uniform(1, 20, (30, 1))
    points = embed(codes, seed=3).reshape(3, 10, 2)
    middles = points.mean(axis=1)
    within = np.linalg.norm(points - middles[:, None], axis=-1).max()
    between = min(np.linalg.norm(middles[first] - middles[second]) for first, second in [(0, 1), (0, 2), (1, 2)])
    assert between > 2 * within
    np.testing.assert_array_equal(points.reshape(30, 2), embed(codes, seed=3))
    assert not np.array_equal(points.reshape(30, 2), embed(codes, seed=4))


@pytest.mark.parametrize("codes", [np.random.default_rng(0).normal(size=(4, 2)), np.ones((6, 3))])
def test_few_points_and_collapsed_codes(codes):
    points = embed(codes)
    assert points.shape == (len(codes), 2)
    assert np.isfinite(points).all()
