"""Elementwise functions in two pieces, such as ELU: a bound looks at each piece by itself."""

from typing import NamedTuple

import numpy as np
from jax.extend import core

from oipjax.jaxpr.program import Constant, Program, Reference

PIECEWISE = "piecewise"
"""The name of a step that is a whole `Piecewise` function."""
COMPARISONS = {"ge": True, "gt": True, "le": False, "lt": False}
"""Comparison -> its result for a value far above the number it is compared with."""
TAKE_THRESHOLD_ABOVE = ("ge", "lt")
"""Comparisons with the same result for the number itself as for the values above it."""
ELEMENTWISE = (
    "add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "square", "integer_pow",
    "sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf",
    "sin", "cos", "sinh", "atan", "asinh", "select_n", "clamp", "gt", "ge", "lt", "le", "eq",
    "ne", "and", "or", "not", "is_finite", "convert_element_type", "copy", "copy_p",
    "stop_gradient",
)  # fmt: skip
"""Primitives each of whose results depends on one entry of each of its arguments."""


class Piecewise(NamedTuple):
    """An elementwise function of one variable that compares its argument with one threshold.

    Attributes:
        body: the function.
        threshold: the number that the argument is compared with.
        sides: {number of a comparison's output in ``body``: its value above the threshold}. All
            comparisons put the threshold itself on the same side.
    """

    body: Program
    threshold: float
    sides: dict[int, bool]


def find_threshold(jaxpr, inputs: tuple[Reference, ...]) -> float | None:
    """The one number that a function of one variable compares its argument with.

    Args:
        jaxpr: of the function.
        inputs: what the function is called with.

    Returns:
        the number, or None if there is none or there are several.
    """
    given = dict(zip(jaxpr.invars, inputs, strict=True))
    variables = [var for var, value in given.items() if not isinstance(value, Constant)]
    if len(variables) != 1 or len(jaxpr.outvars) != 1:
        return None
    argument = variables[0]
    if jaxpr.outvars[0].aval.shape != argument.aval.shape:
        return None
    thresholds = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in COMPARISONS and equation.invars[0] is argument:
            atom = equation.invars[1]
            is_literal = isinstance(atom, core.Literal)
            thresholds.add(_number(as_constant(atom) if is_literal else given.get(atom)))
    return thresholds.pop() if len(thresholds) == 1 else None


def as_piecewise(body: Program, threshold: float) -> Piecewise | None:
    """A function as one in two pieces; None if it is not elementwise or the pieces are not clear.

    Args:
        body: the function, of one variable.
        threshold: from `find_threshold`.
    """
    argument = body.inputs[0]
    tests = []
    for equation in body.equations:
        is_test = equation.name in COMPARISONS and equation.inputs[0] == argument
        if is_test and _number(equation.inputs[1]) == threshold:
            tests.append(equation)
    threshold_is_above = {equation.name in TAKE_THRESHOLD_ABOVE for equation in tests}
    if len(threshold_is_above) != 1 or not _is_elementwise(body):
        return None
    sides = {equation.outputs[0]: COMPARISONS[equation.name] for equation in tests}
    return Piecewise(body, threshold, sides)


def as_constant(literal) -> Constant:
    """A number of a jaxpr, rounded to its type as the program has it."""
    return Constant(np.asarray(literal.val, literal.aval.dtype))


def _is_elementwise(body: Program) -> bool:
    """Whether each entry of the output depends on the same entry of the input alone."""
    shape = body.shapes[body.inputs[0]]
    dependent = set(body.inputs)
    for equation in body.equations:
        if dependent.isdisjoint(equation.variables):
            continue
        if equation.name not in (*ELEMENTWISE, PIECEWISE):
            return False
        if any(body.shapes[number] != shape for number in equation.outputs):
            return False
        dependent.update(equation.outputs)
    output = body.outputs[0]
    return not isinstance(output, Constant) and output in dependent


def _number(reference: Reference | None) -> float | None:
    """The value of a constant that is one number; None for anything else."""
    if not isinstance(reference, Constant) or np.ndim(reference.value) != 0:
        return None
    return float(reference.value)
