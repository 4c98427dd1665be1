"""A certified upper bound of the mean of a second convolution's map over a box of pixels.

For a first stage ``P = relu(max_pool(conv(x)))`` and a second convolution with weights W and bias
b, at n positions,

    mean(relu(b + W * P)) = 1/n max over sets S of positions of  sum over s in S of  b + (W * P)[s]

and the sum is over cells of P. A cell sees the pixels of its patch, and of S only the bits of the
positions it feeds (9 for a 3x3 kernel). The bits say with which weights ``omega`` its channels
count. The maximum over all images and sets is bounded by one maximum for each cell, in three steps
that are valid for any values of their multipliers:

- Every cell gets its own copy of its pixels and of its bits. Neighbours share some of them.
  Multipliers ``phi(bits, pixels)`` are added to one copy and subtracted from the other, so they
  cancel for copies that agree (Lagrangian decomposition: Komodakis et al. 2007, and Bunel et al.
  2020, arXiv:2002.10410). Phi is any table of the shared bits, and for each pattern an affine
  function of the shared pixels. It is the same all along a row or column of cells, so one maximum
  serves all cells that see the edge of the image alike. Most cells see none of it.
- For each pattern of bits, a channel with ``omega < 0`` is replaced by a linear minorant ``sum_q
  alpha_q conv_q``, with ``alpha >= 0``, ``sum alpha <= 1`` (q: the positions of the pooling window;
  see `oipjax.bounds.conv.hull`).
- The rest is convex in the pixels of the cell, so all corners of its box are looked at, for each
  pattern of bits. Mostly the negative channels make the bound loose. So a box may be cut in two,
  with slopes for each half.

The bound is convex in (phi, alpha). `oipjax.bounds.conv.window_search` finds good multipliers in
float32. Then `oipjax.bounds.conv.window_dual` evaluates the bound over all corners and patterns in
float64, and rounds it up.
"""

from collections.abc import Callable

import numpy as np

from oipjax.bounds.conv.patches import Cells, cells
from oipjax.bounds.conv.window_dual import WindowDual
from oipjax.bounds.conv.window_search import search_multipliers

MAX_TAPS = 9
"""A second kernel of more taps has too many patterns of bits."""
_MOST_CUTS = 4


def window_mean_bound(
    first: Cells,
    kernel: np.ndarray,
    bias: np.ndarray,
    shape: tuple[int, int],
    *,
    passes: int = 16,
    cuts: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Bound ``mean(relu(bias + kernel * P))`` from above over all images in a box.

    ``P`` is the output of the first stage. Strides are 1 and there is no padding. The bound holds
    in exact arithmetic for the given weights. A network that rounds to float32 may exceed it by its
    own rounding.

    Args:
        first: the first stage; its pixels have the ranges of the box.
        kernel: ``[kh, kw, c, k]``, of the second convolution.
        bias: ``[k]``.
        shape: ``(h, w)`` of the image.
        passes: number of passes in which new corners are looked for.
        cuts: so many times the boxes of the problems that matter most are cut in two. 4 cuts need
            40 passes, some five times as long, and 2 GB.
        progress: called with (maps done, maps).

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: the second kernel does not fit, or shapes do not.
    """
    kernel = np.asarray(kernel, np.float64)
    bias = np.asarray(bias, np.float64)
    _check_layer(kernel, bias, len(first.bias))
    if passes < 0:
        raise ValueError(f"passes must not be negative, got {passes}")
    if not 0 <= cuts <= _MOST_CUTS:
        raise ValueError(f"cuts must be in 0 .. {_MOST_CUTS}, got {cuts}")
    if len(shape) != 2:
        raise ValueError(f"shape is (h, w), got {shape}")
    dual = WindowDual(first, kernel.shape[:2], shape, cuts)

    maps = len(bias)
    upper = np.zeros(maps)
    for index in range(maps):
        weights = kernel[..., index]
        multipliers = search_multipliers(dual, weights, bias[index], passes)
        upper[index] = dual.bound(weights, bias[index], multipliers)
        if progress is not None:
            progress(index + 1, maps)
    return upper


def window_bound(kernel1, bias1, pool, kernel2, bias2, low, high, shape, **options) -> np.ndarray:
    """Call `window_mean_bound` for a first stage given by its arrays, in the former order.

    Args:
        kernel1: ``[kh, kw, i, c]``, of the first convolution.
        bias1: ``[c]``.
        pool: window and stride of the pooling, in pixels; 1 for none.
        kernel2: ``[kh, kw, c, k]``.
        bias2: ``[k]``.
        low: ``[i]``, the smallest value of a pixel of each channel of the image.
        high: ``[i]``, the largest value of a pixel of each channel of the image.
        shape: ``(h, w)`` of the image.
        **options: the options of `window_mean_bound`.

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: a patch or the second kernel does not fit, or shapes do not.
    """
    first = cells(kernel1, bias1, pool, low, high)
    return window_mean_bound(first, kernel2, bias2, shape, **options)


def _check_layer(kernel: np.ndarray, bias: np.ndarray, channels: int) -> None:
    """Refuse a second convolution that does not fit."""
    has_shape = kernel.ndim == 4 and kernel.shape[2] == channels
    if not has_shape or bias.shape != kernel.shape[3:]:
        raise ValueError(
            f"window_mean_bound expects kernel[kh, kw, {channels}, k] and bias[k], got "
            f"{kernel.shape} and {bias.shape}"
        )
    kh, kw = kernel.shape[:2]
    if kh * kw > MAX_TAPS:
        raise ValueError(
            f"the window bound does not fit: a second kernel of {kh} x {kw} has more than "
            f"{MAX_TAPS} taps"
        )
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError("kernel and bias of the second convolution must be finite")
