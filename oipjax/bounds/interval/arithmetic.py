"""Rules of sums, elementwise products, quotients and powers, maxima and roundings to integers."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.bounds.interval.values import (
    LARGEST,
    ROUNDOFF,
    TINY,
    Interval,
    Known,
    Linear,
    add_rounding,
    as_interval,
    exact_value,
    gamma,
    round_once,
    saturate,
)
from oipjax.jaxpr import Equation, bind

MOST_POWER = 2**16
"""Higher powers have no rule."""


def add(equation: Equation, a, b) -> Interval:
    """A sum or a difference."""
    is_sum = equation.name != "sub"
    linear = _linear_sum(a, b, 1 if is_sum else -1)
    first = as_interval(a)
    second = as_interval(b)
    if is_sum:
        low = first.low + second.low
        high = first.high + second.high
    else:
        low = first.low - second.high
        high = first.high - second.low
    return round_once(low, high, first.error + second.error, linear)


def _linear_sum(a, b, sign: int) -> Linear | None:
    """The linear part of ``a + sign * b``, if only one of both depends on the image."""
    if not isinstance(b, Interval) and a.linear is not None:
        own = a.linear
        offset = own.offset + sign * exact_value(b)
        return own.of(offset, own.total, own.square, distinct=offset.shape == a.low.shape)
    if not isinstance(a, Interval) and b.linear is not None:
        own = b.linear
        offset = exact_value(a) + sign * own.offset
        return own.of(offset, sign * own.total, own.square, distinct=offset.shape == b.low.shape)
    return None


def negate(_, a: Interval) -> Interval:
    """``-a``."""
    linear = a.linear
    if linear is not None:
        linear = linear.of(-linear.offset, -linear.total, linear.square)
    return Interval(low=-a.high, high=-a.low, error=a.error, linear=linear)


def multiply(equation: Equation, a, b) -> Interval:
    """A product."""
    if a is b:
        return square(equation, a)
    value = a if isinstance(a, Interval) else b
    factor = b if isinstance(a, Interval) else a
    linear = _linear_multiple(value, factor)
    if isinstance(factor, Interval | Known):
        second = as_interval(factor)
        ends: list[Array] = []
        for x in (value.low, value.high):
            ends.extend(x * y for y in (second.low, second.high))
        tiny = TINY * (value.size + second.size)
        error = value.error * second.size + second.error * value.size + tiny
    else:
        ends = [value.low * factor, value.high * factor]
        magnitude = jnp.abs(factor)
        error = value.error * magnitude + TINY * (value.size + magnitude)
    low = functools.reduce(jnp.minimum, ends)
    high = functools.reduce(jnp.maximum, ends)
    return round_once(low, high, error, linear)


def _linear_multiple(value: Interval, factor) -> Linear | None:
    """The linear part of a product, if its second factor does not depend on the image."""
    if isinstance(factor, Interval) or value.linear is None:
        return None
    own = value.linear
    number = exact_value(factor)
    offset = own.offset * number
    total = own.total * number
    squares = own.square * jnp.square(number)
    return own.of(offset, total, squares, distinct=offset.shape == value.low.shape)


def divide(equation: Equation, a, b) -> Interval:
    """A quotient, as a product with the inverse: XLA may compute that and round the inverse."""
    inverse: Any
    if isinstance(b, Interval):
        may_be_zero = (b.low < TINY) & (b.high > -TINY)
        low = jnp.where(may_be_zero, jnp.nan, 1 / b.high)
        high = jnp.where(may_be_zero, jnp.nan, 1 / b.low)
        inverse = saturate(round_once(low, high, jnp.full_like(low, jnp.inf)))
    else:
        inverse = _known_inverse(b)
    return multiply(equation, as_interval(a), inverse)


def _known_inverse(b) -> Known:
    """``1 / b`` for a divisor that does not depend on the image; NaN where it may be 0."""
    value = exact_value(b)
    error = b.error if isinstance(b, Known) else jnp.zeros_like(value)
    least = jnp.abs(value) - error
    inverse = jnp.where(least > TINY, 1 / value, jnp.nan)
    # The inverse of a very large number may be flushed to 0.
    inverse_error = error / (jnp.abs(value) * least) + ROUNDOFF / least + TINY
    return Known(inverse, inverse_error)


def integer_power(equation: Equation, a: Interval) -> Interval:
    """``a ** y``, which rounds once for each of its ``y - 1`` products."""
    power = equation.params["y"]
    if power < 0:
        raise ValueError("no bound is known for negative powers")
    if power > MOST_POWER:
        raise ValueError(f"no bound is known for powers above {MOST_POWER}")
    if power % 2:
        low = bind(equation, a.low)
        high = bind(equation, a.high)
    else:
        low, high = _even_ends(a, a.low**power, a.high**power)
    unit = gamma(max(16, power))
    return round_once(low, high, jnp.full_like(high, jnp.inf), unit=unit)


def square(_, a: Interval) -> Interval:
    """``a * a``."""
    low, high = _even_ends(a, jnp.square(a.low), jnp.square(a.high))
    return round_once(low, high, 2 * a.error * a.size + 2 * TINY * a.size)


def absolute(_, a: Interval) -> Interval:
    """``|a|``."""
    low, _ = _even_ends(a, jnp.abs(a.low), jnp.abs(a.high))
    return Interval(low, a.size, a.error)


def _even_ends(a: Interval, at_low, at_high) -> tuple[Array, Array]:
    """The ends of an even function that is 0 at 0 and grows with ``|a|``."""
    contains_zero = (a.low <= 0) & (a.high >= 0)
    low = jnp.where(contains_zero, 0.0, jnp.minimum(at_low, at_high))
    return low, jnp.maximum(at_low, at_high)


def sum_entries(equation: Equation, a: Interval) -> Interval:
    """A sum along axes or windows, in any order."""
    low = bind(equation, a.low)
    high = bind(equation, a.high)
    error = bind(equation, a.error)
    size = bind(equation, a.size)
    linear = None
    if a.linear is not None and a.linear.distinct and equation.name == "reduce_sum":
        linear = a.linear.map(functools.partial(bind, equation))
    count = _summands(equation, a.low, low)
    rounding = gamma(count) * size + count * TINY
    # A partial sum that overflows may end as anything; zeros sum to 0.
    slack = jnp.where(size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, rounding))
    out = add_rounding(low, high, error, slack, linear)
    # A sum of values that are not negative is not negative.
    negative = bind(equation, jnp.minimum(a.low, 0))
    return out._replace(low=jnp.maximum(out.low, (1 + gamma(count)) * negative))


def _summands(equation: Equation, given: Array, result: Array) -> float:
    """How many values one entry of the result is the sum of."""
    if "window_dimensions" in equation.params:
        return np.prod(equation.params["window_dimensions"])
    if equation.name == "cumsum":
        return given.shape[equation.params["axis"]]
    return given.size / max(result.size, 1)


def extremum(equation: Equation, a, b) -> Interval:
    """The larger or the smaller of two values."""
    first = as_interval(a)
    second = as_interval(b)
    return Interval(
        low=bind(equation, first.low, second.low),
        high=bind(equation, first.high, second.high),
        error=jnp.maximum(first.error, second.error),
    )


def reduce_extremum(equation: Equation, a: Interval) -> Interval:
    """The largest or the smallest value along axes or in windows."""
    error = a.error
    if not equation.name.endswith("max"):
        # The step would take the smallest error, so the largest one is put everywhere.
        error = jnp.broadcast_to(jnp.max(a.error), jnp.shape(a.error))
    return Interval(
        low=bind(equation, a.low),
        high=bind(equation, a.high),
        error=bind(equation, error),
    )


def clamp(_, least, a, most) -> Interval:
    """A value between two limits."""
    least = as_interval(least)
    value = as_interval(a)
    most = as_interval(most)
    return Interval(
        low=jnp.minimum(jnp.maximum(value.low, least.low), most.low),
        high=jnp.minimum(jnp.maximum(value.high, least.high), most.high),
        error=jnp.maximum(value.error, jnp.maximum(least.error, most.error)),
    )


def staircase(equation: Equation, a: Interval) -> Interval:
    """A sign or a rounding to an integer: exact, but it may magnify an error to a whole step."""
    low = bind(equation, a.low)
    high = bind(equation, a.high)
    return Interval(low, high, jnp.full_like(low, jnp.inf))
