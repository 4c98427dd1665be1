"""The region where an autoencoder's codes lie: its shape, its gaps, and attributes read in it.

Codes are ``[n, d]``. Those of held-out images belong to images that the normal was not fitted to.
"""

from typing import Any

import jax
import numpy as np
from scipy import stats

from experiments.tools import fragments
from oipjax.analysis import Normal, latent
from oipjax.data.folder import Attributes

GROUPS = 10
"""Groups that codes without classes are cut into."""
LEAST = 10
"""Held-out images with an attribute, and without it, that are needed to measure it."""
CODES = 20_000
"""Codes that are looked at for gaps."""
LINKED = 5000
"""Codes that are joined to their nearest ones."""
Facts = dict[str, Any]


def shape(normal: Normal, codes: np.ndarray, held_out: np.ndarray) -> Facts:
    """How far the codes are from one ellipsoid, the normal that was fitted to them."""
    dimensions = len(normal.mean)
    parts = latent.components(codes)
    axes = latent.components(normal.to_axes(codes))
    pairs = np.triu_indices(dimensions, 1)
    correlated = np.abs(latent.correlations(codes)[pairs])
    origin = np.zeros_like(normal.mean)[None]
    inside = {}
    for confidence in (0.5, 0.9, 0.99):
        inside[str(confidence)] = float(normal.inside(held_out, confidence).mean())
    return {
        "codes": len(codes),
        "latent": dimensions,
        "shrinkage": normal.shrinkage,
        "centre to origin": float(np.linalg.norm(normal.mean)),
        "origin at Mahalanobis radius": float(normal.radii(origin)[0]),
        "radius of 99 %": latent.radius(0.99, dimensions),
        "components' distance from normal": spread(parts.distance),
        "components' skew": spread(parts.skew),
        "components' excess kurtosis": spread(parts.kurtosis),
        "principal axes' distance from normal": spread(axes.distance),
        "absolute correlations": spread(correlated),
        "explained variance": normal.explained.tolist(),
        "held-out radii's distance from chi": latent.chi_distance(held_out, normal),
        "held-out codes inside": inside,
    }


def half_way(
    normal: Normal, held_out: np.ndarray, classes: np.ndarray | None, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Points half way between two codes. If there are gaps, these points lie in them.

    Args:
        normal: of the codes.
        held_out: the codes to choose pairs from.
        classes: of the held-out codes; two codes of a pair differ in their class. None: there are
            no classes, and the two codes only have to be different ones.
        draws: number of pairs, of which those of the same class are left out.
        seed: of the choice.

    Returns:
        The points, and as many draws from the normal to compare with.
    """
    numbers = np.tile(np.arange(len(held_out)), (2, 1))
    shuffled = np.random.default_rng(seed).permuted(numbers, axis=1)
    first, second = shuffled[:, :draws]
    if classes is None:
        differ = first != second
    else:
        differ = classes[first] != classes[second]
    middle = (held_out[first] + held_out[second])[differ] / 2
    key = jax.random.fold_in(jax.random.key(seed), 4)
    drawn = latent.draw_normal(key, normal, len(middle))
    # A mean of two codes is nearer to the centre than a code is, so draws are moved as well.
    drawn = normal.mean + (drawn - normal.mean) / np.sqrt(2)
    return {"middles": middle, "the same of the fitted normal": drawn}


def bodies(normal: Normal, codes: np.ndarray, held_out: np.ndarray, seed: int) -> Facts:
    """Whether codes form fragments or lobes, beside as many draws from one normal.

    Both are cut into groups by k-means.
    """
    codes = codes[:CODES]
    key = jax.random.fold_in(jax.random.key(seed), 5)
    drawn = latent.draw_normal(key, normal, len(codes) + len(held_out))
    like_codes = drawn[: len(codes)]
    like_held_out = drawn[len(codes) :]
    return {
        "codes": cut_and_measure(codes, held_out, seed),
        "fitted normal": cut_and_measure(like_codes, like_held_out, seed),
    }


def cut_and_measure(codes: np.ndarray, others: np.ndarray, seed: int) -> Facts:
    """Facts about groups by k-means: whether they are linked, and the valleys between them."""
    count = max(2, min(GROUPS, len(codes) // 40))
    centres = fragments.centres(codes, count, seed)
    linked = fragments.linked(codes[:LINKED])
    groups = fragments.members(codes, centres)
    other_groups = fragments.members(others, centres)
    return {"linked": linked, **grouped(codes, groups, others, other_groups)}


def class_bodies(
    codes: np.ndarray,
    classes: np.ndarray,
    held_out: np.ndarray,
    held_out_classes: np.ndarray,
    draws: int,
) -> Facts:
    """Whether classes form fragments, and how often the nearest code is of the same class.

    Args:
        codes: of the training images.
        classes: of the training images ``[n]``.
        held_out: other codes ``[m, d]``.
        held_out_classes: ``[m]``.
        draws: number of held-out codes whose nearest code is looked at.
    """
    codes = codes[:CODES]
    classes = classes[:CODES]
    facts = grouped(codes, classes, held_out, held_out_classes)
    _, neighbours = latent.nearest(codes, held_out[:draws])
    is_same = classes[neighbours[:, 0]] == held_out_classes[:draws]
    counts = np.unique(classes, return_counts=True)[1]
    chance = np.square(counts / counts.sum()).sum()
    return facts | {"nearest code has it": float(is_same.mean()), "by chance": float(chance)}


def grouped(
    codes: np.ndarray, groups: np.ndarray, others: np.ndarray, other_groups: np.ndarray
) -> Facts:
    """Valleys between groups, and the gain of the groups' normals over one normal.

    The gain is in nats a code, and comes with its standard error.
    """
    gain = fragments.gain(codes, groups, others)
    depth = fragments.valleys(codes, groups, others, other_groups)
    is_measured = np.isfinite(depth).any(1)
    shallowest = np.nanmax(depth[is_measured], axis=1)
    return {
        "groups": len(np.unique(groups)),
        "shallowest valley of each group": np.sort(shallowest).tolist(),
        "gain over one normal": [float(gain.mean()), float(stats.sem(gain))],
    }


def attribute_rows(
    normal: Normal,
    codes: np.ndarray,
    table: Attributes,
    held_out: np.ndarray,
    held_out_table: Attributes,
) -> list[Facts]:
    """How well attributes of held-out images are read along the vectors that training codes give.

    Args:
        normal: of the codes.
        codes: of the training images.
        table: their attributes.
        held_out: other codes.
        held_out_table: their attributes.

    Returns:
        A row for each attribute, the best first. Attributes that fewer than `LEAST` held-out images
        have, or lack, are left out.
    """
    known = codes[table.known]
    others = held_out[held_out_table.known]
    rows = []
    for number, name in enumerate(table.names):
        has = table.has[table.known, number]
        other_has = held_out_table.has[held_out_table.known, number]
        if min(other_has.sum(), (~other_has).sum()) < LEAST:
            continue
        vector = latent.attribute(known, has)
        fisher = np.linalg.solve(normal.covariance, vector)
        area = latent.read_out(others, other_has, vector)
        length = np.linalg.norm(vector) / np.sqrt(normal.variances.sum())
        row = {
            "attribute": name,
            "training images with": int(has.sum()),
            "of": len(has),
            "held-out with": int(other_has.sum()),
            "of held-out": len(other_has),
            "AUC along the vector": area,
            "its standard error": standard_error_of_area(area, other_has),
            "AUC along Fisher's direction": latent.read_out(others, other_has, fisher),
            "length, of the codes' spread": float(length),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: -row["AUC along the vector"])


def standard_error_of_area(area: float, has: np.ndarray) -> float:
    """Standard error of an area under a ROC curve.

    J. A. Hanley and B. J. McNeil, Radiology 143 (1982), 29-36.
    """
    first = has.sum()
    second = (~has).sum()
    above = area / (2 - area) - area**2
    below = 2 * area**2 / (1 + area) - area**2
    total = area * (1 - area) + (first - 1) * above + (second - 1) * below
    return float(np.sqrt(total / (first * second)))


def spread(values: np.ndarray) -> list[float]:
    """Least, median and greatest."""
    least = float(np.min(values))
    median = float(np.median(values))
    return [least, median, float(np.max(values))]
