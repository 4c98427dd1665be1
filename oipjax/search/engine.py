"""The engine: many runs through one compiled, batched loop.

All runs go through one compiled program in batches of one size, the tile. A run that has ended
makes room for one that waits, so tiles stay full where runs may end early. A run has the same
results whichever runs share its tile, and whenever it came in.
"""

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.model import Params
from oipjax.runtime import OPTIONS, Program, padded, workers
from oipjax.search.results import RUN_FIELDS, Ascent
from oipjax.search.step import Problem, Run, State, advance, begin_run, has_steps, result, select
from oipjax.spaces import space_shapes

CHUNK = 8
"""Steps between two looks at which runs have ended, where runs may end early."""
AHEAD = 8
"""Tiles for each worker that may be computed before the first of them is fetched."""

StartsOf = Callable[[int, np.ndarray], np.ndarray]
"""``starts_of(worker, numbers [m])``: the starts ``z [m, ...]`` of the runs of these numbers."""
Finished = tuple[np.ndarray, Ascent]
"""Numbers ``[m]`` of runs that have ended, and their results."""


@dataclass(frozen=True)
class Job:
    """Runs to be made.

    Attributes:
        starts_of: gives the starts of runs by their numbers.
        targets: arrays ``[n, ...]``, the targets of all runs.
        count: the number of runs ``n``.
        recorded_steps: the steps that are recorded; the last one ends each run.
    """

    starts_of: StartsOf
    targets: Any
    count: int
    recorded_steps: tuple[int, ...]


class Engine:
    """The compiled program of a problem. It serves runs of any length and any number.

    Args:
        problem: the problem.
        params: the network's parameters.
        targets: targets, or anything of their structure, shapes and types.
        most_reports: the largest number of recorded steps.
        tile: the batch size.
    """

    def __init__(
        self, problem: Problem, params: Params, targets: Any, most_reports: int, tile: int
    ):
        self.problem = problem
        self.most_reports = most_reports
        self.tile = tile
        self.idle = idle_tile(problem, most_reports, tile)
        target_tile = jax.tree.map(functools.partial(_like_tile, tile), targets)
        like = (
            np.zeros(most_reports, np.int32),
            np.int32(0),
            self.idle,
            np.zeros(tile, bool),
            self._no_starts(),
            target_tile,
        )
        self.program = Program(advance_tile, (problem,), (params,), like)

    def run(self, job: Job) -> Iterator[Ascent]:
        """The results of all runs in their order, a tile at a time."""
        waiting = _Waiting(job.count, self.tile)
        finished: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()

        def watched(worker: int) -> None:
            try:
                self._work(worker, job, waiting, finished)
            except BaseException as error:  # noqa: BLE001
                # It is raised again in the caller's thread.
                finished.put(error)

        tiles = _Tiles(job.count, self.tile)
        with ThreadPoolExecutor(workers()) as pool:
            try:
                for worker in range(workers()):
                    pool.submit(watched, worker)
                for number in range(tiles.count):
                    while not tiles.is_complete(number):
                        item = finished.get()
                        if isinstance(item, BaseException):
                            raise item
                        tiles.add(*item)
                    waiting.allow(number + 1)
                    yield tiles.pop(number)
            finally:
                waiting.close()

    def _work(
        self,
        worker: int,
        job: Job,
        waiting: "_Waiting",
        finished: "queue.SimpleQueue[Finished | BaseException]",
    ) -> None:
        """Make runs until none waits.

        A tile has slots. ``numbers [tile]`` says which run each of them holds.
        """
        reports = self._reports(job)
        runs = self.idle
        starts = self._no_starts()
        numbers = np.zeros(self.tile, int)
        is_busy = np.zeros(self.tile, bool)
        most_steps = np.int32(CHUNK if self.problem.stop else reports[-1] + 1)
        while not waiting.is_closed:
            is_new = np.zeros(self.tile, bool)
            free = np.flatnonzero(~is_busy)
            new = waiting.take(len(free), wait=not is_busy.any())
            if len(new):
                # Slots that stay free repeat the last run; nothing looks at them.
                numbers[free] = padded(new, len(free))
                starts[free] = padded(job.starts_of(worker, new), len(free))
                is_new[free] = True
                is_busy[free[: len(new)]] = True
            if not is_busy.any():
                return
            targets = jax.tree.map(lambda array: array[numbers], job.targets)
            runs, is_active, results = self.program(
                worker, reports, most_steps, runs, is_new, starts, targets
            )
            ended = np.flatnonzero(is_busy & ~np.asarray(is_active))
            if len(ended):
                finished.put((numbers[ended], _some_runs(results, ended, job.recorded_steps)))
                is_busy[ended] = False

    def _reports(self, job: Job) -> np.ndarray:
        """The recorded steps, int32 ``[most_reports]``, filled up with the last one."""
        return padded(np.asarray(job.recorded_steps, np.int32), self.most_reports)

    def _no_starts(self) -> np.ndarray:
        """Zeros in the shape of a tile of starts."""
        shape = space_shapes(self.problem.space)[0]
        return np.zeros((self.tile, *shape), np.float32)


def _like_tile(tile: int, array: np.ndarray) -> jax.ShapeDtypeStruct:
    """The shape and type of a tile of entries of ``array [n, ...]``."""
    return jax.ShapeDtypeStruct((tile, *array.shape[1:]), array.dtype)


class _Waiting:
    """The numbers of the runs that wait; workers take them in order, from any thread.

    Workers that are far ahead of the fetched results must wait, so results do not pile up.
    """

    def __init__(self, count: int, tile: int):
        self.is_closed = False
        self._changed = threading.Condition()
        self._count = count
        self._tile = tile
        self._next = 0
        self._limit = 0
        self.allow(0)

    def allow(self, fetched: int) -> None:
        """Set how many tiles of results have been fetched."""
        with self._changed:
            self._limit = min(self._count, (fetched + AHEAD * workers()) * self._tile)
            self._changed.notify_all()

    def close(self) -> None:
        """Give out no more numbers."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def take(self, most: int, *, wait: bool) -> np.ndarray:
        """At most ``most`` numbers; none if none may be given out now and there is no ``wait``."""
        with self._changed:
            if wait:
                self._changed.wait_for(self._is_settled)
            if self.is_closed:
                return np.zeros(0, int)
            numbers = np.arange(self._next, min(self._next + most, self._limit))
            self._next += len(numbers)
            return numbers

    def _is_settled(self) -> bool:
        return self.is_closed or self._next < self._limit or self._next == self._count


class _Tiles:
    """Results of runs, put back in their order."""

    def __init__(self, count: int, tile: int):
        self.count = -(-count // tile)
        self._tile = tile
        self._missing = np.full(self.count, tile)
        self._missing[-1] = count - (self.count - 1) * tile
        self._sizes = self._missing.copy()
        self._results: dict[int, Ascent] = {}

    def add(self, numbers: np.ndarray, results: Ascent) -> None:
        """Take in the results of runs ``numbers [m]``."""
        tile_of = numbers // self._tile
        for number in np.unique(tile_of).tolist():
            chosen = np.flatnonzero(tile_of == number)
            if number not in self._results:
                self._results[number] = _empty(results, int(self._sizes[number]))
            place = numbers[chosen] % self._tile
            for name in RUN_FIELDS:
                getattr(self._results[number], name)[place] = getattr(results, name)[chosen]
            self._missing[number] -= len(chosen)

    def is_complete(self, number: int) -> bool:
        """Whether all results of a tile are there."""
        return self._missing[number] == 0

    def pop(self, number: int) -> Ascent:
        """The results of a complete tile, which are forgotten here."""
        return self._results.pop(number)


def _empty(like: Ascent, count: int) -> Ascent:
    """Results of ``count`` runs, not filled in yet, with the shapes and steps of ``like``."""
    arrays = {}
    for name in RUN_FIELDS:
        array = getattr(like, name)
        arrays[name] = np.empty((count, *array.shape[1:]), array.dtype)
    return like._replace(**arrays)


def _some_runs(results: Ascent, index: np.ndarray, recorded_steps: tuple[int, ...]) -> Ascent:
    """Some runs ``index [m]`` of a tile, as arrays of numpy, with recorded steps only."""
    arrays = {name: np.asarray(getattr(results, name))[index] for name in RUN_FIELDS}
    for name in ("trace", "changes", "trace_images"):
        arrays[name] = arrays[name][:, : len(recorded_steps)]
    return Ascent(**arrays, trace_steps=np.asarray(recorded_steps, np.int32))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def idle_tile(problem: Problem, most_reports: int, tile: int) -> Run:
    """A tile of runs at zero, to be replaced by others before their first step."""
    shape = space_shapes(problem.space)[0]
    z = jnp.zeros((tile, *shape))
    reports = jnp.zeros(most_reports, jnp.int32)
    begin_one = functools.partial(begin_run, problem, reports)
    return jax.vmap(begin_one, out_axes=run_axes(problem))(z)


def run_axes(problem: Problem) -> Run:
    """The axis of the runs in each array of a tile of runs.

    Without ``stop`` all runs of a tile begin and end together. Their step is then one scalar, from
    which the length of the step follows once for all of them.
    """
    state: dict[str, Any] = dict.fromkeys(State._fields, 0)
    if not problem.stop:
        state["step"] = None
    run: dict[str, Any] = dict.fromkeys(Run._fields, 0)
    run["state"] = State(**state)
    return Run(**run)


def result_axes() -> Ascent:
    """The axis of the runs in each array of their results; the recorded steps have none."""
    axes: dict[str, Any] = dict.fromkeys(Ascent._fields, 0)
    axes["trace_steps"] = None
    return Ascent(**axes)


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def advance_tile(problem: Problem, params, reports, most_steps, runs: Run, is_new, starts, targets):
    """Several steps of a tile of runs, until ``most_steps`` are made or all runs have ended.

    Args:
        problem: the problem.
        params: the network's parameters.
        reports: int32 ``[t]``, the recorded steps; the last one ends each run.
        most_steps: int32 scalar.
        runs: the runs ``[tile]``.
        is_new: bool ``[tile]``, which of them are to be replaced by new runs; all without ``stop``.
        starts: float32 ``[tile, ...]``, where new runs begin.
        targets: ``[tile, ...]``, the targets.

    Returns:
        The runs, whether each has steps to make (bool ``[tile]``), and their results so far.
    """
    axes = run_axes(problem)
    begin_one = functools.partial(begin_run, problem, reports)
    advance_one = functools.partial(advance, problem, params, reports)
    has_steps_one = functools.partial(has_steps, problem, reports)
    result_of_one = functools.partial(result, problem, params, reports)
    begin_all = jax.vmap(begin_one, out_axes=axes)
    advance_all = jax.vmap(advance_one, in_axes=(0, axes), out_axes=axes)
    have_steps = jax.vmap(has_steps_one, in_axes=(axes,))
    results_of = jax.vmap(result_of_one, in_axes=(0, axes), out_axes=result_axes())

    def is_unfinished(carry: tuple[Any, Run]) -> Any:
        number, runs = carry
        return (number < most_steps) & jnp.any(have_steps(runs))

    def advanced(carry: tuple[Any, Run]) -> tuple[Any, Run]:
        number, runs = carry
        return number + 1, advance_all(targets, runs)

    new_runs = begin_all(starts)
    runs = jax.vmap(select)(is_new, new_runs, runs) if problem.stop else new_runs
    first = jnp.zeros((), jnp.int32)
    _, runs = jax.lax.while_loop(is_unfinished, advanced, (first, runs))
    return runs, have_steps(runs), results_of(targets, runs)
