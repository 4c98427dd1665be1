"""A certified upper bound of the mean of a second convolution's map over a box of pixels, by its windows.

For a first stage ``P = relu(max_pool(conv(x)))`` and a second convolution with weights W and bias
b, at n positions,

    mean(relu(b + W * P)) = 1/n max over sets S of positions of  sum over s in S of  b + (W * P)[s]

and the sum is over cells of P: each sees the pixels of its patch, and of S only the bits of the
positions it feeds (9 for a 3x3 kernel), which say with what weights ``omega`` its channels count.
The maximum over all images and sets is bounded by one maximum for each cell, in three steps that
are valid for whatever values their multipliers have:

- Every cell gets its own copy of its pixels and of its bits. Neighbours share some: multipliers
  ``phi(bits, pixels)``, any table of the shared bits and for each pattern an affine function of the
  shared pixels, are added to the one and subtracted from the other, so they cancel for copies that
  agree (Lagrangian decomposition: Komodakis et al. 2007, and Bunel et al. 2020, arXiv:2002.10410).
  They are the same all along a row or column of cells, so one maximum serves all cells that see the
  edge of the image alike; most see none of it.
- For each pattern of bits, a channel with ``omega < 0`` is replaced by a linear minorant ``sum_q
  alpha_q conv_q``, with ``alpha >= 0``, ``sum alpha <= 1`` (q: the positions of the pool; see
  `oipjax.bounds.conv.hull`).
- What is left is convex in the pixels of the cell, so all corners of its box are looked at, for
  each pattern of bits. What is lost is lost on negative channels, above all: a box may be cut in
  two, with slopes for each half.

The bound is convex in (phi, alpha). Adam on a smoothed maximum over a working set of corners finds
good ones in float32 (column generation); the bound is then evaluated over all corners and patterns
in float64, and rounded up.

Axes: ``k`` maps, ``c`` channels of P, ``q`` positions of the pool, ``p`` pixels of a patch, ``s``
    patterns of bits,
``r`` rows (a kind of cell and a pattern that it can see), ``n`` problems (a row and a part of the
box), ``u`` corners, ``w`` corners of a problem's working set. Pixels are measured from the middle
of their range in halves of it, so the corners of the whole box are -1 and 1.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oipjax.bounds.conv.hull import Cells, cells

MAX_TAPS = 9
"""A second kernel of more taps has too many patterns of bits."""

_SLACK = 2.0**-38  # of the sum of all magnitudes: far more than float64 can lose in these sums
_CHUNK = 4096  # corners evaluated at a time
_ALL = 4  # passes from one over all problems to the next
_ROWS = 256  # problems looked at in between; three times as many where boxes are cut
_STEPS = 8  # updates from one pass to the next
_SEEN, _NEW = 32, 8  # corners of a problem's working set, and how many a pass may add
_SMOOTH = (
    0.1,
    0.01,
)  # temperature at the start and in the end, in units of a cell's part of the bound
_STEP = 0.002  # of phi, in the same units
_SLOPE = 0.1  # of alpha
_CUT = 384  # boxes cut at a time
_CUT_AT, _CUT_EVERY = (0.2, 0.6), 3  # when, as parts of all passes, and every so many passes


def window_bound(
    kernel1,
    bias1,
    pool,
    kernel2,
    bias2,
    low,
    high,
    shape,
    *,
    passes: int = 16,
    cuts: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Upper bounds of ``mean(relu(bias2 + kernel2 * P))``, ``P = relu(max_pool(bias1 + kernel1 * x))``, over a box.

    Strides are 1 and there is no padding. The bound holds in exact arithmetic for the given
    weights; a network that rounds to float32 may exceed it by its own rounding.

    Args:
        kernel1: ``[kh, kw, i, c]``.
        bias1: ``[c]``.
        pool: window and stride of the pooling, in pixels; 1 for none.
        kernel2: ``[kh, kw, c, k]``.
        bias2: ``[k]``.
        low: ``[i]``, the smallest value of a pixel of each channel of the image.
        high: ``[i]``, the largest.
        shape: ``(h, w)`` of the image.
        passes: how often new corners are looked for.
        cuts: the boxes of the problems that matter most are cut in two so many times. 4 cuts want
            40 passes, some five times as long, and 2 GB.
        progress: called with (maps done, maps).

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: a patch or the second kernel does not fit, or shapes do not.
    """
    first = cells(kernel1, bias1, pool, low, high)
    kernel2, bias2 = np.asarray(kernel2, np.float64), np.asarray(bias2, np.float64)
    if kernel2.ndim != 4 or kernel2.shape[2] != len(first.bias) or bias2.shape != kernel2.shape[3:]:
        raise ValueError(
            f"window_bound expects kernel2[kh, kw, {len(first.bias)}, k] and bias2[k], got {kernel2.shape} and "
            f"{bias2.shape}"
        )
    if kernel2.shape[0] * kernel2.shape[1] > MAX_TAPS:
        raise ValueError(
            f"the window bound does not fit: a second kernel of {kernel2.shape[0]} x {kernel2.shape[1]} has more than "
            f"{MAX_TAPS} taps"
        )
    if not (np.isfinite(kernel2).all() and np.isfinite(bias2).all()):
        raise ValueError("kernel2 and bias2 must be finite")
    if passes < 0:
        raise ValueError(f"passes must not be negative, got {passes}")
    if not 0 <= cuts <= 4:
        raise ValueError(f"cuts must be in 0 .. 4, got {cuts}")
    if len(shape) != 2:
        raise ValueError(f"shape is (h, w), got {shape}")
    stage = _Stage(first, kernel2.shape[:2], shape, cuts)

    upper = np.zeros(len(bias2))
    for index, bias in enumerate(bias2):
        found = stage.search(kernel2[..., index], bias, passes)
        upper[index] = stage.certify(kernel2[..., index], bias, *found)
        if progress is not None:
            progress(index + 1, len(bias2))
    return upper


# --- the cells and what they see
# --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Side:
    """What a cell shares with its neighbour on one side: of the two copies, one counts phi and the other minus phi.

    Attributes:
        table: which of the two tables phi this is: 0 for neighbours in a row, 1 for those in a
            column.
        entry: ``[r]``, the entry of the table.
        sign: float32 ``[r]``, 1 or -1; 0 without a neighbour.
        pixels: ``[shared, p]``, 1 where an entry's pixel is a pixel of the patch.
    """

    table: int
    entry: np.ndarray
    sign: np.ndarray
    pixels: np.ndarray

    def of(self, rows) -> "_Side":
        """For some of the rows."""
        return _Side(self.table, self.entry[rows], self.sign[rows], self.pixels)


jax.tree_util.register_dataclass(_Side, ["entry", "sign", "pixels"], ["table"])


@dataclass(frozen=True, eq=False)
class _Rows:
    """For each kind of cell, every pattern of bits that it can see.

    Attributes:
        bits: bool ``[s, kh * kw]``: whether the positions that a cell feeds are in S.
        pattern: ``[r]``.
        kind: ``[r]``.
        count: ``[kinds]``, the number of cells.
        positions: the number of positions.
        sides: right, left, bottom and top.
        tables: shapes of the two tables phi: pixels, and last a constant.
    """

    bits: np.ndarray
    pattern: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    positions: int
    sides: tuple[_Side, ...]
    tables: tuple[tuple[int, int], ...]

    def worst(self, values: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """The largest of ``values[n]``, of rows ``origin[n]``, for each kind of cell."""
        largest = np.full(len(self.count), -np.inf, values.dtype)
        np.maximum.at(largest, self.kind[origin], values)
        return largest


def _rows(first: Cells, taps: tuple[int, int], shape: tuple[int, int]) -> _Rows:
    (kh, kw), (h, w, _), pool = taps, first.patch, first.pool
    a, b = (shape[0] - h) // pool + 1, (shape[1] - w) // pool + 1
    if a < kh or b < kw:
        raise ValueError(
            f"{kh} x {kw} taps do not fit into the {max(a, 0)} x {max(b, 0)} cells of an image {shape}"
        )
    (down, height), (across, width) = _kinds(a, kh), _kinds(b, kw)
    bits = (
        ((np.arange(2 ** (kh * kw))[:, None] >> np.arange(kh * kw)) & 1)
        .astype(bool)
        .reshape(-1, kh, kw)
    )
    rows = []
    for (i, above), (j, beside) in itertools.product(enumerate(down), enumerate(across)):
        seen = np.flatnonzero(~(bits & ~np.outer(above[2:], beside[2:])).any((1, 2)))
        rows.append(np.stack([np.full(len(seen), i), np.full(len(seen), j), seen]))
    i, j, pattern = np.concatenate(rows, 1)
    pixels = np.arange(np.prod(first.patch)).reshape(first.patch)
    eye = np.eye(pixels.size, dtype=np.float32)

    # Each kind of row has entries of its own for neighbours within it, and so has each kind of
    # column.
    def side(table, shared, sign, end, pixels):
        code = shared.reshape(len(bits), -1) @ (1 << np.arange(shared[0].size))
        entry = (j if table else i) * 2 ** shared[0].size + code[pattern]
        missing = (down[i] if table else across[j])[:, end]
        return _Side(table, entry, np.float32(sign) * ~missing, eye[pixels.ravel()])

    sides = (
        side(0, bits[:, :, 1:], 1.0, 1, pixels[:, pool:]),
        side(0, bits[:, :, :-1], -1.0, 0, pixels[:, : w - pool]),
        side(1, bits[:, 1:], 1.0, 1, pixels[pool:]),
        side(1, bits[:, :-1], -1.0, 0, pixels[: h - pool]),
    )
    tables = tuple(
        (len(kinds) * 2**shared, len(sides[at].pixels) + 1)
        for at, kinds, shared in ((0, down, kh * (kw - 1)), (2, across, (kh - 1) * kw))
    )
    kind = i * len(across) + j
    count = np.outer(height, width).ravel()
    positions = (a - kh + 1) * (b - kw + 1)
    return _Rows(bits.reshape(len(bits), -1), pattern, kind, count, positions, sides, tables)


def _kinds(n, taps):
    """Along one axis of n cells: bool ``[kinds, 2 + taps]``, first, last, and which positions exist; how many."""
    at = np.arange(n)[:, None]
    position = at + np.arange(taps) - (taps - 1)
    seen = np.concatenate([at == 0, at == n - 1, (position >= 0) & (position <= n - taps)], 1)
    return np.unique(seen, axis=0, return_counts=True)


# --- the bound
# --------------------------------------------------------------------------------------------------------


class _Stage:
    """All that the maps share, in float64; pixels from -1 to 1."""

    def __init__(self, first: Cells, taps: tuple[int, int], shape: tuple[int, int], cuts: int):
        alive = np.flatnonzero(first.alive)
        middle, half = (first.high + first.low) / 2, (first.high - first.low) / 2
        self.alive = alive
        self.conv = first.conv[alive] * half
        self.bias = first.bias[alive, None] + first.conv[alive] @ middle  # [c, q]
        size = np.abs(first.conv[alive]) @ (np.abs(middle) + half)
        self.heaviest = size.max(1, initial=0) + np.abs(
            first.bias[alive]
        )  # [c], all that a channel is summed from
        self.rows = _rows(first, taps, shape)
        self.order = np.argsort(-np.square(self.conv).sum((0, 1)), kind="stable")[:cuts]
        self.parts: dict[int, _Part] = {}

    def part(self, number: int) -> "_Part":
        """A part of the box: the whole is 1, and the halves of ``number`` are ``2 * number`` and the next."""
        if number not in self.parts:
            box = np.stack([-np.ones(self.conv.shape[2]), np.ones(self.conv.shape[2])])
            for pixel, side in zip(self.order, f"{number:b}"[1:], strict=False):
                box[1 - int(side), pixel] = 0
            self.parts[number] = _part(box, self.conv, self.bias)
        return self.parts[number]

    def weights(self, kernel):
        """``[s, c]``: what each pattern of bits makes of the channels, for ``kernel[kh, kw, c]``."""
        taps = kernel[::-1, ::-1, self.alive].reshape(self.rows.bits.shape[1], -1)
        return self.rows.bits.astype(np.float64) @ taps

    def certify(self, kernel, bias, phi, alpha, origin, part) -> float:
        """The bound in float64, rounded up.

        Args:
            kernel: ``[kh, kw, c]``.
            bias: a number.
            phi: two tables.
            alpha: ``[n, c, q]``, slopes of n problems: a row and a part of the box; those of a row
                make up the box.
            origin: ``[n]``, the row.
            part: ``[n]``, the part.
        """
        rows = self.rows
        omega = self.weights(kernel)[rows.pattern[origin]]
        # A tiny bit below 1, so that slopes sum to at most 1 however they are rounded.
        alpha = np.maximum(alpha, 0).astype(np.float64)
        alpha = alpha * ((1 - 1e-12) / np.maximum(alpha.sum(-1, keepdims=True), 1))
        phi = tuple(table.astype(np.float64) for table in phi)
        share = bias * rows.bits.mean(1)[rows.pattern[origin]]
        sides = tuple(side.of(origin) for side in rows.sides)
        vector, offset = _affine(
            sides, phi, np.minimum(omega, 0)[..., None] * alpha, share, self.conv, self.bias
        )
        factors = np.concatenate([np.maximum(omega, 0), vector], 1).T
        largest = np.full(len(omega), -np.inf)
        for number in np.unique(part):
            here, box = np.flatnonzero(part == number), self.part(number)
            for at in range(0, len(box.points), _CHUNK):
                seen = np.concatenate(
                    [box.values[at : at + _CHUNK], box.points[at : at + _CHUNK]], 1
                )
                largest[here] = np.maximum(largest[here], (seen @ factors[:, here]).max(0))
        weight = np.abs(omega) @ self.heaviest + np.abs(bias)
        for side in sides:
            weight += np.abs(phi[side.table][side.entry]).sum(1)
        return (
            float(rows.count @ rows.worst(largest + offset + _SLACK * weight, origin))
            / rows.positions
        )

    def search(self, kernel, bias, passes):
        """What `certify` takes, in float32: the best of those seen in a pass over all problems."""
        rows, (_, q, p) = self.rows, self.conv.shape
        omega, conv, start = (
            array.astype(np.float32) for array in (self.weights(kernel), self.conv, self.bias)
        )
        up, down = np.maximum(omega, 0), np.minimum(omega, 0)[rows.pattern]
        share = (bias * rows.bits.mean(1)).astype(np.float32)[rows.pattern]
        count, active = rows.count.astype(np.float32), _ROWS * (3 if len(self.order) else 1)
        # The problems: at first one for each row, on the whole box.
        origin: Any = np.arange(len(down))
        part: Any = np.ones(len(down), np.int64)
        slopes = np.zeros((len(down), 3, *self.bias.shape), np.float32)  # alpha and its two moments
        slopes[:, 0] = 0.5 / q
        corners: Any = np.zeros((len(down), _SEEN), np.int64)
        top: Any = np.zeros(len(down), np.float32)
        table = up @ self.part(1).single.T
        values = [table[pattern] for pattern in rows.pattern]
        phi = tuple(np.zeros(size, np.float32) for size in rows.tables)
        moments = [phi, phi]
        largest = max(float(np.abs(table).max() + np.abs(bias)), 1e-20)
        buffer = np.empty((2 ** (p // 2), 2 ** (p - p // 2)), np.float32)
        chosen, best, unit = origin, (np.inf,), 0.0
        for step in range(passes + 1):
            full = step % _ALL == 0 or step == passes
            looked = np.arange(len(origin)) if full else chosen
            base = origin[looked]
            sides = tuple(side.of(base) for side in rows.sides)
            vector, offset = _affine(
                sides, phi, down[base, :, None] * slopes[looked, 0], share[base], conv, start
            )
            new = np.empty((len(looked), _SEEN + _NEW), np.int64)
            for at, problem in enumerate(looked):
                ends = self.part(part[problem]).ends
                top[problem], new[at, :_NEW] = _highest(values[problem], vector[at], ends, buffer)
            top[looked] += offset
            new[:, _NEW:] = corners[looked]
            x, f = self.corners(new, [values[problem] for problem in looked], part[looked])
            corners[looked] = _keep(new, f + np.einsum("nwp,np->nw", x, vector))
            worst = rows.worst(top, origin)
            if full:
                value = float(count @ worst)
                best = min(
                    best,
                    (value, phi, slopes[:, 0].copy(), origin, part),
                    key=lambda found: found[0],
                )
                unit = unit or max(value / count.sum(), 1e-6 * largest)
            if step == passes or best[0] <= 1e-6 * largest:  # the second: silent
                break
            gap = worst[rows.kind[origin]] - top
            since = step - round(_CUT_AT[0] * passes)
            if since >= 0 and since % _CUT_EVERY == 0 and step < _CUT_AT[1] * passes:
                able = np.flatnonzero(part < 2 ** len(self.order))
                cut = able[np.argsort(gap[able], kind="stable")[:_CUT]]
                origin, slopes, corners, top, gap = (
                    np.concatenate([each, each[cut]])
                    for each in (origin, slopes, corners, top, gap)
                )
                part = np.concatenate([part, 2 * part[cut] + 1])
                part[cut] *= 2
                values += [None] * len(cut)
                fresh = np.concatenate([cut, np.arange(len(part) - len(cut), len(part))])
                for number in np.unique(part[fresh]):
                    some = fresh[part[fresh] == number]
                    found = up[rows.pattern[origin[some]]] @ self.part(number).single.T
                    for problem, each in zip(some, found, strict=True):
                        values[problem] = each
            chosen = np.argsort(gap, kind="stable")[:active]
            base = origin[chosen]
            x, f = self.corners(
                corners[chosen], [values[problem] for problem in chosen], part[chosen]
            )
            data = (x, f, down[base], share[base], rows.kind[base], count, conv, start)
            done = step / passes
            rates = [unit * _SMOOTH[0] ** (1 - done) * _SMOOTH[1] ** done]
            rates += [rate * (1 - 0.9 * done) for rate in (_STEP * unit, _SLOPE)]
            state = tuple((tables, slopes[chosen, at]) for at, tables in enumerate((phi, *moments)))
            sides = tuple(side.of(base) for side in rows.sides)
            state = jax.tree.map(
                np.asarray, _improve(state, sides, data, [np.float32(rate) for rate in rates])
            )
            phi, *moments = (tables for tables, _ in state)
            slopes[chosen] = np.stack([update for _, update in state], 1)
        return best[1:]

    def corners(self, numbers, values, part):
        """Of corners ``numbers[n, w]``, the pixels ``[n, w, p]`` and the ``values`` (n arrays ``[u]``), ``[n, w]``."""
        x = [self.part(box).corner(number) for box, number in zip(part, numbers, strict=True)]
        return np.stack(x), np.stack(
            [value[number] for value, number in zip(values, numbers, strict=True)]
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of a cell's box.

    Attributes:
        points: float64 ``[u, p]``, its corners, the last pixel fastest.
        values: float64 ``[u, c]``, the channels there.
        single: float32 ``[u, c]``.
        ends: float32, its corners by their leading pixels ``[g, p / 2]`` and by their trailing ones
            ``[l, p / 2]``.
    """

    points: np.ndarray
    values: np.ndarray
    single: np.ndarray
    ends: tuple[np.ndarray, np.ndarray]

    def corner(self, u):
        """Corners by number, ``[w]`` to float32 ``[w, p]``."""
        leads, trails = self.ends
        return np.concatenate([leads[u // len(trails)], trails[u % len(trails)]], 1)


def _part(box, conv, bias):
    p = box.shape[1]
    points = np.where(np.arange(2**p)[:, None] >> np.arange(p)[::-1] & 1, box[1], box[0])
    flat = conv.reshape(-1, p)
    values = np.empty((len(points), len(bias)))
    for at in range(0, len(points), _CHUNK):
        each = points[at : at + _CHUNK] @ flat.T + bias.ravel()
        values[at : at + _CHUNK] = each.reshape(len(each), *bias.shape).max(2, initial=0)
    size = 2 ** (p - p // 2)
    ends = points[::size, : p // 2].astype(np.float32), points[:size, p // 2 :].astype(np.float32)
    return _Part(points, values, values.astype(np.float32), ends)


def _affine(sides, phi, slopes, share, conv, bias):
    """What is affine in the pixels, ``[n, p]`` and ``[n]``: minorants, for slopes ``[n, c, q]``, bias and phi."""
    flat = slopes.reshape(len(slopes), -1)
    vector, offset = flat @ conv.reshape(-1, conv.shape[2]), flat @ bias.reshape(-1) + share
    for side in sides:
        entry = phi[side.table][side.entry] * side.sign[:, None]
        vector, offset = vector + entry[:, :-1] @ side.pixels, offset + entry[:, -1]
    return vector, offset


def _highest(values, vector, ends, buffer):
    """The largest of ``values + points @ vector`` over all corners, and the corners of the best `_NEW` groups."""
    leading, size = ends[0].shape[1], len(ends[1])
    values = np.add(values.reshape(-1, size), (ends[0] @ vector[:leading])[:, None], out=buffer)
    each = values.max(0) + ends[1] @ vector[leading:]
    groups = np.argsort(-each)[:_NEW]
    found = values[:, groups].argmax(0) * size + groups
    return each[groups[0]], np.resize(found, _NEW)


def _keep(corners, values):
    """The best `_SEEN` of ``corners[n, w]``, repeated ones last."""
    order = np.argsort(corners, 1)
    corners, values = np.take_along_axis(corners, order, 1), np.take_along_axis(values, order, 1)
    values[:, 1:][corners[:, 1:] == corners[:, :-1]] = -np.inf
    return np.take_along_axis(corners, np.argpartition(-values, _SEEN - 1, 1)[:, :_SEEN], 1)


# --- the search
# -------------------------------------------------------------------------------------------------------


@jax.jit
def _improve(state, sides, data, rates):
    """Adam on (phi, alpha) with these problems and corners: the new ``(value, first moment, second moment)``."""
    x, values, down, share, kind, count, conv, bias = data
    temperature, step, slope = rates

    def smooth(variables):
        phi, alpha = variables
        vector, offset = _affine(sides, phi, down[..., None] * alpha, share, conv, bias)
        f = (values + jnp.einsum("nwp,np->nw", x, vector) + offset[:, None]) / temperature
        largest = jax.ops.segment_max(lax.stop_gradient(jnp.max(f, 1)), kind, len(count))
        total = jax.ops.segment_sum(
            jnp.sum(jnp.exp(f - largest[kind][:, None]), 1), kind, len(count)
        )
        return temperature * jnp.sum(
            jnp.where(total > 0, count * jnp.log(jnp.where(total > 0, total, 1)), 0)
        )

    def update(state, _):
        (phi, alpha), first, second = state
        slopes = jax.grad(smooth)((phi, alpha))
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
        second = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * jnp.square(g), second, slopes)
        move = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), first, second)
        phi = tuple(table - step * part for table, part in zip(phi, move[0], strict=True))
        alpha = jnp.maximum(alpha - slope * move[1], 0)
        alpha = alpha / jnp.maximum(jnp.sum(alpha, -1, keepdims=True), 1)
        return ((phi, alpha), first, second), None

    return lax.scan(update, state, length=_STEPS)[0]
