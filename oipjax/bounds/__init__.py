"""Certified upper bounds: what no image of a domain can exceed, and proofs that a map is dead."""

from oipjax.bounds.certificate import (
    LEVELS,
    Bounds,
    Limits,
    assemble,
    band_images,
    bounds,
    harder,
    harder_limits,
    hull_limits,
    relaxed_images,
    tighten,
)
from oipjax.bounds.interval.enclosures import Ends, intervals
from oipjax.bounds.linear.crown import crown
from oipjax.bounds.linear.exact import Optimum, best_images

__all__ = [
    "LEVELS",
    "Bounds",
    "Ends",
    "Limits",
    "Optimum",
    "assemble",
    "band_images",
    "best_images",
    "bounds",
    "crown",
    "harder",
    "harder_limits",
    "hull_limits",
    "intervals",
    "relaxed_images",
    "tighten",
]
