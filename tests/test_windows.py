"""The window bound: nothing exceeds it, whatever its multipliers, and where it must be exact it is."""

import itertools

import numpy as np
import pytest

from oipjax.bounds.conv import windows as module
from oipjax.bounds.conv.hull import cells
from oipjax.bounds.conv.windows import window_bound

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
    """``mean(relu(conv(relu(max_pool(conv(x))))))``, ``[n, k]``, in float64 and straight from the definition."""
    y = conv(x, kernel1, bias1)
    h, w = y.shape[1] // pool, y.shape[2] // pool
    y = y[:, : h * pool, : w * pool].reshape(len(y), h, pool, w, pool, -1).max((2, 4))
    return np.maximum(conv(np.maximum(y, 0), kernel2, bias2), 0).mean((1, 2))


def best(given, tries=3000, rounds=60, seed=1):
    """The best means, ``[k]``: of binary images (all of them if they are few), others, and coordinate search."""
    *layers, low, high, shape = given
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
    first, found = means(x, *layers), []
    for index in range(first.shape[1]):
        kept = x[np.argsort(first[:, index])[-4:]]
        for _ in range(rounds):
            moved = np.repeat(kept, 16, 0)
            where = rng.uniform(size=moved.shape) < 2 / size
            moved = np.where(
                where, low + rng.choice([0, 1, rng.uniform()], moved.shape) * (high - low), moved
            )
            moved = np.concatenate([moved, kept])
            kept = moved[np.argsort(means(moved, *layers)[:, index])[-4:]]
        found.append(means(kept, *layers)[:, index].max())
    return np.array(found)


@pytest.mark.parametrize("case", CASES)
def test_no_image_exceeds_the_bound(case):
    given = problem(case)
    seen = []
    upper = window_bound(*given, passes=6, progress=lambda *at: seen.append(at))
    assert upper.shape == (3,) and upper.dtype == np.float64 and seen == [(1, 3), (2, 3), (3, 3)]
    reached = best(given)
    assert (reached <= upper).all()
    assert reached.sum() >= 0.3 * upper.sum()


@pytest.mark.parametrize("case", CASES)
def test_any_multipliers_give_a_bound(case):
    given = problem(case, seed=3)
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = given
    stage = module._Stage(cells(kernel1, bias1, pool, low, high), kernel2.shape[:2], shape, 1)
    rng = np.random.default_rng(4)
    reached = best(given)
    for scale in (0.1, 1, 10):
        phi = tuple(scale * rng.normal(size=size).astype(np.float32) for size in stage.rows.tables)
        # Every other row has its box cut in two.
        rows = np.arange(len(stage.rows.pattern))
        origin, part = (
            np.concatenate([rows, rows[::2]]),
            np.concatenate([np.where(rows % 2, 1, 2), 0 * rows[::2] + 3]),
        )
        alpha = rng.normal(0.3, scale, (len(origin), *stage.bias.shape)).astype(np.float32)
        for index in range(len(bias2)):
            assert reached[index] <= stage.certify(
                kernel2[..., index], bias2[index], phi, alpha, origin, part
            )


def test_the_search_tightens():
    given = problem(CASES[1], k=4)
    start, searched = window_bound(*given, passes=0), window_bound(*given, passes=20)
    assert (searched <= start * (1 + 1e-6)).all() and searched.sum() < 0.9 * start.sum()
    cut = window_bound(*given, passes=20, cuts=2)
    assert cut.sum() < 0.99 * searched.sum()
    assert (best(given) <= cut).all()


def test_exact_for_one_position_and_positive_weights():
    kernel1, bias1, _, kernel2, bias2, low, high, _ = problem(CASES[0])
    given = kernel1, bias1, 1, np.abs(kernel2[:1, :1]), np.abs(bias2), low, high, (2, 2)
    np.testing.assert_allclose(window_bound(*given, passes=0), best(given), rtol=1e-9)


def test_a_silent_map_has_a_bound_near_zero():
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = problem(CASES[1])
    upper = window_bound(kernel1, bias1, pool, kernel2, bias2 - 1000, low, high, shape, passes=2)
    assert ((upper >= 0) & (upper < 1e-6)).all()
    first = window_bound(kernel1, bias1 - 1000, pool, kernel2, bias2, low, high, shape, passes=2)
    np.testing.assert_allclose(first, np.maximum(bias2, 0), rtol=1e-6, atol=1e-9)


def test_errors_say_what_to_do():
    kernel1, bias1, pool, kernel2, bias2, low, high, shape = problem(CASES[1])
    with pytest.raises(ValueError, match="does not fit: a patch of 5 x 5 x 1 has 25 pixels"):
        window_bound(np.zeros((4, 4, 1, 4)), bias1, 2, kernel2, bias2, low, high, shape)
    with pytest.raises(
        ValueError, match="does not fit: a second kernel of 4 x 3 has more than 9 taps"
    ):
        window_bound(kernel1, bias1, pool, np.zeros((4, 3, 4, 3)), bias2, low, high, shape)
    with pytest.raises(ValueError, match="do not fit into the 1 x 1 cells"):
        window_bound(kernel1, bias1, pool, kernel2, bias2, low, high, (4, 4))
    with pytest.raises(ValueError, match="window_bound expects"):
        window_bound(kernel1, bias1, pool, kernel2, bias2[:1], low, high, shape)
    with pytest.raises(ValueError, match="passes"):
        window_bound(kernel1, bias1, pool, kernel2, bias2, low, high, shape, passes=-1)
    with pytest.raises(ValueError, match="cuts"):
        window_bound(kernel1, bias1, pool, kernel2, bias2, low, high, shape, cuts=5)
