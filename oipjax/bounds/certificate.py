"""Certificates: upper limits of the maps of a layer, and proofs that maps are dead.

A certificate is made by refinements, in a fixed order. Each lives in the package of its family and
says by itself whether it fits a network. A new one is a file there and a line in `REFINEMENTS`.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Integer

from oipjax.bounds.conv.patch_hull import PatchHull
from oipjax.bounds.conv.shared_energy import SharedEnergy
from oipjax.bounds.conv.strip_means import StripMeans
from oipjax.bounds.conv.window_means import WindowMeans
from oipjax.bounds.interval.enclosures import Limits
from oipjax.bounds.interval.scores import Intervals
from oipjax.bounds.linear.crown import LinearRelaxation
from oipjax.bounds.linear.means import ActiveSets
from oipjax.bounds.refinement import LEVELS, Progress, Refinement, State, advance, begin
from oipjax.bounds.results import Bounds
from oipjax.model import Model
from oipjax.spaces import Box, Domain

REFINEMENTS: tuple[Refinement, ...] = (
    PatchHull(),
    SharedEnergy(),
    LinearRelaxation(),
    Intervals(),
    ActiveSets(),
    StripMeans(),
    WindowMeans(),
)
"""In the order in which they are used: limits of nodes, then bounds of all maps, then scores."""

_QUICK_LIMITS: tuple[Refinement, ...] = (PatchHull(splits=2, lower=False), SharedEnergy())


def certify(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    level: str = "cheap",
    progress: Progress | None = None,
) -> Bounds:
    """Upper limits of every map of a layer over a domain.

    Args:
        model: the network.
        layer: name of the layer.
        domain: a `Box` or a `Sphere`: ``space.domain``.
        level: ``cheap`` or ``tight``, see `LEVELS`.
        progress: called with (phase, done, in all).

    Raises:
        ValueError: there is no such layer or level, the domain is of another kind, or the network
            has a primitive without a rule.
    """
    if level not in LEVELS[1:]:
        raise ValueError(f"unknown level of bounds {level!r}; there are {', '.join(LEVELS[1:])}")
    state = begin(model, layer, domain, level=level, progress=progress)
    return _result(advance(state, REFINEMENTS))


def assemble(
    model: Model,
    layer: str,
    domain: Domain,
    limits: Limits | None = None,
    maps: Integer[np.ndarray, " n"] | None = None,
) -> Bounds:
    """The bounds that follow from intervals, sets of active positions, and limits of some layers.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        limits: of `hull_limits`, or other proofs; see `intervals`.
        maps: int ``[n]``, those for which sets of active positions are looked at; all unless given.
    """
    state = begin(model, layer, domain, level="cheap", maps=maps)
    return _result(advance(_with_given(state, limits), REFINEMENTS))


def refine(
    model: Model,
    layer: str,
    domain: Domain,
    maps: Integer[np.ndarray, " n"],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Bounds:
    """Bounds of a few maps that cheap ones do not settle.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        maps: int ``[n]``, indices of the maps.
        limits: of `refinement_limits`, if they are known already.
        progress: called with (phase, done, in all).

    Returns:
        the bounds of these maps, in their order.
    """
    state = begin(model, layer, domain, level="tight", maps=maps, progress=progress)
    limited = advance(state, _QUICK_LIMITS) if limits is None else _with_given(state, limits)
    bounded = advance(replace(limited, level="cheap"), REFINEMENTS)
    return _result(bounded).of(maps)


def refinement_limits(
    model: Model, layer: str, domain: Domain, *, progress: Progress | None = None
) -> Limits:
    """The limits that `refine` starts from; they are the same for all maps."""
    state = begin(model, layer, domain, level="tight", progress=progress)
    return advance(state, _QUICK_LIMITS).limits


def hull_limits(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    splits: int = 4,
    steps: int = 200,
    lower: bool = True,
    progress: Progress | None = None,
) -> Limits:
    """Limits of the second convolution's nodes, by the joint patch hull or the shared energy.

    Args:
        model: the network.
        layer: the layer to be bounded; the second convolution must not come after it.
        domain: the set of images.
        splits: how often a patch's box is cut in two, see `conv.hull.hull_bound`.
        steps: of the hull's search.
        lower: bound nodes from below, too; it hardly ever matters after a ReLU.
        progress: called with ("hull", done, in all).

    Returns:
        the limits by layer; empty where neither fits.
    """
    state = begin(model, layer, domain, level="tight", progress=progress)
    hull = PatchHull(splits=splits, steps=steps, lower=lower)
    return advance(state, (hull, SharedEnergy())).limits


def refine_scores(
    model: Model, bounds: Bounds, domain: Domain, *, progress: Progress | None = None
) -> Bounds:
    """Lower scores of a first or second convolution behind its ReLU, by methods made for them.

    Args:
        model: the network.
        bounds: what is proved so far.
        domain: the set of images.
        progress: called with (phase, done, in all).

    Returns:
        the lower bounds; the given ones where no method fits.
    """
    state = begin(model, bounds.layer, domain, level="tight", progress=progress)
    state = replace(state, bounds=bounds)
    return advance(state, (StripMeans(), WindowMeans())).bounds


def _with_given(state: State, limits: Limits | None) -> State:
    """The state with limits from `hull_limits`."""
    if not limits:
        return state
    source = PatchHull if isinstance(state.domain, Box) else SharedEnergy
    return state.with_limits(limits, source.name)


def _result(state: State) -> Bounds:
    """The bounds, with the reasons of all refinements that did not fit."""
    return replace(state.bounds, reasons=state.reasons)
