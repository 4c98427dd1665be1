"""Linear functions of a layer, pulled back through the network to values whose limits are known.

What is linear is exact, through the transpose of each step; a ReLU or a maximum is replaced by a
line above or below, whichever the sign of its coefficient asks for (Zhang et al. 2018, "Efficient
Neural Network Robustness Certification with General Activation Functions" (CROWN),
arXiv:1811.00866; Singh et al. 2019, "An abstract domain for certifying neural networks" (DeepPoly),
doi:10.1145/3290354). Without lines the pull stops at the first value that is not linear.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from oipjax.bounds.interval import MOVES, PRODUCTS, Choice, Interval
from oipjax.bounds.interval import exact_value as exact
from oipjax.bounds.interval import value_of as read
from oipjax.jaxpr import Equation, Program
from oipjax.jaxpr import evaluate_step as exactly

ROUNDING = 1e-9
"""Of all `magnitudes`: far more than float64 loses."""
AFFINE = (
    *MOVES, *PRODUCTS, "concatenate", "stack", "pad", "add", "add_any", "sub", "neg", "mul", "div", "reduce_sum",
    "reduce_window_sum", "cumsum",
)  # fmt: skip
"""Primitives that are affine in each value that depends on the image, as long as the others do not."""


class Pulled(NamedTuple):
    """``m`` functions ``offset + sum(coefficients * values)``, upper bounds of those that were asked for.

    Attributes:
        offset: ``[m]``.
        coefficients: {number of a variable: ``[m, *shape]``}.
    """

    offset: Array
    coefficients: dict[int, Array]

    def upper(self, values: Mapping[int, Any]) -> Array:
        """Their greatest values ``[m]``, each variable being anything in its interval."""
        total = self.offset
        for number, c in self.coefficients.items():
            low, high, _, linear = values[number]
            axes = tuple(range(1, c.ndim))
            best = jnp.sum(jnp.maximum(c, 0) * high[None] + jnp.minimum(c, 0) * low[None], axes)
            if linear is not None and linear.distinct:
                # Only the images themselves: <c, x> for x of mean 0 and a given norm.
                sums = jnp.sum(c * linear.total[None], axes)
                squares = jnp.sum(jnp.square(c) * linear.square[None], axes)
                offsets = jnp.sum(c * linear.offset[None], axes)
                best = jnp.minimum(best, linear.of(offsets, sums, squares).ends[1])
            total = total + best
        return total


Lines = Callable[[Equation, Array, Interval, Interval], tuple[Array, Array] | None]
"""``lines(equation, c[m, ...], input, output) -> (the input's coefficients [m, ...], offset [m])``, or None to stop."""


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
        lines: how to go on below what is not linear; by default that is where it ends.
    """
    offset, waiting, ended = jnp.zeros(specs.shape[0]), {start: specs}, {}
    for equation in reversed(program.equations):
        c = waiting.pop(equation.outputs[0], None)
        if c is None:
            continue
        inputs = [read(values, reference) for reference in equation.inputs]
        unknown = [i for i, value in enumerate(inputs) if isinstance(value, Interval)]
        parts = _parts(equation, inputs, unknown, c)
        if parts is None and lines is not None and len(unknown) == 1:
            line = lines(equation, c, inputs[unknown[0]], values[equation.outputs[0]])
            parts = line and ([line[0]], line[1])
        if parts is None:
            ended[equation.outputs[0]] = c
            continue
        offset = offset + parts[1]
        for i, part in zip(unknown, parts[0], strict=True):
            number = equation.variable(i)
            waiting[number] = waiting[number] + part if number in waiting else part
    return Pulled(offset, ended | waiting)


def _parts(equation: Equation, inputs: list[Any], unknown: list[int], c: Array):
    """Coefficients of every unknown input, and the offset, of one affine step; None if it is not one."""
    if equation.name not in AFFINE or (equation.name in (*PRODUCTS, "mul") and len(unknown) > 1):
        return None
    if equation.name == "div" and unknown != [0]:
        return None

    def step(*parts):
        given = [exact(value) for value in inputs]
        for i, part in zip(unknown, parts, strict=True):
            given[i] = part
        return exactly(equation, given)[0]

    at_zero, transpose = jax.vjp(step, *(jnp.zeros_like(inputs[i].low) for i in unknown))
    return jax.vmap(transpose)(c), jnp.sum(c * at_zero[None], tuple(range(1, c.ndim)))


def magnitudes(program: Program, values: Mapping[int, Any]) -> dict[int, Array]:
    """For values that depend on the image, the sum of the magnitudes of all that `pull` may add up for them.

    Coefficients may cancel, and so may what they multiply: what float64 loses is a share of this,
    not of the result.
    """
    sizes = {
        number: values[number].size
        for number in program.inputs
        if isinstance(values[number], Interval)
    }
    for equation in program.equations:
        out = values[equation.outputs[0]]
        if not isinstance(out, Interval):
            continue
        given: list[Any] = []
        for index, reference in enumerate(equation.inputs):
            value = read(values, reference)
            if isinstance(value, Interval):
                given.append(sizes[equation.variable(index)])
            else:
                known: Any = exact(value)
                floating = not isinstance(known, Choice) and jnp.issubdtype(
                    known.dtype, jnp.floating
                )
                given.append(jnp.abs(known) if floating else known)  # pyright: ignore[reportArgumentType]
        if equation.name in ("neg", "sub"):
            size = sum(given[1:], given[0])
        elif equation.name in AFFINE:
            size = exactly(equation, given)[0]
        elif (number := equation.rectified()) is not None:
            size = given[equation.inputs.index(number)] + values[number].size
        elif equation.name in ("reduce_window_max", "reduce_max"):
            size = exactly(equation, given)[0]
        else:
            size = out.size
        sizes[equation.outputs[0]] = size
    return sizes
