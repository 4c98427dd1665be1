"""3x3 convolutions with fewer products: minimal filtering.

F(2x2, 3x3) of A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
arXiv:1509.09308 (after S. Winograd): 2x2 outputs ``Y = A [(G w G') * (B x B')] A'`` of a 4x4 tile
take 16 products for each pair of channels where a plain convolution takes 36. The products of all
tiles at one of the 16 places are one product of matrices, and the four outputs are four arrays: a
2x2 pool behind it is their maximum.

Rounding is a little more than that of a plain convolution; `oipjax.bounds.interval.rules` counts
it.

Letters: tiles ``i, j`` of an image; ``u[16, c, k]`` is a kernel transformed; a quartet is a list of
    the four
``[n, i, j, k]`` at (0, 0), (0, 1), (1, 0) and (1, 1) of each tile.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.ops.windows import interleaved, padded, step

LEAST_CHANNELS, LEAST_SIZE = 16, 6
"""With fewer channels, or smaller outputs, the transforms cost more than they save."""

_B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def fits(kernel: tuple[int, ...], stride: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a convolution with a kernel of this shape, and outputs of this size, is computed in this way."""
    channels = min(kernel[2:]) >= LEAST_CHANNELS and min(size) >= LEAST_SIZE
    return tuple(kernel[:2]) == (3, 3) and tuple(stride) == (1, 1) and channels


def prepared(w: Array, *, transposed: bool = False) -> Array:
    """``G w G'``, ``[16, c, k]``, of a kernel ``[3, 3, c, k]``; ``[16, k, c]`` for `image_gradient`."""

    def one(first, middle, last):
        ends = first + last
        return [first, 0.5 * (ends + middle), 0.5 * (ends - middle), last]

    rows = [one(*(w[i, j] for j in range(3))) for i in range(3)]
    columns = [one(*(row[q] for row in rows)) for q in range(4)]
    u = jnp.stack([columns[q][p] for p in range(4) for q in range(4)])
    return jnp.swapaxes(u, 1, 2) if transposed else u


def cut(x: Array) -> Array:
    """``B x B'`` of all tiles of images whose sides are even, ``[n, 2 i + 2, 2 j + 2, c]``: ``[16, n, i, j, c]``."""
    n, h, w, c = x.shape
    i, j = h // 2 - 1, w // 2 - 1
    pairs = x.reshape(n, h // 2, 2, w // 2, 2, c)
    parts = [
        pairs[:, p // 2 : p // 2 + i, p % 2, q // 2 : q // 2 + j, q % 2]
        for p in range(4)
        for q in range(4)
    ]
    return jnp.stack(_sandwich(_B, parts))


def quartet(u: Array, tiles: Array) -> list[Array]:
    """Outputs, each ``[n, i, j, k]``."""
    return _sandwich(_A, list(_products(tiles, u)))


def sides(dys: list[Array]) -> Array:
    """``A' dy A``, ``[16, n, i, j, k]``."""
    return jnp.stack(_sandwich(_A.T, dys))


def image_gradient(v: Array, sides: Array) -> Array:
    """Of the images, ``[n, 2 i + 2, 2 j + 2, c]``; ``v`` is the kernel, transposed."""
    parts = _sandwich(_B.T, list(_products(sides, v)))
    # Tiles overlap by half: each pixel is in up to four of them.
    places = []
    for p in (0, 1):
        for q in (0, 1):
            some = [
                padded(
                    parts[4 * (2 * down + p) + 2 * right + q],
                    ((down, 1 - down), (right, 1 - right)),
                )
                for down in (0, 1)
                for right in (0, 1)
            ]
            places.append(sum(some[1:], start=some[0]))
    return step(lambda _, *places: interleaved(places))((), *places)


def kernel_gradient(x: Array, tiles: Array, sides: Array, shape: tuple[int, ...]) -> Array:
    """Of the kernel, of shape ``[3, 3, c, k]``; of the images their tiles are enough."""
    del x
    tiles, dm = (a.reshape(16, -1, a.shape[-1]) for a in (tiles, sides))
    # Turned first: a product that sums over the rows of both its factors is half as fast.
    turned = step(lambda _, tiles: jnp.swapaxes(tiles, 1, 2))((), tiles)
    du = list(lax.dot_general(turned, dm, (((2,), (1,)), ((0,), (0,)))))

    def one(first, second, third, last):
        total, difference = 0.5 * (second + third), 0.5 * (second - third)
        return [first + total, difference, last + total]

    rows = [one(*(du[4 * p + q] for q in range(4))) for p in range(4)]
    columns = [one(*(row[j] for row in rows)) for j in range(3)]
    return jnp.stack([columns[j][i] for i in range(3) for j in range(3)]).reshape(shape)


def _products(tiles: Array, u: Array) -> Array:
    """At each of the 16 places, tiles ``[16, n, i, j, c]`` times the kernel."""
    flat = lax.dot_general(tiles.reshape(16, -1, tiles.shape[-1]), u, (((2,), (1,)), ((0,), (0,))))
    return flat.reshape(*tiles.shape[:-1], u.shape[2])


def _sandwich(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """``matrix @ parts @ matrix.T`` of a square of arrays, row by row, as sums and differences."""
    rows, columns = matrix.shape
    across = [_times(matrix, parts[columns * p : columns * (p + 1)]) for p in range(columns)]
    down = [_times(matrix, [row[q] for row in across]) for q in range(rows)]
    return [column[p] for p in range(rows) for column in down]


def _times(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """A matrix of 0, 1 and -1 times a vector of arrays."""
    out = []
    for row in matrix:
        plus = [part for sign, part in zip(row, parts, strict=True) if sign > 0]
        minus = [part for sign, part in zip(row, parts, strict=True) if sign < 0]
        total = plus[0] if plus else -minus.pop(0)
        for part in plus[1:]:
            total = total + part
        for part in minus:
            total = total - part
        out.append(total)
    return out
