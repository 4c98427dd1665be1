"""Products of what the image is and what it is not: the rule of ``dot_general`` and of convolutions.

A sum of ``n`` products may be summed in any order (`gamma`). A convolution that `oipjax.ops` may
compute by minimal filtering is charged what either way rounds at most: which one runs depends on
the platform, on whether all maps are asked for, and on the part of the image that is seen.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.interval.values import (
    LARGEST,
    TINY,
    Interval,
    Known,
    exact,
    gamma,
    lift,
    widened,
)
from oipjax.jaxpr import Equation, bind, in_float64
from oipjax.ops import winograd

PRODUCTS = ("dot_general", "conv_general_dilated")
_FLUSHED = 2**12
"""How many times `TINY`, for each channel, minimal filtering may lose where a plain sum loses it once."""


def product(equation: Equation, a, b) -> Interval:
    """The enclosure of a product of an interval and of numbers that do not depend on the image, in any order."""
    if isinstance(a, Interval) and isinstance(b, Interval):
        raise ValueError(
            f"no bound is known for {equation.name!r} of two values that both depend on the image"
        )
    image_first = isinstance(a, Interval)
    value, given = (a, b) if image_first else (b, a)
    weights = exact(given)

    def times(x, w):
        return bind(equation, *((x, w) if image_first else (w, x)))

    positive, negative, magnitude = (
        jnp.maximum(weights, 0),
        jnp.minimum(weights, 0),
        jnp.abs(weights),
    )
    low = times(value.low, positive) + times(value.high, negative)
    high = times(value.high, positive) + times(value.low, negative)
    linear = None
    if value.linear is not None and value.linear.distinct:
        own = value.linear
        parts = times(own.offset, weights), times(own.total, weights), times(own.square, weights**2)
        linear = own.of(*parts, distinct=False)
    if isinstance(given, Known):
        magnitude = magnitude + given.error
    sizes = (value.size, magnitude) if image_first else (magnitude, value.size)
    count, size = _terms(equation, a, b), bind(equation, *sizes)
    tiny = TINY * (2 + jnp.max(value.size) + jnp.max(magnitude))
    slack = gamma(count) * size + count * tiny
    if _may_be_minimal(equation, *(part.shape for part in (*sizes, size))):
        count, size = _minimal_filtering(equation, *sizes)
        slack = jnp.maximum(slack, gamma(count) * size + _FLUSHED * count * tiny)
    if isinstance(given, Known):
        slack = slack + times(value.size, given.error)
    # A partial sum that overflows may end as anything; nothing but zeros sum to 0.
    slack = jnp.where(size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, slack))
    return widened(low, high, times(value.error, magnitude), slack, linear)


def _terms(equation: Equation, a, b) -> int:
    """How many products one output is the sum of."""
    shapes = [np.shape(lift(value).low) for value in (a, b)]
    if equation.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return int(np.prod([shapes[0][axis] for axis in contracted]))
    return int(np.prod(shapes[1])) // shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]


def _may_be_minimal(
    equation: Equation, images: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> bool:
    """Whether `oipjax.ops` computes such a convolution by `winograd` on some platform.

    As it is, or several of them at once (groups, under `jax.vmap`), or as the gradient of the
    images: then the kernel is turned round, and the small side is that of ``images``.
    """
    if equation.name != "conv_general_dilated":
        return False
    params, numbers = equation.params, equation.params["dimension_numbers"]
    maps, channels, *sides = (kernel[axis] for axis in numbers.rhs_spec)
    step = {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]}
    least = min(maps // params["feature_group_count"], channels)
    small = max(min(shape[axis] for axis in spec[2:]) for shape, spec in (
        (images, numbers.lhs_spec), (out, numbers.out_spec)
    ))  # fmt: skip
    fits = least >= winograd.LEAST_CHANNELS and small >= winograd.LEAST_SIZE
    return step == {1} and sides == [3, 3] and fits


def _minimal_filtering(equation: Equation, images: Array, kernel: Array) -> tuple[int, Array]:
    """As count and size of a sum of products: ``gamma(count) * size`` is what `winograd` loses at most by rounding.

    **Forward.** ``A [sum_c (G w G') * (B x B')] A'`` rounds twice in each entry of ``B x B'``, four
    times in that of ``G w G'``, once for each channel, and four times in the outer sums (Higham
    2002, section 3.1). An entry of ``|B|
    |x| |B'|`` is at most 4 times the largest ``|x|``, and what ``|A|`` sums of ``|G| |w| |G'|`` at most ``v v' * |w|``,
    ``v = (2, 1, 2)``.

    **Gradient of the images.** ``B' [sum_k (G w G') * (A' dy A)] B``, and each pixel is the sum of
    up to four tiles: three roundings more. Along one axis ``|A'| |dy|`` is at most ``(1, 2, 2, 1)``
    times the largest, and of that and ``|G| |w|`` the two tiles of a pixel sum ``(4, 2, 2) |w|`` or
    ``(2, 2, 4) |w|``, at most ``2 v |w|``: no more.

    In both the zeros in ``A`` and ``B`` see to it that an output reads the 3x3 pixels that it
    depends on, no others. What is flushed to 0 is at most 7 times `TINY` in an entry of the images'
    transform and 16 times in one of the kernel's; 36 products of them enter an output, of factors
    that are 9 |w| and 4 |x| at most: less than `_FLUSHED`.

    Args:
        equation: the convolution.
        images: ``|x|`` at most, in the layout of the equation.
        kernel: ``|w|`` at most.
    """
    numbers = equation.params["dimension_numbers"]
    edges, window, taps = [(0, 0, 0)] * 4, [1] * 4, numbers.rhs_spec[2:]
    for axis, (low, high) in zip(numbers.lhs_spec[2:], equation.params["padding"], strict=True):
        edges[axis], window[axis] = (low, high, 0), 3
    around = lax.pad(images, jnp.zeros((), images.dtype), edges)
    largest = 4 * lax.reduce_window(around, 0.0, lax.max, window, (1,) * 4, "VALID")
    total = kernel
    for axis in taps:
        total = total * jnp.array([2.0, 1.0, 2.0]).reshape(
            [3 if other == axis else 1 for other in range(4)]
        )
    params = in_float64(equation.params) | {"padding": ((0, 0), (0, 0))}
    size = equation.primitive.bind(largest, total.sum(taps, keepdims=True), **params)
    overflow = (4 * images.max() > LARGEST) | (
        kernel.sum(taps).max() > LARGEST
    )  # of what is transformed
    return kernel.shape[numbers.rhs_spec[1]] + 13, jnp.where(overflow, jnp.inf, size)
