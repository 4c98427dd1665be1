"""Convolution and max pooling, fast in both directions on each platform.

XLA's own CPU convolution is slow for few channels, and the gradient of ``lax.reduce_window`` (select-and-scatter) costs
more than all convolutions of a small network together. On the CPU both are therefore written as what the machine is
good at: a convolution is patches times a matrix (im2col; Chellapilla et al. 2006), a pooling is the maximum of strided
slices whose winners are remembered for the backward pass. Every other platform gets ``lax`` (a pooling that is
differentiated takes the maximum of slices there too: the same values).

The choice is made when a program is lowered, per platform (``lax.platform_dependent``), inside custom gradients, so the
branch not taken leaves nothing behind. Values and gradients equal those of ``lax`` up to float32 rounding.

Shapes: images ``x[n, h, w, c]``, kernels ``w[kh, kw, c, k]`` (HWIO), outputs ``y[n, i, j, k]``.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = str | tuple[tuple[int, int], tuple[int, int]]

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
    pads = _pads(x.shape, w.shape[:2], stride, padding)
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
    pads = _pads((y.shape[0], *size), w.shape[:2], stride, padding)
    small = tuple((n + sum(p) - k) // s + 1 for n, p, k, s in zip(size, pads, w.shape, stride, strict=False))
    if small != y.shape[1:3]:
        raise ValueError(f"conv2d makes {small} of {tuple(size)}, so this cannot be made of {y.shape[1:3]}")
    return _conv2d_transpose(tuple(stride), pads, tuple(size), y, w)


def max_pool(
    x: Array, window: tuple[int, int] = (2, 2), stride: tuple[int, int] | None = None, padding: Padding = "VALID"
) -> Array:
    """Maximum over windows of ``x[n, h, w, c]``; the gradient goes to the first maximum of each window, as in ``lax``.

    Args:
        x: ``[n, h, w, c]``.
        window: height and width of the window, in pixels.
        stride: steps along h and w; the window's size unless given.
        padding: ``"VALID"``, ``"SAME"`` or explicit pairs; the border is filled with minus infinity.

    Returns:
        ``[n, i, j, c]``.

    Raises:
        ValueError: ``x`` is not of rank 4, or the window is larger than the padded image.
    """
    if x.ndim != 4:
        raise ValueError(f"max_pool expects x[n, h, w, c], got {x.shape}")
    stride = window if stride is None else stride
    pads = _pads(x.shape, window, stride, padding)
    if any(sum(p) for p in pads):
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
    return _max_pool(tuple(window), tuple(stride), x)


def _pads(shape, window, stride, padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    named = isinstance(padding, str)
    vertical, horizontal = lax.padtype_to_pads(shape[1:3], window, stride, padding.upper()) if named else padding
    pads = (int(vertical[0]), int(vertical[1])), (int(horizontal[0]), int(horizontal[1]))
    for size, size_of_window, (low, high) in zip(shape[1:3], window, pads, strict=True):
        if size + low + high < size_of_window:
            raise ValueError(f"a window of {tuple(window)} does not fit into an image of {shape[1:3]} padded by {pads}")
    return pads


# --- convolution ------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv2d(stride, pads, x, w):
    return lax.platform_dependent(
        x, w, cpu=functools.partial(_conv_patches, stride, pads), default=functools.partial(_conv_lax, stride, pads)
    )


def _conv2d_forward(stride, pads, x, w):
    return _conv2d(stride, pads, x, w), (x, w)


def _conv2d_backward(stride, pads, residuals, dy):
    x, w = residuals
    # Two choices, not one: the ascent needs dx alone, and XLA can only drop what stands on its own.
    return _image_gradient(stride, pads, x.shape, dy, w), _kernel_gradient(stride, pads, w.shape, dy, x)


def _image_gradient(stride, pads, shape, dy, w):
    def cpu(dy, w):
        return _conv_patches_transposed(stride, pads, shape, dy, w)

    def other(dy, w):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: _conv_lax(stride, pads, x, w), x)(dy)[0]

    return lax.platform_dependent(dy, w, cpu=cpu, default=other)


def _kernel_gradient(stride, pads, shape, dy, x):
    def cpu(dy, x):
        patches = _patches(x, shape[:2], stride, pads)
        flat = lax.dot_general(patches, dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
        return flat.reshape(shape)

    def other(dy, x):
        w = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda w: _conv_lax(stride, pads, x, w), w)(dy)[0]

    return lax.platform_dependent(dy, x, cpu=cpu, default=other)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv2d_transpose(stride, pads, size, y, w):
    return _image_gradient(stride, pads, (y.shape[0], *size, w.shape[2]), y, w)


def _conv2d_transpose_forward(stride, pads, size, y, w):
    return _conv2d_transpose(stride, pads, size, y, w), (y, w)


def _conv2d_transpose_backward(stride, pads, size, residuals, dx):
    y, w = residuals
    return _conv2d(stride, pads, dx, w), _kernel_gradient(stride, pads, w.shape, y, dx)


_conv2d_transpose.defvjp(_conv2d_transpose_forward, _conv2d_transpose_backward)


def _conv_lax(stride, pads, x, w):
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_DIMENSIONS)


def _offsets(window):
    return [(i, j) for i in range(window[0]) for j in range(window[1])]


def _strided(x, offset, stride, out):
    """The pixels of ``x`` that window position ``offset`` sees, ``[n, *out, c]``."""
    (i, j), (si, sj), (h, w) = offset, stride, out
    limits = (x.shape[0], i + (h - 1) * si + 1, j + (w - 1) * sj + 1, x.shape[3])
    return lax.slice(x, (0, i, j, 0), limits, (1, si, sj, 1))


def _spread(g, offset, stride, shape):
    """Transpose of `_strided`: ``g[n, i, j, c]`` put back onto zeros of ``shape``."""
    edges = []
    for o, s, out, size in zip(offset, stride, g.shape[1:3], shape[1:3], strict=True):
        edges.append((o, size - o - (out - 1) * s - 1, s - 1))
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def _patches(x, window, stride, pads):
    """im2col: ``[n, i, j, kh * kw * c]``, ordered as the rows of a reshaped HWIO kernel."""
    if any(sum(p) for p in pads):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out = tuple((size - k) // s + 1 for size, k, s in zip(x.shape[1:3], window, stride, strict=True))
    return lax.concatenate([_strided(x, offset, stride, out) for offset in _offsets(window)], 3)


def _conv_patches(stride, pads, x, w):
    patches = _patches(x, w.shape[:2], stride, pads)
    return lax.dot_general(patches, w.reshape(-1, w.shape[3]), (((3,), (0,)), ((), ())))


def _conv_patches_transposed(stride, pads, shape, dy, w):
    n, h, width, c = shape
    padded = (n, h + sum(pads[0]), width + sum(pads[1]), c)
    columns = lax.dot_general(dy, w.reshape(-1, w.shape[3]), (((3,), (1,)), ((), ())))
    dx = sum(
        _spread(lax.slice_in_dim(columns, p * c, (p + 1) * c, axis=3), offset, stride, padded)
        for p, offset in enumerate(_offsets(w.shape[:2]))
    )
    return lax.slice(dx, (0, pads[0][0], pads[1][0], 0), (n, pads[0][0] + h, pads[1][0] + width, c))


# --- pooling ----------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(window, stride, x):
    def cpu(x):
        return functools.reduce(jnp.maximum, _slices(window, stride, x))

    return lax.platform_dependent(x, cpu=cpu, default=functools.partial(_pool_lax, window, stride))


def _pool_lax(window, stride, x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), "VALID")


def _slices(window, stride, x):
    out = tuple((size - k) // s + 1 for size, k, s in zip(x.shape[1:3], window, stride, strict=True))
    return [_strided(x, offset, stride, out) for offset in _offsets(window)]


def _max_pool_forward(window, stride, x):
    # The winner of each window is one byte; NaN wins nothing, like in lax, and its gradient goes to the first pixel.
    slices = _slices(window, stride, x)
    y = functools.reduce(jnp.maximum, slices)
    winner = jnp.zeros(y.shape, jnp.uint8 if len(slices) < 256 else jnp.uint32)
    for index in range(len(slices) - 1, -1, -1):
        winner = jnp.where(slices[index] == y, jnp.array(index, winner.dtype), winner)
    # Kept from XLA, which would rather find the winners again, in the backward pass, at the full resolution.
    return y, (lax.optimization_barrier(winner), x)


def _max_pool_backward(window, stride, residuals, dy):
    winner, x = residuals

    def cpu(dy, winner, x):
        if window == stride:
            return _unpool(window, dy, winner, x.shape)
        parts = [jnp.where(winner == index, dy, 0) for index in range(len(_offsets(window)))]
        return sum(_spread(g, offset, stride, x.shape) for g, offset in zip(parts, _offsets(window), strict=True))

    def other(dy, winner, x):
        return jax.vjp(functools.partial(_pool_lax, window, stride), x)[1](dy)[0]

    return (lax.platform_dependent(dy, winner, x, cpu=cpu, default=other),)


def _unpool(window, dy, winner, shape):
    """``dy`` at the winners and 0 elsewhere, for windows that tile the image: one compare and select per pixel."""
    n, h, w, c = dy.shape
    index = jnp.arange(window[0] * window[1], dtype=winner.dtype).reshape(1, 1, window[0], 1, window[1], 1)
    wide = jnp.where(winner[:, :, None, :, None, :] == index, dy[:, :, None, :, None, :], 0)
    dx = wide.reshape(n, h * window[0], w * window[1], c)
    rest = ((0, 0), (0, shape[1] - dx.shape[1]), (0, shape[2] - dx.shape[2]), (0, 0))
    return jnp.pad(dx, rest)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
