"""Certified upper bounds: what no image of a domain can exceed, and proofs that a map is dead."""

from oipjax.bounds.certify import (
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
from oipjax.bounds.crown import crown
from oipjax.bounds.exact import Optimum, best_images
from oipjax.bounds.intervals import Ends, intervals

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
