"""The mean of a first convolution's map over a box of pixels: an upper bound and an image that comes close to it.

``mean(relu(b + kernel * x))`` is convex in the image x, so its maximum over ``low <= x <= high`` is
at an image whose pixels are all ``low`` or ``high``. A strip of such an image, a few rows high, is
solved exactly by dynamic programming along its columns: the state is the strip's last kw - 1
columns (Viterbi 1967).

The bound cuts the image into strips that each have their own copy of the kh - 1 pixel rows they
share. The copies are coupled by Lagrange multipliers (dual decomposition: Komodakis et al. 2007),
one for each pattern of kh - 1 by kw shared pixels, the same at every position; any values give a
valid bound, and subgradient steps (Polyak 1969) find good ones. The search solves bands of rows
with all others held fixed, rows and columns by turns, until no band improves.

Letters: maps k, image h w, kernel kh kw, starts n; r rows of output see R = r + kh - 1 rows of
    pixels, so a column of
them has C = 2**R values (bit i is row i).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MAX_STATE_BITS, MAX_TABLE_BITS = 14, 16  # what one strip of one output row may need
_TABLE_BITS = 12  # of the default strips and bands: their tables fit a core's cache
_MOMENTUM, _PATIENCE = 0.8, 20
_TORUS_BITS, _TORUS_SIDE = 12, 6
_RANDOM = 16
_EARLY_SWEEPS, _SWEEPS = 8, 30
_OFF = np.float32(-1e30)


def mean_bound(kernel, bias, low, high, shape, *, reached=None, rows=None, steps=300) -> np.ndarray:
    """Upper bounds of ``mean(relu(bias + kernel * x))`` over all images ``low <= x <= high``, stride 1, no padding.

    The bound is the better one of horizontal and of vertical strips. It holds for the exact mean of
    the numbers given: evaluated in float64, with the largest possible rounding added. A float32
    network may exceed it by its own rounding.

    Args:
        kernel: ``[kh, kw, 1, k]``.
        bias: ``[k]``.
        low: the smallest pixel value, one number.
        high: the largest pixel value, one number.
        shape: ``(h, w)`` of the image.
        reached: ``[k]``, means that some image reaches; they set step lengths only. A short search
            unless given.
        rows: output rows of a strip; as many as a table of 4,096 entries allows unless given. More
            rows are slower and, with the multipliers found, hardly tighter.
        steps: subgradient steps.

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: the kernel has several input channels, or no strip of it fits the dynamic
            programme.
    """
    kernel, bias, low, high, shape = _layer(kernel, bias, low, high, shape)
    if reached is None:
        images = _best(_candidates(kernel, bias, low, high, shape, 0), kernel, bias, 2)
        band = _bands(kernel, shape)[0]
        reached = _search(images, kernel, bias, low, high, band, _EARLY_SWEEPS)[1].max(1)
    reached = np.asarray(reached, np.float64)
    upper = np.full(len(bias), np.inf)
    for weights, size in ((kernel, shape), (kernel.swapaxes(1, 2), shape[::-1])):
        if _fits(weights):
            upper = np.minimum(upper, _strips(weights, bias, low, high, size, reached, rows, steps))
    return upper


def mean_search(
    kernel, bias, low, high, shape, *, starts=12, seed=0
) -> tuple[np.ndarray, np.ndarray]:
    """Images of ``low`` and ``high`` pixels whose ``mean(relu(bias + kernel * x))`` is as large as a search finds.

    Starts are periodic patterns (the best of every small period) and random images, lifted by sign
    steps; the best go on to bands of 2 rows, a quarter of them to bands of 3, one to bands of 4.

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
    original = tuple(shape)
    kernel, bias, low, high, shape = _layer(kernel, bias, low, high, shape)
    images = _candidates(kernel, bias, low, high, shape, seed)
    keep, bands = starts, _bands(kernel, shape)
    for band in bands:
        images = _best(images, kernel, bias, keep)
        images, _ = _search(
            images, kernel, bias, low, high, band, _SWEEPS if band == bands[-1] else _EARLY_SWEEPS
        )
        keep = max(1, keep // 4)
    images = _best(images, kernel, bias, 1)
    images = np.where(images == np.float32(high), high, low)
    scores = _mean(images, kernel, bias)[:, 0]
    return np.moveaxis(images, 1, 3)[:, : original[0], : original[1]], scores


def _layer(kernel, bias, low, high, shape):
    """``kernel[k, kh, kw]``, ``bias[k]``, two floats and a shape; a side of 1 gets a second pixel of weight 0."""
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    if kernel.ndim != 4 or kernel.shape[2] != 1 or bias.shape != kernel.shape[3:]:
        raise ValueError(
            f"strips need a kernel[kh, kw, 1, k] of one input channel and a bias[k], got {kernel.shape} and "
            f"{bias.shape}: use another bound"
        )
    if len(shape) != 2 or shape[0] < kernel.shape[0] or shape[1] < kernel.shape[1]:
        raise ValueError(
            f"a kernel of {kernel.shape[:2]} does not fit into an image of {tuple(shape)}"
        )
    if np.size(low) != 1 or np.size(high) != 1 or not np.all(np.less_equal(low, high)):
        raise ValueError(f"strips need one pair low <= high, got {low} and {high}")
    kernel = np.moveaxis(kernel[:, :, 0], 2, 0)
    extra = [int(side == 1) for side in kernel.shape[1:]]
    kernel = np.pad(kernel, ((0, 0), (0, extra[0]), (0, extra[1])))
    if not _fits(kernel) and not _fits(kernel.swapaxes(1, 2)):
        raise ValueError(
            f"a kernel of {kernel.shape[1:]} does not fit strips, which take at most {MAX_TABLE_BITS} weights and a "
            f"state of {MAX_STATE_BITS} pixels: use another bound"
        )
    shape = (int(shape[0]) + extra[0], int(shape[1]) + extra[1])
    return kernel, bias, float(np.reshape(low, ())), float(np.reshape(high, ())), shape


def _fits(kernel):
    kh, kw = kernel.shape[1:]
    return kh * (kw - 1) <= MAX_STATE_BITS and kh * kw <= MAX_TABLE_BITS


def _convolve(images, kernel, bias):
    """Pre-activations ``[k, n, i, j]`` of ``images[k, n, h, w]`` under each map's own ``kernel[k, kh, kw]``."""
    kh, kw = kernel.shape[1:]
    h, w = images.shape[2] - kh + 1, images.shape[3] - kw + 1
    offsets = [(i, j) for i in range(kh) for j in range(kw)]
    terms = [
        kernel[:, i, j, None, None, None] * images[:, :, i : i + h, j : j + w] for i, j in offsets
    ]
    return sum(terms[1:], bias[:, None, None, None] + terms[0])


def _mean(images, kernel, bias):
    """Scores ``[k, n]`` in float64."""
    return np.maximum(_convolve(images.astype(np.float64), kernel, bias), 0).mean((2, 3))


def _bits(n):
    """``[2**n, n]``, the bits of each number, lowest first."""
    return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


def _responses(kernel, pixels):
    """``[k, o, C, ..., C]`` (kw times C, oldest column first): kernel rows o over columns ``pixels[C, rows]``."""
    k, kh = kernel.shape[:2]
    outputs = []
    for o in range(pixels.shape[1] - kh + 1):
        columns = np.einsum("cr,krw->wkc", pixels[:, o : o + kh], kernel)
        total = columns[0]
        for column in columns[1:]:
            total = total[..., None] + column.reshape(k, *(1,) * (total.ndim - 1), -1)
        outputs.append(total)
    return np.stack(outputs, 1)


# --- bound
# ------------------------------------------------------------------------------------------------------------


def _strips(kernel, bias, low, high, shape, reached, rows, steps):
    """``[k]``: the bound by horizontal strips. The first strip may count fewer output rows than the others."""
    k, kh, kw = kernel.shape
    height, width = shape[0] - kh + 1, shape[1] - kw + 1
    if rows is None:
        rows = max(1, _TABLE_BITS // kw - kh + 1)
    rows = max(1, min(rows, height, MAX_STATE_BITS // (kw - 1) - kh + 1))
    count = -(-height // rows)
    first = height - (count - 1) * rows
    pixels = np.where(_bits(rows + kh - 1), high, low)
    size = len(pixels)
    responses = _responses(kernel, pixels)
    rewards = np.maximum(responses + bias.reshape(k, *(1,) * (responses.ndim - 1)), 0).reshape(
        k, rows, size, -1, size
    )
    tables = np.stack(
        [rewards[:, rows - first :].sum(1), rewards.sum(1)]
    )  # [2, k, C, C**(kw - 2), C]
    top, bottom = _patterns(size, kw, kh - 1, 0), _patterns(size, kw, kh - 1, rows)

    multipliers = np.zeros((k, 2 ** ((kh - 1) * kw)))
    if count > 1:
        multipliers = _descend(
            tables, top, bottom, count, width, multipliers, reached * height * width, steps
        )

    total = np.zeros(k)
    for index in range(k):
        phi = multipliers[index]
        total[index] = _longest(tables[0, index] + (phi[bottom] if count > 1 else 0), width)
        if count > 1:
            total[index] += _longest(tables[1, index] - phi[top], width)
        if count > 2:
            total[index] += (count - 2) * _longest(tables[1, index] + phi[bottom] - phi[top], width)
    # Rounding: every sum has fewer than `terms` terms, and all terms together weigh at most
    # `weight`.
    weight = rows * (np.abs(bias) + np.abs(kernel).sum((1, 2)) * max(abs(low), abs(high)))
    weight = count * width * (weight + 2 * np.abs(multipliers).max(1))
    terms = count + width + kh * kw + rows + 8
    return (total + 2 * terms * np.finfo(np.float64).eps * weight) / (height * width)


def _patterns(size, kw, rows, start):
    """``[C, C**(kw - 2), C]``: number of the pattern in ``rows`` rows from ``start`` on of each kw columns."""
    part = (np.arange(size) >> start) & (2**rows - 1)
    total = part
    for _ in range(kw - 1):
        total = total[..., None] * 2**rows + part
    return total.reshape(size, -1, size)


def _longest(table, width):
    """The largest sum of ``table[C, D, C]`` along ``width`` steps, for one map in float64."""
    size, depth, _ = table.shape
    value = np.zeros((size, depth))
    for _ in range(width):
        best = value[0, :, None] + table[0]
        for column in range(1, size):
            np.maximum(best, value[column, :, None] + table[column], out=best)
        value = best.reshape(size, depth)
    return value.max()


def _descend(tables, top, bottom, count, width, multipliers, reached, steps):
    """Multipliers ``[k, patterns]`` after Polyak steps with momentum, the best seen for each map."""
    tables, top, bottom = (
        jnp.asarray(tables, jnp.float32),
        jnp.asarray(top, jnp.int32),
        jnp.asarray(bottom, jnp.int32),
    )
    best, best_at = np.full(len(reached), np.inf), multipliers.copy()
    goal = np.zeros(len(reached))
    stalled = np.zeros(len(reached), np.int64)
    direction = np.zeros_like(multipliers)
    for _ in range(steps):
        value, slope = _dual(
            tables, top, bottom, jnp.float32(count), width, jnp.asarray(multipliers, jnp.float32)
        )
        value, slope = np.asarray(value, np.float64), np.asarray(slope, np.float64)
        better = value < best
        stalled = np.where(best - value > 1e-5 * np.abs(value), 0, stalled + 1)
        best = np.where(better, value, best)
        best_at[better] = multipliers[better]
        # The goal of a step moves from what an image reaches towards the best bound, each time that
        # stops improving.
        restart = stalled >= _PATIENCE
        goal = np.where(restart, 1 - (1 - goal) / 2, goal)
        stalled[restart] = 0
        multipliers = np.where(restart[:, None], best_at, multipliers)
        excess = np.maximum(value - reached - goal * (best - reached), 0)
        direction = slope + _MOMENTUM * direction
        multipliers = (
            multipliers - (excess / np.maximum((direction**2).sum(1), 1e-12))[:, None] * direction
        )
    return best_at


@functools.partial(jax.jit, static_argnums=4)
def _dual(tables, top, bottom, count, width, multipliers):
    """The bound of the sum ``[k]`` and its subgradient ``[k, patterns]``: pattern counts of the best strips."""
    k, size, depth, _ = tables.shape[1:]
    above, below = multipliers[:, top], multipliers[:, bottom]
    table = jnp.concatenate(
        [tables[0] + below, tables[1] + below - above, tables[1] - above]
    )  # first, middle, last
    n = 3 * k

    def step(value, _):
        return jnp.max(value.reshape(n, size, depth, 1) + table, 1).reshape(n, depth * size), value

    value, history = lax.scan(step, jnp.zeros((n, size * depth), table.dtype), None, length=width)
    state = jnp.argmax(value, 1)
    each = jnp.arange(n)

    def back(state, value):
        rest, last = state // size, state % size
        column = jnp.argmax(
            value.reshape(n, size, depth)[each, :, rest] + table[each, :, rest, last], 1
        )
        return column * depth + rest, (top[column, rest, last], bottom[column, rest, last])

    _, seen = lax.scan(back, state, history, reverse=True)
    zeros = jnp.zeros((n, multipliers.shape[1]), table.dtype)
    above, below = (zeros.at[each[None], pattern].add(1.0).reshape(3, k, -1) for pattern in seen)
    value = jnp.max(value, 1).reshape(3, k)
    slope = below[0] - above[2] + (count - 2) * (below[1] - above[1])
    return value[0] + (count - 2) * value[1] + value[2], slope


# --- search
# -----------------------------------------------------------------------------------------------------------


def _bands(kernel, shape):
    """Rows of the bands to search, small first."""
    widest = max(1, _TABLE_BITS // max(kernel.shape[1:]))
    return sorted({min(rows, widest, max(shape)) for rows in (2, 3, 4)})


def _best(images, kernel, bias, keep):
    """The ``keep`` best of ``images[k, n, h, w]`` for each map; those of equal score come last."""
    scores = _mean(images, kernel, bias)
    order = np.argsort(-scores, 1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, 1)
    repeated = np.diff(sorted_scores, axis=1, prepend=np.inf) > -1e-6 * np.abs(sorted_scores)
    order = np.take_along_axis(order, np.argsort(repeated, 1, kind="stable"), 1)[:, :keep]
    return np.take_along_axis(images, order[:, :, None, None], 1)


def _candidates(kernel, bias, low, high, shape, seed):
    """Starts ``[k, n, h, w]``, float32: tiled patterns and random images, after sign steps."""
    k = len(bias)
    found = []
    for ph in range(1, min(_TORUS_SIDE, shape[0]) + 1):
        for pw in range(1, min(_TORUS_SIDE, shape[1], _TORUS_BITS // ph) + 1):
            pattern = _torus(kernel, bias, low, high, (ph, pw))
            found.append(
                np.tile(pattern, (1, -(-shape[0] // ph), -(-shape[1] // pw)))[
                    :, : shape[0], : shape[1]
                ]
            )
    random = np.random.default_rng(seed).random((k, _RANDOM, *shape)) < 0.5
    images = np.concatenate([np.stack(found, 1), np.where(random, high, low)], 1).astype(np.float32)
    return _sign_steps(images, kernel.astype(np.float32), bias.astype(np.float32), low, high)


def _torus(kernel, bias, low, high, period):
    """The pattern of a period with the best mean on an endless plane, ``[k, ph, pw]``."""
    patterns = (
        np.where(_bits(period[0] * period[1]), high, low).reshape(-1, *period).astype(np.float32)
    )
    offsets = [(i, j) for i in range(kernel.shape[1]) for j in range(kernel.shape[2])]
    seen = np.stack(
        [np.roll(patterns, (-i, -j), (1, 2)).reshape(len(patterns), -1) for i, j in offsets], 2
    )
    weights = kernel.reshape(len(kernel), -1).astype(np.float32)
    scores = [
        np.maximum(seen @ row + b, 0).sum(1)
        for row, b in zip(weights, bias.astype(np.float32), strict=True)
    ]
    return patterns[np.argmax(scores, 1)]


def _sign_steps(images, kernel, bias, low, high, steps=50):
    """Each pixel to the end of its range that its gradient points to: never down, since the mean is convex."""
    kh, kw = kernel.shape[1:]
    for _ in range(steps):
        on = (_convolve(images, kernel, bias) > 0).astype(np.float32)
        h, w = on.shape[2:]
        slope = np.zeros_like(images)
        for i in range(kh):
            for j in range(kw):
                slope[:, :, i : i + h, j : j + w] += kernel[:, i, j, None, None, None] * on
        moved = np.where(slope > 0, np.float32(high), np.where(slope < 0, np.float32(low), images))
        if np.array_equal(moved, images):
            break
        images = moved
    return images


def _search(images, kernel, bias, low, high, band, sweeps):
    """``images[k, n, h, w]`` and scores ``[k, n]`` after sweeps over bands of rows and columns, until none helps."""
    sides = []
    for weights in (kernel, kernel.swapaxes(1, 2)):
        reach = weights.shape[1] - 1
        pixels = np.pad(np.where(_bits(band), high, low), ((0, 0), (reach, reach)))
        responses = _responses(weights, pixels)
        sides.append((weights.astype(np.float32), responses.astype(np.float32), band + reach))
    scores = _mean(images, kernel, bias)
    bias32, low, high = bias.astype(np.float32), np.float32(low), np.float32(high)
    for _ in range(sweeps):
        moved = images
        for weights, responses, period in sides:
            for first in range(period):
                moved = _improve(band, moved, weights, bias32, responses, first, low, high)
            moved = np.asarray(moved).swapaxes(2, 3)
        after = _mean(moved, kernel, bias)
        better = after > scores + 1e-6 * np.abs(scores)
        images, scores = (
            np.where(better[:, :, None, None], moved, images),
            np.where(better, after, scores),
        )
        if not better.any():
            break
    return images, scores


@functools.partial(jax.jit, static_argnums=0)
def _improve(band, images, kernel, bias, responses, first, low, high):
    """The best rows ``first`` to ``first + band - 1``, and again every period, for all other rows as they are.

    Bands are kh - 1 rows apart, so no output sees two of them.
    """
    k, n, h, w = images.shape
    kh, kw = kernel.shape[1:]
    period, size = band + kh - 1, 2**band
    bands, depth = -(-h // period), size ** (kw - 2)
    m = n * bands
    row = jnp.arange(h) - first
    inside = ((row >= 0) & (row % period < band)).reshape(1, 1, h, 1)

    fixed = _convolve(jnp.where(inside, 0, images), kernel, bias)
    fixed = jnp.pad(fixed, ((0, 0), (0, 0), (kh - 1, 2 * period), (0, 0)), constant_values=_OFF)
    fixed = lax.dynamic_slice_in_dim(fixed, first, bands * period, 2).reshape(
        k, m, period, w - kw + 1
    )
    fixed = jnp.moveaxis(fixed, 3, 0)
    wide = responses.reshape(k, period, 1, size, depth, size)
    flat = jnp.moveaxis(responses.reshape(k, period, size, depth * size), 2, 3)
    each, start = jnp.arange(k)[:, None], jnp.arange(m)[None]

    def step(value, fixed):
        rewards = [
            jnp.maximum(fixed[:, :, o, None, None, None] + wide[:, o], 0) for o in range(period)
        ]
        best = jnp.max(value.reshape(k, m, size, depth, 1) + sum(rewards[1:], rewards[0]), 2)
        return best.reshape(k, m, depth * size), value

    value, history = lax.scan(step, jnp.zeros((k, m, size * depth), jnp.float32), fixed)

    def back(state, seen):
        value, fixed = seen
        rewards = [
            jnp.maximum(fixed[:, :, o, None] + flat[:, o][each, state], 0) for o in range(period)
        ]
        rest = state // size
        value = value.reshape(k, m, size, depth)[each, start, :, rest]
        return jnp.argmax(value + sum(rewards[1:], rewards[0]), 2) * depth + rest, state % size

    state, columns = lax.scan(back, jnp.argmax(value, 2), (history, fixed), reverse=True)
    early = jnp.stack([state // size ** (kw - 2 - q) % size for q in range(kw - 1)])
    columns = jnp.concatenate([early, columns])  # [w, k, m]
    bits = (columns[..., None] >> jnp.arange(band).reshape(1, 1, 1, band)) & 1
    rows = jnp.pad(jnp.where(bits == 1, high, low), ((0, 0), (0, 0), (0, 0), (0, kh - 1)))
    rows = jnp.moveaxis(rows, 0, 3).reshape(k, n, bands * period, w)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (period, 0), (0, 0)))
    return jnp.where(inside, lax.dynamic_slice_in_dim(rows, period - first, h, 2), images)
