"""Convolutions by large tiles: values and gradients of lax, with more rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from oipjax import ops
from oipjax.ops.toom_cook import interpolation


@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
def test_an_interpolation_is_a_correlation(outputs):
    matrices = interpolation(outputs)
    rng = np.random.default_rng(0)
    d, g = rng.normal(size=outputs + 2), rng.normal(size=3)
    assert len(matrices.input_matrix) == outputs + 2
    products = (matrices.kernel_matrix @ g) * (matrices.input_matrix @ d)
    np.testing.assert_allclose(
        matrices.output_matrix @ products, np.correlate(d, g), rtol=1e-12, atol=1e-12
    )


def plain(x, w, b, padding, pool):
    y = lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y + b.reshape(1, 1, 1, -1)
    return (
        lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") if pool else y
    )


def fast(x, w, b, padding, pool):
    with ops.allow_extra_rounding():
        if pool:
            return ops.conv_pool(x, w, b, padding)
        return ops.conv2d(x, w, (1, 1), padding) + b.reshape(1, 1, 1, -1)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((2, 0), (1, 3)), ((-1, 0), (0, -1))])
@pytest.mark.parametrize("size", [(6, 7), (12, 12), (13, 24)])
def test_values_and_gradients_are_those_of_lax(size, padding, pool):
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in ((3, *size, 16), (3, 3, 16, 20), (20,))]

    def computed(function, dtype):
        y, back = jax.vjp(
            lambda *a: function(*a, padding, pool), *(jnp.asarray(a, dtype) for a in given)
        )
        return y, *back(jnp.cos(jnp.arange(y.size, dtype=dtype)).reshape(y.shape))

    with jax.enable_x64(True):
        exact = computed(plain, jnp.float64)
        precise = computed(fast, jnp.float64)
    for mine, other in zip(precise, exact, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-11)
    for mine, other in zip(computed(fast, jnp.float32), exact, strict=True):
        assert mine.shape == other.shape
        assert (
            np.abs(np.asarray(mine, np.float64) - np.asarray(other)).max()
            < 3e-5 * np.abs(np.asarray(other)).max()
        )


def test_large_tiles_are_used_where_allowed_and_where_they_gain():
    def text(function, *shapes):
        return str(
            jax.make_jaxpr(function)(
                *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
            )
        )

    shapes = (2, 12, 12, 16), (3, 3, 16, 20)
    places = "f32[49,"
    assert places not in text(ops.conv2d, *shapes)
    with ops.allow_extra_rounding():
        assert places in text(lambda x, w: ops.conv2d(x, w), *shapes)
        assert places not in text(lambda x, w: ops.conv2d(x, w, (2, 2)), *shapes)
        assert places in text(lambda x, w, b: ops.conv_pool(x, w, b), *shapes, (20,))
        assert places not in text(lambda x, w: ops.conv2d(x, w), (2, 12, 12, 1), (3, 3, 1, 20))
        assert places not in text(lambda x, w: ops.conv2d(x, w), (2, 40, 40, 16), (3, 3, 16, 20)), (
            "too many tiles"
        )
        with ops.trace_only():
            assert places not in text(lambda x, w: ops.conv2d(x, w, padding="SAME"), *shapes)
        with ops.compiled_for("gpu"):
            assert places not in text(lambda x, w: 2 * ops.conv2d(x, w), *shapes)
    assert places not in text(lambda x, w: ops.conv2d(x, w), *shapes)
