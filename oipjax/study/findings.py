"""What a study has found so far; each phase makes new findings of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from oipjax.search import INACTIVE
from oipjax.study.plan import Study
from oipjax.study.runs import Runs

Arrays = dict[str, np.ndarray]
Compute = Callable[[], Arrays]
Store = Callable[[str, Compute], Arrays]
"""``store(name, compute)``: the part of that name, computed unless it is there."""
Progress = Callable[[str, int, int], None]
"""Called with (phase, done, in all) as work goes on."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a study has found so far, for its ``k`` maps.

    Attributes:
        survey: ``start_index [k, r]``, ``response [k, r]``, ``scores [k, r]``, ``responded [k]``.
        runs: all runs that were tried.
        bounds: ``score [k]``, ``node [k]``, ``dead [k]``, ``method [k]``.
        unresolved: indices of the maps that are neither found nor proved dead.
    """

    survey: Arrays
    runs: Runs
    bounds: Arrays
    unresolved: np.ndarray


def with_runs(study: Study, findings: Findings, runs: Runs) -> Findings:
    """The findings after further runs."""
    unresolved = unresolved_maps(study, runs, findings.bounds)
    return replace(findings, runs=runs, unresolved=unresolved)


def with_bounds(study: Study, findings: Findings, bounds: Arrays) -> Findings:
    """The findings after further proofs."""
    unresolved = unresolved_maps(study, findings.runs, bounds)
    return replace(findings, bounds=bounds, unresolved=unresolved)


def unresolved_maps(study: Study, runs: Runs, bounds: Arrays) -> np.ndarray:
    """Indices of the maps that are not proved dead and that no run has lifted above the floor."""
    if study.floor is None:
        return np.zeros(0, int)
    is_above_floor = (runs.ascent.scores > study.floor) & (runs.ascent.status != INACTIVE)
    not_dead = np.array(study.maps)[~bounds["dead"]]
    return np.setdiff1d(not_dead, runs.owner[is_above_floor])
