"""Rules of comparisons, truth values and selections."""

import jax.numpy as jnp

from oipjax.bounds.interval.values import TINY, Choice, Interval, as_interval
from oipjax.jaxpr import Equation, bind


def compare(equation: Equation, a, b) -> Choice:
    """A comparison. A value of unknown ends may be on either side, and may be NaN."""
    name = equation.name
    first = as_interval(a)
    second = as_interval(b)
    if a is b:
        return _compare_with_itself(name, first)
    # Both are false where an end is NaN.
    is_below = first.high + TINY < second.low
    is_above = first.low > second.high + TINY
    if name in ("gt", "ge"):
        return Choice(maybe_true=~is_below, maybe_false=~is_above)
    if name in ("lt", "le"):
        return Choice(maybe_true=~is_above, maybe_false=~is_below)
    may_be_equal = ~(is_above | is_below)
    are_points = (first.low == first.high) & (second.low == second.high)
    must_be_equal = are_points & (first.low == second.low)
    if name == "eq":
        return Choice(maybe_true=may_be_equal, maybe_false=~must_be_equal)
    return Choice(maybe_true=~must_be_equal, maybe_false=may_be_equal)


def _compare_with_itself(name: str, a: Interval) -> Choice:
    """Only NaN differs from itself."""
    truth = jnp.full(a.low.shape, name in ("ge", "le", "eq"))
    may_be_nan = jnp.isnan(a.low)
    return Choice(
        maybe_true=truth | (may_be_nan & (name == "ne")),
        maybe_false=~truth | may_be_nan,
    )


def negation(_, a: Choice) -> Choice:
    """``not a``."""
    return Choice(maybe_true=a.maybe_false, maybe_false=a.maybe_true)


def conjunction(equation: Equation, a, b) -> Choice:
    """``a and b``, or ``a or b``: the name of the step decides."""
    first = _as_choice(a)
    second = _as_choice(b)
    if equation.name == "and":
        return Choice(
            maybe_true=first.maybe_true & second.maybe_true,
            maybe_false=first.maybe_false | second.maybe_false,
        )
    return Choice(
        maybe_true=first.maybe_true | second.maybe_true,
        maybe_false=first.maybe_false & second.maybe_false,
    )


def _as_choice(value) -> Choice:
    return value if isinstance(value, Choice) else Choice(value, ~value)


def is_finite(_, a: Interval) -> Choice:
    """Whether a value is neither infinite nor NaN."""
    finite = jnp.isfinite(a.low) & jnp.isfinite(a.high)
    return Choice(maybe_true=jnp.ones_like(finite), maybe_false=~finite)


def select(equation: Equation, which, *cases) -> Interval:
    """One of several values, chosen by a truth value or a number."""
    intervals = [as_interval(case) for case in cases]
    if not isinstance(which, Choice):
        return Interval(
            low=bind(equation, which, *[case.low for case in intervals]),
            high=bind(equation, which, *[case.high for case in intervals]),
            error=bind(equation, which, *[case.error for case in intervals]),
        )
    if_false, if_true = intervals
    return choose(~which.maybe_false, ~which.maybe_true, if_true, if_false)


def choose(is_first, is_second, first: Interval, second: Interval) -> Interval:
    """The one of two intervals that holds, or both joined where that is unknown.

    Args:
        is_first: where the first one holds for certain.
        is_second: where the second one holds for certain.
        first: the first interval.
        second: the second interval.
    """

    def either(one, other, joined):
        return jnp.where(is_first, one, jnp.where(is_second, other, joined))

    lowest = jnp.minimum(first.low, second.low)
    highest = jnp.maximum(first.high, second.high)
    # The computed and the exact value may be of different cases, so their distance is unknown.
    return Interval(
        low=either(first.low, second.low, lowest),
        high=either(first.high, second.high, highest),
        error=either(first.error, second.error, jnp.inf),
    )
