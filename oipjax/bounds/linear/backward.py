"""Linear functions of a layer, pulled back through the network to values whose limits are known.

A linear step is pulled back exactly, through its transpose. A ReLU or a maximum is replaced by a
line above or below, as the sign of its coefficient demands (Zhang et al. 2018, "Efficient Neural
Network Robustness Certification with General Activation Functions" (CROWN), arXiv:1811.00866; Singh
et al. 2019, "An abstract domain for certifying neural networks" (DeepPoly), doi:10.1145/3290354).
Without lines the pull stops at the first value that is not linear.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from oipjax.bounds.interval import MOVES, PRODUCTS, Choice, Interval, exact_value, value_of
from oipjax.jaxpr import Equation, Program, evaluate_step

ROUNDING = 1e-9
"""Of all `magnitudes`: far more than float64 loses."""
AFFINE = (
    *MOVES, *PRODUCTS, "concatenate", "stack", "pad", "add", "add_any", "sub", "neg", "mul", "div",
    "reduce_sum", "reduce_window_sum", "cumsum",
)  # fmt: skip
"""Primitives that are affine in each value that depends on the image, if the others do not."""


class Pulled(NamedTuple):
    """``m`` functions ``offset + sum(coefficients * values)`` that bound others from above.

    Attributes:
        offset: ``[m]``.
        coefficients: {number of a variable: ``[m, *shape]``}.
    """

    offset: Array
    coefficients: dict[int, Array]

    def upper(self, values: Mapping[int, Any]) -> Array:
        """Their greatest values ``[m]``, each variable being anything in its interval."""
        total = self.offset
        for number, coefficients in self.coefficients.items():
            total = total + _greatest(coefficients, values[number])
        return total


Lines = Callable[[Equation, Array, Interval, Interval], tuple[Array, Array] | None]
"""``lines(equation, c[m, ...], input, output)`` gives two arrays, or None to stop the pull there.

They are the coefficients of the input ``[m, ...]`` and an offset ``[m]``.
"""


def _greatest(c: Array, value: Interval) -> Array:
    """The greatest sums ``[m]`` of ``c[m, ...] * value``."""
    axes = inner_axes(c)
    from_high = jnp.maximum(c, 0) * value.high[None]
    from_low = jnp.minimum(c, 0) * value.low[None]
    best = jnp.sum(from_high + from_low, axes)
    linear = value.linear
    if linear is None or not linear.distinct:
        return best
    # Only the images themselves: <c, x> for x of mean 0 and a given norm.
    sums = jnp.sum(c * linear.total[None], axes)
    squares = jnp.sum(jnp.square(c) * linear.square[None], axes)
    offsets = jnp.sum(c * linear.offset[None], axes)
    _, high = linear.of(offsets, sums, squares).ends
    return jnp.minimum(best, high)


def pull(
    program: Program,
    values: Mapping[int, Any],
    start: int,
    specs: Array,
    lines: Lines | None = None,
) -> Pulled:
    """Pull linear functions of one variable back as far as it goes.

    Args:
        program: the network.
        values: of all its variables, from `evaluation.evaluate`.
        start: number of the variable.
        specs: ``[m, *shape]``, the functions ``sum(spec * variable)``.
        lines: replaces steps that are not linear; without it the pull ends there.
    """
    offset = jnp.zeros(specs.shape[0])
    waiting = {start: specs}
    ended: dict[int, Array] = {}
    for equation in reversed(program.equations):
        output = equation.outputs[0]
        c = waiting.pop(output, None)
        if c is None:
            continue
        inputs = [value_of(values, reference) for reference in equation.inputs]
        unknown = [i for i, value in enumerate(inputs) if isinstance(value, Interval)]
        parts = _affine_parts(equation, inputs, unknown, c)
        if parts is None and lines is not None and len(unknown) == 1:
            line = lines(equation, c, inputs[unknown[0]], values[output])
            parts = None if line is None else ([line[0]], line[1])
        if parts is None:
            ended[output] = c
            continue
        coefficients, more = parts
        offset = offset + more
        for i, part in zip(unknown, coefficients, strict=True):
            number = equation.variable(i)
            waiting[number] = waiting[number] + part if number in waiting else part
    return Pulled(offset=offset, coefficients=ended | waiting)


def _affine_parts(
    equation: Equation, inputs: list[Any], unknown: list[int], c: Array
) -> tuple[Any, Array] | None:
    """Coefficients of every unknown input of a step and the offset; None if it is not affine."""
    if not _is_affine(equation, unknown):
        return None

    def step(*parts):
        given = [exact_value(value) for value in inputs]
        for i, part in zip(unknown, parts, strict=True):
            given[i] = part
        return evaluate_step(equation, given)[0]

    zeros = [jnp.zeros_like(inputs[i].low) for i in unknown]
    at_zero, transpose = jax.vjp(step, *zeros)
    offset = jnp.sum(c * at_zero[None], inner_axes(c))
    return jax.vmap(transpose)(c), offset


def _is_affine(equation: Equation, unknown: list[int]) -> bool:
    """Whether a step is affine in its unknown inputs together."""
    if equation.name not in AFFINE:
        return False
    if equation.name == "div":
        return unknown == [0]
    is_product = equation.name in PRODUCTS or equation.name == "mul"
    return not is_product or len(unknown) <= 1


def magnitudes(program: Program, values: Mapping[int, Any]) -> dict[int, Array]:
    """For each value that depends on the image, the sum of the magnitudes that `pull` may add up.

    Coefficients may cancel, and so may the values that they multiply. The loss of float64 is a
    share of this sum, not of the result.
    """
    sizes: dict[int, Array] = {}
    for number in program.inputs:
        if isinstance(values[number], Interval):
            sizes[number] = values[number].size
    for equation in program.equations:
        output = equation.outputs[0]
        if isinstance(values[output], Interval):
            sizes[output] = _size(equation, values, sizes)
    return sizes


def _size(equation: Equation, values: Mapping[int, Any], sizes: dict[int, Array]) -> Any:
    """The magnitude of the output of one step."""
    given = _sizes_of_inputs(equation, values, sizes)
    if equation.name in ("neg", "sub"):
        return sum(given[1:], given[0])
    if equation.name in AFFINE:
        return evaluate_step(equation, given)[0]
    number = equation.rectified()
    if number is not None:
        return given[equation.inputs.index(number)] + values[number].size
    if equation.name in ("reduce_window_max", "reduce_max"):
        return evaluate_step(equation, given)[0]
    return values[equation.outputs[0]].size


def _sizes_of_inputs(
    equation: Equation, values: Mapping[int, Any], sizes: dict[int, Array]
) -> list[Any]:
    """Magnitudes of inputs that depend on the image, absolute values of the other numbers."""
    given: list[Any] = []
    for index, reference in enumerate(equation.inputs):
        value = value_of(values, reference)
        if isinstance(value, Interval):
            given.append(sizes[equation.variable(index)])
            continue
        known: Any = exact_value(value)
        is_floating = not isinstance(known, Choice) and jnp.issubdtype(known.dtype, jnp.floating)
        given.append(jnp.abs(known) if is_floating else known)  # pyright: ignore[reportArgumentType]
    return given


def inner_axes(c: Array) -> tuple[int, ...]:
    """All axes but the first."""
    return tuple(range(1, c.ndim))
