"""Which map of one network corresponds to which map of another.

Two maps are compared by the correlation of their activations on the same images, position by
position (Y. Li, J. Yosinski, J. Clune, H. Lipson and J. Hopcroft, "Convergent learning: do
different neural networks learn the same representations?", ICLR 2016, arXiv:1511.07543). Maps are
then paired one to one so that the sum of correlations is largest (H. W. Kuhn, "The Hungarian method
for the assignment problem", 1955).

The best of 128 partners is never bad, so a correlation alone says little. `correlations` can
therefore show every network the images in an order of its own. Matching those gives the level that
chance reaches.
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
"""A map counts as constant if its standard deviation is at most this share of its mean.

That is float32's rounding.
"""


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
    images.

    Args:
        models: ``m`` networks that have the layer in the same shape ``[h, w, k]`` or ``[k]``.
        layer: its name.
        images: ``[n, h, w, c]``, pixels as `Model.to_input` takes them; each network normalises
            them in its own way.
        orders: int ``[m, n]``: network ``i`` sees ``images[orders[i]]``. Orders that differ give
            the correlation without any common content. A part that depends on the position alone,
            such as a dark border, stays.
        batch: how many images at a time.

    Returns:
        float64 ``[m, k, m, k]``.

    Raises:
        ValueError: there is no network or no such layer, the layers have different shapes, or the
            images or orders do not fit.
    """
    _check_networks(models, layer, images)
    count = len(images)
    orders = _checked_orders(orders, len(models), count)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    maps = models[0].layer(layer).maps
    size = len(models) * maps
    total = np.zeros(size)
    products = np.zeros((size, size))
    rows = 0
    middle = None
    for first in range(0, count, batch):
        values = []
        for model, order in zip(models, orders, strict=True):
            inputs = model.to_input(images[order[first : first + batch]])
            values.append(_activations(model.apply, layer, model.params, inputs))
        if middle is None:
            # Relative to values near the means, float32 products lose nothing.
            middle = jnp.concatenate([value.mean(0) for value in values])
        sum_of_values, sum_of_products = _sums(values, middle)
        total = total + np.asarray(sum_of_values, np.float64)
        products = products + np.asarray(sum_of_products, np.float64)
        rows += len(values[0])
    mean = total / rows
    covariance = products / rows - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    whole_mean = mean + np.asarray(middle, np.float64)
    deviation[deviation <= CONSTANT * np.abs(whole_mean)] = np.nan
    result = np.clip(covariance / np.outer(deviation, deviation), -1, 1)
    return result.reshape(len(models), maps, len(models), maps)


def _check_networks(models: Sequence[Model], layer: str, images: np.ndarray) -> None:
    if not models:
        raise ValueError("expected one or more networks, got none")
    shapes = {model.layer(layer).shape for model in models}
    inputs = {model.input_shape for model in models}
    if len(shapes) > 1 or len(inputs) > 1:
        raise ValueError(
            f"networks must agree in the shapes of images and of {layer}, got {inputs} and {shapes}"
        )
    given = np.shape(images)
    expected = models[0].input_shape
    if len(given) != 4 or given[1:] != expected or not given[0]:
        shape = ", ".join(map(str, expected))
        raise ValueError(f"images must be [n, {shape}] with at least one, got {list(given)}")


def _checked_orders(orders: np.ndarray | None, networks: int, images: int) -> np.ndarray:
    natural = np.arange(images)
    if orders is None:
        return np.broadcast_to(natural, (networks, images))
    orders = np.asarray(orders)
    if orders.shape != (networks, images) or not (np.sort(orders, 1) == natural).all():
        raise ValueError(
            f"orders must be permutations [{networks}, {images}], one for each network, "
            f"got {orders.shape}"
        )
    return orders


def match(correlation: np.ndarray) -> Matching:
    """Pair maps one to one so that the sum of their correlations is largest.

    >>> match(np.array([[0.1, 0.9], [0.8, 0.85]])).partner
    array([1, 0])

    Args:
        correlation: ``[k, l]``. Rows and columns that hold nothing but NaN are maps without a
            correlation: they get no partner.

    Returns:
        The partners of the ``k`` maps; where there are fewer columns than rows, some have none.

    Raises:
        ValueError: this is no matrix of correlations, or single entries are NaN.
    """
    correlation = np.asarray(correlation, np.float64)
    if correlation.ndim != 2:
        raise ValueError(
            f"correlation must be [k, l], of one pair of networks, got {list(correlation.shape)}"
        )
    is_known = ~np.isnan(correlation)
    rows = np.flatnonzero(is_known.any(1))
    columns = np.flatnonzero(is_known.any(0))
    table = correlation[np.ix_(rows, columns)]
    if not (np.abs(table) <= 1 + 1e-9).all():
        raise ValueError(
            "correlations lie in [-1, 1], and only whole rows or columns may be NaN (constant maps)"
        )
    partner = np.full(len(correlation), -1)
    value = np.full(len(correlation), np.nan)
    row, column = linear_sum_assignment(table, maximize=True)
    partner[rows[row]] = columns[column]
    value[rows[row]] = table[row, column]
    return Matching(partner, value)


def over_pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over pairs of networks, and its standard error.

    Pairs that share a network are not independent. The error therefore comes from leaving out one
    *network* at a time, with all its pairs (J. N. Arvesen, "Jackknifing U-statistics", 1969).

    Args:
        values: ``[m, m, ...]``; entries above the diagonal count.

    Returns:
        ``(mean [...], error [...])``; the error is NaN for fewer than four networks.

    Raises:
        ValueError: there are fewer than two networks, or the array is not square.
    """
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or values.shape[0] != values.shape[1] or len(values) < 2:
        raise ValueError(
            f"expected values [m, m, ...] of two or more networks, got {list(values.shape)}"
        )
    networks = len(values)
    first, second = np.triu_indices(networks, 1)
    pairs = values[first, second]
    mean = pairs.mean(0)
    if networks < 4:
        return mean, np.full_like(mean, np.nan)
    without = []
    for network in range(networks):
        is_kept = (first != network) & (second != network)
        without.append(pairs[is_kept].mean(0))
    deviations = np.stack(without) - np.mean(without, 0)
    variance = (networks - 1) / networks * np.square(deviations).sum(0)
    return mean, np.sqrt(variance)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _activations(apply, layer: str, params: Params, images) -> jax.Array:
    """``[n * h * w, k]``."""
    maps = apply(params, images)[layer]
    return maps.reshape(-1, maps.shape[-1])


@jax.jit
def _sums(values: list[jax.Array], middle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over rows of the values relative to ``middle``, and of their products.

    Their shapes are ``[m k]`` and ``[m k, m k]``.
    """
    together = jnp.concatenate(values, 1) - middle[None]
    products = jnp.matmul(together.T, together, precision="highest")
    return together.sum(0), products
