"""A flat list of primitive steps over numbered variables, and questions about it."""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Constant(NamedTuple):
    """A number or array that is written in the program itself."""

    value: Any


Reference = int | Constant
"""A value of the program: the number of a variable, or a constant."""


class Equation(NamedTuple):
    """One step: ``outputs = primitive(*inputs, **params)``.

    Attributes:
        name: name of the primitive, or `oipjax.jaxpr.PIECEWISE`.
        primitive: the JAX primitive; None for a piecewise function.
        params: parameters of the primitive.
        inputs: variables and constants.
        outputs: numbers of the variables that the step makes.
    """

    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Reference, ...]
    outputs: tuple[int, ...]

    @property
    def variables(self) -> tuple[int, ...]:
        """The numbers of the inputs that are variables."""
        return tuple(ref for ref in self.inputs if not isinstance(ref, Constant))

    def variable(self, index: int) -> int:
        """The number of an input that is a variable.

        Raises:
            ValueError: the input is a constant.
        """
        reference = self.inputs[index]
        if isinstance(reference, Constant):
            raise ValueError(f"input {index} of {self.name} is a constant")
        return reference

    def rectified(self) -> int | None:
        """The number of the variable ``x`` if the step is a ReLU, ``max(x, 0)``."""
        if self.name != "max" or len(self.variables) != 1:
            return None
        constants = [ref.value for ref in self.inputs if isinstance(ref, Constant)]
        is_zero = len(constants) == 1 and np.ndim(constants[0]) == 0 and constants[0] == 0
        return self.variables[0] if is_zero else None


@dataclass(frozen=True, eq=False)
class Program:
    """A flat list of equations over numbered variables.

    Attributes:
        equations: in an order in which they can be computed.
        inputs: numbers of the variables that are given. For a network these are all its parameters
            and, last, the images.
        outputs: the results. For a network they follow the order of its layers.
        shapes: shapes of all variables, by their numbers.
    """

    equations: tuple[Equation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[Reference, ...]
    shapes: tuple[Shape, ...]

    def made(self, number: int) -> Equation | None:
        """The step that makes a variable; None for an input of the program."""
        for equation in self.equations:
            if number in equation.outputs:
                return equation
        return None

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
def restrict(program: Program, variables: frozenset[int]) -> Program:
    """The steps of ``program`` that some variables depend on; all numbers and outputs are kept."""
    needed = set(variables)
    steps = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs):
            steps.append(equation)
            needed.update(equation.variables)
    return replace(program, equations=tuple(reversed(steps)))
