"""The dual problem of the window bound: valid for any multipliers, in float64, rounded up.

`oipjax.bounds.conv.windows` states the problem.

Axes: ``c`` channels of the first stage that are alive, ``q`` positions of the pooling window, ``p``
pixels of a patch, ``s`` patterns of bits, ``r`` rows, ``n`` problems (a row and a part of the box),
``u`` corners.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oipjax.bounds.conv.patches import ROUNDING, Cells, corners, feasible_slopes
from oipjax.bounds.conv.window_rows import Side, make_rows

_CORNERS_AT_A_TIME = 4096
WHOLE_BOX = 1
"""The number of the part that is the whole box."""


class WindowMultipliers(NamedTuple):
    """The variables of the dual problem of one map, and the problems that they belong to.

    Attributes:
        phi: two tables, ``[entries, shared + 1]``.
        alpha: ``[n, c, q]``, the slopes of the minorants.
        origin: int ``[n]``, the row of each problem.
        part: int ``[n]``, the part of the box of each problem. The parts of a row make up the box.
    """

    phi: tuple[np.ndarray, np.ndarray]
    alpha: np.ndarray
    origin: np.ndarray
    part: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a cell's box.

    Attributes:
        points: float64 ``[u, p]``, its corners, the last pixel fastest.
        values: float64 ``[u, c]``, the channels there.
        single: float32 ``[u, c]``, the same.
        leading: float32 ``[g, p // 2]``, the leading pixels of its corners.
        trailing: float32 ``[l, p - p // 2]``, the trailing pixels of its corners; ``u = g * l``.
    """

    points: np.ndarray
    values: np.ndarray
    single: np.ndarray
    leading: np.ndarray
    trailing: np.ndarray

    def corner(self, numbers: np.ndarray) -> np.ndarray:
        """Look up corners by number: ``[w]`` to float32 ``[w, p]``."""
        group, member = np.divmod(numbers, len(self.trailing))
        return np.concatenate([self.leading[group], self.trailing[member]], 1)


class WindowDual:
    """All that the maps share, in float64.

    Pixels are measured from the middle of their range in halves of it, so they go from -1 to 1.

    Attributes:
        alive: int ``[c]``, the channels of the first stage that can be positive.
        conv: float64 ``[c, q, p]``, their convolution.
        bias: float64 ``[c, q]``, their bias.
        heaviest: float64 ``[c]``, the sum of all magnitudes that a channel is summed from.
        rows: the kinds of cells and what they see.
        cut_order: the pixels along which a box may be cut, in order.
    """

    def __init__(
        self,
        first: Cells,
        taps: tuple[int, int],
        shape: tuple[int, int],
        cuts: int,
    ):
        self.alive = np.flatnonzero(first.alive)
        conv = first.conv[self.alive]
        bias = first.bias[self.alive]
        middle = (first.high + first.low) / 2
        half = (first.high - first.low) / 2
        self.conv = conv * half
        self.bias = bias[:, None] + conv @ middle
        magnitude = np.abs(conv) @ (np.abs(middle) + half)
        self.heaviest = magnitude.max(1, initial=0) + np.abs(bias)
        self.rows = make_rows(first, taps, shape)
        squared_weight = np.square(self.conv).sum((0, 1))
        self.cut_order = np.argsort(-squared_weight, kind="stable")[:cuts]
        self._parts: dict[int, Part] = {}

    def part(self, number: int) -> Part:
        """Look up a part; the halves of part ``number`` are ``2 * number`` and the next."""
        if number not in self._parts:
            self._parts[number] = self._make_part(number)
        return self._parts[number]

    def can_be_cut(self, part: np.ndarray) -> np.ndarray:
        """Tell which parts, by number, may be cut once more."""
        return part < 2 ** len(self.cut_order)

    def _make_part(self, number: int) -> Part:
        p = self.conv.shape[2]
        box = np.stack([-np.ones(p), np.ones(p)])
        path = f"{number:b}"[1:]  # the side taken at each cut
        for pixel, side in zip(self.cut_order, path, strict=False):
            box[1 - int(side), pixel] = 0
        points = corners(box)
        values = self._channels(points)
        leading = p // 2
        group_size = 2 ** (p - leading)
        return Part(
            points=points,
            values=values,
            single=values.astype(np.float32),
            leading=points[::group_size, :leading].astype(np.float32),
            trailing=points[:group_size, leading:].astype(np.float32),
        )

    def _channels(self, points: np.ndarray) -> np.ndarray:
        """The channels ``[u, c]`` at ``points[u, p]``."""
        channels, _, p = self.conv.shape
        flat_conv = self.conv.reshape(-1, p)
        values = np.empty((len(points), channels))
        for first in range(0, len(points), _CORNERS_AT_A_TIME):
            chunk = slice(first, first + _CORNERS_AT_A_TIME)
            responses = points[chunk] @ flat_conv.T + self.bias.ravel()
            by_position = responses.reshape(len(responses), *self.bias.shape)
            values[chunk] = by_position.max(2, initial=0)
        return values

    def weights(self, kernel: np.ndarray) -> np.ndarray:
        """Sum the taps ``kernel[kh, kw, c]`` that each pattern of bits selects: ``[s, c]``."""
        bits = self.rows.bits
        taps = kernel[::-1, ::-1, self.alive]
        flat_taps = taps.reshape(bits.shape[1], -1)
        return bits.astype(np.float64) @ flat_taps

    def bound(self, kernel: np.ndarray, bias: float, multipliers: WindowMultipliers) -> float:
        """Evaluate the bound of one map over all corners and patterns, in float64 and rounded up.

        Args:
            kernel: ``[kh, kw, c]``.
            bias: a number.
            multipliers: any numbers, for problems that make up the box of each row.
        """
        rows = self.rows
        origin = multipliers.origin
        pattern = rows.pattern[origin]
        omega = self.weights(kernel)[pattern]  # [n, c]
        slopes = np.minimum(omega, 0)[..., None] * feasible_slopes(multipliers.alpha)
        table0, table1 = multipliers.phi
        phi = (table0.astype(np.float64), table1.astype(np.float64))
        bias_share = bias * rows.bits.mean(1)[pattern]
        sides = tuple(side.take(origin) for side in rows.sides)
        vector, offset = affine_part(sides, phi, slopes, bias_share, self.conv, self.bias)
        factors = np.concatenate([np.maximum(omega, 0), vector], 1).T  # [c + p, n]

        largest = np.full(len(omega), -np.inf)
        for number in np.unique(multipliers.part):
            problems = np.flatnonzero(multipliers.part == number)
            largest[problems] = _largest(self.part(number), factors[:, problems])
        magnitude = np.abs(omega) @ self.heaviest + np.abs(bias)
        for side in sides:
            magnitude += np.abs(phi[side.table][side.entry]).sum(1)
        upper = largest + offset + ROUNDING * magnitude
        total = rows.count @ rows.worst(upper, origin)
        return float(total) / rows.positions


def _largest(part: Part, factors: np.ndarray) -> np.ndarray:
    """The largest value over all corners of a part, for ``factors[c + p, n]``: ``[n]``."""
    largest = np.full(factors.shape[1], -np.inf)
    for first in range(0, len(part.points), _CORNERS_AT_A_TIME):
        chunk = slice(first, first + _CORNERS_AT_A_TIME)
        channels_and_pixels = np.concatenate([part.values[chunk], part.points[chunk]], 1)
        values = channels_and_pixels @ factors  # [u, n]
        largest = np.maximum(largest, values.max(0))
    return largest


def affine_part(sides: tuple[Side, ...], phi, slopes, bias_share, conv, bias):
    """Sum up what is affine in the pixels of each problem: the minorants, the bias and phi.

    Args:
        sides: four sides, for the rows of ``n`` problems.
        phi: two tables.
        slopes: ``[n, c, q]``, slopes times weights.
        bias_share: ``[n]``, the share of the second convolution's bias.
        conv: ``[c, q, p]``.
        bias: ``[c, q]``.

    Returns:
        ``[n, p]`` and ``[n]``.
    """
    flat_slopes = slopes.reshape(len(slopes), -1)
    vector = flat_slopes @ conv.reshape(-1, conv.shape[2])
    offset = flat_slopes @ bias.reshape(-1) + bias_share
    for side in sides:
        entry = phi[side.table][side.entry] * side.sign[:, None]
        vector = vector + entry[:, :-1] @ side.pixels
        offset = offset + entry[:, -1]
    return vector, offset
