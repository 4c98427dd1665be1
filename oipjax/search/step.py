"""One ascent, written for one image; `oipjax.search.ascent` vmaps it once, at the edge.

An ascent is `init` and `step`; the state holds the score and the gradient *at its own image*, so
nothing is off by one, and the best image so far, which is what is returned. The optimiser's state
belongs to the run. What is recorded is decided inside the loop.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from oipjax.model import Network
from oipjax.objectives import Objective, PreActivation
from oipjax.runtime import cast, products
from oipjax.search.methods import Method
from oipjax.spaces import Space

STATUS = {
    0: "ran all its steps",
    1: "converged: the relative change of the score fell below the criterion",
    2: "silent: the map never rose above its floor",
    3: "not finite: a score or gradient became NaN or infinite; the best image before that is kept",
}
"""What a run's status code says."""
COMPLETED, CONVERGED, INACTIVE, NOT_FINITE = STATUS


@dataclass(frozen=True)
class Problem:
    """All that a compiled program depends on; equal problems share one.

    Attributes:
        network: of the `Model`.
        objective: what to climb.
        pre_activation: when the target is silent, and how to wake it (if the method does); None if
            it cannot be silent.
        space: the image space.
        method: how to climb.
        criterion: relative change of the score per step below which a run counts as converged.
        images: whether images are recorded too.
        precision: of the products of its steps, see `tiles.PRECISIONS`. What is returned is
            evaluated in float32.
    """

    network: Network
    objective: Objective
    pre_activation: PreActivation | None
    space: Space
    method: Method
    criterion: float
    images: bool
    precision: str = "float32"

    @property
    def exact(self) -> bool:
        """Whether steps are as exact as what is returned."""
        return self.precision == "float32"


class Point(NamedTuple):
    """An image, and what was found there: everything belongs to the same ``z``."""

    z: Array
    score: Array
    response: Array
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


def begin(problem: Problem, z: Array) -> State:
    """A run at its start ``z``, with nothing evaluated yet; its next step evaluates it there."""
    optimizer = problem.method.direction().init(z)
    nothing, zero = jnp.full((), jnp.nan), jnp.zeros((), jnp.int32)
    here = Point(z, nothing, nothing, jnp.zeros_like(z))
    no = jnp.array(False)
    return State(
        here, optimizer, jnp.ones(()), nothing, here, zero - 1, zero, zero - 1, no, jnp.zeros(())
    )


def init(problem: Problem, params, z: Array, target) -> State:
    """The state of one run at its start ``z``, which is projected first."""
    return step(problem, params, target, 1, begin(problem, z))


def step(problem: Problem, params, target, updates, state: State) -> State:
    """One update: along the gradient the state holds, projected, and everything evaluated at the new image.

    How long the step is depends on what share of ``updates`` is done. A run that has only begun
    stays where it is: there is one evaluation in the program, which takes long to compile.
    """
    method, space, number = problem.method, problem.space, state.step + 1
    first = state.step < 0
    direction = method.direction()
    gradient = (
        space.tangent(state.here.z, state.here.gradient) if method.tangent else state.here.gradient
    )
    along: Any
    along, optimizer = direction.update(gradient, state.optimizer, state.here.z)
    share = jnp.maximum(state.step, 0) / jnp.maximum(updates, 1)
    size = method.step_size()(share.astype(jnp.float32)) * state.shrink
    moved = state.here.z + space.scale * size * along
    z = space.project(jnp.where(first, state.here.z, moved))
    optimizer = _choose(first, state.optimizer, optimizer)
    score, response, gradient = _evaluate(problem, params, z, target)
    failed = ~_finite(score, gradient)
    here = Point(z, score, response, gradient)
    best = _choose(first | (~failed & (response > state.best.response)), here, state.best)
    scale = jnp.where(first, jnp.maximum(-response, 0), state.scale)
    shrink, lost = state.shrink, jnp.array(False)
    if (backtracking := method.backtracking()) is not None:
        tolerance, factor = backtracking
        # Of a silent map relative to where it began: as it nears its floor, its response goes
        # through zero.
        size = jnp.where(best.response < 0, jnp.maximum(scale, -best.response), best.response)
        lost = response < best.response - tolerance * size
        here = _choose(lost, best, here)
        optimizer = _choose(lost, direction.init(z), optimizer)
        shrink = jnp.where(lost, factor * shrink, shrink)
    change = jnp.where(first, here.score, here.score - state.here.score)
    awake = problem.pre_activation is None or here.score > problem.pre_activation.floor
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
    with products(problem.precision):
        value = functools.partial(_value, problem, params, target, precision=problem.precision)
        (response, score), gradient = jax.value_and_grad(value, has_aux=True)(z)
    return score, response, gradient


def _value(
    problem: Problem, params, target, z: Array, precision: str = "float32"
) -> tuple[Array, Array]:
    """What is climbed at ``z``, and the score there."""
    image = problem.space.render(z)
    short_params, short_image = cast((params, image), precision)
    activations, place = _activations(problem, short_params, short_image, target)
    if precision == "bf16":
        activations = jax.tree.map(lambda a: a.astype(jnp.float32), activations)
    score = problem.objective(activations, image, place)
    wake = problem.pre_activation if problem.method.climbs_pre_activation else None
    return (wake(activations, image, place) if wake else score), score


def _activations(problem: Problem, params, image: Array, target) -> tuple[Any, Any]:
    """What the objective needs of one image, and where in it the target is."""
    layer = problem.objective.channel_layer
    if layer is None:
        place = target
        activations = problem.network(params, image[None])
    else:
        place = jnp.zeros_like(target)
        activations = problem.network.channel(params, image[None], layer, target)
    return {name: a[0] for name, a in activations.items()}, place


def _finite(score, gradient):
    return jnp.isfinite(score) & jnp.all(jnp.isfinite(gradient))


class Recorded(NamedTuple):
    """A run and what was recorded of it: scores and changes ``[t]``, images ``[t, h, w, c]`` or ``[t, 0]``.

    ``start`` is where it began, if that is to be evaluated again; else ``[0]``.
    """

    state: State
    trace: Array
    changes: Array
    images: Array
    start: Array


def run(problem: Problem, params, reports: Array, z: Array, target) -> tuple[Array, ...]:
    """One whole ascent; the loop between two reports is compiled once and runs as long as it must."""

    def advance(state: State, report):
        climb = functools.partial(step, problem, params, target, reports[-1])
        state = jax.lax.while_loop(lambda state: state.step < report, climb, state)
        return state, (state.here.score, state.change, _image(problem, state))

    state, recorded = jax.lax.scan(advance, begin(problem, z), reports)
    return result(problem, params, target, Recorded(state, *recorded, _start(problem, z)))


def blank(problem: Problem, reports: Array, z: Array) -> Recorded:
    """A run at its start ``z``, with nothing recorded yet."""
    state, nothing = begin(problem, z), jnp.full(reports.shape, jnp.nan)
    images = jnp.zeros((len(reports), *_image(problem, state).shape), jnp.float32)
    return Recorded(state, nothing, nothing, images, _start(problem, z))


def advance(problem: Problem, params, reports: Array, target, run: Recorded) -> Recorded:
    """One step of a run that may end early, recorded; one that has ended stays as it is."""
    state = step(problem, params, target, reports[-1], run.state)
    # What is recorded later is written again: so the last value stays where a run ends early.
    later, image = reports >= state.step, _image(problem, state)
    there = Recorded(
        state,
        jnp.where(later, state.here.score, run.trace),
        jnp.where(later, state.change, run.changes),
        jnp.where(later.reshape(-1, *[1] * image.ndim), image, run.images),
        run.start,
    )
    return _choose(going(reports, run), there, run)


def going(reports: Array, run: Recorded) -> Array:
    """Whether a run that may end early has steps to make."""
    return (run.state.step < reports[-1]) & ~((run.state.converged >= 0) | run.state.failed)


def result(problem: Problem, params, target, run: Recorded) -> tuple[Array, ...]:
    """What `oipjax.search.ascent.Ascent` holds of a run, in its order, without ``trace_steps``."""
    state, start = run.state, run.trace[0]
    if not problem.exact:
        state, start = _again(problem, params, target, run)
    floor = -jnp.inf if problem.pre_activation is None else problem.pre_activation.floor
    status = jnp.where(state.converged >= 0, CONVERGED, COMPLETED)
    status = jnp.where(state.best.score > floor, status, INACTIVE)
    status = jnp.where(state.failed, NOT_FINITE, status).astype(jnp.uint8)
    return (
        problem.space.render(state.best.z), state.best.score, start, state.best.response, status,
        state.evaluations, state.converged, run.trace, run.changes, run.images,
    )  # fmt: skip


def _again(problem: Problem, params, target, run: Recorded) -> tuple[State, Array]:
    """A run whose best point, or its start where that is better, is evaluated in float32; and the start's score."""
    first, best = run.state.best._replace(z=problem.space.project(run.start)), run.state.best
    with products():
        points = []
        for point in (first, best):
            response, score = _value(problem, params, target, point.z)
            points.append(point._replace(score=score, response=response))
    first, best = points
    return run.state._replace(
        best=_choose(~(best.response >= first.response), first, best)
    ), first.score


def _start(problem: Problem, z: Array) -> Array:
    return jnp.zeros(0, jnp.float32) if problem.exact else z


def _image(problem: Problem, state: State) -> Array:
    return problem.space.render(state.here.z) if problem.images else jnp.zeros(0, jnp.float32)
