"""A function as a flat list of primitive steps.

All calls of a jaxpr are written out (jit, custom gradients, rematerialisation). So a bound needs
one rule per primitive and no knowledge of how a network was written. Where a function chooses by
platform (``lax.platform_dependent``) the default branch is taken. The branches compute the same
function, and the bounds allow for their different rounding (`oipjax.bounds.interval.rules`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from oipjax.jaxpr.piecewise import PIECEWISE, Piecewise, as_constant, as_piecewise, find_threshold
from oipjax.jaxpr.program import Constant, Equation, Program, Reference, Shape
from oipjax.ops import trace_only

CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "checkpoint",
    "remat2",
)
"""Primitives that call an inner jaxpr."""


def flatten_apply(
    apply: Callable[[Any, Any], dict[str, Any]],
    params: Any,
    input_shape: Shape,
    layers: tuple[str, ...],
) -> Program:
    """The program of a network's ``apply(params, images)`` for one image.

    The same arguments give the same `Program` object, so it can serve as a key.

    Args:
        apply: the network: ``(params, images[n, h, w, c]) -> {layer: array}``.
        params: its parameters; only their shapes and types matter.
        input_shape: ``(h, w, c)`` of an image.
        layers: names of the layers, which become the outputs in this order.

    Raises:
        ValueError: the network computes in another floating type than float32.
    """
    leaves, structure = jax.tree.flatten(params)
    kinds = tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
    return _flatten_apply(apply, structure, kinds, input_shape, layers)


@functools.lru_cache(maxsize=64)
def _flatten_apply(apply, structure, kinds, input_shape, layers) -> Program:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]
    image = jax.ShapeDtypeStruct((1, *input_shape), np.float32)

    def layer_values(leaves, x):
        out = apply(jax.tree.unflatten(structure, leaves), x)
        return [out[name] for name in layers]

    # The network runs in float32, also while bounds are computed in float64.
    with jax.enable_x64(False), trace_only():
        return flatten_jaxpr(jax.make_jaxpr(layer_values)(leaves, image))


def flatten_jaxpr(closed: core.ClosedJaxpr) -> Program:
    """A closed jaxpr with all its calls written out.

    Raises:
        ValueError: a step computes in another floating type than float32.
    """
    writer = _Writer()
    inputs = [writer.new_variable(var) for var in closed.jaxpr.invars]
    outputs = writer.write(closed.jaxpr, closed.consts, inputs)
    return writer.program(inputs, outputs)


class _Writer:
    """Collects the steps of a program."""

    def __init__(self):
        self.equations: list[Equation] = []
        self.shapes: list[Shape] = []

    def new_variable(self, var) -> int:
        """The number of a new variable."""
        self.shapes.append(tuple(var.aval.shape))
        return len(self.shapes) - 1

    def program(self, inputs: list[int], outputs: list[Reference]) -> Program:
        """All that was written so far."""
        return Program(
            equations=tuple(self.equations),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            shapes=tuple(self.shapes),
        )

    def write(self, jaxpr, consts, arguments) -> list[Reference]:
        """Write all steps of a jaxpr; returns its outputs."""
        known: dict[Any, Reference] = {}
        known.update(zip(jaxpr.invars, arguments, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            known[var] = Constant(value)

        def reference(atom) -> Reference:
            return as_constant(atom) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            inputs = tuple(reference(atom) for atom in equation.invars)
            outputs = self._write_step(equation, inputs)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [reference(atom) for atom in jaxpr.outvars]

    def _write_step(self, equation, inputs: tuple[Reference, ...]) -> list[Reference]:
        primitive = equation.primitive
        params = equation.params
        if primitive.name in CALLS:
            inner = _inner_jaxpr(params)
            piecewise = _find_piecewise(inner, inputs)
            if piecewise is None:
                return self.write(inner.jaxpr, inner.consts, inputs)
            found = {"piecewise": piecewise}
            return self._append(PIECEWISE, None, found, inputs, equation.outvars)
        if primitive.name == "platform_index":
            return [Constant(_default_branch(params["platforms"]))]
        if primitive.name == "cond" and isinstance(inputs[0], Constant):
            branch = params["branches"][int(inputs[0].value)]
            return self.write(branch.jaxpr, branch.consts, inputs[1:])
        return self._append(primitive.name, primitive, params, inputs, equation.outvars)

    def _append(self, name: str, primitive, params, inputs, outvars) -> list[Reference]:
        for var in outvars:
            _check_type(var.aval.dtype)
        outputs = tuple(self.new_variable(var) for var in outvars)
        self.equations.append(Equation(name, primitive, params, inputs, outputs))
        return list(outputs)


def _check_type(dtype) -> None:
    if jnp.issubdtype(dtype, jnp.floating) and dtype != np.float32:
        raise ValueError(
            f"bounds are for float32 networks, and this one computes in {dtype}: "
            "a proof would not hold for it"
        )


def _inner_jaxpr(params) -> core.ClosedJaxpr:
    """The function that a call calls."""
    inner = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def _default_branch(platforms) -> int:
    """The branch for a platform that is not named; the last one if all are."""
    for index, names in enumerate(platforms):
        if names is None or "default" in names:
            return index
    return len(platforms) - 1


def _find_piecewise(inner: core.ClosedJaxpr, inputs: tuple[Reference, ...]) -> Piecewise | None:
    """A call as a function in two pieces, if it is elementwise and compares with one number."""
    threshold = find_threshold(inner.jaxpr, inputs)
    if threshold is None:
        return None
    writer = _Writer()
    arguments: list[Reference] = []
    variables: list[int] = []
    for var, value in zip(inner.jaxpr.invars, inputs, strict=True):
        if isinstance(value, Constant):
            arguments.append(value)
        else:
            variables.append(writer.new_variable(var))
            arguments.append(variables[-1])
    outputs = writer.write(inner.jaxpr, inner.consts, arguments)
    return as_piecewise(writer.program(variables, outputs), threshold)
