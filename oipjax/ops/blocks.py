"""Convolutions by an `Algorithm` in blocks of 2x2 outputs, alone and with a pool behind them.

`whole` joins the block, `pooled` takes its maximum. Both work with every algorithm record: on the
CPU with the one that is given, on other platforms with the one that it names for them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from oipjax.ops.algorithm import SQUARE, Algorithm, join_block, split_block
from oipjax.ops.dispatch import (
    Implementation,
    WantedGradients,
    choose,
    isolated,
    wanted_gradients,
    without_bound,
)
from oipjax.ops.im2col import conv_elsewhere, conv_lax
from oipjax.ops.pooling import pool_lax, to_winners, winners
from oipjax.ops.products import add_bias
from oipjax.ops.windows import NO_PADS, Pads, output_size, padded, pads_to_even, without_border

_ONE = (1, 1)


class Residuals(NamedTuple):
    """Values that the backward pass needs.

    Attributes:
        x: images without a border.
        w: kernel.
        b: bias; None without a pool.
        transformed: the images, transformed; None where no gradient of the kernel is wanted.
        winner: the pool's winner of each block; None without a pool.
        wanted: gradients that are wanted.
    """

    x: Array
    w: Array
    b: Array | None
    transformed: Any
    winner: Array | None
    wanted: WantedGradients

    @classmethod
    def without_pool(cls, x: Array, w: Array, transformed: Any, wanted: WantedGradients):
        """Of a convolution alone."""
        return cls(x, w, None, transformed, None, wanted)


class Execution(NamedTuple):
    """How one platform computes: by which algorithm, and how its steps are kept apart."""

    algorithm: Algorithm
    isolate: Callable[..., Implementation]


def _on_cpu(algorithm: Algorithm) -> Execution:
    """Each step is stored, see `isolated`."""
    return Execution(algorithm, isolated)


def _elsewhere(algorithm: Algorithm) -> Execution:
    """XLA merges steps on other platforms by itself."""

    def inline(function, *, per_image=True):
        del per_image
        return function

    replacement = algorithm if algorithm.elsewhere is None else algorithm.elsewhere
    return Execution(replacement, inline)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def whole(algorithm: Algorithm, pads: Pads, x: Array, w: Array) -> Array:
    """A convolution of stride 1, ``[n, i, j, k]``, of ``x[n, h, w, c]`` and ``w[kh, kw, c, k]``."""

    def by_blocks(x, w):
        def outputs(kernel, x):
            return join_block(algorithm.block(kernel, algorithm.transform_input(x)))

        kernel = algorithm.transform_kernel(w)
        y = isolated(outputs)(kernel, _with_whole_blocks(pads, x, w))
        return _without_filling(pads, x, w, y)

    return choose(
        x,
        w,
        cpu=by_blocks,
        default=functools.partial(conv_elsewhere, _ONE, pads),
        for_tracing=functools.partial(conv_lax, _ONE, pads),
    )


def _whole_forward(algorithm, pads, x, w):
    (x, w), wanted = wanted_gradients(x, w)
    if not wanted.kernel:
        y = whole(algorithm, pads, x, w)
        return y, Residuals.without_pool(x, w, None, wanted)

    def by_blocks(x, w):
        def outputs(kernel, x):
            transformed = algorithm.transform_input(x)
            return join_block(algorithm.block(kernel, transformed)), transformed

        kernel = algorithm.transform_kernel(w)
        large = _with_whole_blocks(pads, x, w)
        y, transformed = isolated(outputs, per_image=False)(kernel, large)
        return _without_filling(pads, x, w, y), transformed

    def by_convolution(conv, x, w):
        y = conv(_ONE, pads, x, w)
        return y, _empty_transform(algorithm, _with_whole_blocks(pads, x, w))

    y, transformed = choose(
        x,
        w,
        cpu=by_blocks,
        default=functools.partial(by_convolution, conv_elsewhere),
        for_tracing=functools.partial(by_convolution, conv_lax),
    )
    return y, Residuals.without_pool(x, w, transformed, wanted)


def _whole_backward(algorithm, pads, residuals, dy):
    return choose(
        residuals,
        dy,
        cpu=functools.partial(_gradients, _on_cpu(algorithm), pads),
        default=functools.partial(_gradients_lax, algorithm, pads),
    )


whole.defvjp(_whole_forward, _whole_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pooled(algorithm: Algorithm, pads: Pads, x: Array, w: Array, b: Array) -> Array:
    """The maximum of each 2x2 square of a convolution of stride 1 plus a bias, ``[n, i, j, k]``."""

    def by_blocks(execution, x, w, b):
        algorithm = execution.algorithm

        def outputs(shared, x):
            return _maxima(algorithm, shared, algorithm.transform_input(x))[0]

        shared = (algorithm.transform_kernel(w), b)
        return execution.isolate(outputs)(shared, _without_dropped(pads, x, w))

    return choose(
        x,
        w,
        b,
        cpu=functools.partial(by_blocks, _on_cpu(algorithm)),
        default=functools.partial(by_blocks, _elsewhere(algorithm)),
        for_tracing=functools.partial(_pooled_lax, pads),
    )


def _pooled_forward(algorithm, pads, x, w, b):
    (x, w, b), wanted = wanted_gradients(x, w, b)
    keep = wanted.kernel

    def by_blocks(execution, x, w, b):
        algorithm = execution.algorithm

        def outputs(shared, x):
            transformed = algorithm.transform_input(x)
            y, winner = _maxima(algorithm, shared, transformed)
            return y, winner, transformed if keep else None

        shared = (algorithm.transform_kernel(w), b)
        step = execution.isolate(outputs, per_image=not keep)
        return step(shared, _without_dropped(pads, x, w))

    def elsewhere(x, w, b):
        y, winner, transformed = by_blocks(_elsewhere(algorithm), x, w, b)
        if keep and algorithm.elsewhere is not None:
            transformed = _empty_transform(algorithm, _without_dropped(pads, x, w))
        return y, winner, transformed

    def for_tracing(x, w, b):
        y = _pooled_lax(pads, x, w, b)
        winner = jnp.zeros(y.shape, jnp.uint8)
        if not keep:
            return y, winner, None
        return y, winner, _empty_transform(algorithm, _without_dropped(pads, x, w))

    y, winner, transformed = choose(
        x,
        w,
        b,
        cpu=functools.partial(by_blocks, _on_cpu(algorithm)),
        default=elsewhere,
        for_tracing=for_tracing,
    )
    return y, Residuals(x, w, b, transformed, winner, wanted)


def _pooled_backward(algorithm, pads, residuals, dy):
    dx, dw = choose(
        residuals,
        dy,
        cpu=functools.partial(_gradients, _on_cpu(algorithm), pads),
        default=functools.partial(_gradients, _elsewhere(algorithm), pads),
        for_tracing=functools.partial(_gradients_lax, algorithm, pads),
    )
    db = dy.sum((0, 1, 2)) if residuals.wanted.bias else None
    return dx, dw, db


pooled.defvjp(_pooled_forward, _pooled_backward, symbolic_zeros=True)


def _gradients(
    execution: Execution, pads: Pads, residuals: Residuals, dy: Array
) -> tuple[Array | None, Array | None]:
    """Gradients of images and kernel, by an algorithm; None where they are not wanted."""
    algorithm = execution.algorithm
    x, w, _, transformed, winner, wanted = residuals
    if not wanted.images and not wanted.kernel:
        return None, None
    with_border = _with_whole_blocks if winner is None else _without_dropped
    large = with_border(pads, x, w)

    def image_gradient(kernel, dy, winner):
        transformed_dy = algorithm.transform_output_gradient(_block_gradient(dy, winner))
        return algorithm.input_gradient(kernel, transformed_dy)

    def both_gradients(kernel, dy, winner, x, transformed):
        transformed_dy = algorithm.transform_output_gradient(_block_gradient(dy, winner))
        dx = algorithm.input_gradient(kernel, transformed_dy) if wanted.images else None
        return dx, algorithm.kernel_gradient(x, transformed, transformed_dy, w.shape)

    kernel = algorithm.transform_kernel(w, transposed=True) if wanted.images else ()
    if wanted.kernel:
        step = execution.isolate(both_gradients, per_image=False)
        large_dx, dw = step(kernel, dy, winner, large, transformed)
    else:
        large_dx = execution.isolate(image_gradient)(kernel, dy, winner)
        dw = None
    dx = None if large_dx is None else without_border(large_dx, x.shape, pads)
    return dx, dw


def _gradients_lax(
    algorithm: Algorithm, pads: Pads, residuals: Residuals, dy: Array
) -> tuple[Array | None, Array | None]:
    """Gradients of images and kernel, by ``lax``; None where they are not wanted."""
    x, w, b, _, winner, wanted = residuals
    if winner is None:
        convolution = functools.partial(conv_lax, _ONE, pads)
        _, pull = jax.vjp(convolution, x, w)
        dx, dw = pull(dy)
    else:
        convolution_and_pool = functools.partial(_pooled_lax, pads)
        _, pull = jax.vjp(convolution_and_pool, x, w, b)
        dx, dw, _ = pull(dy)
    if algorithm.elsewhere is not None and wanted.kernel:
        # The gradient of the images is bounded as the convolution that it is.
        dw = without_bound(dw)
    return dx if wanted.images else None, dw if wanted.kernel else None


def _block_gradient(dy: Array, winner: Array | None) -> list[Array]:
    """Gradient of the block from that of the joined outputs or, with a winner, of the pool."""
    if winner is None:
        return split_block(dy)
    return to_winners(winner, dy, 4)


def _maxima(algorithm, shared, transformed):
    """The pool's outputs, and the winner of each block."""
    kernel, b = shared
    y, winner = winners(algorithm.block(kernel, transformed))
    return add_bias(y, b), winner


def _pooled_lax(pads, x, w, b):
    """Convolution, bias and pool of ``lax``."""
    y = conv_lax(_ONE, pads, x, w)
    return pool_lax(SQUARE, SQUARE, add_bias(y, b))


def _empty_transform(algorithm, x):
    """Zeros in place of the transformed images, for implementations that do not transform them."""

    def zeros(part):
        return jnp.zeros(part.shape, part.dtype)

    shapes = jax.eval_shape(algorithm.transform_input, x)
    return jax.tree.map(zeros, shapes)


def _with_whole_blocks(pads, x, w):
    """Images with their border, enlarged where the outputs would not fill whole blocks."""
    size_without_pads = output_size(x.shape, w.shape[:2], _ONE, NO_PADS)
    return padded(x, pads_to_even(size_without_pads, pads))


def _without_filling(pads, x, w, y):
    """The outputs of `_with_whole_blocks` without those that the enlarged border has added."""
    height, width = output_size(x.shape, w.shape[:2], _ONE, pads)
    return y[:, :height, :width]


def _without_dropped(pads, x, w):
    """Images with their border, without the row or column that the pool drops."""
    (top, bottom), (left, right) = pads
    height, width = output_size(x.shape, w.shape[:2], _ONE, pads)
    bottom -= height % 2
    right -= width % 2
    return padded(x, ((top, bottom), (left, right)))
