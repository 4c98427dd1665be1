"""Any pure function as a flat list of steps."""

from oipjax.jaxpr.flatten import (
    PIECEWISE,
    Constant,
    Equation,
    Piecewise,
    Program,
    bind,
    in_float64,
    is_crop,
    restricted,
    trace,
    wholes,
)

__all__ = [
    "PIECEWISE",
    "Constant",
    "Equation",
    "Piecewise",
    "Program",
    "bind",
    "in_float64",
    "is_crop",
    "restricted",
    "trace",
    "wholes",
]
