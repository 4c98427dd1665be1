"""Certified upper bounds of linear functions of the first pooled layer: the joint patch hull.

A *cell* ``P[ch]`` of the first stage (convolution, max pooling, ReLU) is a convex function of the
pixels of its patch, and a patch is small: 16 pixels for a 3x3 kernel and 2x2 pooling. For weights
``omega`` on a window of cells,

    max over images in the box of  sum over cells, ch of  omega[cell, ch] * P[cell, ch]

is bounded from above in three steps. Each step is valid for any values of its multipliers:

- A channel with ``omega < 0`` is replaced by a linear minorant: ``P = max(0, conv_q)`` is at least
  ``sum_q alpha_q conv_q`` for ``alpha >= 0``, ``sum alpha <= 1`` (q: the positions of the pooling
  window). This is the relaxation of Wong & Kolter 2018 (arXiv:1711.00851) and CROWN (Zhang et al.
  2018, arXiv:1811.00866), with slopes that are optimised as in alpha-CROWN (Xu et al. 2021,
  arXiv:2011.13824), extended to max pooling.
- Every cell gets its own copy of its pixels, and multipliers ``lambda`` that sum to zero over the
  copies of one pixel (Lagrangian decomposition, as in Bunel et al. 2020, arXiv:2002.10410). The
  part of a cell is then convex in its own pixels, so its maximum is at a corner of its box, and
  *all* corners (65,536) are looked at. So all channels of a cell are bounded together, exactly.
  k-ReLU (Singh et al. 2019) does the same for small groups of neurons.
- Only negative channels make the bound loose: one minorant must serve a whole box. So each cell's
  box is cut in two along its ``splits`` heaviest pixels. Each of the ``2**splits`` parts has its
  own corners and slopes.

The bound is convex in (lambda, alpha). `oipjax.bounds.conv.hull_search` finds good multipliers in
float32. Then `oipjax.bounds.conv.hull_dual` evaluates the bound once more, over all corners, in
float64, and rounds it up. That value is the result. It is valid for any result of the search.

Axes: ``m`` problems, ``n = a * b`` cells, ``k`` channels, ``q`` positions of the pooling window,
``p`` pixels of a patch, ``b`` parts of a box, ``u`` corners.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from oipjax.bounds.conv.hull_dual import HullDual
from oipjax.bounds.conv.hull_search import Multipliers, corner_table, search
from oipjax.bounds.conv.patches import Cells

_MOST_SPLITS = 8
_CELLS_AT_A_TIME = 64  # the corner values of so many cells take 16 MiB * 2**splits


class _Phase(NamedTuple):
    """A phase of the search: whole boxes first, then cut boxes.

    Attributes:
        boxes: float64 ``[b, 2, p]``.
        table: float32 ``[b, u, k]``, the channels at the corners of each box.
    """

    boxes: np.ndarray
    table: np.ndarray


class _Found(NamedTuple):
    """Results of the search.

    Attributes:
        lam: float32 ``[m, n, p]``.
        alpha: float32 ``[b, m, n, k, q]``.
        images: float64 ``[m, hwc]``.
    """

    lam: np.ndarray
    alpha: np.ndarray
    images: np.ndarray


def hull_bound(
    cells: Cells,
    omega: np.ndarray,
    *,
    steps: int = 200,
    splits: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bound ``sum omega * P`` from above over all images in the box, for each of ``m`` problems.

    Lower bounds are ``-hull_bound(cells, -omega)[0]``. The bound holds in exact arithmetic for the
    given weights. A network that rounds to float32 may exceed it by its own rounding.

    Args:
        cells: the first stage.
        omega: ``[m, a, b, k]``, weights on the channels of a window of ``a`` x ``b`` cells.
        steps: number of updates of the multipliers. The first half is made before the boxes are
            cut.
        splits: number of pixels along which each cell's box is cut in two. One more doubles the
            time.
        progress: called with (problems done, problems).

    Returns:
        ``upper``, float64 ``[m]``; and ``hints``, float64 ``[m, h, w, c]``: the images of the
        relaxed problem, averaged over the search. An ascent may start from them.

    Raises:
        ValueError: ``omega`` does not fit, or a number is out of range.
    """
    omega = np.asarray(omega, np.float64)
    _check(omega, len(cells.bias), steps, splits)
    splits = min(splits, len(cells.low))
    m, a, b, _ = omega.shape
    dual = HullDual(cells, a, b)
    alive_omega = omega.reshape(m, a * b, -1)[..., dual.alive]
    phases = _phases(cells, dual, splits)

    batch_size = min(m, max(1, _CELLS_AT_A_TIME // (a * b)))
    batches = []
    for first in range(0, m, batch_size):
        batch = alive_omega[first : first + batch_size]
        found = _search_padded(dual, phases, batch, batch_size, steps)
        batches.append(found)
        if progress is not None:
            progress(first + len(batch), m)
    lam = np.concatenate([found.lam for found in batches])
    alpha = np.concatenate([found.alpha for found in batches], 1)
    images = np.concatenate([found.images for found in batches])
    upper = dual.bound(alive_omega, lam, alpha, phases[-1].boxes)
    return upper, images.reshape(m, *dual.shape)


def _check(omega: np.ndarray, channels: int, steps: int, splits: int) -> None:
    """Refuse weights that do not fit and numbers that are out of range."""
    has_shape = omega.ndim == 4 and omega.shape[3] == channels and 0 not in omega.shape
    if not has_shape or not np.isfinite(omega).all():
        raise ValueError(f"omega must be finite and [m, a, b, {channels}], got {omega.shape}")
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if not 0 <= splits <= _MOST_SPLITS:
        raise ValueError(f"splits must be in 0 .. {_MOST_SPLITS}, got {splits}")


def _phases(cells: Cells, dual: HullDual, splits: int) -> list[_Phase]:
    """The phases of a search: one on whole boxes and, if boxes are cut, one on their parts."""
    conv = dual.conv.astype(np.float32)
    bias = dual.bias.astype(np.float32)
    phases = []
    for cuts in sorted({0, splits}):
        boxes = cells.boxes(cuts)
        table = corner_table(boxes.astype(np.float32), conv, bias)
        phases.append(_Phase(boxes=boxes, table=table))
    return phases


def _search_padded(
    dual: HullDual, phases: list[_Phase], omega: np.ndarray, size: int, steps: int
) -> _Found:
    """Search with ``omega[m, n, k]`` padded to ``size`` problems: one program then serves all."""
    problems = len(omega)
    padding = np.zeros((size - problems, *omega.shape[1:]))
    found = _search(dual, phases, np.concatenate([omega, padding]), steps)
    return _Found(
        lam=found.lam[:problems],
        alpha=found.alpha[:, :problems],
        images=found.images[:problems],
    )


def _search(dual: HullDual, phases: list[_Phase], omega: np.ndarray, steps: int) -> _Found:
    """Go through the phases of a search for ``omega[m, n, k]``."""
    m, n, k = omega.shape
    q, p = dual.conv.shape[1:]
    lam = np.zeros((m, n, p), np.float32)
    first_slope = 0.5 / q
    alpha = np.full((1, m, n, k, q), first_slope, np.float32)
    middle = (dual.patch_low + dual.patch_high) / 2
    patches = np.tile(middle.astype(np.float32), (m, n, 1))
    steps_of_phase = steps // len(phases)
    for phase in phases:
        parts = len(phase.boxes)
        if len(alpha) == 1:
            alpha = np.tile(alpha, (parts, 1, 1, 1, 1))
        if k == 0 or steps_of_phase == 0:
            continue
        multipliers, mean_corner = search(
            phase.table,
            phase.boxes.astype(np.float32),
            dual.conv.astype(np.float32),
            dual.bias.astype(np.float32),
            omega.astype(np.float32),
            dual.index,
            dual.count,
            Multipliers(lam=lam, alpha=alpha),
            steps=steps_of_phase,
        )
        lam = np.asarray(multipliers.lam)
        alpha = np.asarray(multipliers.alpha)
        patches = np.asarray(mean_corner)
    images = np.clip(dual.mean(patches), dual.low, dual.high)
    return _Found(lam=lam, alpha=alpha, images=images)
