"""Interval arithmetic, one rule per primitive: what a step makes of everything its inputs may be.

**Rounding.** A proof must hold for the program that runs, not only for real numbers. So an interval encloses what a
float32 evaluation gives, in whatever order it sums: a sum of ``n`` products widens it by ``gamma_n = n u / (1 - n u)``
times the sum of the magnitudes, ``u = 2^-24`` (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section
3.1), an elementwise step by ``u`` times its size, a transcendental function by 16 u. What is computed from parameters
alone is rounded too (`values.Known`). What may exceed the largest float32 is infinite, numbers below 2^-126 may be
flushed to 0, and what may be NaN stays so. Everything is computed in float64, whose own rounding is 2^-29 of that.
Beside it goes ``error``, how far the float32 value may be from the exact one: bounds that are found by other means are
widened by it.

**What is covered.** The program in float32 at full precision: XLA's CPU backend as it is, other ones with
``jax_default_matmul_precision="highest"``. Convolutions that `oipjax.ops` computes by minimal filtering round more,
which is counted (`_minimal_filtering`). TF32 or bfloat16 products and other transforms (Winograd of larger tiles, FFT)
round more than this counts, and so do networks that compute in float16, bfloat16 or float64, which are refused.

**Linear values.** Over images of mean 0 and a given norm, ``<w, x> + offset`` is at most ``offset + norm(x) norm(w -
mean(w))``. As long as every pixel enters a value once, the sums of ``w`` and ``w^2`` are carried along for it.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.program import PIECEWISE, Constant, Equation, Piecewise, Program, wholes
from oipjax.bounds.values import (
    LARGEST,
    ROUNDOFF,
    TINY,
    TRANSCENDENTAL,
    Choice,
    Interval,
    Known,
    Linear,
    exact,
    gamma,
    lift,
)
from oipjax.ops import winograd

ONE_TO_ONE = (
    "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy", "copy_p", "optimization_barrier",
    "stop_gradient", "convert_element_type",
)  # fmt: skip
"""Steps that put every value in one place."""
MOVES = (*ONE_TO_ONE, "broadcast_in_dim", "dynamic_slice", "gather")
"""Steps that change no value."""
UNROUNDED = (
    *MOVES, "concatenate", "pad", "neg", "abs", "sign", "max", "min", "clamp", "select_n", "floor", "ceil", "round",
    "reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "iota", "sort", "split",
    "dynamic_update_slice",
)  # fmt: skip
"""Steps whose results are numbers that they were given, or integers: nothing is rounded."""
PRODUCTS = ("dot_general", "conv_general_dilated")


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
            values[equation.outputs[0]] = _limited(values[equation.outputs[0]], *limits[equation.outputs[0]])
    return values


def _leading(value: Interval, shape: tuple[int, ...]) -> Interval:
    """The leading part of what is known already; it is computed again in the network, and may round otherwise."""

    def part(each: Array) -> Array:
        return lax.slice(each, (0,) * len(shape), shape)

    return Interval(part(value.low), part(value.high), part(value.error), value.linear and value.linear.map(part))


def _limited(value: Interval, low: Array, high: Array) -> Interval:
    low, high = jnp.maximum(value.low, low - value.error), jnp.minimum(value.high, high + value.error)
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
        raise ValueError(f"no bound is known for the primitive {equation.name!r}; there are rules for {known}")
    out = RULES[equation.name](equation, *inputs)
    return out if equation.name in MOVES else settled(out)


def _without_image(equation: Equation, inputs: list[Any]) -> list[Any]:
    """What is computed from parameters alone: exactly, and how far the rounded value may be from that."""
    out = exactly(equation, [exact(value) for value in inputs])
    floating = all(jnp.issubdtype(each.dtype, jnp.floating) for each in out)
    integer = all(not jnp.issubdtype(exact(value).dtype, jnp.floating) for value in inputs)
    if equation.name == "convert_element_type" and floating and integer:
        return [Known(each, jnp.where(jnp.abs(each) < 2**24, 0.0, ROUNDOFF * jnp.abs(each))) for each in out]
    if not any(isinstance(value, Known) for value in inputs) and (not floating or equation.name in UNROUNDED):
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
            values.update(zip(each.outputs, exactly(each, [read(values, ref) for ref in each.inputs]), strict=True))
        return [read(values, body.outputs[0])]
    out = equation.primitive.bind(*inputs, **in_float64(equation.params))
    return list(out) if equation.primitive.multiple_results else [out]


def _variables(equation: Equation, inputs: list[Any]) -> list[Any]:
    return [value for value, ref in zip(inputs, equation.inputs, strict=True) if not isinstance(ref, Constant)]


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


def settled(value):
    """An interval that float32's range is taken care of: overflow, numbers that are flushed to 0, NaN."""
    if not isinstance(value, Interval):
        return value
    low = jnp.where(jnp.abs(value.low) < TINY, jnp.where(value.low < 0, -TINY, 0.0), value.low)
    high = jnp.where(jnp.abs(value.high) < TINY, jnp.where(value.high > 0, TINY, 0.0), value.high)
    low, high = jnp.where(low < -LARGEST, -jnp.inf, low), jnp.where(high > LARGEST, jnp.inf, high)
    lost = jnp.isnan(low) | jnp.isnan(high) | (jnp.isinf(low) & jnp.isinf(high) & (low < high))
    low, high = jnp.where(lost, jnp.nan, low), jnp.where(lost, jnp.nan, high)
    # Computed and exact value lie in the same interval, so they differ by its width at most.
    error = jnp.nan_to_num(jnp.fmin(value.error + 4 * TINY, high - low), nan=jnp.inf)
    return value._replace(low=low, high=high, error=error)


def _widened(low, high, error, slack, linear: Linear | None = None) -> Interval:
    """An interval, cut to what linearity allows, and made larger by the rounding of the steps that made it."""
    if linear is not None:
        ends = linear.ends
        low, high = jnp.maximum(low, ends[0] - error), jnp.minimum(high, ends[1] + error)
    return Interval(low - slack, high + slack, error + slack, linear)


def _rounded_once(low, high, error, linear: Linear | None = None, unit: float = ROUNDOFF) -> Interval:
    """As `_widened` by one rounding, which is monotone: each end by its own, and 0 stays 0."""
    if linear is not None:
        ends = linear.ends
        low, high = jnp.maximum(low, ends[0] - error), jnp.minimum(high, ends[1] + error)
    slack = unit * _larger(low, high)
    return Interval(low - unit * jnp.abs(low), high + unit * jnp.abs(high), error + slack, linear)


def _bind(equation, *values):
    out = equation.primitive.bind(*values, **in_float64(equation.params))
    return out[0] if equation.primitive.multiple_results else out


# --- moving values about ----------------------------------------------------------------------------------------------


@rule(*MOVES)
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
def _rounded(equation, value):
    exponent, mantissa = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    if exponent < 8:
        raise ValueError(f"no bound is known for 'reduce_precision' to {exponent} bits of exponent, below 8")
    return _rounded_once(value.low, value.high, value.error, unit=2.0 ** -(mantissa + 1))


@rule("concatenate")
def _concatenate(equation, *parts):
    parts = [lift(part) for part in parts]
    low, high, error = (_bind(equation, *(part[end] for part in parts)) for end in range(3))
    return Interval(low, high, error)


@rule("pad")
def _pad(equation, value, filling):
    linear = None
    if isinstance(value, Interval) and value.linear and not isinstance(filling, Interval):
        given, zero = value.linear, jnp.zeros_like(exact(filling))
        parts = ((given.offset, exact(filling)), (given.total, zero), (given.square, zero))
        linear = given.of(*(_bind(equation, *pair) for pair in parts))
    value, filling = lift(value), lift(filling)
    low, high, error = (_bind(equation, value[end], filling[end]) for end in range(3))
    return Interval(low, high, error, linear)


# --- sums and products ------------------------------------------------------------------------------------------------


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
    return _rounded_once(low, high, a.error + b.error, linear)


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
    return _rounded_once(functools.reduce(jnp.minimum, ends), functools.reduce(jnp.maximum, ends), error, linear)


@rule("div")
def _div(equation, a, b):
    """As a product with the inverse, which may be rounded, too."""
    if isinstance(b, Interval):
        crosses = (b.low < TINY) & (b.high > -TINY)
        low, high = (jnp.where(crosses, jnp.nan, 1 / end) for end in (b.high, b.low))
        inverse: Any = _rounded_once(low, high, jnp.full_like(low, jnp.inf))
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
    return _rounded_once(low, high, jnp.full_like(high, jnp.inf), unit=power * ROUNDOFF)


@rule("square")
def _square(_, a):
    ends = jnp.square(a.low), jnp.square(a.high)
    low = jnp.where((a.low <= 0) & (a.high >= 0), 0.0, jnp.minimum(*ends))
    return _rounded_once(low, jnp.maximum(*ends), 2 * a.error * a.size + 2 * TINY * a.size)


@rule(*PRODUCTS)
def _product(equation, a, b):
    if isinstance(a, Interval) and isinstance(b, Interval):
        raise ValueError(f"no bound is known for {equation.name!r} of two values that both depend on the image")
    image_first = isinstance(a, Interval)
    value, given = (a, b) if image_first else (b, a)
    weights = exact(given)

    def product(x, w):
        return _bind(equation, *((x, w) if image_first else (w, x)))

    positive, negative, magnitude = jnp.maximum(weights, 0), jnp.minimum(weights, 0), jnp.abs(weights)
    low = product(value.low, positive) + product(value.high, negative)
    high = product(value.high, positive) + product(value.low, negative)
    linear = None
    if value.linear is not None and value.linear.distinct:
        own = value.linear
        parts = product(own.offset, weights), product(own.total, weights), product(own.square, weights**2)
        linear = own.of(*parts, distinct=False)
    if isinstance(given, Known):
        magnitude = magnitude + given.error
    terms, size = _terms(equation, a, b), product(value.size, magnitude)
    if image_first and _is_minimal(equation, weights.shape, size.shape):
        terms, size = _minimal_filtering(equation, value.size, magnitude)
    slack = gamma(terms) * size + terms * TINY * (2 + jnp.max(value.size) + jnp.max(magnitude))
    if isinstance(given, Known):
        slack = slack + product(value.size, given.error)
    # A partial sum that overflows may end as anything; nothing but zeros sum to 0.
    slack = jnp.where(size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, slack))
    return _widened(low, high, product(value.error, magnitude), slack, linear)


def _is_minimal(equation, kernel: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether `oipjax.ops` computes such a convolution by `winograd`."""
    if equation.name != "conv_general_dilated":
        return False
    params, numbers = equation.params, equation.params["dimension_numbers"]
    plain = {*params["lhs_dilation"], *params["rhs_dilation"]} == {1}
    plain &= params["feature_group_count"] == params["batch_group_count"] == 1
    order = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    return plain and order and winograd.fits(kernel, params["window_strides"], (out[1], out[2]))


def _minimal_filtering(equation, size: Array, magnitude: Array) -> tuple[int, Array]:
    """As terms and size of a product: ``gamma(terms) * size`` is what `winograd` loses at most.

    ``A [sum_c (G w G') * (B x B')] A'`` rounds twice in each entry of ``B x B'``, four times in ``G w G'``, once for
    each channel, and four times in the outer sums (Higham 2002, section 3.1). An entry of ``|B| |x| |B'|`` is at most 4
    times the largest of the tile, and what ``|A|`` sums of ``|G| |w| |G'|`` at most ``v v' * |w|``, ``v = (2, 1, 2)``.
    Tiles begin at even rows and columns, so that one reaches a pixel further than the kernel on either side.
    """
    channels = magnitude.shape[2]
    edges = ((0, 0, 0), *((low + 1, high + 1, 0) for low, high in equation.params["padding"]), (0, 0, 0))
    around = lax.pad(size, jnp.zeros((), size.dtype), edges)
    largest = lax.reduce_window(around, 0.0, lax.max, (1, 5, 5, 1), (1, 1, 1, 1), "VALID")
    v = jnp.array([2.0, 1.0, 2.0])
    return channels + 10, 4 * largest @ jnp.einsum("u,v,uvck->ck", v, v, magnitude)


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
    slack = jnp.where(size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, gamma(count) * size + count * TINY))
    out = _widened(low, high, error, slack, linear)
    # A sum of what is not negative is not negative.
    return out._replace(low=jnp.maximum(out.low, (1 + gamma(count)) * _bind(equation, jnp.minimum(a.low, 0))))


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
    low, high = _bind(equation, a.low), _bind(equation, a.high)
    contracts = equation.name in ("tanh", "logistic", "atan", "asinh")
    error = a.error if contracts else jnp.full_like(low, jnp.inf)
    match equation.name:
        case "sign" | "floor" | "ceil" | "round":
            return Interval(low, high, error)
        case "logistic":  # may be computed by a tanh, whose error is not relative to it
            out = _widened(low, high, error, TRANSCENDENTAL)
            return out._replace(low=jnp.maximum(out.low, 0), high=jnp.minimum(out.high, 1))
    out = _rounded_once(low, high, error, unit=max(TRANSCENDENTAL, equation.params.get("y", 1) * ROUNDOFF))
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
    return _rounded_once(low, high, jnp.full_like(low, jnp.inf), unit=TRANSCENDENTAL)


@rule("sin", "cos")
def _wave(equation, a):
    middle, radius = (a.low + a.high) / 2, (a.high - a.low) / 2 + TRANSCENDENTAL
    value = jnp.where(jnp.isfinite(a.size), _bind(equation, middle), jnp.nan)
    low, high = jnp.maximum(value - radius, -1), jnp.minimum(value + radius, 1)
    return Interval(low, high, a.error + TRANSCENDENTAL)


# --- choices ----------------------------------------------------------------------------------------------------------


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
    only_above, only_below = a.low > at + TINY, a.high < at - TINY

    def joined(end, join):
        value = jnp.where(only_above, above[end], jnp.where(only_below, below[end], join(above[end], below[end])))
        return jnp.where(jnp.isnan(a.low), jnp.nan, value)  # NaN is on neither side

    error = jnp.where(only_above, above.error, jnp.where(only_below, below.error, jnp.inf))
    return Interval(joined(0, jnp.minimum), joined(1, jnp.maximum), error)


def _larger(low, high) -> Array:
    return jnp.maximum(jnp.abs(low), jnp.abs(high))
