"""Convolution and max pooling, fast in both directions on each platform.

XLA's own CPU convolution is slow for few channels, and the gradient of ``lax.reduce_window``
(select-and-scatter) costs more than all convolutions of a small network together. On the CPU they
are therefore written in forms that the machine is good at:

* A convolution is patches times a matrix (im2col; Chellapilla et al. 2006) or, with 3x3 kernels, a
  minimal filtering that needs less than half of the products (`winograd`).
* A pooling is the maximum of strided slices, whose winners are remembered for the backward pass.
* `conv_pool` is both together.

Other platforms get the library's convolution, or at full precision patches times a matrix, and the
same poolings (`library`).

The platform is chosen when a program is lowered (``lax.platform_dependent``), inside custom
gradients, so the branch not taken leaves nothing behind. A caller who compiles for one platform
chooses it when the program is traced (`compiled_for`). Values and gradients equal those of ``lax``
up to rounding: that of float32, or of the precision that is set for products.

Shapes: images ``x[n, h, w, c]``, kernels ``w[kh, kw, c, k]`` (HWIO), outputs ``y[n, i, j, k]``.
"""

from oipjax.ops.convolution import conv2d, conv2d_map, conv2d_transpose, conv_pool
from oipjax.ops.dispatch import allow_extra_rounding, compiled_for, trace_only
from oipjax.ops.pooling import max_pool

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
