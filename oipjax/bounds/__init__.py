"""Certified upper bounds: what no image of a domain can exceed, and proofs that a map is dead."""

from oipjax.bounds.certificate import (
    REFINEMENTS,
    assemble,
    certify,
    hull_limits,
    refine,
    refine_scores,
    refinement_limits,
)
from oipjax.bounds.conv.starts import relaxed_images, strip_images
from oipjax.bounds.interval.enclosures import Ends, Limits, intervals
from oipjax.bounds.linear.crown import crown
from oipjax.bounds.linear.exact import Optimum, best_images
from oipjax.bounds.refinement import LEVELS, Refinement, State
from oipjax.bounds.results import Bounds

__all__ = [
    "LEVELS",
    "REFINEMENTS",
    "Bounds",
    "Ends",
    "Limits",
    "Optimum",
    "Refinement",
    "State",
    "assemble",
    "best_images",
    "certify",
    "crown",
    "hull_limits",
    "intervals",
    "refine",
    "refine_scores",
    "refinement_limits",
    "relaxed_images",
    "strip_images",
]
