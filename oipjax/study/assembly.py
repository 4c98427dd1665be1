"""From the findings of a study to its atlas."""

import numpy as np

from oipjax.search import INACTIVE, Ascent
from oipjax.study.findings import Findings
from oipjax.study.plan import Study
from oipjax.study.result import BY_PRE_ACTIVATION, BY_SURVEY, DEAD, FOUND, UNRESOLVED, Atlas
from oipjax.study.runs import FURTHER, Runs, best_of_each, rank_of

FLOOR_TOLERANCE = 1e-3
"""How far below its floor a score may lie by rounding, as a share of the floor or of 1."""


def assemble(study: Study, findings: Findings) -> Atlas:
    """Take the best ``keep`` runs of each map, from the survey's starts and the further ones.

    Raises:
        RuntimeError: an image does what was proved impossible.
        ValueError: a score lies below the floor that the network declares for the layer.
    """
    config = study.config
    maps = np.array(study.maps)
    runs = findings.runs
    ascent = runs.ascent
    chosen = np.stack(best_of_each(maps, runs.owner, rank_of(ascent), config.keep))
    best = chosen[:, 0]
    floor = -np.inf if study.floor is None else study.floor
    is_found = np.isfinite(ascent.scores[best]) & (ascent.scores[best] > floor)
    _check_floor(study, ascent)
    _check_proofs(study, findings, best, is_found)
    is_dead = findings.bounds["dead"]
    status = np.where(is_found, FOUND, np.where(is_dead, DEAD, UNRESOLVED))
    found_by = np.where(is_found, _found_by(runs, best, floor), "")
    draws, evaluations = _count_efforts(runs, maps)
    return Atlas(
        model=study.model.name,
        layer=study.layer,
        maps=maps.astype(np.int32),
        status=status.astype(np.uint8),
        run_status=ascent.status[chosen],
        images=_images(runs, chosen[:, : int(config.keep_images)]),
        scores=ascent.scores[chosen],
        responses=ascent.responses[chosen],
        start_index=runs.origin[chosen].astype(np.int64),
        start_scores=ascent.start_scores[chosen],
        trace=ascent.trace[chosen],
        trace_steps=ascent.trace_steps,
        bound=findings.bounds["score"],
        node_bound=findings.bounds["node"],
        bound_by=findings.bounds["method"],
        responded_fraction=findings.survey["responded"] / config.draws,
        draws_seen=config.draws + draws,
        gradient_evaluations=evaluations,
        found_by=found_by,
    )


def _check_floor(study: Study, ascent: Ascent) -> None:
    """Raise a ValueError if a score is below the floor: with a wrong floor, proofs are wrong."""
    floor = study.floor
    if floor is None:
        return
    scores = np.concatenate([ascent.scores.ravel(), ascent.start_scores.ravel()])
    too_low = scores[scores < floor - FLOOR_TOLERANCE * max(1.0, abs(floor))]
    if too_low.size:
        raise ValueError(
            f"{study.model.name}: {study.layer} has a score of {too_low.min():.3g}, below its "
            f"declared floor {floor:.3g}; correct the floor in nonlinearities"
        )


def _check_proofs(study: Study, findings: Findings, best: np.ndarray, is_found: np.ndarray) -> None:
    """Raise a RuntimeError if the best run of a map contradicts what was proved of it."""
    ascent = findings.runs.ascent
    bounds = findings.bounds
    is_inactive = (ascent.status[best] == INACTIVE) & study.ascent.method.climbs_pre_activation
    is_wrong = is_found & bounds["dead"]
    is_wrong |= ascent.scores[best] > bounds["score"]
    is_wrong |= is_inactive & (ascent.responses[best] > bounds["node"])
    if is_wrong.any():
        wrong = ", ".join(map(str, np.array(study.maps)[is_wrong]))
        raise RuntimeError(
            f"a proof is contradicted by an image, for {study.layer} of {study.model.name}, maps "
            f"{wrong}: please report this"
        )


def _found_by(runs: Runs, best: np.ndarray, floor: float) -> np.ndarray:
    """Where the start of each map's best run comes from."""
    start_responded = runs.ascent.start_scores[best] > floor
    by_survey = np.where(start_responded, BY_SURVEY, BY_PRE_ACTIVATION)
    is_further = runs.origin[best] == FURTHER
    return np.where(is_further, runs.found_by[best], by_survey)


def _count_efforts(runs: Runs, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each map: further starts that were tried, and gradients that were computed."""
    further = []
    evaluations = []
    for index in maps:
        is_own = runs.owner == index
        further.append(np.sum(is_own & (runs.origin == FURTHER)))
        evaluations.append(runs.ascent.evaluations[is_own].sum())
    return np.array(further, np.int64), np.array(evaluations, np.int64)


def _images(runs: Runs, chosen: np.ndarray) -> np.ndarray:
    """``[k, r, h, w, c]``: the images of the runs ``chosen [k, r]``."""
    images = [runs.images[number] for number in chosen.ravel()]
    shape = images[0].shape
    return np.stack(images).reshape(*chosen.shape, *shape)
