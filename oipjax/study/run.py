"""The atlas: survey, ascent and proof for all maps of a layer, and one status for each.

A study is run in phases. Each phase is a function from the work and the findings so far to the
findings that follow. The parts of a phase go through a store, so they can be kept anywhere: `atlas`
keeps them in memory, `oipjax.records` on disk.
"""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from jax import Array

from oipjax.model import Model
from oipjax.search import best_of, survey
from oipjax.study.ahead import Ahead
from oipjax.study.assembly import assemble
from oipjax.study.climbing import climb
from oipjax.study.config import AtlasConfig
from oipjax.study.findings import (
    Arrays,
    Compute,
    Findings,
    Progress,
    Store,
    unresolved_maps,
    with_bounds,
    with_runs,
)
from oipjax.study.plan import Study, plan_study
from oipjax.study.proofs import nothing_proved, refine_maps
from oipjax.study.restarts import STRATEGIES, restart
from oipjax.study.result import Atlas
from oipjax.study.runs import no_runs, runs_of_survey
from oipjax.study.work import Work

PART_DRAWS = 2**16
"""Starts of the survey in one part."""


def atlas(
    key: Array,
    model: Model,
    layer: str = "",
    *,
    config: AtlasConfig = AtlasConfig(),
    progress: Progress | None = None,
    **changes: Any,
) -> Atlas:
    """Find the patterns of every map of a layer, and say which maps are dead.

    A survey finds the best random starts of each map, and an ascent climbs from them. Bounds are
    then proved for all maps. Maps that are still unresolved get further starts and tighter bounds.

    Args:
        key: the root key; the same key gives the same atlas.
        model: the network.
        layer: name of the layer; the network's `default_layer` unless given.
        config: the options.
        progress: called with (phase, done, in all).
        **changes: new values for some of the options, by the name of the field in `AtlasConfig` or
            `AscentConfig`, e.g. ``maps=(3, 5), draws=256, steps=50``.

    Raises:
        ValueError: an option is unknown, out of range, or does not fit the network.
    """
    study = plan_study(key, model, layer, config=config, **changes)
    return run_study(study, progress=progress)


def run_study(study: Study, store: Store | None = None, progress: Progress | None = None) -> Atlas:
    """Run a planned study.

    Args:
        study: of `plan_study`.
        store: keeps finished parts; nothing is kept unless it is given.
        progress: called with (phase, done, in all).

    Raises:
        ValueError: bounds were wanted, and the network has a primitive without a rule.
    """
    store = _keep_nothing if store is None else store
    report = _report_nothing if progress is None else progress
    ahead = Ahead(study, report)
    work = Work(study, store, report, ahead)
    findings = nothing_found(study)
    try:
        for phase in PHASES:
            findings = phase(work, findings)
    finally:
        ahead.close()
    return assemble(study, findings)


def nothing_found(study: Study) -> Findings:
    """The findings before the first phase."""
    runs = no_runs()
    bounds = nothing_proved(study)
    unresolved = unresolved_maps(study, runs, bounds)
    return Findings(survey={}, runs=runs, bounds=bounds, unresolved=unresolved)


def survey_layer(work: Work, findings: Findings) -> Findings:
    """Feed random starts through the network, part by part; keep the best of each map."""
    config = work.study.config
    parts = []
    for number, first in enumerate(range(0, config.draws, PART_DRAWS)):
        draws = min(PART_DRAWS, config.draws - first)
        compute = functools.partial(_survey_part, work, first, draws)
        parts.append(work.store(f"survey-{number:05d}", compute))
        work.report("survey", first + draws, config.draws)
    return replace(findings, survey=best_of(parts, config.keep))


def climb_survey_starts(work: Work, findings: Findings) -> Findings:
    """Climb from the best starts of each map."""
    study = work.study
    work.ahead.wait_for_program()
    work.ahead.prefetch_limits(findings.survey["responded"])
    origin = findings.survey["start_index"].ravel()
    owner = np.repeat(study.maps, study.config.keep)
    ascent, images = climb(work, "ascent", owner, origin, study.config.finish)
    return with_runs(study, findings, runs_of_survey(owner, origin, ascent, images))


def prove(work: Work, findings: Findings) -> Findings:
    """Prove upper limits, and that maps are dead."""
    bounds = work.store("bounds", work.ahead.bounds)
    return with_bounds(work.study, findings, bounds)


def restart_cheaply(work: Work, findings: Findings) -> Findings:
    """Use the restart strategies that cost little."""
    for strategy in STRATEGIES:
        if not strategy.is_costly:
            findings = restart(work, findings, strategy)
    return findings


def refine_unresolved(work: Work, findings: Findings) -> Findings:
    """Refine the bounds of unresolved maps: it costs less than the long search that it may save."""
    study = work.study
    maps = findings.unresolved
    if study.config.bounds == "none" or not len(maps):
        return findings
    limits = work.ahead.limits()
    compute = functools.partial(refine_maps, study, findings.bounds, maps, limits, work.report)
    return with_bounds(study, findings, work.store("proof", compute))


def restart_at_length(work: Work, findings: Findings) -> Findings:
    """Use the restart strategies that cost much."""
    for strategy in STRATEGIES:
        if strategy.is_costly:
            findings = restart(work, findings, strategy)
    return findings


PHASES = (
    survey_layer,
    climb_survey_starts,
    prove,
    restart_cheaply,
    refine_unresolved,
    restart_at_length,
)
"""What a study does, in this order."""


def _survey_part(work: Work, first: int, draws: int) -> Arrays:
    """What the chosen maps answered to ``draws`` starts from number ``first`` on."""
    study = work.study
    config = study.config

    def progress(done: int, total: int) -> None:
        del total
        work.report("survey", first + done, config.draws)

    answers = survey(
        study.key,
        study.model,
        study.layer,
        first=first,
        draws=draws,
        keep=min(config.keep, draws),
        config=study.ascent,
        progress=progress,
    )
    chosen = np.array(study.maps)
    return {
        "start_index": answers.start_index[chosen],
        "response": answers.response[chosen],
        "scores": answers.scores[chosen],
        "responded": answers.responded[chosen],
    }


def _keep_nothing(name: str, compute: Compute) -> Arrays:
    del name
    return compute()


def _report_nothing(phase: str, done: int, total: int) -> None:
    del phase, done, total
