"""Likeness of images, codes in few bits, and the linear rivals of an autoencoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tools import linear, quality, quantisation
from experiments.tools.quantisation import Quantiser

RNG = np.random.default_rng(0)
ONE, OTHER = RNG.random((2, 3, 14, 13, 2))


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Equations (12) to (17) of Wang et al. 2004, one window after another."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for c in range(x.shape[2]):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = (image[i : i + 11, j : j + 11, c] for image in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (
                    (weights * (a - mean_a) ** 2).sum(),
                    (weights * (b - mean_b) ** 2).sum(),
                )
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )
    return float(np.mean(values))


def test_ssim_is_that_of_the_paper():
    expected = [slow_ssim(x, y) for x, y in zip(ONE, OTHER, strict=True)]
    np.testing.assert_allclose(quality.ssim(ONE, OTHER), expected, rtol=1e-9)


@given(st.floats(0, 1), st.floats(0, 1))
def test_ssim_of_flat_images_compares_their_brightness(a, b):
    one, other = (np.full((1, 11, 11, 1), value) for value in (a, b))
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert quality.ssim(one, other)[0] == pytest.approx(expected, rel=1e-6)


def test_equal_images_and_known_values():
    np.testing.assert_allclose(quality.ssim(ONE, ONE), 1)
    assert np.isposinf(quality.psnr(ONE, ONE)).all() and (quality.mse(ONE, ONE) == 0).all()
    black = np.zeros((2, 12, 12, 1), np.float32)
    np.testing.assert_allclose(quality.psnr(black + np.float32(0.1), black), 20, atol=1e-4)
    np.testing.assert_allclose(quality.psnr(black + 1, black), 0, atol=1e-9)
    np.testing.assert_allclose(quality.ssim(OTHER, ONE), quality.ssim(ONE, OTHER))
    assert (quality.ssim(1 - ONE, ONE) < 0).all()
    np.testing.assert_allclose(
        quality.psnr(OTHER, ONE), -10 * np.log10(((ONE - OTHER) ** 2).mean((1, 2, 3)))
    )


def test_colours_are_luma_and_chroma():
    images = RNG.random((4, 5, 6, 3))
    back = quality.with_chroma(quality.luma(images), quality.chroma(images))
    np.testing.assert_allclose(back, images, atol=1e-12)
    named = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1.0]]).reshape(3, 1, 1, 3)
    np.testing.assert_allclose(quality.luma(named).ravel(), [1, 0.299, 0.114])
    np.testing.assert_allclose(
        quality.chroma(named).reshape(3, 2), [[0, 0], [-0.168736, 0.5], [0.5, -0.081312]], atol=1e-6
    )
    grey = quality.luma(images).repeat(3, -1)
    expected = np.sqrt((quality.chroma(images) ** 2).sum(-1).mean((1, 2)))
    np.testing.assert_allclose(quality.chroma_error(grey, images), expected)


def test_images_that_cannot_be_compared_are_named():
    with pytest.raises(ValueError, match=r"two arrays \[n, h, w, c\] of one shape"):
        quality.psnr(ONE, ONE[:1])
    with pytest.raises(ValueError, match="11 x 11 pixels or more"):
        quality.ssim(ONE[:, :10], ONE[:, :10])
    with pytest.raises(ValueError, match="3 channels"):
        quality.luma(ONE)


CODES = RNG.normal(size=(5000, 3)) * np.array([1, 10, 0.01]) + np.array([0, 5, -3])


@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_codes_come_back_within_half_a_cell(bits):
    quantiser = quantisation.fit(CODES, bits)
    cells, back = quantiser.to_cells(CODES), quantiser(CODES)
    assert cells.dtype == np.uint16 and cells.max() < 2**bits and back.dtype == np.float32
    inside = np.clip(CODES, quantiser.low, quantiser.high) == CODES
    assert (np.abs(back - CODES) <= (0.5 + 1e-3) * quantiser.step + 1e-6)[inside].all()
    np.testing.assert_array_equal(quantiser.to_cells(back), cells)
    new = np.array([[1e9, -1e9, 0]])
    np.testing.assert_array_equal(quantiser.to_cells(new)[0, :2], [2**bits - 1, 0])


def test_the_range_is_the_best_of_those_tried():
    """J. Max 1960: for a normal 16 uniform cells leave 0.01154 of the variance, 2 leave 0.3634."""
    for bits, share in ((4, 0.01154), (1, 0.3634)):
        left = np.square(quantisation.fit(CODES, bits)(CODES) - CODES).mean(0) / CODES.var(0)
        np.testing.assert_allclose(left, share, rtol=0.1)
    far = np.abs(quantisation.fit(CODES, 8)(CODES) - CODES).max(0)
    assert (far < 0.5 * CODES.std(0)).all()


def test_a_constant_component_stays_what_it_is():
    codes = np.concatenate([CODES[:, :1], np.full((len(CODES), 1), 2.5)], 1)
    np.testing.assert_array_equal(quantisation.fit(codes, 4)(codes)[:, 1], 2.5)
    for bits in (0, 17):
        with pytest.raises(ValueError, match=f"bits of a component must be 1 to 16, got {bits}"):
            Quantiser(np.zeros(1), np.ones(1), bits)


def test_principal_components_are_those_of_the_singular_values():
    images = RNG.random((50, 3, 4, 2)) * 0.2 + 0.4
    principal = linear.principal(images)
    flat = images.reshape(50, -1)
    _, _, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    for count in (1, 5):
        some = principal.first(count)
        expected = flat.mean(0) + (flat - flat.mean(0)) @ axes[:count].T @ axes[:count]
        assert some.encode(images).shape == (50, count)
        np.testing.assert_allclose(
            some.decode(some.encode(images)).reshape(50, -1), expected, atol=1e-6
        )
    np.testing.assert_allclose(principal.decode(principal.encode(images)), images, atol=1e-6)
    bytes_ = (images * 255).astype(np.uint8)
    np.testing.assert_allclose(principal.encode(bytes_), principal.encode(bytes_ / 255), atol=1e-5)
    with pytest.raises(ValueError, match="there are 1 to 24 principal components, got 25"):
        principal.first(25)


def test_a_linear_map_is_found():
    seen, weights = RNG.random((3000, 3, 4, 1)), RNG.normal(size=(12, 8))
    truth = (seen.reshape(3000, -1) @ weights + 1.5).reshape(3000, 2, 4)
    found = linear.regression(seen, truth)
    assert found.ridge == linear.RIDGES[0]
    np.testing.assert_allclose(found(seen), truth, atol=1e-3)
    nothing = linear.regression(RNG.random((240, 20, 10, 1)), RNG.normal(size=(240, 1)))
    assert nothing.ridge == linear.RIDGES[-1] and nothing(RNG.random((7, 20, 10, 1))).shape == (
        7,
        1,
    )
