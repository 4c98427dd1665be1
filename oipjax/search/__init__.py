"""From a key to good images of given targets."""

from oipjax.search.ascent import ascend, ascend_tiles, prepare
from oipjax.search.config import AscentConfig, replace_options, report_steps
from oipjax.search.methods import METHODS, Classic, Method, Momentum
from oipjax.search.precursor import Survey, best_of, check_draws, responses, survey
from oipjax.search.results import (
    COMPLETED,
    CONVERGED,
    INACTIVE,
    NOT_FINITE,
    STATUS,
    Ascent,
    concatenate,
    continued,
)
from oipjax.search.starts import Starts, checked_start_numbers, images_of, make_starts

__all__ = [
    "COMPLETED",
    "CONVERGED",
    "INACTIVE",
    "METHODS",
    "NOT_FINITE",
    "STATUS",
    "Ascent",
    "AscentConfig",
    "Classic",
    "Method",
    "Momentum",
    "Starts",
    "Survey",
    "ascend",
    "ascend_tiles",
    "best_of",
    "check_draws",
    "checked_start_numbers",
    "concatenate",
    "continued",
    "images_of",
    "make_starts",
    "prepare",
    "replace_options",
    "report_steps",
    "responses",
    "survey",
]
