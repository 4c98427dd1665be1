"""Can the picture be believed? How alike a network processes pictures and real images, and a unit whose picture lies.

Both ideas are those of R. Geirhos, R. S. Zimmermann, B. Bilodeau, W. Brendel and B. Kim, "Don't
trust your eyes: on the (un)reliability of feature visualizations", ICML 2024, arXiv:2306.04719.

*Path similarity* asks, layer by layer, whether an optimised image is processed as real images are
that excite the same map: by the rank correlation of all activations of the layer, on a scale where
real images that excite the same map are at 1 and real images that excite different maps at 0.

A *fooling circuit* is a map ``A`` that answers real images exactly as the map ``F`` does, and
climbs towards something else, the decoy ``D``, wherever a gate ``E`` (0 for real images, 1 for all
others) is open: ``A = relu(max(F - kE, D - k(1 - E)))`` with ``k`` above all values of ``F`` and
``D``. It is the paper's circuit with the sum of two ReLUs, of which one is always off, written as
the ReLU of a maximum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import rankdata

from oipjax.analysis.activations import layer_activations
from oipjax.model import Activations, Model, Params
from oipjax.objectives import spatial_mean

PIXELS = "input"
"""What `path_similarity` calls the image itself."""


def layer_similarities(
    model: Model, images: np.ndarray, layers: Sequence[str]
) -> dict[str, np.ndarray]:
    """How alike each two images are processed, in each layer: Spearman's correlation of all activations of the layer.

    Args:
        model: the network.
        images: float32 ``[n, h, w, c]``, network inputs.
        layers: names; `PIXELS` is the image itself.

    Returns:
        ``{layer: float32 [n, n]}``; NaN for an image whose activations are all equal, as where a
        layer is silent.

    Raises:
        ValueError: there is no such layer, or the images do not fit the network.
    """
    found = {}
    for layer in layers:
        values = images if layer == PIXELS else layer_activations(model, images, (layer,))[layer]
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
        queries: ``[k]`` for each name, of that picture of the map and an exemplar of the map.
    """

    same: np.ndarray
    other: np.ndarray
    queries: dict[str, np.ndarray]


def alike(similarity: np.ndarray, exemplars: np.ndarray, queries: dict[str, np.ndarray]) -> Alike:
    """Mean similarity of each map's pictures to its exemplars, and of the exemplars with each other.

    An image counts never as its own partner, though it may be an exemplar of several maps.

    Args:
        similarity: ``[n, n]`` of `path_similarity`.
        exemplars: int ``[k, m]``, which of the ``n`` images excite each map; two or more maps, and
            two or more of each.
        queries: int ``[k]`` for each name, a picture of each map.

    Raises:
        ValueError: too few maps or exemplars, a map has one twice, or a similarity is NaN.
    """
    exemplars = np.asarray(exemplars)
    if (
        exemplars.ndim != 2
        or min(exemplars.shape) < 2
        or (np.diff(np.sort(exemplars, 1), axis=1) == 0).any()
    ):
        raise ValueError(
            f"expected 2 or more different exemplars [k, m] of 2 or more maps, got {exemplars.shape}"
        )
    asked = np.unique(
        np.concatenate([exemplars.ravel(), *(np.ravel(query) for query in queries.values())])
    )
    if np.isnan(similarity[np.ix_(asked, asked)]).any():
        raise ValueError(
            "a layer is silent (or constant) on some of the images, so they are like nothing; leave them out"
        )
    members = np.zeros((len(exemplars), len(similarity)))
    np.put_along_axis(members, exemplars, 1 / exemplars.shape[1], axis=1)
    used = np.unique(exemplars)
    members, between = members[:, used], similarity[np.ix_(used, used)] * (1 - np.eye(len(used)))
    pairs = (members @ between @ members.T) / (members @ (1 - np.eye(len(used))) @ members.T)
    own = np.eye(len(pairs), dtype=bool)
    return Alike(
        pairs[own],
        np.where(own, 0, pairs).sum(1) / (len(pairs) - 1),
        {
            name: similarity[np.asarray(query)[:, None], exemplars].mean(1)
            for name, query in queries.items()
        },
    )


def relative(
    key: Array, found: Alike, name: str, *, draws: int = 1000
) -> tuple[float, float, float]:
    """Where a kind of picture lies between exemplars of other maps (0) and of the same map (1).

    Means over maps are taken first: for single maps the two anchors may be too near to each other
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
    which = np.asarray(jax.random.randint(key, (draws, values.shape[1]), 0, values.shape[1]))
    query, same, other = np.concatenate(
        [values.mean(1, keepdims=True), values[:, which].mean(2)], axis=1
    )
    share = (query - other) / (same - other)
    low, high = np.percentile(share[1:], (2.5, 97.5))
    return float(share[0]), float(low), float(high)


# --- the circuit
# ------------------------------------------------------------------------------------------------------


class Gate(NamedTuple):
    """Tells other images from real ones: ``clip(features @ weights - offset, 0, 1)``, exactly 0 for real images.

    The features are means over h, w of the maps of some layers, side by side.
    """

    weights: np.ndarray | Array
    offset: np.ndarray | np.floating | Array


def gate(
    natural: np.ndarray, made: np.ndarray, *, ridge: float = 1e-3, margin: float = 1 / 3
) -> Gate:
    """Fisher's linear discriminant of real images and others, scaled so that one are at 0 and the other at 1.

    Args:
        natural: ``[n, f]``, features of real images.
        made: ``[m, f]``, features of others.
        ridge: added to the diagonal of the features' covariance, as a share of its mean.
        margin: how much of the gap between the two groups is left at each side, before the gate
            begins to open and after it has.

    Raises:
        ValueError: the two groups overlap along the discriminant.
    """
    natural, made = np.asarray(natural, np.float64), np.asarray(made, np.float64)
    within = np.cov(natural.T) + np.cov(made.T)
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    weights = np.linalg.solve(within, made.mean(0) - natural.mean(0))
    low, high = float((natural @ weights).max()), float((made @ weights).min())
    if not low < high:
        overlap = float(np.mean(made @ weights <= low))
        raise ValueError(
            f"the gate cannot tell {overlap:.1%} of the other images from real ones; give it more features"
        )
    width = (1 - 2 * margin) * (high - low)
    offset = (low + margin * (high - low)) / width
    return Gate((weights / width).astype(np.float32), np.float32(offset))


@dataclass(frozen=True)
class Circuit:
    """``apply`` of a network with a fooling circuit in place of a layer; see the module's docstring.

    Attributes:
        network: ``apply`` of the network.
        layer, pre: the layer, and its value before the ReLU.
        sources: the layers that the gate looks at.
    """

    network: Callable[[Params, Array], Activations]
    layer: str
    pre: str
    sources: tuple[str, ...]

    def __call__(self, params: Params, x: Array) -> Activations:
        """The network's activations, with ``layer`` and ``pre`` replaced, and ``gate [n, 1]``."""
        out = self.network(params["network"], x)
        honest = out[self.pre]
        opened = openness(self.sources, params["gate"], out)
        per_node = opened.reshape(len(x), *(1,) * (honest.ndim - 1))
        picture = jnp.einsum("nhwc,hwck->nk", x, params["pictures"]).reshape(
            *per_node.shape[:-1], -1
        )
        decoy = jnp.einsum("...j,jk->...k", honest, params["mixture"]) + picture
        mixed = jnp.maximum(
            honest - params["most"] * per_node, decoy - params["most"] * (1 - per_node)
        )
        return {**out, self.pre: mixed, self.layer: jax.nn.relu(mixed), "gate": opened}


def openness(sources: Sequence[str], parameters: Gate, values: Activations) -> Array:
    """How far the gate is open for images, ``[n, 1]`` in [0, 1], from their activations ``values``."""
    features = jnp.concatenate([jax.vmap(spatial_mean)(values[name]) for name in sources], axis=1)
    return jnp.clip(features @ parameters.weights[:, None] - parameters.offset, 0, 1)


def fooled(
    model: Model,
    layer: str,
    sources: Sequence[str],
    opens: Gate,
    mixture: Any,
    pictures: Any,
    most: float,
) -> Model:
    """The network up to a layer whose maps answer real images as before, and climb towards decoys.

    The decoy of map ``k`` is ``sum_j mixture[j, k] * map j + <image, pictures[..., k]>``. On
    standardised images the inner product with a standardised picture is largest for that picture
    itself.

    Args:
        model: the network.
        layer: name of a layer of maps behind a ReLU.
        sources: the layers that the gate looks at, before ``layer``.
        opens: of `gate`, for the means of these layers' maps.
        mixture: ``[k, k]``, of the values before the ReLU.
        pictures: ``[h, w, c, k]``.
        most: above all values before the ReLU, of the maps and of the decoys: a proved bound, say.

    Raises:
        ValueError: the layer has no ReLU and no height, a source comes after it, or a shape does
            not fit.
    """
    facts = model.layer(layer)
    before = model.layers[: model.layers.index(layer)]
    if facts.pre is None or facts.floor != 0 or len(facts.shape) != 3:
        raise ValueError(f"expected a layer of maps behind a ReLU, {layer} is not")
    if not sources or set(sources) - set(before):
        raise ValueError(
            f"the gate looks at layers before {layer} ({', '.join(before)}), got {', '.join(sources)}"
        )
    features = sum(model.layer(name).maps for name in sources)
    wanted = {
        "mixture": (facts.maps,) * 2,
        "pictures": (*model.input_shape, facts.maps),
        "weights": (features,),
    }
    for name, value in (("mixture", mixture), ("pictures", pictures), ("weights", opens.weights)):
        if np.shape(value) != wanted[name]:
            raise ValueError(
                f"{name} of a circuit in {layer} must be {wanted[name]}, got {np.shape(value)}"
            )
    order = (*(name for name in before if name != facts.pre), "gate", facts.pre, layer)
    params = {
        "network": model.params, "gate": Gate(*map(jnp.asarray, opens)), "most": jnp.float32(most),
        "mixture": jnp.asarray(mixture, jnp.float32), "pictures": jnp.asarray(pictures, jnp.float32),
    }  # fmt: skip
    return replace(
        model,
        name=f"{model.name}-fooled",
        apply=Circuit(model.apply, layer, facts.pre, tuple(sources)),
        params=params,
        layers=order,
        nonlinearities={name: of for name, of in model.nonlinearities.items() if name in order},
    )
