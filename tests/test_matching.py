"""Matching of maps: planted permutations come back, correlations equal numpy's, errors are told."""

import dataclasses
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oipjax.analysis import correlations, match, over_pairs

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)


def planted(model, key: int):
    """The network with the maps of conv2 in another order, and that order."""
    order = np.random.default_rng(key).permutation(model.layer("conv2").maps)
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["conv2"] = {
        "kernel": params["conv2"]["kernel"][..., order],
        "bias": params["conv2"]["bias"][order],
    }
    return dataclasses.replace(model, params=params), order


@pytest.mark.parametrize("batch", [2, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_correlations_are_those_of_numpy(tiny, batch, shuffled):
    other, _ = planted(tiny, 1)
    models, rng = (
        (tiny, dataclasses.replace(other, mean=(0.3,), std=(0.2,))),
        np.random.default_rng(2),
    )
    orders = (
        np.stack([rng.permutation(7) for _ in models])
        if shuffled
        else np.tile(np.arange(7), (2, 1))
    )
    result = correlations(models, "conv2", IMAGES, orders=orders if shuffled else None, batch=batch)
    values = [
        np.asarray(
            model.apply(model.params, jnp.asarray(model.to_input(IMAGES[order])))["conv2"],
            np.float64,
        )
        for model, order in zip(models, orders, strict=True)
    ]
    rows = np.concatenate([value.reshape(-1, 6) for value in values], 1).T
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(rows).reshape(2, 6, 2, 6)
    assert np.isnan(expected).any() and not np.isnan(expected).all()
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_a_planted_permutation_is_recovered(tiny):
    other, order = planted(tiny, 3)
    square = correlations((tiny, other), "conv2_pre", IMAGES)
    found = match(square[1, :, 0])
    live = np.isfinite(square[0, :, 0]).any(1)[order]
    np.testing.assert_array_equal(found.partner, np.where(live, order, -1))
    np.testing.assert_allclose(found.correlation[found.maps], 1, atol=1e-6)
    np.testing.assert_array_equal(found.maps, np.flatnonzero(live))


def test_constant_maps_have_no_correlation(tiny):
    square = correlations((tiny,), "conv2", IMAGES)[0, :, 0]
    assert np.isnan(square[0]).all() and np.isnan(square[:, 0]).all()
    # Map 0 is constant before its ReLU too, at -1: not zero, but nothing to correlate with.
    assert np.isnan(correlations((tiny,), "conv2_pre", IMAGES)[0, 0]).all()


def test_layers_without_space_can_be_matched(tiny):
    square = correlations((tiny, tiny), "logits", IMAGES)
    np.testing.assert_array_equal(match(square[0, :, 1]).partner, [0, 1, 2])


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_a_match_is_the_best_there_is(shape):
    table = np.random.default_rng(4).uniform(-1, 1, shape)
    tall = table if shape[0] >= shape[1] else table.T
    best = max(
        sum(tall[list(rows), range(tall.shape[1])])
        for rows in permutations(range(len(tall)), tall.shape[1])
    )
    found = match(table)
    assert len(found.maps) == min(shape) and np.nansum(found.correlation) == pytest.approx(best)
    np.testing.assert_array_equal(
        found.correlation[found.maps], table[found.maps, found.partner[found.maps]]
    )
    assert (found.partner >= 0).tolist() == np.isfinite(found.correlation).tolist()


def test_maps_without_correlation_stay_alone():
    table = np.full((3, 3), np.nan)
    assert match(table).partner.tolist() == [-1, -1, -1]
    table[np.ix_([0, 2], [0, 1])] = [[0.1, 0.9], [0.2, 0.3]]
    assert match(table).partner.tolist() == [1, -1, 0]


def test_the_error_of_a_mean_over_pairs():
    rng = np.random.default_rng(5)
    effect, count = rng.normal(size=(4000, 6)), 6
    values = effect[:, :, None] + effect[:, None, :]
    one, two = np.triu_indices(count, 1)
    mean, error = over_pairs(np.moveaxis(values, 0, -1))
    np.testing.assert_allclose(mean, values[:, one, two].mean(1))
    np.testing.assert_allclose(mean, 2 * effect.mean(1), atol=1e-12)
    # Variance of twice the mean of six effects of variance one; pairs taken as independent would
    # give 2 / 15.
    assert np.square(error).mean() == pytest.approx(4 / 6, rel=0.05)
    mean, error = over_pairs(np.ones((2, 2)))
    assert mean == 1 and np.isnan(error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: correlations((), "conv2", IMAGES), "one or more networks, got none"),
        (lambda m: correlations((m,), "conv9", IMAGES), "no layer 'conv9'"),
        (lambda m: correlations((m,), "conv2", IMAGES[:, :7]), r"\[n, 8, 8, 1\]"),
        (lambda m: correlations((m,), "conv2", IMAGES[:0]), "at least one"),
        (
            lambda m: correlations((m, m), "conv2", IMAGES, orders=np.zeros((2, 7), int)),
            r"permutations \[2, 7\]",
        ),
        (lambda m: correlations((m,), "conv2", IMAGES, batch=0), "batch must be at least 1"),
        (lambda m: match(np.zeros((2, 3, 4))), "one pair of networks"),
        (lambda m: match(np.array([[1.5]])), r"lie in \[-1, 1\]"),
        (lambda m: match(np.array([[0.5, np.nan], [0.1, 0.2]])), "whole rows or columns"),
        (lambda m: over_pairs(np.ones((1, 1))), "two or more networks"),
        (lambda m: over_pairs(np.ones((2, 3))), "two or more networks"),
    ],
)
def test_errors_say_what_to_do(tiny, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny)


def test_networks_must_agree(tiny, linear):
    narrow = dataclasses.replace(tiny, input_shape=(8, 9, 1))
    with pytest.raises(ValueError, match="must agree"):
        correlations((tiny, narrow), "conv2", IMAGES)
