"""Limits of scores that follow from the intervals of a layer's nodes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.interval.enclosures import Ends, intervals
from oipjax.bounds.interval.values import TINY, gamma
from oipjax.bounds.refinement import State
from oipjax.spaces import Box, Sphere


@dataclass(frozen=True)
class Intervals:
    """Between which values every node lies: the bounds that all others start from."""

    name: ClassVar[str] = "intervals"
    level: ClassVar[str] = "cheap"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """None: intervals are known for every network all of whose primitives have a rule."""
        return None

    def refine(self, state: State) -> State:
        """Bounds of all maps, from the highest ends of their nodes.

        Raises:
            ValueError: the network has a primitive without a rule.
        """
        layer = state.stack.layer
        target = state.stack.target
        names = tuple(dict.fromkeys((state.layer, target)))
        ends = intervals(state.model, state.domain, state.placed_limits, names)
        highest = highest_nodes(ends[state.layer])
        no_map = np.zeros(layer.maps, bool)
        from_mean = computed_mean(mean_of_nodes(ends[state.layer]), ends[state.layer])
        from_highest = computed_mean(highest, ends[state.layer])
        method = state.limited_by if state.limited_by else self.name
        bounds = replace(
            state.bounds,
            score=np.minimum(from_mean, from_highest),
            node=highest_nodes(ends[target]),
            dead=no_map if layer.floor is None else highest <= layer.floor,
            method=np.full(layer.maps, method),
        )
        return replace(state, ends=ends, bounds=bounds)


def highest_nodes(ends: Ends) -> np.ndarray:
    """``[k]``: the highest end of each map's nodes."""
    return ends.high.reshape(-1, ends.high.shape[-1]).max(0)


def lowest_nodes(ends: Ends) -> np.ndarray:
    """``[k]``: the lowest end of each map's nodes."""
    return ends.low.reshape(-1, ends.low.shape[-1]).min(0)


def mean_of_nodes(ends: Ends) -> np.ndarray:
    """``[k]``: the mean of the upper ends of each map's nodes."""
    return ends.high if ends.high.ndim == 1 else ends.high.mean((0, 1))


def computed_mean(limit: np.ndarray, ends: Ends) -> np.ndarray:
    """The highest values ``[k]`` of maps' means in float32.

    Args:
        limit: ``[k]``, the highest mean of the computed nodes in exact arithmetic.
        ends: of the nodes, ``[h, w, k]`` or ``[k]``. The rounding of a sum is a share of the sum of
            their magnitudes.
    """
    if ends.high.ndim == 1:
        return limit
    magnitude = np.maximum(np.abs(ends.low), np.abs(ends.high)).mean((0, 1))
    # The magnitudes of nodes that are not negative sum to their sum.
    is_positive = (ends.low >= 0).all((0, 1))
    magnitude = np.where(is_positive, np.abs(limit), magnitude)
    count = ends.high.shape[0] * ends.high.shape[1]
    rounding = gamma(count + 1) * magnitude + count * TINY
    return limit + np.where(magnitude > 0, rounding, 0)


def computed_score(state: State, mean: np.ndarray) -> np.ndarray:
    """The highest scores ``[k]`` in float32, for limits ``mean [k]`` of the exact scores."""
    ends = intervals(state.model, state.domain, layers=(state.layer,))[state.layer]
    return computed_mean(mean + ends.error.max((0, 1)), ends)
