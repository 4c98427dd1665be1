"""A network's first layers as plain arrays, where they are convolution, ReLU and pooling, in turn.

The tight bounds use that shape. It is read off the program, not off names, so it is what the
network computes. The image may be cropped first, to the leading rows and columns that a deeper
layer sees.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from oipjax.bounds.interval import parameters, trace, value_of
from oipjax.jaxpr import (
    Constant,
    Equation,
    Program,
    evaluate_step,
    is_crop,
    original_variables,
)
from oipjax.model import LayerInfo, Model

_NHWC = (0, 3, 1, 2)
_HWIO = (3, 2, 0, 1)


@dataclass(frozen=True, eq=False)
class Stage:
    """One convolution (stride 1, no padding), and the pooling between it and the next one.

    Attributes:
        layer: name of the layer that holds its output, before any nonlinearity. The output may be a
            crop of that layer.
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

    @property
    def image_size(self) -> tuple[int, int]:
        """``(h, w)`` of the values that the convolution sees."""
        height = self.shape[0] + self.kernel.shape[0] - 1
        width = self.shape[1] + self.kernel.shape[1] - 1
        return height, width


@dataclass(frozen=True, eq=False)
class Stack:
    """The part of a network that ends at one layer, as far as it is recognised.

    Attributes:
        layer: facts about the layer.
        target: name of the layer before its nonlinearity; its own name if it has none.
        nodes: the number of nodes of the target.
        is_rectified: whether the layer is the output of a ReLU.
        stages: the chain of convolutions from the image to the layer; empty if there is none.
        longest: the longest such chain to the layer or to a layer before it.
    """

    layer: LayerInfo
    target: str
    nodes: int
    is_rectified: bool
    stages: tuple[Stage, ...]
    longest: tuple[Stage, ...]


def recognise(model: Model, layer: str) -> Stack:
    """Work out the stack of a layer.

    Args:
        model: the network.
        layer: name of the layer.

    Raises:
        ValueError: there is no such layer, or a layer up to it does not depend on anything.
    """
    facts = model.layer(layer)
    target = layer if facts.pre is None else facts.pre
    reader = _Reader(model)
    chains: list[list[_Link]] = []
    for name in model.layers[: model.layers.index(layer) + 1]:
        chains.append(reader.links(name))
    return Stack(
        layer=facts,
        target=target,
        nodes=int(np.prod(model.shapes[target])),
        is_rectified=reader.is_rectified(layer),
        stages=reader.stages(chains[-1]),
        longest=reader.stages(max(chains, key=len)),
    )


def chain(model: Model, layer: str) -> tuple[Stage, ...]:
    """The convolutions from the image up to a layer, with a ReLU after each but the last.

    The output of each, before its ReLU, must be one of the network's layers, or the leading part of
    one.

    Args:
        model: the network.
        layer: name of the layer; itself a convolution's output, before or after its ReLU and
            pooling.

    Returns:
        the stages, from the image on; empty if there is no such chain.
    """
    reader = _Reader(model)
    return reader.stages(reader.links(layer))


class _Convolution(NamedTuple):
    """A plain convolution plus a bias, by the numbers of the program's variables."""

    source: int
    layer: str
    kernel: int
    bias: int
    shape: tuple[int, ...]


class _Link(NamedTuple):
    """A convolution and the side of the pooling after it."""

    convolution: _Convolution
    pool: int


class _Reader:
    """Walks back from a variable, one convolution at a time."""

    def __init__(self, model: Model):
        program = trace(model)
        self.model = model
        self.program = program
        self.image = program.inputs[-1]
        self.whole = original_variables(program)
        self.depends_on_image = _dependent(program)
        self.made_by = {equation.outputs[0]: equation for equation in program.equations}
        self.names: dict[int, str] = {}
        for name, reference in zip(model.layers, program.outputs, strict=True):
            if not isinstance(reference, Constant):
                self.names.setdefault(self.whole[reference], name)

    @cached_property
    def known(self) -> dict[int, np.ndarray]:
        """All values that do not depend on the image, exactly."""
        given = zip(self.program.inputs[:-1], parameters(self.model), strict=True)
        values: dict[int, Any] = dict(given)
        with jax.enable_x64(True):
            for equation in self.program.equations:
                if equation.outputs[0] in self.depends_on_image:
                    continue
                inputs = [value_of(values, reference) for reference in equation.inputs]
                outputs = evaluate_step(equation, inputs)
                values.update(zip(equation.outputs, outputs, strict=True))
        return {number: np.asarray(value) for number, value in values.items()}

    def variable(self, layer: str) -> int:
        """The number of the variable that is a layer."""
        return self.program.variable(self.model.layers.index(layer))

    def is_rectified(self, layer: str) -> bool:
        """Whether a ReLU makes the layer."""
        equation = self.program.made(self.variable(layer))
        return equation is not None and equation.rectified() is not None

    def links(self, layer: str) -> list[_Link]:
        """The chain from the image to a layer; empty if there is none."""
        found: list[_Link] = []
        number = self.uncropped(self.variable(layer))
        while number != self.image:
            number, side, has_relu = self.before_pooling(number)
            convolution = self.convolution(number)
            if convolution is None:
                return []
            if found and not has_relu:
                return []
            found.append(_Link(convolution, side))
            number = self.uncropped(convolution.source)
        return found[::-1]

    def stages(self, links: list[_Link]) -> tuple[Stage, ...]:
        """A chain as arrays."""
        found = []
        for convolution, pool in links:
            stage = Stage(
                layer=convolution.layer,
                kernel=self.known[convolution.kernel],
                bias=self.known[convolution.bias].ravel(),
                pool=pool,
                shape=convolution.shape,  # pyright: ignore[reportArgumentType]
            )
            found.append(stage)
        return tuple(found)

    def uncropped(self, number: int) -> int:
        """The image, if the variable is a crop of it; else the variable itself."""
        equation = self.equation(number)
        if equation is None or self.whole[number] != self.image:
            return number
        return self.image if is_crop(equation, self.program.shapes) else number

    def equation(self, reference: int | Constant) -> Equation | None:
        """The step that makes a value; None for constants and for inputs of the program."""
        return None if isinstance(reference, Constant) else self.made_by.get(reference)

    def before_pooling(self, number: int) -> tuple[int, int, bool]:
        """Go back over a ReLU and a pooling, in any order.

        Returns:
            the variable, the side of the pool, and whether there was a ReLU.
        """
        side = 1
        has_relu = False
        while (equation := self.equation(number)) is not None:
            rectified = equation.rectified()
            if rectified is not None:
                number = rectified
                has_relu = True
                continue
            found = _square_pool(equation) if side == 1 else None
            if found is None:
                break
            number = equation.variable(0)
            side = found
        return number, side, has_relu

    def convolution(self, number: int) -> _Convolution | None:
        """The variable as a plain convolution plus a bias per channel; None if it is not one."""
        product, bias = self.summands(number)
        if product is None or not _is_plain_convolution(product):
            return None
        source, kernel = product.inputs
        if isinstance(source, Constant) or isinstance(kernel, Constant):
            return None
        if bias is None or kernel in self.depends_on_image:
            return None
        layer = self.names.get(self.whole[number])
        shape = self.program.shapes[number][1:]
        if layer is None or not _is_per_channel(self.program.shapes[bias], shape[-1]):
            return None
        return _Convolution(source, layer, kernel, bias, shape)

    def summands(self, number: int) -> tuple[Equation | None, int | None]:
        """The two terms of a sum, if one depends on the image and the other on parameters only.

        Returns:
            the step that makes the first, and the number of the second.
        """
        added = self.equation(number)
        if added is None or added.name != "add":
            return None, None
        image = []
        known = []
        for reference in added.inputs:
            if isinstance(reference, Constant):
                continue
            is_known = reference not in self.depends_on_image
            (known if is_known else image).append(reference)
        if len(image) != 1 or len(known) != 1:
            return None, None
        return self.equation(image[0]), known[0]


def _dependent(program: Program) -> set[int]:
    """Numbers of the variables that depend on the image."""
    dependent = {program.inputs[-1]}
    for equation in program.equations:
        numbers = [number for number in equation.inputs if not isinstance(number, Constant)]
        if not dependent.isdisjoint(numbers):
            dependent.update(equation.outputs)
    return dependent


def _is_per_channel(shape: tuple[int, ...], channels: int) -> bool:
    """Whether a bias of this shape has one number for each channel, along the last axis."""
    return shape[-1:] == (channels,) and int(np.prod(shape)) == channels


def _square_pool(equation: Equation) -> int | None:
    """The side of a max-pool that divides the image into squares; None for any other step."""
    if equation.name != "reduce_window_max":
        return None
    params = equation.params
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    if dilations != {1} or np.any(params["padding"]):
        return None
    window = params["window_dimensions"]
    if len(window) != 4 or window != params["window_strides"]:
        return None
    count, height, width, channels = window
    is_square = count == channels == 1 and height == width
    return height if is_square else None


def _is_plain_convolution(equation: Equation) -> bool:
    """Whether the step is a convolution of stride 1, without padding and groups, NHWC and HWIO."""
    if equation.name != "conv_general_dilated":
        return False
    params = equation.params
    numbers = params["dimension_numbers"]
    order = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    if order != (_NHWC, _HWIO, _NHWC) or np.any(params["padding"]):
        return False
    groups = {params["feature_group_count"], params["batch_group_count"]}
    steps = {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]}
    return groups == {1} and steps == {1}
