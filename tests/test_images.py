"""Image spaces and fluctuations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oipjax.images import blur_matrix, to_unit
from oipjax.spaces import (
    Box,
    Fluctuation,
    Fluctuations,
    Standardised,
    accepts_images,
    default_fluctuations,
    space_for,
    standardise,
)

SHAPE = (12, 10, 2)
SPACES = [Standardised(SHAPE), Box(SHAPE, (-1.0, 0.0), (2.0, 0.5))]


@pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)
class TestEverySpace:
    def test_starts_lie_in_the_domain(self, space):
        keys = jax.random.split(jax.random.key(0), 16)
        starts = jax.vmap(space.init)(keys)
        assert starts.shape == (16, *SHAPE) and starts.dtype == jnp.float32
        assert space.domain.contains(np.asarray(jax.vmap(space.render)(starts))).all()
        assert len({np.asarray(s).tobytes() for s in starts}) == 16

    def test_projection_leads_into_the_domain_and_stays(self, space):
        wild = 5 * jax.random.normal(jax.random.key(1), (8, *SHAPE)) + 3
        once = jax.vmap(space.project)(wild)
        assert not space.domain.contains(np.asarray(wild)).any()
        assert space.domain.contains(np.asarray(once)).all()
        np.testing.assert_allclose(jax.vmap(space.project)(once), once, atol=1e-5)

    def test_tangent_is_the_gradient_through_the_projection(self, space):
        z = space.project(3 * jax.random.normal(jax.random.key(2), SHAPE))
        g = jax.random.normal(jax.random.key(3), SHAPE)
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            z, g = (jnp.asarray(np.asarray(a), jnp.float64) for a in (z, g))
            z = z if isinstance(space, Box) else standardise(z)
            step = (np.asarray(space.project(z + 1e-6 * g)) - np.asarray(z)) / 1e-6
            # The clip moves no pixel out of the box; inside, and along the sphere, both are the
            # same first-order step.
            np.testing.assert_allclose(step, space.tangent(z, g), atol=1e-4)

    def test_equal_by_value(self, space):
        assert hash(space) == hash(eval(repr(space)))
        assert space == eval(repr(space))


def test_any_recipe_is_standardised_and_depends_on_its_key_alone():
    recipe = Fluctuations(
        (Fluctuation(((3, 3), (12, 10)), (1.0, 0.5)), Fluctuation(((7, 5),), (1.0,), 1.5))
    )
    keys = jax.random.split(jax.random.key(0), 64)
    batch = np.asarray(jax.vmap(lambda k: recipe.draw(k, SHAPE))(keys))
    np.testing.assert_allclose(batch.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(batch.std((1, 2, 3)), 1, atol=1e-4)
    which = np.asarray(jax.vmap(recipe.which)(keys))
    assert set(which.tolist()) == {0, 1}
    for i in (0, 5):
        np.testing.assert_allclose(recipe.draw(keys[i], SHAPE), batch[i], atol=1e-5)

    def roughness(images):
        return np.abs(np.diff(images, axis=1)).mean()

    assert roughness(batch[which == 1]) < 0.7 * roughness(batch[which == 0])


def test_zero_weights_do_not_matter():
    with_zero = Fluctuations((Fluctuation(((3, 3), (9, 9)), (0.2, 0.0)),))
    without = Fluctuations((Fluctuation(((3, 3),), (7.0,)),))
    key = jax.random.key(3)
    np.testing.assert_allclose(with_zero.draw(key, SHAPE), without.draw(key, SHAPE), atol=1e-6)


@given(st.floats(0, 3), st.integers(2, 9), st.integers(2, 9), st.floats(0.1, 9))
def test_recipes_survive_their_text(blur, h, w, weight):
    recipe = Fluctuation(((h, w), (5, 5)), (float(f"{weight:g}"), 1.0), float(f"{blur:g}"))
    assert Fluctuation.parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    "text", ["", "x", "3:", "3:1,", "3:-1", "0:1", "3:0", "3:nan", "3:1~-1", "3:1~x", "3:inf"]
)
def test_recipes_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match="recipe|weights|sizes|smoothing"):
        Fluctuation.parse(text) if text != "3:" else Fluctuation.parse("3:1:1")


def test_default_recipes_scale_with_the_image():
    sizes = {size for recipe in default_fluctuations((28, 28, 1)).recipes for size in recipe.sizes}
    assert sizes == {(3, 3), (7, 7), (14, 14), (28, 28)}
    assert (227, 227) in {
        size for recipe in default_fluctuations((227, 227, 3)).recipes for size in recipe.sizes
    }
    assert default_fluctuations((4, 4, 1)).recipes


def test_spaces_by_name(tiny, linear):
    box = space_for(linear, "box")
    assert isinstance(box, Box)
    np.testing.assert_allclose(box.low, [-0.5, -2.0], atol=1e-6)
    np.testing.assert_allclose(box.high, [1.5, 2.0], atol=1e-6)
    assert isinstance(space_for(tiny), Standardised)
    with pytest.raises(ValueError, match="there are standardised, box"):
        space_for(tiny, "cube")
    with pytest.raises(ValueError, match="low < high"):
        Box((4, 4, 1), (1.0,), (1.0,))
    with pytest.raises(ValueError, match="needs 2 ends"):
        Box((4, 4, 2), (0.0,), (1.0,))


@pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)
def test_an_image_becomes_a_start(space):
    image = 3 * jax.random.normal(jax.random.key(4), SHAPE) + 1
    z = space.from_image(image)
    assert accepts_images(space)
    np.testing.assert_array_equal(z, space.project(image))
    assert space.domain.contains(np.asarray(space.render(z))[None]).all()


def test_a_space_decides_for_itself_whether_it_accepts_images():
    class OneWay(Standardised):
        def from_image(self, image):
            return None

    assert not accepts_images(OneWay(SHAPE))


def test_pixels_are_scaled_once_and_blur_keeps_constants():
    pixels = np.arange(256, dtype=np.uint8)
    expected = pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(to_unit(pixels), expected)
    for array in (jnp.asarray(pixels), expected, jnp.asarray(expected), expected.astype(float)):
        scaled = to_unit(array)
        np.testing.assert_allclose(scaled, expected, rtol=1e-7)  # XLA multiplies by 1 / 255
        assert scaled.dtype == np.float32
    np.testing.assert_allclose(blur_matrix(1.5, 7).sum(1), 1)
    np.testing.assert_array_equal(blur_matrix(0, 4), np.eye(4))
    assert np.argmax(blur_matrix(0.8, 9), 1).tolist() == list(range(9))
