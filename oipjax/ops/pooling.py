"""Max pooling; see `oipjax.ops`."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops.dispatch import choose, lowering
from oipjax.ops.windows import (
    NO_PADS,
    Padding,
    Pair,
    offsets,
    output_size,
    pad_sides,
    pads_of,
    spread,
    strided,
)


def max_pool(
    x: Array,
    window: Pair = (2, 2),
    stride: Pair | None = None,
    padding: Padding = "VALID",
) -> Array:
    """Maximum over windows of ``x[n, h, w, c]``.

    The gradient goes to the first maximum of each window, as in ``lax``.

    Args:
        x: images, ``[n, h, w, c]``.
        window: height and width of the window, in pixels.
        stride: steps along h and w. It is the window's size unless given.
        padding: ``"VALID"``, ``"SAME"`` or explicit pairs; the border is filled with minus
            infinity.

    Returns:
        ``[n, i, j, c]``.

    Raises:
        ValueError: ``x`` is not of rank 4, a stride is below 1, or the window is larger than the
            padded image.
    """
    if x.ndim != 4:
        raise ValueError(f"max_pool expects x[n, h, w, c], got {x.shape}")
    stride = window if stride is None else stride
    pads = pads_of(x.shape, window, stride, padding)
    if any(map(any, pads)):
        vertical, horizontal = pads
        lowest = jnp.array(-jnp.inf, x.dtype)
        # The third number is the gap between pixels.
        x = pad_sides(x, lowest, (*vertical, 0), (*horizontal, 0))
    return _max_pool(tuple(window), tuple(stride), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(window, stride, x):
    def on_cpu(x):
        return functools.reduce(jnp.maximum, _slices(window, stride, x))

    return choose(x, cpu=on_cpu, default=functools.partial(pool_lax, window, stride))


def _max_pool_forward(window, stride, x):
    # The winner of each window is one byte. NaN wins nothing: its gradient goes to the first pixel,
    # in lax to the last.
    y, winner = winners(_slices(window, stride, x))
    # The barrier keeps XLA from finding the winners again in the backward pass, at the full
    # resolution.
    return y, (lax.optimization_barrier(winner), x)


def _max_pool_backward(window, stride, residuals, dy):
    winner, x = residuals
    if lowering().trace_only:
        pool = functools.partial(pool_lax, window, stride)
        return jax.vjp(pool, x)[1](dy)
    if window == stride:
        return (_unpool(window, dy, winner, x.shape),)
    places = offsets(window)
    gradients = to_winners(winner, dy, len(places))
    parts = (
        spread(gradient, offset, stride, x.shape)
        for gradient, offset in zip(gradients, places, strict=True)
    )
    return (sum(parts),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def pool_lax(window: Pair, stride: Pair, x: Array) -> Array:
    """The pooling of ``lax``."""
    windows = (1, *window, 1)
    strides = (1, *stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, windows, strides, "VALID")


def winners(parts: Sequence[Array]) -> tuple[Array, Array]:
    """The maximum of arrays of one shape, and the index of the array that has it.

    Of equal values the first one wins. Where the maximum is NaN, the index is 0.
    """
    best = functools.reduce(jnp.maximum, parts)
    dtype = jnp.uint8 if len(parts) < 256 else jnp.uint32
    winner = jnp.zeros(best.shape, dtype)
    for index in reversed(range(len(parts))):
        is_best = parts[index] == best
        winner = jnp.where(is_best, jnp.array(index, winner.dtype), winner)
    return best, winner


def to_winners(winner: Array, dy: Array, count: int) -> list[Array]:
    """Transpose of `winners`: the gradient of each of ``count`` arrays, 0 where it did not win."""
    return [jnp.where(winner == index, dy, 0) for index in range(count)]


def _slices(window, stride, x):
    """For each position in the window, the pixels there, ``[n, i, j, c]``."""
    size = output_size(x.shape, window, stride, NO_PADS)
    return [strided(x, offset, stride, size) for offset in offsets(window)]


def _unpool(window, dy, winner, shape):
    """``dy`` at the winners and 0 elsewhere, for windows that tile the image.

    This takes one comparison and one selection per pixel.
    """
    n, i, j, c = dy.shape
    rows, columns = window
    places = jnp.arange(rows * columns, dtype=winner.dtype)
    places = places.reshape(1, 1, rows, 1, columns, 1)
    is_winner = _with_window_axes(winner) == places
    wide = jnp.where(is_winner, _with_window_axes(dy), 0)
    dx = wide.reshape(n, i * rows, j * columns, c)
    below = (0, shape[1] - dx.shape[1])
    right = (0, shape[2] - dx.shape[2])
    none = (0, 0)
    return jnp.pad(dx, (none, below, right, none))


def _with_window_axes(x):
    """``[n, i, j, c]`` as ``[n, i, 1, j, 1, c]``."""
    return x[:, :, None, :, None, :]
