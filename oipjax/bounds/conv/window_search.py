"""The search for good multipliers of the window bound: Adam on a smoothed maximum, in float32.

`oipjax.bounds.conv.windows` states the problem. Any multipliers give a valid bound, so nothing here
needs to be exact. Each problem has a working set of corners (column generation). A pass goes
through these phases:

1. Look: over all corners of some problems, find the maximum and add the best corners to the working
   sets. From time to time a pass looks at all problems. It then knows a bound and keeps the best
   multipliers.
2. Cut: cut the boxes of the problems that matter most in two.
3. Improve: take steps of Adam on the problems that matter most, on their working sets.

A problem matters most if its maximum is nearest to the largest one of its kind of cell.

Axes: ``c`` channels, ``q`` positions of the pooling window, ``p`` pixels of a patch, ``s`` patterns
    of bits, ``r``
rows, ``n`` problems (a row and a part of the box), ``u`` corners, ``w`` corners of a working set.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from oipjax.bounds.conv.window_dual import (
    WHOLE_BOX,
    Part,
    WindowDual,
    WindowMultipliers,
    affine_part,
)
from oipjax.bounds.conv.window_rows import Side

_FULL_PASS_EVERY = 4  # passes from one over all problems to the next
_ACTIVE = 256  # problems looked at in between; three times as many where boxes are cut
_UPDATES = 8  # updates of the multipliers from one pass to the next
_WORKING_SET = 32  # corners of a problem's working set
_NEW_CORNERS = 8  # corners that a pass may add to a working set
_FIRST_TEMPERATURE = 0.1  # in units of a cell's part of the bound
_LAST_TEMPERATURE = 0.01
_PHI_STEP = 0.002  # in the same units
_ALPHA_STEP = 0.1
_CUTS_AT_A_TIME = 384  # boxes cut in one pass
_FIRST_CUT = 0.2  # as a part of all passes
_LAST_CUT = 0.6
_CUT_EVERY = 3  # passes
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-8)
# Optax corrects the bias of the moments for one common count of updates. But problems join at
# different times. From this count on the correction is 1. The steps were chosen without it, and
# bounds are looser with it.
_LARGE_COUNT = np.int32(10_000)
_NEGLIGIBLE = 1e-6  # as a part of the largest channel


class _Variables(NamedTuple):
    """Multipliers, or something of the same shape.

    Attributes:
        phi: two tables, ``[entries, shared + 1]``.
        alpha: ``[n, c, q]``.
    """

    phi: Any
    alpha: Any


class _WorkingSet(NamedTuple):
    """The problems that an improvement sees.

    Attributes:
        x: ``[n, w, p]``, corners.
        values: ``[n, w]``, the part with positive weights there.
        negative: ``[n, c]``, the negative weights; 0 for the others.
        bias_share: ``[n]``.
        kind: ``[n]``, the kind of cell.
        count: ``[kinds]``, the number of cells.
        conv: ``[c, q, p]``.
        bias: ``[c, q]``.
    """

    x: Any
    values: Any
    negative: Any
    bias_share: Any
    kind: Any
    count: Any
    conv: Any
    bias: Any


class _Rates(NamedTuple):
    """The temperature of the smoothed maximum, and the largest steps of phi and alpha."""

    temperature: Any
    phi: Any
    alpha: Any


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
        rows_table, columns_table = dual.rows.tables
        self.phi = (np.zeros(rows_table, np.float32), np.zeros(columns_table, np.float32))
        self.phi_first = self.phi
        self.phi_second = self.phi
        self.best = _Best(value=np.inf, multipliers=self.multipliers())
        self.unit: Any = 0.0  # a cell's part of the bound, known after the first pass
        p = self.map.conv.shape[2]
        self.buffer = np.empty((2 ** (p // 2), 2 ** (p - p // 2)), np.float32)

    def run(self) -> WindowMultipliers:
        """Go through all passes."""
        chosen = np.arange(len(self.problems.origin))
        for number in range(self.passes + 1):
            is_last = number == self.passes
            is_full = number % _FULL_PASS_EVERY == 0 or is_last
            self.look(np.arange(len(self.problems.origin)) if is_full else chosen)
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
        """Look at all corners of the problems ``chosen[n]``, and renew their maxima and working sets."""
        problems = self.problems
        rows = problems.origin[chosen]
        sides = tuple(side.take(rows) for side in self.dual.rows.sides)
        slopes = self.map.negative[rows, :, None] * problems.alpha[chosen]
        vector, offset = affine_part(
            sides, self.phi, slopes, self.map.bias_share[rows], self.map.conv, self.map.bias
        )
        candidates = np.empty((len(chosen), _WORKING_SET + _NEW_CORNERS), np.int64)
        for i, problem in enumerate(chosen):
            part = self.dual.part(problems.part[problem])
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
            part = self.dual.part(self.problems.part[problem])
            x.append(part.corner(corners))
            values.append(self.problems.values[problem][corners])
        return np.stack(x), np.stack(values)

    def keep_best(self, worst: np.ndarray) -> None:
        """After a full pass: sum up the bound from the maximum of each kind of cell, and keep the best."""
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
        """Evaluate the part with positive weights at every corner, for problems with another box."""
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
        working_set = _WorkingSet(
            x=x,
            values=values,
            negative=self.map.negative[rows],
            bias_share=self.map.bias_share[rows],
            kind=self.dual.rows.kind[rows],
            count=self.map.count,
            conv=self.map.conv,
            bias=self.map.bias,
        )
        variables = _Variables(self.phi, problems.alpha[chosen])
        adam = optax.ScaleByAdamState(
            count=_LARGE_COUNT,
            mu=_Variables(self.phi_first, problems.first[chosen]),
            nu=_Variables(self.phi_second, problems.second[chosen]),
        )
        sides = tuple(side.take(rows) for side in self.dual.rows.sides)
        rates = _rates(self.unit, done)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            improved = _improve(variables, adam, sides, working_set, rates)
        variables, adam = jax.tree.map(np.asarray, improved)
        self.phi = variables.phi
        self.phi_first = adam.mu.phi
        self.phi_second = adam.nu.phi
        problems.alpha[chosen] = variables.alpha
        problems.first[chosen] = adam.mu.alpha
        problems.second[chosen] = adam.nu.alpha


def _prepare(dual: WindowDual, kernel: np.ndarray, bias: float) -> tuple[_Map, list[np.ndarray]]:
    """One map in float32, and the part with positive weights of each row at every corner of the whole box."""
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


def _rates(unit: Any, done: float) -> _Rates:
    """The temperature and the steps after a share ``done`` of all passes."""
    temperature = unit * _FIRST_TEMPERATURE ** (1 - done) * _LAST_TEMPERATURE**done
    decay = 1 - 0.9 * done
    return _Rates(
        temperature=np.float32(temperature),
        phi=np.float32(_PHI_STEP * unit * decay),
        alpha=np.float32(_ALPHA_STEP * decay),
    )


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
    table = np.add(values.reshape(-1, group_count), leading_values[:, None], out=buffer)
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


@jax.jit
def _improve(
    variables: _Variables,
    adam: optax.ScaleByAdamState,
    sides: tuple[Side, ...],
    working_set: _WorkingSet,
    rates: _Rates,
) -> tuple[_Variables, optax.ScaleByAdamState]:
    """Take steps of Adam on (phi, alpha) with these problems and corners."""

    def update(state, _):
        variables, adam = state
        gradients = jax.grad(_smooth_bound)(variables, sides, working_set, rates.temperature)
        moves, adam = _ADAM.update(gradients, adam)
        phi = jax.tree.map(lambda table, move: table - rates.phi * move, variables.phi, moves.phi)
        alpha = jnp.maximum(variables.alpha - rates.alpha * moves.alpha, 0)
        alpha = alpha / jnp.maximum(jnp.sum(alpha, -1, keepdims=True), 1)
        return (_Variables(phi, alpha), adam), None

    return lax.scan(update, (variables, adam), length=_UPDATES)[0]


def _smooth_bound(
    variables: _Variables, sides: tuple[Side, ...], working_set: _WorkingSet, temperature: Array
) -> Array:
    """The bound on the working sets, with a smoothed maximum over problems and corners."""
    kind = working_set.kind
    count = working_set.count
    kinds = len(count)
    vector, offset = affine_part(
        sides,
        variables.phi,
        working_set.negative[..., None] * variables.alpha,
        working_set.bias_share,
        working_set.conv,
        working_set.bias,
    )
    products = jnp.einsum("nwp,np->nw", working_set.x, vector)
    scaled = (working_set.values + products + offset[:, None]) / temperature  # [n, w]
    largest_of_problem = lax.stop_gradient(jnp.max(scaled, 1))
    largest = jax.ops.segment_max(largest_of_problem, kind, kinds)
    exponentials = jnp.exp(scaled - largest[kind][:, None])
    total = jax.ops.segment_sum(jnp.sum(exponentials, 1), kind, kinds)
    # A kind of cell without a problem here has a total of 0 and does not count.
    logarithm = jnp.log(jnp.where(total > 0, total, 1))
    return temperature * jnp.sum(jnp.where(total > 0, count * logarithm, 0))
