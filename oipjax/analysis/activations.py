"""What real images leave in the layers of a network: activations, and how well classes can be told apart there.

Spread, positions and read-outs need nothing of a layer but the inner products of its activations,
image by image: the Gram matrix ``[n, n]``. So a layer of 20,000 nodes costs hardly more than one of
10, and every function below takes `gram(features)`. All of them are in float64, and unchanged if a
constant is added to the features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from oipjax.keys import check
from oipjax.model import Model
from oipjax.runtime import OPTIONS, Program, checked_tile, in_flight, padded, tiles

STRENGTHS = tuple(10.0 ** np.arange(-5, 2.5, 0.5))
"""Ridge penalties that `ridge` chooses from, in units of the features' mean squared distance from their mean."""


def layer_activations(
    model: Model,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
    *,
    tile: int | None = None,
) -> dict[str, np.ndarray]:
    """Activations of many images, tile by tile; what is not asked for is not computed.

    Args:
        model: the network.
        images: network inputs ``[n, h, w, c]``.
        layers: names; all unless given.
        tile: batch size of the compiled program; see `tiles.default_tile`.

    Returns:
        ``{layer: float32 [n, h, w, k] or [n, k]}`` in the order asked for.

    Raises:
        ValueError: there is no such layer, or the images do not fit.
    """
    names = tuple(model.layer(name).name for name in (model.layers if layers is None else layers))
    images = np.asarray(images, np.float32)
    if images.shape[1:] != model.input_shape or not len(images):
        wanted = ", ".join(map(str, model.input_shape))
        raise ValueError(
            f"{model.name} takes images [n, {wanted}] with n at least 1, got {list(images.shape)}"
        )
    tile = checked_tile(tile)
    like = jax.ShapeDtypeStruct((tile, *model.input_shape), np.float32)
    program = Program(_forward, (model.network, names), (model.params,), (like,))

    def work(number: int, some: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(a)[: len(some)]
            for name, a in program(number, padded(some, tile)).items()
        }

    parts = list(in_flight(work, tiles(images, tile)))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _apply(network, names, params, images):
    return network.activations(params, images, names)


_forward = jax.jit(_apply, static_argnums=(0, 1), compiler_options=OPTIONS)


def map_means(activation: np.ndarray) -> np.ndarray:
    """``[n, h, w, k]`` or ``[n, k]`` to the maps' scores ``[n, k]``."""
    return activation.mean(axis=tuple(range(1, activation.ndim - 1)))


def exemplars(scores: np.ndarray, keep: int) -> np.ndarray:
    """Numbers ``[k, r]`` of the images that excite each map most, by ``scores [n, k]``; of equals the first.

    Raises:
        ValueError: there are not so many images.
    """
    if not 1 <= keep <= len(scores):
        raise ValueError(
            f"keep must be between 1 and the number of images ({len(scores)}), got {keep}"
        )
    return np.argsort(-scores, axis=0, kind="stable")[:keep].T


def class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes ``[m]`` in order, and the mean of each one's features, ``[m, ...]`` of ``features [n, ...]``."""
    classes = np.unique(labels)
    return classes, np.stack([features[labels == c].mean(0, dtype=np.float64) for c in classes])


def gram(features: np.ndarray) -> np.ndarray:
    """Inner products ``[n, n]`` of ``features [n, ...]``, their mean taken off."""
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(0)
    return flat @ flat.T


class Spread(NamedTuple):
    """Mean squared distances: of images from the mean of their class, and of that from the mean of all."""

    within: float
    between: float

    @property
    def share(self) -> float:
        """The share of the spread that lies between classes.

        In ``n`` images of ``m`` classes that do not differ at all, it is (m - 1) / (n - 1) on
        average.
        """
        return self.between / (self.within + self.between)


def spread(products: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Spread:
    """Spread within and between classes (analysis of variance, summed over all nodes).

    Args:
        products: `gram` of the features, ``[n, n]``.
        labels: ``[n]``.
        weights: ``[n]``, how often each image counts, as a bootstrap draws them; once unless given.
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    counted = np.where(labels[:, None] == np.unique(labels), weights[:, None], 0)
    counted = counted[:, counted.any(0)]
    shares, total = counted / counted.sum(0), weights / weights.sum()
    size = total @ np.diag(products)
    of_means = np.einsum("im,ij,jm->m", shares, products, shares, optimize=True) @ (
        counted.sum(0) / weights.sum()
    )
    return Spread(float(size - of_means), float(of_means - total @ products @ total))


def folds(key: Array, labels: np.ndarray, count: int) -> np.ndarray:
    """A fold for each image, ``int [n]``: every class is dealt out evenly, in random order.

    Args:
        key: a typed key, consumed.
        labels: ``[n]``.
        count: how many folds.

    Raises:
        ValueError: some class has too few images.
    """
    check(key)
    classes, sizes = np.unique(labels, return_counts=True)
    if count < 2 or sizes.min() < count:
        least = classes[sizes.argmin()]
        raise ValueError(
            f"{count} folds need 2 or more, and as many images of every class; {sizes.min()} of {least}"
        )
    order = np.asarray(jax.random.permutation(key, len(labels)))
    order, fold = order[np.argsort(labels[order], kind="stable")], np.empty(len(labels), int)
    fold[order] = np.arange(len(labels)) % count
    return fold


def ridge(
    products: np.ndarray,
    targets: np.ndarray,
    fold: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """Cross-validated linear read-out: each image's targets, predicted by a regression that never saw the image.

    Ridge regression with a free intercept, in its dual form; its penalty is chosen within the
    training images alone, by the leave-one-out error, which is known in closed form (Golub, Heath
    and Wahba 1979, doi:10.2307/1268518).

    Args:
        products: `gram` of the features, ``[n, n]``.
        targets: ``[n, m]``; the one-hot classes, for a read-out of the class (the largest
            prediction).
        fold: ``int [n]``, see `folds`.
        strengths: penalties to choose from, as multiples of the features' mean squared distance
            from their mean.

    Returns:
        ``[n, m]``.
    """
    predicted = np.empty(targets.shape)
    for number in np.unique(fold):
        train, test = fold != number, fold == number
        inner, mean = products[np.ix_(train, train)], targets[train].mean(0)
        centred = inner - inner.mean(0) - inner.mean(1, keepdims=True) + inner.mean()
        values, vectors = np.linalg.eigh(centred)
        values = np.maximum(values, 0)
        along, scale = vectors.T @ (targets[train] - mean), max(float(values.mean()), 1e-300)

        def left_out(penalty: float, values=values, vectors=vectors, along=along) -> float:
            kept = penalty / (values + penalty)
            residual, leverage = (
                vectors @ (kept[:, None] * along),
                1 / len(values) + (vectors**2) @ (1 - kept),
            )
            return float(np.sum((residual / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2))

        penalty = min((scale * strength for strength in strengths), key=left_out)
        dual = vectors @ (along / (values + penalty)[:, None])
        predicted[test] = mean + (products[np.ix_(test, train)] - inner.mean(0)) @ dual
    return predicted


def positions(products: np.ndarray, labels: np.ndarray, a: int, b: int) -> np.ndarray:
    """Where images stand on the way from the mean of class ``a`` (0) to that of class ``b`` (1), ``[n]``.

    An image of one of the two classes does not count for its own class's mean; or it would seem
    nearer than it is.

    Args:
        products: `gram` of the features, ``[n, n]``.
        labels: ``[n]``.
        a: a class with two images or more.
        b: another one.
    """
    of_a, of_b = labels == a, labels == b
    if a == b or min(of_a.sum(), of_b.sum()) < 2:
        raise ValueError(f"expected two classes with two images or more, got {a} and {b}")
    own = np.eye(len(labels), dtype=bool)
    # Row i: the weights of all images in the means that image i is compared with.
    mean_a, mean_b = (
        np.where(own, 0, np.broadcast_to(of.astype(float), own.shape)) for of in (of_a, of_b)
    )
    mean_a, mean_b = (mean / mean.sum(1, keepdims=True) for mean in (mean_a, mean_b))
    way = mean_b - mean_a
    along = way @ products
    from_a = np.diag(along) - np.sum(along * mean_a, 1)
    return from_a / np.sum(along * way, 1)


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Chance that a random value of ``second`` lies above one of ``first`` (area under the ROC curve); ties half."""
    difference = second[:, None] - first[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
