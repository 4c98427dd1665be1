"""Convolutions that sum a few products only, written out term by term, as an `Algorithm`.

XLA makes one loop of the terms and of what follows them. As patches times a matrix such a
convolution would be short products, and mostly memory traffic: a first layer of a grey image sums
nine. A tile is the part of an image that one block of outputs depends on.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops.algorithm import SQUARE, Algorithm
from oipjax.ops.products import product
from oipjax.ops.windows import Pair, Shape, offsets, padded

MOST_TERMS = 32
"""With more products the loop is slower than a product of matrices."""


def fits(kernel: Shape, stride: Pair, size: Pair) -> bool:
    """Whether a convolution sums few products, with stride 1 and at least one whole block."""
    terms = kernel[0] * kernel[1] * kernel[2]
    return terms <= MOST_TERMS and tuple(stride) == (1, 1) and min(size) >= 2


def transform_kernel(w: Array, *, transposed: bool = False) -> Array:
    """The kernel as it is; transposed: once for each output of a block, ``[p, q, c, 4, k]``.

    Each is placed in a tile of ``p`` by ``q`` pixels, with zeros around it.
    """
    if not transposed:
        return w
    kh, kw = w.shape[:2]
    p = _tile_side(kh)
    q = _tile_side(kw)
    none = (0, 0)
    parts = []
    for i, j in offsets(SQUARE):
        rows = (i, p - kh - i)
        columns = (j, q - kw - j)
        parts.append(jnp.pad(w, (rows, columns, none, none)))
    return jnp.stack(parts, 3)


def transform_input(x: Array) -> Array:
    """The images as they are, ``[n, 2 i + kh - 1, 2 j + kw - 1, c]``."""
    return x


def block(w: Array, x: Array) -> list[Array]:
    """The block of outputs, four arrays ``[n, i, j, k]``."""
    kh, kw, c, _ = w.shape
    pixels_at = _tile_pixels(x.astype(_dtype_of_sums(x)), (kh, kw))
    kernel = w.astype(_dtype_of_sums(x))
    outputs = []
    for i, j in offsets(SQUARE):
        terms = []
        for u, v in offsets((kh, kw)):
            for channel in range(c):
                pixels = pixels_at(i + u, j + v)[..., channel : channel + 1]
                weights = kernel[u, v, channel].reshape(1, 1, 1, -1)
                terms.append(pixels * weights)
        outputs.append(functools.reduce(jnp.add, terms).astype(x.dtype))
    return outputs


def transform_output_gradient(dys: list[Array]) -> list[Array]:
    """The gradient of a block as it is."""
    return dys


def input_gradient(kernels: Array, dys: list[Array]) -> Array:
    """Gradient of the images, with rows and columns of zeros that make tiles even.

    Args:
        kernels: the transposed kernel, ``[p, q, c, 4, k]``.
        dys: the gradient of the block.
    """
    p, q, c, _, k = kernels.shape
    n, i, j, _ = dys[0].shape
    dy = jnp.concatenate(dys, -1)
    matrix = kernels.reshape(p * q * c, 4 * k)
    tiles = product(dy, matrix, axes=(3, 1))
    down = p // 2
    across = q // 2
    tiles = tiles.reshape(n, i, j, down, 2, across, 2, c)
    zero = jnp.zeros((), tiles.dtype)
    parts = []
    none = (0, 0, 0)
    for a, b in offsets((down, across)):
        rows = (a, down - 1 - a, 0)
        columns = (b, across - 1 - b, 0)
        part = tiles[:, :, :, a, :, b]
        parts.append(lax.pad(part, zero, (none, rows, columns, none, none, none)))
    total = functools.reduce(jnp.add, parts)
    height = 2 * i + p - 2
    width = 2 * j + q - 2
    rows_of_pairs = total.transpose(0, 1, 3, 2, 4, 5)
    return rows_of_pairs.reshape(n, height, width, c)


def kernel_gradient(x: Array, same: Array, dys: list[Array], shape: Shape) -> Array:
    """Gradient of a kernel of a shape ``[kh, kw, c, k]``, from the images and that of the block."""
    del same
    kh, kw, c, k = shape
    p = _tile_side(kh)
    q = _tile_side(kw)
    pixels_at = _tile_pixels(x, (kh, kw))
    # Each pixel of a tile is a row, so that nothing is transposed. Each of the four outputs is a
    # product of its own, so that they need not be joined first.
    rows = []
    for u, v in offsets((p, q)):
        for channel in range(c):
            rows.append(pixels_at(u, v)[..., channel].reshape(-1))
    patches = jnp.stack(rows)
    parts = []
    for offset, dy in zip(offsets(SQUARE), dys, strict=True):
        i, j = offset
        flat = dy.reshape(-1, k)
        wide = jnp.matmul(patches, flat, preferred_element_type=_dtype_of_sums(x))
        tile = wide.reshape(p, q, c, k)
        parts.append(tile[i : i + kh, j : j + kw])
    return functools.reduce(jnp.add, parts).astype(x.dtype)


def _dtype_of_sums(x: Array) -> jnp.dtype:
    """The dtype of sums: those of short numbers are rounded once, as a product's are."""
    if jnp.finfo(x.dtype).bits >= 32:
        return x.dtype
    return jnp.dtype(jnp.float32)


def _tile_side(kernel: int) -> int:
    """Side of a tile for a side of the kernel: one more, rounded up to an even number."""
    return kernel + 1 + (kernel + 1) % 2


def _tile_pixels(x: Array, kernel: Pair) -> Callable[[int, int], Array]:
    """``pixels_at(u, v)``: the pixels at position ``(u, v)`` of all tiles, ``[n, i, j, c]``."""
    n, h, w, c = x.shape
    kh, kw = kernel
    i = (h - kh + 1) // 2
    j = (w - kw + 1) // 2
    height = 2 * i + _tile_side(kh) - 2
    width = 2 * j + _tile_side(kw) - 2
    below = height - h
    right = width - w
    large = padded(x, ((0, below), (0, right)))
    pairs = large.reshape(n, height // 2, 2, width // 2, 2, c)

    def pixels_at(u: int, v: int) -> Array:
        rows = slice(u // 2, u // 2 + i)
        columns = slice(v // 2, v // 2 + j)
        return pairs[:, rows, u % 2, columns, v % 2]

    return pixels_at


DIRECT = Algorithm(
    name="direct",
    fits=fits,
    transform_kernel=transform_kernel,
    transform_input=transform_input,
    block=block,
    transform_output_gradient=transform_output_gradient,
    input_gradient=input_gradient,
    kernel_gradient=kernel_gradient,
)
