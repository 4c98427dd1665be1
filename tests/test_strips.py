"""Strips against every binary image of a small size."""

import numpy as np
import pytest

from oipjax.bounds.conv import strips

LOW, HIGH = -0.4, 2.8
CASES = [((4, 4), (2, 2)), ((3, 3), (1, 1)), ((4, 4), (3, 3)), ((3, 5), (2, 3))]


def layer(window, maps=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*window, 1, maps)), rng.normal(size=maps)


def means(images, kernel, bias):
    """``[n, k]`` in float64, for ``images[n, h, w]``."""
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], (1, 2))
    total = np.zeros((len(images), len(bias)))
    for i in range(windows.shape[1]):
        for j in range(windows.shape[2]):
            total += np.maximum(
                windows[:, i, j].reshape(len(images), -1) @ kernel.reshape(-1, len(bias)) + bias, 0
            )
    return total / (windows.shape[1] * windows.shape[2])


def exhaustive(kernel, bias, shape):
    pixels = shape[0] * shape[1]
    bits = (np.arange(2**pixels)[:, None] >> np.arange(pixels)) & 1
    return means(np.where(bits, HIGH, LOW).reshape(-1, *shape), kernel, bias).max(0)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "window"), CASES)
def test_the_best_image_lies_between_search_and_bound(shape, window):
    kernel, bias = layer(window)
    truth = exhaustive(kernel, bias, shape)
    images, scores = strips.mean_search(kernel, bias, LOW, HIGH, shape, starts=2)
    assert images.shape == (6, *shape, 1)
    assert set(np.unique(images)) <= {LOW, HIGH}
    np.testing.assert_allclose(np.diag(means(images[..., 0], kernel, bias)), scores, rtol=1e-12)
    assert np.all(scores <= truth * (1 + 1e-12))
    assert np.sum(scores >= truth * (1 - 1e-6)) >= 5
    assert np.all(
        strips.mean_bound(kernel, bias, LOW, HIGH, shape, reached=scores, rows=1, steps=40) >= truth
    )


def test_one_strip_over_the_whole_image_is_exact():
    kernel, bias = layer((3, 3))
    upper = strips.mean_bound(kernel, bias, LOW, HIGH, (4, 4), reached=np.zeros(6))
    np.testing.assert_allclose(upper, exhaustive(kernel, bias, (4, 4)), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_any_multipliers_bound_and_steps_tighten(seed):
    kernel, bias = layer((2, 2), seed=seed)
    truth = exhaustive(kernel, bias, (4, 4))
    options = {"rows": 1, "reached": truth}
    loose = strips.mean_bound(kernel, bias, LOW, HIGH, (4, 4), **options, steps=0)
    tight = strips.mean_bound(kernel, bias, LOW, HIGH, (4, 4), **options, steps=40)
    assert np.all(truth <= tight)
    assert np.all(tight <= loose)
    assert np.any(tight < loose - 1e-3)
    # A wrong `reached` costs tightness, never soundness.
    wrong = strips.mean_bound(kernel, bias, LOW, HIGH, (4, 4), rows=1, reached=truth - 5, steps=40)
    assert np.all(truth <= wrong)


def test_images_between_the_ends_stay_below():
    kernel, bias = layer((3, 3), seed=3)
    upper = strips.mean_bound(kernel, bias, LOW, HIGH, (8, 8), steps=40)
    rng = np.random.default_rng(0)
    for exponent in (0.1, 1, 4):
        images = LOW + (HIGH - LOW) * rng.random((500, 8, 8)) ** exponent
        assert np.all(means(images, kernel, bias) <= upper)
    images, scores = strips.mean_search(kernel, bias, LOW, HIGH, (8, 8), starts=2)
    assert np.all(scores <= upper)
    assert np.median(scores / upper) > 0.97
    for index, image in enumerate(images[..., 0]):
        flipped = np.repeat(image[None], 64, 0).reshape(64, 64)
        np.fill_diagonal(flipped, LOW + HIGH - image.ravel())
        assert means(flipped.reshape(64, 8, 8), kernel, bias)[:, index].max() <= scores[index] * (
            1 + 1e-5
        )


def test_an_inactive_map_has_a_bound_near_zero():
    kernel, bias = np.full((2, 2, 1, 6), 0.1), np.full(6, -10.0)
    upper = strips.mean_bound(kernel, bias, LOW, HIGH, (4, 4), reached=np.zeros(6), rows=1, steps=5)
    assert np.all((upper >= 0) & (upper < 1e-9))


@pytest.mark.parametrize(
    ("window", "channels", "shape", "low", "message"),
    [
        ((3, 3), 2, (8, 8), LOW, "one input channel"),
        ((5, 5), 1, (8, 8), LOW, "does not fit strips"),
        ((3, 3), 1, (2, 8), LOW, "does not fit into an image"),
        ((3, 3), 1, (8, 8), 3.0, "low <= high"),
    ],
)
@pytest.mark.parametrize("function", [strips.mean_bound, strips.mean_search])
def test_what_does_not_fit_is_refused(function, window, channels, shape, low, message):
    with pytest.raises(ValueError, match=message):
        function(np.zeros((*window, channels, 2)), np.zeros(2), low, HIGH, shape)
