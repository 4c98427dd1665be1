"""A program run on enclosures: every step by its rule, steps on parameters alone in float64."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from oipjax.bounds.interval.choices import choose
from oipjax.bounds.interval.products import PRODUCTS
from oipjax.bounds.interval.rules import MOVES, RULES, UNROUNDED
from oipjax.bounds.interval.transcendental import check_merges
from oipjax.bounds.interval.values import (
    ROUNDOFF,
    TINY,
    Choice,
    Interval,
    Known,
    as_interval,
    exact_value,
    is_floating,
    saturate,
)
from oipjax.jaxpr import (
    PIECEWISE,
    Constant,
    Equation,
    Piecewise,
    Program,
    Reference,
    Shape,
    as_float64,
    evaluate_step,
    original_variables,
)

LARGEST_INTEGER = 2**24
"""Smaller integers are float32 numbers."""


def evaluate(
    program: Program,
    given: list[Any],
    decided: Mapping[int, Any] | None = None,
    limits: Mapping[int, tuple[Array, Array]] | None = None,
) -> dict[int, Any]:
    """Run a program on arrays and intervals.

    Args:
        program: the program.
        given: values of its inputs.
        decided: values of other variables that are known already.
        limits: for variables by number, ends ``(low, high)`` of their exact values that were proved
            elsewhere.

    Returns:
        the value of every variable, by its number.

    Raises:
        ValueError: there is no rule for a primitive; the message names it.
    """
    check_merges(program)
    decided = decided if decided is not None else {}
    limits = limits if limits is not None else {}
    values: dict[int, Any] = dict(zip(program.inputs, given, strict=True))
    for equation in program.equations:
        output = equation.outputs[0]
        original = _known_original(program, values, output)
        if output in decided:
            values[output] = decided[output]
        elif original is not None:
            values[output] = _leading_part(original, program.shapes[output])
        else:
            inputs = [value_of(values, reference) for reference in equation.inputs]
            values.update(zip(equation.outputs, apply_rule(equation, inputs), strict=True))
        if output in limits:
            low, high = limits[output]
            values[output] = _cut_to_limits(values[output], low, high)
    return values


def _known_original(program: Program, values: Mapping[int, Any], number: int) -> Interval | None:
    """The interval of an earlier variable that a variable repeats, or is the leading part of."""
    original = original_variables(program)[number]
    value = values.get(original)
    if original == number or not isinstance(value, Interval):
        return None
    return value if fits_in(program.shapes[number], program.shapes[original]) else None


def fits_in(part: Shape, whole: Shape) -> bool:
    """Whether no side of a shape is longer than that of another one."""
    return all(least <= most for least, most in zip(part, whole, strict=False))


def _leading_part(value: Interval, shape: Shape) -> Interval:
    """The leading part of an interval. The network may round its own leading part otherwise."""

    def part(whole: Array) -> Array:
        return lax.slice(whole, (0,) * len(shape), shape)

    return Interval(
        low=part(value.low),
        high=part(value.high),
        error=part(value.error),
        linear=value.linear.map(part) if value.linear is not None else None,
    )


def _cut_to_limits(value: Interval, low: Array, high: Array) -> Interval:
    return saturate(
        value._replace(
            low=jnp.maximum(value.low, low - value.error),
            high=jnp.minimum(value.high, high + value.error),
        )
    )


def value_of(values: Mapping[int, Any], reference: Reference) -> Any:
    """The value of a reference; arrays of floating numbers become float64."""
    value = reference.value if isinstance(reference, Constant) else values[reference]
    if isinstance(value, Interval | Choice | Known):
        return value
    return as_float64(value)


def apply_rule(equation: Equation, inputs: list[Any]) -> list[Any]:
    """The outputs of one step for inputs that are arrays, known numbers, intervals or choices."""
    if not any(isinstance(value, Interval | Choice) for value in inputs):
        return _apply_to_parameters(equation, inputs)
    if equation.name == PIECEWISE:
        (unknown,) = [value for value in inputs if isinstance(value, Interval)]
        return [_apply_piecewise(equation.params["piecewise"], unknown)]
    return [_apply_primitive(equation, inputs)]


def _apply_primitive(equation: Equation, inputs: list[Any]) -> Interval | Choice:
    if equation.name not in RULES:
        known = ", ".join(sorted(RULES))
        raise ValueError(
            f"no bound is known for the primitive {equation.name!r}; there are rules for {known}"
        )
    out = RULES[equation.name](equation, *inputs)
    return out if equation.name in MOVES else saturate(out)


def _apply_to_parameters(equation: Equation, inputs: list[Any]) -> list[Any]:
    """The exact outputs of a step on parameters alone, with the error of the rounded ones."""
    out = evaluate_step(equation, [exact_value(value) for value in inputs])
    is_float = all(is_floating(value) for value in out)
    is_exact = not any(isinstance(value, Known) for value in inputs)
    from_integers = not any(is_floating(exact_value(value)) for value in inputs)
    if equation.name == "convert_element_type" and is_float and from_integers:
        return [_rounded_integers(value) for value in out]
    if is_exact and (not is_float or equation.name in UNROUNDED):
        return out
    if equation.name == PIECEWISE:
        (variable,) = [
            value
            for value, reference in zip(inputs, equation.inputs, strict=True)
            if not isinstance(reference, Constant)
        ]
        found = _apply_piecewise(equation.params["piecewise"], as_interval(variable))
    else:
        found = _apply_primitive(equation, _as_rule_inputs(equation, inputs))
    return [Known(out[0], found.error)] if isinstance(found, Interval) else [found]


def _rounded_integers(value: Array) -> Known:
    is_exact = jnp.abs(value) < LARGEST_INTEGER
    return Known(value, jnp.where(is_exact, 0.0, ROUNDOFF * jnp.abs(value)))


def _as_rule_inputs(equation: Equation, inputs: list[Any]) -> list[Any]:
    """Parameters as intervals, so that a rule can be applied to them.

    The second factor of a product stays as it is.
    """
    out = []
    for index, value in enumerate(inputs):
        is_kept = index > 0 and equation.name in PRODUCTS
        if is_kept or not is_floating(exact_value(value)):
            out.append(value)
        else:
            out.append(saturate(as_interval(value)))
    return out


def _apply_piecewise(piecewise: Piecewise, a: Interval) -> Interval:
    """A function in two pieces, one on either side. The threshold itself belongs to both."""
    threshold = piecewise.threshold
    above = _apply_piece(
        piecewise,
        Interval(jnp.maximum(a.low, threshold), jnp.maximum(a.high, threshold), a.error),
        is_above=True,
    )
    below = _apply_piece(
        piecewise,
        Interval(jnp.minimum(a.low, threshold), jnp.minimum(a.high, threshold), a.error),
        is_above=False,
    )
    only_above = a.low > threshold + TINY
    only_below = a.high < threshold - TINY
    out = choose(only_above, only_below, above, below)
    may_be_nan = jnp.isnan(a.low)  # NaN is on neither side.
    low = jnp.where(may_be_nan, jnp.nan, out.low)
    high = jnp.where(may_be_nan, jnp.nan, out.high)
    return saturate(Interval(low, high, out.error))


def _apply_piece(piecewise: Piecewise, a: Interval, *, is_above: bool) -> Interval:
    """The function on one side of the threshold."""
    body = piecewise.body
    decided = {}
    for number, value_above in piecewise.sides.items():
        decided[number] = jnp.full(a.low.shape, is_above == value_above)
    values = evaluate(body, [a], decided)
    return as_interval(value_of(values, body.outputs[0]))
