"""How a study climbs: in parts that can be computed in any order and kept anywhere."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from oipjax.objectives import Map
from oipjax.search import Ascent, ascend, continued
from oipjax.spaces import accepts_images
from oipjax.study.findings import Arrays
from oipjax.study.plan import Study
from oipjax.study.runs import Images, best_of_each, collect, rank_of
from oipjax.study.work import Work

PART_TILES = 16
"""Tiles of runs in one part."""


@dataclass(frozen=True, eq=False)
class Climb:
    """Runs of one length that are climbed together.

    Attributes:
        phase: its name, part of the names of its parts.
        targets: int ``[n]``, the map of each run.
        starts: numbers of the survey's starts ``[n]``, or ``z [n, ...]`` of the space.
        steps: scores of each run.
    """

    phase: str
    targets: np.ndarray
    starts: np.ndarray
    steps: int


def climb(
    work: Work, phase: str, targets: np.ndarray, starts: np.ndarray, finish: int
) -> tuple[Ascent, Images]:
    """Climb from every start; with ``screen`` a short way, and on only from the best.

    Args:
        work: of the study.
        phase: its name, part of the names of its parts.
        targets: int ``[n]``, the map of each run.
        starts: numbers of the survey's starts ``[n]``, or ``z [n, ...]`` of the space.
        finish: of each map so many of the short runs are continued.

    Returns:
        the runs without images, and the images of the best of each map.
    """
    config = work.study.config
    steps = config.ascent.steps
    screen = int(config.screen)
    if not screen:
        parts = _parts(work, Climb(phase, targets, starts, steps))
        return collect(parts, targets, _images_needed(work.study, 1))
    short_parts = _parts(work, Climb(phase, targets, starts, screen))
    short, images = collect(short_parts, targets, _images_needed(work.study, finish))
    chosen = best_of_each(np.unique(targets), targets, rank_of(short), finish)
    place = np.concatenate(chosen)
    targets = targets[place]
    if accepts_images(work.study.space):
        starts = np.stack([images[number] for number in place])
    else:
        starts = starts[place]
    long_parts = _parts(work, Climb(f"{phase}-on", targets, starts, steps))
    long, long_images = collect(long_parts, targets, _images_needed(work.study, 1))
    for number, first in enumerate(place):
        if number in long_images and long.responses[number] > short.responses[first]:
            images[first] = long_images[number]
    return continued(short, place, long), images


def _images_needed(study: Study, finish: int) -> int:
    """Of how many runs of a map the images are needed."""
    config = study.config
    return max(int(config.keep_images), config.search, finish)


def _parts(work: Work, job: Climb) -> Iterator[Ascent]:
    """The runs of a climb, part by part."""
    count = len(job.targets)
    size = PART_TILES * work.study.ascent.tile_size
    for number, first in enumerate(range(0, count, size)):
        last = min(first + size, count)
        compute = functools.partial(_compute_part, work, job, first, last)
        part = work.store(f"{job.phase}-{number:05d}", compute)
        work.report(job.phase, last, count)
        yield Ascent(**part)


def _compute_part(work: Work, job: Climb, first: int, last: int) -> Arrays:
    """The runs of a climb from number ``first`` to ``last``."""
    study = work.study

    def progress(done: int, total: int) -> None:
        del total
        work.report(job.phase, first + done, len(job.targets))

    part = ascend(
        study.key,
        study.model,
        Map(study.layer),
        job.targets[first:last],
        job.starts[first:last],
        config=study.ascent,
        steps=job.steps,
        progress=progress,
    )
    return part._asdict()
