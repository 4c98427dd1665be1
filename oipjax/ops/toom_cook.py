"""3x3 convolutions with a fourth to a half of the products, for who can do with a little more rounding: trainings.

F(m x m, 3x3) of A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016, arXiv:1509.09308, with m from 2 to 5: ``(m + 2)**2`` products for ``m**2`` outputs and each
pair of channels, where a plain convolution takes nine times ``m**2``. A tile of an image, and the
kernel, are seen as polynomials and taken at a few places: 0, 1, -1, 2, -2, 1/2 and infinity (A.
Toom, 1963; S. Cook, 1966). To go there and back is a product with a constant matrix, one for all
tiles, images and channels, since places come first: ``[p, t, n, channel]``.

It rounds up to ten times as much as a plain sum (by 6e-6 of the largest output), which no bound
counts. Therefore it is used within `oipjax.ops.allow_extra_rounding` only.

Letters: ``x[h, w, n, c]``, images whose axis comes third; tiles ``t``, outputs ``m``; ``p = (m +
    2)**2`` places.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.ops.windows import Pads, padded, step, to_winners, winners

LEAST_CHANNELS, LARGEST_TILE = 16, 5
MOST_TILES = 36
"""Of an image: each is put in its place by itself, so larger images are left to `winograd`."""
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)


def fits(kernel: tuple[int, ...], stride: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a convolution with a kernel of this shape, and outputs of this size, can gain by it."""
    wide = min(kernel[2:]) >= LEAST_CHANNELS and tuple(stride) == (1, 1) and min(size) >= 3
    return (
        tuple(kernel[:2]) == (3, 3)
        and wide
        and math.prod(-(-n // LARGEST_TILE) for n in size) <= MOST_TILES
    )


class Plan(NamedTuple):
    """Tiles down and across, outputs of each down and across, and the three matrices."""

    tiles: tuple[int, int]
    outputs: tuple[int, int]
    there: np.ndarray
    """Of images, ``[p, p]``."""
    kernel: np.ndarray
    """``[p, 9]``."""
    back: np.ndarray
    """``[m, p]``."""


@functools.cache
def plan(size: tuple[int, int]) -> Plan:
    """As few tiles as cover outputs of a size, and no larger ones than needed."""
    tiles = tuple(-(-n // LARGEST_TILE) for n in size)
    outputs = tuple(-(-n // t) for n, t in zip(size, tiles, strict=True))
    down, across = map(interpolation, outputs)
    there, kernel, back = (np.kron(a, b) for a, b in zip(down, across, strict=True))
    return Plan((tiles[0], tiles[1]), (outputs[0], outputs[1]), there, kernel, back)


def interpolation(outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``B, G, A`` with ``A ((G g) * (B d))`` the correlation of ``d[outputs + 2]`` with ``g[3]``, in float64."""
    points = np.array(_POINTS[: outputs + 1])
    powers = points[:, None] ** np.arange(max(outputs, 3))
    infinity = np.eye(max(outputs, 3))
    back = np.vstack([powers[:, :outputs], infinity[outputs - 1, :outputs]]).T
    apart = np.array(
        [np.prod(np.delete(point - points, place)) for place, point in enumerate(points)]
    )
    kernel = np.vstack([powers[:, :3] / apart[:, None], infinity[2, :3]])
    # What is left is linear in the image: sum over places of back[i] kernel[k] there[l] is 1 where
    # l = i + k, else 0.
    products = np.einsum("ip,pk->ikp", back, kernel).reshape(outputs * 3, -1)
    wanted = np.array([np.eye(outputs + 2)[i + k] for i in range(outputs) for k in range(3)])
    there = np.linalg.lstsq(products, wanted, rcond=None)[0]
    # Powers of two, which cost no rounding, make both factors of a product alike in size.
    scale = 2.0 ** np.round(np.log2(np.sqrt(np.abs(there).max(1) / np.abs(kernel).max(1))))
    return there / scale[:, None], kernel * scale[:, None], back


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv(pads: Pads, x: Array, w: Array) -> Array:
    """``[n, i, j, k]`` of ``x[n, h, w, c]`` and ``w[3, 3, c, k]``, with stride 1."""
    return _conv_forward(pads, x, w)[0]


def _conv_forward(pads, x, w):
    large = padded(x, pads).transpose(1, 2, 0, 3)
    y, kept = _outputs(large, w, (large.shape[0] - 2, large.shape[1] - 2))
    return y.transpose(2, 0, 1, 3), (kept, x, w)


def _conv_backward(pads, residuals, dy):
    kept, x, w = residuals
    sides = step(lambda _, dy: _parted(dy.transpose(1, 2, 0, 3)), of_each=False)((), dy)
    return _gradients(pads, x, w, kept, sides, dy.shape[1:3])


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def pooled(pads: Pads, x: Array, w: Array, b: Array) -> Array:
    """A convolution plus a bias, and the maximum of each square of 2x2, ``[n, i, j, k]``."""
    return _pooled_forward(pads, x, w, b)[0]


def _pooled_forward(pads, x, w, b):
    large = padded(x, pads).transpose(1, 2, 0, 3)
    y, kept = _outputs(large, w, ((large.shape[0] - 2) // 2 * 2, (large.shape[1] - 2) // 2 * 2))

    def maxima(b, y):
        best, winner = winners([y[i::2, j::2] for i in (0, 1) for j in (0, 1)])
        return (best + b.reshape(1, 1, 1, -1)).transpose(2, 0, 1, 3), winner

    out, winner = step(maxima, of_each=False)(b, y)
    return out, (kept, winner, x, w)


def _pooled_backward(pads, residuals, dy):
    kept, winner, x, w = residuals
    size = 2 * dy.shape[1], 2 * dy.shape[2]

    def masked(_, winner, dy):
        dy = dy.transpose(1, 2, 0, 3)
        parts = to_winners(winner, dy, 4)
        wide = jnp.stack([jnp.stack(parts[:2], 2), jnp.stack(parts[2:], 2)], 1)
        return _parted(wide.reshape(*size, *dy.shape[2:]))

    sides = step(masked, of_each=False)((), winner, dy)
    return *_gradients(pads, x, w, kept, sides, size), dy.sum((0, 1, 2))


pooled.defvjp(_pooled_forward, _pooled_backward)


def _outputs(large: Array, w: Array, size: tuple[int, int]) -> tuple[Array, tuple[Array, Array]]:
    """``[*size, n, k]``, with images and kernel at the places."""
    (down, across), (high, wide), there, kernel, back = plan(size)
    n, c, k = *large.shape[2:], w.shape[3]
    images = _times(there, _cut(large, size)).reshape(len(there), -1, c)
    kernels = _times(kernel, w.reshape(9, c, k))
    products = lax.dot_general(images, kernels, (((2,), (1,)), ((0,), (0,))))
    y = _times(back, products.reshape(len(there), -1, n, k))
    y = y.reshape(high, wide, down, across, n, k).transpose(2, 0, 3, 1, 4, 5)
    return y.reshape(down * high, across * wide, n, k)[: size[0], : size[1]], (images, kernels)


def _gradients(pads, x, w, kept, sides, size):
    """Of images and kernel; ``sides[m, t, n, k]`` is the outputs' gradient in tiles."""
    images, kernels = kept
    matrices, (n, k), c = plan(size), sides.shape[2:], w.shape[2]
    at_places = _times(matrices.back.T, sides).reshape(len(matrices.there), -1, k)
    dv = lax.dot_general(at_places, kernels, (((2,), (2,)), ((0,), (0,))))
    dv = _times(matrices.there.T, dv.reshape(len(matrices.there), -1, n, c))

    def joined(_, dv):
        (top, bottom), (left, right) = pads
        large = x.shape[1] + top + bottom, x.shape[2] + left + right, n, c
        return padded(
            _uncut(dv, large, size).transpose(2, 0, 1, 3), ((-top, -bottom), (-left, -right))
        )

    dx = step(joined, of_each=False)((), dv)
    # Turned first: a product that sums over the rows of both its factors is half as fast.
    turned = step(lambda _, images: jnp.swapaxes(images, 1, 2), of_each=False)((), images)
    du = lax.dot_general(turned, at_places, (((2,), (1,)), ((0,), (0,))))
    return dx, _times(matrices.kernel.T, du).reshape(w.shape)


def _times(matrix: np.ndarray, x: Array) -> Array:
    """A matrix times the first axis of an array."""
    constant = jnp.asarray(np.ascontiguousarray(matrix), x.dtype)
    flat = lax.dot_general(constant, x.reshape(len(x), -1), (((1,), (0,)), ((), ())))
    return flat.reshape(len(matrix), *x.shape[1:])


def _cut(x: Array, size: tuple[int, int]) -> Array:
    """Tiles of images, ``[p, t, n, c]``; they overlap by two."""
    (down, across), (high, wide), *_ = plan(size)
    h, w = down * high + 2, across * wide + 2
    x = _fitted(x, (h, w))
    parts = [
        x[i * high : i * high + high + 2, j * wide : j * wide + wide + 2]
        for i in range(down)
        for j in range(across)
    ]
    return jnp.stack(parts, 2).reshape((high + 2) * (wide + 2), len(parts), *x.shape[2:])


def _uncut(parts: Array, shape: tuple[int, ...], size: tuple[int, int]) -> Array:
    """Transpose of `_cut`: images of a shape, overlaps added."""
    (down, across), (high, wide), *_ = plan(size)
    h, w = down * high + 2, across * wide + 2
    parts = parts.reshape(high + 2, wide + 2, *parts.shape[1:])
    placed = []
    for i in range(down):
        for j in range(across):
            rows, columns = (i * high, h - i * high - high - 2), (j * wide, w - j * wide - wide - 2)
            placed.append(jnp.pad(parts[:, :, i * across + j], (rows, columns, (0, 0), (0, 0))))
    return _fitted(functools.reduce(jnp.add, placed), shape[:2])


def _parted(dy: Array) -> Array:
    """Outputs' gradients ``[i, j, n, k]`` in tiles, ``[m, t, n, k]``."""
    (down, across), (high, wide), *_ = plan((dy.shape[0], dy.shape[1]))
    dy = _fitted(dy, (down * high, across * wide))
    dy = dy.reshape(down, high, across, wide, *dy.shape[2:]).transpose(1, 3, 0, 2, 4, 5)
    return dy.reshape(high * wide, down * across, *dy.shape[4:])


def _fitted(x: Array, size: tuple[int, ...]) -> Array:
    """Images cut, or filled with zeros, below and to the right."""
    edges = [(0, new - old, 0) for new, old in zip(size, x.shape[:2], strict=True)]
    return (
        lax.pad(x, jnp.zeros((), x.dtype), (*edges, (0, 0, 0), (0, 0, 0)))
        if any(e[1] for e in edges)
        else x
    )
