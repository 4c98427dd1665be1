"""How well classes can be told apart in a layer.

Spread and positions need of a layer only the inner products of its activations, image by image: the
Gram matrix ``[n, n]``. A layer of 20,000 nodes then costs hardly more than one of 10. All functions
compute in float64, and adding a constant to the features changes nothing.

`folds`, `ridge` and `separation` use scikit-learn, which the extra ``experiments`` installs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from oipjax.analysis.extras import scikit_learn
from oipjax.keys import check

STRENGTHS = tuple(10.0 ** np.arange(-5, 2.5, 0.5))
"""Ridge penalties to choose from, in units of the features' mean squared distance from the mean."""


def gram(features: np.ndarray) -> np.ndarray:
    """Inner products ``[n, n]`` of ``features [n, ...]`` after their mean is subtracted."""
    flat = features.reshape(len(features), -1).astype(np.float64)
    flat -= flat.mean(0)
    return flat @ flat.T


class Spread(NamedTuple):
    """How far images lie apart.

    Attributes:
        within: mean squared distance of an image from the mean of its class.
        between: mean squared distance of the mean of its class from the mean of all images.
    """

    within: float
    between: float

    @property
    def share(self) -> float:
        """The share of the spread that lies between classes.

        In ``n`` images of ``m`` classes that do not differ at all it is (m - 1) / (n - 1) in the
        mean.
        """
        return self.between / (self.within + self.between)


def spread(products: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Spread:
    """Spread within and between classes: an analysis of variance, summed over all nodes.

    Args:
        products: `gram` of the features, ``[n, n]``.
        labels: ``[n]``.
        weights: ``[n]``, how often each image counts, as in a bootstrap; once unless given.
    """
    counts = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    is_member = labels[:, None] == np.unique(labels)
    members = np.where(is_member, counts[:, None], 0)
    members = members[:, members.any(0)]
    sizes = members.sum(0)
    class_weights = members / sizes
    total_weights = counts / counts.sum()
    mean_square = total_weights @ np.diag(products)
    squares = np.einsum("im,ij,jm->m", class_weights, products, class_weights, optimize=True)
    class_square = squares @ (sizes / counts.sum())
    total_square = total_weights @ products @ total_weights
    return Spread(
        within=float(mean_square - class_square),
        between=float(class_square - total_square),
    )


def folds(key: Array, labels: np.ndarray, count: int) -> np.ndarray:
    """A fold for each image; every fold has the same share of each class.

    Args:
        key: a typed key, consumed.
        labels: ``[n]``.
        count: number of folds.

    Returns:
        int ``[n]``.

    Raises:
        ValueError: a class has fewer images than there are folds.
    """
    check(key)
    classes, sizes = np.unique(labels, return_counts=True)
    if count < 2 or sizes.min() < count:
        smallest = classes[sizes.argmin()]
        raise ValueError(
            f"{count} folds need 2 or more folds, and as many images of every class; "
            f"there are {sizes.min()} of {smallest}"
        )
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    library = scikit_learn("model_selection")
    splitter = library.StratifiedKFold(count, shuffle=True, random_state=seed)
    fold = np.empty(len(labels), int)
    for number, (_, test) in enumerate(splitter.split(labels, labels)):
        fold[test] = number
    return fold


def ridge(
    products: np.ndarray,
    targets: np.ndarray,
    fold: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """A cross-validated linear read-out: each image is predicted from the other folds alone.

    Ridge regression with a free intercept. Its penalty is chosen within the training images by the
    leave-one-out error, which has a closed form (Golub, Heath and Wahba 1979, doi:10.2307/1268518).

    Args:
        products: `gram` of the features, ``[n, n]``.
        targets: ``[n, m]``; one-hot classes give a read-out of the class: the largest prediction.
        fold: ``int [n]``, see `folds`.
        strengths: penalties to choose from, as multiples of the features' mean squared distance
            from their mean.

    Returns:
        ``[n, m]``.
    """
    library = scikit_learn("linear_model")
    points = _points(products)
    predicted = np.empty(targets.shape)
    for number in np.unique(fold):
        is_test = fold == number
        train = points[~is_test]
        scale = np.square(train - train.mean(0)).sum(1).mean()
        penalties = max(scale, 1e-300) * np.asarray(strengths)
        regression = library.RidgeCV(alphas=penalties).fit(train, targets[~is_test])
        predicted[is_test] = regression.predict(points[is_test]).reshape(-1, *targets.shape[1:])
    return predicted


def _points(products: np.ndarray) -> np.ndarray:
    """Points ``[n, n]`` with these inner products, so the features themselves are not needed."""
    values, vectors = np.linalg.eigh(products)
    return vectors * np.sqrt(np.maximum(values, 0))


def positions(products: np.ndarray, labels: np.ndarray, a: int, b: int) -> np.ndarray:
    """Where images lie between the mean of class ``a`` (0) and the mean of class ``b`` (1).

    An image of one of the two classes is left out of its own class's mean, or it would seem nearer
    than it is.

    Args:
        products: `gram` of the features, ``[n, n]``.
        labels: ``[n]``.
        a: a class with two images or more.
        b: another one.

    Returns:
        ``[n]``.

    Raises:
        ValueError: the classes are equal, or one has fewer than two images.
    """
    is_a = labels == a
    is_b = labels == b
    if a == b or min(is_a.sum(), is_b.sum()) < 2:
        raise ValueError(f"expected two classes with two images or more, got {a} and {b}")
    # Row i: the weights of all images in the means that image i is compared with.
    mean_a = _mean_of_others(is_a)
    mean_b = _mean_of_others(is_b)
    direction = mean_b - mean_a
    along = direction @ products
    from_a = np.diag(along) - np.sum(along * mean_a, 1)
    return from_a / np.sum(along * direction, 1)


def _mean_of_others(is_member: np.ndarray) -> np.ndarray:
    """For each image the weights ``[n, n]`` of a mean over all members but itself."""
    weights = np.tile(is_member.astype(float), (len(is_member), 1))
    np.fill_diagonal(weights, 0)
    return weights / weights.sum(1, keepdims=True)


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Chance that a random value of ``second`` lies above one of ``first``; ties count half.

    This is the area under the ROC curve.
    """
    labels = np.repeat([0, 1], [len(first), len(second)])
    values = np.concatenate([first, second])
    return float(scikit_learn("metrics").roc_auc_score(labels, values))
