"""3x3 convolutions with fewer products, by minimal filtering, as an `Algorithm`.

F(2x2, 3x3) of A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
arXiv:1509.09308 (after S. Winograd): 2x2 outputs ``Y = A [(G w G') * (B x B')] A'`` of a 4x4 tile
take 16 products for each pair of channels. A plain convolution takes 36. The products of all tiles
at one of the 16 places are one product of matrices. The four outputs are four arrays, so that a 2x2
pool is their maximum.

It rounds a little more than a plain convolution; the rules of `oipjax.bounds` count this rounding.

Letters: ``i, j`` are the tiles of an image; ``u[16, c, k]`` is a transformed kernel.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.ops.algorithm import SQUARE, Algorithm, is_3x3, join_block
from oipjax.ops.dispatch import isolated
from oipjax.ops.library import LIBRARY
from oipjax.ops.products import product_by_place
from oipjax.ops.windows import Pair, Shape, offsets, padded

LEAST_CHANNELS = 16
LEAST_SIZE = 6
"""With fewer channels, or smaller outputs, the transforms cost more than they save."""

_TILE = (4, 4)
_B = np.array([
    [1, 0, -1, 0],
    [0, 1, 1, 0],
    [0, -1, 1, 0],
    [0, 1, 0, -1],
])  # fmt: skip
_A = np.array([
    [1, 1, 1, 0],
    [0, 1, -1, -1],
])  # fmt: skip


def fits(kernel: Shape, stride: Pair, size: Pair) -> bool:
    """Whether a convolution is 3x3 with stride 1, and large enough to gain."""
    if not is_3x3(kernel, stride):
        return False
    return min(kernel[2:]) >= LEAST_CHANNELS and min(size) >= LEAST_SIZE


def transform_kernel(w: Array, *, transposed: bool = False) -> Array:
    """``G w G'``, ``[16, c, k]``, of a kernel ``[3, 3, c, k]``; transposed: ``[16, k, c]``."""
    rows = []
    for i in range(3):
        rows.append(_filter_transform(*(w[i, j] for j in range(3))))
    columns = []
    for q in range(4):
        columns.append(_filter_transform(*(row[q] for row in rows)))
    places = [columns[q][p] for p, q in offsets(_TILE)]
    u = jnp.stack(places)
    return jnp.swapaxes(u, 1, 2) if transposed else u


def transform_input(x: Array) -> Array:
    """``B x B'`` of all tiles, ``[16, n, i, j, c]``, of images ``[n, 2 i + 2, 2 j + 2, c]``."""
    n, h, w, c = x.shape
    i = h // 2 - 1
    j = w // 2 - 1
    pairs = x.reshape(n, h // 2, 2, w // 2, 2, c)
    parts = []
    for p, q in offsets(_TILE):
        rows = slice(p // 2, p // 2 + i)
        columns = slice(q // 2, q // 2 + j)
        parts.append(pairs[:, rows, p % 2, columns, q % 2])
    return jnp.stack(_sandwich(_B, parts))


def block(u: Array, tiles: Array) -> list[Array]:
    """The block of outputs, four arrays ``[n, i, j, k]``."""
    return _sandwich(_A, list(_products(tiles, u)))


def transform_output_gradient(dys: list[Array]) -> Array:
    """``A' dy A``, ``[16, n, i, j, k]``."""
    return jnp.stack(_sandwich(_A.T, dys))


def input_gradient(u: Array, dm: Array) -> Array:
    """Gradient of the images, ``[n, 2 i + 2, 2 j + 2, c]``.

    Args:
        u: the transposed kernel, ``[16, k, c]``.
        dm: the transformed gradient of the outputs, ``[16, n, i, j, k]``.
    """
    parts = _sandwich(_B.T, list(_products(dm, u)))
    # Tiles overlap by half: each pixel is in up to four of them.
    pixels = []
    for p, q in offsets(SQUARE):
        shares = []
        for down, right in offsets(SQUARE):
            part = parts[4 * (2 * down + p) + 2 * right + q]
            vertical = (down, 1 - down)
            horizontal = (right, 1 - right)
            shares.append(padded(part, (vertical, horizontal)))
        pixels.append(sum(shares[1:], start=shares[0]))

    def joined(_, *pixels):
        return join_block(pixels)

    return isolated(joined)((), *pixels)


def kernel_gradient(x: Array, tiles: Array, dm: Array, shape: Shape) -> Array:
    """Gradient of the kernel, of a shape ``[3, 3, c, k]``.

    Args:
        x: images; not used, since their tiles suffice.
        tiles: the transformed images, ``[16, n, i, j, c]``.
        dm: the transformed gradient of the outputs, ``[16, n, i, j, k]``.
        shape: of the kernel.
    """
    del x
    tiles = tiles.reshape(16, -1, tiles.shape[-1])
    dm = dm.reshape(16, -1, dm.shape[-1])

    def transpose(_, tiles):
        return jnp.swapaxes(tiles, 1, 2)

    # Transposed first: a product that sums over the rows of both its factors is half as fast.
    columns_of_tiles = isolated(transpose)((), tiles)
    du = list(product_by_place(columns_of_tiles, dm, axes=(2, 1)))
    rows = []
    for p in range(4):
        rows.append(_filter_transform_transposed(*du[4 * p : 4 * p + 4]))
    columns = []
    for j in range(3):
        columns.append(_filter_transform_transposed(*(row[j] for row in rows)))
    places = [columns[j][i] for i, j in offsets((3, 3))]
    return jnp.stack(places).reshape(shape)


def _filter_transform(first: Array, middle: Array, last: Array) -> list[Array]:
    """``G`` times a vector of three arrays."""
    ends = first + last
    return [first, 0.5 * (ends + middle), 0.5 * (ends - middle), last]


def _filter_transform_transposed(
    first: Array, second: Array, third: Array, last: Array
) -> list[Array]:
    """``G'`` times a vector of four arrays."""
    total = 0.5 * (second + third)
    difference = 0.5 * (second - third)
    return [first + total, difference, last + total]


def _products(tiles: Array, u: Array) -> Array:
    """At each of the 16 places, tiles ``[16, n, i, j, c]`` times the kernel."""
    rows = tiles.reshape(16, -1, tiles.shape[-1])
    flat = product_by_place(rows, u, axes=(2, 1))
    return flat.reshape(*tiles.shape[:-1], u.shape[2])


def _sandwich(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """``matrix @ parts @ matrix.T`` of a square of arrays, row by row, as sums and differences."""
    rows, columns = matrix.shape
    across = []
    for p in range(columns):
        first = columns * p
        across.append(_times(matrix, parts[first : first + columns]))
    down = []
    for q in range(rows):
        down.append(_times(matrix, [row[q] for row in across]))
    return [down[q][p] for p, q in offsets((rows, rows))]


def _times(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """A matrix of 0, 1 and -1 times a vector of arrays."""
    products = []
    for row in matrix:
        added = [parts[place] for place in np.flatnonzero(row > 0)]
        subtracted = [parts[place] for place in np.flatnonzero(row < 0)]
        total = added.pop(0) if added else -subtracted.pop(0)
        for part in added:
            total = total + part
        for part in subtracted:
            total = total - part
        products.append(total)
    return products


WINOGRAD = Algorithm(
    name="winograd",
    fits=fits,
    transform_kernel=transform_kernel,
    transform_input=transform_input,
    block=block,
    transform_output_gradient=transform_output_gradient,
    input_gradient=input_gradient,
    kernel_gradient=kernel_gradient,
    elsewhere=LIBRARY,
)
