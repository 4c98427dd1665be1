"""One run, written for one image; `oipjax.search.engine` vmaps it once, at the edge.

A run is `begin` and `step`. Its state holds the score and the gradient *at its own image*, so
nothing is off by one, and the best image so far, which is returned. The optimiser's state belongs
to the run. `begin_run` and `advance` do the same and record scores on the way.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from oipjax.model import Activations, Network, Params
from oipjax.objectives import Objective, PreActivation
from oipjax.runtime import cast, products
from oipjax.search.methods import Method
from oipjax.search.results import COMPLETED, CONVERGED, INACTIVE, NOT_FINITE, Ascent
from oipjax.spaces import Space


@dataclass(frozen=True)
class Problem:
    """Everything that a compiled program depends on; equal problems share one program.

    Attributes:
        network: computes activations of images ``[n, h, w, c]``.
        objective: the score of one image ``[h, w, c]`` and one target.
        pre_activation: the response of a target below its floor; None if the target has no floor.
        space: the image space; one point of it is ``z``.
        method: the rule of the steps.
        criterion: relative change of the score per step below which a run counts as converged.
        record_images: whether the images at the reports are recorded too.
        precision: of the products of the steps, see `oipjax.runtime.PRECISIONS`. Returned scores
            are evaluated in float32.
        stop: whether a run ends once it has converged or failed.
    """

    network: Network
    objective: Objective
    pre_activation: PreActivation | None
    space: Space
    method: Method
    criterion: float
    record_images: bool
    precision: str = "float32"
    stop: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether steps are as exact as the returned scores."""
        return self.precision == "float32"

    @property
    def floor(self) -> float:
        """The smallest possible score; minus infinity if there is no floor."""
        return -jnp.inf if self.pre_activation is None else self.pre_activation.floor


class Point(NamedTuple):
    """A point of the image space and its values.

    Attributes:
        z: float32 ``[...]``, in the shape of the space.
        score: float32 scalar, the objective.
        response: float32 scalar, the value that is climbed: the score or, where the map is
            inactive and the method climbs it, the largest pre-activation.
        gradient: float32 ``[...]``, of the response by ``z``.
    """

    z: Array
    score: Array
    response: Array
    gradient: Array


class State(NamedTuple):
    """The state of one run.

    Attributes:
        current: the point where the run is.
        optimizer: the state of the method's direction.
        shrink: float32 scalar, the factor on the length of all further steps.
        change: float32 scalar, the change of the score by the last step.
        best: the point of the largest response so far.
        step: int32 scalar, the number of updates so far; -1 before the start is evaluated.
        evaluations: int32 scalar, the number of gradients so far.
        converged: int32 scalar, the first step that met the criterion; -1 before.
        failed: bool scalar, whether a score or gradient was not finite.
        scale: float32 scalar, how far below zero the response of the start was.
    """

    current: Point
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
    """The state of a run before its start ``z`` is evaluated; the first `step` evaluates it."""
    zero = jnp.zeros((), jnp.int32)
    unknown = jnp.full((), jnp.nan)
    no_gradient = jnp.zeros_like(z)
    start = Point(z=z, score=unknown, response=unknown, gradient=no_gradient)
    return State(
        current=start,
        optimizer=problem.method.direction().init(z),
        shrink=jnp.ones(()),
        change=unknown,
        best=start,
        step=zero - 1,
        evaluations=zero,
        converged=zero - 1,
        failed=jnp.array(False),
        scale=jnp.zeros(()),
    )


def step(problem: Problem, params: Params, target: Any, updates: Any, state: State) -> State:
    """One update along the gradient of the current point, and the evaluation of the new point.

    The first step of a run projects and evaluates its start without moving it. So the program has
    one evaluation, which takes long to compile.

    Args:
        problem: the problem.
        params: the network's parameters.
        target: the target of this run.
        updates: the number of updates of a whole run; the length of a step depends on the share of
            them that is done.
        state: the state of the run.
    """
    number = state.step + 1
    is_first = state.step < 0
    z, optimizer = _moved(problem, updates, state)
    z = problem.space.project(jnp.where(is_first, state.current.z, z))
    evaluated = evaluate(problem, params, z, target)

    is_finite = jnp.isfinite(evaluated.score) & jnp.all(jnp.isfinite(evaluated.gradient))
    is_better = is_finite & (evaluated.response > state.best.response)
    moved = state._replace(
        current=evaluated,
        optimizer=select(is_first, state.optimizer, optimizer),
        best=select(is_first | is_better, evaluated, state.best),
        scale=jnp.where(is_first, jnp.maximum(-evaluated.response, 0), state.scale),
    )
    after, has_returned = _backtracked(problem.method, moved)

    score = after.current.score
    change = jnp.where(is_first, score, score - state.current.score)
    is_active = problem.pre_activation is None or score > problem.pre_activation.floor
    # A run that returned to its best point has not moved, which is not convergence.
    may_converge = is_active & ~is_first & ~has_returned
    has_converged = may_converge & (jnp.abs(change) < problem.criterion * jnp.abs(score))
    is_new = (state.converged < 0) & has_converged
    return after._replace(
        change=change,
        step=number,
        evaluations=state.evaluations + 1,
        converged=jnp.where(is_new, number, state.converged),
        failed=state.failed | ~is_finite,
    )


def _moved(problem: Problem, updates: Any, state: State) -> tuple[Array, optax.OptState]:
    """The next ``z`` of a run, not yet projected, and the state of its optimiser."""
    method = problem.method
    current = state.current
    gradient: Any = current.gradient
    if method.tangent:
        gradient = problem.space.tangent(current.z, current.gradient)
    direction: Any
    direction, optimizer = method.direction().update(gradient, state.optimizer, current.z)
    share_done = jnp.maximum(state.step, 0) / jnp.maximum(updates, 1)
    size = method.step_size()(share_done.astype(jnp.float32)) * state.shrink
    return current.z + problem.space.scale * size * direction, optimizer


def _backtracked(method: Method, state: State) -> tuple[State, Array]:
    """A run that lost too much of its response is sent back to its best point.

    Returns:
        The state, and whether the run was sent back.
    """
    backtracking = method.backtracking()
    if backtracking is None:
        return state, jnp.array(False)
    tolerance, factor = backtracking
    best = state.best
    # The response of an inactive map goes through zero as it nears the floor. Its loss is therefore
    # measured relative to the response of the start.
    size_below_zero = jnp.maximum(state.scale, -best.response)
    size = jnp.where(best.response < 0, size_below_zero, best.response)
    has_lost = state.current.response < best.response - tolerance * size
    fresh_optimizer = method.direction().init(state.current.z)
    returned = state._replace(
        current=select(has_lost, best, state.current),
        optimizer=select(has_lost, fresh_optimizer, state.optimizer),
        shrink=jnp.where(has_lost, factor * state.shrink, state.shrink),
    )
    return returned, has_lost


def select(condition: Array, if_true: Any, if_false: Any) -> Any:
    """One of two equal structures of arrays, by a scalar condition."""
    return jax.tree.map(lambda yes, no: jnp.where(condition, yes, no), if_true, if_false)


def evaluate(problem: Problem, params: Params, z: Array, target: Any) -> Point:
    """The point ``z`` with its values, by products of the problem's precision."""

    def value(z: Array) -> tuple[Array, Array]:
        return _values(problem, params, target, z, problem.precision)

    with products(problem.precision):
        (response, score), gradient = jax.value_and_grad(value, has_aux=True)(z)
    return Point(z=z, score=score, response=response, gradient=gradient)


def _values(
    problem: Problem, params: Params, target: Any, z: Array, precision: str
) -> tuple[Array, Array]:
    """The value that is climbed at ``z``, and the score there."""
    image = problem.space.render(z)
    short_params, short_image = cast((params, image), precision)
    activations, target = _activations(problem, short_params, short_image, target)
    if precision == "bf16":
        activations = jax.tree.map(lambda a: a.astype(jnp.float32), activations)
    score = problem.objective(activations, image, target)
    if problem.pre_activation is None or not problem.method.climbs_pre_activation:
        return score, score
    return problem.pre_activation(activations, image, target), score


def _activations(
    problem: Problem, params: Params, image: Array, target: Any
) -> tuple[Activations, Any]:
    """The activations of one image that the objective needs, and the target's index in them."""
    layer = problem.objective.channel_layer
    if layer is None:
        activations = problem.network(params, image[None])
    else:
        activations = problem.network.channel(params, image[None], layer, target)
        target = jnp.zeros_like(target)
    of_one_image = {name: a[0] for name, a in activations.items()}
    return of_one_image, target


class Run(NamedTuple):
    """One run and its records at ``t`` reports.

    Attributes:
        state: the state.
        trace: float32 ``[t]``, the scores.
        changes: float32 ``[t]``, the changes of the score by the last update.
        trace_z: float32 ``[t, ...]``, the points; ``[t, 0]`` if images are not recorded.
        start: float32 ``[...]``, the start, if it is to be evaluated again; else ``[0]``.
    """

    state: State
    trace: Array
    changes: Array
    trace_z: Array
    start: Array


def begin_run(problem: Problem, reports: Array, z: Array) -> Run:
    """A run at its start ``z``, with nothing recorded yet.

    Args:
        problem: the problem.
        reports: int32 ``[t]``, the steps that are recorded; the last one ends the run.
        z: the start.
    """
    state = begin(problem, z)
    nothing = jnp.full(reports.shape, jnp.nan)
    recorded_z = _recorded_z(problem, state)
    return Run(
        state=state,
        trace=nothing,
        changes=nothing,
        trace_z=jnp.zeros((*reports.shape, *recorded_z.shape), jnp.float32),
        start=jnp.zeros(0, jnp.float32) if problem.is_exact else z,
    )


def advance(problem: Problem, params: Params, reports: Array, target: Any, run: Run) -> Run:
    """One recorded step of a run; with ``stop`` a run that has ended stays as it is."""
    state = step(problem, params, target, reports[-1], run.state)
    # Later reports are written too, and written again when their step comes. So the last value
    # repeats where a run ends early.
    is_due = reports >= state.step
    z = _recorded_z(problem, state)
    is_due_z = is_due.reshape(-1, *[1] * z.ndim)
    advanced = run._replace(
        state=state,
        trace=jnp.where(is_due, state.current.score, run.trace),
        changes=jnp.where(is_due, state.change, run.changes),
        trace_z=jnp.where(is_due_z, z, run.trace_z),
    )
    if not problem.stop:
        return advanced
    return select(has_steps(problem, reports, run), advanced, run)


def has_steps(problem: Problem, reports: Array, run: Run) -> Array:
    """Whether a run has steps to make, a bool scalar."""
    remains = run.state.step < reports[-1]
    if not problem.stop:
        return remains
    has_ended = (run.state.converged >= 0) | run.state.failed
    return remains & ~has_ended


def _recorded_z(problem: Problem, state: State) -> Array:
    return state.current.z if problem.record_images else jnp.zeros(0, jnp.float32)


def result(problem: Problem, params: Params, reports: Array, target: Any, run: Run) -> Ascent:
    """The results of one run: an `Ascent` whose arrays lack the axis ``n``."""
    best = run.state.best
    start_score = run.trace[0]
    if not problem.is_exact:
        best, start_score = _evaluated_again(problem, params, target, run)
    status = jnp.where(run.state.converged >= 0, CONVERGED, COMPLETED)
    status = jnp.where(best.score > problem.floor, status, INACTIVE)
    status = jnp.where(run.state.failed, NOT_FINITE, status)
    render = problem.space.render
    trace_images = jax.vmap(render)(run.trace_z) if problem.record_images else run.trace_z
    arrays: dict[str, Any] = {
        "images": render(best.z),
        "scores": best.score,
        "start_scores": start_score,
        "responses": best.response,
        "status": status.astype(jnp.uint8),
        "evaluations": run.state.evaluations,
        "converged": run.state.converged,
        "trace_steps": reports,
        "trace": run.trace,
        "changes": run.changes,
        "trace_images": trace_images,
    }
    return Ascent(**arrays)


def _evaluated_again(
    problem: Problem, params: Params, target: Any, run: Run
) -> tuple[Point, Array]:
    """The best point of a run in float32, or its start where that is better; the start's score."""
    evaluate_exactly = functools.partial(_values, problem, params, target, precision="float32")
    start = run.state.best._replace(z=problem.space.project(run.start))
    best = run.state.best
    with products():
        response, score = evaluate_exactly(start.z)
        start = start._replace(response=response, score=score)
        response, score = evaluate_exactly(best.z)
        best = best._replace(response=response, score=score)
    is_best = best.response >= start.response
    return select(~is_best, start, best), start.score
