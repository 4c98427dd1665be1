"""The first stage of a network, seen from one of its cells.

The first stage is ``P = relu(max_pool(conv(x)))``. A *cell* is one position of ``P``. Its channels
are convex functions of the pixels of its *patch*, and a patch is small: 16 pixels for a 3x3 kernel
and 2x2 pooling. So all corners of the box of a patch (65,536) can be looked at.

Axes: ``k`` channels, ``q`` positions of the pooling window, ``p`` pixels of a patch, ``u`` corners,
``b`` parts of a box.
"""

import itertools
from dataclasses import dataclass

import numpy as np

MAX_PIXELS = 16
"""A patch of more pixels has too many corners."""

ROUNDING = 2.0**-38
"""Rounding allowance of a bound, as a share of the sum of all magnitudes.

It is far more than float64 can lose in these sums.
"""


@dataclass(frozen=True, eq=False)
class Cells:
    """The first stage seen from one of its cells; made by `cells`.

    Attributes:
        conv: float64 ``[k, q, p]``, the convolution at each position of the pooling window, as
            weights of the patch.
        bias: float64 ``[k]``.
        low: float64 ``[p]``, the smallest value of each pixel.
        high: float64 ``[p]``, the largest value of each pixel.
        patch: ``(h, w, c)`` of a patch. Pixels are numbered in that order.
        pool: the step from one patch to the next, in pixels.
        alive: bool ``[k]``, whether a channel can be positive. The others are zero on the whole
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
        """Cut the box of a patch in two along each of its ``splits`` heaviest pixels.

        Returns:
            ``[2**splits, 2, p]``, the lowest and the highest values of each part.
        """
        squared_weight = np.square(self.conv).sum((0, 1))
        effect = squared_weight * np.square(self.high - self.low)
        heaviest = np.argsort(-effect, kind="stable")[:splits]
        box = np.stack([self.low, self.high])
        middle = box.mean(0)
        parts = np.tile(box, (2**splits, 1, 1))
        choices = itertools.product((0, 1), repeat=splits)
        for part, sides in zip(parts, choices, strict=True):
            # A part on side 0 ends in the middle, a part on side 1 begins there.
            for pixel, side in zip(heaviest, sides, strict=True):
                part[1 - side, pixel] = middle[pixel]
        return parts

    def copies(self, a: int, b: int) -> tuple[np.ndarray, tuple[int, int, int]]:
        """Number the pixels of the image that a window of ``a`` x ``b`` cells sees.

        Returns:
            ``[a * b, p]``, the image's pixel of which each pixel of each patch is a copy; and the
            shape ``(h, w, c)`` of that image.
        """
        h, w, c = self.patch
        height = (a - 1) * self.pool + h
        width = (b - 1) * self.pool + w
        shape = (height, width, c)
        index = np.arange(np.prod(shape)).reshape(shape)
        patches = []
        for row, column in np.ndindex(a, b):
            i = row * self.pool
            j = column * self.pool
            patch = index[i : i + h, j : j + w]
            patches.append(patch.reshape(-1))
        return np.stack(patches), shape


def cells(
    kernel: np.ndarray,
    bias: np.ndarray,
    pool: int,
    low: np.ndarray,
    high: np.ndarray,
) -> Cells:
    """Describe a first stage ``relu(max_pool(conv(x, kernel) + bias))`` by one of its cells.

    The convolution has stride 1 and no padding.

    Args:
        kernel: ``[kh, kw, c, k]``.
        bias: ``[k]``.
        pool: window and stride of the pooling, in pixels; 1 for none.
        low: ``[c]``, the smallest value of a pixel of each channel of the image.
        high: ``[c]``, the largest value of a pixel of each channel of the image.

    Returns:
        the cell.

    Raises:
        ValueError: a patch has more than `MAX_PIXELS` pixels, or shapes do not fit.
    """
    kernel = np.asarray(kernel, np.float64)
    bias = np.asarray(bias, np.float64)
    low = np.asarray(low, np.float64)
    high = np.asarray(high, np.float64)
    _check(kernel, bias, pool, low, high)
    kh, kw, c, k = kernel.shape
    h = kh + pool - 1
    w = kw + pool - 1
    pixels = h * w * c
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"the patch hull does not fit: a patch of {h} x {w} x {c} has {pixels} pixels, "
            f"more than {MAX_PIXELS}"
        )
    placed = np.zeros((k, pool, pool, h, w, c))
    by_channel = np.moveaxis(kernel, 3, 0)
    for i, j in np.ndindex(pool, pool):
        placed[:, i, j, i : i + kh, j : j + kw] = by_channel
    conv = placed.reshape(k, pool * pool, pixels)
    low = np.tile(low, h * w)
    high = np.tile(high, h * w)
    return Cells(
        conv=conv,
        bias=bias,
        low=low,
        high=high,
        patch=(h, w, c),
        pool=pool,
        alive=_can_be_positive(conv, bias, low, high),
    )


def _check(
    kernel: np.ndarray,
    bias: np.ndarray,
    pool: int,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Refuse shapes and ranges that do not fit."""
    fits = (
        kernel.ndim == 4
        and bias.shape == kernel.shape[3:]
        and low.shape == kernel.shape[2:3]
        and high.shape == low.shape
    )
    if not fits:
        raise ValueError(
            f"cells expects kernel[kh, kw, c, k], bias[k], low[c] and high[c], got {kernel.shape}, "
            f"{bias.shape}, {low.shape} and {high.shape}"
        )
    if pool < 1:
        raise ValueError(f"pool is a number of pixels, 1 or more, got {pool}")
    is_finite = np.isfinite(low).all() and np.isfinite(high).all()
    if not (is_finite and (low <= high).all()):
        raise ValueError(
            f"low and high must be finite and low must not exceed high, got {low} and {high}"
        )


def _can_be_positive(
    conv: np.ndarray, bias: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Whether each channel can be positive on the box, with rounding allowed for: bool ``[k]``."""
    largest_terms = np.maximum(conv * high, conv * low)
    largest = largest_terms.sum(2).max(1) + bias
    size = np.maximum(np.abs(low), np.abs(high))
    magnitude = (np.abs(conv) @ size).max(1) + np.abs(bias)
    return largest > -(ROUNDING * magnitude)


def corners(box: np.ndarray) -> np.ndarray:
    """List the corners of ``box[2, p]``: ``[2**p, p]``, the last pixel fastest."""
    p = box.shape[1]
    numbers = np.arange(2**p)[:, None]
    is_high = numbers >> np.arange(p)[::-1] & 1
    return np.where(is_high, box[1], box[0])


def feasible_slopes(alpha: np.ndarray) -> np.ndarray:
    """Turn any ``alpha[..., q]`` into slopes of valid minorants, in float64.

    No slope is negative. Their sum is a tiny bit below 1 where it was larger, so it is at most 1
    however it is rounded.
    """
    alpha = np.maximum(alpha, 0).astype(np.float64)
    total = alpha.sum(-1, keepdims=True)
    return alpha * ((1 - 1e-12) / np.maximum(total, 1))
