"""Certified upper bounds: what no image of a domain can exceed, and proofs that a map is dead."""

from oipjax.bounds.certificate import (
    LEVELS,
    Bounds,
    Limits,
    assemble,
    certify,
    hull_limits,
    refine,
    refinement_limits,
    relaxed_images,
    strip_images,
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
    "best_images",
    "certify",
    "crown",
    "hull_limits",
    "intervals",
    "refine",
    "refinement_limits",
    "relaxed_images",
    "strip_images",
    "tighten",
]
