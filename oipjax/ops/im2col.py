"""Convolutions as patches times a matrix, and their gradients; see `oipjax.ops`."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from oipjax.ops.windows import asked, choose, offsets, padded, size_of, spread, strided, uncovered

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv(stride, pads, x, w):
    """``[n, i, j, k]`` of ``x[n, h, w, c]`` and ``w[kh, kw, c, k]``."""
    cpu, default, seen = (
        functools.partial(way, stride, pads) for way in (conv_patches, conv_elsewhere, conv_lax)
    )
    return choose(x, w, cpu=cpu, default=default, seen=seen)


def _forward(stride, pads, x, w):
    (x, w), wanted = asked(x, w)
    return conv(stride, pads, x, w), (x, w, wanted)


def _backward(stride, pads, residuals, dy):
    x, w, (images, kernel) = residuals
    return (
        None if images is None else _image_gradient(stride, pads, x.shape, dy, w),
        None if kernel is None else _kernel_gradient(stride, pads, w.shape, dy, x),
    )


def _image_gradient(stride, pads, shape, dy, w):
    def cpu(dy, w):
        return _conv_patches_transposed(stride, pads, shape, dy, w)

    def other(dy, w):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: conv_lax(stride, pads, x, w), x)(dy)[0]

    return choose(dy, w, cpu=cpu, default=other)


def _kernel_gradient(stride, pads, shape, dy, x):
    def cpu(dy, x):
        patches = _patches(x, shape[:2], stride, pads)
        flat = lax.dot_general(patches, dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
        return flat.reshape(shape)

    def other(dy, x):
        w = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda w: conv_lax(stride, pads, x, w), w)(dy)[0]

    return choose(dy, x, cpu=cpu, default=other)


conv.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def conv_transpose(stride, pads, size, y, w):
    """``[n, *size, c]`` of ``y[n, i, j, k]`` and ``w[kh, kw, c, k]``."""
    return _image_gradient(stride, pads, (y.shape[0], *size, w.shape[2]), y, w)


def _transpose_forward(stride, pads, size, y, w):
    (y, w), wanted = asked(y, w)
    return conv_transpose(stride, pads, size, y, w), (y, w, wanted)


def _transpose_backward(stride, pads, size, residuals, dx):
    y, w, (images, kernel) = residuals
    return (
        None if images is None else conv(stride, pads, dx, w),
        None if kernel is None else _kernel_gradient(stride, pads, w.shape, y, dx),
    )


conv_transpose.defvjp(_transpose_forward, _transpose_backward, symbolic_zeros=True)


def conv_elsewhere(stride, pads, x, w):
    """On other platforms than the CPU: at full precision a sum of products, else what the library has.

    At full precision patches take as long as the library's convolution (measured on an H200 with
    3x3 kernels), but as many times the memory as a kernel has places. A library may choose a
    Fourier transform, or minimal filtering, and then rounds more than bounds allow for.
    """
    exact = getattr(jax.config, "jax_default_matmul_precision", None) in ("highest", "float32")
    return (conv_patches if exact else conv_lax)(stride, pads, x, w)


def conv_lax(stride, pads, x, w):
    """As XLA has it."""
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_DIMENSIONS)


def _patches(x, window, stride, pads):
    """im2col: ``[n, i, j, kh * kw * c]``, ordered as the rows of a reshaped HWIO kernel."""
    out = size_of(x.shape, window, stride, pads)
    x = padded(x, pads)
    return lax.concatenate([strided(x, offset, stride, out) for offset in offsets(window)], 3)


def conv_patches(stride, pads, x, w):
    """As a product of matrices."""
    patches = _patches(x, w.shape[:2], stride, pads)
    return lax.dot_general(patches, w.reshape(-1, w.shape[3]), (((3,), (0,)), ((), ())))


def _conv_patches_transposed(stride, pads, shape, dy, w):
    n, h, width, c = shape
    bordered = (n, h + sum(pads[0]), width + sum(pads[1]), c)
    columns = lax.dot_general(dy, w.reshape(-1, w.shape[3]), (((3,), (1,)), ((), ())))
    parts = [
        spread(lax.slice_in_dim(columns, p * c, (p + 1) * c, axis=3), offset, stride, bordered)
        for p, offset in enumerate(offsets(w.shape[:2]))
    ]
    return uncovered(functools.reduce(jnp.add, parts), shape, pads)
