"""Interval arithmetic: one rule per primitive encloses the results for all values of its inputs.

**Rounding.** A proof must hold for the program that runs, not only for real numbers. So an interval
encloses what a float32 evaluation gives, in whatever order it sums. A sum of ``n`` products widens
it by ``gamma_n = n u / (1 - n u)`` times the sum of the magnitudes, ``u = 2^-24`` (Higham 2002,
"Accuracy and Stability of Numerical Algorithms", section 3.1). An elementwise step widens it by
``u`` times its size, and a transcendental function by an allowance of its own
(`oipjax.bounds.interval.transcendental`). Numbers that are computed from parameters alone are
rounded too (`oipjax.bounds.interval.values.Known`). Numbers that may exceed the largest float32 are
infinite, numbers below ``2^-126`` may be flushed to 0, and numbers that may be NaN stay NaN.
Everything is computed in float64, whose own rounding is at most ``2^-19 u``. Beside an interval
goes ``error``, how far the float32 value may be from the exact one. Bounds that are found by other
means are widened by it.

**What is covered.** The program in float32 at full precision: on the CPU as XLA compiles it, on
other platforms as surveys and ascents are compiled (`oipjax.runtime.precision`), with convolutions
as sums of products. Convolutions that `oipjax.ops` computes by minimal filtering round more, which
is counted (`oipjax.bounds.interval.products`).

**What is not covered.** TF32 or bfloat16 products and other transforms (Winograd of larger tiles,
FFT) round more than this counts. So do networks that compute in float16, bfloat16 or float64, which
are refused. XLA may regroup factors, ``(a / b) / c`` as ``a / (b c)`` and ``(x c1) c2`` as ``x (c1
c2)``. Their rounding is counted, but a product of divisors or of constants that leaves the range of
float32 is not.

**Linear values.** Over images of mean 0 and a given norm, ``<w, x> + offset`` is at most ``offset +
norm(x) norm(w - mean(w))``. As long as every pixel enters a value once, the sums of ``w`` and
``w^2`` are carried along for it.
"""

from collections.abc import Callable

from oipjax.bounds.interval import arithmetic, choices, moves, transcendental
from oipjax.bounds.interval.moves import MOVES, UNROUNDED
from oipjax.bounds.interval.products import PRODUCTS, product
from oipjax.bounds.interval.values import Choice, Interval

__all__ = ["MOVES", "RULES", "UNROUNDED"]

MONOTONE = (
    "exp", "exp2", "expm1", "log", "log1p", "sqrt", "cbrt", "sinh", "asinh", "tanh", "atan", "erf",
    "logistic",
)  # fmt: skip
RULES: dict[str, Callable[..., Interval | Choice]] = {
    **dict.fromkeys(MOVES, moves.move),
    "reduce_precision": moves.reduce_precision,
    "concatenate": moves.concatenate,
    "stack": moves.concatenate,
    "pad": moves.pad,
    "add": arithmetic.add,
    "add_any": arithmetic.add,
    "sub": arithmetic.add,
    "neg": arithmetic.negate,
    "mul": arithmetic.multiply,
    "div": arithmetic.divide,
    "integer_pow": arithmetic.integer_power,
    "square": arithmetic.square,
    "abs": arithmetic.absolute,
    **dict.fromkeys(PRODUCTS, product),
    "reduce_sum": arithmetic.sum_entries,
    "reduce_window_sum": arithmetic.sum_entries,
    "cumsum": arithmetic.sum_entries,
    "max": arithmetic.extremum,
    "min": arithmetic.extremum,
    "reduce_max": arithmetic.reduce_extremum,
    "reduce_min": arithmetic.reduce_extremum,
    "reduce_window_max": arithmetic.reduce_extremum,
    "reduce_window_min": arithmetic.reduce_extremum,
    "cummax": arithmetic.reduce_extremum,
    "cummin": arithmetic.reduce_extremum,
    "clamp": arithmetic.clamp,
    "sign": arithmetic.staircase,
    "floor": arithmetic.staircase,
    "ceil": arithmetic.staircase,
    "round": arithmetic.staircase,
    **dict.fromkeys(MONOTONE, transcendental.monotone),
    "rsqrt": transcendental.inverse_root,
    "sin": transcendental.wave,
    "cos": transcendental.wave,
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), choices.compare),
    "not": choices.negation,
    "and": choices.conjunction,
    "or": choices.conjunction,
    "is_finite": choices.is_finite,
    "select_n": choices.select,
}
"""For each primitive its rule ``(equation, *inputs) -> Interval or Choice``."""
