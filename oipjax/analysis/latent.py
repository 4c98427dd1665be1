"""Where an autoencoder's codes lie: pure functions of latent vectors ``[n, d]``.

``n`` counts codes, ``d`` latent numbers (components). `fit` gives one multivariate normal for all
codes; its principal axes are those of a PCA, so that draws, ellipses and distances all speak of the
same ellipsoid: with confidence ``p`` it holds the share ``p`` of the normal, out to the Mahalanobis
radius ``sqrt(chi2_d^-1(p))``.

Nothing here knows of images. To see what vectors mean, give them to
`oipjax.training.autoencoder.decode`.
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
        """Codes ``[n, d]`` as standard deviations along the axes, from the mean; `from_axes` takes them back."""
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
        """Border of the confidence ellipse of components ``i`` and ``j`` alone, ``[points, 2]``, closed."""
        angle = np.linspace(0, 2 * np.pi, points)
        circle = radius(confidence, 2) * np.stack([np.cos(angle), np.sin(angle)], 1)
        return (
            self.mean[[i, j]]
            + circle @ np.linalg.cholesky(self.covariance[np.ix_((i, j), (i, j))]).T
        )


class Components(NamedTuple):
    """What each component looks like alone; all ``[d]``.

    Attributes:
        mean, std: of the component.
        skew: 0 for a normal.
        kurtosis: in excess of the normal's, whose is 0.
        distance: Kolmogorov-Smirnov distance from the normal of the same mean and standard
            deviation, 0 to 1.
        p: of the test of normality by d'Agostino and Pearson (skew and kurtosis); small: not
            normal. With tens of thousands of codes it finds every small deviation: look at the
            distance for its size.
    """

    mean: np.ndarray
    std: np.ndarray
    skew: np.ndarray
    kurtosis: np.ndarray
    distance: np.ndarray
    p: np.ndarray


def fit(codes: np.ndarray, shrinkage: float | None = None) -> Normal:
    """The multivariate normal of codes ``[n, d]``; without shrinkage its axes are those of a plain PCA.

    Args:
        codes: two or more.
        shrinkage: share of ``trace / d`` times the unit matrix in the covariance, 0 to 1; by
            default the one that `ledoit_wolf` estimates.

    Raises:
        ValueError: too few codes, some that are not finite, a shrinkage outside [0, 1], or a
            covariance that is singular.
    """
    codes = _checked(codes)
    share = ledoit_wolf(codes) if shrinkage is None else shrinkage
    if not 0 <= share <= 1:
        raise ValueError(f"expected a shrinkage between 0 and 1, got {share}")
    covariance = np.cov(codes, rowvar=False, bias=True).reshape(codes.shape[1], -1)
    covariance = (1 - share) * covariance + share * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance)
    )
    variances, axes = np.linalg.eigh(covariance)
    if variances[0] <= 1e-12 * variances[-1]:
        raise ValueError(
            f"the covariance of {codes.shape[0]} codes with {codes.shape[1]} components is singular; "
            "give more codes, drop constant components, or set a shrinkage above 0"
        )
    return Normal(codes.mean(0), axes.T[::-1], variances[::-1], float(share))


def ledoit_wolf(codes: np.ndarray) -> float:
    """Share of the unit matrix that makes the expected squared error of the covariance least.

    O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88 (2004), 365-411, lemma 3.2 and those before it.
    """
    centred = _checked(codes) - np.mean(codes, 0)
    n, d = centred.shape
    covariance = centred.T @ centred / n
    off = np.square(covariance - np.trace(covariance) / d * np.eye(d)).sum()
    noise = (np.square(np.square(centred).sum(1)).sum() / n - np.square(covariance).sum()) / n
    return float(min(noise / off, 1)) if off > 0 else 0.0


def components(codes: np.ndarray) -> Components:
    """Each component's moments and how far it is from normal; for eight codes or more (the test needs them)."""
    codes = _checked(codes, 8)
    mean, std = codes.mean(0), codes.std(0)
    if not std.all():
        raise ValueError(
            f"components {np.flatnonzero(std == 0).tolist()} are constant: they have no shape"
        )
    distance = [stats.kstest(column, "norm").statistic for column in ((codes - mean) / std).T]
    p: Any = stats.normaltest(codes).pvalue
    return Components(
        mean, std, stats.skew(codes), stats.kurtosis(codes), np.array(distance), np.asarray(p)
    )


def histograms(codes: np.ndarray, bins: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Edges ``[bins + 1]`` that all components share, and number densities ``[d, bins]``; each integrates to 1."""
    codes = _checked(codes)
    edges = np.linspace(codes.min(), codes.max(), bins + 1)
    return edges, np.stack([np.histogram(column, edges, density=True)[0] for column in codes.T])


def correlations(codes: np.ndarray) -> np.ndarray:
    """Pearson's correlations of the components, ``[d, d]``."""
    return np.corrcoef(_checked(codes), rowvar=False)


def radius(confidence: float, dimensions: int) -> float:
    """Mahalanobis radius of the ellipsoid that holds this share of a normal in so many dimensions."""
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    return float(stats.chi.ppf(confidence, dimensions))


def chi_distance(codes: np.ndarray, normal: Normal) -> float:
    """Kolmogorov-Smirnov distance, 0 to 1, of the Mahalanobis radii from the chi distribution of a true normal."""
    return float(stats.kstest(normal.radii(codes), stats.chi(len(normal.mean)).cdf).statistic)


def nearest(codes: np.ndarray, queries: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices, each ``[m, k]``, of the ``k`` codes nearest to each of the queries ``[m, d]``."""
    if not 1 <= k <= len(codes):
        raise ValueError(
            f"expected between 1 and {len(codes)} neighbours, as many as there are codes, got {k}"
        )
    # A list of ranks keeps the second axis for k=1 as well.
    distances, indices = KDTree(codes).query(queries, k=list(range(1, k + 1)))  # pyright: ignore[reportArgumentType]
    return np.asarray(distances), np.asarray(indices)


def interpolate(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Vectors ``[t, d]`` on the straight line from ``a [d]`` (t = 0) to ``b [d]`` (t = 1)."""
    return a + np.asarray(t)[:, None] * (b - a)


def spherical(a: np.ndarray, b: np.ndarray, t: np.ndarray, centre: Any = 0.0) -> np.ndarray:
    """Like `interpolate` on an arc about ``centre [d]``: directions turn evenly, distances to the centre change evenly.

    Raises:
        ValueError: ``a`` or ``b`` is the centre, or they lie opposite to each other, so that no arc
            is the shortest.
    """
    lengths = np.linalg.norm([a - centre, b - centre], axis=1)
    if not lengths.all():
        raise ValueError("expected two vectors apart from the centre, got one that is the centre")
    first, last = (a - centre) / lengths[0], (b - centre) / lengths[1]
    angle = np.arccos(np.clip(first @ last, -1, 1))
    if np.pi - angle < 1e-6:
        raise ValueError(
            "the vectors lie opposite to each other: no shortest arc joins them; take interpolate"
        )
    t = np.asarray(t)[:, None]
    if angle < 1e-6:
        return centre + interpolate(lengths[:1], lengths[1:], t[:, 0]) * first
    turned = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
    return centre + (lengths[0] + t * (lengths[1] - lengths[0])) * turned


def attribute(codes: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Attribute vector ``[d]``: mean of the codes that have something (``bool [n]``) minus that of the others."""
    has = np.asarray(has, bool)
    if has.all() or not has.any():
        raise ValueError(
            f"expected codes with and without the attribute, got {has.sum()} of {has.size} with it"
        )
    return codes[has].mean(0) - codes[~has].mean(0)


def read_out(codes: np.ndarray, has: np.ndarray, direction: np.ndarray) -> float:
    """How well a direction tells codes with an attribute from others, 0 to 1; 0.5 is chance.

    The chance that, of two codes, the one that has it (``bool [n]``) lies further along the
    direction ``[d]``: the area under the ROC curve, the statistic of H. B. Mann and D. R. Whitney,
    1947.
    """
    has = np.asarray(has, bool)
    along = np.asarray(codes, np.float64) @ direction
    if has.all() or not has.any():
        raise ValueError(
            f"expected codes with and without the attribute, got {has.sum()} of {has.size} with it"
        )
    above = stats.mannwhitneyu(along[has], along[~has]).statistic
    return float(above / (has.sum() * (~has).sum()))


def embed(codes: np.ndarray, method: Literal["pca", "tsne"] = "pca", seed: int = 0) -> np.ndarray:
    """Codes as points of a plane, ``[n, 2]``.

    Args:
        codes: three or more.
        method: ``pca``, along the first two principal axes, in units of the codes; or ``tsne``,
            which keeps neighbours together and nothing else (L. van der Maaten and G. Hinton,
            2008), by scikit-learn: sizes of clusters and gaps between them mean little there.
        seed: of t-SNE.

    Raises:
        ValueError: scikit-learn is needed and not there.
    """
    codes = _checked(codes, 3)
    if codes.shape[1] < 2:
        raise ValueError(
            f"expected two or more components to make a plane of, got {codes.shape[1]}"
        )
    if method == "pca":
        centred = codes - codes.mean(0)
        return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    if method != "tsne":
        raise ValueError(f"unknown method {method!r}; there are pca and tsne")
    try:
        from sklearn.manifold import TSNE  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError:
        raise ValueError(
            "t-SNE needs scikit-learn: pip install 'oipjax[projections]'; pca needs nothing"
        ) from None
    made = TSNE(perplexity=min(30, (len(codes) - 1) / 3), init="pca", random_state=seed)
    return np.asarray(made.fit_transform(codes))


def draw_box(key: Array, count: int, dimensions: int, half: float) -> np.ndarray:
    """Vectors ``[count, d]`` with independent components, uniform in [-half, half]; the key is consumed."""
    keys.check(key)
    return np.asarray(jax.random.uniform(key, (count, dimensions), minval=-half, maxval=half))


def draw_normal(key: Array, normal: Normal, count: int) -> np.ndarray:
    """Vectors ``[count, d]`` of a normal; the key is consumed."""
    keys.check(key)
    return normal.from_axes(np.asarray(jax.random.normal(key, (count, len(normal.mean)))))


def draw_ellipses(
    key: Array, normal: Normal, count: int, confidence: float, together: int = 2
) -> np.ndarray:
    """Vectors ``[count, d]`` uniform in the confidence ellipse of each pair of neighbouring principal axes.

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
    starts = range(0, len(normal.mean), together)
    toward = np.asarray(jax.random.normal(jax.random.fold_in(key, 0), (count, len(normal.mean))))
    depth = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (count, len(starts))))
    scores = []
    for i, first in enumerate(starts):
        part = toward[:, first : first + together]
        size = part.shape[1]
        # Uniform in a ball: the share of the volume within r grows as r to the power of the
        # dimensions.
        reach = radius(confidence, size) * depth[:, i, None] ** (1 / size)
        scores.append(reach * part / np.linalg.norm(part, axis=1, keepdims=True))
    return normal.from_axes(np.concatenate(scores, 1))


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = 3) -> tuple[float, float]:
    """How much of what is made looks real, and how much of what is real can be made.

    T. Kynkäänniemi and others, "Improved precision and recall metric for assessing generative
    models", NeurIPS 2019, arXiv:1904.06991: precision is the share of ``made`` that lies within the
    distance of some real point to its own ``k``-th neighbour; recall the same with both exchanged.
    Both grow with the number of points: compare equal counts.

    Args:
        real: features ``[n, f]``.
        made: features ``[m, f]``.
        k: neighbours; more than ``k`` points are needed on both sides.
    """
    return float(_balls(real, made, k).any(1).mean()), float(_balls(made, real, k).any(1).mean())


def density_coverage(real: np.ndarray, made: np.ndarray, k: int = 5) -> tuple[float, float]:
    """The same questions as `precision_recall` asks, less open to outliers: one lonely real point has a large ball.

    M. F. Naeem and others, "Reliable fidelity and diversity metrics for generative models", ICML
    2020, arXiv:2002.09797: density is the mean number of real points' balls that something made
    lies in, over ``k``; about 1 for more of the same, above where it keeps to dense places.
    Coverage is the share of real points with something made in their ball.

    Args:
        real: features ``[n, f]``.
        made: features ``[m, f]``.
        k: a ball reaches to the ``k``-th neighbour; more than ``k`` points are needed on both
            sides.
    """
    within = _balls(real, made, k)
    return float(within.sum(1).mean() / k), float(within.any(0).mean())


def _balls(centres: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """Which of the points lie in a centre's ball, out to its ``k``-th neighbour, ``bool [points, centres]``."""
    if min(len(centres), len(points)) <= k:
        raise ValueError(
            f"expected more than {k} points on both sides, got {len(centres)} and {len(points)}"
        )
    reach = np.partition(_squares(centres, centres), k, axis=1)[:, k]
    return _squares(points, centres) <= reach


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances ``[n, m]`` by a matrix product: in hundreds of dimensions a tree is slower."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T, 0)


def _checked(codes: np.ndarray, least: int = 2) -> np.ndarray:
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or len(codes) < least:
        raise ValueError(f"expected {least} or more codes [n, d], got an array {list(codes.shape)}")
    if not np.isfinite(codes).all():
        raise ValueError("expected finite codes, got some that are infinite or not numbers")
    return codes
