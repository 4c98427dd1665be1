"""Distinct patterns: shifts and noise do not matter, structure does."""

import numpy as np
import pytest

from oipjax.analysis import cluster, seen, similarity

SIDE = 28


def pattern(rng, channels: int = 1) -> np.ndarray:
    """A 10x10 patch in the middle of nothing."""
    image = np.zeros((SIDE, SIDE, channels))
    image[9:19, 9:19] = np.kron(rng.choice([-1.0, 1.0], (5, 5, channels)), np.ones((2, 2, 1)))
    return image


def moved(image: np.ndarray, shift) -> np.ndarray:
    return np.roll(image, shift, (0, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (24, SIDE)])
def test_a_known_shift_is_found(channels, shape):
    image = pattern(np.random.default_rng(0), channels)[: shape[0], : shape[1]]
    shifts = np.array([(0, 0), (3, -5), (-7, 2), (5, 7)])
    ncc, found = similarity(np.stack([moved(image, shift) for shift in shifts]), reach=14)
    assert ncc.min() > 0.99 and ncc.max() <= 1
    np.testing.assert_array_equal(found[0, :3], shifts[:3])
    np.testing.assert_array_equal(found, -found.swapaxes(0, 1))
    np.testing.assert_array_equal(found[1, 2], shifts[2] - shifts[1])


def test_it_is_the_formula():
    rng = np.random.default_rng(1)
    images, weights = rng.normal(size=(2, 7, 9, 2)), rng.uniform(size=(2, 7, 9))
    ncc, shifts = similarity(images, weights, blur=0, reach=2, overlap=0.5)
    a, b = (
        w[..., None] * (x - (w[..., None] * x).sum((0, 1)) / w.sum())
        for x, w in zip(images, weights, strict=True)
    )
    best = (-2.0, (0, 0))
    for down in range(-2, 3):
        for right in range(-2, 3):
            one = a[max(0, -down) : 7 - max(0, down), max(0, -right) : 9 - max(0, right)]
            two = b[max(0, down) : 7 + min(0, down), max(0, right) : 9 + min(0, right)]
            if (one**2).sum() >= 0.5 * (a**2).sum() and (two**2).sum() >= 0.5 * (b**2).sum():
                best = max(
                    best,
                    ((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()), (down, right)),
                )
    assert ncc[0, 1] == pytest.approx(best[0]) and tuple(shifts[0, 1]) == best[1]


def test_brightness_and_contrast_do_not_matter_but_the_sign_does():
    image = pattern(np.random.default_rng(2))
    ncc, _ = similarity(np.stack([image, 5 * image + 3, -image, np.full_like(image, 0.1)]), reach=0)
    assert ncc[0, 1] == pytest.approx(1) and ncc[0, 2] == pytest.approx(-1)
    assert (ncc[3, :3] == 0).all() and ncc[3, 3] == 1


def test_a_small_overlap_cannot_win():
    """A bar at the left and a bar at the right have nothing but their edges in common."""
    images = np.random.default_rng(3).normal(size=(2, 12, 12, 1))
    images[1, :, :2] = images[0, :, -2:]
    wide, _ = similarity(images, blur=0, reach=11, overlap=0.9)
    narrow, shifts = similarity(images, blur=0, reach=11, overlap=0.05)
    assert wide[0, 1] < 0.5 < narrow[0, 1] and np.abs(shifts[0, 1]).max() > 6


def test_shifted_copies_are_one_pattern_and_others_stay_apart():
    rng = np.random.default_rng(4)
    one, two, three = (pattern(rng) for _ in range(3))
    images = np.stack(
        [two, moved(one, (4, -3)), one, moved(two, (-5, 5)), moved(one, (-6, 0)), three, three]
    )
    scores = np.array([5.0, 7.0, 6.0, 4.0, 1.0, 0.0, np.nan])
    groups = cluster(images, scores)
    assert groups.labels.tolist() == [1, 0, 0, 1, 0, -1, -1]
    assert groups.counts.tolist() == [3, 2] and groups.best.tolist() == [7, 5]
    assert groups.representative.tolist() == [1, 0]
    assert groups.shares.sum() + groups.inactive == pytest.approx(
        1
    ) and groups.inactive == pytest.approx(2 / 7)
    unfloored = cluster(images, scores, floor=None)
    assert unfloored.labels.tolist() == [1, 0, 0, 1, 0, 2, -1]


def test_noise_that_the_map_does_not_see_does_not_split():
    """A box keeps the start wherever the score has no gradient."""
    rng = np.random.default_rng(5)
    one, two = pattern(rng), pattern(rng)
    clean = np.stack([moved(x, rng.integers(-4, 5, 2)) for x in [one] * 6 + [two] * 6])
    noise = np.kron(rng.normal(size=(12, 7, 7, 1)), np.ones((1, 4, 4, 1)))
    images, scores = np.where(clean == 0, 0.3 * noise, clean), np.arange(12, 0, -1.0)
    gradients = 1e-7 * clean
    groups = cluster(images, scores, seen(gradients))
    assert groups.counts.tolist() == [6, 6]
    assert len(cluster(images, scores).best) > 2
    np.testing.assert_array_equal(seen(gradients), seen(1e9 * gradients))


def test_what_is_seen():
    gradients = np.zeros((2, 20, 20, 3))
    gradients[0, 4:8, 4:8] = 1
    weights = seen(gradients)
    assert weights.shape == (2, 20, 20)
    assert (weights[0, 4:8, 4:8] == 1).all() and weights[0, 16:, 16:].max() < 1e-3
    assert (weights[1] == 0).all()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.63, 1.0])
def test_groups_are_sorted_and_leaders_differ(threshold):
    rng = np.random.default_rng(6)
    images, scores = rng.normal(size=(20, 12, 12, 1)), rng.normal(size=20)
    ncc, _ = similarity(images)
    groups = cluster(images, scores, threshold=threshold)
    assert (np.diff(groups.best) <= 0).all() and groups.counts.min() >= 1
    assert groups.shares.sum() + groups.inactive == pytest.approx(1)
    np.testing.assert_array_equal(groups.best, scores[groups.representative])
    between = ncc[np.ix_(groups.representative, groups.representative)] - 2 * np.eye(
        len(groups.best)
    )
    assert between.max() < threshold
    for run, label in enumerate(groups.labels):
        if label >= 0:
            assert ncc[run, groups.representative[label]] >= threshold - 1e-12
            assert scores[run] <= groups.best[label]
    known = cluster(images, scores, threshold=threshold, ncc=ncc)
    np.testing.assert_array_equal(known.labels, groups.labels)


def test_a_silent_map_has_no_patterns():
    groups = cluster(np.zeros((3, 8, 8, 1)), np.zeros(3))
    assert (
        groups.inactive == 1
        and len(groups.best) == len(groups.shares) == 0
        and (groups.labels == -1).all()
    )
    alone = cluster(np.ones((1, 8, 8, 1)), np.ones(1))
    assert alone.shares.tolist() == [1]


IMAGES = np.ones((2, 8, 8, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: similarity(np.ones((8, 8, 1))), r"\[r, h, w, c\].*one map at a time"),
        (lambda: similarity(np.ones((0, 8, 8, 1))), "at least one"),
        (lambda: similarity(np.full((2, 8, 8, 1), np.nan)), "leave out"),
        (lambda: similarity(IMAGES, reach=8), "from 0 to 7"),
        (lambda: similarity(IMAGES, overlap=0), "overlap must be above 0"),
        (lambda: similarity(IMAGES, blur=-1), "0 is none"),
        (
            lambda: similarity(IMAGES, np.ones((2, 8, 8, 1))),
            r"weights must be \[r, h, w\], here \[2, 8, 8\]",
        ),
        (lambda: similarity(IMAGES, -np.ones((2, 8, 8))), "0 leaves a pixel out"),
        (lambda: cluster(IMAGES, np.ones((3, 2))), "one map at a time"),
        (
            lambda: cluster(IMAGES, np.ones(2), np.ones((1, 8, 8))),
            r"weights must be \[r, h, w\], here \[2, 8, 8\]",
        ),
        (lambda: cluster(IMAGES, np.ones(2), threshold=1.5), "threshold must be above 0"),
        (lambda: cluster(IMAGES, np.ones(2), ncc=np.eye(3)), "as similarity returns it"),
        (lambda: seen(IMAGES, least=0), "least must be above 0"),
        (lambda: seen(IMAGES[0]), r"\[r, h, w, c\]"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
