"""The record that describes a convolution algorithm whose outputs come in blocks of 2x2.

A *block of outputs* is a list of four arrays ``[n, i, j, k]``, one for each position in a square of
2x2 outputs: (0, 0), (0, 1), (1, 0) and (1, 1). A 2x2 pool is the maximum of the four; the whole
output is made by joining them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from oipjax.ops.windows import Pair, Shape, offsets, padded, pads_to_even

SQUARE = (2, 2)


@dataclass(frozen=True)
class Algorithm:
    """How a convolution of stride 1 and its gradients are computed in blocks of outputs.

    Images ``x[n, 2 i + kh - 1, 2 j + kw - 1, c]`` have their border already. The functions of one
    algorithm agree among each other on the form of transformed arrays.

    Attributes:
        name: for messages.
        fits: ``(kernel shape, stride, output size) -> bool``, whether the algorithm is used for
            such a convolution.
        transform_kernel: ``(w, transposed=False)``, the kernel as ``block`` takes it; transposed:
            as ``input_gradient`` takes it.
        transform_input: ``(x)``, the images as ``block`` and ``kernel_gradient`` take them.
        block: ``(kernel, images) -> block of outputs``, both transformed.
        transform_output_gradient: ``(block)``, the outputs' gradient as both gradients take it.
        input_gradient: ``(kernel, output gradient) -> gradient of x``, both transformed.
        kernel_gradient: ``(x, images, output gradient, kernel shape) -> gradient of w``, the images
            as they are and transformed.
        elsewhere: the algorithm that is used instead on other platforms than the CPU; None: this
            one.
    """

    name: str
    fits: Callable[[Shape, Pair, Pair], bool]
    transform_kernel: Callable[..., Any]
    transform_input: Callable[[Array], Any]
    block: Callable[[Any, Any], list[Array]]
    transform_output_gradient: Callable[[list[Array]], Any]
    input_gradient: Callable[[Any, Any], Array]
    kernel_gradient: Callable[[Array, Any, Any, Shape], Array]
    elsewhere: Algorithm | None = None


def is_3x3(kernel: Shape, stride: Pair) -> bool:
    """Whether a convolution has a 3x3 kernel and stride 1."""
    height, width, *_ = kernel
    return (height, width) == (3, 3) and tuple(stride) == (1, 1)


def join_block(block: Sequence[Array]) -> Array:
    """A block of outputs as images ``[n, 2 i, 2 j, k]``."""
    n, i, j, k = block[0].shape
    upper = jnp.stack(block[:2], 3)
    lower = jnp.stack(block[2:], 3)
    squares = jnp.stack([upper, lower], 2)
    return squares.reshape(n, 2 * i, 2 * j, k)


def split_block(y: Array) -> list[Array]:
    """The block of images ``[n, h, w, k]``; a row or column of zeros is added to an odd number."""
    y = padded(y, pads_to_even(y.shape[1:3]))
    n, h, w, k = y.shape
    squares = y.reshape(n, h // 2, 2, w // 2, 2, k)
    block = []
    for p, q in offsets(SQUARE):
        block.append(squares[:, :, p, :, q])
    return block
