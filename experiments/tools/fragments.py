"""One body or fragments? How an autoencoder's codes ``[n, d]`` hang together.

A normal has neither gaps nor lobes. Measure the same of as many draws from the normal that was
fitted to the codes; the difference tells.
"""

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from oipjax.analysis import latent


def linked(codes: np.ndarray, k: int = 5) -> float:
    """Share of the codes in the largest body, if each code is joined to its ``k`` nearest."""
    count = len(codes)
    neighbours = latent.nearest(codes, codes, k + 1)[1][:, 1:]
    first = np.repeat(np.arange(count), k)
    ones = np.ones(len(first))
    links = coo_array((ones, (first, neighbours.ravel())), shape=(count, count))
    bodies = connected_components(links, directed=False)[1]
    return float(np.bincount(bodies).max() / count)


def centres(codes: np.ndarray, count: int, seed: int = 0, least: int = 20) -> np.ndarray:
    """Centres of groups, by k-means from randomly chosen codes; `members` gives their codes.

    Args:
        codes: ``[n, d]``.
        count: number of groups to begin with.
        seed: of the choice.
        least: groups of fewer codes are left out.

    Returns:
        At most ``count`` centres, ``[g, d]``.
    """
    if count < 2 or count * least > len(codes):
        raise ValueError(
            f"expected two or more groups of {least} codes on average, "
            f"got {count} for {len(codes)} codes"
        )
    codes = np.asarray(codes, np.float64)
    chosen = np.random.default_rng(seed).choice(len(codes), count, replace=False)
    found = codes[chosen]
    # The second pass is without the small groups, whose codes go to others.
    for _ in range(2):
        found, groups = kmeans2(codes, found, iter=50, minit="matrix")
        sizes = np.bincount(groups, minlength=len(found))
        found = found[sizes >= least]
    return found


def members(codes: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Number ``[n]`` of the centre that each code is nearest to, in the order of `centres`."""
    return latent.nearest(middles, codes)[1][:, 0]


def gain(codes: np.ndarray, groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much better a mixture of the groups' normals describes other codes than one normal does.

    Args:
        codes: the normals are fitted to them; those of groups are weighted by size.
        groups: number of each one's group ``[n]``.
        others: codes ``[m, d]``, best of images that the autoencoder was not trained with.

    Returns:
        Difference of the logarithms of the densities, in nats, ``[m]``.
    """
    parts = []
    for name, count in zip(*np.unique(groups, return_counts=True), strict=True):
        normal = latent.fit(codes[groups == name])
        parts.append(np.log(count / len(codes)) + normal.log_density(others))
    mixture = np.logaddexp.reduce(parts, axis=0)
    return mixture - latent.fit(codes).log_density(others)


def valleys(
    codes: np.ndarray, groups: np.ndarray, others: np.ndarray, other_groups: np.ndarray
) -> np.ndarray:
    """How deep the density falls between two groups, in the direction where they lie apart most.

    That direction is Fisher's, found with ``codes``. Along it the kernel densities of the
    ``others`` of both groups are added with equal weights. The least sum between the two means is
    divided by the lower of the two peaks beside it: 1 where there is no valley, 0 where there is a
    gap. Between distant groups others may fill it: look at the largest value of each row.

    Args:
        codes: ``[n, d]``.
        groups: number of each one's group ``[n]``.
        others: codes ``[m, d]`` that the direction is not fitted to.
        other_groups: ``[m]``, of those.

    Returns:
        ``[g, g]``, symmetric, for the groups in order; NaN on the diagonal, and where a group has
        fewer than 3 others.
    """
    names = np.unique(groups)
    normals = [latent.fit(codes[groups == name]) for name in names]
    depth = np.full((len(names), len(names)), np.nan)
    for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
        first = others[other_groups == names[i]]
        second = others[other_groups == names[j]]
        if min(len(first), len(second)) >= 3:
            depth[i, j] = _valley(normals[i], normals[j], first, second)
            depth[j, i] = depth[i, j]
    return depth


def _valley(
    one: latent.Normal, other: latent.Normal, first: np.ndarray, second: np.ndarray
) -> float:
    """The least density between the means of two groups, over the lower of the peaks beside it."""
    covariance = one.covariance + other.covariance
    direction = np.linalg.solve(covariance, other.mean - one.mean)
    line = np.linspace(one.mean @ direction, other.mean @ direction, 201)
    density = stats.gaussian_kde(first @ direction)(line)
    density = density + stats.gaussian_kde(second @ direction)(line)
    lowest = density.argmin()
    peak_before = density[: lowest + 1].max()
    peak_after = density[lowest:].max()
    return density[lowest] / min(peak_before, peak_after)
