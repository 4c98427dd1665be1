"""Convolution and max pooling, fast in both directions on each platform.

XLA's own CPU convolution is slow for few channels, and the gradient of ``lax.reduce_window``
(select-and-scatter) costs more than all convolutions of a small network together. On the CPU they
are therefore written as what the machine is good at: a convolution is patches times a matrix
(im2col; Chellapilla et al. 2006) or, with 3x3 kernels, a minimal filtering that needs less than
half of the products (`winograd`); a pooling is the maximum of strided slices whose winners are
remembered for the backward pass; both together are `conv_pool`. Other platforms get the library's
convolution, or at full precision patches times a matrix, and the same poolings (`plain`).

The choice is made when a program is lowered, per platform (``lax.platform_dependent``), inside
custom gradients, so the branch not taken leaves nothing behind; or when it is traced, by who
compiles for one platform (`compiled_for`). Values and gradients equal those of ``lax`` up to
rounding: that of float32, or of the precision that products are asked for.

Shapes: images ``x[n, h, w, c]``, kernels ``w[kh, kw, c, k]`` (HWIO), outputs ``y[n, i, j, k]``.
"""

from oipjax.ops.convolution import conv2d, conv2d_map, conv2d_transpose, conv_pool
from oipjax.ops.pooling import max_pool
from oipjax.ops.windows import allow_extra_rounding, compiled_for, trace_only

__all__ = [
    "allow_extra_rounding",
    "compiled_for",
    "conv2d",
    "conv2d_map",
    "conv2d_transpose",
    "conv_pool",
    "max_pool",
    "trace_only",
]
