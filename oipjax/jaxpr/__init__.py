"""Any pure function as a flat list of steps."""

from oipjax.jaxpr.evaluate import as_float64, bind, evaluate_step, in_float64
from oipjax.jaxpr.flatten import flatten_apply, flatten_jaxpr
from oipjax.jaxpr.originals import is_crop, original_variables
from oipjax.jaxpr.piecewise import PIECEWISE, Piecewise
from oipjax.jaxpr.program import Constant, Equation, Program, Reference, Shape, restrict

__all__ = [
    "PIECEWISE",
    "Constant",
    "Equation",
    "Piecewise",
    "Program",
    "Reference",
    "Shape",
    "as_float64",
    "bind",
    "evaluate_step",
    "flatten_apply",
    "flatten_jaxpr",
    "in_float64",
    "is_crop",
    "original_variables",
    "restrict",
]
