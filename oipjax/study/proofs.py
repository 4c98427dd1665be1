"""What a study proves of its maps: `oipjax.bounds` for the chosen maps, in their order.

A result has ``score [k]``, ``node [k]``, ``dead [k]`` and ``method [k]``, see
`oipjax.bounds.Bounds`.
"""

import numpy as np

from oipjax.bounds import Limits, certify, refine
from oipjax.study.findings import Arrays, Progress
from oipjax.study.plan import Study


def nothing_proved(study: Study) -> Arrays:
    """The result without any proof."""
    count = len(study.maps)
    return {
        "score": np.full(count, np.nan),
        "node": np.full(count, np.nan),
        "dead": np.zeros(count, bool),
        "method": np.full(count, ""),
    }


def certify_maps(study: Study, report: Progress) -> Arrays:
    """Prove upper limits of the maps, as hard as the study's ``bounds`` says.

    Raises:
        ValueError: the network has a primitive without a rule.
    """
    level = study.config.bounds
    if level == "none":
        return nothing_proved(study)
    domain = study.space.domain
    try:
        bounds = certify(study.model, study.layer, domain, level=level, progress=report)
    except ValueError as error:
        raise ValueError(f"{error}; without bounds (none) the search goes on") from None
    chosen = np.array(study.maps)
    return {
        "score": bounds.score[chosen],
        "node": bounds.node[chosen],
        "dead": bounds.dead[chosen],
        "method": bounds.method[chosen],
    }


def refine_maps(
    study: Study,
    bounds: Arrays,
    maps: np.ndarray,
    limits: Limits | None,
    report: Progress,
) -> Arrays:
    """Refine the bounds of some maps; none becomes looser.

    Args:
        study: the plan.
        bounds: what is proved so far; it is left as it is.
        maps: int ``[n]``, indices of the maps to refine.
        limits: of `oipjax.bounds.refinement_limits`, if they are known already.
        report: is told how far the proof is.
    """
    domain = study.space.domain
    refined = refine(study.model, study.layer, domain, maps, limits=limits, progress=report)
    place = _places(study.maps, maps)
    score = np.array(bounds["score"])
    node = np.array(bounds["node"])
    dead = np.array(bounds["dead"])
    method = np.array(bounds["method"], object)
    is_better = refined.score < score[place]
    method[place[is_better]] = refined.method[is_better]
    score[place] = np.fmin(refined.score, score[place])
    node[place] = np.fmin(refined.node, node[place])
    dead[place] |= refined.dead
    return {"score": score, "node": node, "dead": dead, "method": method.astype(str)}


def _places(all_maps: tuple[int, ...], maps: np.ndarray) -> np.ndarray:
    """Where ``maps`` stand in ``all_maps``, which need not be sorted."""
    order = np.argsort(all_maps)
    return order[np.searchsorted(all_maps, maps, sorter=order)]
