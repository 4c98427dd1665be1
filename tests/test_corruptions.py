"""What is done to images before an autoencoder sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from oipjax.training import Chain, Dropped, Grey, Noise, OneOf, corrupted, corruptions, parse

KEY = jax.random.key(0)
GREYS = jnp.linspace(0.3, 0.7, 40 * 30 * 30).reshape(40, 30, 30, 1)
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), np.uint8)


def test_noise_has_its_sigma_and_stays_in_the_range_of_pixels():
    noise = np.asarray(Noise(0.5, clip=False)(KEY, GREYS) - GREYS)
    assert noise.std() == pytest.approx(0.5, rel=0.01) and abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]) < 0.02
    cut = np.asarray(Noise(0.5)(KEY, GREYS))
    np.testing.assert_array_equal(
        cut, np.clip(np.asarray(Noise(0.5, clip=False)(KEY, GREYS)), 0, 1)
    )
    black = np.asarray(Noise(0.5)(KEY, jnp.zeros_like(GREYS)))
    assert np.square(black).mean() == pytest.approx(
        0.5 * (0.25 - 0.0214), rel=0.03
    )  # half of it, less what is above 1


def test_dropped_pixels_are_black_in_all_channels_and_the_others_as_they_were():
    pixels = jnp.asarray(COLOURS.repeat(20, 0) / np.float32(255)) * 0.9 + 0.1
    left = np.asarray(Dropped(0.3)(KEY, pixels))
    lost = (left == 0).all(-1)
    assert lost.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(left[~lost], np.asarray(pixels)[~lost])


def test_grey_is_the_luma_that_pillow_makes():
    grey = np.asarray(Grey()(KEY, jnp.asarray(COLOURS / np.float32(255)))) * 255
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in COLOURS])
    assert (
        np.abs(grey[..., 0] - pillow).max() < 1.01
        and (np.abs(grey[..., 0] - pillow) < 0.01).mean() > 0.99
    )
    np.testing.assert_array_equal(grey, grey[..., :1].repeat(3, -1))
    with pytest.raises(
        ValueError, match=r"only images of 3 channels can be made grey, got \[40, 30, 30, 1\]"
    ):
        Grey()(KEY, GREYS)


def test_one_after_another_and_one_of_several():
    both = Chain((Noise(0.2), Dropped(0.5)))(KEY, GREYS)
    first = Noise(0.2)(jax.random.fold_in(KEY, 0), GREYS)
    np.testing.assert_array_equal(both, Dropped(0.5)(jax.random.fold_in(KEY, 1), first))
    kinds = (Dropped(0.1), Dropped(0.9))
    lost = np.asarray(OneOf(kinds)(KEY, GREYS) == 0).mean((1, 2, 3))
    assert set(np.round(lost, 1)) == {0.1, 0.9} and 10 < (lost > 0.5).sum() < 30


@pytest.mark.parametrize(
    "corrupt", [Noise(0.3), Dropped(0.3), Grey(), Chain((Grey(), Noise(0.1))), OneOf((Noise(0.3),))]
)
def test_the_same_key_does_the_same_and_batches_make_no_difference(corrupt):
    images = COLOURS.repeat(150, 0)
    once = corrupted(corrupt, KEY, images)
    assert once.dtype == np.float32 and once.shape == images.shape
    np.testing.assert_array_equal(corrupted(corrupt, KEY, images[:600]), once[:600])
    np.testing.assert_array_equal(corrupted(corrupt, KEY, images / np.float32(255)), once)
    if corrupt != Grey():
        assert not np.array_equal(once[0], once[1]) and not np.array_equal(
            corrupted(corrupt, jax.random.key(4), images), once
        )
    again = jax.jit(lambda key, numbers, pixels: corruptions.each(corrupt, key, numbers, pixels))(
        KEY, np.array([7], np.uint32), images[7:8] / np.float32(255)
    )
    np.testing.assert_allclose(again[0], once[7], atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), None),
        (("grey",), Grey()),
        (("noise:0.5",), Noise(0.5)),
        (("grey", "dropped:.3"), Chain((Grey(), Dropped(0.3)))),
    ],
)
def test_corruptions_from_words(texts, expected):
    assert parse(texts) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "blur:3",
            "cannot read the corruption 'blur:3'; "
            "expected noise:SIGMA like noise:0.5, dropped:0.3, or grey",
        ),
        ("noise", "cannot read the corruption 'noise'"),
        ("noise:", "cannot read"),
        ("noise:much", "cannot read"),
        ("grey:1", "cannot read"),
        ("", "cannot read"),
        ("noise:-1", "must be above 0, got -1"),
        ("noise:nan", "must be above 0, got nan"),
        ("noise:inf", "must be above 0, got inf"),
        ("dropped:1", "must lie between 0 and 1, got 1"),
        ("dropped:30", "must lie between 0 and 1, got 30"),
        ("dropped:nan", "must lie between 0 and 1, got nan"),
    ],
)
def test_nonsense_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse((text,))
