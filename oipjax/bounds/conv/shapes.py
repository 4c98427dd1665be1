"""Shapes of stacks that the bounds of convolutions share."""

import numpy as np

from oipjax.bounds.conv.chain import Stack, Stage
from oipjax.bounds.conv.patches import MAX_PIXELS
from oipjax.bounds.interval.enclosures import box_ends
from oipjax.spaces import Box


def pixel_range(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of a pixel as float32 has them, ``[c]`` each, float64."""
    low, high = box_ends(box)
    return low.ravel(), high.ravel()


def unfit_numbers(stages: tuple[Stage, ...]) -> str | None:
    """Why the weights of some stages cannot be used, or None."""
    for stage in stages:
        if not (np.isfinite(stage.kernel).all() and np.isfinite(stage.bias).all()):
            return f"The weights or biases of {stage.layer} are not all finite."
    return None


def unfit_patch(first: Stage, box: Box) -> str | None:
    """Why a first convolution cannot be bounded by all corners of its patches, or None."""
    kh, kw, channels, _ = first.kernel.shape
    height = kh + first.pool - 1
    width = kw + first.pool - 1
    pixels = height * width * channels
    if pixels > MAX_PIXELS:
        return (
            f"A patch of {height} x {width} x {channels} has {pixels} pixels, more than "
            f"{MAX_PIXELS}."
        )
    return unfit_box(box)


def unfit_box(box: Box) -> str | None:
    """Why the ends of a box cannot be used, or None."""
    if np.isfinite(pixel_range(box)).all():
        return None
    return f"The ends of the box are not finite in float32: {box.low} and {box.high}."


def unfit_relu(stack: Stack, count: int) -> str | None:
    """Why a layer is not the ReLU of the last of so many convolutions in a row, or None.

    Args:
        stack: of the layer.
        count: the number of convolutions.
    """
    if len(stack.stages) != count:
        return (
            f"The layer must end {count} convolution(s) in a row from the image, and "
            f"{len(stack.stages)} are recognised."
        )
    if stack.stages[-1].pool > 1:
        return "The layer is pooled."
    if stack.layer.floor != 0:
        return "The layer is not the output of a ReLU."
    return None
