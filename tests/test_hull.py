"""The joint patch hull: no image exceeds it, for any multipliers, and simple cases are exact."""

import itertools

import numpy as np
import pytest

from oipjax.bounds.conv.hull import hull_bound
from oipjax.bounds.conv.hull_dual import HullDual
from oipjax.bounds.conv.patches import cells

LOW, HIGH = -0.5, 1.5
CASES = [(3, 2, 1, (1, 1)), (2, 2, 1, (2, 1)), (2, 1, 2, (1, 2)), (2, 2, 1, (2, 3))]


def problem(kernel, pool, channels, window, m=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(kernel, kernel, channels, k)), 0.3 * rng.normal(size=k)
    low, high = np.full(channels, LOW), HIGH - 0.2 * np.arange(channels)
    return weights, bias, cells(weights, bias, pool, low, high), rng.normal(size=(m, *window, k))


def first_stage(x, weights, bias, pool):
    """``relu(max_pool(conv(x)))`` of ``x[n, h, w, c]`` in float64, straight from the definition."""
    kh, kw = weights.shape[:2]
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    y = (
        sum(
            x[:, i : i + h, j : j + w] @ weights[i, j]
            for i, j in itertools.product(range(kh), range(kw))
        )
        + bias
    )
    y = y[:, : h // pool * pool, : w // pool * pool].reshape(
        len(x), h // pool, pool, w // pool, pool, -1
    )
    return np.maximum(y.max((2, 4)), 0)


def images(shape, low, high, rng):
    """Binary images (all of them if they are few), and images inside the box."""
    size = int(np.prod(shape))
    bits = (
        np.arange(2**size)[:, None] >> np.arange(size) & 1
        if size <= 16
        else rng.integers(0, 2, (5000, size))
    )
    inside = rng.uniform(size=(5000, size))
    u = np.concatenate([bits, inside, rng.integers(0, 3, (5000, size)) / 2]).reshape(-1, *shape)
    return low + u * (high - low)


def climbed(x, omega, weights, bias, pool, low, high, rng):
    """The best values ``[m]`` for ``omega`` that coordinate search finds from the best of ``x``."""

    def score(x, one):
        return np.tensordot(first_stage(x, weights, bias, pool), one, 3)

    best = []
    for one, first in zip(omega, score(x, np.moveaxis(omega, 0, 3)).T, strict=True):
        found = x[np.argsort(first)[-4:]]
        for _ in range(60):
            moved = np.repeat(found, 16, 0)
            where = rng.uniform(size=moved.shape) < 2 / moved[0].size
            moved = np.where(
                where, low + rng.choice([0, 1, rng.uniform()], moved.shape) * (high - low), moved
            )
            moved = np.concatenate([moved, found])
            found = moved[np.argsort(score(moved, one))[-4:]]
        best.append(score(found, one).max())
    return np.array(best)


@pytest.mark.parametrize("case", CASES)
def test_no_image_exceeds_the_bound(case):
    _, pool, channels, window = case
    weights, bias, first, omega = problem(*case)
    upper, hints = hull_bound(first, omega, steps=60, splits=2)
    low, high = np.full(channels, LOW), HIGH - 0.2 * np.arange(channels)
    assert upper.shape == (3,) and upper.dtype == np.float64 and np.isfinite(upper).all()
    rng = np.random.default_rng(1)
    x = np.concatenate([images(hints.shape[1:], low, high, rng), hints])
    assert first_stage(x[:1], weights, bias, pool).shape[1:3] == window
    best = climbed(x, omega, weights, bias, pool, low, high, rng)
    assert (best <= upper).all()
    assert (best >= 0.3 * upper).all()
    assert (hints >= low).all() and (hints <= high).all()


@pytest.mark.parametrize("case", CASES)
def test_any_multipliers_give_a_bound(case):
    _, pool, channels, window = case
    weights, bias, first, omega = problem(*case)
    dual = HullDual(first, *window)
    rng = np.random.default_rng(2)
    n, (k, q, p) = window[0] * window[1], dual.conv.shape
    lam = rng.normal(size=(3, n, p)).astype(np.float32)
    alpha = rng.normal(0.3, 1, size=(2, 3, n, k, q)).astype(np.float32)
    upper = dual.bound(omega.reshape(3, n, -1)[..., dual.alive], lam, alpha, first.boxes(1))
    low, high = np.full(channels, LOW), HIGH - 0.2 * np.arange(channels)
    x = images(dual.shape, low, high, rng)
    assert (climbed(x, omega, weights, bias, pool, low, high, rng) <= upper).all()


def test_exact_for_one_cell_and_positive_weights():
    weights, bias, first, omega = problem(2, 2, 1, (1, 1))
    omega = np.abs(omega)
    upper, _ = hull_bound(first, omega, steps=0)
    x = images((3, 3, 1), LOW, HIGH, np.random.default_rng(3))
    best = np.tensordot(first_stage(x, weights, bias, 2), omega, ((1, 2, 3), (1, 2, 3))).max(0)
    assert (best <= upper).all()
    np.testing.assert_allclose(upper, best, rtol=1e-9)


def test_the_search_and_the_cuts_tighten():
    _, _, first, omega = problem(2, 2, 1, (2, 2), m=6)
    start, searched, cut = (
        hull_bound(first, omega, steps=s, splits=c)[0] for s, c in ((0, 0), (100, 0), (200, 3))
    )
    assert (searched <= start).all() and searched.sum() < 0.95 * start.sum()
    assert cut.sum() < 0.99 * searched.sum()


def test_a_problem_gets_its_own_answer():
    _, _, first, omega = problem(2, 1, 1, (3, 3), m=9)
    reports = []
    upper, hints = hull_bound(
        first, omega, steps=40, splits=0, progress=lambda *report: reports.append(report)
    )
    alone, _ = hull_bound(first, omega[4:5], steps=40, splits=0)
    np.testing.assert_allclose(alone[0], upper[4], rtol=1e-4)
    assert reports == [(7, 9), (9, 9)] and hints.shape == (9, 4, 4, 1)


def test_dead_channels_are_zero():
    weights, _, _, omega = problem(2, 2, 1, (2, 2))
    first = cells(weights, np.full(4, -50.0), 2, np.array([LOW]), np.array([HIGH]))
    assert not first.alive.any()
    np.testing.assert_array_equal(hull_bound(first, omega)[0], 0)


def test_errors_say_what_to_do():
    weights, bias, first, omega = problem(2, 2, 1, (2, 2))
    low, high = np.array([LOW]), np.array([HIGH])
    with pytest.raises(
        ValueError, match="the patch hull does not fit: a patch of 5 x 5 x 1 has 25 pixels"
    ):
        cells(np.zeros((4, 4, 1, 4)), bias, 2, low, high)
    with pytest.raises(ValueError, match="cells expects kernel"):
        cells(weights, bias[:2], 2, low, high)
    with pytest.raises(ValueError, match="pool"):
        cells(weights, bias, 0, low, high)
    with pytest.raises(ValueError, match="low must not exceed high"):
        cells(weights, bias, 2, high, low)
    with pytest.raises(ValueError, match="omega must be finite"):
        hull_bound(first, omega[..., :2])
    with pytest.raises(ValueError, match="steps"):
        hull_bound(first, omega, steps=-1)
    with pytest.raises(ValueError, match="splits"):
        hull_bound(first, omega, splits=9)
