"""3x3 convolutions with a fourth to a half of the products and more rounding: for training.

F(m x m, 3x3) of A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016, arXiv:1509.09308, with m from 2 to 5: ``(m + 2)**2`` products for ``m**2`` outputs and each
pair of channels, where a plain convolution takes nine times ``m**2``. A tile of an image, and the
kernel, are polynomials that are evaluated at a few places: 0, 1, -1, 2, -2, 1/2 and infinity (A.
Toom, 1963; S. Cook, 1966). Each transform is a product with a constant matrix, one for all tiles,
images and channels, since places come first: ``[p, t, n, channel]``.

It rounds up to ten times as much as a plain sum (by 6e-6 of the largest output), which no bound
counts. Therefore it is used within `oipjax.ops.allow_extra_rounding` only. Its tiles depend on the
size of the outputs and are no blocks of 2x2, so it is no `oipjax.ops.algorithm.Algorithm`.

Letters: ``x[h, w, n, c]``, images whose own axis comes third; ``t`` tiles; ``m`` outputs of a tile,
``p = (m + 2)**2`` places.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.ops.algorithm import SQUARE, is_3x3
from oipjax.ops.dispatch import isolated
from oipjax.ops.pooling import to_winners, winners
from oipjax.ops.products import add_bias, product, product_by_place
from oipjax.ops.windows import (
    Pads,
    Pair,
    Shape,
    offsets,
    padded,
    padded_size,
    without_border,
)

LEAST_CHANNELS = 16
"""With fewer channels the transforms cost more than they save."""
LARGEST_TILE = 5
"""Most outputs of a tile along a side: with more of them it would round too much."""
MOST_TILES = 36
"""Most tiles of an image. Each is put in its place by itself, so larger images go to `winograd`."""
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)


def fits(kernel: Shape, stride: Pair, size: Pair) -> bool:
    """Whether a convolution is 3x3 with stride 1, and of a size that gains.

    Args:
        kernel: shape of the kernel.
        stride: steps along h and w.
        size: height and width of the outputs.
    """
    if not is_3x3(kernel, stride):
        return False
    if min(kernel[2:]) < LEAST_CHANNELS or min(size) < 3:
        return False
    return math.prod(_tile_counts(size)) <= MOST_TILES


class Plan(NamedTuple):
    """How outputs are cut into tiles, and the transforms of a tile.

    Attributes:
        tiles: number of tiles down and across.
        outputs: outputs of a tile down and across.
        input_matrix: transform of the images, ``[p, p]``.
        kernel_matrix: transform of the kernel, ``[p, 9]``.
        output_matrix: transform back to outputs, ``[m, p]``.
    """

    tiles: Pair
    outputs: Pair
    input_matrix: np.ndarray
    kernel_matrix: np.ndarray
    output_matrix: np.ndarray

    @property
    def covered(self) -> Pair:
        """Height and width of the outputs of all tiles together."""
        height = self.tiles[0] * self.outputs[0]
        width = self.tiles[1] * self.outputs[1]
        return height, width


@functools.cache
def plan(size: Pair) -> Plan:
    """The fewest tiles that cover outputs of a size, and no larger ones than needed."""
    tiles = _tile_counts(size)
    high = math.ceil(size[0] / tiles[0])
    wide = math.ceil(size[1] / tiles[1])
    down = interpolation(high)
    across = interpolation(wide)
    return Plan(
        tiles=tiles,
        outputs=(high, wide),
        input_matrix=np.kron(down.input_matrix, across.input_matrix),
        kernel_matrix=np.kron(down.kernel_matrix, across.kernel_matrix),
        output_matrix=np.kron(down.output_matrix, across.output_matrix),
    )


def _tile_counts(size: Pair) -> Pair:
    """Number of tiles down and across for outputs of a size."""
    down = math.ceil(size[0] / LARGEST_TILE)
    across = math.ceil(size[1] / LARGEST_TILE)
    return down, across


class Interpolation(NamedTuple):
    """The three matrices of a correlation along one axis, in float64."""

    input_matrix: np.ndarray
    kernel_matrix: np.ndarray
    output_matrix: np.ndarray


def interpolation(outputs: int) -> Interpolation:
    """Matrices ``B, G, A``: ``A ((G g) * (B d))`` correlates ``d[outputs + 2]`` with ``g[3]``."""
    points = np.array(_POINTS[: outputs + 1])
    degrees = max(outputs, 3)
    powers = points[:, None] ** np.arange(degrees)
    infinity = np.eye(degrees)
    last = infinity[outputs - 1, :outputs]
    output_matrix = np.vstack([powers[:, :outputs], last]).T
    distances = []
    for place, point in enumerate(points):
        distances.append(np.prod(np.delete(point - points, place)))
    finite = powers[:, :3] / np.array(distances)[:, None]
    kernel_matrix = np.vstack([finite, infinity[2, :3]])
    # The third matrix solves a linear system: the sum over places of output[i] kernel[k] input[l]
    # is 1 where l = i + k, else 0.
    products = np.einsum("ip,pk->ikp", output_matrix, kernel_matrix).reshape(outputs * 3, -1)
    unit = np.eye(outputs + 2)
    targets = [unit[i + k] for i, k in offsets((outputs, 3))]
    input_matrix, *_ = np.linalg.lstsq(products, np.array(targets), rcond=None)
    # Powers of two, which cost no rounding, make both factors of a product alike in size.
    largest_input = np.abs(input_matrix).max(1)
    ratio = largest_input / np.abs(kernel_matrix).max(1)
    scale = 2.0 ** np.round(np.log2(np.sqrt(ratio)))
    return Interpolation(
        input_matrix=input_matrix / scale[:, None],
        kernel_matrix=kernel_matrix * scale[:, None],
        output_matrix=output_matrix,
    )


class Factors(NamedTuple):
    """The factors of the products: images ``[p, t * n, c]`` and kernel ``[p, c, k]``."""

    images: Array
    kernels: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv(pads: Pads, x: Array, w: Array) -> Array:
    """``[n, i, j, k]`` of ``x[n, h, w, c]`` and ``w[3, 3, c, k]``, with stride 1."""
    return _conv_forward(pads, x, w)[0]


def _conv_forward(pads, x, w):
    large = _images_third(padded(x, pads))
    height, width = large.shape[:2]
    y, factors = _outputs(large, w, (height - 2, width - 2))
    return _images_first(y), (factors, x, w)


def _conv_backward(pads, residuals, dy):
    factors, x, w = residuals

    def in_tiles(_, dy):
        return _output_tiles(_images_third(dy))

    tiles = isolated(in_tiles, per_image=False)((), dy)
    return _gradients(pads, x, w, factors, tiles, dy.shape[1:3])


conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def pooled(pads: Pads, x: Array, w: Array, b: Array) -> Array:
    """The maximum of each 2x2 square of a convolution plus a bias, ``[n, i, j, k]``."""
    return _pooled_forward(pads, x, w, b)[0]


def _pooled_forward(pads, x, w, b):
    large = _images_third(padded(x, pads))
    height, width = large.shape[:2]
    size = (_even_below(height - 2), _even_below(width - 2))
    y, factors = _outputs(large, w, size)

    def maxima(b, y):
        block = [y[i::2, j::2] for i, j in offsets(SQUARE)]
        best, winner = winners(block)
        return _images_first(add_bias(best, b)), winner

    out, winner = isolated(maxima, per_image=False)(b, y)
    return out, (factors, winner, x, w)


def _pooled_backward(pads, residuals, dy):
    factors, winner, x, w = residuals
    size = (2 * dy.shape[1], 2 * dy.shape[2])

    def in_tiles(_, winner, dy):
        dy = _images_third(dy)
        block = to_winners(winner, dy, 4)
        upper = jnp.stack(block[:2], 2)
        lower = jnp.stack(block[2:], 2)
        squares = jnp.stack([upper, lower], 1)
        return _output_tiles(squares.reshape(*size, *dy.shape[2:]))

    tiles = isolated(in_tiles, per_image=False)((), winner, dy)
    dx, dw = _gradients(pads, x, w, factors, tiles, size)
    return dx, dw, dy.sum((0, 1, 2))


pooled.defvjp(_pooled_forward, _pooled_backward)


def _outputs(large: Array, w: Array, size: Pair) -> tuple[Array, Factors]:
    """Outputs ``[*size, n, k]`` of images with their border, and the factors of the products."""
    tiling = plan(size)
    n, c = large.shape[2:]
    k = w.shape[3]
    places = len(tiling.input_matrix)
    images = _times(tiling.input_matrix, _input_tiles(large, size))
    images = images.reshape(places, -1, c)
    kernels = _times(tiling.kernel_matrix, w.reshape(9, c, k))
    products = product_by_place(images, kernels, axes=(2, 1))
    tiles = _times(tiling.output_matrix, products.reshape(places, -1, n, k))
    tiles = tiles.reshape(*tiling.outputs, *tiling.tiles, n, k)
    tiles_in_place = tiles.transpose(2, 0, 3, 1, 4, 5)
    y = tiles_in_place.reshape(*tiling.covered, n, k)
    return y[: size[0], : size[1]], Factors(images, kernels)


def _gradients(
    pads: Pads, x: Array, w: Array, factors: Factors, dy: Array, size: Shape
) -> tuple[Array, Array]:
    """Gradients of images and kernel.

    Args:
        pads: of the convolution.
        x: images without a border.
        w: kernel.
        factors: of the forward pass.
        dy: the outputs' gradient in tiles, ``[m, t, n, k]``.
        size: height and width of the outputs.
    """
    height, width = size
    tiling = plan((height, width))
    places = len(tiling.input_matrix)
    n, k = dy.shape[2:]
    c = w.shape[2]
    dy_at_places = _times(tiling.output_matrix.T, dy).reshape(places, -1, k)
    dx_at_places = product_by_place(dy_at_places, factors.kernels, axes=(2, 2))
    dx_at_places = dx_at_places.reshape(places, -1, n, c)
    dx_tiles = _times(tiling.input_matrix.T, dx_at_places)

    def joined(_, tiles):
        large_size = padded_size(x.shape[1:3], pads)
        large = _join_input_tiles(tiles, large_size, (height, width))
        return without_border(_images_first(large), x.shape, pads)

    dx = isolated(joined, per_image=False)((), dx_tiles)

    def transpose(_, images):
        return jnp.swapaxes(images, 1, 2)

    # Transposed first: a product that sums over the rows of both its factors is half as fast.
    columns = isolated(transpose, per_image=False)((), factors.images)
    dw_at_places = product_by_place(columns, dy_at_places, axes=(2, 1))
    dw = _times(tiling.kernel_matrix.T, dw_at_places).reshape(w.shape)
    return dx, dw


def _times(matrix: np.ndarray, x: Array) -> Array:
    """A matrix times the first axis of an array."""
    constant = jnp.asarray(np.ascontiguousarray(matrix), x.dtype)
    rows = x.reshape(len(x), -1)
    flat = product(constant, rows, axes=(1, 0))
    return flat.reshape(len(matrix), *x.shape[1:])


def _input_tiles(x: Array, size: Pair) -> Array:
    """Images in tiles, ``[p, t, n, c]``; neighbours overlap by two pixels."""
    tiling = plan(size)
    high, wide = tiling.outputs
    height, width = tiling.covered
    x = _fitted(x, (height + 2, width + 2))
    parts = []
    for i, j in offsets(tiling.tiles):
        rows = slice(i * high, (i + 1) * high + 2)
        columns = slice(j * wide, (j + 1) * wide + 2)
        parts.append(x[rows, columns])
    places = (high + 2) * (wide + 2)
    tiles = jnp.stack(parts, 2)
    return tiles.reshape(places, len(parts), *x.shape[2:])


def _join_input_tiles(tiles: Array, large_size: Pair, size: Pair) -> Array:
    """Transpose of `_input_tiles`: images ``[*large_size, n, c]``, with overlaps added."""
    tiling = plan(size)
    high, wide = tiling.outputs
    height, width = tiling.covered
    tiles = tiles.reshape(high + 2, wide + 2, *tiles.shape[1:])
    none = (0, 0)
    placed = []
    for number, (i, j) in enumerate(offsets(tiling.tiles)):
        rows = (i * high, height - (i + 1) * high)
        columns = (j * wide, width - (j + 1) * wide)
        tile = tiles[:, :, number]
        placed.append(jnp.pad(tile, (rows, columns, none, none)))
    return _fitted(functools.reduce(jnp.add, placed), large_size)


def _output_tiles(dy: Array) -> Array:
    """The outputs' gradient ``[i, j, n, k]`` in tiles, ``[m, t, n, k]``."""
    height, width, n, k = dy.shape
    tiling = plan((height, width))
    down, across = tiling.tiles
    high, wide = tiling.outputs
    dy = _fitted(dy, tiling.covered)
    tiles = dy.reshape(down, high, across, wide, n, k)
    tiles = tiles.transpose(1, 3, 0, 2, 4, 5)
    return tiles.reshape(high * wide, down * across, n, k)


def _images_third(x: Array) -> Array:
    """``[n, h, w, c]`` as ``[h, w, n, c]``."""
    return x.transpose(1, 2, 0, 3)


def _images_first(x: Array) -> Array:
    """``[h, w, n, c]`` as ``[n, h, w, c]``."""
    return x.transpose(2, 0, 1, 3)


def _fitted(x: Array, size: Shape) -> Array:
    """Images cropped, or filled with zeros, below and to the right."""
    below = size[0] - x.shape[0]
    right = size[1] - x.shape[1]
    if below == 0 and right == 0:
        return x
    none = (0, 0, 0)
    edges = ((0, below, 0), (0, right, 0), none, none)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _even_below(size: int) -> int:
    """The largest even number that is not larger."""
    return size - size % 2
