"""Convolution, its transpose, one map of it, and with a pool behind it; see `oipjax.ops`."""

import functools

import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops import direct, winograd
from oipjax.ops import library as plain
from oipjax.ops import toom_cook as large_tiles
from oipjax.ops.blocks import pooled, whole
from oipjax.ops.im2col import conv, conv_transpose
from oipjax.ops.pooling import max_pool
from oipjax.ops.windows import Padding, offsets, padded, pads_of, rough, size_of


def conv2d(
    x: Array, w: Array, stride: tuple[int, int] = (1, 1), padding: Padding = "VALID"
) -> Array:
    """Cross-correlation of ``x[n, h, w, c]`` with ``w[kh, kw, c, k]``, as in ``lax.conv_general_dilated``.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c, k]``.
        stride: steps along h and w, in pixels.
        padding: ``"VALID"``, ``"SAME"`` or ``((top, bottom), (left, right))`` in pixels.

    Returns:
        ``[n, i, j, k]``, of the dtype of ``x``.

    Raises:
        ValueError: ranks, channels or dtypes of ``x`` and ``w`` do not fit, or the kernel is larger
            than the image.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise ValueError(
            f"conv2d expects x[n, h, w, c] and w[kh, kw, c, k] with equal c, got {x.shape} and {w.shape}"
        )
    _same_dtype("conv2d", x, w)
    pads = pads_of(x.shape, w.shape[:2], stride, padding)
    stride, size = (stride[0], stride[1]), size_of(x.shape, w.shape[:2], stride, pads)
    if rough() and _precise(x) and large_tiles.fits(w.shape, stride, size):
        return large_tiles.conv(pads, x, w)
    if _precise(x) and winograd.fits(w.shape, stride, size):
        return whole(winograd, pads, x, w)
    return conv(stride, pads, x, w)


def _same_dtype(name: str, *arrays: Array) -> None:
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1 or not jnp.issubdtype(arrays[0].dtype, jnp.floating):
        raise ValueError(
            f"{name} expects numbers of one floating dtype, got {', '.join(sorted(map(str, dtypes)))}"
        )


def _precise(x: Array) -> bool:
    """Whether there are bits enough for sums that cancel; of short numbers nobody would count what they lose."""
    return jnp.finfo(x.dtype).bits >= 32


def conv2d_transpose(
    y: Array,
    w: Array,
    size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
) -> Array:
    """The transpose of `conv2d`: what its gradient does, as a layer that enlarges images.

    Args:
        y: small images, ``[n, i, j, k]``.
        w: the kernel with which `conv2d` would make ``[n, i, j, k]`` of the large ones, ``[kh, kw,
            c, k]``.
        size: height and width of the large images.
        stride: of that `conv2d`.
        padding: of that `conv2d`.

    Returns:
        ``[n, *size, c]``.

    Raises:
        ValueError: ranks or channel counts do not fit, or `conv2d` does not make images of this
            size from those.
    """
    if y.ndim != 4 or w.ndim != 4 or y.shape[3] != w.shape[3]:
        raise ValueError(
            f"conv2d_transpose expects y[n, i, j, k] and w[kh, kw, c, k] with equal k, got {y.shape} and {w.shape}"
        )
    _same_dtype("conv2d_transpose", y, w)
    pads = pads_of((y.shape[0], *size), w.shape[:2], stride, padding)
    small = size_of((0, *size), w.shape[:2], stride, pads)
    if small != y.shape[1:3]:
        raise ValueError(
            f"conv2d makes {small} of {tuple(size)}, so this cannot be made of {y.shape[1:3]}"
        )
    return conv_transpose(tuple(stride), pads, tuple(size), y, w)


def conv2d_map(x: Array, w: Array, padding: Padding = "VALID") -> Array:
    """One map of `conv2d` with stride 1, by the kernel of that map alone.

    Where each image of a batch asks for a map of its own, this is a fraction of all maps' products:
    the kernel, and so the result, may differ from image to image under `jax.vmap`.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c]``.
        padding: as of `conv2d`.

    Returns:
        ``[n, i, j]``.

    Raises:
        ValueError: as `conv2d`.
    """
    if x.ndim != 4 or w.ndim != 3 or x.shape[3] != w.shape[2]:
        raise ValueError(
            f"conv2d_map expects x[n, h, w, c] and w[kh, kw, c] with equal c, got {x.shape} and {w.shape}"
        )
    _same_dtype("conv2d_map", x, w)
    kh, kw, c = w.shape
    pads = pads_of(x.shape, (kh, kw), (1, 1), padding)
    # Every pixel with every place of the kernel, then a sum of shifted pictures: no patches are
    # made.
    each = lax.dot_general(padded(x, pads), w.reshape(-1, c), (((3,), (1,)), ((), ())))
    out = size_of(x.shape, (kh, kw), (1, 1), pads)
    parts = [
        each[:, i : i + out[0], j : j + out[1], p] for p, (i, j) in enumerate(offsets((kh, kw)))
    ]
    return functools.reduce(jnp.add, parts)


def conv_pool(x: Array, w: Array, b: Array, padding: Padding = "VALID") -> Array:
    """``max_pool(conv2d(x, w, padding=padding) + b)``, in windows of 2x2, up to rounding.

    Where the convolution is a short sum, or (on the CPU) fits `winograd`, its outputs come as four
    arrays, one for each place in the window, and are never put together.

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
    _same_dtype("conv_pool", x, w, b)
    pads = pads_of(x.shape, w.shape[:2], (1, 1), padding)
    size = size_of(x.shape, w.shape[:2], (1, 1), pads)
    if rough() and _precise(x) and large_tiles.fits(w.shape, (1, 1), size):
        return large_tiles.pooled(pads, x, w, b)
    for way in (direct, winograd if _precise(x) else plain):
        if min(size) >= 2 and way.fits(w.shape, (1, 1), size):
            return pooled(way, pads, x, w, b)
    return max_pool(conv2d(x, w, padding=pads) + b.reshape(1, 1, 1, -1))
