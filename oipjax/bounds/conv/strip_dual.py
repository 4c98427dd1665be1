"""The bound by strips: dynamic programming in each strip, multipliers for shared pixels.

`oipjax.bounds.conv.strips` states the problem. Any multipliers give a valid bound.

Axes: ``k`` maps, ``r`` rows of output of a strip, ``C = 2**(r + kh - 1)`` values of a column of a
strip, ``D = C**(kw - 2)`` values of the columns between the first and the last of ``kw``
neighbours.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.conv.strip_layer import (
    MAX_STATE_BITS,
    TABLE_BITS,
    StripLayer,
    all_bits,
    column_responses,
)

_MOMENTUM = 0.8
_PATIENCE = 20  # steps without progress until the search starts again from the best multipliers
_PROGRESS = 1e-5  # a relative gain that counts as progress


class _Strips(NamedTuple):
    """The strips that an image is cut into.

    Attributes:
        tables: float64 ``[2, k, C, D, C]``, the sum of a column of outputs: of the first strip, and
            of the others.
        top: ``[C, D, C]``, the number of the pattern in the pixel rows shared with the strip above.
        bottom: ``[C, D, C]``, the number of the pattern in the pixel rows shared with the strip
            below.
        number: the number of strips.
        rows: the rows of output of a strip. The first strip may count fewer.
        width: the number of positions along a strip.
    """

    tables: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    number: int
    rows: int
    width: int


class _Descent(NamedTuple):
    """The state of the search for multipliers.

    Attributes:
        multipliers: ``[k, patterns]``.
        direction: ``[k, patterns]``, the last move, before its length was set.
        best: ``[k]``, the lowest bounds.
        best_multipliers: ``[k, patterns]``, the multipliers that gave them.
        goal: ``[k]``, where a step aims: 0 at the value that an image reaches, 1 at the best bound.
        stalled: ``[k]``, steps without progress.
    """

    multipliers: np.ndarray
    direction: np.ndarray
    best: np.ndarray
    best_multipliers: np.ndarray
    goal: np.ndarray
    stalled: np.ndarray


def strip_bound(
    layer: StripLayer,
    reached: np.ndarray,
    rows: int | None,
    steps: int,
) -> np.ndarray:
    """Bound the means by horizontal strips.

    Args:
        layer: a layer that fits.
        reached: ``[k]``, means that some image reaches.
        rows: rows of output of a strip; as many as a table of ``2**TABLE_BITS`` entries allows
            unless given.
        steps: subgradient steps.

    Returns:
        ``[k]``, float64, rounded up.
    """
    k, kh, kw = layer.kernel.shape
    height, width = layer.output_shape()
    strips = _cut_into_strips(layer, rows)
    multipliers = np.zeros((k, 2 ** ((kh - 1) * kw)))
    if strips.number > 1:
        multipliers = _descend(strips, multipliers, reached * height * width, steps)
    total = _total(strips, multipliers)
    return (total + _rounding(layer, strips, multipliers)) / (height * width)


def _cut_into_strips(layer: StripLayer, rows: int | None) -> _Strips:
    k, kh, kw = layer.kernel.shape
    height, width = layer.output_shape()
    if rows is None:
        rows = max(1, TABLE_BITS // kw - kh + 1)
    most_rows = MAX_STATE_BITS // (kw - 1) - kh + 1
    rows = max(1, min(rows, height, most_rows))
    count = -(-height // rows)
    rows_of_first = height - (count - 1) * rows

    pixels = layer.pixels(all_bits(rows + kh - 1))
    size = len(pixels)
    responses = column_responses(layer.kernel, pixels)
    bias = layer.bias.reshape(k, *(1,) * (responses.ndim - 1))
    outputs = np.maximum(responses + bias, 0)
    outputs = outputs.reshape(k, rows, size, -1, size)
    first = outputs[:, rows - rows_of_first :].sum(1)
    others = outputs.sum(1)
    return _Strips(
        tables=np.stack([first, others]),
        top=_patterns(size, kw, kh - 1, 0),
        bottom=_patterns(size, kw, kh - 1, rows),
        number=count,
        rows=rows,
        width=width,
    )


def _patterns(size: int, kw: int, rows: int, start: int) -> np.ndarray:
    """Number the patterns of ``rows`` rows from ``start`` on in ``kw`` columns: ``[C, D, C]``."""
    column = (np.arange(size) >> start) & (2**rows - 1)
    total = column
    for _ in range(kw - 1):
        total = total[..., None] * 2**rows + column
    return total.reshape(size, -1, size)


def _total(strips: _Strips, multipliers: np.ndarray) -> np.ndarray:
    """Sum up the maxima of all strips with these multipliers: ``[k]``."""
    total = np.zeros(len(multipliers))
    for index, phi in enumerate(multipliers):
        first = strips.tables[0, index]
        other = strips.tables[1, index]
        below = phi[strips.bottom]
        above = phi[strips.top]
        if strips.number == 1:
            total[index] = _longest(first, strips.width)
            continue
        total[index] = _longest(first + below, strips.width)
        total[index] += _longest(other - above, strips.width)
        if strips.number > 2:
            middle = _longest(other + below - above, strips.width)
            total[index] += (strips.number - 2) * middle
    return total


def _longest(table: np.ndarray, width: int) -> float:
    """Find the largest sum of ``table[C, D, C]`` along ``width`` steps, for one map in float64."""
    size, depth, _ = table.shape
    value = np.zeros((size, depth))
    for _ in range(width):
        best = value[0, :, None] + table[0]
        for column in range(1, size):
            np.maximum(best, value[column, :, None] + table[column], out=best)
        value = best.reshape(size, depth)
    return value.max()


def _rounding(layer: StripLayer, strips: _Strips, multipliers: np.ndarray) -> np.ndarray:
    """The rounding allowance of the total, ``[k]``.

    Every sum has fewer than ``terms`` terms, and all terms together weigh at most ``weight``.
    """
    kh, kw = layer.kernel.shape[1:]
    largest_pixel = max(abs(layer.low), abs(layer.high))
    total_weight = np.abs(layer.kernel).sum((1, 2))
    largest_output = np.abs(layer.bias) + total_weight * largest_pixel
    column = strips.rows * largest_output
    largest_multiplier = np.abs(multipliers).max(1)
    weight = strips.number * strips.width * (column + 2 * largest_multiplier)
    terms = strips.number + strips.width + kh * kw + strips.rows + 8
    return 2 * terms * np.finfo(np.float64).eps * weight


def _descend(
    strips: _Strips, multipliers: np.ndarray, reached: np.ndarray, steps: int
) -> np.ndarray:
    """Search for multipliers ``[k, patterns]``, the best for each map, by steps with momentum."""
    tables = jnp.asarray(strips.tables, jnp.float32)
    top = jnp.asarray(strips.top, jnp.int32)
    bottom = jnp.asarray(strips.bottom, jnp.int32)
    count = jnp.float32(strips.number)
    maps = len(reached)
    state = _Descent(
        multipliers=multipliers,
        direction=np.zeros_like(multipliers),
        best=np.full(maps, np.inf),
        best_multipliers=multipliers,
        goal=np.zeros(maps),
        stalled=np.zeros(maps, np.int64),
    )
    for _ in range(steps):
        value, slope = _dual(
            tables,
            top,
            bottom,
            count,
            jnp.asarray(state.multipliers, jnp.float32),
            width=strips.width,
        )
        value = np.asarray(value, np.float64)
        slope = np.asarray(slope, np.float64)
        state = _polyak_step(state, value, slope, reached)
    return state.best_multipliers


def _polyak_step(
    state: _Descent, value: np.ndarray, slope: np.ndarray, reached: np.ndarray
) -> _Descent:
    """One step from multipliers with bounds ``value[k]`` and subgradients ``slope[k, patterns]``.

    The goal of a step moves from the value that an image reaches towards the best bound, each time
    the best bound stops improving.
    """
    is_better = value < state.best
    has_progress = state.best - value > _PROGRESS * np.abs(value)
    best = np.where(is_better, value, state.best)
    best_multipliers = np.where(is_better[:, None], state.multipliers, state.best_multipliers)

    stalled = np.where(has_progress, 0, state.stalled + 1)
    restarts = stalled >= _PATIENCE
    goal = np.where(restarts, 1 - (1 - state.goal) / 2, state.goal)
    multipliers = np.where(restarts[:, None], best_multipliers, state.multipliers)

    excess = np.maximum(value - reached - goal * (best - reached), 0)
    direction = slope + _MOMENTUM * state.direction
    squared_length = np.maximum((direction**2).sum(1), 1e-12)
    move = (excess / squared_length)[:, None] * direction
    return _Descent(
        multipliers=multipliers - move,
        direction=direction,
        best=best,
        best_multipliers=best_multipliers,
        goal=goal,
        stalled=np.where(restarts, 0, stalled),
    )


@functools.partial(jax.jit, static_argnames="width")
def _dual(
    tables: Array,
    top: Array,
    bottom: Array,
    count: Array,
    multipliers: Array,
    *,
    width: int,
) -> tuple[Array, Array]:
    """Evaluate the bound in float32.

    Returns:
        the bound of the sum, ``[k]``; and its subgradient ``[k, patterns]``, the counts of patterns
        in the best strips.
    """
    k, size, depth, _ = tables.shape[1:]
    above = multipliers[:, top]
    below = multipliers[:, bottom]
    first = tables[0] + below
    middle = tables[1] + below - above
    last = tables[1] - above
    table = jnp.concatenate([first, middle, last])  # [3 k, C, D, C]
    paths = 3 * k
    path = jnp.arange(paths)

    def step(value, _):
        by_column = value.reshape(paths, size, depth, 1) + table
        return jnp.max(by_column, 1).reshape(paths, depth * size), value

    start = jnp.zeros((paths, size * depth), table.dtype)
    value, history = lax.scan(step, start, None, length=width)

    def back(state, value):
        rest = state // size
        last = state % size
        so_far = value.reshape(paths, size, depth)[path, :, rest]
        added = table[path, :, rest, last]
        column = jnp.argmax(so_far + added, 1)
        shared = (top[column, rest, last], bottom[column, rest, last])
        return column * depth + rest, shared

    last_state = jnp.argmax(value, 1)
    _, (above_patterns, below_patterns) = lax.scan(back, last_state, history, reverse=True)
    zeros = jnp.zeros((paths, multipliers.shape[1]), table.dtype)
    above_counts = zeros.at[path[None], above_patterns].add(1.0)
    above_counts = above_counts.reshape(3, k, -1)
    below_counts = zeros.at[path[None], below_patterns].add(1.0)
    below_counts = below_counts.reshape(3, k, -1)

    value = jnp.max(value, 1).reshape(3, k)
    total = value[0] + (count - 2) * value[1] + value[2]
    slope_of_ends = below_counts[0] - above_counts[2]
    slope_of_middle = below_counts[1] - above_counts[1]
    return total, slope_of_ends + (count - 2) * slope_of_middle
