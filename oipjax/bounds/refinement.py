"""Refinements, which each lower what is proved of a layer, and the state that they share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Integer

from oipjax.bounds.conv.chain import Stack, recognise
from oipjax.bounds.interval.enclosures import Ends, Limits, checked_domain
from oipjax.bounds.results import Bounds, nothing_proved
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

LEVELS = ("none", "cheap", "tight")
"""How hard to try: not at all; intervals and active positions; all that fits the network."""

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, in all)."""


@dataclass(frozen=True, eq=False)
class State:
    """All that is known of a layer at one point of a certificate.

    Attributes:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        level: how hard to try, one of `LEVELS`.
        stack: what is recognised of the network up to the layer.
        bounds: limits of the maps; infinite as long as nothing is proved.
        limits: ends that are proved for the nodes of some layers.
        limited_by: name of the refinement that the limits come from; empty if there are none.
        ends: intervals of the layer and of the one before its nonlinearity, once they are known.
        maps: int ``[n]``, the maps whose scores are looked at closely; all if None.
        reasons: why refinements do not fit, by their names.
        progress: called with (phase, done, in all); None for nobody.
    """

    model: Model
    layer: str
    domain: Box | Sphere
    level: str
    stack: Stack
    bounds: Bounds
    limits: Limits = field(default_factory=dict)
    limited_by: str = ""
    ends: Mapping[str, Ends] = field(default_factory=dict)
    maps: Integer[np.ndarray, " n"] | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None

    @property
    def box(self) -> Box:
        """The domain of a refinement that needs a box."""
        if not isinstance(self.domain, Box):
            raise ValueError(f"expected a Box, got a {type(self.domain).__name__}")
        return self.domain

    @property
    def sphere(self) -> Sphere:
        """The domain of a refinement that needs standardised images."""
        if not isinstance(self.domain, Sphere):
            raise ValueError(f"expected a Sphere, got a {type(self.domain).__name__}")
        return self.domain

    @property
    def placed_limits(self) -> Limits:
        """The limits, and infinite ends for the second convolution if it has no limits.

        A program is compiled for the layers that have limits. With infinite ends one program serves
        before and after the second convolution is limited.
        """
        if len(self.stack.longest) < 2:
            return self.limits
        unlimited = (np.array(-np.inf), np.array(np.inf))
        return {self.stack.longest[1].layer: unlimited, **self.limits}

    def with_limits(self, limits: Limits, limited_by: str) -> "State":
        """The state with more limits."""
        together = {**self.limits, **limits}
        return replace(self, limits=together, limited_by=limited_by)

    def report(self, phase: str) -> Callable[[int, int], None]:
        """A function of (done, in all) that passes on how far a phase has come."""

        def report_phase(done: int, total: int):
            if self.progress is not None:
                self.progress(phase, done, total)

        return report_phase


class Refinement(Protocol):
    """One step that may lower what is proved; a frozen value.

    Attributes:
        name: for `Bounds.method`, `Bounds.reasons` and the phase in a progress bar.
        level: the lowest of `LEVELS` at which it is used.
    """

    name: ClassVar[str]
    level: ClassVar[str]

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """None if it fits the stack and the domain, else one sentence that says why not."""
        ...

    def refine(self, state: State) -> State:
        """The state with better limits or bounds; it is called only where `fits` gives None."""
        ...


def begin(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    level: str,
    maps: Integer[np.ndarray, " n"] | None = None,
    progress: Progress | None = None,
) -> State:
    """The state in which nothing is proved yet.

    Raises:
        ValueError: there is no such layer, or the domain is neither a `Box` nor a `Sphere`.
    """
    known_domain = checked_domain(domain)
    stack = recognise(model, layer)
    return State(
        model=model,
        layer=layer,
        domain=known_domain,
        level=level,
        stack=stack,
        bounds=nothing_proved(layer, stack.layer.maps),
        maps=maps,
        progress=progress,
    )


def advance(state: State, refinements: Iterable[Refinement]) -> State:
    """The state after all refinements of its level that fit, in their order."""
    highest = LEVELS.index(state.level)
    for refinement in refinements:
        if LEVELS.index(refinement.level) > highest:
            continue
        reason = refinement.fits(state.stack, state.domain)
        if reason is None:
            state = refinement.refine(state)
        else:
            state = replace(state, reasons={**state.reasons, refinement.name: reason})
    return state
