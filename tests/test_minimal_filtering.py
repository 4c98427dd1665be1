"""Proofs hold for convolutions by minimal filtering, in all forms and for extreme values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_rules import box, holds, network

from oipjax import ops
from oipjax.bounds import intervals

CHANNELS = 16
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("cancelling", [False, True])
def test_the_rounding_of_minimal_filtering_is_counted(padding, cancelling):
    """Against float64, on images whose sums cancel: there the outer sums lose most."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, 32, 16)).astype(np.float32)
    if cancelling:
        w[:, :, 1::2] = -w[:, :, ::2]
    model = network(lambda p, x: ops.conv2d(x, p["w"], padding=padding), (9, 8, 32), w=w)
    x = (1 + 1e-3 * rng.normal(size=(64, 9, 8, 32))).astype(np.float32)
    domain = box(9, 8, 32, low=float(x.min()), high=float(x.max()))
    error = intervals(model, domain)["pre"].error
    with jax.enable_x64(True):
        exact = jax.lax.conv_general_dilated(
            x.astype(np.float64),
            w.astype(np.float64),
            (1, 1),
            padding,
            dimension_numbers=DIMENSIONS,
        )
    lost = np.abs(
        np.asarray(jax.jit(model.apply)(model.params, x)["pre"], np.float64) - np.asarray(exact)
    )
    assert lost.max() > 0 and np.all(lost <= error)
    # Not much more is charged than the worst case costs.
    assert error.max() < 3000 * lost.max()
    holds(model, domain, x)


def as_it_is(p, x):
    return ops.conv2d(x * p["mask"], p["w"])[:, 2:3, 2:3]


def images_by_vmap(p, x):
    return jax.vmap(lambda image: ops.conv2d(image[None], p["w"])[0])(x * p["mask"])[:, 2:3, 2:3]


def groups_by_vmap(p, x):
    parts = jnp.stack([x * p["mask"]] * 2)
    out = jax.vmap(ops.conv2d)(parts, jnp.stack([p["w"], -p["w"]]))
    return jnp.concatenate(list(out), -1)[:, 2:3, 2:3]


def image_gradient(p, x):
    zeros = jnp.zeros((x.shape[0], 8, 8, CHANNELS))
    return jax.vjp(lambda z: ops.conv2d(z, p["w"], padding="SAME"), zeros)[1](x * p["mask"])[0][
        :, 3:4, 3:4
    ]


def kernel_of_the_image(p, x):
    image = jnp.ones((1, 8, 8, CHANNELS)) * p["mask"]
    rows = []
    for i in range(len(x)):
        kernel = p["w"] * x[i, 0, 0, 0]
        rows.append(ops.conv2d(image, kernel)[:, 2:3, 2:3])
    return jnp.concatenate(rows)


def pool_behind(p, x):
    return ops.conv_pool(x * p["mask"], p["w"], jnp.zeros(CHANNELS))[:, 1:2, 1:2]


@pytest.mark.parametrize(
    "function",
    [as_it_is, images_by_vmap, groups_by_vmap, image_gradient, kernel_of_the_image, pool_behind],
)
def test_a_map_that_only_rounding_lifts_above_zero_is_not_dead(function):
    """One pixel is not 0, and the kernel is 0 there: a plain sum is 0, minimal filtering rounds."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, CHANNELS, CHANNELS)).astype(np.float32)
    w[1, 1] = 0
    mask = np.zeros((1, 8, 8, 1), np.float32)
    mask[0, 3, 3] = 1
    model = network(function, (8, 8, CHANNELS), w=w, mask=mask)
    domain = box(8, 8, CHANNELS)
    count = 1 if function is kernel_of_the_image else 256
    images = rng.uniform(0, 1, (count, 8, 8, CHANNELS))
    holds(model, domain, images)
    if function is not pool_behind:
        assert np.any(
            np.asarray(jax.jit(model.apply)(model.params, images.astype(np.float32))["out"]) > 0
        ), "no test"


def test_a_kernels_gradient_in_a_network_is_refused():
    def kernel_gradient(p, x):
        return jax.vjp(lambda w: ops.conv2d(x, w), p["w"])[1](jnp.ones((1, 6, 6, CHANNELS)))[0]

    model = network(kernel_gradient, (8, 8, CHANNELS), w=np.ones((3, 3, CHANNELS, CHANNELS)))
    with pytest.raises(
        ValueError,
        match="no bound is known for the primitive 'kernel_gradient_by_minimal_filtering'",
    ):
        intervals(model, box(8, 8, CHANNELS))


@pytest.mark.parametrize("large", ["images", "kernel"])
def test_a_map_whose_transforms_overflow_is_unresolved(large):
    """Products and their sums are small; the transformed images or kernel are not."""
    w = np.zeros((3, 3, CHANNELS, CHANNELS), np.float32)
    w[1] = 1e-10 if large == "images" else 3e38
    high = 2.5e38 if large == "images" else 1e-9
    bias = np.full(CHANNELS, -1e33, np.float32)
    model = network(
        lambda p, x: ops.conv2d(x, p["w"]) + p["b"].reshape(1, 1, 1, -1),
        (8, 8, CHANNELS),
        w=w,
        b=bias,
    )
    images = np.zeros((1, 8, 8, CHANNELS))
    images[:, 1, 1:3] = high
    domain = box(8, 8, CHANNELS, high=high)
    bounds = holds(model, domain, images)
    assert not np.all(
        np.isfinite(jax.jit(model.apply)(model.params, images.astype(np.float32))["pre"])
    ), "no test"
    assert not bounds.dead.any() and np.all(np.isinf(intervals(model, domain)["pre"].high))


def test_numbers_flushed_to_zero_are_counted():
    rng = np.random.default_rng(0)
    tiny = 2.0**-126
    w = rng.integers(-1, 2, (3, 3, 64, CHANNELS)).astype(np.float32)
    model = network(lambda p, x: ops.conv2d(x, p["w"]), (8, 8, 64), w=w)
    domain = box(8, 8, 64, low=-1.75 * tiny, high=0.0)
    corners = np.where(rng.random((64, 8, 8, 64)) < 0.5, -1.75 * tiny, 0.0)
    holds(model, domain, corners)


def test_a_bound_is_never_below_that_of_a_plain_sum():
    """The same bound stands for programs that sum plainly: one map alone, other platforms."""
    rng = np.random.default_rng(0)
    w = 1e-3 * rng.normal(size=(3, 3, 64, CHANNELS)).astype(np.float32)
    w[1, 1] = 1
    domain = box(8, 8, 64)
    minimal = intervals(network(lambda p, x: ops.conv2d(x, p["w"]), (8, 8, 64), w=w), domain)["pre"]

    def plain(p, x):  # the same sums, as a product of patches and kernel
        patches = jnp.concatenate(
            [x[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3)], -1
        )
        return patches @ p["w"].reshape(-1, CHANNELS)

    assert np.all(
        minimal.error
        >= intervals(network(plain, (8, 8, 64), w=w), domain)["pre"].error * (1 - 1e-9)
    )
