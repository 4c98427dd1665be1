"""Upper bounds of a map's mean over its positions, which is its score.

The mean of a ReLU over ``n`` positions is the greatest of ``sum over S of pre / n`` over all sets
``S`` of active positions. Each of these is linear in the layer below, where it is bounded as a
whole: a value that helps one position and harms another is counted once, not at its best for each.
    Sets are listed for blocks of up to 3x3 positions; blocks
add up.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.bounds.interval import (
    TINY,
    Ends,
    Limits,
    checked_domain,
    evaluate,
    gamma,
    images_of,
    parameters,
    trace,
)
from oipjax.bounds.interval import limits_by_variable as numbered
from oipjax.bounds.linear.backward import ROUNDING, magnitudes, pull
from oipjax.jaxpr import Program
from oipjax.jaxpr import restrict as restricted
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

BLOCK = 3
"""Side of a block, in positions."""
MAPS = 32
"""At a time; fewer are filled up, so that one program serves for all maps and for a few."""
MOST_POSITIONS = 1024
"""Above that many the mean of the nodes' bounds has to do."""


def mean_bounds(
    model: Model,
    layer: str,
    domain: Domain,
    ends: dict[str, Ends],
    limits: Limits | None = None,
    maps: np.ndarray | None = None,
) -> np.ndarray:
    """Upper bounds ``[k]`` of every map's mean over h and w, as computed in float32.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        ends: of all layers, from `intervals.intervals` with the same limits.
        limits: what is known of some layers.
        maps: int ``[n]``, those that matter; the others get the mean of their nodes' bounds.
    """
    high = ends[layer].high
    if high.ndim == 1:
        return high
    positions = high.shape[0] * high.shape[1]
    plain = computed(high.mean((0, 1)), ends[layer])
    program = trace(model)
    made = program.made(program.variable(model.layers.index(layer)))
    pre = made and made.rectified()
    if pre is None or positions > MOST_POSITIONS:
        return plain
    maps = np.arange(high.shape[2]) if maps is None else maps
    sums = np.zeros(len(maps))
    groups = [slice(first, first + MAPS) for first in range(0, len(maps), MAPS)]
    with jax.enable_x64(True):
        given = (
            restricted(program, frozenset({pre})),
            checked_domain(domain),
            pre,
            parameters(model),
            numbered(model, limits),
        )
        for places in itertools.product(*(_blocks(size) for size in high.shape[:2])):
            for some in groups:
                sums[some] += _block(
                    *given, list(itertools.product(*places)), high.shape, maps[some]
                )
    means = plain.copy()
    means[maps] = sums / positions + ends[layer].error.max((0, 1))[maps]
    return np.fmin(plain, computed(means, ends[layer]))


def computed(limit: np.ndarray, ends: Ends) -> np.ndarray:
    """What the float32 mean of a map's nodes can come to, the mean of the computed nodes being ``limit`` at most.

    Args:
        limit: ``[k]``.
        ends: of the nodes, ``[h, w, k]`` or ``[k]``; what a sum loses is a share of the sum of
            their magnitudes.
    """
    if ends.high.ndim == 1:
        return limit
    magnitude = np.maximum(np.abs(ends.low), np.abs(ends.high)).mean((0, 1))
    # The magnitudes of nodes that are not negative sum to their sum.
    magnitude = np.where((ends.low >= 0).all((0, 1)), np.abs(limit), magnitude)
    count = ends.high.shape[0] * ends.high.shape[1]
    return limit + np.where(magnitude > 0, gamma(count + 1) * magnitude + count * TINY, 0)


def _blocks(size: int) -> list[range]:
    return [range(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]


def _block(program: Program, domain, pre, params, limits, places, shape, maps) -> np.ndarray:
    """The greatest sums ``[n]`` of a block's active nodes, over all sets of them, for some maps."""
    count = min(MAPS, shape[2])
    maps = np.resize(asked := maps, count)
    specs = np.zeros((BLOCK**2, count, 1, *shape))
    for index, (i, j) in enumerate(places):
        specs[index, np.arange(count), 0, i, j, maps] = 1
    offset, parts, size = _pulled(
        program, domain, pre, params, limits, specs.reshape(-1, 1, *shape)
    )
    sets = np.array(list(itertools.product((0.0, 1.0), repeat=len(places))))
    total = sets @ np.asarray(offset).reshape(BLOCK**2, count)[: len(places)]
    for c, low, high in parts:
        c = np.asarray(c).reshape(BLOCK**2, count, -1)[: len(places)]
        seen = np.flatnonzero(np.any(c != 0, (0, 1)))
        total = total + np.asarray(
            _sets(sets, c[..., seen], np.ravel(low)[seen], np.ravel(high)[seen])
        )
    return (total.max(0) + ROUNDING * sum(np.asarray(size)[0, i, j, maps] for i, j in places))[
        : len(asked)
    ]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pulled(program: Program, domain: Box | Sphere, pre: int, params, limits, specs):
    values = evaluate(program, [*params, images_of(domain)], limits=limits)
    pulled = pull(program, values, pre, specs)
    parts = [
        (c, values[number].low, values[number].high) for number, c in pulled.coefficients.items()
    ]
    return pulled.offset, parts, magnitudes(program, values)[pre]


@jax.jit
def _sets(sets, c, low, high):
    """Greatest values ``[sets, k]`` of the sets' sums; ``c`` is ``[places, k, values]``."""

    def of_map(c):
        together = sets @ c
        return jnp.maximum(together, 0) @ high + jnp.minimum(together, 0) @ low

    return jax.lax.map(of_map, jnp.moveaxis(c, 1, 0)).T
