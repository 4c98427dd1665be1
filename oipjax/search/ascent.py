"""The engine: gradient ascent of many runs, each a pair (target, start), in one compiled, batched loop.

A run is written for one image in `oipjax.search.step` and vmapped here, at the edge. All runs go
through one compiled program in batches of one size, the tile. With early stop a run that has ended
makes room for one that waits: tiles stay full.
"""

import functools
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax import keys
from oipjax.model import Model
from oipjax.objectives import Objective
from oipjax.runtime import (
    OPTIONS,
    Program,
    checked_precision,
    checked_tile,
    in_flight,
    padded,
    products,
    tiles,
    workers,
)
from oipjax.search import step as climb
from oipjax.search.methods import Method, Momentum
from oipjax.search.precursor import Progress, Starts, checked_index
from oipjax.search.step import COMPLETED, CONVERGED, INACTIVE, NOT_FINITE, STATUS, Problem
from oipjax.spaces import Space, checked_space, space_shapes

__all__ = [
    "COMPLETED",
    "CONVERGED",
    "INACTIVE",
    "NOT_FINITE",
    "STATUS",
    "Ascent",
    "ascend",
    "ascend_tiles",
    "check_plan",
    "concatenate",
    "continued",
    "prepare",
    "report_steps",
]  # fmt: skip

CHUNK = 8
"""Steps of runs that may end early between two looks at which of them have."""


class Ascent(NamedTuple):
    """What came out of ``n`` runs.

    Attributes:
        images: float32 ``[n, h, w, c]``, the best image of each run, as network input.
        scores: float32 ``[n]``, its score; never below ``start_scores``.
        start_scores: float32 ``[n]``, the score of the start.
        responses: float32 ``[n]``, the score or, where a map is silent, its largest value before
            the nonlinearity.
        status: uint8 ``[n]``, see `STATUS`.
        evaluations: int32 ``[n]``, gradients computed.
        converged: int32 ``[n]``, the first step that met the criterion; -1 if none did.
        trace_steps: int32 ``[t]``, the recorded steps; after an early stop the last value repeats.
        trace: float32 ``[n, t]``, the scores there.
        changes: float32 ``[n, t]``, the change of the score by the last update there (the score
            itself at step 0).
        trace_images: float32 ``[n, t, h, w, c]``, the images there; ``[n, t, 0]`` unless asked for.
    """

    images: np.ndarray
    scores: np.ndarray
    start_scores: np.ndarray
    responses: np.ndarray
    status: np.ndarray
    evaluations: np.ndarray
    converged: np.ndarray
    trace_steps: np.ndarray
    trace: np.ndarray
    changes: np.ndarray
    trace_images: np.ndarray


def ascend(
    key: Array,
    model: Model,
    objective: Objective,
    targets: Any,
    starts: Any,
    *,
    space: Space | None = None,
    method: Method | None = None,
    steps: int = 100,
    reports: int = 6,
    criterion: float = 2e-4,
    stop: bool = False,
    record_images: bool = False,
    precision: str = "float32",
    tile: int | None = None,
    progress: Progress | None = None,
) -> Ascent:
    """Climb ``objective`` from each start towards its target, all runs in batches of one size.

    Args:
        key: the root key. Starts given by number are made from it, as the survey made them.
        model: the network.
        objective: what to climb, e.g. ``Map("conv3")``.
        targets: what the objective takes, one for each run, e.g. map indices ``[n]``; None if it
            takes none.
        starts: integers ``[n]``, numbers of the survey's starts; or floats, a ``z`` of the space
            for each run (it is projected first).
        space: the image space; `images.Standardised` unless given.
        method: how to climb; `methods.Momentum` unless given.
        steps: number of scores, and so of gradients, per run; ``steps - 1`` updates.
        reports: the score is recorded at 0, at the last step, and at so many steps in between,
            doubling.
        criterion: relative change per step below which a run counts as converged.
        stop: end a run that has converged.
        record_images: keep the image at every report.
        precision: of the steps' products on a GPU, see `tiles.PRECISIONS`: ``float32``, or ``tf32``
            and ``bf16``, which are faster. Scores and responses, and so whether a run is silent,
            are those of float32 in any case; the trace, and when a run converged, are what the
            steps saw.
        tile: batch size of the compiled program; see `tiles.default_tile`.
        progress: called after each tile with (runs done, runs).

    Raises:
        ValueError: a layer, target or shape does not fit the network, or a number is out of range.
    """
    return concatenate(
        ascend_tiles(
            key,
            model,
            objective,
            targets,
            starts,
            space=space,
            method=method,
            steps=steps,
            reports=reports,
            criterion=criterion,
            stop=stop,
            record_images=record_images,
            precision=precision,
            tile=tile,
            progress=progress,
        ),
        np.shape(starts)[0] if np.ndim(starts) else 0,
    )


def concatenate(parts: Iterable[Ascent], count: int) -> Ascent:
    """Ascents of several groups of runs, ``count`` in all, as one; each part is let go as soon as it is copied."""
    joined: dict[str, np.ndarray] = {}
    place = 0
    for part in parts:
        for name, array in part._asdict().items():
            if name == "trace_steps":
                joined[name] = array
                continue
            whole = joined.setdefault(name, np.empty((count, *array.shape[1:]), array.dtype))
            whole[place : place + len(array)] = array
        place += len(part.scores)
    if place != count:
        raise ValueError(f"expected {count} runs, got {place}")
    return Ascent(**joined)


def continued(first: Ascent, place: np.ndarray, further: Ascent) -> Ascent:
    """Runs of which those at ``place [m]`` were climbed on from their best images; the records are joined.

    Of the others the last recorded values repeat.
    """
    steps = first.trace_steps[-1] + 1 + further.trace_steps
    better = further.responses > first.responses[place]
    facts = {
        name: np.array(getattr(first, name))
        for name in ("images", "scores", "responses", "status", "converged")
    }
    for name in ("images", "scores", "responses"):
        facts[name][place[better]] = getattr(further, name)[better]
    # A failure in either half is one; else the second half, which begins at the best image, says
    # how it ended.
    facts["status"][place] = np.where(first.status[place] == NOT_FINITE, NOT_FINITE, further.status)
    later = np.where(further.converged >= 0, first.trace_steps[-1] + 1 + further.converged, -1)
    facts["converged"][place] = np.where(first.converged[place] >= 0, first.converged[place], later)
    evaluations = np.array(first.evaluations)
    evaluations[place] += further.evaluations
    longer = {}
    for name in ("trace", "changes", "trace_images"):
        there, new = getattr(first, name), getattr(further, name)
        rest = (
            np.repeat(there[:, -1:], len(further.trace_steps), axis=1) if there.shape[1] else there
        )
        rest[place] = new
        longer[name] = np.concatenate([there, rest], axis=1)
    return first._replace(
        **facts,
        **longer,
        evaluations=evaluations,
        trace_steps=np.concatenate([first.trace_steps, steps]),
    )


def ascend_tiles(
    key: Array,
    model: Model,
    objective: Objective,
    targets: Any,
    starts: Any,
    *,
    space: Space | None = None,
    method: Method | None = None,
    steps: int = 100,
    reports: int = 6,
    criterion: float = 2e-4,
    stop: bool = False,
    record_images: bool = False,
    precision: str = "float32",
    tile: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Ascent]:
    """As `ascend`, but yields each finished tile; who called stores or shows it."""
    keys.check(key)
    space = checked_space(model, space)
    method = Momentum() if method is None else method
    tile = checked_tile(tile)
    precision = checked_precision(precision)
    recorded = check_plan(steps, reports, criterion)
    targets = objective.check(model, targets)
    starts = np.asarray(starts)
    if not starts.size:
        raise ValueError("no starts given")
    shape = space_shapes(space)[0]
    wanted = ", ".join(map(str, shape))
    numbered = np.issubdtype(starts.dtype, np.integer) and starts.ndim == 1
    if not numbered and (starts.shape[1:] != shape or not np.issubdtype(starts.dtype, np.floating)):
        raise ValueError(
            f"starts are integers [n] or floats [n, {wanted}], got {starts.dtype}{list(starts.shape)}"
        )
    if numbered:
        starts = checked_index(starts)
    else:
        outside = np.flatnonzero(~space.domain.contains(images_of(space, starts, tile=tile)))
        if outside.size:
            raise ValueError(
                f"start {outside[0]} cannot be made an image of {type(space).__name__} (is it constant?)"
            )
    lengths = {len(leaf) for leaf in jax.tree.leaves(targets)} | {len(starts)}
    if len(lengths) > 1:
        raise ValueError(
            f"one target per start: got {len(starts)} starts and targets of length {sorted(lengths)}"
        )
    problem = Problem(
        model.network,
        objective,
        objective.pre_activation(model),
        space,
        method,
        criterion,
        record_images,
        precision,
    )
    # How long, and when to record, is data: ascents of any length share a program.
    plan = np.array(recorded + recorded[-1:] * (_reports(reports) - len(recorded)), np.int32)
    program = _program(problem, model, targets, reports, tile, stop)
    start, stream = Starts(space, tile) if numbered else None, keys.stream(key, keys.SURVEY)
    starts = starts.astype(np.uint32 if numbered else np.float32)

    def start_of(number: int, some: Any) -> np.ndarray:
        return starts[some] if start is None else start.array(number, stream, starts[some])

    def work(number: int, first: int) -> list[np.ndarray]:
        some = slice(first, first + tile)
        z = padded(start_of(number, some), tile)
        out = program(
            number, plan, z, jax.tree.map(lambda array: padded(array[some], tile), targets)
        )
        return [np.asarray(leaf)[: len(starts[some])] for leaf in out]

    firsts = range(0, len(starts), tile)
    if stop:
        done = _refilled(
            program, _nothing(problem, plan, tile), plan, targets, start_of, len(starts), tile
        )
    else:
        done = in_flight(work, firsts)
    for first, out in zip(firsts, done, strict=True):
        recordings = (leaf[:, : len(recorded)] for leaf in out[7:])
        yield Ascent._make((*out[:7], np.asarray(recorded, np.int32), *recordings))
        if progress is not None:
            progress(min(first + tile, len(starts)), len(starts))


def _refilled(
    program: Program,
    runs: climb.Recorded,
    plan: np.ndarray,
    targets: Any,
    start_of: Callable,
    count: int,
    tile: int,
) -> Iterator[list[np.ndarray]]:
    """The results of ``count`` runs in tiles, in order; in the program a run that has ended makes room for another.

    What a run comes to does not depend on which others are in its tile, or on when it came in.
    """
    waiting, lock, over = iter(range(count)), threading.Lock(), threading.Event()
    ended: queue.SimpleQueue[tuple[int, list[np.ndarray]] | BaseException] = queue.SimpleQueue()

    def take(most: int) -> np.ndarray:
        with lock:
            return np.fromiter(itertools.islice(waiting, most), int)

    def work(worker: int) -> None:
        state, slots, z = runs, np.zeros(tile, int), np.zeros_like(runs.state.here.z)
        free = np.arange(tile)
        busy = np.zeros(tile, bool)
        while not over.is_set():
            new = take(len(free))
            fresh = np.isin(np.arange(tile), free[: len(new)])
            busy[free] = fresh[free]
            if len(new):
                slots[fresh] = new
                z[fresh] = start_of(worker, new)
            if not busy.any():
                return
            target = jax.tree.map(lambda array: array[slots], targets)
            state, going, out = program(worker, plan, state, fresh, z, target)
            free = np.flatnonzero(busy & ~np.asarray(going))
            if len(free):
                facts = [np.asarray(leaf) for leaf in out]
                for slot in free:
                    ended.put((int(slots[slot]), [leaf[slot] for leaf in facts]))

    def watched(worker: int) -> None:
        try:
            work(worker)
        except BaseException as error:  # noqa: BLE001  (it is raised again where the results are waited for)
            ended.put(error)

    found: dict[int, list[np.ndarray]] = {}
    with ThreadPoolExecutor(workers()) as pool:
        try:
            for worker in range(workers()):
                pool.submit(watched, worker)
            for first in range(0, count, tile):
                asked = range(first, min(first + tile, count))
                while not all(number in found for number in asked):
                    if isinstance(item := ended.get(), BaseException):
                        raise item
                    found[item[0]] = item[1]
                yield [
                    np.stack(leaves)
                    for leaves in zip(*(found.pop(number) for number in asked), strict=True)
                ]
        finally:
            over.set()


def _nothing(problem: Problem, plan: np.ndarray, tile: int) -> climb.Recorded:
    """A tile of runs that have not begun, all zeros."""
    z = jax.ShapeDtypeStruct((tile, *space_shapes(problem.space)[0]), np.float32)
    blank = jax.eval_shape(jax.vmap(lambda z: climb.blank(problem, jnp.asarray(plan), z)), z)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blank)


def prepare(
    model: Model,
    objective: Objective,
    *,
    space: Space | None = None,
    method: Method | None = None,
    reports: int = 6,
    criterion: float = 2e-4,
    stop: bool = False,
    record_images: bool = False,
    precision: str = "float32",
    tile: int | None = None,
) -> None:
    """Compile what `ascend` with the same arguments will run, so that it finds it done; e.g. from another thread.

    The objective must take a map's index as its target; the arguments are those of `ascend`.
    """
    space, method = checked_space(model, space), Momentum() if method is None else method
    pre_activation, target = (
        objective.pre_activation(model),
        objective.check(model, np.zeros(1, int)),
    )
    precision = checked_precision(precision)
    problem = Problem(
        model.network, objective, pre_activation, space, method, criterion, record_images, precision
    )
    _program(problem, model, target, reports, checked_tile(tile), stop)


def _program(
    problem: Problem, model: Model, targets: Any, reports: int, tile: int, stop: bool
) -> Program:
    like = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((tile, *array.shape[1:]), array.dtype), targets
    )
    z = jax.ShapeDtypeStruct((tile, *space_shapes(problem.space)[0]), np.float32)
    plan = np.zeros(_reports(reports), np.int32)
    if not stop:
        return Program(_run_tile, (problem,), (model.params,), (plan, z, like))
    runs, fresh = _nothing(problem, plan, tile), np.zeros(tile, bool)
    return Program(_advance_tile, (problem,), (model.params,), (plan, runs, fresh, z, like))


def _reports(reports: int) -> int:
    """The most reports that a plan with ``reports`` between the first and the last can have."""
    return min(reports, 62) + 2


def check_plan(steps: int, reports: int, criterion: float) -> tuple[int, ...]:
    """The recorded steps of an ascent; a ValueError if one of the numbers is out of range."""
    if not criterion >= 0:
        raise ValueError(f"criterion is a relative change, 0 or more, got {criterion}")
    return report_steps(steps, reports)


def report_steps(steps: int, reports: int) -> tuple[int, ...]:
    """The recorded steps: 0, ``steps - 1``, and ``max(1, steps // 2**reports) * 2**i`` in between.

    >>> report_steps(600, 6)
    (0, 9, 18, 36, 72, 144, 288, 599)
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if steps >= 2**31:
        raise ValueError(f"steps must be below 2**31, got {steps}")
    if reports < 0:
        raise ValueError(f"reports must not be negative, got {reports}")
    first = max(1, steps // 2 ** min(reports, 62))
    middle = [first * 2**i for i in range(min(reports, 62)) if first * 2**i < steps - 1]
    return tuple(sorted({0, *middle, steps - 1}))


def images_of(space: Space, z: np.ndarray, *, tile: int | None = None) -> np.ndarray:
    """The images that a space makes of ``z [n, ...]``, projected first: network inputs, float32 ``[n, h, w, c]``."""
    size = checked_tile(tile)
    with products():
        images = [
            _images(space, padded(some, size)) for some in tiles(np.asarray(z, np.float32), size)
        ]
    return np.concatenate(images)[: len(z)]


@functools.partial(jax.jit, static_argnums=0)
def _images(space: Space, z):
    return jax.vmap(lambda z: space.render(space.project(z)))(z)


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _run_tile(problem: Problem, params, reports, z, targets):
    return jax.vmap(functools.partial(climb.run, problem, params, reports))(z, targets)


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _advance_tile(problem: Problem, params, reports, runs, fresh, z, targets):
    """`CHUNK` steps of the runs in a tile; those that are ``fresh`` begin at ``z``."""

    def one(run, fresh, z, target):
        run = jax.tree.map(
            lambda new, old: jnp.where(fresh, new, old), climb.blank(problem, reports, z), run
        )
        return jax.lax.fori_loop(
            0, CHUNK, lambda _, run: climb.advance(problem, params, reports, target, run), run
        )

    runs = jax.vmap(one)(runs, fresh, z, targets)
    going = jax.vmap(functools.partial(climb.going, reports))(runs)
    return runs, going, jax.vmap(functools.partial(climb.result, problem, params))(targets, runs)
