"""The atlas: survey, ascent and proof for all maps of a layer, and one verdict for each.

A `Study` is the plan: what is asked, checked, and cut into parts that can be computed in any order
and kept anywhere. `atlas` runs the plan in memory; `oipjax.records` runs it with every part on
disk.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax import Array

from oipjax import keys
from oipjax.bounds import LEVELS, Limits, certify, refine, refinement_limits
from oipjax.model import Model
from oipjax.objectives import Map
from oipjax.runtime import checked_precision, checked_tile
from oipjax.search import (
    INACTIVE,
    Ascent,
    Method,
    Momentum,
    Survey,
    ascend,
    best_of,
    check_numbers,
    check_plan,
    continued,
    prepare,
    survey,
)
from oipjax.spaces import Space, Sphere, accepts_images, checked_space
from oipjax.study.restarts import Roads, Store
from oipjax.study.result import (
    BY_BAND,
    BY_EXEMPLAR,
    BY_PRE_ACTIVATION,
    BY_RELAXATION,
    BY_RESTART,
    BY_SEARCH,
    BY_SURVEY,
    DEAD,
    FOUND,
    UNRESOLVED,
    Atlas,
)
from oipjax.study.runs import Images, Tried, best_first, collect, rank_of

PART_TILES = 16
PART_DRAWS = 2**16
REPORTS = 6

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, in all) as work goes on."""


@dataclass(frozen=True, eq=False)
class Study:
    """An atlas to be made; everything is checked when it is built.

    Attributes:
        key: the root key.
        model: the network.
        layer: the layer's name; the network's `default_layer` unless given.
        maps: indices of the maps; all unless given.
        space: the image space; `images.Standardised` unless given.
        draws: starts in the survey.
        keep: ascents, and kept patterns, per map.
        method: how to climb.
        steps: scores per ascent.
        screen: scores of a first, short ascent from every start; of each map only the ``finish``
            best are climbed on from there, with ``steps`` more. 0: every start is climbed with
            ``steps`` at once. By default a quarter of ``steps``; 0 for a method that cannot be
            stopped and begun again, like `Classic`.
        finish: see ``screen``.
        keep_images: of each map so many images are kept, of its best patterns; all unless given.
            Scores and traces are kept of all.
        restarts: further starts for each map that is still silent after the survey's best have been
            climbed.
        search: for a map neither found nor proved dead by then: as many starts from ``exemplars``,
            those that it responds to most, then the maximisers of a relaxation of the map (in a
            box), then four times as many random ones, then again from the best images, up to three
            times, as long as that brings it nearer.
        exemplars: real images ``[n, h, w, c]``, network inputs.
        criterion: relative change per step below which a run counts as converged.
        stop: end converged runs.
        precision: of the ascents' steps on a GPU, ``float32``, ``tf32`` or ``bf16``; see
            `ascent.ascend`.
        tile: batch size of all programs.
        bounds: how hard to try to prove limits, see `bounds.LEVELS`: ``none``, ``cheap`` or
            ``tight``.
    """

    key: Array
    model: Model
    layer: str = ""
    maps: tuple[int, ...] | None = None
    space: Space | None = None
    draws: int = 4096
    keep: int = 4
    method: Method = Momentum()
    steps: int = 100
    screen: int | None = None
    finish: int = 1
    keep_images: int | None = None
    restarts: int = 4
    search: int = 16
    exemplars: np.ndarray | None = None
    criterion: float = 2e-4
    stop: bool = False
    precision: str = "float32"
    tile: int | None = None
    bounds: str = "cheap"

    def __post_init__(self):
        keys.check(self.key)
        facts = self.model.layer(self.layer or self.model.default_layer)
        asked = np.arange(facts.maps) if self.maps is None else np.asarray(self.maps)
        maps = tuple(
            Map(facts.name).check(self.model, asked if asked.size else asked.astype(int)).tolist()
        )
        if not maps or len(set(maps)) != len(maps):
            raise ValueError(f"maps must be one or more different indices, got {maps}")
        check_plan(self.steps, REPORTS, self.criterion)
        if self.screen is None:
            object.__setattr__(self, "screen", self.steps // 4 if self.method.restarts else 0)
        for name in ("restarts", "search", "screen"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.exemplars is not None and np.shape(self.exemplars)[1:] != self.model.input_shape:
            expected, given = self.model.input_shape, np.shape(self.exemplars)
            raise ValueError(
                f"exemplars are images [n, {', '.join(map(str, expected))}], got {list(given)}"
            )
        if self.bounds not in LEVELS:
            raise ValueError(
                f"unknown level of bounds {self.bounds!r}; there are {', '.join(LEVELS)}"
            )
        for name in ("finish", "keep_images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        check_numbers(self.draws, self.keep)
        for name, value in (
            ("layer", facts.name),
            ("maps", maps),
            ("space", checked_space(self.model, self.space)),
            ("tile", checked_tile(self.tile)),
            ("precision", checked_precision(self.precision)),
        ):
            object.__setattr__(self, name, value)

    @property
    def indices(self) -> tuple[int, ...]:
        """The maps that were chosen."""
        return self.maps or ()

    @property
    def image_space(self) -> Space:
        """The image space that was chosen."""
        return checked_space(self.model, self.space)

    @cached_property
    def floor(self) -> float | None:
        """The floor of the layer's nonlinearity, None if it has none."""
        return self.model.layer(self.layer).floor

    def run(self, store: Store | None = None, progress: Progress | None = None) -> Atlas:
        """Do all parts, each through ``store``, and put them together.

        Args:
            store: keeps finished parts; by default nothing is kept.
            progress: called with (phase, done, in all).
        """
        store = store or (lambda name, compute: compute())
        report = progress or (lambda phase, done, total: None)
        aside = ThreadPoolExecutor(1)
        try:
            return self._run(store, report, aside)
        finally:
            aside.shutdown(wait=False, cancel_futures=True)

    def _run(self, store: Store, report: Progress, aside: ThreadPoolExecutor) -> Atlas:
        # Programs are traced and compiled on one core; meanwhile the other one is put to use.
        compiled = aside.submit(self._compile)
        proving = aside.submit(self._bounds, report) if self.bounds == "cheap" else None
        answer = self._survey(store, report)
        compiled.result()
        foreseen = aside.submit(self._foresee, answer["responded"], proving) if proving else None
        index = answer["start_index"]
        owner = np.repeat(self.indices, self.keep)
        runs, images = self._climb("ascent", owner, index.ravel(), self.finish, store, report)
        proved = store(
            "bounds", proving.result if proving else functools.partial(self._bounds, report)
        )
        tried = Tried(owner, index.ravel(), runs, images, np.full(len(owner), "", "<U16"))
        roads = Roads(
            self.key,
            self.model,
            self.layer,
            self.image_space,
            checked_tile(self.tile),
            self.search,
            self.bounds,
        )
        near = (
            ("band", BY_BAND, roads.band(self.indices, store), 1),
            ("restart", BY_RESTART, roads.random(0, self.restarts), self.restarts),
        )
        far = (
            ("exemplar", BY_EXEMPLAR, roads.real(self.exemplars), self.search),
            ("relaxation", BY_RELAXATION, roads.relaxed, self.search),
            ("search", BY_SEARCH, roads.random(self.restarts, 4 * self.search), self.search),
            ("polish1", BY_SEARCH, roads.best, self.search),
            ("polish2", BY_SEARCH, roads.nearer, self.search),
            ("polish3", BY_SEARCH, roads.nearer, self.search),
        )
        for group in (near, far):
            for phase, road, starts_of, finish in group:
                targets, starts = starts_of(self._open(tried, proved), tried)
                if len(targets):
                    tried = tried.more(
                        road, targets, *self._climb(phase, targets, starts, finish, store, report)
                    )
            if group is near and self.bounds != "none" and len(maps := self._open(tried, proved)):
                # A harder proof costs less than the long search that it may save.
                limits = foreseen.result() if foreseen else None
                proved = store(
                    "proof", functools.partial(self._proof, maps, proved, limits, report)
                )
        return self._assemble(answer, tried, proved)

    def _bounds(self, report: Progress) -> dict[str, np.ndarray]:
        """What is proved of the chosen maps."""
        names, chosen = ("score", "node", "dead", "method"), np.array(self.indices)
        if self.bounds == "none":
            nothing, count = np.full(len(chosen), np.nan), len(chosen)
            return dict(
                zip(
                    names,
                    (nothing, nothing, np.zeros(count, bool), np.full(count, "")),
                    strict=True,
                )
            )
        try:
            proved = certify(
                self.model, self.layer, self.image_space.domain, level=self.bounds, progress=report
            )
        except ValueError as error:
            raise ValueError(f"{error}; without bounds (none) the search goes on") from None
        return {name: getattr(proved, name)[chosen] for name in names}

    def _foresee(self, responded: np.ndarray, proving: Future) -> Limits | None:
        """What a harder proof will start from, made beside the ascent where it is quick and may be needed."""
        open_maps = (responded == 0) & ~proving.result()["dead"]
        if (
            self.floor is None
            or not open_maps.any()
            or not isinstance(self.image_space.domain, Sphere)
        ):
            return None
        return refinement_limits(self.model, self.layer, self.image_space.domain)

    def _compile(self) -> None:
        """Compile what climbs, ahead of its first use."""
        prepare(
            self.model, Map(self.layer), space=self.image_space, method=self.method, reports=REPORTS,
            criterion=self.criterion, stop=self.stop, precision=self.precision, tile=self.tile,
        )  # fmt: skip

    def _survey(self, store: Store, report: Progress) -> dict[str, np.ndarray]:
        """What the chosen maps answered to all draws, part by part."""
        names, chosen, parts = (
            ("start_index", "response", "scores", "responded"),
            np.array(self.indices),
            [],
        )
        for number, first in enumerate(range(0, self.draws, PART_DRAWS)):
            draws = min(PART_DRAWS, self.draws - first)

            def compute(first=first, draws=draws) -> dict[str, np.ndarray]:
                found: Survey = survey(
                    self.key,
                    self.model,
                    self.layer,
                    space=self.space,
                    first=first,
                    draws=draws,
                    keep=min(self.keep, draws),
                    tile=self.tile,
                    progress=lambda done, total: report("survey", first + done, self.draws),
                )
                return {name: getattr(found, name)[chosen] for name in names}

            parts.append(store(f"survey-{number:05d}", compute))
            report("survey", first + draws, self.draws)
        return best_of(parts, self.keep)

    def _climb(
        self,
        phase: str,
        targets: np.ndarray,
        starts: np.ndarray,
        finish: int,
        store: Store,
        report: Progress,
    ) -> tuple[Ascent, Images]:
        """All ascents of a phase: short ones first, then the ``finish`` best of each map on from where they are."""
        if not self.screen:
            return collect(
                self._parts(phase, targets, starts, self.steps, store, report),
                targets,
                self._images(1),
            )
        short = self._parts(phase, targets, starts, self.screen, store, report)
        runs, images = collect(short, targets, self._images(finish))
        rank = rank_of(runs)
        best = [
            best_first(np.flatnonzero(targets == number), rank, finish)
            for number in np.unique(targets)
        ]
        place = np.concatenate(best)
        z = (
            np.stack([images[number] for number in place])
            if accepts_images(self.image_space)
            else starts[place]
        )
        long = self._parts(f"{phase}-on", targets[place], z, self.steps, store, report)
        further, better = collect(long, targets[place], self._images(1))
        for number, there in enumerate(place):
            if number in better and further.responses[number] > runs.responses[there]:
                images[there] = better[number]
        return continued(runs, place, further), images

    def _images(self, finish: int) -> int | None:
        """Of how many runs of a map the images are needed; None: of all."""
        return None if self.keep_images is None else max(self.keep_images, self.search, finish)

    def _parts(
        self, phase: str, targets, starts, steps: int, store: Store, report: Progress
    ) -> Iterator[Ascent]:
        size = PART_TILES * checked_tile(self.tile)
        for number, first in enumerate(range(0, len(targets), size)):
            some = slice(first, first + size)

            def compute(some=some, first=first) -> dict[str, np.ndarray]:
                part = ascend(
                    self.key,
                    self.model,
                    Map(self.layer),
                    targets[some],
                    starts[some],
                    space=self.space,
                    method=self.method,
                    steps=steps,
                    reports=REPORTS,
                    criterion=self.criterion,
                    stop=self.stop,
                    precision=self.precision,
                    tile=self.tile,
                    progress=lambda done, total: report(phase, first + done, len(targets)),
                )
                return part._asdict()

            part = Ascent(**store(f"{phase}-{number:05d}", compute))
            report(phase, min(first + size, len(targets)), len(targets))
            yield part

    def _open(self, tried: Tried, proved: dict[str, np.ndarray]) -> np.ndarray:
        """Indices of the maps that are neither proved dead nor lifted above the floor by one of their runs."""
        if self.floor is None:
            return np.zeros(0, int)
        lifted = tried.owner[(tried.runs.scores > self.floor) & (tried.runs.status != INACTIVE)]
        return np.setdiff1d(np.array(self.indices)[~proved["dead"]], lifted)

    def _proof(
        self,
        maps: np.ndarray,
        proved: dict[str, np.ndarray],
        limits: Limits | None,
        report: Progress,
    ) -> dict[str, np.ndarray]:
        """What is proved, once more has been tried for some maps."""
        found = refine(
            self.model, self.layer, self.image_space.domain, maps, limits=limits, progress=report
        )
        out = {name: np.array(value) for name, value in proved.items()}
        place = np.searchsorted(self.indices, maps, sorter=(order := np.argsort(self.indices)))
        place = order[place]
        better = found.score < out["score"][place]
        out["method"] = np.array(out["method"], object)
        out["method"][place[better]] = found.method[better]
        out["method"] = out["method"].astype(str)
        out["score"][place] = np.fmin(found.score, out["score"][place])
        out["node"][place] = np.fmin(found.node, out["node"][place])
        out["dead"][place] |= found.dead
        return out

    def _contradicted(
        self, found: np.ndarray, scores: np.ndarray, silent: np.ndarray, responses, proved
    ) -> np.ndarray:
        """Indices of the maps of which an image does what was proved impossible."""
        wrong = (
            (found & proved["dead"])
            | (scores > proved["score"])
            | (silent & (responses > proved["node"]))
        )
        return np.array(self.indices)[wrong]

    def _assemble(
        self, answer: dict[str, np.ndarray], tried: Tried, proved: dict[str, np.ndarray]
    ) -> Atlas:
        """The best ``keep`` runs of each map, from the survey's starts and the further ones."""
        keep, runs, owner = self.keep, tried.runs, tried.owner
        rank = rank_of(runs)
        chosen = np.stack(
            [best_first(np.flatnonzero(owner == number), rank, keep) for number in self.indices]
        )
        first = chosen[:, 0]
        floor = -np.inf if self.floor is None else self.floor
        found = np.isfinite(runs.scores[first]) & (runs.scores[first] > floor)
        silent = (runs.status[first] == INACTIVE) & self.method.climbs_pre_activation
        wrong = self._contradicted(found, runs.scores[first], silent, runs.responses[first], proved)
        if len(wrong):
            raise RuntimeError(
                f"a proof is contradicted by an image, for {self.layer} of {self.model.name}, maps "
                f"{', '.join(map(str, wrong))}: please report this"
            )
        by_survey = np.where(runs.start_scores[first] > floor, BY_SURVEY, BY_PRE_ACTIVATION)
        found_by = np.where(tried.origin[first] < 0, tried.road[first], by_survey)
        further = np.array(
            [np.sum((owner == number) & (tried.origin < 0)) for number in self.indices], np.int64
        )
        return Atlas(
            model=self.model.name,
            layer=self.layer,
            maps=np.array(self.indices, np.int32),
            status=np.where(found, FOUND, np.where(proved["dead"], DEAD, UNRESOLVED)).astype(
                np.uint8
            ),
            run_status=runs.status[chosen],
            images=np.stack(
                [
                    [tried.images[number] for number in best]
                    for best in chosen[:, : self.keep_images]
                ]
            ),
            scores=runs.scores[chosen],
            responses=runs.responses[chosen],
            start_index=tried.origin[chosen].astype(np.int64),
            start_scores=runs.start_scores[chosen],
            trace=runs.trace[chosen],
            trace_steps=runs.trace_steps,
            bound=proved["score"],
            node_bound=proved["node"],
            bound_by=proved["method"],
            responded_fraction=answer["responded"] / self.draws,
            draws_seen=self.draws + further,
            gradient_evaluations=np.array(
                [runs.evaluations[owner == number].sum() for number in self.indices], np.int64
            ),
            found_by=np.where(found, found_by, ""),
        )


def atlas(
    key: Array, model: Model, layer: str = "", *, progress: Progress | None = None, **options: Any
) -> Atlas:
    """Find the patterns of every map of a layer: survey, ascent from the best starts, and further starts for what is unresolved.

    Args:
        key: the root key; the same key gives the same atlas.
        model: the network.
        layer: the layer's name; the network's `default_layer` unless given.
        progress: called with (phase, done, in all).
        **options: the other attributes of `Study`: ``maps, space, draws, keep, method, steps,
            screen, finish, keep_images, restarts, search, exemplars, criterion, stop, precision,
            tile, bounds``.

    Raises:
        ValueError: something does not fit the network, or is out of range.
    """
    return Study(key, model, layer, **options).run(progress=progress)
