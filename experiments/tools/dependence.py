"""How much the ends of ascents depend on their starts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from oipjax.analysis import similarity


@dataclass(frozen=True)
class Runs:
    """Ascents of ``k`` maps from ``r`` random starts each.

    Attributes:
        maps: their indices ``[k]``.
        starts: images ``[k, r, h, w, c]``.
        images: the ends ``[k, r, h, w, c]``.
        begun: scores of the starts ``[k, r]``.
        ended: final scores ``[k, r]``.
        recipe: of the start, a place among ``names``, int ``[k, r]``.
        classic: final scores of the classic rule ``[k, r]``; NaN where it was not run.
        names: of the recipes.
    """

    maps: np.ndarray
    starts: np.ndarray
    images: np.ndarray
    begun: np.ndarray
    ended: np.ndarray
    recipe: np.ndarray
    classic: np.ndarray
    names: tuple[str, ...]

    @property
    def best(self) -> np.ndarray:
        """The best final score of each map ``[k, 1]``, as a divisor."""
        return np.maximum(self.ended.max(1, keepdims=True), 1e-9)

    @property
    def share(self) -> np.ndarray:
        """Final scores as shares of the map's best ``[k, r]``."""
        return self.ended / self.best

    @property
    def responds(self) -> np.ndarray:
        """Whether the map responds to the start, bool ``[k, r]``."""
        return self.begun > 0


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of the two does not vary."""
    if len(a) <= 2 or not np.ptp(a) or not np.ptp(b):
        return np.nan
    return float(np.asarray(spearmanr(a, b))[0])


def finite(value: float) -> float | None:
    """None instead of NaN, which JSON does not know."""
    return value if np.isfinite(value) else None


def measures_of(runs: Runs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """How much the ends of each map differ, and how much they share with their starts.

    Returns:
        Values ``[k]`` by measure, and the similarity of each end to its map's best ``[k, r]``.
    """
    rows = []
    alike = np.zeros_like(runs.ended)
    for k in range(len(runs.maps)):
        row, alike[k] = measures_of_map(runs, k)
        rows.append(row)
    measures = {}
    for name in rows[0]:
        measures[name] = np.array([row[name] for row in rows])
    return measures, alike


def measures_of_map(runs: Runs, k: int) -> tuple[dict[str, float], np.ndarray]:
    """The measures of one map, and the similarity of each end to the best ``[r]``."""
    begun = runs.begun[k]
    ended = runs.ended[k]
    responds = begun > 0
    count = len(ended)
    best = ended.argmax()
    is_other = np.arange(count) != best
    images = np.concatenate([runs.starts[k], runs.images[k]])
    ncc, _ = similarity(images)
    across = ncc[:count, count:]
    ends = ncc[count:, count:]
    alike = ends[best]
    above_diagonal = np.triu_indices(count, 1)
    pairs_of_starts = ncc[:count, :count][above_diagonal]
    pairs_of_ends = ends[above_diagonal]
    to_other_starts = across[~np.eye(count, dtype=bool)]
    row = {
        "final scores, sd / mean": ended.std() / max(ended.mean(), 1e-9),
        "worst / best final score": ended.min() / max(ended.max(), 1e-9),
        "start score with final score": rank(begun, ended),
        "the same, responding starts only": rank(begun[responds], ended[responds]),
        "similarity of two ends": np.median(pairs_of_ends),
        "similarity of two starts": np.median(pairs_of_starts),
        "final score with similarity to the best": rank(ended[is_other], alike[is_other]),
        "start score with similarity to the best": rank(begun[is_other], alike[is_other]),
        "similarity of starts with that of ends": rank(pairs_of_starts, pairs_of_ends),
        "end with its own start": np.diag(across).mean(),
        "end with another start": to_other_starts.mean(),
    }
    return row, alike


def mean(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and standard error of the finite values; None where there are too few."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    count = len(values)
    if not count:
        return None, None
    average = float(values.mean())
    if count == 1:
        return average, None
    error = values.std(ddof=1) / np.sqrt(count)
    return average, float(error)


def by_kind(runs: Runs) -> list[list[Any]]:
    """Final score as a share of the map's best, by the kind of the start; means over maps."""
    is_classic = np.isfinite(runs.classic)
    starts = {}
    for number, name in enumerate(runs.names):
        starts[name] = runs.recipe == number
    starts["map responds"] = runs.responds
    starts["map inactive"] = ~runs.responds
    starts["those climbed by both rules"] = is_classic
    rows = []
    for name, chosen in starts.items():
        means = mean_over_runs(runs.share, chosen)
        rows.append([f"start: {name}", int(chosen.sum()), *mean(means)])
    classic = np.where(is_classic, runs.classic, 0) / runs.best
    means = mean_over_runs(classic, is_classic)
    rows.append(["the same, classic rule", int(is_classic.sum()), *mean(means)])
    return rows


def mean_over_runs(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean over ``r`` of the chosen ``values [k, r]``; NaN where none is."""
    number = chosen.sum(1)
    means = (values * chosen).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, means, np.nan)


def summarise(measures: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Median, mean and standard error over maps."""
    summary = {}
    for name, values in measures.items():
        if np.isfinite(values).any():
            summary[name] = [float(np.nanmedian(values)), *mean(values)]
    return summary
