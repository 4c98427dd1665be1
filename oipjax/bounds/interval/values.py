"""What is known of the values of a program: enclosures of them, elementwise, for all images at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

ROUNDOFF = 2.0**-24
"""The unit roundoff of float32."""
TRANSCENDENTAL = 16 * ROUNDOFF
"""What a transcendental function may be off by, relative to its value."""
LARGEST = float(np.finfo(np.float32).max)
"""What is larger overflows to infinity."""
TINY = 2.0**-126
"""What is smaller in magnitude may be taken as 0, by any step that reads or writes it."""


@dataclass(frozen=True)
class Linear:
    """What is known of values ``<w, x> + offset`` that are linear in the image, elementwise.

    Attributes:
        offset: the constant.
        total, square: the sums of ``w`` and of ``w^2``.
        pixels: how many there are in the image.
        norm: of the image less its mean, at most.
        mean: of the image, at most, in magnitude.
        distinct: whether every value is made of pixels of its own, so that it can still enter a
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
        """The same with its values moved about by ``function``."""
        return self.of(
            function(self.offset), function(self.total), function(self.square), distinct=distinct
        )

    def of(self, offset, total, square, *, distinct: bool = True) -> "Linear":
        """Other values of the same image."""
        shape = jnp.shape(offset)
        offset, total, square = (jnp.broadcast_to(part, shape) for part in (offset, total, square))
        return Linear(
            offset, total, square, self.pixels, self.norm, self.mean, self.distinct and distinct
        )

    @property
    def ends(self) -> tuple[Array, Array]:
        """Least and greatest value over all images."""
        spread = jnp.maximum(self.square - jnp.square(self.total) / self.pixels, 0)
        # A hundred millionth of the squares is far more than float64 loses in their difference.
        reach = self.norm * jnp.sqrt(spread + 1e-8 * self.square) + jnp.abs(self.total) * self.mean
        return self.offset - reach, self.offset + reach


class Interval(NamedTuple):
    """Enclosures, elementwise: ``low <= value <= high`` for every image, as computed in float32 and exactly.

    Both ends are NaN where a value may itself be NaN, or anything at all: NaN spreads through every
    rule as it does through the network, where infinite ends would be cut down by the next ReLU.

    Attributes:
        low, high: the ends, float64.
        error: how far the computed value can be from the exact one.
        linear: set where the values are linear in the image and its norm is limited.
    """

    low: Array
    high: Array
    error: Array
    linear: Linear | None = None

    @property
    def size(self) -> Array:
        """The greatest magnitude."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))


class Choice(NamedTuple):
    """A truth value that may depend on the image, elementwise."""

    maybe_true: Array
    maybe_false: Array


class Known(NamedTuple):
    """Numbers that do not depend on the image, but are computed, and rounded, by the network.

    Attributes:
        value: as they are exactly, float64.
        error: how far the computed ones can be from them.
    """

    value: Array
    error: Array


def lift(value: Any) -> Interval:
    """A known array as an interval: of width 0 if it is exact."""
    if isinstance(value, Known):
        return Interval(value.value - value.error, value.value + value.error, value.error)
    return value if isinstance(value, Interval) else Interval(value, value, jnp.zeros_like(value))


def exact(value: Any) -> Any:
    """What is known without its error."""
    return value.value if isinstance(value, Known) else value


def gamma(count: float) -> float:
    """The relative error of a float32 sum of ``count`` products, in any order."""
    return count * ROUNDOFF / (1 - count * ROUNDOFF)


def settled(value):
    """An interval that float32's range is taken care of: overflow, numbers that are flushed to 0, NaN."""
    if not isinstance(value, Interval):
        return value
    low = jnp.where(jnp.abs(value.low) < TINY, jnp.where(value.low < 0, -TINY, 0.0), value.low)
    high = jnp.where(jnp.abs(value.high) < TINY, jnp.where(value.high > 0, TINY, 0.0), value.high)
    low, high = jnp.where(low < -LARGEST, -jnp.inf, low), jnp.where(high > LARGEST, jnp.inf, high)
    lost = jnp.isnan(low) | jnp.isnan(high) | (jnp.isinf(low) & jnp.isinf(high) & (low < high))
    low, high = jnp.where(lost, jnp.nan, low), jnp.where(lost, jnp.nan, high)
    # Computed and exact value lie in the same interval, so they differ by its width at most.
    error = jnp.nan_to_num(jnp.fmin(value.error + 4 * TINY, high - low), nan=jnp.inf)
    return value._replace(low=low, high=high, error=error)


def widened(low, high, error, slack, linear: Linear | None = None) -> Interval:
    """An interval, cut to what linearity allows, and made larger by the rounding of the steps that made it."""
    if linear is not None:
        ends = linear.ends
        low, high = jnp.maximum(low, ends[0] - error), jnp.minimum(high, ends[1] + error)
    return Interval(low - slack, high + slack, error + slack, linear)


def rounded_once(
    low, high, error, linear: Linear | None = None, unit: float = ROUNDOFF
) -> Interval:
    """As `widened` by one rounding, which is monotone: each end by its own, and 0 stays 0."""
    if linear is not None:
        ends = linear.ends
        low, high = jnp.maximum(low, ends[0] - error), jnp.minimum(high, ends[1] + error)
    slack = unit * larger(low, high)
    return Interval(low - unit * jnp.abs(low), high + unit * jnp.abs(high), error + slack, linear)


def larger(low, high) -> Array:
    """The greatest magnitude between two ends."""
    return jnp.maximum(jnp.abs(low), jnp.abs(high))
