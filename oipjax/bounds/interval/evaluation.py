"""A program run on enclosures: every step by its rule, what depends on parameters alone in float64."""

import operator
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from oipjax.bounds.interval.products import PRODUCTS
from oipjax.bounds.interval.rules import MOVES, RULES, UNROUNDED
from oipjax.bounds.interval.values import (
    ROUNDOFF,
    TINY,
    Choice,
    Interval,
    Known,
    exact,
    lift,
    settled,
)
from oipjax.jaxpr import PIECEWISE, Constant, Equation, Piecewise, Program, in_float64, wholes


def evaluate(
    program: Program,
    given: list[Any],
    decided: Mapping[int, Any] | None = None,
    limits: Mapping[int, tuple[Array, Array]] | None = None,
) -> dict[int, Any]:
    """Run a program on arrays and intervals.

    Args:
        program: what to run.
        given: values of its inputs.
        decided: values of other variables that are known already.
        limits: for variables by number, ends ``(low, high)`` of their exact values that were proved
            elsewhere.

    Returns:
        the value of every variable, by its number.

    Raises:
        ValueError: there is no rule for a primitive; the message names it.
    """
    values: dict[int, Any] = dict(zip(program.inputs, given, strict=True))
    whole, shapes = wholes(program), program.shapes
    for equation in program.equations:
        first = equation.outputs[0]
        same = whole[first] != first and isinstance(values.get(whole[first]), Interval)
        if decided and first in decided:
            values[first] = decided[first]
        elif same and all(map(operator.le, shapes[first], shapes[whole[first]])):
            values[first] = _leading(values[whole[first]], shapes[first])
        else:
            out = advance(equation, [read(values, reference) for reference in equation.inputs])
            values.update(zip(equation.outputs, out, strict=True))
        if limits and equation.outputs[0] in limits:
            values[equation.outputs[0]] = _limited(
                values[equation.outputs[0]], *limits[equation.outputs[0]]
            )
    return values


def _leading(value: Interval, shape: tuple[int, ...]) -> Interval:
    """The leading part of what is known already; it is computed again in the network, and may round otherwise."""

    def part(each: Array) -> Array:
        return lax.slice(each, (0,) * len(shape), shape)

    return Interval(
        part(value.low),
        part(value.high),
        part(value.error),
        value.linear and value.linear.map(part),
    )


def _limited(value: Interval, low: Array, high: Array) -> Interval:
    low, high = (
        jnp.maximum(value.low, low - value.error),
        jnp.minimum(value.high, high + value.error),
    )
    return settled(value._replace(low=low, high=high))


def read(values: Mapping[int, Any], reference) -> Any:
    """The value of a reference; floating numbers become float64, as everything here."""
    value = reference.value if isinstance(reference, Constant) else values[reference]
    if isinstance(value, Interval | Choice | Known):
        return value
    value = jnp.asarray(value)
    return value.astype(jnp.float64) if jnp.issubdtype(value.dtype, jnp.floating) else value


def advance(equation: Equation, inputs: list[Any]) -> list[Any]:
    """The outputs of one step for inputs that are arrays, known numbers, intervals or choices."""
    if not any(isinstance(value, Interval | Choice) for value in inputs):
        return _without_image(equation, inputs)
    if equation.name == PIECEWISE:
        (unknown,) = (value for value in inputs if isinstance(value, Interval))
        return [settled(_in_two_pieces(equation.params["piecewise"], unknown))]
    return [_apply(equation, inputs)]


def _apply(equation: Equation, inputs: list[Any]):
    """The rule of the step."""
    if equation.name not in RULES:
        known = ", ".join(sorted(RULES))
        raise ValueError(
            f"no bound is known for the primitive {equation.name!r}; there are rules for {known}"
        )
    out = RULES[equation.name](equation, *inputs)
    return out if equation.name in MOVES else settled(out)


def _without_image(equation: Equation, inputs: list[Any]) -> list[Any]:
    """What is computed from parameters alone: exactly, and how far the rounded value may be from that."""
    out = exactly(equation, [exact(value) for value in inputs])
    floating = all(jnp.issubdtype(each.dtype, jnp.floating) for each in out)
    integer = all(not jnp.issubdtype(exact(value).dtype, jnp.floating) for value in inputs)
    if equation.name == "convert_element_type" and floating and integer:
        return [
            Known(each, jnp.where(jnp.abs(each) < 2**24, 0.0, ROUNDOFF * jnp.abs(each)))
            for each in out
        ]
    if not any(isinstance(value, Known) for value in inputs) and (
        not floating or equation.name in UNROUNDED
    ):
        return out
    if equation.name == PIECEWISE:
        (variable,) = _variables(equation, inputs)
        found = settled(_in_two_pieces(equation.params["piecewise"], lift(variable)))
    else:
        # The second factor of a product may stay what it is, all others become intervals.
        kept = inputs[1:] if equation.name in PRODUCTS else []
        lifted = [lift(v) if jnp.issubdtype(exact(v).dtype, jnp.floating) else v for v in inputs]
        found = _apply(equation, [*lifted[: len(inputs) - len(kept)], *kept])
    return [Known(out[0], found.error)] if isinstance(found, Interval) else [found]


def exactly(equation: Equation, inputs: list[Any]) -> list[Any]:
    """The outputs of one step for arrays, in float64 and without rounding."""
    if equation.name == PIECEWISE:
        body, given = equation.params["piecewise"].body, _variables(equation, inputs)
        values = dict(zip(body.inputs, given, strict=True))
        for each in body.equations:
            values.update(
                zip(
                    each.outputs,
                    exactly(each, [read(values, ref) for ref in each.inputs]),
                    strict=True,
                )
            )
        return [read(values, body.outputs[0])]
    out = equation.primitive.bind(*inputs, **in_float64(equation.params))
    return list(out) if equation.primitive.multiple_results else [out]


def _variables(equation: Equation, inputs: list[Any]) -> list[Any]:
    return [
        value
        for value, ref in zip(inputs, equation.inputs, strict=True)
        if not isinstance(ref, Constant)
    ]


def _in_two_pieces(piecewise: Piecewise, a: Interval) -> Interval:
    """A function that looks at one threshold, on both sides of it; the threshold itself belongs to both."""
    at = piecewise.threshold

    def side(low, high, above):
        decided = {
            number: jnp.full(low.shape, above == truth) for number, truth in piecewise.sides.items()
        }
        values = evaluate(piecewise.body, [Interval(low, high, a.error)], decided)
        return lift(read(values, piecewise.body.outputs[0]))

    above = side(jnp.maximum(a.low, at), jnp.maximum(a.high, at), True)
    below = side(jnp.minimum(a.low, at), jnp.minimum(a.high, at), False)
    only_above, only_below = a.low > at + TINY, a.high < at - TINY

    def joined(end, join):
        value = jnp.where(
            only_above, above[end], jnp.where(only_below, below[end], join(above[end], below[end]))
        )
        return jnp.where(jnp.isnan(a.low), jnp.nan, value)  # NaN is on neither side

    error = jnp.where(only_above, above.error, jnp.where(only_below, below.error, jnp.inf))
    return Interval(joined(0, jnp.minimum), joined(1, jnp.maximum), error)
