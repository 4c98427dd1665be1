"""Read-outs of classes from activations, each against a plain loop."""

import jax
import numpy as np
import pytest

from oipjax.analysis import readout


@pytest.mark.parametrize("weighted", [False, True])
def test_spread_is_that_of_distances_summed_one_by_one(cloud, weighted):
    features, labels = cloud
    weights = np.random.default_rng(1).integers(0, 4, 40) if weighted else np.ones(40, int)
    drawn = [(features[i].ravel(), labels[i]) for i in range(40) for _ in range(weights[i])]
    middle = np.mean([x for x, _ in drawn], 0)
    centre = {c: np.mean([x for x, y in drawn if y == c], 0) for c in (2, 5, 7)}
    within = np.mean([np.sum((x - centre[y]) ** 2) for x, y in drawn])
    between = np.mean([np.sum((centre[y] - middle) ** 2) for _, y in drawn])
    found = readout.spread(readout.gram(features), labels, weights if weighted else None)
    assert found == pytest.approx((within, between))
    assert found.share == pytest.approx(between / (within + between))


def test_spread_survives_a_class_that_a_bootstrap_left_out(cloud):
    features, labels = cloud
    kept = labels != 5
    products = readout.gram(features)
    expected = readout.spread(readout.gram(features[kept]), labels[kept])
    assert readout.spread(products, labels, kept) == pytest.approx(expected)


def test_folds_deal_every_class_out_evenly():
    labels = np.random.default_rng(0).integers(0, 3, 100)
    fold = readout.folds(jax.random.key(0), labels, 5)
    for c in range(3):
        sizes = np.bincount(fold[labels == c], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(fold, readout.folds(jax.random.key(1), labels, 5))
    np.testing.assert_array_equal(fold, readout.folds(jax.random.key(0), labels, 5))
    with pytest.raises(
        ValueError,
        match="3 folds need 2 or more folds, and as many images of every class; there are 1 of 8",
    ):
        readout.folds(jax.random.key(0), np.array([1, 1, 1, 8]), 3)


def dumb_ridge(x, y, penalty, new):
    """Normal equations with an intercept that is not penalised."""
    wide = np.hstack([np.ones((len(x), 1)), x])
    penalties = penalty * np.eye(wide.shape[1])
    penalties[0, 0] = 0
    return np.hstack([np.ones((len(new), 1)), new]) @ np.linalg.solve(
        wide.T @ wide + penalties, wide.T @ y
    )


def test_ridge_is_the_one_of_the_normal_equations_and_sees_no_test_image(cloud):
    features, labels = cloud
    x = features.reshape(40, -1)[:, :5] - 50
    targets = np.eye(8)[labels]
    fold = readout.folds(jax.random.key(2), labels, 4)
    strengths = (0.01, 0.3, 5.0)
    found = readout.ridge(readout.gram(x), targets, fold, strengths)
    for number in range(4):
        train, test = fold != number, fold == number
        # Per value of the Gram matrix, that is, over the mean of its eigenvalues.
        scale = np.sum((x[train] - x[train].mean(0)) ** 2) / train.sum()
        errors = []
        for strength in strengths:
            places = np.flatnonzero(train)
            alone = [
                dumb_ridge(
                    x[places[places != i]], targets[places[places != i]], scale * strength, x[[i]]
                )[0]
                for i in places
            ]
            errors.append(np.sum((targets[train] - alone) ** 2))
        best = scale * strengths[int(np.argmin(errors))]
        np.testing.assert_allclose(
            found[test], dumb_ridge(x[train], targets[train], best, x[test]), atol=1e-8
        )
    other = targets.copy()
    other[fold == 0] = 7
    np.testing.assert_allclose(
        readout.ridge(readout.gram(x), other, fold, strengths)[fold == 0],
        found[fold == 0],
        atol=1e-12,
    )


def test_ridge_of_features_that_say_nothing_is_the_mean():
    targets = np.eye(2)[np.arange(20) % 2]
    found = readout.ridge(readout.gram(np.ones((20, 3))), targets, np.arange(20) // 2 % 5)
    np.testing.assert_allclose(found, 0.5)


def test_positions_leave_each_image_out_of_its_own_mean(cloud):
    features, labels = cloud
    x = features.reshape(40, -1)
    found = readout.positions(readout.gram(features), labels, 2, 7)
    for i in range(40):
        a = np.mean([x[j] for j in range(40) if labels[j] == 2 and j != i], 0)
        b = np.mean([x[j] for j in range(40) if labels[j] == 7 and j != i], 0)
        assert found[i] == pytest.approx((x[i] - a) @ (b - a) / ((b - a) @ (b - a)))
    for pair in ((2, 2), (2, 3)):
        with pytest.raises(ValueError, match="expected two classes with two images or more"):
            readout.positions(readout.gram(features), labels, *pair)


def test_separation_counts_pairs():
    assert readout.separation(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1
    assert readout.separation(np.array([0.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx(
        (1 + 0 + 1 + 0.5) / 4
    )
