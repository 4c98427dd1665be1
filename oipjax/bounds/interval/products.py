"""The rule of ``dot_general`` and of convolutions: sums of products with weights.

Only one of the two factors may depend on the image. A sum of ``n`` products may be
computed in any order (`gamma`). `oipjax.ops` may compute a convolution by minimal filtering
instead. Such a convolution is charged the larger rounding of the two algorithms: which one runs
depends on the platform, on the number of maps that are asked for, and on the part of the image that
they depend on.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oipjax.bounds.interval.values import (
    LARGEST,
    TINY,
    Interval,
    Known,
    Linear,
    add_rounding,
    as_interval,
    exact_value,
    gamma,
)
from oipjax.jaxpr import Equation, bind, in_float64
from oipjax.ops import winograd

PRODUCTS = ("dot_general", "conv_general_dilated")
_TRANSFORM_ROUNDINGS = 2 + 4 + 4 + 3
"""Of the images, of the kernel, of the outer sums, and of the sum of tiles."""
_FLUSHED = 2**12
"""For each channel minimal filtering may lose `TINY` this many times. A plain sum loses it once."""


def product(equation: Equation, a, b) -> Interval:
    """The enclosure of a product of an interval and of weights, in any order."""
    if isinstance(a, Interval) and isinstance(b, Interval):
        raise ValueError(
            f"no bound is known for {equation.name!r} of two values that both depend on the image"
        )
    image_first = isinstance(a, Interval)
    value = a if image_first else b
    given = b if image_first else a
    weights = exact_value(given)

    def times(x, w):
        return bind(equation, x, w) if image_first else bind(equation, w, x)

    positive = jnp.maximum(weights, 0)
    negative = jnp.minimum(weights, 0)
    magnitude = jnp.abs(weights)
    low = times(value.low, positive) + times(value.high, negative)
    high = times(value.high, positive) + times(value.low, negative)
    linear = _linear_product(value, weights, times)
    if isinstance(given, Known):
        magnitude = magnitude + given.error
    sizes = (value.size, magnitude) if image_first else (magnitude, value.size)
    size, slack = _rounding(equation, a, b, sizes)
    if isinstance(given, Known):
        slack = slack + times(value.size, given.error)
    # A partial sum that overflows may end as anything; zeros sum to 0.
    slack = jnp.where(size > LARGEST, jnp.nan, jnp.where(size == 0, 0.0, slack))
    return add_rounding(low, high, times(value.error, magnitude), slack, linear)


def _linear_product(value: Interval, weights: Array, times) -> Linear | None:
    own = value.linear
    if own is None or not own.distinct:
        return None
    offset = times(own.offset, weights)
    total = times(own.total, weights)
    square = times(own.square, weights**2)
    return own.of(offset, total, square, distinct=False)


def _rounding(equation: Equation, a, b, sizes: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sums of all magnitudes, and what rounding may lose of the result.

    Args:
        equation: the step.
        a: its first input.
        b: its second input.
        sizes: the magnitudes of both.
    """
    shapes = [np.shape(as_interval(value).low) for value in (a, b)]
    count = count_terms(equation, *shapes)
    size = bind(equation, *sizes)
    image_first = isinstance(a, Interval)
    value_size = sizes[0] if image_first else sizes[1]
    magnitude = sizes[1] if image_first else sizes[0]
    tiny = TINY * (2 + jnp.max(value_size) + jnp.max(magnitude))
    slack = gamma(count) * size + count * tiny
    if _may_be_minimal(equation, sizes[0].shape, sizes[1].shape, size.shape):
        count, size = _minimal_filtering(equation, *sizes)
        slack = jnp.maximum(slack, gamma(count) * size + _FLUSHED * count * tiny)
    return size, slack


def count_terms(equation: Equation, first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many products one output is the sum of.

    Args:
        equation: a product.
        first: shape of its first input.
        second: shape of its second input, of a convolution the kernel.
    """
    numbers = equation.params["dimension_numbers"]
    if equation.name == "dot_general":
        (contracted, _), _ = numbers
        return int(np.prod([first[axis] for axis in contracted]))
    return int(np.prod(second)) // second[numbers.rhs_spec[0]]


def _may_be_minimal(
    equation: Equation, images: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]
) -> bool:
    """Whether `oipjax.ops` computes such a convolution by `winograd` on some platform.

    It may do so for the convolution itself, for several of them at once (groups, under `jax.vmap`),
    or for the gradient of the images. In a gradient the kernel is turned round, and the small side
    is that of ``images``.
    """
    if equation.name != "conv_general_dilated":
        return False
    params = equation.params
    numbers = params["dimension_numbers"]
    steps = {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]}
    maps, channels, *sides = (kernel[axis] for axis in numbers.rhs_spec)
    least_channels = min(maps // params["feature_group_count"], channels)
    image_side = min(images[axis] for axis in numbers.lhs_spec[2:])
    out_side = min(out[axis] for axis in numbers.out_spec[2:])
    is_large = max(image_side, out_side) >= winograd.LEAST_SIZE
    has_channels = least_channels >= winograd.LEAST_CHANNELS
    return steps == {1} and sides == [3, 3] and has_channels and is_large


def _minimal_filtering(equation: Equation, images: Array, kernel: Array) -> tuple[int, Array]:
    """A count and a size such that `winograd` loses at most ``gamma(count) * size`` by rounding.

    ``A``, ``B`` and ``G`` are the matrices of `oipjax.ops.winograd`; a dash means transposed.

    **Forward.** ``A [sum_c (G w G') * (B x B')] A'`` rounds twice in each entry of ``B x B'``, four
    times in each entry of ``G w G'``, once for each channel, and four times in the outer sums
    (Higham 2002, section 3.1). An entry of ``|B| |x| |B'|`` is at most 4 times the largest ``|x|``.
    ``|A| |G| |w| |G'| |A'|`` is at most ``v v' * |w|`` with ``v = (2, 1, 2)``.

    **Gradient of the images.** This is ``B' [sum_k (G w G') * (A' dy A)] B``, and each pixel is the
    sum of up to four tiles: three more roundings. Along one axis ``|A'| |dy|`` is at most
    ``(1, 2, 2, 1)`` times the largest. Of that and ``|G| |w|`` the two tiles of a pixel sum
    ``(4, 2, 2) |w|`` or ``(2, 2, 4) |w|``, which is at most ``2 v |w|``. So the limits above hold.

    In both directions the zeros in ``A`` and ``B`` make an output read the 3x3 pixels that it
    depends on, and no others. At most 7 times `TINY` is flushed to 0 in an entry of the images'
    transform, and 16 times in an entry of the kernel's. 36 products of them enter an output, and
    their factors are at most ``9 |w|`` and ``4 |x|``. The sum is less than `_FLUSHED`.

    Args:
        equation: the convolution.
        images: upper limits of ``|x|``, in the layout of the equation.
        kernel: upper limits of ``|w|``.
    """
    numbers = equation.params["dimension_numbers"]
    taps = numbers.rhs_spec[2:]
    edges = [(0, 0, 0)] * 4
    window = [1] * 4
    for axis, (low, high) in zip(numbers.lhs_spec[2:], equation.params["padding"], strict=True):
        edges[axis] = (low, high, 0)
        window[axis] = 3
    padded = lax.pad(images, jnp.zeros((), images.dtype), edges)
    largest = 4 * lax.reduce_window(padded, 0.0, lax.max, window, (1,) * 4, "VALID")
    total = kernel
    for axis in taps:
        shape = [1] * 4
        shape[axis] = 3
        total = total * jnp.array([2.0, 1.0, 2.0]).reshape(shape)
    params = in_float64(equation.params)
    params["padding"] = ((0, 0), (0, 0))
    size = equation.primitive.bind(largest, total.sum(taps, keepdims=True), **params)
    images_overflow = 4 * images.max() > LARGEST
    kernel_overflows = kernel.sum(taps).max() > LARGEST
    count = kernel.shape[numbers.rhs_spec[1]] + _TRANSFORM_ROUNDINGS
    return count, jnp.where(images_overflow | kernel_overflows, jnp.inf, size)
