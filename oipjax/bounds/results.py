"""What is proved of the maps of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer, Shaped


@dataclass(frozen=True)
class Bounds:
    """Upper limits of every map of a layer over a domain.

    They are valid for exact and for float32 arithmetic.

    Attributes:
        layer: name of the layer.
        score: float64 ``[k]``: no image's score (mean over h, w) is higher.
        node: float64 ``[k]``: no node is higher, before the nonlinearity if the layer has one. For
            a dead map it says how far the map stays below its floor.
        dead: bool ``[k]``: proved that no image lifts any node above the nonlinearity's floor.
        method: str ``[k]``: the refinement that the score's limit comes from.
        reasons: for each refinement that does not fit the network or the domain, by its name, one
            sentence that says why.
    """

    layer: str
    score: Float64[np.ndarray, " k"]
    node: Float64[np.ndarray, " k"]
    dead: Bool[np.ndarray, " k"]
    method: Shaped[np.ndarray, " k"]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def of(self, maps: Integer[np.ndarray, " n"]) -> "Bounds":
        """The bounds of some maps ``[n]``, in their order."""
        return replace(
            self,
            score=self.score[maps],
            node=self.node[maps],
            dead=self.dead[maps],
            method=self.method[maps],
        )

    def with_scores(self, score: Float[np.ndarray, " k"], method: str) -> "Bounds":
        """The bounds with scores ``[k]`` from another method, where those are no higher."""
        is_lower = score <= self.score
        return replace(
            self,
            score=np.minimum(self.score, score),
            method=np.where(is_lower, method, self.method),
        )


def nothing_proved(layer: str, maps: int) -> Bounds:
    """The bounds of a layer of which nothing is known."""
    return Bounds(
        layer=layer,
        score=np.full(maps, np.inf),
        node=np.full(maps, np.inf),
        dead=np.zeros(maps, bool),
        method=np.full(maps, "none"),
    )
