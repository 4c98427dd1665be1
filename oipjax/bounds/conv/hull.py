"""Certified upper bounds of linear functions of the first pooled layer: the joint patch hull.

A *cell* ``P[ch]`` of the first stage (convolution, max pooling, ReLU) is a convex function of the
pixels of its patch, and a patch is small: 16 pixels for a 3x3 kernel and 2x2 pooling. For weights
``omega`` on a window of cells,

    max over images in the box of  sum over cells, ch of  omega[cell, ch] * P[cell, ch]

is bounded from above in three steps, each valid for whatever values its multipliers have:

- A channel with ``omega < 0`` is replaced by a linear minorant: its ``P = max(0, conv_q)`` is at
  least ``sum_q alpha_q conv_q`` for ``alpha >= 0``, ``sum alpha <= 1`` (q: the positions of the
  pooling window). This is the relaxation of Wong & Kolter 2018 (arXiv:1711.00851) and CROWN (Zhang
  et al. 2018, arXiv:1811.00866), with slopes that are optimised as in alpha-CROWN (Xu et al. 2021,
  arXiv:2011.13824), and max pooling taken in.
- Every cell gets its own copy of its pixels, and multipliers ``lambda`` that sum to zero over the
  copies of one pixel (Lagrangian decomposition, as in Bunel et al. 2020, arXiv:2002.10410). A
  cell's part is then convex in its own pixels, so its maximum is at a corner of its box, and *all*
  corners (65,536) are looked at. All channels of a cell are so bounded together, exactly, which is
  what k-ReLU (Singh et al. 2019) does for small groups of neurons.
- What is lost is lost on negative channels: one minorant must serve a whole box. Each cell's box is
  therefore cut in two along its ``splits`` heaviest pixels; each of the ``2**splits`` parts has
  corners and slopes of its own.

The bound is convex in (lambda, alpha). Adam on subgradients finds good ones in float32; between two
passes over all corners only those groups of corners that came near the maximum are looked at. The
bound is then evaluated once more, over all corners, in float64, and rounded up: that value is the
result, and it is valid however the search went.

Axes: ``m`` problems, ``n = a * b`` cells, ``k`` channels, ``q`` positions of the pool, ``p`` pixels
    of a patch, ``b``
parts of a box, and corners ``u`` by their leading (``g``, a group) and trailing (``l``) pixels.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

MAX_PIXELS = 16
"""A patch of more pixels has too many corners."""

_SLACK = 2.0**-38  # of the sum of all magnitudes: far more than float64 can lose in these sums
_COLUMNS = 64  # cells searched at a time; their corner values take 16 MiB * 2**splits
_EVERY = 10  # steps from one pass over all corners to the next
_GROUPS = 16  # groups of corners (of 256) looked at in between
_CHUNK = 2048  # corners evaluated at a time
_STEP = 0.05  # of lambda, in units of what a pixel does to a cell
_SLOPE = 0.1  # of alpha


@dataclass(frozen=True, eq=False)
class Cells:
    """The first stage seen from one of its cells; made by `cells`.

    Attributes:
        conv: float64 ``[k, q, p]``, the convolution at each position of the pool as weights of the
            patch.
        bias: float64 ``[k]``.
        low: float64 ``[p]``, the smallest value of each pixel.
        high: float64 ``[p]``, the largest.
        patch: ``(h, w, c)`` of a patch; pixels are numbered in that order.
        pool: the step from one patch to the next, in pixels.
        alive: bool ``[k]``, whether a channel can be positive; the others are zero on the whole
            box.
    """

    conv: np.ndarray
    bias: np.ndarray
    low: np.ndarray
    high: np.ndarray
    patch: tuple[int, int, int]
    pool: int
    alive: np.ndarray

    def boxes(self, splits: int) -> np.ndarray:
        """The box of a patch cut along its ``splits`` heaviest pixels, ``[b, 2, p]`` (lowest and highest values)."""
        heaviest = np.argsort(
            -np.square(self.conv).sum((0, 1)) * np.square(self.high - self.low), kind="stable"
        )
        box = np.stack([self.low, self.high])
        parts = np.tile(box, (2**splits, 1, 1))
        for part, sides in zip(parts, itertools.product((0, 1), repeat=splits), strict=True):
            for pixel, side in zip(heaviest, sides, strict=False):
                part[1 - side, pixel] = box[:, pixel].mean()
        return parts

    def copies(self, a: int, b: int) -> tuple[np.ndarray, tuple[int, int, int]]:
        """Which pixel of the window's image each pixel of each patch is, ``[a * b, p]``, and the image's shape."""
        h, w, c = self.patch
        shape = ((a - 1) * self.pool + h, (b - 1) * self.pool + w, c)
        index = np.arange(np.prod(shape)).reshape(shape)
        starts = itertools.product(
            range(0, a * self.pool, self.pool), range(0, b * self.pool, self.pool)
        )
        return np.stack([index[i : i + h, j : j + w].reshape(-1) for i, j in starts]), shape


def cells(
    kernel: np.ndarray, bias: np.ndarray, pool: int, low: np.ndarray, high: np.ndarray
) -> Cells:
    """What `hull` must know of a first stage ``relu(max_pool(conv(x, kernel) + bias))``; stride 1, no padding.

    Args:
        kernel: ``[kh, kw, c, k]``.
        bias: ``[k]``.
        pool: window and stride of the pooling, in pixels; 1 for none.
        low: ``[c]``, the smallest value of a pixel of each channel of the image.
        high: ``[c]``, the largest.

    Raises:
        ValueError: a patch has more than `MAX_PIXELS` pixels, or shapes do not fit.
    """
    kernel, bias, low, high = (np.asarray(array, np.float64) for array in (kernel, bias, low, high))
    if (
        kernel.ndim != 4
        or bias.shape != kernel.shape[3:]
        or low.shape != kernel.shape[2:3]
        or high.shape != low.shape
    ):
        raise ValueError(
            f"cells expects kernel[kh, kw, c, k], bias[k], low[c] and high[c], got {kernel.shape}, {bias.shape}, "
            f"{low.shape} and {high.shape}"
        )
    if pool < 1:
        raise ValueError(f"pool is a number of pixels, 1 or more, got {pool}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ValueError(
            f"low and high must be finite and low must not exceed high, got {low} and {high}"
        )
    kh, kw, c, k = kernel.shape
    h, w = kh + pool - 1, kw + pool - 1
    pixels = h * w * c
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"the patch hull does not fit: a patch of {h} x {w} x {c} has {pixels} pixels, more than {MAX_PIXELS}"
        )
    conv = np.zeros((k, pool, pool, h, w, c))
    for i, j in itertools.product(range(pool), repeat=2):
        conv[:, i, j, i : i + kh, j : j + kw] = np.moveaxis(kernel, 3, 0)
    conv = conv.reshape(k, pool * pool, pixels)
    low, high = np.tile(low, h * w), np.tile(high, h * w)
    largest = np.maximum(conv * high, conv * low).sum(2).max(1) + bias
    rounding = _SLACK * (
        (np.abs(conv) @ np.maximum(np.abs(low), np.abs(high))).max(1) + np.abs(bias)
    )
    return Cells(conv, bias, low, high, (h, w, c), pool, largest > -rounding)


def hull(
    cells: Cells,
    omega: np.ndarray,
    *,
    steps: int = 200,
    splits: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """An upper bound of ``sum omega * P`` over all images in the box, for each of ``m`` problems.

    Lower bounds are ``-hull(cells, -omega)[0]``. The bound holds in exact arithmetic for the given
    weights; a network that rounds to float32 may exceed it by its own rounding.

    Args:
        cells: the first stage.
        omega: ``[m, a, b, k]``, weights on the channels of a window of ``a x b`` cells.
        steps: number of updates of the multipliers; the first half before the boxes are cut.
        splits: each cell's box is cut in two along so many pixels. One more doubles the time.
        progress: called with (problems done, problems).

    Returns:
        ``upper``, float64 ``[m]``, and ``hints``, float64 ``[m, h, w, c]``: the images of the
        relaxed problem, averaged over the search, which an ascent may start from.

    Raises:
        ValueError: ``omega`` does not fit, or a number is out of range.
    """
    omega = np.asarray(omega, np.float64)
    if (
        omega.ndim != 4
        or omega.shape[3] != len(cells.bias)
        or 0 in omega.shape
        or not np.isfinite(omega).all()
    ):
        raise ValueError(
            f"omega must be finite and [m, a, b, {len(cells.bias)}], got {omega.shape}"
        )
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if not 0 <= splits <= 8:
        raise ValueError(f"splits must be in 0 .. 8, got {splits}")
    splits = min(splits, len(cells.low))
    m, a, b, _ = omega.shape
    window = _Window(cells, a, b, [0, splits] if splits else [0])
    flat = omega.reshape(m, a * b, -1)[..., window.alive]
    some = min(m, max(1, _COLUMNS // (a * b)))
    found = []
    for first in range(0, m, some):
        part = flat[first : first + some]
        padded = np.concatenate([part, np.zeros((some - len(part), *part.shape[1:]))])
        lam, alpha, image = window.search(padded, steps)
        found.append((lam[: len(part)], alpha[:, : len(part)], image[: len(part)]))
        if progress is not None:
            progress(first + len(part), m)
    lam, alpha, image = (
        np.concatenate([f[i] for f in found], axis) for i, axis in enumerate((0, 1, 0))
    )
    return window.certify(flat, lam, alpha), image.reshape(m, *window.shape)


class _Window:
    """All that problems on windows of one size share."""

    def __init__(self, cells: Cells, a: int, b: int, splits: list[int]):
        self.alive = np.flatnonzero(cells.alive)
        self.cells = cells
        self.conv, self.bias = cells.conv[self.alive], cells.bias[self.alive]
        self.index, self.shape = cells.copies(a, b)
        self.count = np.bincount(self.index.ravel(), minlength=int(np.prod(self.shape)))
        self.boxes = [cells.boxes(s) for s in splits]
        single = self.conv.astype(np.float32), self.bias.astype(np.float32)
        self.tables = [_table(boxes.astype(np.float32), *single) for boxes in self.boxes]
        self.low, self.high = (self.over_image(side) for side in (cells.low, cells.high))

    def over_image(self, patch: np.ndarray) -> np.ndarray:
        image = np.zeros(len(self.count))
        image[self.index] = patch
        return image

    def search(self, omega: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Multipliers ``lam[m, n, p]`` and ``alpha[b, m, n, k, q]`` for ``omega[m, n, k]``; images ``[m, hwc]``."""
        m, n, k = omega.shape
        q, p = self.conv.shape[1:]
        lam, alpha = np.zeros((m, n, p), np.float32), np.full((1, m, n, k, q), 0.5 / q, np.float32)
        x = np.tile(((self.cells.low + self.cells.high) / 2).astype(np.float32), (m, n, 1))
        single = tuple(array.astype(np.float32) for array in (self.conv, self.bias, omega))
        for boxes, table in zip(self.boxes, self.tables, strict=True):
            alpha = np.tile(alpha, (len(boxes), 1, 1, 1, 1)) if len(alpha) == 1 else alpha
            if k and (share := steps // len(self.boxes)):
                found = _search(
                    share,
                    table,
                    boxes.astype(np.float32),
                    *single,
                    self.index,
                    self.count,
                    lam,
                    alpha,
                )
                lam, alpha, x = (np.asarray(leaf) for leaf in found)
        image = self.total(x) / np.maximum(self.count, 1)
        return lam, alpha, np.clip(image, self.low, self.high)

    def total(self, patches: np.ndarray) -> np.ndarray:
        """Sum over the copies of each pixel: ``[m, n, p]`` to float64 ``[m, hwc]``."""
        image = np.zeros((len(patches), len(self.count)))
        np.add.at(image.T, self.index, np.moveaxis(patches, 0, 2).astype(np.float64))
        return image

    def certify(self, omega: np.ndarray, lam: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The bound with these multipliers in float64, over all corners, rounded up: ``[m]``."""
        m, n, k = omega.shape
        q, p = self.conv.shape[1:]
        # A tiny bit below 1, so that slopes sum to at most 1 however they are rounded.
        alpha = np.maximum(alpha, 0).astype(np.float64)
        alpha = alpha * ((1 - 1e-12) / np.maximum(alpha.sum(-1, keepdims=True), 1))
        # Each pixel's share of what its lambdas sum to is taken off its copies; what rounding
        # leaves over is a linear function of the image, and bounded as such.
        lam = lam.astype(np.float64)
        lam = lam - (self.total(lam) / np.maximum(self.count, 1))[:, self.index]
        rest = self.total(lam)
        up, down = np.maximum(omega, 0), np.minimum(omega, 0)
        largest = np.full(m * n, -np.inf)
        for box, slopes in zip(self.boxes[-1], alpha, strict=True):
            slopes = (down[..., None] * slopes).reshape(m * n, k, q)
            vector = lam.reshape(m * n, p) + slopes.reshape(m * n, k * q) @ self.conv.reshape(
                k * q, p
            )
            offset = slopes.sum(2) @ self.bias
            factors = np.concatenate([up.reshape(m * n, k), vector], 1).T
            here = np.full(m * n, -np.inf)
            for points in np.array_split(_corners(box), -(-(2**p) // _CHUNK)):
                values = _channels(points, self.conv, self.bias)
                np.maximum(here, (np.concatenate([values, points], 1) @ factors).max(0), out=here)
            largest = np.maximum(largest, here + offset)
        size = np.maximum(np.abs(self.cells.low), np.abs(self.cells.high))
        heaviest = (np.abs(self.conv) @ size).max(1, initial=0) + np.abs(self.bias)
        weight = np.abs(omega) @ heaviest + np.abs(lam) @ size
        bound = largest.reshape(m, n).sum(1) + np.maximum(-rest * self.low, -rest * self.high).sum(
            1
        )
        return bound + _SLACK * weight.sum(1)


def _corners(box: np.ndarray) -> np.ndarray:
    """The corners of ``box[2, p]``: ``[2**p, p]``, the last pixel fastest."""
    p = box.shape[1]
    return np.where(np.arange(2**p)[:, None] >> np.arange(p)[::-1] & 1, box[1], box[0])


def _channels(points, conv, bias):
    """The channels ``[u, k]`` of a cell for patches ``points[u, p]``."""
    k, q, p = conv.shape
    largest = (points @ conv.reshape(k * q, p).T).reshape(len(points), k, q).max(2) + bias[None]
    return largest.clip(0)


@jax.jit
def _table(boxes, conv, bias):
    """The channels at the corners of each box, ``[b, u, k]``, in float32: for the search."""
    points = jax.vmap(_ends)(boxes)
    values = [points @ conv[:, q].T + bias[None, None] for q in range(conv.shape[1])]
    return jnp.maximum(functools.reduce(jnp.maximum, values), 0)


# --- the search
# -------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _search(steps, table, boxes, conv, bias, omega, index, count, lam, alpha):
    """Adam on (lambda, alpha): the best, ``[m, n, p]`` and ``[b, m, n, k, q]``, and a mean of corners ``[m, n, p]``."""
    m, n, k = omega.shape
    parts, _, p = boxes.shape
    leading = p // 2
    q, groups = conv.shape[1], 2**leading
    columns = m * n
    up, down = jnp.maximum(omega, 0).reshape(columns, k), jnp.minimum(omega, 0)[..., None]
    values = jnp.stack([table[b] @ up.T for b in range(parts)]).reshape(parts, groups, -1, columns)
    ends = jax.vmap(_ends)(boxes[..., leading:]), jax.vmap(_ends)(boxes[..., :leading])
    flat = conv.reshape(k * q, p)
    # The size of a step of lambda: a part of what one pixel does to a cell.
    energy = jnp.square(omega) @ jnp.sum(jnp.square(conv), (1, 2))
    scale = _STEP * jnp.sqrt(jnp.sum(energy, 1) / (n * p * q))[:, None, None]

    def balanced(lam):
        total = jnp.zeros((m, count.shape[0]), lam.dtype).at[:, index].add(lam)
        return lam - (total / jnp.maximum(count, 1).astype(lam.dtype)[None])[:, index]

    def vectors(lam, alpha):
        weights = down[None] * alpha
        slopes = (weights.reshape(-1, k * q) @ flat).reshape(parts, m, n, p)
        offset = jnp.sum(weights, -1) @ bias
        return (lam[None] + slopes).reshape(parts, columns, p), offset.reshape(parts, columns)

    def maxima(values, chosen, vector, offset):
        """Largest of each group ``[b, g, c]``, and the corner of the largest of all, ``[b, c, p]``."""
        trailing = jnp.einsum("blp,bcp->blc", ends[0], vector[..., leading:])
        leads = jnp.einsum("bgp,bcp->bgc", ends[1], vector[..., :leading])
        leads = leads if chosen is None else jnp.take_along_axis(leads, chosen, axis=1)
        best = jnp.max(values + trailing[:, None], axis=2) + leads + offset[:, None]
        group = jnp.argmax(best, axis=1)
        row = jnp.take_along_axis(values, group[:, None, None], axis=1)[:, 0] + trailing
        low = jnp.argmax(row, axis=1)
        group = (
            group if chosen is None else jnp.take_along_axis(chosen, group[:, None], axis=1)[:, 0]
        )
        at = [
            jnp.take_along_axis(e, i[..., None], axis=1)
            for e, i in ((ends[1], group), (ends[0], low))
        ]
        return best, jnp.concatenate(at, -1)

    def update(state, best, corner, t):
        lam, alpha, lam1, lam2, alpha1, alpha2, mean = state
        winner = jnp.argmax(jnp.max(best, axis=1), axis=0)
        x = jnp.take_along_axis(corner, winner[None, :, None], axis=0)[0].reshape(m, n, p)
        g = balanced(x)
        pre = (corner.reshape(-1, p) @ flat.T).reshape(parts, m, n, k, q) + bias[
            None, None, None, :, None
        ]
        h = down[None] * pre
        lam1, lam2 = (
            0.9 * lam1 + 0.1 * g,
            0.99 * lam2 + 0.01 * jnp.mean(jnp.square(g), (1, 2), keepdims=True),
        )
        alpha1, alpha2 = 0.9 * alpha1 + 0.1 * h, 0.99 * alpha2 + 0.01 * jnp.square(h)
        one, two = 1 - 0.9 ** (t + 1), 1 - 0.99 ** (t + 1)
        size = 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
        lam = balanced(lam - size * scale * (lam1 / one) / (jnp.sqrt(lam2 / two) + 1e-20))
        alpha = jnp.maximum(
            alpha - _SLOPE * size * (alpha1 / one) / (jnp.sqrt(alpha2 / two) + 1e-20), 0
        )
        alpha = alpha / jnp.maximum(jnp.sum(alpha, -1, keepdims=True), 1)
        return lam, alpha, lam1, lam2, alpha1, alpha2, 0.97 * mean + 0.03 * x

    def keep_best(kept, state, best):
        value = jnp.sum(jnp.max(best, axis=(0, 1)).reshape(m, n), 1)
        better = value < kept[0]
        return (
            jnp.where(better, value, kept[0]),
            jnp.where(better[:, None, None], state[0], kept[1]),
            jnp.where(better[None, :, None, None, None], state[1], kept[2]),
        )

    def block(first, carry):
        state, kept = carry
        vector, offset = vectors(*state[:2])
        best, corner = maxima(values, None, vector, offset)
        kept = keep_best(kept, state, best)
        t = (first * _EVERY).astype(jnp.float32)
        state = update(state, best, corner, t)
        _, chosen = lax.top_k(jnp.moveaxis(best, 1, 2), min(_GROUPS, groups))
        chosen = jnp.moveaxis(chosen, 2, 1)
        near = jnp.take_along_axis(values, chosen[:, :, None], axis=1)

        def again(i, state):
            return update(state, *maxima(near, chosen, *vectors(*state[:2])), t + 1 + i)

        return lax.fori_loop(0, jnp.minimum(_EVERY, steps - first * _EVERY) - 1, again, state), kept

    zero = jnp.zeros_like
    state = (
        lam,
        alpha,
        zero(lam),
        jnp.zeros((m, 1, 1)),
        zero(alpha),
        zero(alpha),
        jnp.zeros((m, n, p)),
    )
    kept = (jnp.full(m, jnp.inf), lam, alpha)
    state, kept = lax.fori_loop(0, -(-steps // _EVERY), block, (state, kept))
    best, _ = maxima(values, None, *vectors(*state[:2]))
    kept = keep_best(kept, state, best)
    return kept[1], kept[2], state[6] / (1 - 0.97**steps)


def _ends(box: Array) -> Array:
    """The corners of ``box[2, p]``, as `_corners`."""
    p = box.shape[1]
    return jnp.where((np.arange(2**p)[:, None] >> np.arange(p)[::-1] & 1) == 1, box[1:], box[:1])
