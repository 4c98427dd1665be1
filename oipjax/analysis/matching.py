"""Which map of one network is which map of another: matching by what the maps do on the same images.

Two maps are compared by the correlation of their activations, position by position, over images (Y.
Li, J. Yosinski, J. Clune, H. Lipson and J. Hopcroft, "Convergent learning: do different neural
networks learn the same representations?", ICLR 2016, arXiv:1511.07543). Maps are then paired one to
one so that the sum of correlations is largest (H. W. Kuhn, "The Hungarian method for the assignment
problem", 1955).

The best of 128 partners is never bad, so a correlation says little alone: `correlations` can show
every network the images in an order of its own, and the matching of those is what comes out when
there is nothing to be found.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from oipjax.model import Model, Params

CONSTANT = 1e-5
"""A map whose standard deviation is not above this share of its mean is constant, up to float32's rounding."""


class Matching(NamedTuple):
    """The partners of ``k`` maps.

    Attributes:
        partner: int ``[k]``, the index of the partner; -1 if there is none.
        correlation: float64 ``[k]``, with the partner; NaN if there is none.
    """

    partner: np.ndarray
    correlation: np.ndarray

    @property
    def maps(self) -> np.ndarray:
        """The maps that have a partner, int ``[p]``."""
        return np.flatnonzero(self.partner >= 0)


def correlations(
    models: Sequence[Model],
    layer: str,
    images: np.ndarray,
    *,
    orders: np.ndarray | None = None,
    batch: int = 100,
) -> np.ndarray:
    """The correlation of each map of a layer with each other one, within and between networks.

    It is Pearson's, over all images and positions. It is NaN for a map that is constant on the
    images, such as one that is silent on all of them.

    Args:
        models: ``m`` networks that have the layer in the same shape ``[h, w, k]`` or ``[k]``.
        layer: its name.
        images: ``[n, h, w, c]``, pixels as `Model.to_input` takes them: each network normalises
            them in its own way.
        orders: int ``[m, n]``: network ``i`` sees ``images[orders[i]]``. Orders that differ give
            what correlation there is without any common content; what depends on the position
            alone, like a dark border, stays.
        batch: how many images at a time.

    Returns:
        float64 ``[m, k, m, k]``.

    Raises:
        ValueError: no network, no such layer, layers of different shapes, or images or orders that
            do not fit.
    """
    if not models:
        raise ValueError("expected one or more networks, got none")
    shapes = {model.layer(layer).shape for model in models}
    inputs = {model.input_shape for model in models}
    if len(shapes) > 1 or len(inputs) > 1:
        raise ValueError(
            f"networks must agree in the shapes of images and of {layer}, got {inputs} and {shapes}"
        )
    if np.ndim(images) != 4 or np.shape(images)[1:] != models[0].input_shape or not len(images):
        expected = ", ".join(map(str, models[0].input_shape))
        raise ValueError(
            f"images must be [n, {expected}] with at least one, got {list(np.shape(images))}"
        )
    many, count = len(models), len(images)
    orders = (
        np.broadcast_to(np.arange(count), (many, count)) if orders is None else np.asarray(orders)
    )
    if orders.shape != (many, count) or not (np.sort(orders, 1) == np.arange(count)).all():
        raise ValueError(
            f"orders must be permutations [{many}, {count}], one for each network, got {orders.shape}"
        )
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    maps = models[0].layer(layer).maps
    total, products, rows, middle = (
        np.zeros(many * maps),
        np.zeros((many * maps, many * maps)),
        0,
        None,
    )
    for first in range(0, count, batch):
        values = [
            _activations(
                model.apply,
                layer,
                model.params,
                model.to_input(images[order[first : first + batch]]),
            )
            for model, order in zip(models, orders, strict=True)
        ]
        # Taken relative to values near the means, float32 products lose nothing.
        middle = jnp.concatenate([value.mean(0) for value in values]) if middle is None else middle
        sums = _sums(values, middle)
        total, products = (
            total + np.asarray(sums[0], np.float64),
            products + np.asarray(sums[1], np.float64),
        )
        rows += len(values[0])
    mean = total / rows
    covariance = products / rows - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    deviation[deviation <= CONSTANT * np.abs(mean + np.asarray(middle, np.float64))] = np.nan
    result = np.clip(covariance / np.outer(deviation, deviation), -1, 1)
    return result.reshape(many, maps, many, maps)


def match(correlation: np.ndarray) -> Matching:
    """Pair maps one to one so that the sum of their correlations is largest.

    >>> match(np.array([[0.1, 0.9], [0.8, 0.85]])).partner
    array([1, 0])

    Args:
        correlation: ``[k, l]``. Rows and columns that hold nothing but NaN are maps without a
            correlation: they get no partner.

    Returns:
        The partners of the ``k`` maps; with fewer live columns than rows some stay alone.

    Raises:
        ValueError: not a matrix of correlations, or single entries are NaN.
    """
    correlation = np.asarray(correlation, np.float64)
    if correlation.ndim != 2:
        raise ValueError(
            f"correlation must be [k, l], of one pair of networks, got {list(correlation.shape)}"
        )
    known = ~np.isnan(correlation)
    rows, columns = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
    table = correlation[np.ix_(rows, columns)]
    if not (np.abs(table) <= 1 + 1e-9).all():
        raise ValueError(
            "correlations lie in [-1, 1], and only whole rows or columns may be NaN (constant maps)"
        )
    partner, value = np.full(len(correlation), -1), np.full(len(correlation), np.nan)
    own, other = linear_sum_assignment(table, maximize=True)
    partner[rows[own]], value[rows[own]] = columns[other], table[own, other]
    return Matching(partner, value)


def over_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over pairs of networks, and its standard error.

    Pairs that share a network are not independent, so the error comes from leaving out one
    *network* at a time, with all its pairs (J. N. Arvesen, "Jackknifing U-statistics", 1969).

    Args:
        values: ``[m, m, ...]``; entries above the diagonal count.

    Returns:
        ``(mean [...], error [...])``; the error is NaN for fewer than four networks, when little
        would be left.

    Raises:
        ValueError: fewer than two networks, or not a square.
    """
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or values.shape[0] != values.shape[1] or len(values) < 2:
        raise ValueError(
            f"expected values [m, m, ...] of two or more networks, got {list(values.shape)}"
        )
    many = len(values)
    one, two = np.triu_indices(many, 1)
    mean = values[one, two].mean(0)
    if many < 4:
        return mean, np.full_like(mean, np.nan)
    left = np.stack([values[one, two][(one != i) & (two != i)].mean(0) for i in range(many)])
    return mean, np.sqrt((many - 1) / many * np.square(left - left.mean(0)).sum(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _activations(apply, layer: str, params: Params, images) -> jax.Array:
    """``[n * h * w, k]``."""
    maps = apply(params, images)[layer]
    return maps.reshape(-1, maps.shape[-1])


@jax.jit
def _sums(values: list[jax.Array], middle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over rows of the values relative to ``middle``, ``[m k]``, and of their products, ``[m k, m k]``."""
    together = jnp.concatenate(values, 1) - middle[None]
    return together.sum(0), jnp.matmul(together.T, together, precision="highest")
