"""Known sizes of features, and receptive fields beside a network's own gradients."""

import jax
import numpy as np
import pytest

from experiments.first_layers import network_of, receptive_field
from experiments.tools.textures import autocorrelation, measures, shuffled
from oipjax.networks import CNNConfig


def test_autocorrelation_is_that_of_sums_over_the_overlap():
    image = np.random.default_rng(0).normal(size=(6, 5))
    centred, found = image - image.mean(), autocorrelation(image)
    assert found.shape == (11, 9) and found[5, 4] == pytest.approx(1)
    for down in range(-5, 6):
        for across in range(-4, 5):
            pairs = [
                centred[i, j] * centred[i + down, j + across]
                for i in range(6)
                for j in range(5)
                if 0 <= i + down < 6 and 0 <= j + across < 5
            ]
            assert found[5 + down, 4 + across] == pytest.approx(
                np.mean(pairs) / centred.var(), abs=1e-9
            )


def test_stripes_have_their_period_and_repeat():
    x = np.arange(28) * np.ones((28, 1))
    for period in (4, 7, 14):
        found = measures(np.sin(2 * np.pi * x / period), 7)
        assert found["period"] == pytest.approx(period, rel=0.15)
        assert found["repeats"] > 0.9
        assert found["width"] == pytest.approx(period / 3, rel=0.1) and found["length"] > 25


def test_one_spot_has_its_width_and_does_not_repeat():
    y, x = np.meshgrid(np.arange(28), np.arange(28), indexing="ij")
    for sigma in (1.0, 1.5, 2.0):
        found = measures(np.exp(-((x - 13) ** 2 + (y - 14) ** 2) / (2 * sigma**2)), 10)
        # The autocorrelation of a Gaussian is one of root two times its sigma.
        for what in ("width", "length"):
            assert found[what] == pytest.approx(2.355 * np.sqrt(2) * sigma, rel=0.12)
        assert found["repeats"] < 0.1
    noise = measures(np.random.default_rng(0).normal(size=(28, 28)), 3)
    assert noise["width"] < 2 and noise["repeats"] < 0.3


def test_there_is_nothing_beyond_a_field_as_large_as_the_image():
    image = np.random.default_rng(0).normal(size=(8, 8))
    assert np.isnan(measures(image, 5)["repeats"]) and np.isfinite(
        measures(np.zeros((8, 8)), 3)["width"]
    )


def test_blocks_change_places_as_a_whole():
    image = np.arange(6 * 9 * 2.0).reshape(6, 9, 2)
    mixed = shuffled(jax.random.key(1), image, 3)
    places = [(i, j) for i in (0, 3) for j in (0, 3, 6)]
    blocks = [image[i : i + 3, j : j + 3].tolist() for i, j in places]
    found = [blocks.index(mixed[i : i + 3, j : j + 3].tolist()) for i, j in places]
    assert sorted(found) == list(range(6)) and found != sorted(found)
    np.testing.assert_array_equal(
        np.sort(shuffled(jax.random.key(0), image, 1), None), np.sort(image, None)
    )
    for block in (0, 2, 6):
        with pytest.raises(
            ValueError, match=f"blocks of {block} pixels do not fill an image of 6 x 9"
        ):
            shuffled(jax.random.key(0), image, block)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (CNNConfig(), {"conv1": (3, 1), "conv2": (8, 2), "conv3": (18, 4)}),
        (CNNConfig((20, 20, 1), (3, 3), 5, (3, 1), (4,), 2), {"conv1": (5, 1), "conv2": (19, 3)}),
    ],
)
def test_receptive_fields(config, fields):
    assert {layer: tuple(receptive_field(config, layer)) for layer in fields} == fields


def test_only_what_is_known_has_a_receptive_field(linear):
    with pytest.raises(ValueError, match="expected a convolution without padding, got 'dense1'"):
        receptive_field(CNNConfig(), "dense1")
    with pytest.raises(ValueError, match="with padding SAME"):
        receptive_field(CNNConfig(padding="SAME"), "conv1")
    with pytest.raises(ValueError, match="linear: expected a network of oipjax.networks.cnn"):
        network_of(linear)
