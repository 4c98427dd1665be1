"""Where an atlas takes further starts from, for maps that none of its ascents has lifted above the floor yet."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from oipjax import keys
from oipjax.bounds import relaxed_images, strip_images
from oipjax.model import Model
from oipjax.runtime import tiles
from oipjax.search import Starts, images_of, responses
from oipjax.spaces import Space, accepts_images
from oipjax.study.runs import Tried, best_first, rank_of

NEARER = 0.01
"""Share of its distance from its floor that a map must gain for its best images to be climbed from once more."""

Store = Callable[[str, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]
"""``store(name, compute)``: the part of that name, computed unless it is there."""
Road = Callable[[np.ndarray, Tried], tuple[np.ndarray, np.ndarray]]
"""From the maps that are silent, and all that was tried, to the targets and starts of further ascents."""

NOTHING = np.zeros(0, int), np.zeros(0)


@dataclass(frozen=True, eq=False)
class Roads:
    """The roads of a `Study`, with its attributes; ``search`` is how many starts of a kind a map gets."""

    key: Array
    model: Model
    layer: str
    space: Space
    tile: int
    search: int
    bounds: str

    def band(self, indices: tuple[int, ...], store: Store) -> Road:
        """Images found by exact search for every map, where there is one and tight bounds are asked for."""

        def starts_of(_: np.ndarray, __: Tried) -> tuple[np.ndarray, np.ndarray]:
            if self.bounds != "tight" or not accepts_images(self.space):
                return NOTHING

            def compute() -> dict[str, np.ndarray]:
                images = strip_images(self.model, self.layer, self.space.domain)
                return {
                    "images": np.zeros(0, np.float32)
                    if images is None
                    else images[np.array(indices)]
                }

            images = store("band-images", compute)["images"]
            return (np.array(indices), images) if len(images) else NOTHING

        return starts_of

    def random(self, first: int, count: int) -> Road:
        """Random starts, ``count`` for each map; attempt ``a`` for map ``m`` depends on the key, ``m`` and ``a``."""

        def starts_of(maps: np.ndarray, _: Tried) -> tuple[np.ndarray, np.ndarray]:
            if not len(maps) or not count:
                return NOTHING
            start, attempts = (
                Starts(self.space, self.tile),
                np.arange(first, first + count, dtype=np.uint32),
            )
            stream = keys.stream(self.key, keys.RESTART)
            parts = [
                start.array(0, jax.random.fold_in(stream, number), some)
                for number in maps.tolist()
                for some in tiles(attempts, start.group * self.tile)
            ]
            return np.repeat(maps, count), np.concatenate(parts)

        return starts_of

    def real(self, exemplars: np.ndarray | None) -> Road:
        """For each map the real images that it responds to most."""

        def starts_of(maps: np.ndarray, _: Tried) -> tuple[np.ndarray, np.ndarray]:
            if (
                exemplars is None
                or not accepts_images(self.space)
                or not len(maps)
                or not self.search
            ):
                return NOTHING
            images = images_of(self.space, np.asarray(exemplars), tile=self.tile)
            answers = responses(self.model, self.layer, images, space=self.space, tile=self.tile)
            count = min(self.search, len(images))
            best = np.argsort(-answers[:, maps], axis=0, kind="stable")[:count].T
            return np.repeat(maps, count), images[best.ravel()]

        return starts_of

    def relaxed(self, maps: np.ndarray, _: Tried) -> tuple[np.ndarray, np.ndarray]:
        """For each map the images that maximise the relaxation its bound comes from, where there is one."""
        if (
            not len(maps)
            or not self.search
            or self.bounds == "none"
            or not accepts_images(self.space)
        ):
            return NOTHING
        images = relaxed_images(self.model, self.layer, self.space.domain, maps)
        if images is None:
            return NOTHING
        return np.repeat(maps, images.shape[1]), images.reshape(-1, *images.shape[2:])

    def best(self, maps: np.ndarray, tried: Tried) -> tuple[np.ndarray, np.ndarray]:
        """For each map the images that came nearest to pre_activation it, to be climbed from again."""
        if not len(maps) or not self.search or not accepts_images(self.space):
            return NOTHING
        rank = rank_of(tried.runs)
        chosen = [
            best_first(np.flatnonzero(tried.owner == number), rank, self.search) for number in maps
        ]
        place = np.concatenate(chosen)
        return tried.owner[place], np.stack([tried.images[number] for number in place])

    def nearer(self, maps: np.ndarray, tried: Tried) -> tuple[np.ndarray, np.ndarray]:
        """As `best`, for those maps that the last climb from their best images brought nearer to its floor."""
        rank, new = rank_of(tried.runs), np.arange(len(tried.owner)) >= tried.last
        before, after = (
            np.array(
                [rank[those & (tried.owner == number)].max(initial=-np.inf) for number in maps]
            )
            for those in (~new, new)
        )
        return self.best(maps[after - before > NEARER * np.abs(before)], tried)
