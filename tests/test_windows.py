"""The window bound: no image exceeds it, for any multipliers, and simple cases are exact."""

import itertools

import numpy as np
import pytest

from oipjax.bounds.conv.patches import cells
from oipjax.bounds.conv.window_dual import WHOLE_BOX, WindowDual, WindowMultipliers
from oipjax.bounds.conv.windows import window_mean_bound

LOW, HIGH = -0.5, 1.5
# kernel 1, pool, kernel 2, channels of the image, image
CASES = [
    ((2, 2), 1, (2, 2), 1, (4, 4)),
    ((2, 2), 2, (2, 2), 1, (7, 6)),
    ((1, 2), 1, (2, 2), 2, (3, 4)),
    ((2, 2), 2, (1, 2), 1, (5, 8)),
    ((2, 1), 2, (3, 3), 1, (9, 10)),
    ((1, 1), 1, (1, 1), 2, (2, 2)),
]


def problem(case, k=3, c=4, seed=0):
    kernel1, pool, kernel2, channels, shape = case
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(*kernel1, channels, c)), 0.3 * rng.normal(size=c), pool
    second = rng.normal(size=(*kernel2, c, k)), 0.3 * rng.normal(size=k)
    return *first, *second, np.full(channels, LOW), HIGH - 0.2 * np.arange(channels), shape


def bound(*layers, **options):
    """`window_mean_bound` of the layers and images that `problem` makes."""
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = layers
    first = cells(kernel1, bias1, pool, low, high)
    return window_mean_bound(first, kernel2, bias2, shape, **options)


def conv(x, weights, bias):
    kh, kw = weights.shape[:2]
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    return (
        sum(
            x[:, i : i + h, j : j + w] @ weights[i, j]
            for i, j in itertools.product(range(kh), range(kw))
        )
        + bias
    )


def means(x, kernel1, bias1, pool, kernel2, bias2):
    """``mean(relu(conv(relu(max_pool(conv(x))))))`` in float64, from the definition: ``[n, k]``."""
    y = conv(x, kernel1, bias1)
    h, w = y.shape[1] // pool, y.shape[2] // pool
    y = y[:, : h * pool, : w * pool].reshape(len(y), h, pool, w, pool, -1).max((2, 4))
    return np.maximum(conv(np.maximum(y, 0), kernel2, bias2), 0).mean((1, 2))


def best(layers, tries=3000, rounds=60, seed=1):
    """The best means, ``[k]``, that many images and coordinate search find.

    The images are binary (all of them if they are few), random, and of three values.
    """
    *stages, low, high, shape = layers
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape)) * len(low)
    bits = (
        np.arange(2**size)[:, None] >> np.arange(size) & 1
        if size <= 16
        else rng.integers(0, 2, (tries, size))
    )
    u = np.concatenate(
        [bits, rng.uniform(size=(tries, size)), rng.integers(0, 3, (tries, size)) / 2]
    )
    x = low + u.reshape(-1, *shape, len(low)) * (high - low)
    first, found = means(x, *stages), []
    for index in range(first.shape[1]):
        kept = x[np.argsort(first[:, index])[-4:]]
        for _ in range(rounds):
            moved = np.repeat(kept, 16, 0)
            where = rng.uniform(size=moved.shape) < 2 / size
            moved = np.where(
                where, low + rng.choice([0, 1, rng.uniform()], moved.shape) * (high - low), moved
            )
            moved = np.concatenate([moved, kept])
            kept = moved[np.argsort(means(moved, *stages)[:, index])[-4:]]
        found.append(means(kept, *stages)[:, index].max())
    return np.array(found)


@pytest.mark.parametrize("case", CASES)
def test_no_image_exceeds_the_bound(case):
    layers = problem(case)
    reports = []
    upper = bound(*layers, passes=6, progress=lambda *report: reports.append(report))
    assert upper.shape == (3,) and upper.dtype == np.float64 and reports == [(1, 3), (2, 3), (3, 3)]
    reached = best(layers)
    assert (reached <= upper).all()
    assert reached.sum() >= 0.3 * upper.sum()


@pytest.mark.parametrize("case", CASES)
def test_any_multipliers_give_a_bound(case):
    layers = problem(case, seed=3)
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = layers
    dual = WindowDual(cells(kernel1, bias1, pool, low, high), kernel2.shape[:2], shape, 1)
    rng = np.random.default_rng(4)
    reached = best(layers)
    for scale in (0.1, 1, 10):
        phi = tuple(scale * rng.normal(size=size).astype(np.float32) for size in dual.rows.tables)
        # Every other row has its box cut in two.
        rows = np.arange(len(dual.rows.pattern))
        origin = np.concatenate([rows, rows[::2]])
        first_part = np.where(rows % 2, WHOLE_BOX, 2 * WHOLE_BOX)
        second_part = np.full(len(rows[::2]), 2 * WHOLE_BOX + 1)
        part = np.concatenate([first_part, second_part])
        alpha = rng.normal(0.3, scale, (len(origin), *dual.bias.shape)).astype(np.float32)
        multipliers = WindowMultipliers(phi, alpha, origin, part)
        for index in range(len(bias2)):
            upper = dual.bound(kernel2[..., index], bias2[index], multipliers)
            assert reached[index] <= upper


def test_the_search_tightens():
    layers = problem(CASES[1], k=4)
    start, searched = bound(*layers, passes=0), bound(*layers, passes=20)
    assert (searched <= start * (1 + 1e-6)).all() and searched.sum() < 0.9 * start.sum()
    cut = bound(*layers, passes=20, cuts=2)
    assert cut.sum() < 0.99 * searched.sum()
    assert (best(layers) <= cut).all()


def test_exact_for_one_position_and_positive_weights():
    kernel1, bias1, _, kernel2, bias2, low, high, _ = problem(CASES[0])
    layers = kernel1, bias1, 1, np.abs(kernel2[:1, :1]), np.abs(bias2), low, high, (2, 2)
    np.testing.assert_allclose(bound(*layers, passes=0), best(layers), rtol=1e-9)


def test_an_inactive_map_has_a_bound_near_zero():
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = problem(CASES[1])
    upper = bound(kernel1, bias1, pool, kernel2, bias2 - 1000, low, high, shape, passes=2)
    assert ((upper >= 0) & (upper < 1e-6)).all()
    first = bound(kernel1, bias1 - 1000, pool, kernel2, bias2, low, high, shape, passes=2)
    np.testing.assert_allclose(first, np.maximum(bias2, 0), rtol=1e-6, atol=1e-9)


def test_errors_say_what_to_do():
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = problem(CASES[1])
    with pytest.raises(ValueError, match="does not fit: a patch of 5 x 5 x 1 has 25 pixels"):
        bound(np.zeros((4, 4, 1, 4)), bias1, 2, kernel2, bias2, low, high, shape)
    with pytest.raises(
        ValueError, match="does not fit: a second kernel of 4 x 3 has more than 9 taps"
    ):
        bound(kernel1, bias1, pool, np.zeros((4, 3, 4, 3)), bias2, low, high, shape)
    with pytest.raises(ValueError, match="do not fit into the 1 x 1 cells"):
        bound(kernel1, bias1, pool, kernel2, bias2, low, high, (4, 4))
    with pytest.raises(ValueError, match="window_mean_bound expects"):
        bound(kernel1, bias1, pool, kernel2, bias2[:1], low, high, shape)
    with pytest.raises(ValueError, match="passes"):
        bound(kernel1, bias1, pool, kernel2, bias2, low, high, shape, passes=-1)
    with pytest.raises(ValueError, match="cuts"):
        bound(kernel1, bias1, pool, kernel2, bias2, low, high, shape, cuts=5)
