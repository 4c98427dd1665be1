"""Enclosures of the values of a program, elementwise, for all images at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

ROUNDOFF = 2.0**-24
"""The unit roundoff ``u`` of float32."""
LARGEST = float(np.finfo(np.float32).max)
"""Larger numbers overflow to infinity."""
TINY = 2.0**-126
"""A step may read or write 0 in place of any number of smaller magnitude."""


@dataclass(frozen=True)
class Linear:
    """Values ``<w, x> + offset`` that are linear in the image ``x``, elementwise.

    Attributes:
        offset: the constants.
        total: the sums of ``w``.
        square: the sums of ``w^2``.
        pixels: number of pixels of the image.
        norm: upper limit of the norm of the image less its mean.
        mean: upper limit of the magnitude of the image's mean.
        distinct: whether no two values are made of the same pixel. Only such values can enter a
            sum.
    """

    offset: Array
    total: Array
    square: Array
    pixels: int
    norm: float
    mean: float
    distinct: bool = True

    def map(self, function: Callable[[Array], Array], *, distinct: bool = True) -> "Linear":
        """The same values, rearranged by ``function``."""
        offset = function(self.offset)
        total = function(self.total)
        square = function(self.square)
        return self.of(offset, total, square, distinct=distinct)

    def of(self, offset, total, square, *, distinct: bool = True) -> "Linear":
        """Other values of the same image."""
        shape = jnp.shape(offset)
        return Linear(
            offset=jnp.broadcast_to(offset, shape),
            total=jnp.broadcast_to(total, shape),
            square=jnp.broadcast_to(square, shape),
            pixels=self.pixels,
            norm=self.norm,
            mean=self.mean,
            distinct=self.distinct and distinct,
        )

    @property
    def ends(self) -> tuple[Array, Array]:
        """Least and greatest value over all images."""
        spread = jnp.maximum(self.square - jnp.square(self.total) / self.pixels, 0)
        # A hundred millionth of the squares is far more than float64 loses in their difference.
        centred = self.norm * jnp.sqrt(spread + 1e-8 * self.square)
        reach = centred + jnp.abs(self.total) * self.mean
        return self.offset - reach, self.offset + reach


class Interval(NamedTuple):
    """Enclosures, elementwise: ``low <= value <= high`` for every image.

    They hold for the values as computed in float32 and for the exact ones.
    Both ends are NaN where a value may itself be NaN, or where nothing is known of it. NaN spreads
    through every rule as it does through the network. The next ReLU would cut infinite ends.

    Attributes:
        low: lower ends, float64.
        high: upper ends, float64.
        error: upper limit of the distance between the computed and the exact value.
        linear: set where the values are linear in the image and its norm is limited.
    """

    low: Array
    high: Array
    error: Array
    linear: Linear | None = None

    @property
    def size(self) -> Array:
        """The greatest magnitude."""
        return larger_magnitude(self.low, self.high)


class Choice(NamedTuple):
    """A truth value that may depend on the image, elementwise."""

    maybe_true: Array
    maybe_false: Array


class Known(NamedTuple):
    """Numbers that do not depend on the image, but that the network computes and rounds.

    Attributes:
        value: the exact numbers, float64.
        error: upper limit of the distance between the computed and the exact numbers.
    """

    value: Array
    error: Array


def as_interval(value: Any) -> Interval:
    """Any value as an interval. The interval of an exact array has width 0."""
    if isinstance(value, Interval):
        return value
    if isinstance(value, Known):
        return Interval(
            low=value.value - value.error,
            high=value.value + value.error,
            error=value.error,
        )
    return Interval(value, value, jnp.zeros_like(value))


def exact_value(value: Any) -> Any:
    """A value that does not depend on the image, without its error."""
    return value.value if isinstance(value, Known) else value


def is_floating(value: Any) -> bool:
    """Whether an array has a floating type."""
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def gamma(count: float) -> float:
    """The relative error of a float32 sum of ``count`` products, in any order."""
    return count * ROUNDOFF / (1 - count * ROUNDOFF)


def larger_magnitude(low, high) -> Array:
    """The greatest magnitude between two ends."""
    return jnp.maximum(jnp.abs(low), jnp.abs(high))


def saturate(value):
    """An interval that allows for float32's range: overflow, numbers that are flushed to 0, NaN."""
    if not isinstance(value, Interval):
        return value
    low = value.low
    high = value.high
    low = jnp.where(jnp.abs(low) < TINY, jnp.where(low < 0, -TINY, 0.0), low)
    high = jnp.where(jnp.abs(high) < TINY, jnp.where(high > 0, TINY, 0.0), high)
    low = jnp.where(low < -LARGEST, -jnp.inf, low)
    high = jnp.where(high > LARGEST, jnp.inf, high)
    is_unbounded = jnp.isinf(low) & jnp.isinf(high) & (low < high)
    is_unknown = jnp.isnan(low) | jnp.isnan(high) | is_unbounded
    low = jnp.where(is_unknown, jnp.nan, low)
    high = jnp.where(is_unknown, jnp.nan, high)
    # Computed and exact value lie in the same interval, so they differ by its width at most.
    error = jnp.fmin(value.error + 4 * TINY, high - low)
    return value._replace(low=low, high=high, error=jnp.nan_to_num(error, nan=jnp.inf))


def nan_to_inf(value: Interval) -> Interval:
    """An interval with infinite ends where nothing is known."""
    low = jnp.where(jnp.isnan(value.low), -jnp.inf, value.low)
    high = jnp.where(jnp.isnan(value.high), jnp.inf, value.high)
    return value._replace(low=low, high=high)


def add_rounding(low, high, error, slack, linear: Linear | None = None) -> Interval:
    """The interval of a step's result.

    Args:
        low: lower ends of the exact results of computed inputs.
        high: upper ends of them.
        error: the distance of the exact results of computed and of exact inputs.
        slack: what the step may lose by rounding.
        linear: a second limit of the ends, if the values are linear in the image.
    """
    low, high = _cut(low, high, error, linear)
    return Interval(low - slack, high + slack, error + slack, linear)


def round_once(low, high, error, linear: Linear | None = None, unit: float = ROUNDOFF) -> Interval:
    """As `add_rounding`, for one rounding of relative size ``unit``.

    Each end is moved by its own rounding, and 0 stays 0.
    """
    low, high = _cut(low, high, error, linear)
    slack = unit * larger_magnitude(low, high)
    return Interval(
        low=low - unit * jnp.abs(low),
        high=high + unit * jnp.abs(high),
        error=error + slack,
        linear=linear,
    )


def _cut(low, high, error, linear: Linear | None) -> tuple[Array, Array]:
    """The ends, cut to the limits of linear values."""
    if linear is None:
        return low, high
    least, greatest = linear.ends
    return jnp.maximum(low, least - error), jnp.minimum(high, greatest + error)
