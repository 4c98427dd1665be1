"""Interval arithmetic, one rule per primitive: what a step makes of everything its inputs may be.

**Rounding.** A proof must hold for the program that runs, not only for real numbers. So an interval
encloses what a float32 evaluation gives, in whatever order it sums: a sum of ``n`` products widens
it by ``gamma_n = n u / (1 - n u)`` times the sum of the magnitudes, ``u = 2^-24`` (Higham 2002,
"Accuracy and Stability of Numerical Algorithms", section 3.1), an elementwise step by ``u`` times
its size, a transcendental function by 16 u. What is computed from parameters alone is rounded too
(`values.Known`). What may exceed the largest float32 is infinite, numbers below 2^-126 may be
flushed to 0, and what may be NaN stays so. Everything is computed in float64, whose own rounding is
2^-29 of that. Beside it goes ``error``, how far the float32 value may be from the exact one: bounds
that are found by other means are widened by it.

**What is covered.** The program in float32 at full precision: XLA's CPU backend as it is, other
ones as surveys and ascents are compiled (`oipjax.runtime.tiles.products`), with convolutions as
sums of products. Convolutions that `oipjax.ops` computes by minimal filtering round more, which is
counted (`oipjax.bounds.interval.products`). TF32 or bfloat16 products and other transforms
(Winograd of larger tiles, FFT) round more than this counts, and so do networks that compute in
float16, bfloat16 or float64, which are refused.

**Linear values.** Over images of mean 0 and a given norm, ``<w, x> + offset`` is at most ``offset +
norm(x) norm(w - mean(w))``. As long as every pixel enters a value once, the sums of ``w`` and
``w^2`` are carried along for it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.interval.products import PRODUCTS, product
from oipjax.bounds.interval.values import (
    LARGEST,
    ROUNDOFF,
    TINY,
    TRANSCENDENTAL,
    Choice,
    Interval,
    Known,
    exact,
    gamma,
    lift,
    rounded_once,
    settled,
    widened,
)
from oipjax.jaxpr import bind

ONE_TO_ONE = (
    "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy", "copy_p", "optimization_barrier",
    "stop_gradient", "convert_element_type",
)  # fmt: skip
"""Steps that put every value in one place."""
MOVES = (*ONE_TO_ONE, "broadcast_in_dim", "tile", "dynamic_slice", "gather")
"""Steps that change no value."""
UNROUNDED = (
    *MOVES, "concatenate", "stack", "pad", "neg", "abs", "sign", "max", "min", "clamp", "select_n", "floor", "ceil",
    "round", "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "iota", "sort",
    "split", "dynamic_update_slice",
)  # fmt: skip
"""Steps whose results are numbers that they were given, or integers: nothing is rounded."""
RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable:
    """Register a rule ``(equation, *inputs) -> Interval or Choice`` for primitives."""

    def register(function):
        for name in names:
            RULES[name] = function
        return function

    return register


# --- moving values about
# ----------------------------------------------------------------------------------------------


@rule(*MOVES)
def _move(equation, value, *indices):
    if not isinstance(value, Interval) or any(
        isinstance(index, Interval | Choice) for index in indices
    ):
        raise ValueError(
            f"no bound is known for {equation.name!r} where an index depends on the image"
        )
    if equation.name == "convert_element_type" and not jnp.issubdtype(
        equation.params["new_dtype"], jnp.floating
    ):
        raise ValueError("no bound is known for values that are converted to integers")

    def move(part):
        return bind(equation, part, *indices)

    linear = value.linear and value.linear.map(move, distinct=equation.name in ONE_TO_ONE)
    return Interval(move(value.low), move(value.high), move(value.error), linear)


@rule("reduce_precision")
def _rounded(equation, value):
    exponent, mantissa = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    if exponent < 8:
        raise ValueError(
            f"no bound is known for 'reduce_precision' to {exponent} bits of exponent, below 8"
        )
    return rounded_once(value.low, value.high, value.error, unit=2.0 ** -(mantissa + 1))


@rule("concatenate", "stack")
def _concatenate(equation, *parts):
    parts = [lift(part) for part in parts]
    low, high, error = (bind(equation, *(part[end] for part in parts)) for end in range(3))
    return Interval(low, high, error)


@rule("pad")
def _pad(equation, value, filling):
    linear = None
    if isinstance(value, Interval) and value.linear and not isinstance(filling, Interval):
        given, zero = value.linear, jnp.zeros_like(exact(filling))
        parts = ((given.offset, exact(filling)), (given.total, zero), (given.square, zero))
        linear = given.of(*(bind(equation, *pair) for pair in parts))
    value, filling = lift(value), lift(filling)
    low, high, error = (bind(equation, value[end], filling[end]) for end in range(3))
    return Interval(low, high, error, linear)


# --- sums and products
# ------------------------------------------------------------------------------------------------


@rule("add", "add_any", "sub")
def _add(equation, a, b):
    sign = -1 if equation.name == "sub" else 1
    linear = None
    if not isinstance(b, Interval) and a.linear:
        parts = a.linear.offset + sign * exact(b), a.linear.total, a.linear.square
        linear = a.linear.of(*parts, distinct=parts[0].shape == a.low.shape)
    elif not isinstance(a, Interval) and b.linear:
        parts = exact(a) + sign * b.linear.offset, sign * b.linear.total, b.linear.square
        linear = b.linear.of(*parts, distinct=parts[0].shape == b.low.shape)
    a, b = lift(a), lift(b)
    low, high = (a.low + b.low, a.high + b.high) if sign > 0 else (a.low - b.high, a.high - b.low)
    return rounded_once(low, high, a.error + b.error, linear)


@rule("neg")
def _neg(_, a):
    linear = a.linear and a.linear.of(-a.linear.offset, -a.linear.total, a.linear.square)
    return Interval(-a.high, -a.low, a.error, linear)


@rule("mul")
def _mul(equation, a, b):
    if a is b:
        return _square(equation, a)
    if not isinstance(a, Interval):
        a, b = b, a
    linear = None
    if not isinstance(b, Interval) and a.linear:
        value = exact(b)
        parts = a.linear.offset * value, a.linear.total * value, a.linear.square * jnp.square(value)
        linear = a.linear.of(*parts, distinct=parts[0].shape == a.low.shape)
    if isinstance(b, Interval | Known):
        b = lift(b)
        ends: list[Array] = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        error = a.error * b.size + b.error * a.size + TINY * (a.size + b.size)
    else:
        ends = [a.low * b, a.high * b]
        error = a.error * jnp.abs(b) + TINY * (a.size + jnp.abs(b))
    return rounded_once(
        functools.reduce(jnp.minimum, ends), functools.reduce(jnp.maximum, ends), error, linear
    )


@rule("div")
def _div(equation, a, b):
    """As a product with the inverse, which may be rounded, too."""
    if isinstance(b, Interval):
        crosses = (b.low < TINY) & (b.high > -TINY)
        low, high = (jnp.where(crosses, jnp.nan, 1 / end) for end in (b.high, b.low))
        inverse: Any = rounded_once(low, high, jnp.full_like(low, jnp.inf))
    else:
        value, error = b if isinstance(b, Known) else (b, jnp.zeros_like(b))
        least = jnp.abs(value) - error
        inverse = jnp.where(least > TINY, 1 / value, jnp.nan)
        inverse = Known(inverse, error / (jnp.abs(value) * least) + ROUNDOFF / least)
    return _mul(equation, lift(a), settled(inverse))


@rule("integer_pow")
def _integer_pow(equation, a):
    power = equation.params["y"]
    if power < 0:
        raise ValueError("no bound is known for negative powers")
    if power % 2:
        return _monotone(equation, a)
    ends = a.low**power, a.high**power
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(*ends))
    high = jnp.maximum(*ends)
    return rounded_once(low, high, jnp.full_like(high, jnp.inf), unit=power * ROUNDOFF)


@rule("square")
def _square(_, a):
    ends = jnp.square(a.low), jnp.square(a.high)
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(*ends))
    return rounded_once(low, jnp.maximum(*ends), 2 * a.error * a.size + 2 * TINY * a.size)


rule(*PRODUCTS)(product)


@rule("reduce_sum", "reduce_window_sum", "cumsum")
def _sum(equation, a):
    low, high, error, size = (bind(equation, part) for part in (a.low, a.high, a.error, a.size))
    count = (
        a.low.shape[equation.params["axis"]]
        if equation.name == "cumsum"
        else a.low.size / max(low.size, 1)
    )
    count = np.prod(equation.params.get("window_dimensions", (count,)))
    linear = None
    if a.linear is not None and a.linear.distinct and equation.name == "reduce_sum":
        linear = a.linear.map(functools.partial(bind, equation))
    slack = jnp.where(
        size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, gamma(count) * size + count * TINY)
    )
    out = widened(low, high, error, slack, linear)
    # A sum of what is not negative is not negative.
    return out._replace(
        low=jnp.maximum(out.low, (1 + gamma(count)) * bind(equation, jnp.minimum(a.low, 0)))
    )


# --- maxima and elementwise functions
# ---------------------------------------------------------------------------------


@rule("max", "min")
def _extremum(equation, a, b):
    a, b = lift(a), lift(b)
    return Interval(
        bind(equation, a.low, b.low), bind(equation, a.high, b.high), jnp.maximum(a.error, b.error)
    )


@rule("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin")
def _reduced(equation, a):
    # The error is that of the worst value; for a minimum, of which there is no maximum at hand, of
    # all values.
    error = (
        a.error
        if equation.name.endswith("max")
        else jnp.broadcast_to(jnp.max(a.error), jnp.shape(a.error))
    )
    return Interval(bind(equation, a.low), bind(equation, a.high), bind(equation, error))


@rule("clamp")
def _clamp(_, least, a, most):
    least, a, most = lift(least), lift(a), lift(most)
    low = jnp.minimum(jnp.maximum(a.low, least.low), most.low)
    high = jnp.minimum(jnp.maximum(a.high, least.high), most.high)
    return Interval(low, high, jnp.maximum(a.error, jnp.maximum(least.error, most.error)))


@rule(
    "exp", "exp2", "log", "log1p", "expm1", "sqrt", "cbrt", "tanh", "logistic", "erf", "sinh", "atan", "asinh",
    "sign", "floor", "ceil", "round",
)  # fmt: skip
def _monotone(equation, a):
    """A function that never falls. What it does to errors is known only for those that never rise faster than 1."""
    low, high = bind(equation, a.low), bind(equation, a.high)
    contracts = equation.name in ("tanh", "logistic", "atan", "asinh")
    error = a.error if contracts else jnp.full_like(low, jnp.inf)
    match equation.name:
        case "sign" | "floor" | "ceil" | "round":
            return Interval(low, high, error)
        case "logistic":  # may be computed by a tanh, whose error is not relative to it
            out = widened(low, high, error, TRANSCENDENTAL)
            return out._replace(low=jnp.maximum(out.low, 0), high=jnp.minimum(out.high, 1))
    out = rounded_once(
        low, high, error, unit=max(TRANSCENDENTAL, equation.params.get("y", 1) * ROUNDOFF)
    )
    if equation.name in ("tanh", "erf"):
        return out._replace(low=jnp.maximum(out.low, -1), high=jnp.minimum(out.high, 1))
    return out


@rule("abs")
def _abs(_, a):
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(jnp.abs(a.low), jnp.abs(a.high)))
    return Interval(low, a.size, a.error)


@rule("rsqrt")
def _rsqrt(_, a):
    low, high = lax.rsqrt(a.high), lax.rsqrt(a.low)  # NaN below 0
    return rounded_once(low, high, jnp.full_like(low, jnp.inf), unit=TRANSCENDENTAL)


@rule("sin", "cos")
def _wave(equation, a):
    middle, radius = (a.low + a.high) / 2, (a.high - a.low) / 2 + TRANSCENDENTAL
    value = jnp.where(jnp.isfinite(a.size), bind(equation, middle), jnp.nan)
    low, high = jnp.maximum(value - radius, -1), jnp.minimum(value + radius, 1)
    return Interval(low, high, a.error + TRANSCENDENTAL)


# --- choices
# ----------------------------------------------------------------------------------------------------------


@rule("gt", "ge", "lt", "le", "eq", "ne")
def _compare(equation, a, b):
    same, name = a is b, equation.name
    a, b = lift(a), lift(b)
    if same:
        # Nothing but NaN differs from itself.
        truth, strange = jnp.full(a.low.shape, name in ("ge", "le", "eq")), jnp.isnan(a.low)
        return Choice(truth | (strange & (name == "ne")), ~truth | strange)
    below, above = a.high + TINY < b.low, a.low > b.high + TINY  # neither where an end is NaN
    match name:
        case "gt" | "ge":
            return Choice(~below, ~above)
        case "lt" | "le":
            return Choice(~above, ~below)
    meet, points = ~(above | below), (a.low == a.high) & (b.low == b.high) & (a.low == b.low)
    return Choice(meet, ~points) if name == "eq" else Choice(~points, meet)


@rule("not")
def _not(_, a):
    return Choice(a.maybe_false, a.maybe_true)


@rule("and", "or")
def _both(equation, a, b):
    a, b = (c if isinstance(c, Choice) else Choice(c, ~c) for c in (a, b))
    if equation.name == "and":
        return Choice(a.maybe_true & b.maybe_true, a.maybe_false | b.maybe_false)
    return Choice(a.maybe_true | b.maybe_true, a.maybe_false & b.maybe_false)


@rule("is_finite")
def _is_finite(_, a):
    finite = jnp.isfinite(a.low) & jnp.isfinite(a.high)
    return Choice(jnp.ones_like(finite), ~finite)


@rule("select_n")
def _select(equation, which, *cases):
    cases = [lift(case) for case in cases]
    if not isinstance(which, Choice):
        low, high, error = (
            bind(equation, which, *(case[end] for case in cases)) for end in range(3)
        )
        return Interval(low, high, error)
    no, yes = cases
    only_yes, only_no = ~which.maybe_false, ~which.maybe_true

    def joined(end, join):
        return jnp.where(only_yes, yes[end], jnp.where(only_no, no[end], join(yes[end], no[end])))

    # Where the case is open, computed and exact value may take different ones.
    error = jnp.where(only_yes, yes.error, jnp.where(only_no, no.error, jnp.inf))
    return Interval(joined(0, jnp.minimum), joined(1, jnp.maximum), error)
