"""The mean of a first convolution's map over a box of pixels: an upper bound and a close image.

``mean(relu(b + kernel * x))`` is convex in the image x, so its maximum over ``low <= x <= high`` is
at an image whose pixels are all ``low`` or ``high``. A strip of such an image, a few rows high, is
solved exactly by dynamic programming along its columns. The state is the strip's last kw - 1
columns (Viterbi 1967).

The bound cuts the image into strips. Each strip has its own copy of the kh - 1 pixel rows that it
shares with the next. The copies are coupled by Lagrange multipliers (dual decomposition: Komodakis
et al. 2007), one for each pattern of kh - 1 by kw shared pixels, the same at every position. Any
values give a valid bound, and subgradient steps (Polyak 1969) find good ones.

The search solves bands of rows with all other rows held fixed, rows and columns by turns, until no
band improves.

Letters: maps k, image h w, kernel kh kw, images n. ``r`` rows of output see ``R = r + kh - 1`` rows
of pixels, so a column of them has ``C = 2**R`` values (bit i is row i).
"""

import numpy as np

from oipjax.bounds.conv.strip_dual import strip_bound
from oipjax.bounds.conv.strip_layer import (
    MAX_STATE_BITS,
    MAX_TABLE_BITS,
    StripLayer,
    make_layer,
)
from oipjax.bounds.conv.strip_search import (
    EARLY_SWEEPS,
    SWEEPS,
    bands,
    best_images,
    search_bands,
    start_images,
)

__all__ = ["MAX_STATE_BITS", "MAX_TABLE_BITS", "mean_bound", "mean_search"]


def mean_bound(
    kernel: np.ndarray,
    bias: np.ndarray,
    low: float,
    high: float,
    shape: tuple[int, int],
    *,
    reached: np.ndarray | None = None,
    rows: int | None = None,
    steps: int = 300,
) -> np.ndarray:
    """Bound ``mean(relu(bias + kernel * x))`` from above over all images ``low <= x <= high``.

    The convolution has stride 1 and no padding. The bound is the better one of horizontal and of
    vertical strips. It holds for the exact mean of the numbers given: it is evaluated in float64,
    and the largest possible rounding is added. A float32 network may exceed it by its own rounding.

    Args:
        kernel: ``[kh, kw, 1, k]``.
        bias: ``[k]``.
        low: the smallest pixel value, one number.
        high: the largest pixel value, one number.
        shape: ``(h, w)`` of the image.
        reached: ``[k]``, means that some image reaches. They set step lengths only. A short search
            finds some unless they are given.
        rows: rows of output of a strip; as many as a table of 4,096 entries allows unless given.
            More rows are slower and, with the multipliers found, hardly tighter.
        steps: subgradient steps.

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: the kernel has several input channels, or no strip of it fits the dynamic
            programme.
    """
    layer = make_layer(kernel, bias, low, high, shape)
    if reached is None:
        reached = _reached_by_short_search(layer)
    reached = np.asarray(reached, np.float64)
    upper = np.full(len(layer.bias), np.inf)
    for direction in (layer, layer.transposed()):
        if direction.fits():
            upper = np.minimum(upper, strip_bound(direction, reached, rows, steps))
    return upper


def _reached_by_short_search(layer: StripLayer) -> np.ndarray:
    """Means ``[k]`` that some image reaches."""
    images = best_images(layer, start_images(layer, 0), 2)
    _, scores = search_bands(layer, images, bands(layer)[0], EARLY_SWEEPS)
    return scores.max(1)


def mean_search(
    kernel: np.ndarray,
    bias: np.ndarray,
    low: float,
    high: float,
    shape: tuple[int, int],
    *,
    starts: int = 12,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Search for images of ``low`` and ``high`` with a large ``mean(relu(bias + kernel * x))``.

    Starts are periodic patterns (the best of every small period) and random images, lifted by sign
    steps. The best go on to bands of 2 rows, a quarter of them to bands of 3, one to bands of 4.

    Args:
        kernel: ``[kh, kw, 1, k]``.
        bias: ``[k]``.
        low: the smallest pixel value, one number.
        high: the largest pixel value, one number.
        shape: ``(h, w)`` of the image.
        starts: images per map that enter the first band search.
        seed: of the random starts.

    Returns:
        images ``[k, h, w, 1]`` and their means ``[k]``, float64.

    Raises:
        ValueError: as `mean_bound`.
    """
    layer = make_layer(kernel, bias, low, high, shape)
    images = start_images(layer, seed)
    keep = starts
    sizes = bands(layer)
    for band in sizes:
        sweeps = SWEEPS if band == sizes[-1] else EARLY_SWEEPS
        images = best_images(layer, images, keep)
        images, _ = search_bands(layer, images, band, sweeps)
        keep = max(1, keep // 4)
    images = best_images(layer, images, 1)
    images = layer.pixels(images == np.float32(layer.high))
    scores = layer.mean(images)[:, 0]
    height, width = shape
    return np.moveaxis(images, 1, 3)[:, :height, :width], scores
