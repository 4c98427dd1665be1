"""Convolutions as patches times a matrix, and their gradients; see `oipjax.ops`."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops.dispatch import choose, wanted_gradients
from oipjax.ops.products import product
from oipjax.ops.windows import (
    Pads,
    Pair,
    offsets,
    output_size,
    padded,
    padded_size,
    spread,
    strided,
    without_border,
)

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_PIXELS = (0, 1, 2)
_SUMS_OF_FLOAT32 = ("highest", "float32")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv(stride: Pair, pads: Pads, x: Array, w: Array) -> Array:
    """``[n, i, j, k]`` of ``x[n, h, w, c]`` and ``w[kh, kw, c, k]``."""
    return choose(
        x,
        w,
        cpu=functools.partial(conv_patches, stride, pads),
        default=functools.partial(conv_elsewhere, stride, pads),
        for_tracing=functools.partial(conv_lax, stride, pads),
    )


def _conv_forward(stride, pads, x, w):
    (x, w), wanted = wanted_gradients(x, w)
    return conv(stride, pads, x, w), (x, w, wanted)


def _conv_backward(stride, pads, residuals, dy):
    x, w, wanted = residuals
    dx = _image_gradient(stride, pads, x.shape, dy, w) if wanted.images else None
    dw = _kernel_gradient(stride, pads, w.shape, dy, x) if wanted.kernel else None
    return dx, dw


conv.defvjp(_conv_forward, _conv_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def conv_transpose(stride: Pair, pads: Pads, size: Pair, y: Array, w: Array) -> Array:
    """``[n, *size, c]`` of ``y[n, i, j, k]`` and ``w[kh, kw, c, k]``."""
    large = (y.shape[0], *size, w.shape[2])
    return _image_gradient(stride, pads, large, y, w)


def _transpose_forward(stride, pads, size, y, w):
    (y, w), wanted = wanted_gradients(y, w)
    return conv_transpose(stride, pads, size, y, w), (y, w, wanted)


def _transpose_backward(stride, pads, size, residuals, dx):
    y, w, wanted = residuals
    dy = conv(stride, pads, dx, w) if wanted.images else None
    dw = _kernel_gradient(stride, pads, w.shape, y, dx) if wanted.kernel else None
    return dy, dw


conv_transpose.defvjp(_transpose_forward, _transpose_backward, symbolic_zeros=True)


def conv_elsewhere(stride: Pair, pads: Pads, x: Array, w: Array) -> Array:
    """The convolution on other platforms than the CPU: at full precision patches, else the library.

    At full precision patches take as long as the library's convolution (measured on an H200 with
    3x3 kernels), but as many times the memory as a kernel has places. A library may choose a
    Fourier transform, or minimal filtering, and then rounds more than bounds allow for.
    """
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]  # noqa: TID251  (it is only read)
    if precision in _SUMS_OF_FLOAT32:
        return conv_patches(stride, pads, x, w)
    return conv_lax(stride, pads, x, w)


def conv_lax(stride: Pair, pads: Pads, x: Array, w: Array) -> Array:
    """The convolution of ``lax``."""
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_DIMENSIONS)


def conv_patches(stride: Pair, pads: Pads, x: Array, w: Array) -> Array:
    """The convolution as a product of matrices."""
    patches = _patches(x, w.shape[:2], stride, pads)
    matrix = w.reshape(-1, w.shape[3])
    return product(patches, matrix, axes=(3, 0))


def _image_gradient(stride, pads, shape, dy, w):
    """Gradient of images of a shape, from that of the outputs."""

    def elsewhere(dy, w):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        transpose = jax.linear_transpose(lambda x: conv_lax(stride, pads, x, w), x)
        return transpose(dy)[0]

    by_patches = functools.partial(_conv_patches_transposed, stride, pads, shape)
    return choose(dy, w, cpu=by_patches, default=elsewhere)


def _kernel_gradient(stride, pads, shape, dy, x):
    """Gradient of a kernel of a shape, from that of the outputs."""

    def by_patches(dy, x):
        patches = _patches(x, shape[:2], stride, pads)
        summed = (_PIXELS, _PIXELS)
        flat = lax.dot_general(patches, dy, (summed, ((), ())))
        return flat.reshape(shape)

    def elsewhere(dy, x):
        w = jax.ShapeDtypeStruct(shape, x.dtype)
        transpose = jax.linear_transpose(lambda w: conv_lax(stride, pads, x, w), w)
        return transpose(dy)[0]

    return choose(dy, x, cpu=by_patches, default=elsewhere)


def _patches(x, window, stride, pads):
    """im2col: ``[n, i, j, kh * kw * c]``, ordered as the rows of a reshaped HWIO kernel."""
    size = output_size(x.shape, window, stride, pads)
    x = padded(x, pads)
    parts = [strided(x, offset, stride, size) for offset in offsets(window)]
    return lax.concatenate(parts, 3)


def _conv_patches_transposed(stride, pads, shape, dy, w):
    """Transpose of `conv_patches`: images of a shape from outputs."""
    n, height, width, c = shape
    bordered = (n, *padded_size((height, width), pads), c)
    matrix = w.reshape(-1, w.shape[3])
    columns = product(dy, matrix, axes=(3, 1))
    parts = []
    for place, offset in enumerate(offsets(w.shape[:2])):
        first = place * c
        column = lax.slice_in_dim(columns, first, first + c, axis=3)
        parts.append(spread(column, offset, stride, bordered))
    total = functools.reduce(jnp.add, parts)
    return without_border(total, shape, pads)
