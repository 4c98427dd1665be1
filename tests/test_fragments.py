"""One body, two islands, and lobes: codes of which it is known."""

import numpy as np
import pytest
from scipy import stats

from experiments.tools import fragments

RNG = np.random.default_rng(0)
BODY = RNG.normal(size=(900, 3))
SIDES = np.repeat([0, 1], 450)


def apart(distance: float) -> np.ndarray:
    """Two equal halves, so far from each other."""
    return BODY + distance * SIDES[:, None] * np.array([1.0, 0, 0])


def test_islands_are_not_linked():
    assert fragments.linked(BODY) == 1
    assert fragments.linked(apart(12)) == 0.5
    with pytest.raises(ValueError, match="between 1 and 3 neighbours"):
        fragments.linked(BODY[:3], 3)


def test_groups_are_what_lies_together():
    middles = fragments.centres(apart(12), 2)
    groups = fragments.members(apart(12), middles)
    assert len(set(groups[:450])) == len(set(groups[450:])) == 1 and groups[0] != groups[-1]
    np.testing.assert_allclose(middles[groups[0]], BODY[:450].mean(0), atol=1e-9)
    np.testing.assert_array_equal(
        fragments.centres(BODY, 4, seed=1), fragments.centres(BODY, 4, seed=1)
    )
    assert len(fragments.centres(apart(12)[440:], 6)) < 6  # a group of ten codes is none
    for count in (1, 46):
        with pytest.raises(
            ValueError, match=f"two or more groups of 20 codes on average, got {count} for 900"
        ):
            fragments.centres(BODY, count)


def test_two_normals_describe_two_bodies_better_and_one_body_no_better():
    whole, halves = (fragments.gain(x[::2], SIDES[::2], x[1::2]).mean() for x in (BODY, apart(12)))
    assert abs(whole) < 0.05
    # One normal is broader along the way by the root of 1 + 36, and a group is named with a chance
    # of a half.
    assert halves == pytest.approx(np.log(np.sqrt(37)) - np.log(2), abs=0.1)


def test_a_valley_is_as_deep_as_two_normals_make_it():
    x = apart(4)
    depth = fragments.valleys(x[::2], SIDES[::2], x[1::2], SIDES[1::2])
    assert depth.shape == (2, 2) and np.isnan(np.diag(depth)).all() and depth[0, 1] == depth[1, 0]
    density = stats.norm.pdf
    assert depth[0, 1] == pytest.approx(2 * density(2) / (density(0) + density(4)), rel=0.4)
    none = fragments.valleys(BODY[::2], SIDES[::2], BODY[1::2], SIDES[1::2])
    assert none[0, 1] > 0.9
    gap = fragments.valleys(apart(20), SIDES, apart(20), SIDES)
    assert gap[0, 1] < 1e-6
    assert np.isnan(fragments.valleys(x, SIDES, x[:10], SIDES[:10])).all()


def test_the_side_from_which_they_lie_apart_is_found():
    # Long bodies side by side: seen along the line between their middles there is no valley.
    x = BODY * np.array([6.0, 1, 1]) + SIDES[:, None] * np.array([8.0, 6, 0])
    assert fragments.valleys(x[::2], SIDES[::2], x[1::2], SIDES[1::2])[0, 1] < 0.1
