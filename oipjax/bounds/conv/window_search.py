"""The search for good multipliers of the window bound, in float32.

`oipjax.bounds.conv.windows` states the problem. Any multipliers give a valid bound, so nothing here
needs to be exact. Each problem has a working set of corners (column generation). A pass goes
through these phases:

1. Look: over all corners of some problems, find the maximum and add the best corners to the working
   sets. From time to time a pass looks at all problems. It then knows a bound and keeps the best
   multipliers.
2. Cut: cut the boxes of the problems that matter most in two.
3. Improve: take steps of Adam on the problems that matter most, on their working sets
   (`oipjax.bounds.conv.window_steps`).

A problem matters most if its maximum is nearest to the largest one of its kind of cell.

Axes: ``c`` channels, ``q`` positions of the pooling window, ``p`` pixels of a patch, ``s`` patterns
of bits, ``r`` rows, ``n`` problems (a row and a part of the box), ``u`` corners, ``w`` corners of a
working set.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from oipjax.bounds.conv.window_dual import (
    WHOLE_BOX,
    Part,
    WindowDual,
    WindowMultipliers,
    affine_part,
)
from oipjax.bounds.conv.window_rows import Side
from oipjax.bounds.conv.window_steps import Moments, Variables, WorkingSet, improve, rates_at

_FULL_PASS_EVERY = 4  # passes from one over all problems to the next
_ACTIVE = 256  # problems looked at in between; three times as many where boxes are cut
_WORKING_SET = 32  # corners of a problem's working set
_NEW_CORNERS = 8  # corners that a pass may add to a working set
_CUTS_AT_A_TIME = 384  # boxes cut in one pass
_FIRST_CUT = 0.2  # as a part of all passes
_LAST_CUT = 0.6
_CUT_EVERY = 3  # passes
_NEGLIGIBLE = 1e-6  # as a part of the largest channel


@dataclass(frozen=True, eq=False)
class _Map:
    """The second convolution of one map, in float32.

    Attributes:
        positive: ``[s, c]``, the positive weights of each pattern; 0 for the others.
        negative: ``[r, c]``, the negative weights of each row; 0 for the others.
        bias_share: ``[r]``, the share of the bias.
        conv: ``[c, q, p]``, the first convolution.
        bias: ``[c, q]``, its bias.
        count: ``[kinds]``, the number of cells.
        largest: the largest channel of the second convolution's input, weighted; and its bias.
    """

    positive: np.ndarray
    negative: np.ndarray
    bias_share: np.ndarray
    conv: np.ndarray
    bias: np.ndarray
    count: np.ndarray
    largest: float


@dataclass(eq=False)
class _Problems:
    """The problems of a search; they become more where boxes are cut.

    Attributes:
        origin: int ``[n]``, the row of each problem.
        part: int ``[n]``, the part of the box.
        alpha: float32 ``[n, c, q]``, the slopes.
        first: float32 ``[n, c, q]``, the first moment of their gradients.
        second: float32 ``[n, c, q]``, the second moment of their gradients.
        corners: int ``[n, w]``, the working sets.
        largest: float32 ``[n]``, the maximum over all corners, when it was last looked at.
        values: n arrays float32 ``[u]``, the part with positive weights at every corner.
    """

    origin: np.ndarray
    part: np.ndarray
    alpha: np.ndarray
    first: np.ndarray
    second: np.ndarray
    corners: np.ndarray
    largest: np.ndarray
    values: list[np.ndarray]


class _Best(NamedTuple):
    """The lowest value of a full pass, and the multipliers that gave it."""

    value: float
    multipliers: WindowMultipliers


def search_multipliers(
    dual: WindowDual, kernel: np.ndarray, bias: float, passes: int
) -> WindowMultipliers:
    """Search for multipliers that give one map a low bound.

    Args:
        dual: the dual problem.
        kernel: ``[kh, kw, c]``.
        bias: a number.
        passes: number of passes.

    Returns:
        the best multipliers of those seen in a pass over all problems, in float32.
    """
    return _Search(dual, kernel, bias, passes).run()


class _Search:
    """The search for one map."""

    def __init__(self, dual: WindowDual, kernel: np.ndarray, bias: float, passes: int):
        self.dual = dual
        self.passes = passes
        self.map, values = _prepare(dual, kernel, bias)
        self.problems = _first_problems(dual, values)
        row_shape, column_shape = dual.rows.tables
        row_table = np.zeros(row_shape, np.float32)
        column_table = np.zeros(column_shape, np.float32)
        self.phi = (row_table, column_table)
        self.phi_first = self.phi
        self.phi_second = self.phi
        self.best = _Best(value=np.inf, multipliers=self.multipliers())
        self.unit: Any = 0.0  # a cell's part of the bound, known after the first pass
        whole = dual.part(WHOLE_BOX)
        size = (len(whole.leading), len(whole.trailing))
        self.buffer = np.empty(size, np.float32)

    def run(self) -> WindowMultipliers:
        """Go through all passes."""
        chosen = self.all_problems()
        for number in range(self.passes + 1):
            is_last = number == self.passes
            is_full = is_last or number % _FULL_PASS_EVERY == 0
            if is_full:
                chosen = self.all_problems()
            self.look(chosen)
            worst = self.dual.rows.worst(self.problems.largest, self.problems.origin)
            if is_full:
                self.keep_best(worst)
            if is_last or self.is_negligible():
                break
            kind = self.dual.rows.kind[self.problems.origin]
            gap = worst[kind] - self.problems.largest
            if self.is_time_to_cut(number):
                gap = self.cut(gap)
            chosen = np.argsort(gap, kind="stable")[: self.active()]
            self.improve(chosen, number / self.passes)
        return self.best.multipliers

    def all_problems(self) -> np.ndarray:
        """The numbers of all problems."""
        return np.arange(len(self.problems.origin))

    def sides_of(self, rows: np.ndarray) -> tuple[Side, ...]:
        """The four sides, for some rows."""
        return tuple(side.take(rows) for side in self.dual.rows.sides)

    def multipliers(self) -> WindowMultipliers:
        """The multipliers as they are now."""
        return WindowMultipliers(
            phi=self.phi,
            alpha=self.problems.alpha.copy(),
            origin=self.problems.origin,
            part=self.problems.part,
        )

    def active(self) -> int:
        """The number of problems that a pass improves."""
        return _ACTIVE * (3 if len(self.dual.cut_order) else 1)

    def look(self, chosen: np.ndarray) -> None:
        """Look at all corners of the problems ``chosen[n]``: renew maxima and working sets."""
        problems = self.problems
        rows = problems.origin[chosen]
        slopes = self.map.negative[rows, :, None] * problems.alpha[chosen]
        vector, offset = affine_part(
            self.sides_of(rows),
            self.phi,
            slopes,
            self.map.bias_share[rows],
            self.map.conv,
            self.map.bias,
        )
        candidates = np.empty((len(chosen), _WORKING_SET + _NEW_CORNERS), np.int64)
        for i, problem in enumerate(chosen):
            part = self.dual.part(int(problems.part[problem]))
            largest, best = _highest(problems.values[problem], vector[i], part, self.buffer)
            problems.largest[problem] = largest
            candidates[i, :_NEW_CORNERS] = best
        problems.largest[chosen] += offset
        candidates[:, _NEW_CORNERS:] = problems.corners[chosen]
        x, values = self.at_corners(chosen, candidates)
        totals = values + np.einsum("nwp,np->nw", x, vector)
        problems.corners[chosen] = _best_corners(candidates, totals)

    def at_corners(self, chosen: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up the corners ``numbers[n, w]`` of the problems ``chosen[n]``.

        Returns:
            their pixels ``[n, w, p]``, and the part with positive weights there, ``[n, w]``.
        """
        x = []
        values = []
        for problem, corners in zip(chosen, numbers, strict=True):
            part = self.dual.part(int(self.problems.part[problem]))
            x.append(part.corner(corners))
            values.append(self.problems.values[problem][corners])
        return np.stack(x), np.stack(values)

    def keep_best(self, worst: np.ndarray) -> None:
        """After a full pass: keep the multipliers if they are the best.

        Args:
            worst: ``[kinds]``, the maximum of each kind of cell. Their sum over cells is the bound.
        """
        count = self.map.count
        value = float(count @ worst)
        if value < self.best.value:
            self.best = _Best(value=value, multipliers=self.multipliers())
        if self.unit == 0:
            self.unit = max(value / count.sum(), _NEGLIGIBLE * self.map.largest)

    def is_negligible(self) -> bool:
        """Whether the bound is so near zero that no better one is needed."""
        return self.best.value <= _NEGLIGIBLE * self.map.largest

    def is_time_to_cut(self, number: int) -> bool:
        """Whether pass ``number`` cuts boxes."""
        since = number - round(_FIRST_CUT * self.passes)
        is_due = since >= 0 and since % _CUT_EVERY == 0
        return is_due and number < _LAST_CUT * self.passes

    def cut(self, gap: np.ndarray) -> np.ndarray:
        """Cut the boxes of the problems with the smallest ``gap[n]`` in two.

        Returns:
            the gaps, with those of the new problems.
        """
        problems = self.problems
        able = np.flatnonzero(self.dual.can_be_cut(problems.part))
        order = np.argsort(gap[able], kind="stable")
        cut = able[order[:_CUTS_AT_A_TIME]]
        part = _with_copies(problems.part, cut)
        new = np.arange(len(problems.part), len(part))
        part[cut] *= 2
        part[new] = part[cut] + 1
        self.problems = _Problems(
            origin=_with_copies(problems.origin, cut),
            part=part,
            alpha=_with_copies(problems.alpha, cut),
            first=_with_copies(problems.first, cut),
            second=_with_copies(problems.second, cut),
            corners=_with_copies(problems.corners, cut),
            largest=_with_copies(problems.largest, cut),
            values=problems.values + [problems.values[problem] for problem in cut],
        )
        self.renew_values(np.concatenate([cut, new]))
        return _with_copies(gap, cut)

    def renew_values(self, changed: np.ndarray) -> None:
        """Evaluate the part with positive weights at every corner of boxes that changed."""
        problems = self.problems
        for number in np.unique(problems.part[changed]):
            same_part = changed[problems.part[changed] == number]
            pattern = self.dual.rows.pattern[problems.origin[same_part]]
            values = self.map.positive[pattern] @ self.dual.part(number).single.T
            for problem, value in zip(same_part, values, strict=True):
                problems.values[problem] = value

    def improve(self, chosen: np.ndarray, done: float) -> None:
        """Improve phi, and alpha of the problems ``chosen[n]``, on their working sets.

        Args:
            chosen: the problems.
            done: the share of all passes that are done.
        """
        problems = self.problems
        rows = problems.origin[chosen]
        x, values = self.at_corners(chosen, problems.corners[chosen])
        working_set = WorkingSet(
            x=x,
            values=values,
            negative=self.map.negative[rows],
            bias_share=self.map.bias_share[rows],
            kind=self.dual.rows.kind[rows],
            cells=self.map.count,
            sides=self.sides_of(rows),
            conv=self.map.conv,
            bias=self.map.bias,
        )
        variables = Variables(phi=self.phi, alpha=problems.alpha[chosen])
        moments = Moments(
            first=Variables(phi=self.phi_first, alpha=problems.first[chosen]),
            second=Variables(phi=self.phi_second, alpha=problems.second[chosen]),
        )
        rates = rates_at(done, self.unit)
        variables, moments = improve(variables, moments, working_set, rates)
        self.phi = variables.phi
        self.phi_first = moments.first.phi
        self.phi_second = moments.second.phi
        problems.alpha[chosen] = variables.alpha
        problems.first[chosen] = moments.first.alpha
        problems.second[chosen] = moments.second.alpha


def _prepare(dual: WindowDual, kernel: np.ndarray, bias: float) -> tuple[_Map, list[np.ndarray]]:
    """Describe one map in float32.

    Returns:
        the map; and for each row the part with positive weights at every corner of the whole box.
    """
    rows = dual.rows
    weights = dual.weights(kernel).astype(np.float32)
    positive = np.maximum(weights, 0)
    negative = np.minimum(weights, 0)
    bias_share = (bias * rows.bits.mean(1)).astype(np.float32)
    table = positive @ dual.part(WHOLE_BOX).single.T  # [s, u]
    largest = float(np.abs(table).max() + np.abs(bias))
    layer = _Map(
        positive=positive,
        negative=negative[rows.pattern],
        bias_share=bias_share[rows.pattern],
        conv=dual.conv.astype(np.float32),
        bias=dual.bias.astype(np.float32),
        count=rows.count.astype(np.float32),
        largest=max(largest, 1e-20),
    )
    return layer, [table[pattern] for pattern in rows.pattern]


def _first_problems(dual: WindowDual, values: list[np.ndarray]) -> _Problems:
    """One problem for each row, on the whole box."""
    rows = len(dual.rows.pattern)
    size = (rows, *dual.bias.shape)
    positions = dual.bias.shape[1]
    return _Problems(
        origin=np.arange(rows),
        part=np.full(rows, WHOLE_BOX, np.int64),
        alpha=np.full(size, 0.5 / positions, np.float32),
        first=np.zeros(size, np.float32),
        second=np.zeros(size, np.float32),
        corners=np.zeros((rows, _WORKING_SET), np.int64),
        largest=np.zeros(rows, np.float32),
        values=values,
    )


def _with_copies(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Append copies of the ``chosen[n]`` entries: a new array."""
    return np.concatenate([values, values[chosen]])


def _highest(
    values: np.ndarray, vector: np.ndarray, part: Part, buffer: np.ndarray
) -> tuple[np.float32, np.ndarray]:
    """Find the largest of ``values + points @ vector`` over all corners.

    A group holds the corners that share their trailing pixels.

    Args:
        values: ``[u]``.
        vector: ``[p]``.
        part: the part of the box.
        buffer: ``[g, l]``, overwritten.

    Returns:
        the largest value, and the best corners of the best `_NEW_CORNERS` groups.
    """
    leading = part.leading.shape[1]
    group_count = len(part.trailing)
    leading_values = part.leading @ vector[:leading]
    by_group = values.reshape(-1, group_count)
    table = np.add(by_group, leading_values[:, None], out=buffer)
    largest = table.max(0) + part.trailing @ vector[leading:]
    groups = np.argsort(-largest)[:_NEW_CORNERS]
    corners = table[:, groups].argmax(0) * group_count + groups
    return largest[groups[0]], np.resize(corners, _NEW_CORNERS)


def _best_corners(corners: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Keep the best `_WORKING_SET` of ``corners[n, w]``, repeated ones last."""
    order = np.argsort(corners, 1)
    corners = np.take_along_axis(corners, order, 1)
    values = np.take_along_axis(values, order, 1)
    is_repeated = corners[:, 1:] == corners[:, :-1]
    values[:, 1:][is_repeated] = -np.inf
    best = np.argpartition(-values, _WORKING_SET - 1, 1)[:, :_WORKING_SET]
    return np.take_along_axis(corners, best, 1)
