"""A network as a flat list of primitive steps: what the bounds are computed on.

`trace` turns ``apply`` into its jaxpr and writes all calls out (jit, custom gradients,
rematerialisation), so that a bound needs one rule per primitive and no knowledge of how a network
was written. Where a function chooses by platform (``lax.platform_dependent``) the default branch is
taken: the branches compute the same function, and what they round differently is covered by the
    slack for rounding (see `oipjax.bounds.interval.rules`).
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from oipjax.model import Model
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
COMPARISONS = {"ge": True, "gt": True, "le": False, "lt": False}
"""Comparison -> what it says of a value far above the number it is compared with."""
THRESHOLD_ABOVE = ("ge", "lt")
"""Those that take the number itself for one of the values above it."""
ELEMENTWISE = (
    "add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "square", "integer_pow", "sqrt", "rsqrt", "cbrt",
    "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf", "sin", "cos", "sinh", "atan", "asinh",
    "select_n", "clamp", "gt", "ge", "lt", "le", "eq", "ne", "and", "or", "not", "is_finite", "convert_element_type",
    "copy", "copy_p", "stop_gradient",
)  # fmt: skip
"""Primitives each of whose results depends on one entry of each of its arguments."""
PIECEWISE = "piecewise"


class Constant(NamedTuple):
    """A number or array that is written in the program itself."""

    value: Any


Reference = int | Constant
"""A value of the program: the number of a variable, or a constant."""


class Equation(NamedTuple):
    """One step: ``output = primitive(*inputs, **params)``."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Reference, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the primitive; `PIECEWISE` for a function that is kept whole."""
        return getattr(self.primitive, "name", self.primitive)

    def variable(self, index: int) -> int:
        """The number of an input that is a variable."""
        reference = self.inputs[index]
        if isinstance(reference, Constant):
            raise ValueError(f"input {index} of {self.name} is a constant")
        return reference

    def rectified(self) -> int | None:
        """The number of the variable ``x`` if the step is a ReLU, ``max(x, 0)``."""
        numbers = [ref for ref in self.inputs if not isinstance(ref, Constant)]
        values = [ref.value for ref in self.inputs if isinstance(ref, Constant)]
        if (
            self.name != "max"
            or len(values) != 1
            or len(numbers) != 1
            or np.ndim(values[0])
            or values[0] != 0
        ):
            return None
        return numbers[0]


def in_float64(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a primitive, with float64 for any other floating type."""
    types = ("new_dtype", "preferred_element_type", "dtype")

    def wanted(name, value):
        floating = name in types and value is not None and jnp.issubdtype(value, jnp.floating)
        return np.dtype(np.float64) if floating else value

    return {name: wanted(name, value) for name, value in params.items()}


def bind(equation: Equation, *values: Any) -> Any:
    """The output of one step, in float64."""
    out = equation.primitive.bind(*values, **in_float64(equation.params))
    return out[0] if equation.primitive.multiple_results else out


class Piecewise(NamedTuple):
    """An elementwise function of one variable that looks at which side of one threshold its argument lies.

    Attributes:
        body: the function.
        threshold: what the argument is compared with.
        sides: outputs of ``body``'s comparisons with it: {number of the variable: what it is above
            the threshold}. All of them put the threshold itself on the same side.
    """

    body: "Program"
    threshold: float
    sides: dict[int, bool]


@dataclass(frozen=True, eq=False)
class Program:
    """A flat list of equations over numbered variables.

    Attributes:
        equations: in an order in which they can be computed.
        inputs: numbers of the variables that are given; for a network all its parameters and, last,
            the images.
        outputs: what is computed; for a network in the order of ``Model.layers``.
        shapes: of all variables, by their numbers.
    """

    equations: tuple[Equation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Reference, ...]
    shapes: tuple[tuple[int, ...], ...]

    def made(self, number: int) -> Equation | None:
        """The step that makes a variable; None for what is given."""
        return next((equation for equation in self.equations if number in equation.outputs), None)

    def variable(self, index: int) -> int:
        """The number of an output's variable.

        Raises:
            ValueError: the output is a constant.
        """
        reference = self.outputs[index]
        if isinstance(reference, Constant):
            raise ValueError(f"layer {index} of the network does not depend on anything")
        return reference


@functools.lru_cache(maxsize=256)
def restricted(program: Program, variables: frozenset[int]) -> Program:
    """The steps of ``program`` that some variables depend on; numbers and outputs stay what they are."""
    wanted, steps = set(variables), []
    for equation in reversed(program.equations):
        if wanted.intersection(equation.outputs):
            steps.append(equation)
            wanted.update(
                reference for reference in equation.inputs if not isinstance(reference, Constant)
            )
    return replace(program, equations=tuple(reversed(steps)))


def trace(model: Model) -> Program:
    """The program of ``model.apply`` for one image; its outputs are ``model.layers``."""
    leaves, structure = jax.tree.flatten(model.params)
    kinds = tuple((np.shape(leaf), np.dtype(leaf.dtype)) for leaf in leaves)
    return _trace(model.apply, structure, kinds, model.input_shape, model.layers)


@functools.lru_cache(maxsize=64)
def _trace(apply, structure, kinds, input_shape, layers) -> Program:
    leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]
    image = jax.ShapeDtypeStruct((1, *input_shape), np.float32)

    def ordered(leaves, x):
        out = apply(jax.tree.unflatten(structure, leaves), x)
        return [out[name] for name in layers]

    # As it runs: in float32, even where bounds are being computed in float64.
    with jax.enable_x64(False), trace_only():
        return flatten(jax.make_jaxpr(ordered)(leaves, image))


def flatten(closed: Any) -> Program:
    """A closed jaxpr with all its calls written out."""
    writer = _Writer()
    inputs = tuple(writer.fresh(var) for var in closed.jaxpr.invars)
    return writer.program(inputs, writer.write(closed.jaxpr, closed.consts, inputs))


@functools.lru_cache(maxsize=64)
def wholes(program: Program) -> tuple[int, ...]:
    """For each variable the first one that it repeats, or is the leading part of (along h and w): itself, if none.

    A network may compute a deep layer from a crop ``x[:, :h, :w]`` of the image, beside its shallow
    layers from all of it. Entry by entry the values are the same, so what is known of a layer is
    known of its crops.
    """
    first: dict[Any, int] = {}
    whole, cropped = list(range(len(program.shapes))), set()
    for equation in program.equations:
        source = equation.inputs[0] if equation.inputs else None
        if isinstance(source, int) and is_crop(equation, program.shapes):
            whole[equation.outputs[0]] = whole[source]
            cropped.add(equation.outputs[0])
            continue
        if any(reference in cropped for reference in equation.inputs if isinstance(reference, int)):
            if not _is_local(equation, program.shapes, cropped):
                continue
            cropped.update(equation.outputs)
        inputs = tuple(
            _identity(ref) if isinstance(ref, Constant) else whole[ref] for ref in equation.inputs
        )
        try:
            known = first.setdefault(
                (equation.name, tuple(sorted(equation.params.items())), inputs), len(first)
            )
        except TypeError:  # parameters that cannot be compared
            continue
        for place, number in enumerate(equation.outputs):
            whole[number] = first.setdefault((known, place), number)
    return tuple(whole)


def is_crop(equation: Equation, shapes: tuple[tuple[int, ...], ...]) -> bool:
    """Whether the step takes the leading rows and columns, ``x[:, :h, :w]``, of ``x[n, h, w, c]``."""
    if equation.name != "slice" or isinstance(equation.inputs[0], Constant):
        return False
    given, taken = shapes[equation.inputs[0]], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,)
    starts = equation.params["start_indices"]
    return (
        len(given) == 4
        and not any(starts)
        and set(strides) == {1}
        and given[::3] == tuple(taken[::3])
    )


def _is_local(equation: Equation, shapes, cropped: set[int]) -> bool:
    """Whether a step on the leading part of a value gives the leading part of what it gives on the whole."""
    part, params = equation.inputs[0], equation.params
    rest = [ref for ref in equation.inputs[1:] if not isinstance(ref, Constant)]
    if equation.name in ("conv_general_dilated", "reduce_window_max"):
        if part not in cropped or cropped.intersection(rest) or np.any(params["padding"]):
            return False
        if equation.name == "reduce_window_max":
            return set(params["base_dilation"]) == {1} and params["window_dimensions"][::3] == (
                1,
                1,
            )
        numbers = params["dimension_numbers"]
        spatial = numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
        return spatial and set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1
    if equation.name not in ("max", "min", "add", "sub", "mul"):
        return False
    shape = shapes[equation.outputs[0]]
    given = [
        np.shape(ref.value) if isinstance(ref, Constant) else shapes[ref] for ref in equation.inputs
    ]
    same = [isinstance(ref, int) and ref in cropped for ref in equation.inputs]
    return all(
        each == shape if part else each == () or (len(each) == 4 and each[1:3] == (1, 1))
        for each, part in zip(given, same, strict=True)
    )


def _identity(constant: Constant):
    """What tells one constant from another."""
    value = np.asarray(constant.value)
    return value.dtype.str, value.shape, value.tobytes()


class _Writer:
    def __init__(self):
        self.equations: list[Equation] = []
        self.shapes: list[tuple[int, ...]] = []

    def fresh(self, var) -> int:
        self.shapes.append(tuple(var.aval.shape))
        return len(self.shapes) - 1

    def program(self, inputs: tuple[int, ...], outputs: list[Reference]) -> Program:
        return Program(tuple(self.equations), inputs, tuple(outputs), tuple(self.shapes))

    def write(self, jaxpr, consts, arguments) -> list[Reference]:
        known: dict[Any, Reference] = dict(zip(jaxpr.invars, arguments, strict=True))
        known |= {var: Constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom) -> Reference:
            return _literal(atom) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            inputs = tuple(read(atom) for atom in equation.invars)
            known |= dict(zip(equation.outvars, self.step(equation, inputs), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation, inputs) -> list[Reference]:
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            inner = _inner(params)
            if (piecewise := _piecewise(inner, inputs)) is not None:
                return self.append(PIECEWISE, {"piecewise": piecewise}, inputs, equation.outvars)
            return self.write(inner.jaxpr, inner.consts, inputs)
        if name == "platform_index":
            return [Constant(_default(params["platforms"]))]
        if name == "cond" and isinstance(inputs[0], Constant):
            branch = params["branches"][int(inputs[0].value)]
            return self.write(branch.jaxpr, branch.consts, inputs[1:])
        return self.append(equation.primitive, params, inputs, equation.outvars)

    def append(self, primitive, params, inputs, outvars) -> list[Reference]:
        for var in outvars:
            kind = var.aval.dtype
            if jnp.issubdtype(kind, jnp.floating) and kind != np.float32:
                raise ValueError(
                    f"bounds are for float32 networks, and this one computes in {kind}: a proof would not hold for it"
                )
        outputs = tuple(self.fresh(var) for var in outvars)
        self.equations.append(Equation(primitive, params, inputs, outputs))
        return list(outputs)


def _literal(atom) -> Constant:
    """A number as the program has it: rounded to its type."""
    return Constant(np.asarray(atom.val, atom.aval.dtype))


def _inner(params):
    inner = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def _default(platforms) -> int:
    """The branch for a platform that is not named; the last one if all are."""
    for index, names in enumerate(platforms):
        if names is None or "default" in names:
            return index
    return len(platforms) - 1


def _piecewise(inner, inputs) -> Piecewise | None:
    """The call as a function in two pieces, if it is elementwise in one variable and compares it with one number."""
    jaxpr = inner.jaxpr
    variables = [
        var
        for var, value in zip(jaxpr.invars, inputs, strict=True)
        if not isinstance(value, Constant)
    ]
    if (
        len(variables) != 1
        or len(jaxpr.outvars) != 1
        or jaxpr.outvars[0].aval.shape != variables[0].aval.shape
    ):
        return None
    tests = [
        e for e in jaxpr.eqns if e.primitive.name in COMPARISONS and e.invars[0] is variables[0]
    ]
    numbers = {_number(e.invars[1], jaxpr, inputs) for e in tests}
    if len(numbers) != 1 or None in numbers:
        return None
    writer = _Writer()
    start = writer.fresh(variables[0])
    values = [value if isinstance(value, Constant) else start for value in inputs]
    body = writer.program((start,), writer.write(jaxpr, inner.consts, values))
    tests = [e for e in body.equations if e.name in COMPARISONS and e.inputs[0] == start]
    tests = [e for e in tests if _constant(e.inputs[1]) in numbers]
    if not _is_elementwise(body) or len({e.name in THRESHOLD_ABOVE for e in tests}) != 1:
        return None
    return Piecewise(body, numbers.pop(), {e.outputs[0]: COMPARISONS[e.name] for e in tests})  # pyright: ignore


def _is_elementwise(body: Program) -> bool:
    """Whether each entry of the output depends on the same entry of the input, and on nothing else."""
    shape, dependent = body.shapes[body.inputs[0]], set(body.inputs)
    for equation in body.equations:
        if dependent.isdisjoint(ref for ref in equation.inputs if not isinstance(ref, Constant)):
            continue
        if equation.name not in (*ELEMENTWISE, PIECEWISE):
            return False
        if any(body.shapes[number] != shape for number in equation.outputs):
            return False
        dependent.update(equation.outputs)
    return not isinstance(body.outputs[0], Constant) and body.outputs[0] in dependent


def _number(atom, jaxpr, inputs) -> float | None:
    if isinstance(atom, core.Literal):
        return _constant(_literal(atom))
    given = dict(zip(jaxpr.invars, inputs, strict=True))
    return _constant(given.get(atom))


def _constant(value) -> float | None:
    return float(value.value) if isinstance(value, Constant) and np.ndim(value.value) == 0 else None
