"""Convolution, its transpose, one map of it, and both convolution and pool; see `oipjax.ops`."""

import functools

import jax.numpy as jnp
from jax import Array

from oipjax.ops import im2col, toom_cook
from oipjax.ops.blocks import pooled, whole
from oipjax.ops.direct import DIRECT
from oipjax.ops.dispatch import lowering
from oipjax.ops.library import LIBRARY
from oipjax.ops.pooling import max_pool
from oipjax.ops.products import add_bias, product
from oipjax.ops.windows import Padding, Pads, Pair, Shape, offsets, output_size, padded, pads_of
from oipjax.ops.winograd import WINOGRAD

_ONE = (1, 1)


def conv2d(
    x: Array,
    w: Array,
    stride: Pair = (1, 1),
    padding: Padding = "VALID",
) -> Array:
    """Cross-correlation of images with a kernel, as in ``lax.conv_general_dilated``.

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
    if (x.ndim, w.ndim) != (4, 4) or x.shape[3] != w.shape[2]:
        raise ValueError(
            "conv2d expects x[n, h, w, c] and w[kh, kw, c, k] with equal c, "
            f"got {x.shape} and {w.shape}"
        )
    _require_same_dtype("conv2d", x, w)
    stride = (stride[0], stride[1])
    pads, size = _pads_and_size(x.shape, w, stride, padding)
    if _takes_extra_rounding(x) and toom_cook.fits(w.shape, stride, size):
        return toom_cook.conv(pads, x, w)
    if _has_float32_bits(x) and WINOGRAD.fits(w.shape, stride, size):
        return whole(WINOGRAD, pads, x, w)
    return im2col.conv(stride, pads, x, w)


def conv2d_transpose(
    y: Array,
    w: Array,
    size: Pair,
    stride: Pair = (1, 1),
    padding: Padding = "SAME",
) -> Array:
    """Enlarge images by the transpose of `conv2d`, which is also how its gradient is computed.

    Args:
        y: small images, ``[n, i, j, k]``.
        w: the kernel ``[kh, kw, c, k]`` with which `conv2d` would make ``[n, i, j, k]`` of the
            large images.
        size: height and width of the large images.
        stride: of that `conv2d`.
        padding: of that `conv2d`.

    Returns:
        ``[n, *size, c]``.

    Raises:
        ValueError: ranks, channels or dtypes do not fit, or `conv2d` makes images of another size
            from the large ones.
    """
    if (y.ndim, w.ndim) != (4, 4) or y.shape[3] != w.shape[3]:
        raise ValueError(
            "conv2d_transpose expects y[n, i, j, k] and w[kh, kw, c, k] with equal k, "
            f"got {y.shape} and {w.shape}"
        )
    _require_same_dtype("conv2d_transpose", y, w)
    pads, small = _pads_and_size((y.shape[0], *size), w, stride, padding)
    if small != y.shape[1:3]:
        raise ValueError(
            f"conv2d makes {small} of {tuple(size)}, so this cannot be made of {y.shape[1:3]}"
        )
    return im2col.conv_transpose(tuple(stride), pads, tuple(size), y, w)


def conv2d_map(x: Array, w: Array, padding: Padding = "VALID") -> Array:
    """One map of `conv2d` with stride 1, by the kernel of that map alone.

    Where each image of a batch needs a map of its own, this takes a fraction of all maps' products.
    Under `jax.vmap` the kernel, and so the result, may differ from image to image.

    Args:
        x: images, ``[n, h, w, c]``.
        w: kernel, ``[kh, kw, c]``.
        padding: as of `conv2d`.

    Returns:
        ``[n, i, j]``.

    Raises:
        ValueError: as `conv2d`.
    """
    if (x.ndim, w.ndim) != (4, 3) or x.shape[3] != w.shape[2]:
        raise ValueError(
            "conv2d_map expects x[n, h, w, c] and w[kh, kw, c] with equal c, "
            f"got {x.shape} and {w.shape}"
        )
    _require_same_dtype("conv2d_map", x, w)
    kh, kw, c = w.shape
    pads, size = _pads_and_size(x.shape, w, _ONE, padding)
    height, width = size
    # Products of every pixel with every place of the kernel, then a sum of shifted pictures: no
    # patches are made.
    bordered = padded(x, pads)
    products = product(bordered, w.reshape(-1, c), axes=(3, 1))
    parts = []
    for place, (i, j) in enumerate(offsets((kh, kw))):
        bottom = i + height
        right = j + width
        parts.append(products[:, i:bottom, j:right, place])
    return functools.reduce(jnp.add, parts)


def conv_pool(x: Array, w: Array, b: Array, padding: Padding = "VALID") -> Array:
    """``max_pool(conv2d(x, w, padding=padding) + b)``, in windows of 2x2, up to rounding.

    Where the convolution is a short sum, or fits `oipjax.ops.winograd` on the CPU, its outputs come
    in blocks of 2x2 and are never joined.

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
    channels_and_maps = (*x.shape[3:], *b.shape)
    if (x.ndim, w.ndim) != (4, 4) or w.shape[2:] != channels_and_maps:
        raise ValueError(
            "conv_pool expects x[n, h, w, c], w[kh, kw, c, k] and b[k] with equal c and k, "
            f"got {x.shape}, {w.shape} and {b.shape}"
        )
    _require_same_dtype("conv_pool", x, w, b)
    pads, size = _pads_and_size(x.shape, w, _ONE, padding)
    if _takes_extra_rounding(x) and toom_cook.fits(w.shape, _ONE, size):
        return toom_cook.pooled(pads, x, w, b)
    for_large_sums = WINOGRAD if _has_float32_bits(x) else LIBRARY
    for algorithm in (DIRECT, for_large_sums):
        if min(size) >= 2 and algorithm.fits(w.shape, _ONE, size):
            return pooled(algorithm, pads, x, w, b)
    y = conv2d(x, w, padding=pads)
    return max_pool(add_bias(y, b))


def _pads_and_size(shape: Shape, w: Array, stride: Pair, padding: Padding) -> tuple[Pads, Pair]:
    """Padding in pixels and the size of the outputs, for images of a shape."""
    window = w.shape[:2]
    pads = pads_of(shape, window, stride, padding)
    return pads, output_size(shape, window, stride, pads)


def _require_same_dtype(name: str, *arrays: Array) -> None:
    dtypes = {array.dtype for array in arrays}
    is_floating = jnp.issubdtype(arrays[0].dtype, jnp.floating)
    if len(dtypes) > 1 or not is_floating:
        names = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"{name} expects numbers of one floating dtype, got {names}")


def _has_float32_bits(x: Array) -> bool:
    """Whether the dtype has at least 32 bits.

    Shorter ones lose too much where sums cancel, and bounds do not count that loss.
    """
    return jnp.finfo(x.dtype).bits >= 32


def _takes_extra_rounding(x: Array) -> bool:
    return lowering().takes_extra_rounding and _has_float32_bits(x)
