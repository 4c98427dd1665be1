"""The distribution of an autoencoder's codes: pure functions of latent vectors ``[n, d]``.

``n`` counts codes, ``d`` latent numbers (components). `fit` gives one multivariate normal for all
codes. Its principal axes are those of a PCA, so draws, ellipses and distances all refer to the same
ellipsoid. With confidence ``p`` it holds the share ``p`` of the normal, out to the Mahalanobis
radius ``sqrt(chi2_d^-1(p))``.

This module does not know images; a decoder turns vectors into images. `fit`, `read_out` and `embed`
use scikit-learn, which the extra ``experiments`` installs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array
from scipy import stats
from scipy.spatial import KDTree

from oipjax import keys
from oipjax.analysis.extras import scikit_learn


@dataclass(frozen=True, eq=False)
class Normal:
    """A multivariate normal by its principal axes.

    Attributes:
        mean: ``[d]``.
        axes: ``[d, d]``, one axis of length 1 in each row, that of the largest variance first.
        variances: ``[d]``, along the axes.
        shrinkage: the share of the multiple of the unit matrix in the covariance, 0 to 1.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    shrinkage: float

    @cached_property
    def covariance(self) -> np.ndarray:
        """``[d, d]``."""
        return (self.axes.T * self.variances) @ self.axes

    @property
    def explained(self) -> np.ndarray:
        """Share of the whole variance along each axis, ``[d]``."""
        return self.variances / self.variances.sum()

    def to_axes(self, codes: np.ndarray) -> np.ndarray:
        """Codes ``[n, d]`` as standard deviations along the axes; `from_axes` is the inverse."""
        return (codes - self.mean) @ self.axes.T / np.sqrt(self.variances)

    def from_axes(self, scores: np.ndarray) -> np.ndarray:
        """The codes ``[n, d]`` at so many standard deviations along the axes."""
        return self.mean + (scores * np.sqrt(self.variances)) @ self.axes

    def radii(self, codes: np.ndarray) -> np.ndarray:
        """Mahalanobis distances ``[n]`` of codes from the mean."""
        return np.linalg.norm(self.to_axes(codes), axis=1)

    def log_density(self, codes: np.ndarray) -> np.ndarray:
        """Of the normal at codes, ``[n]``, in nats."""
        volume = np.log(2 * np.pi * self.variances).sum()
        return -0.5 * (np.square(self.radii(codes)) + volume)

    def inside(self, codes: np.ndarray, confidence: float) -> np.ndarray:
        """Which codes lie in the ellipsoid of a confidence, ``bool [n]``."""
        return self.radii(codes) <= radius(confidence, len(self.mean))

    def ellipse(self, i: int, j: int, confidence: float, points: int = 100) -> np.ndarray:
        """The closed border ``[points, 2]`` of the confidence ellipse of two components."""
        angle = np.linspace(0, 2 * np.pi, points)
        circle = radius(confidence, 2) * np.stack([np.cos(angle), np.sin(angle)], 1)
        covariance = self.covariance[np.ix_((i, j), (i, j))]
        return self.mean[[i, j]] + circle @ np.linalg.cholesky(covariance).T


class Components(NamedTuple):
    """Statistics of each component alone; all ``[d]``.

    Attributes:
        mean: of the component.
        std: standard deviation of the component.
        skew: 0 for a normal.
        kurtosis: in excess of the normal's, whose is 0.
        distance: Kolmogorov-Smirnov distance from the normal of the same mean and standard
            deviation, 0 to 1.
        p: of the test of normality by d'Agostino and Pearson (skew and kurtosis). A small value
            means: not normal. With tens of thousands of codes the test finds every small deviation;
            the distance says how large it is.
    """

    mean: np.ndarray
    std: np.ndarray
    skew: np.ndarray
    kurtosis: np.ndarray
    distance: np.ndarray
    p: np.ndarray


def fit(codes: np.ndarray, shrinkage: float | None = None) -> Normal:
    """The multivariate normal of codes; without shrinkage its axes are those of a plain PCA.

    Args:
        codes: ``[n, d]``, two or more.
        shrinkage: share of ``trace / d`` times the unit matrix in the covariance, 0 to 1. By
            default it is estimated as by O. Ledoit and M. Wolf, "A well-conditioned estimator for
            large-dimensional covariance matrices", Journal of Multivariate Analysis 88 (2004).

    Raises:
        ValueError: there are too few codes, some are not finite, the shrinkage is outside [0, 1],
            or the covariance is singular.
    """
    codes = _checked(codes)
    count, dimensions = codes.shape
    share = _ledoit_wolf(codes) if shrinkage is None else shrinkage
    if not 0 <= share <= 1:
        raise ValueError(f"expected a shrinkage between 0 and 1, got {share}")
    sample = np.cov(codes, rowvar=False, bias=True).reshape(dimensions, -1)
    target = np.trace(sample) / dimensions * np.eye(dimensions)
    variances, axes = np.linalg.eigh((1 - share) * sample + share * target)
    if variances[0] <= 1e-12 * variances[-1]:
        raise ValueError(
            f"the covariance of {count} codes with {dimensions} components is singular; "
            "give more codes, drop constant components, or set a shrinkage above 0"
        )
    return Normal(
        mean=codes.mean(0),
        axes=axes.T[::-1],
        variances=variances[::-1],
        shrinkage=float(share),
    )


def _ledoit_wolf(codes: np.ndarray) -> float:
    return float(scikit_learn("covariance").ledoit_wolf_shrinkage(codes))


def components(codes: np.ndarray) -> Components:
    """Each component's moments and its distance from a normal.

    Args:
        codes: ``[n, d]``, eight or more, which the test of normality needs.
    """
    codes = _checked(codes, 8)
    mean = codes.mean(0)
    std = codes.std(0)
    if not std.all():
        constant = np.flatnonzero(std == 0).tolist()
        raise ValueError(f"components {constant} are constant: they have no shape")
    standard = (codes - mean) / std
    distance = [stats.kstest(column, "norm").statistic for column in standard.T]
    p: Any = stats.normaltest(codes).pvalue
    return Components(
        mean=mean,
        std=std,
        skew=stats.skew(codes),
        kurtosis=stats.kurtosis(codes),
        distance=np.array(distance),
        p=np.asarray(p),
    )


def histograms(codes: np.ndarray, bins: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Histograms of all components with common bins.

    Returns:
        The edges ``[bins + 1]``, and densities ``[d, bins]``, each of which integrates to 1.
    """
    codes = _checked(codes)
    edges = np.linspace(codes.min(), codes.max(), bins + 1)
    densities = [np.histogram(column, edges, density=True)[0] for column in codes.T]
    return edges, np.stack(densities)


def correlations(codes: np.ndarray) -> np.ndarray:
    """Pearson's correlations of the components, ``[d, d]``."""
    return np.corrcoef(_checked(codes), rowvar=False)


def radius(confidence: float, dimensions: int) -> float:
    """Mahalanobis radius of the ellipsoid that holds the share ``confidence`` of a normal."""
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    return float(stats.chi.ppf(confidence, dimensions))


def chi_distance(codes: np.ndarray, normal: Normal) -> float:
    """Kolmogorov-Smirnov distance of the Mahalanobis radii from those of a true normal, 0 to 1.

    The radii of a normal follow the chi distribution.
    """
    expected = stats.chi(len(normal.mean)).cdf
    return float(stats.kstest(normal.radii(codes), expected).statistic)


def nearest(codes: np.ndarray, queries: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` codes nearest to each of the queries ``[m, d]``.

    Returns:
        Distances and indices, each ``[m, k]``.
    """
    if not 1 <= k <= len(codes):
        raise ValueError(
            f"expected between 1 and {len(codes)} neighbours, as many as there are codes, got {k}"
        )
    # A list of ranks keeps the second axis for k=1 as well.
    ranks: Any = list(range(1, k + 1))
    distances, indices = KDTree(codes).query(queries, k=ranks)
    return np.asarray(distances), np.asarray(indices)


def interpolate(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Vectors ``[t, d]`` on the straight line from ``a [d]`` (t = 0) to ``b [d]`` (t = 1)."""
    return a + np.asarray(t)[:, None] * (b - a)


def spherical(a: np.ndarray, b: np.ndarray, t: np.ndarray, centre: Any = 0.0) -> np.ndarray:
    """Like `interpolate`, on an arc about ``centre [d]``.

    Directions turn evenly, and distances to the centre change evenly.

    Raises:
        ValueError: ``a`` or ``b`` is the centre, or they lie opposite to each other, so that no arc
            is the shortest.
    """
    lengths = np.linalg.norm([a - centre, b - centre], axis=1)
    if not lengths.all():
        raise ValueError("expected two vectors apart from the centre, got one that is the centre")
    first = (a - centre) / lengths[0]
    last = (b - centre) / lengths[1]
    angle = np.arccos(np.clip(first @ last, -1, 1))
    if np.pi - angle < 1e-6:
        raise ValueError(
            "the vectors lie opposite to each other: no shortest arc joins them; use interpolate"
        )
    t = np.asarray(t)[:, None]
    length = lengths[0] + t * (lengths[1] - lengths[0])
    if angle < 1e-6:
        return centre + length * first
    toward_first = np.sin((1 - t) * angle) * first
    toward_last = np.sin(t * angle) * last
    turned = (toward_first + toward_last) / np.sin(angle)
    return centre + length * turned


def attribute(codes: np.ndarray, has: np.ndarray) -> np.ndarray:
    """The attribute vector: the mean of codes with an attribute minus the mean of the others.

    Args:
        codes: ``[n, d]``.
        has: bool ``[n]``, whether an image has the attribute.

    Returns:
        ``[d]``.

    Raises:
        ValueError: all images have it, or none.
    """
    has = _checked_attribute(has)
    return codes[has].mean(0) - codes[~has].mean(0)


def read_out(codes: np.ndarray, has: np.ndarray, direction: np.ndarray) -> float:
    """How well a direction tells codes with an attribute from others, 0 to 1; 0.5 is chance.

    It is the area under the ROC curve: the chance that, of two codes, the one with the attribute
    lies further along the direction.

    Args:
        codes: ``[n, d]``.
        has: bool ``[n]``, whether an image has the attribute.
        direction: ``[d]``.

    Raises:
        ValueError: all images have it, or none.
    """
    has = _checked_attribute(has)
    along = np.asarray(codes, np.float64) @ direction
    return float(scikit_learn("metrics").roc_auc_score(has, along))


def _checked_attribute(has: np.ndarray) -> np.ndarray:
    has = np.asarray(has, bool)
    if has.all() or not has.any():
        raise ValueError(
            f"expected codes with and without the attribute, got {has.sum()} of {has.size} with it"
        )
    return has


def embed(codes: np.ndarray, method: Literal["pca", "tsne"] = "pca", seed: int = 0) -> np.ndarray:
    """Codes as points of a plane, ``[n, 2]``.

    Args:
        codes: three or more.
        method: ``pca``, along the first two principal axes, in units of the codes; or ``tsne``,
            which keeps neighbours together and nothing else (L. van der Maaten and G. Hinton,
            2008), by scikit-learn: sizes of clusters and gaps between them mean little there.
        seed: of t-SNE.

    Raises:
        ValueError: there are too few codes or components, or no such method.
    """
    codes = _checked(codes, 3)
    if codes.shape[1] < 2:
        raise ValueError(
            f"expected two or more components to make a plane of, got {codes.shape[1]}"
        )
    if method == "pca":
        return scikit_learn("decomposition").PCA(2).fit_transform(codes)
    if method != "tsne":
        raise ValueError(f"unknown method {method!r}; there are pca and tsne")
    perplexity = min(30, (len(codes) - 1) / 3)
    library = scikit_learn("manifold")
    projection = library.TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(projection.fit_transform(codes))


def draw_box(key: Array, count: int, dimensions: int, half: float) -> np.ndarray:
    """Vectors ``[count, d]``, uniform in [-half, half] in each component; the key is consumed."""
    keys.check(key)
    return np.asarray(jax.random.uniform(key, (count, dimensions), minval=-half, maxval=half))


def draw_normal(key: Array, normal: Normal, count: int) -> np.ndarray:
    """Vectors ``[count, d]`` of a normal; the key is consumed."""
    keys.check(key)
    scores = jax.random.normal(key, (count, len(normal.mean)))
    return normal.from_axes(np.asarray(scores))


def draw_ellipses(
    key: Array, normal: Normal, count: int, confidence: float, together: int = 2
) -> np.ndarray:
    """Vectors ``[count, d]``, uniform in the confidence ellipse of each pair of principal axes.

    Args:
        key: consumed.
        normal: its axes are taken in order.
        count: how many.
        confidence: share of the normal that each ellipse holds.
        together: axes of one ellipse; with all ``d`` it is the one ellipsoid, 1 gives intervals.
            Odd axes at the end make a smaller group.
    """
    keys.check(key)
    if together < 1:
        raise ValueError(f"expected one or more axes together, got {together}")
    dimensions = len(normal.mean)
    starts = range(0, dimensions, together)
    direction_key = jax.random.fold_in(key, 0)
    depth_key = jax.random.fold_in(key, 1)
    directions = np.asarray(jax.random.normal(direction_key, (count, dimensions)))
    depths = np.asarray(jax.random.uniform(depth_key, (count, len(starts))))
    scores = []
    for i, first in enumerate(starts):
        part = directions[:, first : first + together]
        size = part.shape[1]
        # In a ball the share of the volume within r grows as r to the power of the dimensions.
        distance = radius(confidence, size) * depths[:, i, None] ** (1 / size)
        scores.append(distance * part / np.linalg.norm(part, axis=1, keepdims=True))
    return normal.from_axes(np.concatenate(scores, 1))


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = 3) -> tuple[float, float]:
    """The share of made points that look real, and the share of real points that can be made.

    T. Kynkäänniemi and others, "Improved precision and recall metric for assessing generative
    models", NeurIPS 2019, arXiv:1904.06991. Precision is the share of ``made`` that lies within the
    distance of some real point to its own ``k``-th neighbour. Recall is the same with both
    exchanged. Both grow with the number of points: compare equal counts.

    Args:
        real: features ``[n, f]``.
        made: features ``[m, f]``.
        k: neighbours; more than ``k`` points are needed on both sides.
    """
    precision = _in_balls(real, made, k).any(1).mean()
    recall = _in_balls(made, real, k).any(1).mean()
    return float(precision), float(recall)


def density_coverage(real: np.ndarray, made: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Measures like `precision_recall` that outliers disturb less.

    One lonely point has a large ball.

    M. F. Naeem and others, "Reliable fidelity and diversity metrics for generative models", ICML
    2020, arXiv:2002.09797. Density is the mean number of real points' balls that a made point lies
    in, over ``k``. It is about 1 for more points of the same kind, and above 1 where they keep to
    dense places. Coverage is the share of real points with a made point in their ball.

    Args:
        real: features ``[n, f]``.
        made: features ``[m, f]``.
        k: a ball reaches to the ``k``-th neighbour; more than ``k`` points are needed on both
            sides.
    """
    within = _in_balls(real, made, k)
    density = within.sum(1).mean() / k
    coverage = within.any(0).mean()
    return float(density), float(coverage)


def _in_balls(centres: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """Whether a point lies in the ball of a centre, ``bool [points, centres]``.

    A ball reaches to the centre's ``k``-th neighbour.
    """
    if min(len(centres), len(points)) <= k:
        raise ValueError(
            f"expected more than {k} points on both sides, got {len(centres)} and {len(points)}"
        )
    reach = np.partition(_squares(centres, centres), k, axis=1)[:, k]
    return _squares(points, centres) <= reach


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances ``[n, m]`` by a product: in hundreds of dimensions a tree is slower."""
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    squares_of_a = np.square(a).sum(1)[:, None]
    squares_of_b = np.square(b).sum(1)[None]
    return np.maximum(squares_of_a + squares_of_b - 2 * a @ b.T, 0)


def _checked(codes: np.ndarray, least: int = 2) -> np.ndarray:
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or len(codes) < least:
        raise ValueError(f"expected {least} or more codes [n, d], got an array {list(codes.shape)}")
    if not np.isfinite(codes).all():
        raise ValueError("expected finite codes, got some that are infinite or not numbers")
    return codes
