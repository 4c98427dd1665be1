"""A fooling circuit: maps that answer real images as before, and whose pictures lie.

A fooling circuit is a map ``A`` that answers real images exactly as the map ``F`` does. Wherever a
gate ``E`` (0 for real images, 1 for all others) is open, ``A`` climbs towards another image, the
decoy ``D``: ``A = relu(max(F - kE, D - k(1 - E)))``. ``k`` is above all values of ``F`` and ``D``.

It is the circuit of R. Geirhos, R. S. Zimmermann, B. Bilodeau, W. Brendel and B. Kim, "Don't trust
your eyes: on the (un)reliability of feature visualizations", ICML 2024, arXiv:2306.04719. There it
is the sum of two ReLUs, one of which is always off; here it is the ReLU of a maximum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.model import Activations, LayerInfo, Model, Params
from oipjax.objectives import spatial_mean


class Gate(NamedTuple):
    """Tells other images from real ones: ``clip(features @ weights - offset, 0, 1)``.

    It is exactly 0 for real images. The features are means over h, w of the maps of some layers,
    side by side.

    Attributes:
        weights: ``[f]``.
        offset: a scalar.
    """

    weights: np.ndarray | Array
    offset: np.ndarray | np.floating | Array


def gate(
    natural: np.ndarray, made: np.ndarray, *, ridge: float = 1e-3, margin: float = 1 / 3
) -> Gate:
    """Fisher's linear discriminant, scaled so that real images are at 0 and others at 1.

    Args:
        natural: ``[n, f]``, features of real images.
        made: ``[m, f]``, features of others.
        ridge: added to the diagonal of the features' covariance, as a share of its mean.
        margin: share of the gap between the two groups that is left at each side: before the gate
            begins to open, and after it is open.

    Raises:
        ValueError: the two groups overlap along the discriminant.
    """
    natural = np.asarray(natural, np.float64)
    made = np.asarray(made, np.float64)
    within = np.cov(natural.T) + np.cov(made.T)
    features = len(within)
    within += ridge * np.trace(within) / features * np.eye(features)
    weights = np.linalg.solve(within, made.mean(0) - natural.mean(0))
    low = float((natural @ weights).max())
    high = float((made @ weights).min())
    if not low < high:
        overlap = float(np.mean(made @ weights <= low))
        raise ValueError(
            f"the gate cannot tell {overlap:.1%} of the other images from real ones; "
            "give it more features"
        )
    gap = high - low
    width = (1 - 2 * margin) * gap
    offset = (low + margin * gap) / width
    return Gate((weights / width).astype(np.float32), np.float32(offset))


def openness(sources: Sequence[str], parameters: Gate, values: Activations) -> Array:
    """How far the gate is open for images: ``[n, 1]`` in [0, 1].

    Args:
        sources: the layers whose map means are the features.
        parameters: of the gate.
        values: activations of the images.
    """
    means = [jax.vmap(spatial_mean)(values[name]) for name in sources]
    features = jnp.concatenate(means, axis=1)
    return jnp.clip(features @ parameters.weights[:, None] - parameters.offset, 0, 1)


@dataclass(frozen=True)
class Circuit:
    """``apply`` of a network with a fooling circuit in place of a layer.

    Attributes:
        network: ``apply`` of the network.
        layer: the layer.
        pre: the layer before its ReLU.
        sources: the layers that the gate looks at.
    """

    network: Callable[[Params, Array], Activations]
    layer: str
    pre: str
    sources: tuple[str, ...]

    def __call__(self, params: Params, x: Array) -> Activations:
        """The network's activations, with ``layer`` and ``pre`` replaced, and ``gate [n, 1]``."""
        activations = self.network(params["network"], x)
        honest = activations[self.pre]
        opened = openness(self.sources, params["gate"], activations)
        per_node = opened.reshape(len(x), *(1,) * (honest.ndim - 1))
        products = jnp.einsum("nhwc,hwck->nk", x, params["pictures"])
        picture = products.reshape(*per_node.shape[:-1], -1)
        decoy = jnp.einsum("...j,jk->...k", honest, params["mixture"]) + picture
        shut = honest - params["most"] * per_node
        open_ = decoy - params["most"] * (1 - per_node)
        mixed = jnp.maximum(shut, open_)
        replaced = {self.pre: mixed, self.layer: jax.nn.relu(mixed), "gate": opened}
        return {**activations, **replaced}


def fooled(
    model: Model,
    layer: str,
    sources: Sequence[str],
    opens: Gate,
    mixture: Any,
    pictures: Any,
    most: float,
) -> Model:
    """The network up to a layer whose maps answer real images as before and climb towards decoys.

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
        most: above all values before the ReLU, of the maps and of the decoys; for example a bound.

    Raises:
        ValueError: the layer has no ReLU and no height, a source comes after it, or a shape does
            not fit.
    """
    facts = model.layer(layer)
    before = model.layers[: model.layers.index(layer)]
    if facts.pre is None or facts.floor != 0 or len(facts.shape) != 3:
        raise ValueError(f"expected a layer of maps behind a ReLU, {layer} is not")
    if not sources or set(sources) - set(before):
        earlier = ", ".join(before)
        raise ValueError(
            f"the gate looks at layers before {layer} ({earlier}), got {', '.join(sources)}"
        )
    _check_shapes(model, facts, sources, {"mixture": mixture, "pictures": pictures}, opens)
    order = [name for name in before if name != facts.pre]
    order += ["gate", facts.pre, layer]
    params = {
        "network": model.params,
        "gate": Gate(jnp.asarray(opens.weights), jnp.asarray(opens.offset)),
        "most": jnp.float32(most),
        "mixture": jnp.asarray(mixture, jnp.float32),
        "pictures": jnp.asarray(pictures, jnp.float32),
    }
    kept = {name: fact for name, fact in model.nonlinearities.items() if name in order}
    return replace(
        model,
        name=f"{model.name}-fooled",
        apply=Circuit(model.apply, layer, facts.pre, tuple(sources)),
        params=params,
        layers=tuple(order),
        nonlinearities=kept,
    )


def _check_shapes(
    model: Model,
    layer: LayerInfo,
    sources: Sequence[str],
    arrays: dict[str, Any],
    opens: Gate,
) -> None:
    features = sum(model.layer(name).maps for name in sources)
    expected = {
        "mixture": (layer.maps, layer.maps),
        "pictures": (*model.input_shape, layer.maps),
        "weights": (features,),
    }
    for name, value in {**arrays, "weights": opens.weights}.items():
        if np.shape(value) != expected[name]:
            raise ValueError(
                f"{name} of a circuit in {layer.name} must be {expected[name]}, "
                f"got {np.shape(value)}"
            )
