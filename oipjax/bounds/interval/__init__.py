"""Enclosures of every value of a network, for all images at once."""

from oipjax.bounds.interval.enclosures import (
    Ends,
    Limits,
    box_ends,
    checked_domain,
    images_of,
    intervals,
    limits_by_variable,
    sphere_norm,
)
from oipjax.bounds.interval.evaluation import evaluate, value_of
from oipjax.bounds.interval.network import parameters, trace
from oipjax.bounds.interval.products import PRODUCTS
from oipjax.bounds.interval.rules import MOVES
from oipjax.bounds.interval.values import (
    TINY,
    Choice,
    Interval,
    Known,
    exact_value,
    gamma,
    nan_to_inf,
)

__all__ = [
    "MOVES",
    "PRODUCTS",
    "TINY",
    "Choice",
    "Ends",
    "Interval",
    "Known",
    "Limits",
    "box_ends",
    "checked_domain",
    "evaluate",
    "exact_value",
    "gamma",
    "images_of",
    "intervals",
    "limits_by_variable",
    "nan_to_inf",
    "parameters",
    "sphere_norm",
    "trace",
    "value_of",
]
