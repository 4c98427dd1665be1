"""Interval arithmetic, one rule per primitive: what a step makes of everything its inputs may be.

**Rounding.** A proof must hold for the program that runs, not only for real numbers. So an interval encloses what a
float32 evaluation gives, in whatever order it sums: a sum of ``n`` products widens it by ``gamma_n = n u / (1 - n u)``
times the sum of the magnitudes, ``u = 2^-24`` (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section
3.1), an elementwise step by ``u`` times its size, a transcendental function by 16 u. Everything is computed in float64,
whose own rounding is 2^-29 of that. A machine that multiplies in TF32 or bfloat16 is not covered; ask it for
``jax_default_matmul_precision="highest"``. Beside it goes ``error``, how far the float32 value may be from the exact
one: bounds that are found by other means are widened by it.

**Linear values.** Over images of mean 0 and a given norm, ``<w, x> + offset`` is at most ``offset + norm(x) norm(w -
mean(w))``. As long as every pixel enters a value once, the sums of ``w`` and ``w^2`` are carried along for it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.program import PIECEWISE, Constant, Equation, Piecewise, Program
from oipjax.bounds.values import ROUNDOFF, TRANSCENDENTAL, Choice, Interval, Linear, gamma, lift


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
        limits: for variables by number, ends ``(low, high)`` of their exact values that were proved elsewhere.

    Returns:
        the value of every variable, by its number.

    Raises:
        ValueError: there is no rule for a primitive; the message names it.
    """
    values: dict[int, Any] = dict(zip(program.inputs, given, strict=True))
    for equation in program.equations:
        if decided and equation.outputs[0] in decided:
            values[equation.outputs[0]] = decided[equation.outputs[0]]
        else:
            out = advance(equation, [read(values, reference) for reference in equation.inputs])
            values.update(zip(equation.outputs, out, strict=True))
        if limits and equation.outputs[0] in limits:
            values[equation.outputs[0]] = _limited(values[equation.outputs[0]], *limits[equation.outputs[0]])
    return values


def _limited(value: Interval, low: Array, high: Array) -> Interval:
    low, high = jnp.maximum(value.low, low - value.error), jnp.minimum(value.high, high + value.error)
    return _settled(value._replace(low=low, high=high))


def read(values: Mapping[int, Any], reference) -> Any:
    """The value of a reference; floating numbers become float64, as everything here."""
    value = reference.value if isinstance(reference, Constant) else values[reference]
    if isinstance(value, Interval | Choice):
        return value
    value = jnp.asarray(value)
    return value.astype(jnp.float64) if jnp.issubdtype(value.dtype, jnp.floating) else value


def advance(equation: Equation, inputs: list[Any]) -> list[Any]:
    """The outputs of one step for inputs that are arrays, intervals or choices."""
    if equation.name == PIECEWISE:
        unknown = [value for value in inputs if isinstance(value, Interval)]
        piecewise: Piecewise = equation.params["piecewise"]
        if unknown:
            return [_settled(_in_two_pieces(piecewise, unknown[0]))]
        variable = [value for value, ref in zip(inputs, equation.inputs, strict=True) if not isinstance(ref, Constant)]
        return [read(evaluate(piecewise.body, variable), piecewise.body.outputs[0])]
    if not any(isinstance(value, Interval | Choice) for value in inputs):
        out = equation.primitive.bind(*inputs, **in_float64(equation.params))
        return list(out) if equation.primitive.multiple_results else [out]
    if equation.name not in RULES:
        known = ", ".join(sorted(RULES))
        raise ValueError(f"no bound is known for the primitive {equation.name!r}; there are rules for {known}")
    return [_settled(RULES[equation.name](equation, *inputs))]


def in_float64(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a primitive, with float64 for any other floating type."""
    types = ("new_dtype", "preferred_element_type", "dtype")

    def wanted(name, value):
        floating = name in types and value is not None and jnp.issubdtype(value, jnp.floating)
        return np.dtype(np.float64) if floating else value

    return {name: wanted(name, value) for name, value in params.items()}


RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable:
    """Register a rule ``(equation, *inputs) -> Interval or Choice`` for primitives."""

    def register(function):
        for name in names:
            RULES[name] = function
        return function

    return register


def _settled(value):
    """Computed and exact value lie in the same interval, so they differ by its width at most."""
    if not isinstance(value, Interval):
        return value
    return value._replace(error=jnp.minimum(value.error, value.high - value.low))


def _widened(low, high, error, slack, linear: Linear | None = None) -> Interval:
    """An interval, cut to what linearity allows, and made larger by the rounding of the step that made it."""
    if linear is not None:
        ends = linear.ends
        low, high = jnp.maximum(low, ends[0] - error), jnp.minimum(high, ends[1] + error)
    return Interval(low - slack, high + slack, error + slack, linear)


def _bind(equation, *values):
    out = equation.primitive.bind(*values, **in_float64(equation.params))
    return out[0] if equation.primitive.multiple_results else out


# --- moving values about ----------------------------------------------------------------------------------------------

ONE_TO_ONE = (
    "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy", "copy_p", "optimization_barrier",
    "stop_gradient", "convert_element_type",
)  # fmt: skip


@rule(*ONE_TO_ONE, "broadcast_in_dim", "dynamic_slice", "gather")
def _move(equation, value, *indices):
    if not isinstance(value, Interval) or any(isinstance(index, Interval | Choice) for index in indices):
        raise ValueError(f"no bound is known for {equation.name!r} where an index depends on the image")
    if equation.name == "convert_element_type" and not jnp.issubdtype(equation.params["new_dtype"], jnp.floating):
        raise ValueError("no bound is known for values that are converted to integers")

    def move(part):
        return _bind(equation, part, *indices)

    linear = value.linear and value.linear.map(move, distinct=equation.name in ONE_TO_ONE)
    return Interval(move(value.low), move(value.high), move(value.error), linear)


@rule("reduce_precision")
def _rounded(_, value):
    return _widened(value.low, value.high, value.error, 2**16 * ROUNDOFF * value.size)


@rule("concatenate")
def _concatenate(equation, *parts):
    parts = [lift(part) for part in parts]
    low, high, error = (_bind(equation, *(part[end] for part in parts)) for end in range(3))
    return Interval(low, high, error)


@rule("pad")
def _pad(equation, value, filling):
    value, filling = lift(value), lift(filling)
    low, high, error = (_bind(equation, value[end], filling[end]) for end in range(3))
    linear = value.linear
    if linear is not None:
        parts = ((linear.offset, filling.low), (linear.total, 0 * filling.low), (linear.square, 0 * filling.low))
        linear = linear.of(*(_bind(equation, *pair) for pair in parts))
    return Interval(low, high, error, linear)


# --- sums and products ------------------------------------------------------------------------------------------------


@rule("add", "add_any", "sub")
def _add(equation, a, b):
    sign = -1 if equation.name == "sub" else 1
    linear = None
    if not isinstance(b, Interval) and a.linear:
        linear = a.linear.of(a.linear.offset + sign * b, a.linear.total, a.linear.square)
    elif not isinstance(a, Interval) and b.linear:
        linear = b.linear.of(a + sign * b.linear.offset, sign * b.linear.total, b.linear.square)
    a, b = lift(a), lift(b)
    low, high = (a.low + b.low, a.high + b.high) if sign > 0 else (a.low - b.high, a.high - b.low)
    return _widened(low, high, a.error + b.error, ROUNDOFF * _larger(low, high), linear)


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
    if not isinstance(b, Interval):
        ends = a.low * b, a.high * b
        linear = a.linear and a.linear.of(a.linear.offset * b, a.linear.total * b, a.linear.square * jnp.square(b))
        slack = ROUNDOFF * _larger(*ends)
        return _widened(jnp.minimum(*ends), jnp.maximum(*ends), a.error * jnp.abs(b), slack, linear)
    ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = functools.reduce(jnp.minimum, ends), functools.reduce(jnp.maximum, ends)
    return _widened(low, high, a.error * b.size + b.error * a.size, ROUNDOFF * _larger(low, high))


@rule("div")
def _div(equation, a, b):
    if not isinstance(b, Interval):
        out = _mul(equation, a, 1 / b)
        return _widened(out.low, out.high, out.error, ROUNDOFF * out.size, out.linear)
    ends = 1 / b.low, 1 / b.high
    crosses = (b.low <= 0) & (b.high >= 0)
    low, high = (jnp.where(crosses, end, value) for end, value in ((-jnp.inf, ends[1]), (jnp.inf, ends[0])))
    inverse = _widened(low, high, jnp.inf * jnp.ones_like(low), ROUNDOFF * jnp.maximum(*map(jnp.abs, (low, high))))
    return _mul(equation, lift(a), inverse)


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
    return _widened(low, high, jnp.full_like(high, jnp.inf), power * ROUNDOFF * high)


@rule("square")
def _square(_, a):
    ends = jnp.square(a.low), jnp.square(a.high)
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(*ends))
    return _widened(low, jnp.maximum(*ends), 2 * a.error * a.size, ROUNDOFF * jnp.maximum(*ends))


@rule("dot_general", "conv_general_dilated")
def _product(equation, a, b):
    if isinstance(a, Interval) and isinstance(b, Interval):
        raise ValueError(f"no bound is known for {equation.name!r} of two values that both depend on the image")
    image_first = isinstance(a, Interval)
    value, weights = (a, b) if image_first else (b, a)

    def product(x, w):
        return _bind(equation, *((x, w) if image_first else (w, x)))

    positive, negative, magnitude = jnp.maximum(weights, 0), jnp.minimum(weights, 0), jnp.abs(weights)
    low = product(value.low, positive) + product(value.high, negative)
    high = product(value.high, positive) + product(value.low, negative)
    linear = None
    if value.linear is not None and value.linear.distinct:
        given = value.linear
        parts = product(given.offset, weights), product(given.total, weights), product(given.square, weights**2)
        linear = given.of(*parts, distinct=False)
    slack = gamma(_terms(equation, a, b)) * product(value.size, magnitude)
    return _widened(low, high, product(value.error, magnitude), slack, linear)


def _terms(equation, a, b) -> int:
    """How many products one output is the sum of."""
    shapes = [np.shape(lift(value).low) for value in (a, b)]
    if equation.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return int(np.prod([shapes[0][axis] for axis in contracted]))
    return int(np.prod(shapes[1])) // shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]


@rule("reduce_sum", "reduce_window_sum", "cumsum")
def _sum(equation, a):
    low, high, error, size = (_bind(equation, part) for part in (a.low, a.high, a.error, a.size))
    count = a.low.shape[equation.params["axis"]] if equation.name == "cumsum" else a.low.size / max(low.size, 1)
    count = np.prod(equation.params.get("window_dimensions", (count,)))
    linear = None
    if a.linear is not None and a.linear.distinct and equation.name == "reduce_sum":
        linear = a.linear.map(functools.partial(_bind, equation))
    return _widened(low, high, error, gamma(count) * size, linear)


# --- maxima and elementwise functions ---------------------------------------------------------------------------------


@rule("max", "min")
def _extremum(equation, a, b):
    a, b = lift(a), lift(b)
    return Interval(_bind(equation, a.low, b.low), _bind(equation, a.high, b.high), jnp.maximum(a.error, b.error))


@rule("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin")
def _reduced(equation, a):
    # The error is that of the worst value; for a minimum, of which there is no maximum at hand, of all values.
    error = a.error if equation.name.endswith("max") else jnp.broadcast_to(jnp.max(a.error), jnp.shape(a.error))
    return Interval(_bind(equation, a.low), _bind(equation, a.high), _bind(equation, error))


@rule("clamp")
def _clamp(_, low, a, high):
    if isinstance(low, Interval) or isinstance(high, Interval):
        raise ValueError("no bound is known for 'clamp' between limits that depend on the image")
    return Interval(lax.clamp(low, a.low, high), lax.clamp(low, a.high, high), a.error)


@rule(
    "exp", "exp2", "log", "log1p", "expm1", "sqrt", "cbrt", "tanh", "logistic", "erf", "sinh", "atan", "asinh",
    "sign", "floor", "ceil", "round",
)  # fmt: skip
def _monotone(equation, a):
    """A function that never falls. What it does to errors is known only for those that never rise faster than 1."""
    low, high = _bind(equation, a.low), _bind(equation, a.high)
    contracts = equation.name in ("tanh", "logistic", "atan", "asinh")
    error = a.error if contracts else jnp.full_like(low, jnp.inf)
    slack = jnp.where(a.size > 0, TRANSCENDENTAL, 0.0) * _larger(low, high)
    low, high, error = low - slack, high + slack, error + slack
    match equation.name:
        case "tanh" | "erf":
            low, high = jnp.maximum(low, -1), jnp.minimum(high, 1)
        case "logistic":
            low, high = jnp.maximum(low, 0), jnp.minimum(high, 1)
        case "exp" | "exp2" | "sqrt":
            low = jnp.maximum(low, 0)
    return Interval(low, high, error)


@rule("abs")
def _abs(_, a):
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(jnp.abs(a.low), jnp.abs(a.high)))
    return Interval(low, a.size, a.error)


@rule("rsqrt")
def _rsqrt(_, a):
    low, high = lax.rsqrt(jnp.maximum(a.high, 0)), lax.rsqrt(jnp.maximum(a.low, 0))
    return _widened(low, high, jnp.full_like(low, jnp.inf), jnp.where(jnp.isfinite(high), TRANSCENDENTAL * high, 0))


@rule("sin", "cos")
def _wave(_, a):
    one = jnp.ones_like(a.low)
    return Interval(-one, one, a.error + TRANSCENDENTAL)


# --- choices ----------------------------------------------------------------------------------------------------------


@rule("gt", "ge", "lt", "le", "eq", "ne")
def _compare(equation, a, b):
    same = a is b
    a, b = lift(a), lift(b)
    if same:
        truth = jnp.full(a.low.shape, equation.name in ("ge", "le", "eq"))
        return Choice(truth, ~truth)
    match equation.name:
        case "gt" | "ge":
            return Choice(a.high >= b.low, a.low <= b.high)
        case "lt" | "le":
            return Choice(a.low <= b.high, a.high >= b.low)
    meet, points = (a.low <= b.high) & (b.low <= a.high), (a.low == a.high) & (b.low == b.high) & (a.low == b.low)
    return Choice(meet, ~points) if equation.name == "eq" else Choice(~points, meet)


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
        low, high, error = (_bind(equation, which, *(case[end] for case in cases)) for end in range(3))
        return Interval(low, high, error)
    no, yes = cases
    only_yes, only_no = ~which.maybe_false, ~which.maybe_true

    def joined(end, join):
        return jnp.where(only_yes, yes[end], jnp.where(only_no, no[end], join(yes[end], no[end])))

    # Where the case is open, computed and exact value may take different ones.
    error = jnp.where(only_yes, yes.error, jnp.where(only_no, no.error, jnp.inf))
    return Interval(joined(0, jnp.minimum), joined(1, jnp.maximum), error)


def _in_two_pieces(piecewise: Piecewise, a: Interval) -> Interval:
    """A function that looks at one threshold, on both sides of it; the threshold itself belongs to both."""
    at = piecewise.threshold

    def side(low, high, above):
        decided = {number: jnp.full(low.shape, above == truth) for number, truth in piecewise.sides.items()}
        values = evaluate(piecewise.body, [Interval(low, high, a.error)], decided)
        return lift(read(values, piecewise.body.outputs[0]))

    above = side(jnp.maximum(a.low, at), jnp.maximum(a.high, at), True)
    below = side(jnp.minimum(a.low, at), jnp.minimum(a.high, at), False)
    only_above, only_below = a.low > at, a.high < at

    def joined(end, join):
        return jnp.where(only_above, above[end], jnp.where(only_below, below[end], join(above[end], below[end])))

    error = jnp.where(only_above, above.error, jnp.where(only_below, below.error, jnp.inf))
    return Interval(joined(0, jnp.minimum), joined(1, jnp.maximum), error)


def _larger(low, high) -> Array:
    return jnp.maximum(jnp.abs(low), jnp.abs(high))
