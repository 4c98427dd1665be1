"""What an atlas has tried so far: the runs, which of them are best, and the images of those."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from oipjax.search import Ascent, concatenate

Images = dict[int, np.ndarray]
"""Number of a run -> its best image. Not all need be kept: there may be a hundred thousand runs."""


class Tried(NamedTuple):
    """All runs so far: whose they are, the survey's numbers of their starts (or -1), and by which road they came.

    ``last`` is the number of the first run of the last climb.
    """

    owner: np.ndarray
    origin: np.ndarray
    runs: Ascent
    images: Images
    road: np.ndarray
    last: int = 0

    def more(self, road: str, owner: np.ndarray, runs: Ascent, images: Images) -> "Tried":
        """These runs and further ones, of one road."""
        count = len(self.owner)
        return Tried(
            np.concatenate([self.owner, owner]),
            np.concatenate([self.origin, np.full(len(owner), -1)]),
            concatenate([self.runs, runs], count + len(owner)),
            self.images | {count + number: image for number, image in images.items()},
            np.concatenate([self.road, np.full(len(owner), road, "<U16")]),
            count,
        )


def collect(
    parts: Iterator[Ascent], targets: np.ndarray, keep: int | None
) -> tuple[Ascent, Images]:
    """All runs of a phase without their images, and the images of the ``keep`` best of each map in each part."""
    images, place = {}, 0

    def bare() -> Iterator[Ascent]:
        nonlocal place
        for part in parts:
            owner, rank = targets[place : place + len(part.scores)], rank_of(part)
            for number in np.unique(owner):
                for best in best_first(np.flatnonzero(owner == number), rank, keep):
                    images[place + int(best)] = part.images[best].copy()
            place += len(part.scores)
            yield part._replace(images=part.images[:, :0])

    return concatenate(bare(), len(targets)), images


def rank_of(runs: Ascent) -> np.ndarray:
    """What runs are ranked by: their responses, those that are not finite last."""
    return np.where(np.isfinite(runs.responses), runs.responses, -np.inf)


def best_first(candidates: np.ndarray, rank: np.ndarray, keep: int | None) -> np.ndarray:
    """The ``keep`` candidates of highest rank (all: None), the best first; of equals the earlier."""
    return candidates[np.argsort(-rank[candidates], kind="stable")[:keep]]
