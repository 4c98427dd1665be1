"""Can a picture be believed? How alike a network processes pictures and real images.

Path similarity asks, layer by layer, whether an optimised image is processed like the real images
that excite the same map. It is the rank correlation of all activations of the layer, on a scale
where real images that excite the same map are at 1 and real images that excite different maps are
at 0. Source: R. Geirhos, R. S. Zimmermann, B. Bilodeau, W. Brendel and B. Kim, "Don't trust your
eyes: on the (un)reliability of feature visualizations", ICML 2024, arXiv:2306.04719.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from scipy.stats import rankdata

from oipjax.analysis.activations import layer_activations
from oipjax.model import Model

PIXELS = "input"
"""The name of the image itself among the layers of `layer_similarities`."""


def layer_similarities(
    model: Model, images: np.ndarray, layers: Sequence[str]
) -> dict[str, np.ndarray]:
    """How alike each two images are processed in each layer.

    The measure is Spearman's rank correlation of all activations of the layer.

    Args:
        model: the network.
        images: float32 ``[n, h, w, c]``, network inputs.
        layers: names; `PIXELS` is the image itself.

    Returns:
        ``{layer: float32 [n, n]}``; NaN for an image whose activations in the layer are all equal.

    Raises:
        ValueError: there is no such layer, or the images do not fit the network.
    """
    found = {}
    for layer in layers:
        if layer == PIXELS:
            values = images
        else:
            values = layer_activations(model, images, (layer,))[layer]
        rows = np.asarray(values).reshape(len(values), -1)
        ranks = np.stack([rankdata(row).astype(np.float32) for row in rows])
        ranks -= ranks.mean(1, keepdims=True)
        norm = np.linalg.norm(ranks, axis=1, keepdims=True)
        ranks /= np.where(norm > 0, norm, np.nan)
        found[layer] = ranks @ ranks.T
    return found


class Alike(NamedTuple):
    """Mean similarities for each of ``k`` maps.

    Attributes:
        same: ``[k]``, of two exemplars of the map.
        other: ``[k]``, of an exemplar of the map and one of another map.
        queries: ``[k]`` by the name of a kind of picture: of the map's picture and its exemplars.
    """

    same: np.ndarray
    other: np.ndarray
    queries: dict[str, np.ndarray]


def alike(similarity: np.ndarray, exemplars: np.ndarray, queries: dict[str, np.ndarray]) -> Alike:
    """Mean similarity of each map's pictures to its exemplars, and of the exemplars to each other.

    An image never counts as its own partner, though it may be an exemplar of several maps.

    Args:
        similarity: ``[n, n]``, of one layer, from `layer_similarities`.
        exemplars: int ``[k, m]``: the images that excite each map, two or more of each of two or
            more maps.
        queries: int ``[k]`` by name: a picture of each map.

    Raises:
        ValueError: there are too few maps or exemplars, a map has one twice, or a similarity is
            NaN.
    """
    exemplars = _checked_exemplars(exemplars)
    pictures = {name: np.asarray(query) for name, query in queries.items()}
    used = np.unique(np.concatenate([exemplars.ravel(), *map(np.ravel, pictures.values())]))
    if np.isnan(similarity[np.ix_(used, used)]).any():
        raise ValueError(
            "a layer is constant on some of the images, so they are like nothing; leave them out"
        )
    pairs = _mean_over_pairs(similarity, exemplars)
    is_same = np.eye(len(pairs), dtype=bool)
    to_exemplars = {}
    for name, picture in pictures.items():
        to_exemplars[name] = similarity[picture[:, None], exemplars].mean(1)
    return Alike(
        same=pairs[is_same],
        other=np.where(is_same, 0, pairs).sum(1) / (len(pairs) - 1),
        queries=to_exemplars,
    )


def _checked_exemplars(exemplars: np.ndarray) -> np.ndarray:
    exemplars = np.asarray(exemplars)
    if exemplars.ndim == 2 and min(exemplars.shape) >= 2:
        steps = np.diff(np.sort(exemplars, 1), axis=1)
        if (steps > 0).all():
            return exemplars
    raise ValueError(
        f"expected 2 or more different exemplars [k, m] of 2 or more maps, got {exemplars.shape}"
    )


def _mean_over_pairs(similarity: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
    """Mean similarity ``[k, k]`` of two maps' exemplars, over all pairs of different images."""
    members = np.zeros((len(exemplars), len(similarity)))
    np.put_along_axis(members, exemplars, 1 / exemplars.shape[1], axis=1)
    used = np.unique(exemplars)
    members = members[:, used]
    different = 1 - np.eye(len(used))
    between = similarity[np.ix_(used, used)] * different
    weights = members @ different @ members.T
    return (members @ between @ members.T) / weights


def relative(
    key: Array, found: Alike, name: str, *, draws: int = 1000
) -> tuple[float, float, float]:
    """Where a kind of picture lies between exemplars of other maps (0) and of the same map (1).

    Means over maps are taken first: for a single map the two anchors may be too near to each other
    to divide by.

    Args:
        key: consumed; for the bootstrap.
        found: of one layer.
        name: the kind of picture, a name among its queries.
        draws: of maps, with replacement.

    Returns:
        ``(value, low, high)``: the ends hold 95 % of the bootstrap over maps.
    """
    values = np.stack([found.queries[name], found.same, found.other])
    maps = values.shape[1]
    drawn = np.asarray(jax.random.randint(key, (draws, maps), 0, maps))
    bootstrap = values[:, drawn].mean(2)
    means = np.concatenate([values.mean(1, keepdims=True), bootstrap], axis=1)
    query, same, other = means
    share = (query - other) / (same - other)
    low, high = np.percentile(share[1:], (2.5, 97.5))
    return float(share[0]), float(low), float(high)
