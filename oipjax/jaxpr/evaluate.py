"""Steps of a program computed on arrays, in float64 and so without the rounding of float32."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.jaxpr.piecewise import PIECEWISE, Piecewise
from oipjax.jaxpr.program import Constant, Equation

TYPE_PARAMETERS = ("new_dtype", "preferred_element_type", "dtype")
"""Parameters of primitives that name the type of a result."""


def in_float64(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a primitive, with float64 for any other floating type."""
    changed = dict(params)
    for name in TYPE_PARAMETERS:
        dtype = params.get(name)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
            changed[name] = np.dtype(np.float64)
    return changed


def as_float64(value: Any) -> Array:
    """An array; floating numbers become float64."""
    array = jnp.asarray(value)
    return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def bind(equation: Equation, *values: Any) -> Any:
    """The first output of a primitive step for arrays."""
    out = equation.primitive.bind(*values, **in_float64(equation.params))
    return out[0] if equation.primitive.multiple_results else out


def evaluate_step(equation: Equation, inputs: list[Any]) -> list[Any]:
    """All outputs of a step, primitive or piecewise, for arrays."""
    if equation.name == PIECEWISE:
        variables = []
        for value, reference in zip(inputs, equation.inputs, strict=True):
            if not isinstance(reference, Constant):
                variables.append(value)
        return [_evaluate_piecewise(equation.params["piecewise"], variables)]
    out = equation.primitive.bind(*inputs, **in_float64(equation.params))
    return list(out) if equation.primitive.multiple_results else [out]


def _evaluate_piecewise(piecewise: Piecewise, variables: list[Any]) -> Any:
    body = piecewise.body
    values = dict(zip(body.inputs, variables, strict=True))

    def value_of(reference) -> Array:
        is_constant = isinstance(reference, Constant)
        return as_float64(reference.value if is_constant else values[reference])

    for equation in body.equations:
        inputs = [value_of(reference) for reference in equation.inputs]
        values.update(zip(equation.outputs, evaluate_step(equation, inputs), strict=True))
    return value_of(body.outputs[0])
