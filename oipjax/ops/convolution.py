"""Convolution, its transpose, and one map of it; see `oipjax.ops`."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops import winograd
from oipjax.ops.common import (
    Padding,
    asked,
    choose,
    offsets,
    padded,
    pads_of,
    size_of,
    spread,
    step,
    strided,
    uncovered,
)

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv2d(x: Array, w: Array, stride: tuple[int, int] = (1, 1), padding: Padding = "VALID") -> Array:
    """Cross-correlation of ``x[n, h, w, c]`` with ``w[kh, kw, c, k]``, as in ``lax.conv_general_dilated``.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c, k]``.
        stride: steps along h and w, in pixels.
        padding: ``"VALID"``, ``"SAME"`` or ``((top, bottom), (left, right))`` in pixels.

    Returns:
        ``[n, i, j, k]``, of the dtype of ``x``.

    Raises:
        ValueError: ranks or channel counts of ``x`` and ``w`` do not fit, or the kernel is larger than the image.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise ValueError(f"conv2d expects x[n, h, w, c] and w[kh, kw, c, k] with equal c, got {x.shape} and {w.shape}")
    pads = pads_of(x.shape, w.shape[:2], stride, padding)
    return _conv2d(tuple(stride), pads, x, w)


def conv2d_transpose(
    y: Array, w: Array, size: tuple[int, int], stride: tuple[int, int] = (1, 1), padding: Padding = "SAME"
) -> Array:
    """The transpose of `conv2d`: what its gradient does, as a layer that enlarges images.

    Args:
        y: small images, ``[n, i, j, k]``.
        w: the kernel with which `conv2d` would make ``[n, i, j, k]`` of the large ones, ``[kh, kw, c, k]``.
        size: height and width of the large images.
        stride: of that `conv2d`.
        padding: of that `conv2d`.

    Returns:
        ``[n, *size, c]``.

    Raises:
        ValueError: ranks or channel counts do not fit, or `conv2d` does not make images of this size from those.
    """
    if y.ndim != 4 or w.ndim != 4 or y.shape[3] != w.shape[3]:
        raise ValueError(
            f"conv2d_transpose expects y[n, i, j, k] and w[kh, kw, c, k] with equal k, got {y.shape} and {w.shape}"
        )
    pads = pads_of((y.shape[0], *size), w.shape[:2], stride, padding)
    small = size_of((0, *size), w.shape[:2], stride, pads)
    if small != y.shape[1:3]:
        raise ValueError(f"conv2d makes {small} of {tuple(size)}, so this cannot be made of {y.shape[1:3]}")
    return _conv2d_transpose(tuple(stride), pads, tuple(size), y, w)


def conv2d_map(x: Array, w: Array, padding: Padding = "VALID") -> Array:
    """One map of `conv2d` with stride 1, by the kernel of that map alone.

    Where each image of a batch asks for a map of its own, this is a fraction of all maps' products: the kernel, and so
    the result, may differ from image to image under `jax.vmap`.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c]``.
        padding: as of `conv2d`.

    Returns:
        ``[n, i, j]``.
    """
    kh, kw, c = w.shape
    pads = pads_of(x.shape, (kh, kw), (1, 1), padding)
    # Every pixel with every place of the kernel, then a sum of shifted pictures: no patches are made.
    each = lax.dot_general(padded(x, pads), w.reshape(-1, c), (((3,), (1,)), ((), ())))
    out = size_of(x.shape, (kh, kw), (1, 1), pads)
    parts = [each[:, i : i + out[0], j : j + out[1], p] for p, (i, j) in enumerate(offsets((kh, kw)))]
    return functools.reduce(jnp.add, parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv2d(stride, pads, x, w):
    return choose(
        x, w, cpu=functools.partial(_conv_cpu, stride, pads), default=functools.partial(conv_lax, stride, pads)
    )


def _conv2d_forward(stride, pads, x, w):
    (x, w), wanted = asked(x, w)
    return _conv2d(stride, pads, x, w), (x, w, wanted)


def _conv2d_backward(stride, pads, residuals, dy):
    x, w, (images, kernel) = residuals
    return (
        None if images is None else _image_gradient(stride, pads, x.shape, dy, w),
        None if kernel is None else _kernel_gradient(stride, pads, w.shape, dy, x),
    )


def _image_gradient(stride, pads, shape, dy, w):
    def cpu(dy, w):
        if not winograd.fits(w.shape, stride, dy.shape[1:3]):
            return _conv_patches_transposed(stride, pads, shape, dy, w)
        large = step(lambda v, dy: winograd.image_gradient(v, winograd.parted(dy)))
        return uncovered(large(winograd.prepared(w, transposed=True), dy), shape, pads)

    def other(dy, w):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: conv_lax(stride, pads, x, w), x)(dy)[0]

    return choose(dy, w, cpu=cpu, default=other)


def _kernel_gradient(stride, pads, shape, dy, x):
    def cpu(dy, x):
        if winograd.fits(shape, stride, dy.shape[1:3]):
            large = padded(x, winograd.even(x.shape[1:3], pads))
            summed = step(lambda _, x, dy: winograd.kernel_gradient(x, winograd.parted(dy), shape), of_each=False)
            return summed((), large, dy)
        patches = _patches(x, shape[:2], stride, pads)
        flat = lax.dot_general(patches, dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
        return flat.reshape(shape)

    def other(dy, x):
        w = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda w: conv_lax(stride, pads, x, w), w)(dy)[0]

    return choose(dy, x, cpu=cpu, default=other)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv2d_transpose(stride, pads, size, y, w):
    return _image_gradient(stride, pads, (y.shape[0], *size, w.shape[2]), y, w)


def _conv2d_transpose_forward(stride, pads, size, y, w):
    (y, w), wanted = asked(y, w)
    return _conv2d_transpose(stride, pads, size, y, w), (y, w, wanted)


def _conv2d_transpose_backward(stride, pads, size, residuals, dx):
    y, w, (images, kernel) = residuals
    return (
        None if images is None else _conv2d(stride, pads, dx, w),
        None if kernel is None else _kernel_gradient(stride, pads, w.shape, y, dx),
    )


_conv2d_transpose.defvjp(_conv2d_transpose_forward, _conv2d_transpose_backward, symbolic_zeros=True)


def conv_lax(stride, pads, x, w):
    """As XLA has it."""
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_DIMENSIONS)


def _patches(x, window, stride, pads):
    """im2col: ``[n, i, j, kh * kw * c]``, ordered as the rows of a reshaped HWIO kernel."""
    out = size_of(x.shape, window, stride, pads)
    x = padded(x, pads)
    return lax.concatenate([strided(x, offset, stride, out) for offset in offsets(window)], 3)


def _conv_cpu(stride, pads, x, w):
    size = size_of(x.shape, w.shape[:2], stride, pads)
    if not winograd.fits(w.shape, stride, size):
        return _conv_patches(stride, pads, x, w)
    large = padded(x, winograd.even(x.shape[1:3], pads))
    out = step(lambda u, x: winograd.interleaved(winograd.quartet(u, x)))(winograd.prepared(w), large)
    return out[:, : size[0], : size[1]]


def _conv_patches(stride, pads, x, w):
    patches = _patches(x, w.shape[:2], stride, pads)
    return lax.dot_general(patches, w.reshape(-1, w.shape[3]), (((3,), (0,)), ((), ())))


def _conv_patches_transposed(stride, pads, shape, dy, w):
    n, h, width, c = shape
    bordered = (n, h + sum(pads[0]), width + sum(pads[1]), c)
    columns = lax.dot_general(dy, w.reshape(-1, w.shape[3]), (((3,), (1,)), ((), ())))
    dx = sum(
        spread(lax.slice_in_dim(columns, p * c, (p + 1) * c, axis=3), offset, stride, bordered)
        for p, offset in enumerate(offsets(w.shape[:2]))
    )
    return lax.slice(dx, (0, pads[0][0], pads[1][0], 0), (n, pads[0][0] + h, pads[1][0] + width, c))
