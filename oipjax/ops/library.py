"""Convolutions by the platform's library, as an `Algorithm`: for other platforms than the CPU.

The library's convolution is not the slow part on a GPU. Pooling with ``lax``, and the gradient of
that pooling, are slow.
"""

import jax
from jax import Array, lax

from oipjax.ops.algorithm import Algorithm, join_block, split_block
from oipjax.ops.im2col import conv_elsewhere, conv_lax
from oipjax.ops.windows import NO_PADS, Pair, Shape

_ONE = (1, 1)


def fits(kernel: Shape, stride: Pair, size: Pair) -> bool:
    """Whether the stride is 1; all kernels and output sizes fit."""
    del kernel, size
    return tuple(stride) == _ONE


def transform_kernel(w: Array, *, transposed: bool = False) -> Array:
    """The kernel as it is."""
    del transposed
    return w


def transform_input(x: Array) -> Array:
    """The images as they are, ``[n, 2 i + kh - 1, 2 j + kw - 1, c]``."""
    return x


def block(w: Array, x: Array) -> list[Array]:
    """The block of outputs, four arrays ``[n, i, j, k]``."""
    return split_block(conv_elsewhere(_ONE, NO_PADS, x, w))


def transform_output_gradient(dys: list[Array]) -> Array:
    """The gradient of a block as images ``[n, 2 i, 2 j, k]``."""
    return join_block(dys)


def input_gradient(w: Array, dy: Array) -> Array:
    """Gradient of the images: a convolution of the outputs' gradient with the flipped kernel.

    The kernel is flipped beforehand. Otherwise XLA recognises the gradient and calls a routine that
    takes longer (measured on an H200, in float32 twice as long as this one).
    """
    kh, kw, _, _ = w.shape
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    flipped = lax.optimization_barrier(flipped)
    vertical = (kh - 1, kh - 1)
    horizontal = (kw - 1, kw - 1)
    return conv_lax(_ONE, (vertical, horizontal), dy, flipped)


def kernel_gradient(x: Array, same: Array | None, dy: Array, shape: Shape) -> Array:
    """Gradient of a kernel of a shape, from the images and the outputs' gradient."""
    del same
    w = jax.ShapeDtypeStruct(shape, dy.dtype)
    transpose = jax.linear_transpose(lambda w: conv_lax(_ONE, NO_PADS, x, w), w)
    return transpose(dy)[0]


LIBRARY = Algorithm(
    name="library",
    fits=fits,
    transform_kernel=transform_kernel,
    transform_input=transform_input,
    block=block,
    transform_output_gradient=transform_output_gradient,
    input_gradient=input_gradient,
    kernel_gradient=kernel_gradient,
)
