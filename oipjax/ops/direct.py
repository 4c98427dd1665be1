"""Convolutions that sum a few products only, written out, so that XLA makes one loop of them and of what follows.

As patches times a matrix they would be short products, and mostly traffic: a first layer of a grey
image sums nine. Letters and quartets are those of `winograd`; a tile is what the four outputs of a
2x2 window see.
"""

import functools

import jax.numpy as jnp
from jax import Array, lax

from oipjax.ops.windows import offsets, padded

MOST_TERMS = 32
"""With more products the loop is slower than a product of matrices."""

_PAIR = (2, 2)


def fits(kernel: tuple[int, ...], stride: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a convolution with a kernel of this shape, and outputs of this size, is computed in this way."""
    return (
        kernel[0] * kernel[1] * kernel[2] <= MOST_TERMS
        and tuple(stride) == (1, 1)
        and min(size) >= 2
    )


def prepared(w: Array, *, transposed: bool = False) -> Array:
    """The kernel as it is; for `image_gradient` at the four places of a tile, zeros around, ``[p, q, c, 4, k]``."""
    if not transposed:
        return w
    kh, kw = w.shape[:2]
    p, q = _side(kh), _side(kw)
    parts = [
        jnp.pad(w, ((i, p - kh - i), (j, q - kw - j), (0, 0), (0, 0))) for i, j in offsets(_PAIR)
    ]
    return jnp.stack(parts, 3)


def cut(x: Array) -> Array:
    """Images ``[n, 2 i + kh - 1, 2 j + kw - 1, c]`` as they are."""
    return x


def quartet(w: Array, x: Array) -> list[Array]:
    """Outputs, each ``[n, i, j, k]``."""
    kh, kw, c, _ = w.shape
    seen, kernel = _windows(x.astype(_summed(x)), (kh, kw)), w.astype(_summed(x))
    out = []
    for i, j in offsets(_PAIR):
        terms = [
            seen(i + u, j + v)[..., channel : channel + 1]
            * kernel[u, v, channel].reshape(1, 1, 1, -1)
            for u, v in offsets((kh, kw))
            for channel in range(c)
        ]
        out.append(functools.reduce(jnp.add, terms).astype(x.dtype))
    return out


def sides(dys: list[Array]) -> list[Array]:
    """The gradient of a quartet as it is."""
    return dys


def image_gradient(wide: Array, dys: list[Array]) -> Array:
    """Of the images, with rows and columns of zeros to make tiles even, from that of a quartet."""
    p, q, c, _, k = wide.shape
    n, i, j, _ = dys[0].shape
    g = lax.dot_general(
        jnp.concatenate(dys, -1), wide.reshape(p * q * c, 4 * k), (((3,), (1,)), ((), ()))
    )
    g = g.reshape(n, i, j, p // 2, 2, q // 2, 2, c)
    parts = []
    for a, b in offsets((p // 2, q // 2)):
        edges = ((0, 0, 0), (a, p // 2 - 1 - a, 0), (b, q // 2 - 1 - b, 0), *[(0, 0, 0)] * 3)
        parts.append(lax.pad(g[:, :, :, a, :, b], jnp.zeros((), g.dtype), edges))
    total = functools.reduce(jnp.add, parts)
    return total.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * i + p - 2, 2 * j + q - 2, c)


def kernel_gradient(x: Array, same: Array, dys: list[Array], shape: tuple[int, ...]) -> Array:
    """Of the kernel, of shape ``[kh, kw, c, k]``, from that of a quartet and the images."""
    kh, kw, c, k = shape
    p, q = _side(kh), _side(kw)
    seen = _windows(x, (kh, kw))
    # One row for each pixel of a tile, so that nothing is turned round, and a product for each of
    # the four outputs: they need not be put together first.
    patches = jnp.stack(
        [seen(u, v)[..., channel].reshape(-1) for u, v in offsets((p, q)) for channel in range(c)]
    )
    parts = []
    for (i, j), dy in zip(offsets(_PAIR), dys, strict=True):
        wide = jnp.matmul(patches, dy.reshape(-1, k), preferred_element_type=_summed(x)).reshape(
            p, q, c, k
        )
        parts.append(wide[i : i + kh, j : j + kw])
    return functools.reduce(jnp.add, parts).astype(x.dtype)


def _summed(x: Array) -> jnp.dtype:
    """In what sums are made: those of short numbers are rounded once, as a product's are."""
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _side(kernel: int) -> int:
    """Of a tile: one more than the kernel's, and even."""
    return kernel + 1 + (kernel + 1) % 2


def _windows(x: Array, kernel: tuple[int, int]):
    """``seen(u, v)``: the pixels at place ``(u, v)`` of all tiles, ``[n, i, j, c]``."""
    n, h, w, c = x.shape
    i, j = ((size - side + 1) // 2 for size, side in zip((h, w), kernel, strict=True))
    p, q = map(_side, kernel)
    high, wide = 2 * i + p - 2, 2 * j + q - 2
    pairs = padded(x, ((0, high - h), (0, wide - w))).reshape(n, high // 2, 2, wide // 2, 2, c)
    return lambda u, v: pairs[:, u // 2 : u // 2 + i, u % 2, v // 2 : v // 2 + j, v % 2]
