"""The runs of a study: whose they are, which of them are best, and the images of those."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from oipjax.search import Ascent, concatenate

Images = dict[int, np.ndarray]
"""Number of a run -> its best image. Not all are kept: there may be a hundred thousand runs."""

FURTHER = -1
"""The origin of a run whose start is not one of the survey's."""
NAME = "<U16"


class Runs(NamedTuple):
    """All runs so far, ``n`` of them.

    Attributes:
        owner: int ``[n]``, the map that each run is climbed for.
        origin: int ``[n]``, the survey's number of each run's start, or `FURTHER`.
        ascent: how the runs ended, without images.
        images: the images of the best runs.
        found_by: str ``[n]``, where each start comes from; empty for the survey's.
        last: number of the first run of the last climb.
    """

    owner: np.ndarray
    origin: np.ndarray
    ascent: Ascent
    images: Images
    found_by: np.ndarray
    last: int = 0

    def more(self, found_by: str, owner: np.ndarray, ascent: Ascent, images: Images) -> "Runs":
        """These runs and further ones, of one restart strategy."""
        count = len(self.owner)
        further = np.full(len(owner), FURTHER)
        names = np.full(len(owner), found_by, NAME)
        renumbered = {count + number: image for number, image in images.items()}
        return Runs(
            owner=np.concatenate([self.owner, owner]),
            origin=np.concatenate([self.origin, further]),
            ascent=concatenate([self.ascent, ascent], count + len(owner)),
            images=self.images | renumbered,
            found_by=np.concatenate([self.found_by, names]),
            last=count,
        )


def no_runs() -> Runs:
    """The runs of a study that has not climbed yet."""
    nothing = np.zeros(0)
    return Runs(
        owner=np.zeros(0, int),
        origin=np.zeros(0, int),
        ascent=Ascent(**dict.fromkeys(Ascent._fields, nothing)),
        images={},
        found_by=np.zeros(0, NAME),
    )


def runs_of_survey(owner: np.ndarray, origin: np.ndarray, ascent: Ascent, images: Images) -> Runs:
    """The first runs of a study: they begin at the survey's starts."""
    return Runs(
        owner=owner,
        origin=origin,
        ascent=ascent,
        images=images,
        found_by=np.full(len(owner), "", NAME),
    )


def collect(parts: Iterator[Ascent], owner: np.ndarray, keep: int) -> tuple[Ascent, Images]:
    """Join the parts of a climb.

    Args:
        parts: the runs, part by part.
        owner: int ``[n]``, the map of each run.
        keep: in each part so many images are kept of each map, of its best runs.

    Returns:
        all runs without their images, and the images that were kept.
    """
    images: Images = {}
    without_images = _take_images(parts, owner, keep, images)
    return concatenate(without_images, len(owner)), images


def _take_images(
    parts: Iterator[Ascent], owner: np.ndarray, keep: int, images: Images
) -> Iterator[Ascent]:
    """Move the best images of each part into ``images``; the parts come without them."""
    first = 0
    for part in parts:
        count = len(part.scores)
        rank = rank_of(part)
        owner_here = owner[first : first + count]
        for number in np.unique(owner_here):
            candidates = np.flatnonzero(owner_here == number)
            for best in best_first(candidates, rank, keep):
                images[first + int(best)] = part.images[best].copy()
        first += count
        yield part._replace(images=part.images[:, :0])


def rank_of(runs: Ascent) -> np.ndarray:
    """What runs are ranked by: their responses; those that are not finite come last."""
    return np.where(np.isfinite(runs.responses), runs.responses, -np.inf)


def best_first(candidates: np.ndarray, rank: np.ndarray, keep: int) -> np.ndarray:
    """The ``keep`` candidates of highest rank, the best first; of equals the earlier."""
    order = np.argsort(-rank[candidates], kind="stable")
    return candidates[order[:keep]]


def best_of_each(
    maps: np.ndarray, owner: np.ndarray, rank: np.ndarray, keep: int
) -> list[np.ndarray]:
    """For each map the numbers of its ``keep`` best runs, the best first."""
    chosen = []
    for number in maps:
        candidates = np.flatnonzero(owner == number)
        chosen.append(best_first(candidates, rank, keep))
    return chosen
