"""The search for images of two pixel values whose mean is high.

It has three parts: periodic and random starts, sign steps, and bands of rows.

`oipjax.bounds.conv.strips` states the problem.

Axes: ``k`` maps, ``n`` images, ``h w`` of an image, ``kh kw`` of the kernel. A band of ``B`` rows
has columns of ``C = 2**B`` values; ``D = C**(kw - 2)``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.conv.strip_layer import (
    TABLE_BITS,
    StripLayer,
    all_bits,
    column_responses,
    convolve,
)

EARLY_SWEEPS = 8
"""Sweeps over bands that are not the last."""
SWEEPS = 30

_LARGEST_PERIOD = 6
_PERIOD_PIXELS = 12
_RANDOM_IMAGES = 16
_SIGN_STEPS = 50
_OFF = np.float32(-1e30)  # a pre-activation that no pixel can lift


class _Side(NamedTuple):
    """The layer as the band search sees it: with bands of rows, or of columns.

    Attributes:
        kernel: float32 ``[k, kh, kw]``.
        responses: float32 ``[k, period, C, ..., C]``, what the rows of a band add to the outputs
            that see them.
        period: the distance from one band to the next, in rows.
    """

    kernel: np.ndarray
    responses: np.ndarray
    period: int


def bands(layer: StripLayer) -> list[int]:
    """Give the numbers of rows of the bands to search, small first."""
    widest = max(1, TABLE_BITS // max(layer.kernel.shape[1:]))
    largest = min(widest, max(layer.shape))
    return sorted({min(rows, largest) for rows in (2, 3, 4)})


def best_images(layer: StripLayer, images: np.ndarray, keep: int) -> np.ndarray:
    """Keep the best ``images[k, n, h, w]`` of each map; those of equal score come last."""
    scores = layer.mean(images)
    order = np.argsort(-scores, 1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, 1)
    step = np.diff(sorted_scores, axis=1, prepend=np.inf)
    is_repeated = step > -1e-6 * np.abs(sorted_scores)
    distinct_first = np.argsort(is_repeated, 1, kind="stable")
    order = np.take_along_axis(order, distinct_first, 1)[:, :keep]
    return np.take_along_axis(images, order[:, :, None, None], 1)


def start_images(layer: StripLayer, seed: int) -> np.ndarray:
    """Make starts: tiled patterns and random images, after sign steps; float32 ``[k, n, h, w]``."""
    h, w = layer.shape
    tiled = []
    for ph in range(1, min(_LARGEST_PERIOD, h) + 1):
        widest = min(_LARGEST_PERIOD, w, _PERIOD_PIXELS // ph)
        for pw in range(1, widest + 1):
            pattern = _best_pattern(layer, (ph, pw))
            down = -(-h // ph)
            across = -(-w // pw)
            image = np.tile(pattern, (1, down, across))
            tiled.append(image[:, :h, :w])
    size = (len(layer.bias), _RANDOM_IMAGES, h, w)
    is_high = np.random.default_rng(seed).random(size) < 0.5
    random = layer.pixels(is_high)
    images = np.concatenate([np.stack(tiled, 1), random], 1)
    return _sign_steps(layer, images.astype(np.float32))


def _best_pattern(layer: StripLayer, period: tuple[int, int]) -> np.ndarray:
    """The pattern of a period with the best mean on an endless plane, ``[k, ph, pw]``."""
    ph, pw = period
    pixels = layer.pixels(all_bits(ph * pw))
    patterns = pixels.reshape(-1, ph, pw).astype(np.float32)
    kh, kw = layer.kernel.shape[1:]
    shifted = []
    for i, j in np.ndindex(kh, kw):
        rolled = np.roll(patterns, (-i, -j), (1, 2))
        shifted.append(rolled.reshape(len(patterns), -1))
    windows = np.stack(shifted, 2)  # [patterns, positions, kh * kw]
    weights = layer.kernel.reshape(-1, kh * kw).astype(np.float32)
    biases = layer.bias.astype(np.float32)
    scores = []
    for row, bias in zip(weights, biases, strict=True):
        outputs = np.maximum(windows @ row + bias, 0)
        scores.append(outputs.sum(1))
    return patterns[np.argmax(scores, 1)]


def _sign_steps(layer: StripLayer, images: np.ndarray) -> np.ndarray:
    """Move each pixel to the end of its range that its gradient points to, again and again.

    The score never falls, since the mean is convex.
    """
    kernel = layer.kernel.astype(np.float32)
    bias = layer.bias.astype(np.float32)
    low = np.float32(layer.low)
    high = np.float32(layer.high)
    kh, kw = kernel.shape[1:]
    for _ in range(_SIGN_STEPS):
        is_on = (convolve(images, kernel, bias) > 0).astype(np.float32)
        h, w = is_on.shape[2:]
        slope = np.zeros_like(images)
        for i, j in np.ndindex(kh, kw):
            weight = kernel[:, i, j, None, None, None]
            slope[:, :, i : i + h, j : j + w] += weight * is_on
        moved = np.where(slope < 0, low, images)
        moved = np.where(slope > 0, high, moved)
        if np.array_equal(moved, images):
            break
        images = moved
    return images


def search_bands(
    layer: StripLayer, images: np.ndarray, band: int, sweeps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Improve images by sweeps over bands of rows and of columns, until none helps.

    Args:
        layer: the layer.
        images: ``[k, n, h, w]``.
        band: the number of rows of a band.
        sweeps: the most sweeps.

    Returns:
        images ``[k, n, h, w]`` and their scores ``[k, n]``, float64.
    """
    sides = (_side(layer, band), _side(layer.transposed(), band))
    bias = layer.bias.astype(np.float32)
    low = np.float32(layer.low)
    high = np.float32(layer.high)
    scores = layer.mean(images)
    for _ in range(sweeps):
        moved = images
        for side in sides:
            for first in range(side.period):
                moved = _improve(
                    moved, side.kernel, bias, side.responses, first, low, high, band=band
                )
            moved = np.asarray(moved).swapaxes(2, 3)
        moved_scores = layer.mean(moved)
        is_better = moved_scores > scores + 1e-6 * np.abs(scores)
        images = np.where(is_better[:, :, None, None], moved, images)
        scores = np.where(is_better, moved_scores, scores)
        if not is_better.any():
            break
    return images, scores


def _side(layer: StripLayer, band: int) -> _Side:
    reach = layer.kernel.shape[1] - 1
    pixels = layer.pixels(all_bits(band))
    padded = np.pad(pixels, ((0, 0), (reach, reach)))
    responses = column_responses(layer.kernel, padded)
    return _Side(
        kernel=layer.kernel.astype(np.float32),
        responses=responses.astype(np.float32),
        period=band + reach,
    )


@functools.partial(jax.jit, static_argnames="band")
def _improve(
    images: Array,
    kernel: Array,
    bias: Array,
    responses: Array,
    first: Array,
    low: Array,
    high: Array,
    *,
    band: int,
) -> Array:
    """Find the best rows ``first`` to ``first + band - 1``, and again every period.

    All other rows are held fixed.

    Bands are kh - 1 rows apart, so no output sees two of them.
    """
    n, h, w = images.shape[1:]
    kh, kw = kernel.shape[1:]
    period = band + kh - 1
    bands = -(-h // period)
    row = jnp.arange(h) - first
    is_inside = (row >= 0) & (row % period < band)
    is_inside = is_inside.reshape(1, 1, h, 1)
    fixed = _fixed_outputs(images, kernel, bias, is_inside, first, period)
    columns = _best_columns(fixed, responses, kw)  # [w, k, n * bands]

    shift = jnp.arange(band).reshape(1, 1, 1, band)
    bits = (columns[..., None] >> shift) & 1
    pixels = jnp.where(bits == 1, high, low)
    rows_between = ((0, 0), (0, 0), (0, 0), (0, kh - 1))
    rows = jnp.moveaxis(jnp.pad(pixels, rows_between), 0, 3)
    rows = rows.reshape(len(kernel), n, bands * period, w)
    rows_before = ((0, 0), (0, 0), (period, 0), (0, 0))
    rows = jnp.pad(rows, rows_before)
    moved = lax.dynamic_slice_in_dim(rows, period - first, h, 2)
    return jnp.where(is_inside, moved, images)


def _fixed_outputs(
    images: Array, kernel: Array, bias: Array, is_inside: Array, first: Array, period: int
) -> Array:
    """The pre-activations that the rows outside all bands give, ``[j, k, n * bands, period]``."""
    k, n, h, w = images.shape
    kh, kw = kernel.shape[1:]
    bands = -(-h // period)
    fixed = convolve(jnp.where(is_inside, 0, images), kernel, bias)
    rows_added = (kh - 1, 2 * period)
    padding = ((0, 0), (0, 0), rows_added, (0, 0))
    fixed = jnp.pad(fixed, padding, constant_values=_OFF)
    fixed = lax.dynamic_slice_in_dim(fixed, first, bands * period, 2)
    fixed = fixed.reshape(k, n * bands, period, w - kw + 1)
    return jnp.moveaxis(fixed, 3, 0)


def _best_columns(fixed: Array, responses: Array, kw: int) -> Array:
    """Find the best columns of each band by dynamic programming.

    Args:
        fixed: ``[j, k, m, period]``, the pre-activations that all other rows give to ``m`` bands.
        responses: ``[k, period, C, ..., C]``, what the band adds to them.
        kw: the columns that an output sees.

    Returns:
        the value of each column, ``[w, k, m]``.
    """
    _, k, m, period = fixed.shape
    size = responses.shape[2]
    depth = size ** (kw - 2)
    wide = responses.reshape(k, period, 1, size, depth, size)
    flat = responses.reshape(k, period, size, depth * size)
    flat = jnp.moveaxis(flat, 2, 3)
    index = jnp.arange(k)[:, None]
    start = jnp.arange(m)[None]

    def step(value, fixed):
        outputs = []
        for row in range(period):
            response = fixed[:, :, row, None, None, None] + wide[:, row]
            outputs.append(jnp.maximum(response, 0))
        total = sum(outputs[1:], outputs[0])
        by_column = value.reshape(k, m, size, depth, 1)
        best = jnp.max(by_column + total, 2)
        return best.reshape(k, m, depth * size), value

    nothing = jnp.zeros((k, m, size * depth), jnp.float32)
    value, history = lax.scan(step, nothing, fixed)

    def back(state, inputs):
        value, fixed = inputs
        outputs = []
        for row in range(period):
            response = fixed[:, :, row, None] + flat[:, row][index, state]
            outputs.append(jnp.maximum(response, 0))
        total = sum(outputs[1:], outputs[0])
        rest = state // size
        value = value.reshape(k, m, size, depth)[index, start, :, rest]
        column = jnp.argmax(value + total, 2)
        return column * depth + rest, state % size

    last_state = jnp.argmax(value, 2)
    state, columns = lax.scan(back, last_state, (history, fixed), reverse=True)
    early = []
    for column in range(kw - 1):
        early.append(state // size ** (kw - 2 - column) % size)
    return jnp.concatenate([jnp.stack(early), columns])
