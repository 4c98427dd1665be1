"""A network's first layers as plain arrays, where they have the usual shape: convolution, ReLU and pooling, in turn.

The tight bounds use that shape. It is read off the program, not off names, so that it is what is
computed. The image may be cropped first, to the leading rows and columns that a deeper layer sees.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from oipjax.bounds.interval import parameters, trace
from oipjax.bounds.interval import value_of as read
from oipjax.jaxpr import Constant, Equation, Program, is_crop
from oipjax.jaxpr import evaluate_step as exactly
from oipjax.jaxpr import original_variables as wholes
from oipjax.model import Model


@dataclass(frozen=True, eq=False)
class Stage:
    """One convolution (stride 1, no padding), and what happens to its output before the next one.

    Attributes:
        layer: name of the layer that holds its output, before any nonlinearity, or of one that it
            is a crop of.
        kernel: float64 ``[kh, kw, c, k]``.
        bias: float64 ``[k]``.
        pool: side of the max-pool, 1 for none.
        shape: of the output, ``(h, w, k)``; smaller than the layer's where the image is cropped.
    """

    layer: str
    kernel: np.ndarray
    bias: np.ndarray
    pool: int
    shape: tuple[int, int, int]


def chain(model: Model, layer: str) -> tuple[Stage, ...]:
    """The convolutions from the image up to a layer, a ReLU after each but the last; empty if there is no such chain.

    The output of each, before its ReLU, must be one of the network's layers, or the leading part of
    one.

    Args:
        model: the network.
        layer: name of the layer; itself a convolution's output, before or after its ReLU and
            pooling.
    """
    program = trace(model)
    reader = _Reader(model, program)
    stages = reader.read(program.variable(model.layers.index(layer)))
    known = reader.known if stages else {}
    return tuple(
        Stage(name, known[kernel], known[bias].ravel(), *rest)
        for name, kernel, bias, *rest in stages
    )


class _Reader:
    """Walks back from a variable, one convolution at a time."""

    def __init__(self, model: Model, program: Program):
        self.model, self.program = model, program
        self.unknown = {program.inputs[-1]}
        for equation in program.equations:
            if self.unknown.intersection(
                ref for ref in equation.inputs if not isinstance(ref, Constant)
            ):
                self.unknown.update(equation.outputs)
        self.made_by: dict[int, Equation] = {e.outputs[0]: e for e in program.equations}
        self.whole = wholes(program)
        outputs = [ref for ref in program.outputs if not isinstance(ref, Constant)]
        names = [
            name
            for name, ref in zip(model.layers, program.outputs, strict=True)
            if not isinstance(ref, Constant)
        ]
        self.names = {
            self.whole[ref]: name
            for name, ref in zip(reversed(names), reversed(outputs), strict=True)
        }
        self.image = program.inputs[-1]

    @cached_property
    def known(self) -> dict[int, np.ndarray]:
        """All values that do not depend on the image, exactly."""
        values: dict[int, Any] = dict(
            zip(self.program.inputs[:-1], parameters(self.model), strict=True)
        )
        with jax.enable_x64(True):
            for equation in self.program.equations:
                if equation.outputs[0] not in self.unknown:
                    inputs = [read(values, ref) for ref in equation.inputs]
                    values.update(zip(equation.outputs, exactly(equation, inputs), strict=True))
        return {number: np.asarray(value) for number, value in values.items()}

    def read(self, number: int) -> list[tuple]:
        stages = []
        while (number := self.uncropped(number)) != self.image:
            number, side, relu = self.after(number)
            found = self.convolution(number)
            if found is None or (stages and not relu):
                return []
            number, stage = found[0], (*found[1:4], side, found[4])
            stages.append(stage)
        return stages[::-1]

    def uncropped(self, number: int) -> int:
        """The image, if the variable is a crop of it; else the variable itself."""
        equation = self.equation(number)
        cropped = equation is not None and is_crop(equation, self.program.shapes)
        return self.image if cropped and self.whole[number] == self.image else number

    def equation(self, reference) -> Equation | None:
        """What made a value; None for constants and what is given."""
        return None if isinstance(reference, Constant) else self.made_by.get(reference)

    def after(self, number: int) -> tuple[int, int, bool]:
        """Back over a ReLU and a pooling, in any order: (variable, side of the pool, whether there was a ReLU)."""
        side, relu = 1, False
        while (equation := self.equation(number)) is not None:
            if (rectified := equation.rectified()) is not None:
                number, relu = rectified, True
            elif (
                equation.name == "reduce_window_max"
                and side == 1
                and (found := _square_pool(equation))
            ):
                number, side = equation.variable(0), found
            else:
                break
        return number, side, relu

    def convolution(self, number: int) -> tuple[int, str, int, int, tuple[int, ...]] | None:
        """``(input, kernel, bias, shape)`` if the variable is a plain convolution plus a bias per channel."""
        added = self.equation(number)
        if added is None or added.name != "add":
            return None
        image = [ref for ref in added.inputs if ref in self.unknown]
        known = [
            ref for ref in added.inputs if ref not in self.unknown and not isinstance(ref, Constant)
        ]
        if len(image) != 1 or len(known) != 1 or (product := self.equation(image[0])) is None:
            return None
        if product.name != "conv_general_dilated" or not _is_plain(product.params):
            return None
        source, kernel = product.inputs
        if isinstance(source, Constant) or isinstance(kernel, Constant) or kernel in self.unknown:
            return None
        name, shape = self.names.get(self.whole[number]), self.program.shapes[number][1:]
        bias = self.program.shapes[known[0]]
        if name is None or bias[-1:] != shape[-1:] or int(np.prod(bias)) != shape[-1]:
            return None
        return source, name, kernel, known[0], shape


def _square_pool(equation: Equation) -> int | None:
    """The side of a pooling that cuts the image into squares."""
    params = equation.params
    window, strides = params["window_dimensions"], params["window_strides"]
    plain = set(params["base_dilation"]) | set(params["window_dilation"]) == {1} and not np.any(
        params["padding"]
    )
    squares = window == strides and window[0] == window[3] == 1 and window[1] == window[2]
    return window[1] if plain and squares else None


def _is_plain(params) -> bool:
    """Stride 1, no padding, no groups, NHWC and HWIO."""
    numbers = params["dimension_numbers"]
    ones = {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]} == {1}
    groups = params["feature_group_count"] == params["batch_group_count"] == 1
    order = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (
        (0, 3, 1, 2),
        (3, 2, 0, 1),
        (0, 3, 1, 2),
    )
    return ones and groups and order and not np.any(params["padding"])
