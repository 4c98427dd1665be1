"""Convolutions whose outputs come as four arrays, one for each place in a square of 2x2, and what is made of them.

Of such a *quartet* a pool is the maximum, and the whole output is made by putting it together.
Three modules know how to compute one, each its own *way*: `direct`, `winograd`, and `plain`, which
takes its place on other platforms than the CPU. All have the same functions. Words: ``x`` are
images with their border, ``i, j`` squares, ``cut`` is what becomes of the images on the way and
serves the kernel's gradient too, ``sides`` what becomes of the quartet's gradient and serves both
gradients.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from oipjax.ops import library as plain
from oipjax.ops import winograd
from oipjax.ops.im2col import conv_elsewhere, conv_lax
from oipjax.ops.pooling import pool_lax
from oipjax.ops.windows import (
    Pads,
    asked,
    choose,
    even,
    interleaved,
    padded,
    parted,
    size_of,
    step,
    to_winners,
    uncovered,
    unproved,
    winners,
)

PAIR = (2, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def whole(way: ModuleType, pads: Pads, x: Array, w: Array) -> Array:
    """A convolution of stride 1, ``[n, i, j, k]``, by the quartets of ``way``."""

    def cpu(x, w):
        size = size_of(x.shape, w.shape[:2], (1, 1), pads)
        out = step(lambda kernel, x: interleaved(way.quartet(kernel, way.cut(x))))
        return out(way.prepared(w), _large(pads, x, w))[:, : size[0], : size[1]]

    other, seen = (functools.partial(way, (1, 1), pads) for way in (conv_elsewhere, conv_lax))
    return choose(x, w, cpu=cpu, default=other, seen=seen)


def _whole_forward(way, pads, x, w):
    (x, w), wanted = asked(x, w)
    if wanted[1] is None:
        return whole(way, pads, x, w), (x, w, None, wanted)

    def cpu(x, w):
        def outputs(kernel, x):
            cut = way.cut(x)
            return interleaved(way.quartet(kernel, cut)), cut

        size = size_of(x.shape, w.shape[:2], (1, 1), pads)
        y, cut = step(outputs, of_each=False)(way.prepared(w), _large(pads, x, w))
        return y[:, : size[0], : size[1]], cut

    def by(conv, x, w):
        return conv((1, 1), pads, x, w), _nothing(way, _large(pads, x, w))

    other, seen = functools.partial(by, conv_elsewhere), functools.partial(by, conv_lax)
    y, cut = choose(x, w, cpu=cpu, default=other, seen=seen)
    return y, (x, w, cut, wanted)


def _whole_backward(way, pads, residuals, dy):
    x, w, cut, wanted = residuals
    by_way = functools.partial(_gradients, way, step, pads, lambda _, dy: parted(dy), wanted)
    by_lax = functools.partial(
        _gradients_lax, way, functools.partial(conv_lax, (1, 1), pads), wanted
    )
    return choose(
        x, w, cut, dy,
        cpu=lambda x, w, cut, dy: by_way(x, w, cut, dy), default=lambda x, w, cut, dy: by_lax(dy, x, w),
    )  # fmt: skip


whole.defvjp(_whole_forward, _whole_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pooled(way: ModuleType, pads: Pads, x: Array, w: Array, b: Array) -> Array:
    """A convolution of stride 1 plus a bias, and the maximum of each square of 2x2, ``[n, i, j, k]``."""

    def by(way, step, x, w, b):
        return step(lambda shared, x: _maxima(way, shared, way.cut(x))[0])(
            (way.prepared(w), b), _seen(pads, x, w)
        )

    cpu, other = functools.partial(by, way, step), functools.partial(by, _elsewhere(way), _inline)
    return choose(x, w, b, cpu=cpu, default=other, seen=functools.partial(_pooled_lax, pads))


def _pooled_forward(way, pads, x, w, b):
    (x, w, b), wanted = asked(x, w, b)
    keeps = wanted[1] is not None

    def outputs(way, step, keeps, x, w, b):
        def both(shared, x):
            cut = way.cut(x)
            return *_maxima(way, shared, cut), cut if keeps else None

        return step(both, of_each=not keeps)((way.prepared(w), b), _seen(pads, x, w))

    def other(x, w, b):
        y, winner, cut = outputs(_elsewhere(way), _inline, keeps, x, w, b)
        return y, winner, _nothing(way, _seen(pads, x, w)) if keeps and way is winograd else cut

    def seen(x, w, b):
        y = _pooled_lax(pads, x, w, b)
        return y, jnp.zeros(y.shape, jnp.uint8), _nothing(way, _seen(pads, x, w)) if keeps else None

    y, winner, cut = choose(
        x, w, b, cpu=functools.partial(outputs, way, step, keeps), default=other, seen=seen
    )
    return y, (x, w, b, cut, winner, wanted)


def _pooled_backward(way, pads, residuals, dy):
    x, w, b, cut, winner, wanted = residuals
    by_way = functools.partial(_gradients, way, step, pads, _masked, wanted[:2])
    otherwise = functools.partial(_gradients, _elsewhere(way), _inline, pads, _masked, wanted[:2])
    by_lax = functools.partial(
        _gradients_lax, way, functools.partial(_pooled_lax, pads), wanted[:2]
    )
    dx, dw = choose(
        x, w, b, cut, winner, dy,
        cpu=lambda x, w, b, cut, winner, dy: by_way(x, w, cut, dy, winner),
        default=lambda x, w, b, cut, winner, dy: otherwise(x, w, cut, dy, winner),
        seen=lambda x, w, b, cut, winner, dy: by_lax(dy, x, w, b),
    )  # fmt: skip
    return dx, dw, None if wanted[2] is None else dy.sum((0, 1, 2))


pooled.defvjp(_pooled_forward, _pooled_backward, symbolic_zeros=True)


def _elsewhere(way: ModuleType) -> ModuleType:
    """The way that takes its place on other platforms."""
    return plain if way is winograd else way


def _inline(function, **_):
    """In place of `step`, where XLA makes one loop of all by itself."""
    return function


def _gradients(
    way, step, pads, quartet_of, wanted, x, w, cut, dy, winner=None
) -> tuple[Array | None, Array | None]:
    """Of images and kernel, as far as they are wanted; ``quartet_of(winner, dy)`` is the gradient of the quartet."""
    images, kernel = (mark is not None for mark in wanted)
    if not images and not kernel:
        return None, None
    seen = _large(pads, x, w) if winner is None else _seen(pads, x, w)

    def image_gradient(turned, dy, winner):
        return way.image_gradient(turned, way.sides(quartet_of(winner, dy)))

    def both(turned, dy, winner, x, cut):
        sides = way.sides(quartet_of(winner, dy))
        large = way.image_gradient(turned, sides) if images else None
        return large, way.kernel_gradient(x, cut, sides, w.shape)

    turned = way.prepared(w, transposed=True) if images else ()
    if kernel:
        large, dw = step(both, of_each=False)(turned, dy, winner, seen, cut)
    else:
        large, dw = step(image_gradient)(turned, dy, winner), None
    return None if large is None else uncovered(large, x.shape, pads), dw


def _gradients_lax(way, function, wanted, dy, *given) -> tuple[Array | None, Array | None]:
    gradients = jax.vjp(function, *given)[1](dy)
    dx, dw = (
        None if mark is None else gradient
        for mark, gradient in zip(wanted, gradients, strict=False)
    )
    # Images, and their gradients, are bounded as the convolutions that they are.
    return dx, unproved(dw) if dw is not None and way is winograd else dw


def _nothing(way, x) -> Any:
    """In place of the cut, where nobody makes one."""
    return jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), jax.eval_shape(way.cut, x))


def _pooled_lax(pads, x, w, b):
    return pool_lax(PAIR, PAIR, conv_lax((1, 1), pads, x, w) + b.reshape(1, 1, 1, -1))


def _large(pads, x, w):
    """The images with their border, and more of it where there would be an odd number of outputs."""
    low = [size - kernel + 1 for size, kernel in zip(x.shape[1:3], w.shape, strict=False)]
    return padded(x, even((low[0], low[1]), pads))


def _seen(pads, x, w):
    """The images with their border, without the row or column that only what the pool drops would see."""
    (top, bottom), (left, right) = pads
    odd = [n % 2 for n in size_of(x.shape, w.shape[:2], (1, 1), pads)]
    return padded(x, ((top, bottom - odd[0]), (left, right - odd[1])))


def _maxima(way, shared, cut):
    """The pool's output, and which of the four it is: the first of equals; of NaN the first one."""
    kernel, b = shared
    y, winner = winners(way.quartet(kernel, cut))
    return y + b.reshape(1, 1, 1, -1), winner


def _masked(winner, dy):
    """The gradients of the four: that of the pool at the winner, 0 at the others."""
    return to_winners(winner, dy, 4)
