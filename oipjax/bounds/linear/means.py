"""Upper bounds of a map's mean over its positions, which is its score, by sets of active positions.

The mean of a ReLU over ``n`` positions is the greatest of ``sum over S of pre / n`` over all sets
``S`` of active positions. Each of these is linear in the layer below, where it is bounded as a
whole: a value that helps one position and harms another is counted once, not at its best for each.
Sets are listed for blocks of up to 3x3 positions; the bounds of the blocks add up.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.interval import evaluate, images_of, limits_by_variable, parameters, trace
from oipjax.bounds.interval.scores import computed_mean, mean_of_nodes
from oipjax.bounds.linear.backward import ROUNDING, magnitudes, pull
from oipjax.bounds.refinement import State
from oipjax.jaxpr import Program, restrict
from oipjax.spaces import Box, Sphere

BLOCK = 3
"""Side of a block, in positions."""
MAPS = 32
"""Maps at a time; fewer are filled up, so that one program serves for all maps and for a few."""
MOST_POSITIONS = 1024
"""A layer with more positions takes too long."""

Place = tuple[int, int]


@dataclass(frozen=True)
class ActiveSets:
    """Scores of a layer behind a ReLU, from the sets of positions at which a map can be on."""

    name: ClassVar[str] = "sets"
    level: ClassVar[str] = "cheap"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the layer does not fit, or None."""
        shape = stack.layer.shape
        if len(shape) != 3:
            return f"Sets of active positions need a layer [h, w, k], and this one is {shape}."
        if not stack.is_rectified:
            return "Sets of active positions need a layer that is the output of a ReLU."
        positions = shape[0] * shape[1]
        if positions > MOST_POSITIONS:
            return (
                f"Sets of active positions take too long for {positions} positions, more than "
                f"{MOST_POSITIONS}."
            )
        return None

    def refine(self, state: State) -> State:
        """Tighten the upper bounds of the scores of ``state.maps``."""
        ends = state.ends[state.layer]
        means = np.full(state.stack.layer.maps, np.inf)
        maps = np.arange(len(means)) if state.maps is None else state.maps
        means[maps] = _mean_bounds(state, maps)
        # A mean that is not a number says nothing.
        score = np.fmin(state.bounds.score, computed_mean(means, ends))
        helps = score < mean_of_nodes(ends) * (1 - 1e-9)
        name = f"{state.limited_by} + {self.name}" if state.limited_by else self.name
        method = np.where(helps, name, state.bounds.method)
        return replace(state, bounds=replace(state.bounds, score=score, method=method))


class _Problem(NamedTuple):
    """All that the blocks of a layer share.

    Attributes:
        program: the steps up to the nodes before the ReLU.
        domain: the set of images.
        pre: number of the variable that holds these nodes.
        parameters: of the network.
        limits: of variables, by their numbers.
        shape: of the layer, ``(h, w, k)``.
    """

    program: Program
    domain: Box | Sphere
    pre: int
    parameters: list[np.ndarray]
    limits: Mapping[int, tuple[np.ndarray, np.ndarray]]
    shape: tuple[int, ...]


def _mean_bounds(state: State, maps: np.ndarray) -> np.ndarray:
    """Upper bounds ``[n]`` of the means of some maps, of nodes as computed in float32."""
    shape = state.stack.layer.shape
    rows = _blocks(shape[0])
    columns = _blocks(shape[1])
    sums = np.zeros(len(maps))
    with jax.enable_x64(True):
        problem = _problem(state)
        for block in itertools.product(rows, columns):
            places = list(itertools.product(*block))
            for first in range(0, len(maps), MAPS):
                group = slice(first, first + MAPS)
                sums[group] += _greatest_sums(problem, places, maps[group])
    error = state.ends[state.layer].error.max((0, 1))
    return sums / (shape[0] * shape[1]) + error[maps]


def _problem(state: State) -> _Problem:
    model = state.model
    program = trace(model)
    relu = program.made(program.variable(model.layers.index(state.layer)))
    pre = None if relu is None else relu.rectified()
    if pre is None:
        raise ValueError(f"{state.layer} of {model.name} is not the output of a ReLU")
    return _Problem(
        program=restrict(program, frozenset({pre})),
        domain=state.domain,
        pre=pre,
        parameters=parameters(model),
        limits=limits_by_variable(model, state.placed_limits),
        shape=state.stack.layer.shape,
    )


def _blocks(size: int) -> list[range]:
    """An axis of so many positions, cut into blocks."""
    return [range(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]


def _greatest_sums(problem: _Problem, places: list[Place], maps: np.ndarray) -> np.ndarray:
    """For each map an upper bound ``[n]`` of a block's sum: the greatest over all sets of nodes."""
    # Maps are repeated until the group is full, so that one compiled program serves all groups.
    filled = np.resize(maps, min(MAPS, problem.shape[2]))
    functions = _node_specs(places, filled, problem.shape)
    offset, parts, size = _pulled(
        problem.program,
        problem.domain,
        problem.pre,
        problem.parameters,
        problem.limits,
        functions,
    )
    sets = np.array(list(itertools.product((0.0, 1.0), repeat=len(places))))
    total = sets @ _of_places(offset, places, filled)[..., 0]
    for coefficients, low, high in parts:
        c = _of_places(coefficients, places, filled)
        used = np.flatnonzero(np.any(c != 0, (0, 1)))
        low = np.ravel(low)[used]
        high = np.ravel(high)[used]
        total = total + np.asarray(_set_sums(sets, c[..., used], low, high))
    magnitude = np.zeros(len(filled))
    for i, j in places:
        magnitude = magnitude + np.asarray(size)[0, i, j, filled]
    greatest = total.max(0) + ROUNDING * magnitude
    return greatest[: len(maps)]


def _node_specs(places: list[Place], maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear functions ``[m, 1, h, w, k]`` that each pick one node.

    There is one for each place of a full block and each map; a missing place picks nothing.
    """
    count = len(maps)
    specs = np.zeros((BLOCK**2, count, 1, *shape))
    for index, (i, j) in enumerate(places):
        specs[index, np.arange(count), 0, i, j, maps] = 1
    return specs.reshape(-1, 1, *shape)


def _of_places(values: Any, places: list[Place], maps: np.ndarray) -> np.ndarray:
    """``values[m, ...]`` of the functions of `_node_specs` as ``[places, n, values]``."""
    by_place = np.asarray(values).reshape(BLOCK**2, len(maps), -1)
    return by_place[: len(places)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pulled(program: Program, domain: Box | Sphere, pre: int, params, limits, specs):
    """The functions ``specs`` of a variable as functions of what lies below it.

    Returns:
        their offsets ``[m]``, for each value below the coefficients and its two ends, and the
        magnitudes of the variable's nodes.
    """
    values = evaluate(program, [*params, images_of(domain)], limits=limits)
    pulled = pull(program, values, pre, specs)
    parts = []
    for number, c in pulled.coefficients.items():
        parts.append((c, values[number].low, values[number].high))
    return pulled.offset, parts, magnitudes(program, values)[pre]


@jax.jit
def _set_sums(sets, c, low, high):
    """The greatest values ``[sets, n]`` of the sets' sums; ``c`` is ``[places, n, values]``."""

    def of_map(c):
        together = sets @ c
        return jnp.maximum(together, 0) @ high + jnp.minimum(together, 0) @ low

    return jax.lax.map(of_map, jnp.moveaxis(c, 1, 0)).T
