"""Max pooling; see `oipjax.ops`."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops.windows import (
    Padding,
    choose,
    looked_at,
    offsets,
    pads_of,
    size_of,
    spread,
    strided,
    to_winners,
    winners,
)


def max_pool(
    x: Array,
    window: tuple[int, int] = (2, 2),
    stride: tuple[int, int] | None = None,
    padding: Padding = "VALID",
) -> Array:
    """Maximum over windows of ``x[n, h, w, c]``; the gradient goes to the first maximum of each window, as in ``lax``.

    Args:
        x: ``[n, h, w, c]``.
        window: height and width of the window, in pixels.
        stride: steps along h and w; the window's size unless given.
        padding: ``"VALID"``, ``"SAME"`` or explicit pairs; the border is filled with minus
            infinity.

    Returns:
        ``[n, i, j, c]``.

    Raises:
        ValueError: ``x`` is not of rank 4, or the window is larger than the padded image.
    """
    if x.ndim != 4:
        raise ValueError(f"max_pool expects x[n, h, w, c], got {x.shape}")
    stride = window if stride is None else stride
    pads = pads_of(x.shape, window, stride, padding)
    if any(map(any, pads)):
        x = lax.pad(
            x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0))
        )
    return _max_pool(tuple(window), tuple(stride), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(window, stride, x):
    def cpu(x):
        return functools.reduce(jnp.maximum, _slices(window, stride, x))

    return choose(x, cpu=cpu, default=functools.partial(pool_lax, window, stride))


def pool_lax(window, stride, x):
    """As XLA has it."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), "VALID")


def _slices(window, stride, x):
    out = size_of(x.shape, window, stride, ((0, 0), (0, 0)))
    return [strided(x, offset, stride, out) for offset in offsets(window)]


def _max_pool_forward(window, stride, x):
    # The winner of each window is one byte. NaN wins nothing: its gradient goes to the first pixel,
    # in lax to the last.
    y, winner = winners(_slices(window, stride, x))
    # Kept from XLA, which would rather find the winners again, in the backward pass, at the full
    # resolution.
    return y, (lax.optimization_barrier(winner), x)


def _max_pool_backward(window, stride, residuals, dy):
    winner, x = residuals

    def by_winner(dy, winner, x):
        if window == stride:
            return _unpool(window, dy, winner, x.shape)
        parts = to_winners(winner, dy, len(offsets(window)))
        return sum(
            spread(g, offset, stride, x.shape)
            for g, offset in zip(parts, offsets(window), strict=True)
        )

    def seen(dy, winner, x):
        return jax.vjp(functools.partial(pool_lax, window, stride), x)[1](dy)[0]

    return (seen(dy, winner, x) if looked_at() else by_winner(dy, winner, x),)


def _unpool(window, dy, winner, shape):
    """``dy`` at the winners and 0 elsewhere, for windows that tile the image: one compare and select per pixel."""
    n, h, w, c = dy.shape
    index = jnp.arange(window[0] * window[1], dtype=winner.dtype).reshape(
        1, 1, window[0], 1, window[1], 1
    )
    wide = jnp.where(winner[:, :, None, :, None, :] == index, dy[:, :, None, :, None, :], 0)
    dx = wide.reshape(n, h * window[0], w * window[1], c)
    rest = ((0, 0), (0, shape[1] - dx.shape[1]), (0, shape[2] - dx.shape[2]), (0, 0))
    return jnp.pad(dx, rest)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
