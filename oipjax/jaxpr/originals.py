"""Values that a program computes more than once, whole or in part.

A network may compute a deep layer from a crop ``x[:, :h, :w]`` of the image, beside its shallow
layers from the whole image. The values of both are the same, entry by entry. So a bound of a layer
is a bound of its crops too.
"""

import functools
from typing import Any

import numpy as np

from oipjax.jaxpr.program import Constant, Equation, Program, Shape

WINDOWED = ("conv_general_dilated", "reduce_window_max")
ARITHMETIC = ("max", "min", "add", "sub", "mul")


@functools.lru_cache(maxsize=64)
def original_variables(program: Program) -> tuple[int, ...]:
    """For each variable, find the first variable that holds the same values.

    A variable may repeat an earlier one, or be its leading part along h and w. A variable that does
    neither is its own original.
    """
    finder = _Finder(program)
    for equation in program.equations:
        finder.visit(equation)
    return tuple(finder.originals)


def is_crop(equation: Equation, shapes: tuple[Shape, ...]) -> bool:
    """Whether the step takes the leading part, ``x[:, :h, :w]``, of images ``x[n, h, w, c]``."""
    if equation.name != "slice" or isinstance(equation.inputs[0], Constant):
        return False
    params = equation.params
    whole = shapes[equation.inputs[0]]
    limits = tuple(params["limit_indices"])
    strides = params["strides"] or (1,)
    keeps_images_and_channels = len(whole) == 4 and whole[::3] == limits[::3]
    return keeps_images_and_channels and not any(params["start_indices"]) and set(strides) == {1}


class _Finder:
    """Visits the steps of a program in order.

    Attributes:
        originals: the result so far, see `original_variables`.
        cropped: variables that depend on a crop, entry by entry.
        first_steps: {identity of a step: number of the first such step}.
        first_outputs: {(number of a step, place among its outputs): variable}.
    """

    def __init__(self, program: Program):
        self.shapes = program.shapes
        self.originals = list(range(len(program.shapes)))
        self.cropped: set[int] = set()
        self.first_steps: dict[Any, int] = {}
        self.first_outputs: dict[tuple[int, int], int] = {}

    def visit(self, equation: Equation) -> None:
        if is_crop(equation, self.shapes):
            crop = equation.outputs[0]
            self.originals[crop] = self.originals[equation.variable(0)]
            self.cropped.add(crop)
            return
        if self.cropped.intersection(equation.variables):
            if not _keeps_leading_part(equation, self.shapes, self.cropped):
                return
            self.cropped.update(equation.outputs)
        self._compare(equation)

    def _compare(self, equation: Equation) -> None:
        """Look for an earlier step that does the same."""
        inputs = tuple(self._identity(reference) for reference in equation.inputs)
        identity = (equation.name, tuple(sorted(equation.params.items())), inputs)
        try:
            step = self.first_steps.setdefault(identity, len(self.first_steps))
        except TypeError:  # The parameters have no hash.
            return
        for place, number in enumerate(equation.outputs):
            self.originals[number] = self.first_outputs.setdefault((step, place), number)

    def _identity(self, reference) -> Any:
        """Equal for inputs that hold the same values."""
        if not isinstance(reference, Constant):
            return self.originals[reference]
        value = np.asarray(reference.value)
        return value.dtype.str, value.shape, value.tobytes()


def _keeps_leading_part(equation: Equation, shapes: tuple[Shape, ...], cropped: set[int]) -> bool:
    """Whether a step takes the leading part of a value to the leading part of its result."""
    if equation.name in WINDOWED:
        others = equation.inputs[1:]
        if any(not isinstance(ref, Constant) and ref in cropped for ref in others):
            return False
        return equation.inputs[0] in cropped and _is_unpadded(equation)
    if equation.name not in ARITHMETIC:
        return False
    result = shapes[equation.outputs[0]]
    for reference in equation.inputs:
        if isinstance(reference, Constant):
            fits = _is_same_everywhere(np.shape(reference.value))
        elif reference in cropped:
            fits = shapes[reference] == result
        else:
            fits = _is_same_everywhere(shapes[reference])
        if not fits:
            return False
    return True


def _is_unpadded(equation: Equation) -> bool:
    """Whether the entries ``[:, :h, :w]`` of a windowed step depend on leading entries alone."""
    params = equation.params
    if np.any(params["padding"]):
        return False
    if equation.name == "reduce_window_max":
        one_image_and_channel = params["window_dimensions"][::3] == (1, 1)
        return set(params["base_dilation"]) == {1} and one_image_and_channel
    numbers = params["dimension_numbers"]
    is_nhwc = numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
    return is_nhwc and set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1


def _is_same_everywhere(shape: Shape) -> bool:
    """Whether an array of this shape has one value for all rows and columns."""
    return shape == () or (len(shape) == 4 and shape[1:3] == (1, 1))
