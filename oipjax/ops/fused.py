"""A convolution and the 2x2 pool behind it in one; see `oipjax.ops`."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from oipjax.ops import direct, winograd
from oipjax.ops.common import Padding, asked, choose, padded, pads_of, size_of, step, uncovered
from oipjax.ops.convolution import conv2d, conv_lax
from oipjax.ops.pooling import max_pool, pool_lax

PAIR = (2, 2)


def conv_pool(x: Array, w: Array, b: Array, padding: Padding = "VALID") -> Array:
    """``max_pool(conv2d(x, w, padding=padding) + b)``, in windows of 2x2, up to rounding.

    On the CPU, where the convolution is a short sum or fits `winograd`, its outputs come as four arrays, one for each
    place in the window, and are never put together.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c, k]``.
        b: bias, ``[k]``.
        padding: of the convolution.

    Returns:
        ``[n, i, j, k]``.

    Raises:
        ValueError: as `conv2d` and `max_pool`.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2] or b.shape != w.shape[3:]:
        raise ValueError(
            "conv_pool expects x[n, h, w, c], w[kh, kw, c, k] and b[k] with equal c and k, "
            f"got {x.shape}, {w.shape} and {b.shape}"
        )
    pads = pads_of(x.shape, w.shape[:2], (1, 1), padding)
    size = size_of(x.shape, w.shape[:2], (1, 1), pads)
    for way in (direct, winograd):
        if min(size) >= 2 and way.fits(w.shape, (1, 1), size):
            return _conv_pool(way, pads, x, w, b)
    return max_pool(conv2d(x, w, padding=pads) + b.reshape(1, 1, 1, -1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv_pool(way, pads, x, w, b):
    """``way`` is a module, `direct` or `winograd`; both have the same functions."""

    def cpu(x, w, b):
        return step(lambda shared, x: _pooled(way, shared, x)[0])((way.prepared(w), b), _seen(pads, x, w))

    return choose(x, w, b, cpu=cpu, default=functools.partial(_lax, pads))


def _forward(way, pads, x, w, b):
    (x, w, b), wanted = asked(x, w, b)

    def cpu(x, w, b):
        return step(lambda shared, x: _pooled(way, shared, x))((way.prepared(w), b), _seen(pads, x, w))

    def other(x, w, b):
        y = _lax(pads, x, w, b)
        return y, jnp.zeros(y.shape, jnp.uint8)

    y, winner = choose(x, w, b, cpu=cpu, default=other)
    return y, (winner, x, w, b, wanted)


def _backward(way, pads, residuals, dy):
    winner, x, w, b, (images, kernel, bias) = residuals

    def cpu_image(dy, winner, x, w, b):
        def gradient(shared, dy, winner):
            return way.image_gradient(shared, _masked(dy, winner))

        return uncovered(step(gradient)(way.prepared(w, transposed=True), dy, winner), x.shape, pads)

    def cpu_kernel(dy, winner, x, w, b):
        def gradient(_, dy, winner, x):
            return way.kernel_gradient(x, _masked(dy, winner), w.shape)

        return step(gradient, of_each=False)((), dy, winner, _seen(pads, x, w))

    def other(which):
        return lambda dy, winner, x, w, b: jax.vjp(functools.partial(_lax, pads), x, w, b)[1](dy)[which]

    given = (dy, winner, x, w, b)
    return (
        None if images is None else choose(*given, cpu=cpu_image, default=other(0)),
        None if kernel is None else choose(*given, cpu=cpu_kernel, default=other(1)),
        None if bias is None else dy.sum((0, 1, 2)),
    )


_conv_pool.defvjp(_forward, _backward, symbolic_zeros=True)


def _lax(pads, x, w, b):
    return pool_lax(PAIR, PAIR, conv_lax((1, 1), pads, x, w) + b.reshape(1, 1, 1, -1))


def _seen(pads, x, w):
    """The images with their border, without the row or column that only what the pool drops would see."""
    (top, bottom), (left, right) = pads
    odd = [n % 2 for n in size_of(x.shape, w.shape[:2], (1, 1), pads)]
    return padded(x, ((top, bottom - odd[0]), (left, right - odd[1])))


def _pooled(way, shared, x):
    """The pool's output, and which of the four it is: the first of equals; of NaN the first one."""
    kernel, b = shared
    parts = way.quartet(kernel, x)
    y = functools.reduce(jnp.maximum, parts)
    winner = jnp.zeros(y.shape, jnp.uint8)
    for index in range(3, -1, -1):
        winner = jnp.where(parts[index] == y, jnp.array(index, jnp.uint8), winner)
    return y + b.reshape(1, 1, 1, -1), winner


def _masked(dy, winner):
    """The gradients of the four: that of the pool at the winner, 0 at the others."""
    return [jnp.where(winner == index, dy, 0) for index in range(4)]
