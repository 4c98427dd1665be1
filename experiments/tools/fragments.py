"""One body or fragments? How an autoencoder's codes ``[n, d]`` hang together.

One normal has neither gaps nor lobes. What is measured here of codes is to be measured of as many
draws from the normal that was fitted to them as well: the difference tells.
"""

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from oipjax.analysis import latent


def linked(codes: np.ndarray, k: int = 5) -> float:
    """Share of the codes in the largest body, if each is joined to its ``k`` nearest; islands are not joined to it."""
    neighbours = latent.nearest(codes, codes, k + 1)[1][:, 1:]
    first = np.repeat(np.arange(len(codes)), k)
    links = coo_array(
        (np.ones(len(first)), (first, neighbours.ravel())), shape=(len(codes), len(codes))
    )
    bodies = connected_components(links, directed=False)[1]
    return float(np.bincount(bodies).max() / len(codes))


def centres(codes: np.ndarray, count: int, seed: int = 0, least: int = 20) -> np.ndarray:
    """Centres ``[count, d]`` of groups, by k-means from randomly chosen codes; `members` says who belongs to which.

    Groups of fewer than ``least`` codes are left out.
    """
    if count < 2 or count * least > len(codes):
        raise ValueError(
            f"expected two or more groups of {least} codes on average, got {count} for {len(codes)} codes"
        )
    codes = np.asarray(codes, np.float64)
    found = codes[np.random.default_rng(seed).choice(len(codes), count, replace=False)]
    for _ in range(2):  # again without the small ones, whose codes go to others
        found, groups = kmeans2(codes, found, iter=50, minit="matrix")
        found = found[np.bincount(groups, minlength=len(found)) >= least]
    return found


def members(codes: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Number ``[n]`` of the centre, as `centres` gives them, that each code is nearest to."""
    return latent.nearest(middles, codes)[1][:, 0]


def gain(codes: np.ndarray, groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much better the normals of groups, weighted by size, describe other codes than one normal does.

    Args:
        codes: the normals are fitted to them.
        groups: number of each one's group ``[n]``.
        others: codes ``[m, d]``, best of images that the autoencoder was not trained with.

    Returns:
        Difference of the logarithms of the densities, in nats, ``[m]``.
    """
    names, counts = np.unique(groups, return_counts=True)
    parts = [
        np.log(count / len(codes)) + latent.fit(codes[groups == name]).log_density(others)
        for name, count in zip(names, counts, strict=True)
    ]
    return np.logaddexp.reduce(parts, axis=0) - latent.fit(codes).log_density(others)


def valleys(
    codes: np.ndarray, groups: np.ndarray, others: np.ndarray, other_groups: np.ndarray
) -> np.ndarray:
    """How deep the density falls between two groups, seen from the side where they lie apart most.

    That side is Fisher's direction, found with ``codes``; along it, kernel densities of the
    ``others`` of both groups are added, with equal weights. The least sum between the two means is
    divided by the lower of the two peaks beside it: 1 where there is no valley, 0 where there is a
    gap. Between distant groups others may fill it: look at the largest value of each row.

    Args:
        codes: ``[n, d]``.
        groups: number of each one's group ``[n]``.
        others: codes ``[m, d]``, not those that the direction is fitted to.
        other_groups: ``[m]``, of those.

    Returns:
        ``[g, g]``, symmetric, for the groups in order; NaN on the diagonal, and where a group has
        fewer than 3 others.
    """
    names = np.unique(groups)
    parts = [latent.fit(codes[groups == name]) for name in names]
    depth = np.full((len(names), len(names)), np.nan)
    for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
        ends = np.stack([parts[i].mean, parts[j].mean])
        way = np.linalg.solve(parts[i].covariance + parts[j].covariance, ends[1] - ends[0])
        both = [others[other_groups == names[number]] @ way for number in (i, j)]
        if min(map(len, both)) < 3:
            continue
        line = np.linspace(ends[0] @ way, ends[1] @ way, 201)
        density = np.sum([stats.gaussian_kde(part)(line) for part in both], axis=0)
        lowest = density.argmin()
        depth[i, j] = depth[j, i] = density[lowest] / min(
            density[: lowest + 1].max(), density[lowest:].max()
        )
    return depth
