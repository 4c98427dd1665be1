"""Latent vectors: known answers, and the same by plain loops."""

import sys

import jax
import numpy as np
import pytest
from scipy import stats

from oipjax.analysis import latent

KEY = jax.random.key(0)
MEAN = np.array([3.0, -1.0, 0.5])
COVARIANCE = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.2], [0.0, 0.2, 0.25]])


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(3).multivariate_normal(MEAN, COVARIANCE, 4000)


def test_fit_finds_the_normal_the_codes_come_from(codes):
    normal = latent.fit(codes)
    np.testing.assert_allclose(normal.mean, codes.mean(0))
    np.testing.assert_allclose(normal.covariance, COVARIANCE, atol=0.15)
    assert 0 < normal.shrinkage < 0.01
    assert normal.explained.sum() == pytest.approx(1)
    assert (np.diff(normal.variances) < 0).all()


def test_without_shrinkage_it_is_a_pca(codes):
    normal = latent.fit(codes, 0)
    np.testing.assert_allclose(normal.covariance, np.cov(codes.T, bias=True))
    _, singular, axes = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    np.testing.assert_allclose(normal.variances, singular**2 / len(codes))
    np.testing.assert_allclose(np.abs((normal.axes * axes).sum(1)), 1)
    scores = normal.to_axes(codes)
    np.testing.assert_allclose(scores.T @ scores / len(codes), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(normal.from_axes(scores), codes)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    few = np.random.default_rng(1).normal(size=(12, 20)) * np.arange(1, 21)
    x = few - few.mean(0)
    s = sum(np.outer(row, row) for row in x) / 12
    target = np.trace(s) / 20 * np.eye(20)
    noise = sum(((np.outer(row, row) - s) ** 2).sum() for row in x) / 12**2
    normal = latent.fit(few)
    share = normal.shrinkage
    assert share == pytest.approx(noise / ((s - target) ** 2).sum())
    np.testing.assert_allclose(
        normal.covariance, (1 - share) * s + share * target, rtol=1e-9, atol=1e-9
    )


def test_radii_follow_chi_for_a_normal_and_not_otherwise(codes):
    normal = latent.fit(codes, 0)
    inverse = np.linalg.inv(np.cov(codes.T, bias=True))
    plain = [np.sqrt((z - codes.mean(0)) @ inverse @ (z - codes.mean(0))) for z in codes[:20]]
    np.testing.assert_allclose(normal.radii(codes[:20]), plain)
    assert latent.chi_distance(codes, normal) < 0.03
    density = stats.multivariate_normal(normal.mean, normal.covariance).logpdf(codes[:20])
    np.testing.assert_allclose(normal.log_density(codes[:20]), density)
    assert normal.inside(codes, 0.99).mean() == pytest.approx(0.99, abs=0.005)
    box = latent.draw_box(KEY, 4000, 3, 2.0)
    assert latent.chi_distance(box, latent.fit(box)) > 0.05
    assert latent.radius(0.99, 2) ** 2 == pytest.approx(-2 * np.log(0.01))


def test_components(codes):
    found = latent.components(codes)
    np.testing.assert_allclose(found.std, codes.std(0))
    assert (np.abs(found.skew) < 0.15).all() and (np.abs(found.kurtosis) < 0.3).all()
    assert (found.distance < 0.03).all()
    flat = latent.components(np.random.default_rng(0).uniform(size=(4000, 2)))
    np.testing.assert_allclose(flat.kurtosis, -1.2, atol=0.05)
    assert (flat.p < 1e-9).all() and (flat.distance > 0.04).all()
    edges, density = latent.histograms(codes, 30)
    assert density.shape == (3, 30)
    np.testing.assert_allclose((density * np.diff(edges)).sum(1), 1)
    size = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(
        latent.correlations(codes), COVARIANCE / np.outer(size, size), atol=0.05
    )


def test_an_ellipse_holds_its_share_of_a_pair(codes):
    normal = latent.fit(codes, 0)
    pair = latent.fit(codes[:, [2, 0]], 0)
    np.testing.assert_allclose(pair.radii(normal.ellipse(2, 0, 0.9)), latent.radius(0.9, 2))
    assert pair.inside(codes[:, [2, 0]], 0.9).mean() == pytest.approx(0.9, abs=0.015)


def test_nearest_is_what_a_loop_finds(codes):
    queries = codes[:7] + 0.1
    distances, indices = latent.nearest(codes[:50], queries, 3)
    apart = np.linalg.norm(queries[:, None] - codes[None, :50], axis=2)
    np.testing.assert_array_equal(indices, np.argsort(apart, 1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(apart, 1)[:, :3])
    assert latent.nearest(codes, queries)[0].shape == (7, 1)


def test_ways_between_two_codes():
    a, b, t = np.array([2.0, 0.0]), np.array([0.0, 4.0]), np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(latent.interpolate(a, b, t), [[2, 0], [1, 2], [0, 4]])
    half = 3 / np.sqrt(2)
    np.testing.assert_allclose(
        latent.spherical(a, b, t), [[2, 0], [half, half], [0, 4]], atol=1e-12
    )
    centre = np.array([5.0, 5.0])
    np.testing.assert_allclose(
        latent.spherical(a + centre, b + centre, t, centre)[1], centre + half
    )
    np.testing.assert_allclose(latent.spherical(a, 2 * a, t), [[2, 0], [3, 0], [4, 0]])
    for other, words in ((-a, "opposite"), (0 * a, "apart from the centre")):
        with pytest.raises(ValueError, match=words):
            latent.spherical(a, other, t)


def test_attribute_is_the_way_from_without_to_with(codes):
    has = np.arange(len(codes)) % 3 == 0
    shifted = codes + has[:, None] * np.array([0.0, 5.0, 0.0])
    np.testing.assert_allclose(latent.attribute(shifted, has), [0, 5, 0], atol=0.2)
    with pytest.raises(ValueError, match="got 0 of 4000"):
        latent.attribute(codes, has & False)


def test_draws_follow_what_they_are_drawn_from(codes):
    normal = latent.fit(codes, 0)
    drawn = latent.draw_normal(KEY, normal, 4000)
    np.testing.assert_allclose(np.cov(drawn.T), normal.covariance, atol=0.2)
    np.testing.assert_array_equal(drawn, latent.draw_normal(KEY, normal, 4000))
    box = latent.draw_box(KEY, 4000, 3, 2.0)
    assert (
        np.abs(box).max() <= 2 and stats.kstest(box.ravel() / 4 + 0.5, "uniform").statistic < 0.02
    )
    whole = latent.draw_ellipses(KEY, normal, 4000, 0.9, together=3)
    assert normal.inside(whole, 0.9 + 1e-6).all()
    # A ball of half the radius holds an eighth of the volume.
    assert (normal.radii(whole) < latent.radius(0.9, 3) / 2).mean() == pytest.approx(
        1 / 8, abs=0.02
    )
    scores = normal.to_axes(latent.draw_ellipses(KEY, normal, 4000, 0.9))
    pair = np.linalg.norm(scores[:, :2], axis=1) / latent.radius(0.9, 2)
    assert pair.max() <= 1 + 1e-6 and (pair < 0.5).mean() == pytest.approx(1 / 4, abs=0.02)
    assert np.abs(scores[:, 2]).max() <= latent.radius(0.9, 1) + 1e-6


def test_precision_and_recall(codes):
    real, made = codes[:300], codes[300:600]
    near = [
        sum(
            any(np.linalg.norm(p - c) <= np.sort(np.linalg.norm(a - c, axis=1))[3] for c in a)
            for p in b
        )
        / len(b)
        for a, b in ((real[:60], made[:60]), (made[:60], real[:60]))
    ]
    assert latent.precision_recall(real[:60], made[:60]) == pytest.approx(near)
    precision, recall = latent.precision_recall(real, made)
    assert precision > 0.85 and recall > 0.85
    assert latent.precision_recall(real, made + 100) == (0, 0)
    precision, recall = latent.precision_recall(real, codes.mean(0) + 0.1 * (made - codes.mean(0)))
    assert precision > 0.85 and recall < 0.2


def test_density_and_coverage_are_what_loops_find(codes):
    real, made, k = codes[:50], codes[50:120] + 0.5, 5
    reach = [np.sort(np.linalg.norm(real - c, axis=1))[k] for c in real]
    within = np.array(
        [[np.linalg.norm(p - c) <= r for c, r in zip(real, reach, strict=True)] for p in made]
    )
    expected = within.sum() / (k * len(made)), within.any(0).mean()
    assert latent.density_coverage(real, made) == pytest.approx(expected)
    assert latent.density_coverage(real, real + 1000) == (0, 0)


def test_a_lonely_real_point_deceives_precision_and_not_density(codes):
    real = np.concatenate([codes[:300], [[100.0, 0, 0]]])
    junk = np.repeat([[40.0, 0, 0]], 300, 0)
    assert latent.precision_recall(real, junk)[0] == 1
    density, coverage = latent.density_coverage(real, junk)
    assert density == pytest.approx(0.2) and coverage == pytest.approx(1 / 301)


def test_a_read_out_counts_pairs_in_order(codes):
    along, has = codes[:60] @ MEAN, np.arange(60) % 3 == 0
    pairs = [a > b for a in along[has] for b in along[~has]]
    assert latent.read_out(codes[:60], has, MEAN) == pytest.approx(np.mean(pairs))
    assert latent.read_out(codes, codes[:, 1] > 0, np.array([0, 1.0, 0])) == 1
    with pytest.raises(ValueError, match="got 4000 of 4000"):
        latent.read_out(codes, codes[:, 0] < np.inf, MEAN)


def test_the_plane_of_the_first_two_axes(codes):
    flat = latent.embed(codes)
    np.testing.assert_allclose(
        np.abs(flat / latent.fit(codes, 0).to_axes(codes)[:, :2]).std(0), 0, atol=1e-9
    )
    assert latent.embed(codes[:3]).shape == (3, 2)
    with pytest.raises(ValueError, match="two or more components to make a plane of, got 1"):
        latent.embed(codes[:, :1])
    with pytest.raises(ValueError, match="unknown method 'umap'; there are pca and tsne"):
        latent.embed(codes, "umap")  # pyright: ignore[reportArgumentType]


def test_tsne_keeps_what_belongs_together(codes):
    two = np.concatenate([codes[:40], codes[40:80] + 100])
    flat = latent.embed(two, "tsne", seed=1)
    neighbour = latent.nearest(flat, flat, 2)[1][:, 1]
    assert flat.shape == (80, 2) and ((neighbour < 40) == (np.arange(80) < 40)).all()
    np.testing.assert_array_equal(flat, latent.embed(two, "tsne", seed=1))


def test_tsne_without_the_library_says_what_to_install(codes, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(
        ValueError, match=r"needs scikit-learn: pip install 'oipjax\[experiments\]'"
    ):
        latent.embed(codes, "tsne")


def test_errors(codes):
    for call, words in (
        (lambda: latent.fit(codes[0]), r"2 or more codes \[n, d\], got an array \[3\]"),
        (lambda: latent.fit(codes * np.nan), "expected finite codes"),
        (lambda: latent.fit(codes[:3], 0), "3 codes with 3 components is singular; give more"),
        (lambda: latent.fit(codes, 2), "shrinkage between 0 and 1, got 2"),
        (lambda: latent.components(codes * np.array([1, 0, 1])), r"components \[1\] are constant"),
        (lambda: latent.radius(1.0, 3), "confidence between 0 and 1, got 1.0"),
        (lambda: latent.nearest(codes[:2], codes, 3), "between 1 and 2 neighbours"),
        (
            lambda: latent.draw_ellipses(KEY, latent.fit(codes), 2, 0.9, 0),
            "one or more axes together, got 0",
        ),
        (lambda: latent.draw_box(jax.random.PRNGKey(0), 2, 3, 1.0), "one typed key"),
        (
            lambda: latent.precision_recall(codes[:3], codes),
            "more than 3 points on both sides, got 3 and 4000",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
