"""Rules of functions that a processor approximates, with a rounding allowance for each.

**Measured.** XLA's float32 results on the CPU (JAX 0.10.2) were compared with float64 over the
whole domain of each function: at every 17th to 37th float32 number, at every number where the error
is greatest, under ``jit``, ``vmap`` and ``lax.map``, and in arrays of 1 to 33 entries and of many.
Each allowance is at least twice the greatest error. What float64 itself loses here (708 units of
its own, in ``exp2``) is below ``2^-19 u``.

``exp2(x)`` is computed as ``exp(x log 2)`` and ``sinh(x)`` from ``exp(x - log 2)``. The argument of
``exp`` is rounded, so their errors grow with ``|x|``. ``cbrt`` is a power within loops.

**Products of exponentials.** XLA computes ``exp(a) * exp(b)`` as ``exp(a + b)``, and quotients in
the same way. The rounded sum makes an error of up to ``u |a + b|``; 65 u were measured at ``|a| +
|b| = 69``. Each such merge adds at most ``u`` times the sum of the magnitudes of the merged
arguments of ``exp``. Two merges cost ``exp`` at most ``2 |x| u``. They cost ``exp2``, whose
argument is ``x log 2``, at most ``1.4 |x| u`` beside the ``0.58 |x| u`` of its own. The allowances
pay for that. Programs that may merge an exponential more than `MOST_MERGES` times are refused.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from oipjax.bounds.interval.moves import UNROUNDED
from oipjax.bounds.interval.products import PRODUCTS, count_terms
from oipjax.bounds.interval.values import ROUNDOFF, TINY, Interval
from oipjax.jaxpr import PIECEWISE, Constant, Equation, Program, bind


class Allowance(NamedTuple):
    """The rounding error that a rule allows for, in units of ``u = 2^-24``.

    Relative errors are meant, except for the functions of `ABSOLUTE`.

    Attributes:
        base: the allowance at ``x = 0``.
        slope: how much is added for each unit of ``|x|``.
        measured: the greatest error that was measured.
    """

    base: float
    slope: float
    measured: float

    def at(self, x: Array) -> Array | float:
        """The allowance for arguments ``x``, as a number and not in ``u``."""
        if self.slope == 0:
            return self.base * ROUNDOFF
        return (self.base + self.slope * jnp.abs(x)) * ROUNDOFF


ALLOWANCES = {
    #          base slope measured        at x =
    "exp": Allowance(16, 2, 5.5),       # 88.7
    "exp2": Allowance(16, 2, 69.0),     # 127.0
    "expm1": Allowance(16, 0, 6.8),     # 0.031
    "log": Allowance(16, 0, 2.1),       # 0.88
    "log1p": Allowance(16, 0, 3.7),     # 0.41
    "sqrt": Allowance(16, 0, 1.0),      # everywhere
    "rsqrt": Allowance(16, 0, 2.9),     # 3e-21
    "cbrt": Allowance(40, 0, 15.6),     # 9e37
    "sinh": Allowance(24, 1, 25.4),     # 38.5
    "asinh": Allowance(16, 0, 4.3),     # 0.37
    "tanh": Allowance(16, 0, 4.9),      # 5.1
    "atan": Allowance(16, 0, 5.7),      # 0.001
    "erf": Allowance(16, 0, 6.8),       # 3.8
    "logistic": Allowance(16, 0, 1.5),  # 7.2
    "sin": Allowance(16, 0, 0.6),       # everywhere
    "cos": Allowance(16, 0, 0.6),       # everywhere
}  # fmt: skip
"""For each function its allowance and its greatest measured error, with the argument there."""
ABSOLUTE = ("logistic", "sin", "cos")
"""Functions whose allowance is absolute. ``logistic`` may be computed by a ``tanh``."""
CONTRACTIONS = ("tanh", "logistic", "atan", "asinh")
"""Functions that never rise faster than 1, so that they do not magnify an error."""
RANGES = {"tanh": (-1, 1), "logistic": (0, 1)}
"""Ends that no computed value leaves; ``erf`` comes to 1 + 4 u."""
SMALL_ROOT = 2.0**-42
"""The cube root of `TINY`: roots of smaller numbers may have the wrong sign."""
MOST_MERGES = 2
"""How often XLA may merge one exponential with others by a product or a quotient."""
EXPONENTIALS = ("exp", "exp2")
SUMS = ("add", "add_any", "sub", "reduce_sum", "reduce_window_sum", "cumsum")
CARRYING = (*UNROUNDED, *SUMS, "square", "reduce_precision")
"""Steps that XLA may leave out, as a sum with 0 or of one value, or move past a product."""


def monotone(equation: Equation, a: Interval) -> Interval:
    """A function that never falls."""
    _check_accuracy(equation)
    name = equation.name
    low = bind(equation, a.low)
    high = bind(equation, a.high)
    error = a.error if name in CONTRACTIONS else jnp.full_like(low, jnp.inf)
    out = _add_allowance(name, low, high, a.low, a.high, error)
    if name == "cbrt":
        return _near_zero(out, a)
    if name not in RANGES:
        return out
    least, greatest = RANGES[name]
    return out._replace(low=jnp.maximum(out.low, least), high=jnp.minimum(out.high, greatest))


def _near_zero(root: Interval, a: Interval) -> Interval:
    """An enclosure of cube roots, for arguments that may be taken as 0 too.

    XLA gives -6e-16 for the smallest positive numbers.
    """
    is_small = (a.low <= TINY) & (a.high >= -TINY)
    slack = jnp.where(is_small, SMALL_ROOT, 0.0)
    return Interval(low=root.low - slack, high=root.high + slack, error=root.error + slack)


def inverse_root(equation: Equation, a: Interval) -> Interval:
    """``1 / sqrt(a)``, which falls; NaN below 0."""
    _check_accuracy(equation)
    low = lax.rsqrt(a.high)
    high = lax.rsqrt(a.low)
    return _add_allowance("rsqrt", low, high, a.high, a.low, jnp.full_like(low, jnp.inf))


def _add_allowance(name: str, low, high, at_low, at_high, error) -> Interval:
    """The enclosure of computed values.

    The ends suffice: the exact function less or plus its allowance is monotone too.

    Args:
        name: of the function.
        low: its exact lower ends.
        high: its exact upper ends.
        at_low: the arguments that give ``low``.
        at_high: the arguments that give ``high``.
        error: how far its argument's error may move the exact value.
    """
    low_slack = ALLOWANCES[name].at(at_low)
    high_slack = ALLOWANCES[name].at(at_high)
    if name not in ABSOLUTE:
        low_slack = low_slack * jnp.abs(low)
        high_slack = high_slack * jnp.abs(high)
    return Interval(
        low=low - low_slack,
        high=high + high_slack,
        error=error + jnp.maximum(low_slack, high_slack),
    )


def wave(equation: Equation, a: Interval) -> Interval:
    """A sine or a cosine, which moves at most as far as its argument."""
    _check_accuracy(equation)
    allowance = ALLOWANCES[equation.name].at(a.low)
    middle = (a.low + a.high) / 2
    radius = (a.high - a.low) / 2 + allowance
    value = jnp.where(jnp.isfinite(a.size), bind(equation, middle), jnp.nan)
    return Interval(
        low=jnp.maximum(value - radius, -1),
        high=jnp.minimum(value + radius, 1),
        error=a.error + allowance,
    )


def _check_accuracy(equation: Equation) -> None:
    """The allowances were measured for functions of no stated accuracy."""
    accuracy = equation.params.get("accuracy")
    if accuracy is not None:
        raise ValueError(
            f"no bound is known for {equation.name!r} with accuracy={accuracy}; "
            "leave the accuracy out"
        )


@functools.lru_cache(maxsize=64)
def check_merges(program: Program) -> None:
    """Refuse programs in which XLA may merge an exponential more than `MOST_MERGES` times.

    Raises:
        ValueError: an exponential enters too many products.
    """
    _count_merges(program, {})


def _count_merges(program: Program, given: dict[int, int]) -> dict[int, int]:
    """For each variable that may carry exponentials, how often the most merged one was merged."""
    counts = dict(given)
    for equation in program.equations:
        carried = [counts[number] for number in equation.variables if number in counts]
        count = _count_after(equation, program, carried)
        if count is None:
            continue
        if count > MOST_MERGES:
            raise ValueError(
                f"no bound is known for products of more than {MOST_MERGES + 1} exponentials, "
                "which may be computed as one; add their arguments instead"
            )
        for number in equation.outputs:
            counts[number] = count
    return counts


def _count_after(equation: Equation, program: Program, carried: list[int]) -> int | None:
    """The count of a step's results; None if they carry no exponential.

    Args:
        equation: the step.
        program: the program that it is part of.
        carried: counts of those inputs that carry exponentials.
    """
    name = equation.name
    if name in EXPONENTIALS:
        return 0
    if name == PIECEWISE:
        body = equation.params["piecewise"].body
        counts = _count_merges(body, {body.inputs[0]: carried[0]} if carried else {})
        return counts.get(body.variable(0))
    if not carried:
        return None
    count = max(carried)
    if name in ("mul", "div"):
        return count + 1 if len(carried) > 1 else count
    if name == "integer_pow":
        # The sums within a power come to less than twice the magnitude of its exponent.
        return count + 2 if equation.params["y"] > 2 else count
    if name in PRODUCTS:
        shapes = [_shape(reference, program) for reference in equation.inputs]
        together = count + 1 if len(carried) > 1 else count
        return together if count_terms(equation, *shapes) == 1 else None
    return count if name in CARRYING else None


def _shape(reference, program: Program) -> tuple[int, ...]:
    if isinstance(reference, Constant):
        return jnp.shape(reference.value)
    return program.shapes[reference]
