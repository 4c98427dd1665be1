"""Linear relaxation of a whole network, for any shape of it: CROWN, with slopes that are optimised.

Every node is bounded by a linear function of the image, found by pulling it back through the
network (`backward.pull`). A ReLU that may be on or off lies below its chord and above ``alpha x``
for any ``alpha`` in [0, 1]. A maximum lies above each of its arguments and below its greatest value
(Zhang et al. 2018, arXiv:1811.00866; Xu et al. 2021, "Fast and Complete" (alpha-CROWN),
arXiv:2011.13824). A step without such lines is taken at its interval, and each ReLU's own limits
are intervals, so the bound is never looser than those. The joint patch hull is tighter where it
fits.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float64

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.interval import (
    Interval,
    Limits,
    checked_domain,
    evaluate,
    images_of,
    intervals,
    limits_by_variable,
    nan_to_inf,
    parameters,
    trace,
)
from oipjax.bounds.linear.backward import ROUNDING, inner_axes, magnitudes, pull
from oipjax.bounds.refinement import State
from oipjax.jaxpr import Equation, Program
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

CHUNK = 128
"""Nodes pulled back at a time."""
MOST_NODES = 8192
"""A layer with more nodes takes too long; each of them is pulled back through the network."""


@dataclass(frozen=True)
class LinearRelaxation:
    """Upper ends of the nodes of any layer, by `crown`; convolutions have bounds made for them."""

    name: ClassVar[str] = "crown"
    level: ClassVar[str] = "tight"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the layer does not fit, or None."""
        if stack.stages:
            return "The linear relaxation is not used for convolutions in a row from the image."
        if stack.nodes > MOST_NODES:
            return (
                f"The linear relaxation takes too long for {stack.nodes} nodes, more than "
                f"{MOST_NODES}."
            )
        return None

    def refine(self, state: State) -> State:
        """Limit the nodes of the layer from above."""
        target = state.stack.target
        high = crown(
            state.model,
            target,
            state.domain,
            limits=state.limits,
            progress=state.report(self.name),
        )
        low = np.full_like(high, -np.inf)
        return state.with_limits({target: (low, high)}, self.name)


def crown(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    steps: int = 10,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float64[np.ndarray, "*hw k"]:
    """Upper bounds of every node of a layer, ``[h, w, k]`` or ``[k]``, in exact arithmetic.

    Args:
        model: the network.
        layer: name of the layer; one before a nonlinearity gains most.
        domain: the set of images.
        steps: of the search for slopes; 1 keeps the first ones.
        limits: ends that are known for the nodes of some layers.
        progress: called with (nodes done, nodes).

    Raises:
        ValueError: as `intervals`, or ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    program = trace(model)
    known_domain = checked_domain(domain)
    high = intervals(model, known_domain, limits, (layer,))[layer].high
    start = program.variable(model.layers.index(layer))
    bounds = []
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # optax mixes types
        arrays = (parameters(model), limits_by_variable(model, limits))
        for first in range(0, high.size, CHUNK):
            nodes = np.minimum(np.arange(first, first + CHUNK), high.size - 1)
            bound = _chunk(program, known_domain, start, steps, *arrays, nodes)
            bounds.append(np.asarray(bound))
            if progress is not None:
                progress(min(first + CHUNK, high.size), high.size)
    every_node = np.concatenate(bounds)[: high.size]
    return np.minimum(every_node.reshape(high.shape), high)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _chunk(program: Program, domain: Box | Sphere, start: int, steps: int, params, limits, nodes):
    """Upper bounds ``[n]`` of some nodes of the variable ``start``, rounded up."""
    values: dict[int, Any] = {}
    evaluated = evaluate(program, [*params, images_of(domain)], limits=limits)
    for number, value in evaluated.items():
        values[number] = nan_to_inf(value) if isinstance(value, Interval) else value
    shape = values[start].low.shape
    size = magnitudes(program, values)[start].ravel()[nodes]
    specs = jax.nn.one_hot(nodes, int(np.prod(shape)), dtype=jnp.float64).reshape(-1, *shape)

    def upper(slopes):
        """Bounds of the nodes with these slopes."""
        lines = functools.partial(_lines, slopes)
        pulled = pull(program, values, start, specs, lines)
        return pulled.upper(values) + ROUNDING * size

    def total(slopes):
        bounds = upper(slopes)
        return jnp.sum(bounds), bounds

    optimiser = optax.adam(0.2)

    def step(state, _):
        slopes, memory, best = state
        (_, bounds), gradient = jax.value_and_grad(total, has_aux=True)(slopes)
        # A norm of nothing has no gradient.
        gradient = jax.tree.map(jnp.nan_to_num, gradient)
        updates, memory = optimiser.update(gradient, memory)
        slopes = optax.apply_updates(slopes, updates)
        slopes = jax.tree.map(lambda s: jnp.clip(s, 0, 1), slopes)
        return (slopes, memory, jnp.fmin(best, bounds)), None

    slopes = _first_slopes(program, values, start, len(nodes))
    unknown = jnp.full(len(nodes), jnp.inf)
    begin = (slopes, optimiser.init(slopes), unknown)
    _, _, best = jax.lax.scan(step, begin, None, steps)[0]
    return best


def _first_slopes(program: Program, values, start: int, count: int) -> dict[int, Any]:
    """For each ReLU below ``start`` slopes ``[count, *shape]``.

    A slope is 1 where the ReLU's argument reaches further above 0 than below, else 0.
    """
    slopes: dict[int, Any] = {}
    for equation in program.equations:
        number = equation.rectified()
        output = equation.outputs[0]
        if number is None or output > start:
            continue
        is_mostly_on = values[number].high > -values[number].low
        first = jnp.where(is_mostly_on, 1.0, 0.0)
        slopes[output] = jnp.broadcast_to(first[None], (count, *first.shape))
    return slopes


def _lines(slopes, equation: Equation, c, x, out):
    """A line above each value with a positive coefficient, below each with a negative one.

    See `backward.Lines`.
    """
    if equation.rectified() is not None:
        return _relu_lines(slopes[equation.outputs[0]], c, x)
    if equation.name in ("reduce_window_max", "reduce_max"):
        return _maximum_lines(equation, c, x, out)
    return None


def _relu_lines(slopes, c, x):
    """The chord above a ReLU, and a line of the given slope below it."""
    above = jnp.maximum(c, 0)
    below = jnp.minimum(c, 0)
    is_crossing = (x.low < 0) & (x.high > 0)
    width = jnp.where(is_crossing, x.high - x.low, 1)
    on_or_off = jnp.where(x.low >= 0, 1.0, 0.0)
    chord = jnp.where(is_crossing, x.high / width, on_or_off)
    under = jnp.where(is_crossing[None], slopes, chord[None])
    height = jnp.where(is_crossing, -chord * x.low, 0)
    offset = jnp.sum(above * height[None], inner_axes(c))
    return above * chord[None] + below * under, offset


def _maximum_lines(equation: Equation, c, x, out):
    """The greatest value above a maximum; below it, the argument whose least value is greatest."""
    above = jnp.maximum(c, 0)
    below = jnp.minimum(c, 0)

    def maximum(v):
        return equation.primitive.bind(v, **equation.params)

    _, transpose = jax.vjp(maximum, x.low)
    coefficients = jax.vmap(lambda part: transpose(part)[0])(below)
    return coefficients, jnp.sum(above * out.high[None], inner_axes(c))
