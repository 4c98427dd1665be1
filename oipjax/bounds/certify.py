"""What can be proved of the maps of a layer: how high they can come, and which of them are dead."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oipjax.bounds.intervals import Ends, Limits, checked_domain, intervals
from oipjax.bounds.means import mean_bounds
from oipjax.images import Domain
from oipjax.model import Model

LEVELS = ("none", "cheap", "tight")
"""How hard to try: not at all; intervals and sets of active positions; everything whose shape fits the network."""
INTERVALS, SETS = "intervals", "sets"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bounds:
    """Upper limits of every map of a layer over a domain, valid for exact and for float32 arithmetic.

    Attributes:
        layer: name of the layer.
        score: float64 ``[k]``: no image's score (mean over h, w) is higher.
        node: float64 ``[k]``: no node is higher, before the nonlinearity if the layer has one. Of a dead map it tells
            by how much it fails to wake.
        dead: bool ``[k]``: proved that no image lifts any node above the nonlinearity's floor.
        method: str ``[k]``: where the score's limit comes from.
    """

    layer: str
    score: np.ndarray
    node: np.ndarray
    dead: np.ndarray
    method: np.ndarray


def bounds(
    model: Model, layer: str, domain: Domain, *, level: str = "cheap", progress: Progress | None = None
) -> Bounds:
    """Upper limits of every map of a layer over a domain.

    Args:
        model: the network.
        layer: name of the layer.
        domain: a `Box` or a `Sphere`: ``space.domain``.
        level: ``cheap`` or ``tight``, see `LEVELS`.
        progress: called with (phase, done, in all).

    Raises:
        ValueError: there is no such layer or level, the domain is of another kind, or the network has a primitive
            without a rule.
    """
    checked_domain(domain)
    model.layer(layer)
    if level not in LEVELS[1:]:
        raise ValueError(f"unknown level of bounds {level!r}; there are {', '.join(LEVELS[1:])}")
    return assemble(model, layer, domain)


def assemble(model: Model, layer: str, domain: Domain, limits: Limits | None = None, method: str = "") -> Bounds:
    """The bounds that follow from intervals, sets of active positions, and what is known of some layers.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        limits: what is known, see `intervals.intervals`.
        method: where that comes from.
    """
    facts = model.layer(layer)
    ends = intervals(model, domain, limits)
    high, pre = _highest(ends[layer]), _highest(ends[facts.pre or layer])
    plain = ends[layer].high
    plain = plain.reshape(-1, facts.maps).mean(0)
    score = np.minimum(mean_bounds(model, layer, domain, ends, limits), high)
    dead = np.zeros(facts.maps, bool) if facts.floor is None else high <= facts.floor
    source = np.where(score < plain * (1 - 1e-9), f"{method}{' + ' if method else ''}{SETS}", method or INTERVALS)
    return Bounds(layer, score, pre, dead, source)


def _highest(ends: Ends) -> np.ndarray:
    """``[k]``: the greatest node of each map."""
    return ends.high.reshape(-1, ends.high.shape[-1]).max(0)
