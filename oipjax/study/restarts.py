"""Restart strategies: where further starts come from for maps that are still unresolved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from oipjax import keys
from oipjax.bounds import relaxed_images, strip_images
from oipjax.runtime import tiles
from oipjax.search import Starts, images_of, responses
from oipjax.spaces import accepts_images
from oipjax.study.climbing import climb
from oipjax.study.config import AtlasConfig
from oipjax.study.findings import Arrays, Findings, with_runs
from oipjax.study.result import BY_EXEMPLAR, BY_RELAXATION, BY_RESTART, BY_SEARCH, BY_STRIPS
from oipjax.study.runs import Runs, best_of_each, rank_of
from oipjax.study.work import Work

IMPROVEMENT = 0.01
"""Share of its distance from its floor that a map must gain for its best images to be climbed from
once more."""
RANDOM_PER_SEARCH = 4
"""Random starts of the long search for each real image."""


class Proposal(NamedTuple):
    """Further starts: the map of each, int ``[n]``, and its ``z [n, ...]``."""

    targets: np.ndarray
    starts: np.ndarray


NO_STARTS = Proposal(np.zeros(0, int), np.zeros(0))


@dataclass(frozen=True)
class Strategy:
    """One source of further starts.

    Attributes:
        phase: name of its climbs.
        found_by: what `Atlas.found_by` says of maps that it finds.
        propose: the starts, from the work and the findings so far.
        finish: how many of each map's short runs are continued; 0: the strategy is not used.
        is_costly: it is used only after bounds have been refined, which may make it needless.
        for_all_maps: it proposes starts even if no map is unresolved.
        gives_images: its starts are images, which not every image space accepts.
    """

    phase: str
    found_by: str
    propose: Callable[[Work, Findings], Proposal]
    finish: Callable[[AtlasConfig], int]
    is_costly: bool = True
    for_all_maps: bool = False
    gives_images: bool = True


def restart(work: Work, findings: Findings, strategy: Strategy) -> Findings:
    """The findings after climbing from the starts of a strategy."""
    study = work.study
    finish = strategy.finish(study.config)
    is_needed = strategy.for_all_maps or len(findings.unresolved)
    is_possible = accepts_images(study.space) or not strategy.gives_images
    if not (is_needed and is_possible and finish):
        return findings
    targets, starts = strategy.propose(work, findings)
    if not len(targets):
        return findings
    ascent, images = climb(work, strategy.phase, targets, starts, finish)
    runs = findings.runs.more(strategy.found_by, targets, ascent, images)
    return with_runs(study, findings, runs)


def strips(work: Work, findings: Findings) -> Proposal:
    """For every map an image found by exact search in strips, where tight bounds are wanted."""
    del findings
    study = work.study
    if study.config.bounds != "tight":
        return NO_STARTS
    maps = np.array(study.maps)

    def compute() -> Arrays:
        images = strip_images(study.model, study.layer, study.space.domain)
        if images is None:
            return {"images": np.zeros(0, np.float32)}
        return {"images": images[maps]}

    images = work.store("strips-images", compute)["images"]
    return Proposal(maps, images) if len(images) else NO_STARTS


def few_random(work: Work, findings: Findings) -> Proposal:
    """``restarts`` random starts for each map."""
    return _random(work, findings.unresolved, 0, work.study.config.restarts)


def many_random(work: Work, findings: Findings) -> Proposal:
    """Random starts of the long search for each map."""
    config = work.study.config
    count = RANDOM_PER_SEARCH * config.search
    return _random(work, findings.unresolved, config.restarts, count)


def _random(work: Work, maps: np.ndarray, first: int, count: int) -> Proposal:
    """``count`` random starts for each map; each depends on the key, the map and its own number."""
    study = work.study
    maker = Starts(study.space, study.ascent.tile_size)
    stream = keys.stream(study.key, keys.RESTART)
    attempts = np.arange(first, first + count, dtype=np.uint32)
    parts = []
    for number in maps.tolist():
        key = jax.random.fold_in(stream, number)
        for chunk in tiles(attempts, maker.group * maker.tile):
            parts.append(maker.array(0, key, chunk))
    return Proposal(np.repeat(maps, count), np.concatenate(parts))


def real_images(work: Work, findings: Findings) -> Proposal:
    """For each map the real images that it responds to most."""
    study = work.study
    config = study.config
    if config.exemplars is None:
        return NO_STARTS
    maps = findings.unresolved
    tile = study.ascent.tile_size
    images = images_of(study.space, np.asarray(config.exemplars), tile=tile)
    answers = responses(study.model, study.layer, images, space=study.space, tile=tile)
    count = min(config.search, len(images))
    order = np.argsort(-answers[:, maps], axis=0, kind="stable")
    best = order[:count].T
    return Proposal(np.repeat(maps, count), images[best.ravel()])


def relaxations(work: Work, findings: Findings) -> Proposal:
    """For each map the images that maximise a relaxation of it, if there is one."""
    study = work.study
    if study.config.bounds == "none":
        return NO_STARTS
    maps = findings.unresolved
    images = relaxed_images(study.model, study.layer, study.space.domain, maps)
    if images is None:
        return NO_STARTS
    count = images.shape[1]
    starts = images.reshape(-1, *images.shape[2:])
    return Proposal(np.repeat(maps, count), starts)


def best_again(work: Work, findings: Findings) -> Proposal:
    """For each map the images that came nearest to lifting it above its floor."""
    return _best(findings.runs, findings.unresolved, work.study.config.search)


def improved_again(work: Work, findings: Findings) -> Proposal:
    """As `best_again`, for those maps that the last climb has improved."""
    maps = _improved(findings.runs, findings.unresolved)
    return _best(findings.runs, maps, work.study.config.search)


def _best(runs: Runs, maps: np.ndarray, count: int) -> Proposal:
    if not len(maps):
        return NO_STARTS
    chosen = best_of_each(maps, runs.owner, rank_of(runs.ascent), count)
    place = np.concatenate(chosen)
    starts = [runs.images[number] for number in place]
    return Proposal(runs.owner[place], np.stack(starts))


def _improved(runs: Runs, maps: np.ndarray) -> np.ndarray:
    """Those of ``maps`` whose distance from their floor the last climb has reduced."""
    rank = rank_of(runs.ascent)
    is_new = np.arange(len(runs.owner)) >= runs.last
    improved = []
    for number in maps:
        is_own = runs.owner == number
        before = rank[is_own & ~is_new].max(initial=-np.inf)
        after = rank[is_own & is_new].max(initial=-np.inf)
        improved.append(after - before > IMPROVEMENT * np.abs(before))
    return maps[np.array(improved, bool)]


def _one(config: AtlasConfig) -> int:
    del config
    return 1


def _restarts(config: AtlasConfig) -> int:
    return config.restarts


def _search(config: AtlasConfig) -> int:
    return config.search


STRATEGIES = (
    Strategy("strips", BY_STRIPS, strips, _one, is_costly=False, for_all_maps=True),
    Strategy("random", BY_RESTART, few_random, _restarts, is_costly=False, gives_images=False),
    Strategy("exemplars", BY_EXEMPLAR, real_images, _search),
    Strategy("relaxation", BY_RELAXATION, relaxations, _search),
    Strategy("more-random", BY_SEARCH, many_random, _search, gives_images=False),
    Strategy("best-images-1", BY_SEARCH, best_again, _search),
    Strategy("best-images-2", BY_SEARCH, improved_again, _search),
    Strategy("best-images-3", BY_SEARCH, improved_again, _search),
)
"""All strategies, in the order in which they are used."""
