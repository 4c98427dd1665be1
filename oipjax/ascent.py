"""The engine: gradient ascent of many runs, each a pair (target, start), in one compiled, batched loop.

Everything is written for one image and vmapped once, at the edge (`_run_tile`). An ascent is `init` and `step`; the
state holds the score and the gradient *at its own image*, so nothing is off by one, and the best image so far, which is
what is returned. The optimiser's state belongs to the run. What is recorded is decided inside the loop.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax import keys
from oipjax.images import Space, checked_space, space_shapes
from oipjax.methods import Method, Momentum
from oipjax.model import Model
from oipjax.objectives import Objective, Waking
from oipjax.survey import Progress, Starts, checked_index
from oipjax.tiles import OPTIONS, Program, checked_tile, in_flight, padded

STATUS = {
    0: "ran all its steps",
    1: "converged: the relative change of the score fell below the criterion",
    2: "silent: the map never rose above its floor",
    3: "not finite: a score or gradient became NaN or infinite; the best image before that is kept",
}
"""What a run's status code says."""
COMPLETED, CONVERGED, SILENT, NOT_FINITE = STATUS


@dataclass(frozen=True)
class Problem:
    """All that a compiled program depends on; equal problems share one.

    Attributes:
        apply: of the `Model`.
        objective: what to climb.
        waking: when the target is silent, and how to wake it (if the method does); None if it cannot be silent.
        space: the image space.
        method: how to climb.
        criterion: relative change of the score per step below which a run counts as converged.
        stop: whether a converged run stops.
        images: whether images are recorded too.
    """

    apply: Any
    objective: Objective
    waking: Waking | None
    space: Space
    method: Method
    criterion: float
    stop: bool
    images: bool


class Point(NamedTuple):
    """An image, and what was found there: everything belongs to the same ``z``."""

    z: Array
    score: Array
    reaction: Array
    gradient: Array


class State(NamedTuple):
    """One run: where it is, what it remembers, and the best point so far."""

    here: Point
    optimizer: optax.OptState
    shrink: Array
    change: Array
    best: Point
    step: Array
    evaluations: Array
    converged: Array
    failed: Array
    scale: Array


class Ascent(NamedTuple):
    """What came out of ``n`` runs.

    Attributes:
        images: float32 ``[n, h, w, c]``, the best image of each run, as network input.
        scores: float32 ``[n]``, its score; never below ``start_scores``.
        start_scores: float32 ``[n]``, the score of the start.
        reactions: float32 ``[n]``, the score or, where a map is silent, its largest value before the nonlinearity.
        status: uint8 ``[n]``, see `STATUS`.
        evaluations: int32 ``[n]``, gradients computed.
        converged: int32 ``[n]``, the first step that met the criterion; -1 if none did.
        trace_steps: int32 ``[t]``, the recorded steps; after an early stop the last value repeats.
        trace: float32 ``[n, t]``, the scores there.
        changes: float32 ``[n, t]``, the change of the score by the last update there (the score itself at step 0).
        trace_images: float32 ``[n, t, h, w, c]``, the images there; ``[n, t, 0]`` unless asked for.
    """

    images: np.ndarray
    scores: np.ndarray
    start_scores: np.ndarray
    reactions: np.ndarray
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
    tile: int | None = None,
    progress: Progress | None = None,
) -> Ascent:
    """Climb ``objective`` from each start towards its target, all runs in batches of one size.

    Args:
        key: the root key. Starts given by number are made from it, as the survey made them.
        model: the network.
        objective: what to climb, e.g. ``Map("conv3")``.
        targets: what the objective takes, one for each run, e.g. map indices ``[n]``; None if it takes none.
        starts: integers ``[n]``, numbers of the survey's starts; or floats, a ``z`` of the space for each run (it is
            projected first).
        space: the image space; `images.Standardised` unless given.
        method: how to climb; `methods.Momentum` unless given.
        steps: number of scores, and so of gradients, per run; ``steps - 1`` updates.
        reports: the score is recorded at 0, at the last step, and at so many steps in between, doubling.
        criterion: relative change per step below which a run counts as converged.
        stop: end a run that has converged.
        record_images: keep the image at every report.
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
    better = further.reactions > first.reactions[place]
    facts = {name: np.array(getattr(first, name)) for name in ("images", "scores", "reactions", "status", "converged")}
    for name in ("images", "scores", "reactions"):
        facts[name][place[better]] = getattr(further, name)[better]
    # A failure in either half is one; else the second half, which begins at the best image, says how it ended.
    facts["status"][place] = np.where(first.status[place] == NOT_FINITE, NOT_FINITE, further.status)
    later = np.where(further.converged >= 0, first.trace_steps[-1] + 1 + further.converged, -1)
    facts["converged"][place] = np.where(first.converged[place] >= 0, first.converged[place], later)
    evaluations = np.array(first.evaluations)
    evaluations[place] += further.evaluations
    longer = {}
    for name in ("trace", "changes", "trace_images"):
        there, new = getattr(first, name), getattr(further, name)
        rest = np.repeat(there[:, -1:], len(further.trace_steps), axis=1) if there.shape[1] else there
        rest[place] = new
        longer[name] = np.concatenate([there, rest], axis=1)
    return first._replace(
        **facts, **longer, evaluations=evaluations, trace_steps=np.concatenate([first.trace_steps, steps])
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
    tile: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Ascent]:
    """As `ascend`, but yields each finished tile; who called stores or shows it."""
    keys.check(key)
    space = checked_space(model, space)
    method = Momentum() if method is None else method
    tile = checked_tile(tile)
    recorded = check_plan(steps, reports, criterion)
    targets = objective.check(model, targets)
    starts = np.asarray(starts)
    if not starts.size:
        raise ValueError("no starts given")
    shape = space_shapes(space)[0]
    wanted = ", ".join(map(str, shape))
    numbered = np.issubdtype(starts.dtype, np.integer) and starts.ndim == 1
    if not numbered and (starts.shape[1:] != shape or not np.issubdtype(starts.dtype, np.floating)):
        raise ValueError(f"starts are integers [n] or floats [n, {wanted}], got {starts.dtype}{list(starts.shape)}")
    if numbered:
        starts = checked_index(starts)
    else:
        images = jax.vmap(lambda z: space.render(space.project(z)))(starts.astype(np.float32))
        outside = np.flatnonzero(~space.domain.contains(np.asarray(images)))
        if outside.size:
            raise ValueError(f"start {outside[0]} cannot be made an image of {type(space).__name__} (is it constant?)")
    lengths = {len(leaf) for leaf in jax.tree.leaves(targets)} | {len(starts)}
    if len(lengths) > 1:
        raise ValueError(f"one target per start: got {len(starts)} starts and targets of length {sorted(lengths)}")
    problem = Problem(
        model.apply,
        objective,
        Waking.of(objective, model),
        space,
        method,
        criterion,
        stop,
        record_images,
    )
    like = jax.tree.map(lambda array: jax.ShapeDtypeStruct((tile, *array.shape[1:]), array.dtype), targets)
    # How long, and when to record, is data: ascents of any length share a program.
    plan = np.array(recorded + recorded[-1:] * (min(reports, 62) + 2 - len(recorded)), np.int32)
    z_like = jax.ShapeDtypeStruct((tile, *shape), np.float32)
    climb = Program(_run_tile, (problem,), (model.params,), (plan, z_like, like))
    start, stream = Starts(space, tile) if numbered else None, keys.stream(key, keys.SURVEY)
    starts = starts.astype(np.uint32 if numbered else np.float32)

    def work(number: int, first: int) -> tuple[np.ndarray, ...]:
        some = slice(first, first + tile)
        z = starts[some] if start is None else start.array(number, stream, starts[some])
        z = padded(z, tile)
        out = climb(number, plan, z, jax.tree.map(lambda array: padded(array[some], tile), targets))
        *facts, trace, changes, images = (np.asarray(leaf)[: len(starts[some])] for leaf in out)
        return (*facts, *(leaf[:, : len(recorded)] for leaf in (trace, changes, images)))

    firsts = range(0, len(starts), tile)
    for first, out in zip(firsts, in_flight(work, firsts), strict=True):
        yield Ascent._make((*out[:7], np.asarray(recorded, np.int32), *out[7:]))
        if progress is not None:
            progress(min(first + tile, len(starts)), len(starts))


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


# --- one image --------------------------------------------------------------------------------------------------------


def begin(problem: Problem, z: Array) -> State:
    """A run at its start ``z``, with nothing evaluated yet; its next step evaluates it there."""
    optimizer = problem.method.direction().init(z)
    nothing, zero = jnp.full((), jnp.nan), jnp.zeros((), jnp.int32)
    here = Point(z, nothing, nothing, jnp.zeros_like(z))
    no = jnp.array(False)
    return State(here, optimizer, jnp.ones(()), nothing, here, zero - 1, zero, zero - 1, no, jnp.zeros(()))


def init(problem: Problem, params, z: Array, target) -> State:
    """The state of one run at its start ``z``, which is projected first."""
    return step(problem, params, target, 1, begin(problem, z))


def step(problem: Problem, params, target, updates, state: State) -> State:
    """One update: along the gradient the state holds, projected, and everything evaluated at the new image.

    How long the step is depends on what share of ``updates`` is done. A run that has only begun stays where it is:
    there is one evaluation in the program, which takes long to compile.
    """
    method, space, number = problem.method, problem.space, state.step + 1
    first = state.step < 0
    direction = method.direction()
    gradient = space.tangent(state.here.z, state.here.gradient) if method.tangent else state.here.gradient
    along: Any
    along, optimizer = direction.update(gradient, state.optimizer, state.here.z)
    share = jnp.maximum(state.step, 0) / jnp.maximum(updates, 1)
    size = method.step_size()(share.astype(jnp.float32)) * state.shrink
    moved = state.here.z + space.scale * size * along
    z = space.project(jnp.where(first, state.here.z, moved))
    optimizer = _choose(first, state.optimizer, optimizer)
    score, reaction, gradient = _evaluate(problem, params, z, target)
    failed = ~_finite(score, gradient)
    here = Point(z, score, reaction, gradient)
    best = _choose(first | (~failed & (reaction > state.best.reaction)), here, state.best)
    scale = jnp.where(first, jnp.maximum(-reaction, 0), state.scale)
    shrink, lost = state.shrink, jnp.array(False)
    if (backtracking := method.backtracking()) is not None:
        tolerance, factor = backtracking
        # Of a silent map relative to where it began: as it nears its floor, its reaction goes through zero.
        size = jnp.where(best.reaction < 0, jnp.maximum(scale, -best.reaction), best.reaction)
        lost = reaction < best.reaction - tolerance * size
        here = _choose(lost, best, here)
        optimizer = _choose(lost, direction.init(z), optimizer)
        shrink = jnp.where(lost, factor * shrink, shrink)
    change = jnp.where(first, here.score, here.score - state.here.score)
    awake = problem.waking is None or here.score > problem.waking.floor
    # A run that was sent back has not moved, which is not to have converged.
    meets = awake & ~first & ~lost & (jnp.abs(change) < problem.criterion * jnp.abs(here.score))
    memory = (
        optimizer, shrink, change, best, number, state.evaluations + 1,
        jnp.where((state.converged < 0) & meets, number, state.converged), state.failed | failed, scale,
    )  # fmt: skip
    return State._make((here, *memory))


def _choose(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _evaluate(problem: Problem, params, z: Array, target) -> tuple[Array, Array, Array]:
    def value(z):
        image = problem.space.render(z)
        activations = {name: a[0] for name, a in problem.apply(params, image[None]).items()}
        score = problem.objective(activations, image, target)
        wake = problem.waking if problem.method.wakes else None
        return (wake(activations, image, target) if wake else score), score

    (reaction, score), gradient = jax.value_and_grad(value, has_aux=True)(z)
    return score, reaction, gradient


def _finite(score, gradient):
    return jnp.isfinite(score) & jnp.all(jnp.isfinite(gradient))


def run(problem: Problem, params, reports: Array, z: Array, target):
    """One whole ascent; the loop between two reports is compiled once and runs as long as it must."""

    def advance(state: State, report):
        def go_on(state):
            # Without early stop the answer is the same for all runs of a tile, and the loop costs nothing extra.
            return (
                (state.step < report) & ~((state.converged >= 0) | state.failed)
                if problem.stop
                else state.step < report
            )

        state = jax.lax.while_loop(go_on, functools.partial(step, problem, params, target, reports[-1]), state)
        image = problem.space.render(state.here.z) if problem.images else jnp.zeros(0, jnp.float32)
        return state, (state.here.score, state.change, image)

    state, (trace, changes, images) = jax.lax.scan(advance, begin(problem, z), reports)
    floor = -jnp.inf if problem.waking is None else problem.waking.floor
    status = jnp.where(state.converged >= 0, CONVERGED, COMPLETED)
    status = jnp.where(state.best.score > floor, status, SILENT)
    status = jnp.where(state.failed, NOT_FINITE, status).astype(jnp.uint8)
    best = problem.space.render(state.best.z)
    return (
        best, state.best.score, trace[0], state.best.reaction, status, state.evaluations, state.converged,
        trace, changes, images,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _run_tile(problem: Problem, params, reports, z, targets):
    return jax.vmap(functools.partial(run, problem, params, reports))(z, targets)
