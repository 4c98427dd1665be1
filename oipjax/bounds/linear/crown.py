"""Linear relaxation of a whole network, for any shape of it: CROWN, with slopes that are optimised.

Every node is bounded by a linear function of the image, found by pulling it back through the
network (`backward.pull`): a ReLU that may be on or off lies below its chord and above ``alpha x``
    for any ``alpha`` in [0, 1],
a maximum above each of its arguments and below its greatest value (Zhang et al. 2018,
arXiv:1811.00866; Xu et al. 2021, "Fast and Complete" (alpha-CROWN), arXiv:2011.13824). What has no
line is taken at its interval, and each ReLU's own limits are intervals, so the bound is never
looser than those. The joint patch hull is tighter where it fits.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oipjax.bounds.interval import (
    Interval,
    Limits,
    checked_domain,
    evaluate,
    images_of,
    intervals,
    parameters,
    trace,
)
from oipjax.bounds.interval import limits_by_variable as numbered
from oipjax.bounds.interval import nan_to_inf as opened
from oipjax.bounds.linear.backward import ROUNDING, magnitudes, pull
from oipjax.jaxpr import Equation, Program
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

CHUNK = 128
"""Nodes pulled back at a time."""


def crown(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    steps: int = 10,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Upper bounds of every node of a layer, ``[h, w, k]`` or ``[k]``, in exact arithmetic.

    Args:
        model: the network.
        layer: name of the layer; one before a nonlinearity gains most.
        domain: the set of images.
        steps: of the search for slopes; 1 keeps the first ones.
        limits: what is known of some layers.
        progress: called with (nodes done, nodes).

    Raises:
        ValueError: as `intervals.intervals`, or ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    program, domain = trace(model), checked_domain(domain)
    high = intervals(model, domain, limits, (layer,))[layer].high
    start, bounds = program.variable(model.layers.index(layer)), []
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # optax mixes types
        given = parameters(model), numbered(model, limits)
        for first in range(0, high.size, CHUNK):
            nodes = np.minimum(np.arange(first, first + CHUNK), high.size - 1)
            bounds.append(np.asarray(_chunk(program, domain, start, steps, *given, nodes)))
            if progress is not None:
                progress(min(first + CHUNK, high.size), high.size)
    return np.minimum(np.concatenate(bounds)[: high.size].reshape(high.shape), high)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _chunk(program: Program, domain: Box | Sphere, start: int, steps: int, params, limits, nodes):
    values = evaluate(program, [*params, images_of(domain)], limits=limits)
    values = {
        number: opened(value) if isinstance(value, Interval) else value
        for number, value in values.items()
    }
    shape = values[start].low.shape
    size = magnitudes(program, values)[start].ravel()[nodes]
    specs = jax.nn.one_hot(nodes, int(np.prod(shape)), dtype=jnp.float64).reshape(-1, *shape)

    def upper(slopes):
        """Bounds of the nodes, rounded up."""
        pulled = pull(program, values, start, specs, functools.partial(_lines, slopes))
        return pulled.upper(values) + ROUNDING * size

    slopes: dict[int, Any] = {}
    for equation in program.equations:
        if (number := equation.rectified()) is not None and equation.outputs[0] <= start:
            first = jnp.where(values[number].high > -values[number].low, 1.0, 0.0)
            slopes[equation.outputs[0]] = jnp.broadcast_to(first[None], (len(nodes), *first.shape))
    optimiser = optax.adam(0.2)

    def step(state, _):
        slopes, memory, best = state
        bounds, gradient = jax.value_and_grad(
            lambda s: (lambda b: (jnp.sum(b), b))(upper(s)), has_aux=True
        )(slopes)
        # A norm of nothing has no gradient.
        updates, memory = optimiser.update(jax.tree.map(jnp.nan_to_num, gradient), memory)
        slopes = jax.tree.map(lambda s: jnp.clip(s, 0, 1), optax.apply_updates(slopes, updates))
        return (slopes, memory, jnp.fmin(best, bounds[1])), None

    begin = (slopes, optimiser.init(slopes), jnp.full(len(nodes), jnp.inf))
    return jax.lax.scan(step, begin, None, steps)[0][2]


def _lines(slopes, equation: Equation, c, x, out):
    """A line above each value with a positive coefficient, below each with a negative one; see `backward.Lines`."""
    above, below = jnp.maximum(c, 0), jnp.minimum(c, 0)
    axes = tuple(range(1, c.ndim))
    if equation.rectified() is not None:
        crossing = (x.low < 0) & (x.high > 0)
        chord = jnp.where(
            crossing,
            x.high / jnp.where(crossing, x.high - x.low, 1),
            jnp.where(x.low >= 0, 1.0, 0.0),
        )
        under = jnp.where(crossing[None], slopes[equation.outputs[0]], chord[None])
        return above * chord[None] + below * under, jnp.sum(
            above * jnp.where(crossing, -chord * x.low, 0)[None], axes
        )
    if equation.name in ("reduce_window_max", "reduce_max"):
        # Below: the argument whose least value is greatest.
        _, transpose = jax.vjp(lambda v: equation.primitive.bind(v, **equation.params), x.low)
        return jax.vmap(lambda part: transpose(part)[0])(below), jnp.sum(
            above * out.high[None], axes
        )
    return None
