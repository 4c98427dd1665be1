"""Convolutions computed as such, with what `oipjax.ops.blocks` asks of a way: for every platform but the CPU.

Letters and quartets are those of `winograd`. What is slow on a GPU is not the library's
convolution: it is to pool with ``lax``, and to find a gradient's way back through that.
"""

import jax
from jax import Array, lax

from oipjax.ops import im2col as patches
from oipjax.ops.windows import interleaved, parted

_NONE = ((0, 0), (0, 0))
_ONE = (1, 1)


def fits(kernel: tuple[int, ...], stride: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether it can compute a convolution with a kernel of this shape, and outputs of this size."""
    del kernel, size
    return tuple(stride) == (1, 1)


def prepared(w: Array, *, transposed: bool = False) -> Array:
    """The kernel as it is."""
    del transposed
    return w


def cut(x: Array) -> Array:
    """Images ``[n, 2 i + kh - 1, 2 j + kw - 1, c]`` as they are."""
    return x


def quartet(w: Array, x: Array) -> list[Array]:
    """Outputs, each ``[n, i, j, k]``."""
    return parted(patches.conv_elsewhere(_ONE, _NONE, x, w))


def sides(dys: list[Array]) -> Array:
    """The gradient of a quartet as images ``[n, 2 i, 2 j, k]``."""
    return interleaved(dys)


def image_gradient(w: Array, dy: Array) -> Array:
    """Of the images, from that of the outputs: a convolution with the kernel turned round.

    The kernel is turned beforehand, or XLA would see that this is a gradient and call for a routine
    that takes longer (measured on an H200, in float32 twice as long as this one).
    """
    kh, kw, _, _ = w.shape
    turned = lax.optimization_barrier(w[::-1, ::-1].swapaxes(2, 3))
    return patches.conv_lax(_ONE, ((kh - 1, kh - 1), (kw - 1, kw - 1)), dy, turned)


def kernel_gradient(x: Array, same: Array | None, dy: Array, shape: tuple[int, ...]) -> Array:
    """Of the kernel, of a shape, from that of the outputs and the images."""
    del same
    w = jax.ShapeDtypeStruct(shape, dy.dtype)
    return jax.linear_transpose(lambda w: patches.conv_lax(_ONE, _NONE, x, w), w)(dy)[0]
