"""Rules of steps that move values about: reshapes, crops, padding, joins, changes of type."""

import functools

import jax.numpy as jnp

from oipjax.bounds.interval.values import (
    Choice,
    Interval,
    as_interval,
    exact_value,
    round_once,
)
from oipjax.jaxpr import Equation, bind

ONE_TO_ONE = (
    "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy", "copy_p",
    "optimization_barrier", "stop_gradient", "convert_element_type",
)  # fmt: skip
"""Steps that put every value in one place."""
MOVES = (*ONE_TO_ONE, "broadcast_in_dim", "tile", "dynamic_slice", "gather")
"""Steps that change no value."""
UNROUNDED = (
    *MOVES, "concatenate", "stack", "pad", "neg", "abs", "sign", "max", "min", "clamp", "select_n",
    "floor", "ceil", "round", "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min",
    "cummax", "cummin", "iota", "sort", "split", "dynamic_update_slice",
)  # fmt: skip
"""Steps that round nothing: their results are numbers that they were given, or integers."""
EXPONENT_BITS = 8
"""Of float32."""


def move(equation: Equation, value, *indices) -> Interval:
    """Steps in `MOVES`."""
    for index in indices:
        if isinstance(index, Interval | Choice):
            raise _unknown_index(equation)
    if not isinstance(value, Interval):
        raise _unknown_index(equation)
    if equation.name == "convert_element_type":
        new_type = equation.params["new_dtype"]
        if not jnp.issubdtype(new_type, jnp.floating):
            raise ValueError("no bound is known for values that are converted to integers")

    def moved(part):
        return bind(equation, part, *indices)

    linear = value.linear
    if linear is not None:
        linear = linear.map(moved, distinct=equation.name in ONE_TO_ONE)
    return Interval(
        low=moved(value.low),
        high=moved(value.high),
        error=moved(value.error),
        linear=linear,
    )


def _unknown_index(equation: Equation) -> ValueError:
    return ValueError(
        f"no bound is known for {equation.name!r} where an index depends on the image"
    )


def reduce_precision(equation: Equation, value: Interval) -> Interval:
    """A rounding to fewer bits."""
    exponent = equation.params["exponent_bits"]
    if exponent < EXPONENT_BITS:
        raise ValueError(
            f"no bound is known for 'reduce_precision' to {exponent} bits of exponent, "
            f"below {EXPONENT_BITS}"
        )
    unit = 2.0 ** -(equation.params["mantissa_bits"] + 1)
    return round_once(value.low, value.high, value.error, unit=unit)


def concatenate(equation: Equation, *parts) -> Interval:
    """Several arrays in one."""
    intervals = [as_interval(part) for part in parts]
    return Interval(
        low=bind(equation, *[part.low for part in intervals]),
        high=bind(equation, *[part.high for part in intervals]),
        error=bind(equation, *[part.error for part in intervals]),
    )


def pad(equation: Equation, value, filling) -> Interval:
    """An array with a value around it."""
    put_around = functools.partial(bind, equation)
    linear = None
    is_known_filling = not isinstance(filling, Interval)
    if isinstance(value, Interval) and value.linear is not None and is_known_filling:
        given = value.linear
        constant = exact_value(filling)
        zero = jnp.zeros_like(constant)
        linear = given.of(
            put_around(given.offset, constant),
            put_around(given.total, zero),
            put_around(given.square, zero),
        )
    inner = as_interval(value)
    outer = as_interval(filling)
    return Interval(
        low=put_around(inner.low, outer.low),
        high=put_around(inner.high, outer.high),
        error=put_around(inner.error, outer.error),
        linear=linear,
    )
