"""The engine: known optima, the classic rule in numpy, and its own promises."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.objectives import Class, Direction, Map, Node, TotalVariation
from oipjax.runtime import PRECISIONS
from oipjax.search import (
    COMPLETED,
    CONVERGED,
    INACTIVE,
    NOT_FINITE,
    Ascent,
    AscentConfig,
    Classic,
    Momentum,
    ascend,
    ascend_tiles,
    make_starts,
    report_steps,
)
from oipjax.search.engine import Engine, Job
from oipjax.search.step import Problem, begin, begin_run, result, step
from oipjax.spaces import Box, space_for
from oipjax.study import plan_study

KEY = jax.random.key(11)
WEIGHTS = np.array([[0.5, -1.0, 2.0], [1.0, 1.0, -1.0]], np.float32)
CASES = {
    "Map": (Map("maps"), np.array([0, 2])),
    "Node": (Node("maps"), np.array([[0, 0, 0], [-1, -1, 2]])),
    "Direction": (Direction("logits"), WEIGHTS),
    "Class": (Class(), np.array([0, 2])),
    "sum": (2 * Map("maps") - 0.5 * Class(), (np.array([0, 2]), np.array([1, 1]))),
}
METHODS = {"classic": (Classic(), 600), "momentum": (Momentum(), 120)}


def best_possible(model: Model, objective, targets, space) -> np.ndarray:
    """The optimum of a score that is linear in the image, or a sum of squared distances."""
    optima = []
    for i in range(2):
        target = jax.tree.map(lambda t, i=i: jnp.asarray(t[i]), targets)

        def value(x, target=target):
            acts = {name: a[0] for name, a in model.apply(model.params, x[None]).items()}
            return objective(acts, x, target)

        zero = jnp.zeros(model.input_shape)
        offset, slope = float(value(zero)), np.asarray(jax.grad(value)(zero), np.float64)
        curvature = (
            float(value(jnp.ones(model.input_shape)) - value(zero) - slope.sum()) / slope.size
        )
        if isinstance(space, Box):
            low, high = (
                np.broadcast_to(np.asarray(end), slope.shape).astype(float)
                for end in (space.low, space.high)
            )
            ends = np.maximum(slope * low + curvature * low**2, slope * high + curvature * high**2)
            inner = np.clip(-slope / (2 * curvature), low, high) if curvature < -1e-9 else low
            optima.append(offset + np.maximum(ends, slope * inner + curvature * inner**2).sum())
        else:  # all images have the same length, so curvature is a constant
            centred = slope - slope.mean()
            optima.append(
                offset + np.linalg.norm(centred) * np.sqrt(slope.size) + curvature * slope.size
            )
    return np.array(optima)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("space", ["standardised", "box"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model_name", ["linear", "quadratic"])
def test_every_combination_reaches_the_known_optimum(request, model_name, case, space, method):
    model = request.getfixturevalue(model_name)
    objective, targets = CASES[case]
    if model_name == "quadratic" and case == "Node":
        targets = np.array([[0, 0, 0], [0, 0, 2]])
    elif case == "Node":
        targets = np.array([[0, 0, 0], [1, 1, 2]])
    chosen, (rule, steps) = space_for(model, space), METHODS[method]
    out = ascend(
        KEY,
        model,
        objective,
        targets,
        np.array([0, 1]),
        space=chosen,
        method=rule,
        steps=steps,
        tile=2,
    )
    optimum = best_possible(model, objective, targets, chosen)
    assert (out.scores <= optimum + 1e-3 * np.abs(optimum)).all()
    gained = (out.scores - out.start_scores) / (optimum - out.start_scores)
    assert (gained > (0.999 if method == "momentum" else 0.99)).all(), (gained, optimum)
    assert chosen.domain.contains(out.images).all()
    assert (out.scores >= out.start_scores).all()
    direction = out.trace[:, 1:] > out.trace[:, :1]
    assert direction[:, -1].all()


def reference_classic(model, layer, target, image, steps):
    """The classic rule as DESIGN.md words it, in numpy, one image."""

    def value(image):
        acts = model.apply(model.params, image[None])
        return acts[layer][0, ..., target].mean()

    grad = jax.jit(jax.value_and_grad(value))
    scores = []
    for number in range(steps):
        score, g = grad(jnp.asarray(image))
        scores.append(float(score))
        g = np.asarray(g)
        if number < steps - 1:
            image = image + np.float32(0.01) * g / (np.sqrt(np.mean(g**2)) + np.float32(1e-7))
            image = (image - image.mean()) / image.std()
    return np.array(scores), image


def test_classic_is_the_reference_rule(tiny):
    space = space_for(tiny)
    starts = make_starts(KEY, space, np.arange(3))
    maps = np.array([2, 3, 4])
    out = ascend(
        KEY,
        tiny,
        Map("conv2_pre"),
        maps,
        np.arange(3),
        space=space,
        method=Classic(),
        steps=60,
        reports=3,
        record_images=True,
    )
    assert out.trace_steps.tolist() == [0, 7, 14, 28, 59]
    for i in range(3):
        scores, image = reference_classic(tiny, "conv2_pre", maps[i], starts[i], 60)
        np.testing.assert_allclose(out.trace[i], scores[out.trace_steps], rtol=1e-3)
        np.testing.assert_allclose(
            out.changes[i, 1:], np.diff(scores)[out.trace_steps[1:] - 1], rtol=0.05, atol=1e-5
        )
        assert out.changes[i, 0] == out.trace[i, 0]
        np.testing.assert_allclose(out.trace_images[i, -1], image, atol=1e-2)
    assert (out.evaluations == 60).all()


def test_report_steps_double():
    assert report_steps(600, 6) == (0, 9, 18, 36, 72, 144, 288, 599)
    assert report_steps(30, 6) == (0, 1, 2, 4, 8, 16, 29)
    assert report_steps(1, 6) == (0,)
    assert report_steps(2, 0) == (0, 1)
    assert report_steps(5, 99) == (0, 1, 2, 4)


def test_images_give_their_scores_again(tiny):
    space = space_for(tiny, "box")
    out = ascend(
        KEY, tiny, Map("conv2"), np.array([2, 3, 4]), np.array([5, 6, 7]), space=space, steps=30
    )
    again = np.asarray(tiny.apply(tiny.params, out.images)["conv2"]).mean((1, 2))[
        np.arange(3), [2, 3, 4]
    ]
    np.testing.assert_allclose(again, out.scores, rtol=1e-5)
    starts = np.asarray(
        tiny.apply(tiny.params, make_starts(KEY, space, np.array([5, 6, 7])))["conv2"]
    )
    np.testing.assert_allclose(
        starts.mean((1, 2))[np.arange(3), [2, 3, 4]], out.start_scores, rtol=1e-5
    )


@pytest.mark.slow
def test_a_wide_network_is_climbed_by_nodes_and_sums_too():
    """So many channels are computed by minimal filtering; each run sends its own gradient back."""
    config = cnn.CNNConfig((14, 14, 1), (16, 16), 3, (1, 1), (), 3)
    model = cnn.model(cnn.init(jax.random.key(1), config), config)
    nodes, maps = np.array([[3, 3, 1], [4, 5, 6]]), np.array([1, 6])
    for objective, targets in (
        (Node("conv2_pre"), nodes),
        (2 * Map("conv2") + 0.1 * TotalVariation(), (maps,)),
    ):
        out = ascend(KEY, model, objective, targets, np.array([3, 4]), steps=5, tile=2)
        assert (out.scores > out.start_scores).all()
    out = ascend(KEY, model, Node("conv2_pre"), nodes, np.array([3, 4]), steps=5, tile=2)
    again = model.apply(model.params, out.images)["conv2_pre"]
    np.testing.assert_allclose(
        out.scores, [again[n, i, j, k] for n, (i, j, k) in enumerate(nodes)], rtol=1e-5
    )


def test_each_run_has_the_bits_it_has_alone(tiny):
    maps, starts = np.array([2, 3, 4, 5, 2, 3, 0]), np.arange(7)
    options = {"steps": 40, "tile": 4}
    together = ascend(KEY, tiny, Map("conv2"), maps, starts, **options)
    backwards = ascend(KEY, tiny, Map("conv2"), maps[::-1], starts[::-1], **options)
    for i in range(7):
        alone = ascend(KEY, tiny, Map("conv2"), maps[i : i + 1], starts[i : i + 1], **options)
        for name in ("images", "scores", "trace", "status", "converged", "evaluations"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[i])
            np.testing.assert_array_equal(
                getattr(backwards, name)[6 - i], getattr(together, name)[i]
            )


@dataclass(frozen=True)
class Counting:
    """An ``apply`` that counts how often it is traced."""

    apply: object
    traces: list = field(compare=False, hash=False)

    def __call__(self, params, x):
        self.traces.append(x.shape)
        return self.apply(params, x)  # pyright: ignore[reportCallIssue]


def test_one_trace_serves_all_maps_starts_and_parameters(tiny):
    counting = Counting(tiny.apply, [])
    model = replace(tiny, apply=counting)
    options = {"steps": 7, "tile": 4, "space": space_for(tiny)}
    ascend(KEY, model, Map("conv2"), np.array([0, 1]), np.array([0, 1]), **options)
    first = len([shape for shape in counting.traces if shape[0] == 1])
    for seed, maps in ((1, [2, 3, 4, 5, 0]), (2, [1])):
        halved = replace(model, params=jax.tree.map(lambda leaf: leaf / 2, tiny.params))
        ascend(
            jax.random.key(seed),
            halved,
            Map("conv2"),
            np.array(maps),
            np.arange(len(maps)),
            **options,
        )
    traced = [shape for shape in counting.traces if shape[0] == 1]
    assert len(traced) == first, traced


@dataclass(frozen=True)
class Plain:
    """A network that has no other way than to compute everything."""

    network: Any

    def __call__(self, params, x):
        return self.network(params, x)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv1", "pool1", "conv2_pre", "conv2", "logits"])
def test_a_map_alone_is_that_of_all_and_is_climbed_as_well(tiny, layer):
    maps, plain = np.arange(tiny.layer(layer).maps), replace(tiny, apply=Plain(tiny.apply))
    x = jax.random.normal(jax.random.key(0), (len(maps), *tiny.input_shape))
    every = plain.network.activations(tiny.params, x, (layer,))
    assert list(every) == [layer]
    np.testing.assert_allclose(
        tiny.network.activations(tiny.params, x, (layer,))[layer],
        every[layer],
        rtol=1e-5,
        atol=1e-6,
    )
    alone = jax.vmap(
        lambda x, number: tiny.network.channel(tiny.params, x[None], layer, number)[layer][0]
    )(x, maps)
    np.testing.assert_allclose(
        alone[..., 0], [every[layer][n, ..., n] for n in maps], rtol=1e-5, atol=1e-6
    )
    runs = [
        ascend(jax.random.key(1), model, Map(layer), maps, maps, steps=5) for model in (tiny, plain)
    ]
    for name in ("scores", "trace", "images"):
        np.testing.assert_allclose(
            getattr(runs[0], name), getattr(runs[1], name), rtol=1e-3, atol=1e-4
        )


def test_inactive_maps_are_climbed_by_their_pre_activation_and_dead_ones_stay_inactive(tiny):
    start = np.array([0, 0, 0])
    plain = ascend(KEY, tiny, Map("conv2"), np.array([0, 1, 3]), start, method=Classic(), steps=50)
    assert plain.start_scores[:2].tolist() == [0, 0] and plain.scores[:2].tolist() == [0, 0]
    assert plain.status[:2].tolist() == [INACTIVE, INACTIVE] and plain.status[2] != INACTIVE
    climbed = ascend(KEY, tiny, Map("conv2"), np.array([0, 1, 3]), start, steps=50)
    assert (
        climbed.status[0] == INACTIVE
        and climbed.scores[0] == 0
        and climbed.responses[0] == pytest.approx(-1)
    )
    assert climbed.start_scores[1] == 0 and climbed.scores[1] > 0 and climbed.status[1] != INACTIVE
    assert climbed.responses[1] == climbed.scores[1]


def test_an_inactive_node_is_climbed_by_its_pre_activation_too(tiny):
    nodes = np.array([[0, 0, 1], [0, 0, 0]])
    plain = ascend(KEY, tiny, Node("conv2"), nodes, np.array([0, 0]), method=Classic(), steps=50)
    assert plain.scores.tolist() == [0, 0] and plain.status.tolist() == [INACTIVE, INACTIVE]
    climbed = ascend(KEY, tiny, Node("conv2"), nodes, np.array([0, 0]), steps=50)
    assert climbed.scores[0] > 0 and climbed.scores[1] == 0 and climbed.status[1] == INACTIVE


@dataclass(frozen=True)
class Cliff:
    """Two maps: the mean pixel, which turns into NaN or infinity above 0.2, and its negative."""

    abyss: float

    def __call__(self, params, x):
        mean = jnp.mean(x, (1, 2, 3))
        return {"maps": jnp.stack([jnp.where(mean > 0.2, self.abyss, mean), -mean], 1)}


@pytest.mark.parametrize("abyss", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", [Classic(), Momentum(step=0.05)], ids=["classic", "momentum"])
def test_a_batch_survives_a_run_that_is_not_finite(method, abyss):
    model = Model("cliff", Cliff(abyss), {}, ("maps",), (4, 4, 1))
    space = Box((4, 4, 1), (-1.0,), (1.0,))
    starts = np.zeros((3, 4, 4, 1), np.float32)
    starts[2] = 0.9
    out = ascend(
        KEY, model, Map("maps"), np.array([0, 1, 0]), starts, space=space, method=method, steps=60
    )
    assert (
        out.status[0] == NOT_FINITE
        and out.status[1] in (COMPLETED, CONVERGED)
        and out.status[2] == NOT_FINITE
    )
    assert 0.15 < out.scores[0] <= 0.2 and np.isfinite(out.images[0]).all()
    assert out.scores[1] > 0.4
    assert not np.isfinite(out.scores[2]), "a start without a score has no best image"


@pytest.mark.parametrize("method", [Classic(), Momentum()], ids=["classic", "momentum"])
def test_early_stop_ends_converged_runs_and_changes_nothing_before(linear, method):
    options = {
        "space": space_for(linear),
        "method": method,
        "steps": 600,
        "criterion": 1e-3,
        "tile": 4,
    }
    targets, starts = np.array([0, 1, 2]), np.arange(3)
    full = ascend(KEY, linear, Map("maps"), targets, starts, **options)
    short = ascend(KEY, linear, Map("maps"), targets, starts, stop=True, **options)
    np.testing.assert_array_equal(full.converged, short.converged)
    assert (
        (full.converged > 0).all()
        and (full.status == CONVERGED).all()
        and (full.evaluations == 600).all()
    )
    np.testing.assert_array_equal(short.evaluations, short.converged + 1)
    for i in range(3):
        before = full.trace_steps <= full.converged[i]
        np.testing.assert_allclose(short.trace[i, before], full.trace[i, before], rtol=1e-4)
        after = short.trace[i, ~before]
        assert (after == after[-1]).all()
    assert (short.scores <= full.scores + 1e-3 * np.abs(full.scores)).all()


@pytest.mark.parametrize("method", [Classic(step=0.3), Momentum()], ids=["classic", "momentum"])
def test_a_run_that_ends_early_makes_room_for_another_and_changes_nothing(tiny, method):
    """More runs than a tile holds, of different lengths: each as it is alone, and in order."""
    options = {
        "method": method,
        "steps": 90,
        "criterion": 3e-3,
        "tile": 3,
        "stop": True,
        "record_images": True,
    }
    targets, starts = np.arange(11) % 4 + 2, np.arange(11)
    shown = []
    together = ascend(
        KEY,
        tiny,
        Map("conv2"),
        targets,
        starts,
        progress=lambda done, total: shown.append((done, total)),
        **options,
    )
    assert len(set(together.evaluations.tolist())) > 3, "runs should be of different lengths"
    assert shown == [(3, 11), (6, 11), (9, 11), (11, 11)]
    for i in range(11):
        alone = ascend(KEY, tiny, Map("conv2"), targets[i : i + 1], starts[i : i + 1], **options)
        for name in Ascent._fields:
            if name != "trace_steps":
                np.testing.assert_array_equal(
                    getattr(together, name)[i], getattr(alone, name)[0], err_msg=name
                )


@pytest.mark.parametrize("stop", [False, True])
def test_results_evaluated_again_are_the_same_where_steps_are_as_exact(tiny, monkeypatch, stop):
    """Steps of a "tf32" that is float32: each run must have the same results."""
    monkeypatch.setitem(PRECISIONS, "tf32", PRECISIONS["float32"])
    targets, starts = np.arange(11) % 4 + 2, np.arange(11)
    options = {"steps": 60, "criterion": 3e-3, "tile": 3, "stop": stop}
    exact = ascend(KEY, tiny, Map("conv2"), targets, starts, **options)
    if jax.default_backend() == "cpu":
        on_cpu = ascend(KEY, tiny, Map("conv2"), targets, starts, precision="tf32", **options)
        np.testing.assert_array_equal(on_cpu.scores, exact.scores)
    monkeypatch.setattr("oipjax.search.ascent.checked_precision", lambda precision: precision)
    again = ascend(KEY, tiny, Map("conv2"), targets, starts, precision="tf32", **options)
    for name in ("images", "trace", "status", "evaluations", "converged"):
        np.testing.assert_array_equal(getattr(again, name), getattr(exact, name), err_msg=name)
    for name in ("scores", "start_scores", "responses"):
        np.testing.assert_allclose(
            getattr(again, name), getattr(exact, name), 1e-5, 1e-6, err_msg=name
        )
    assert len(set(exact.start_scores.tolist())) > 5, "starts should be told apart"


def test_of_steps_in_16_bits_the_scores_are_those_of_float32(tiny, monkeypatch):
    targets, starts = np.arange(12) % 4 + 2, np.arange(12)
    exact = ascend(KEY, tiny, Map("conv2"), targets, starts, tile=4)
    monkeypatch.setattr("oipjax.search.ascent.checked_precision", lambda precision: precision)
    short = ascend(KEY, tiny, Map("conv2"), targets, starts, precision="bf16", tile=4)
    answers = np.asarray(tiny.apply(tiny.params, short.images)["conv2"]).mean((1, 2))[
        np.arange(12), targets
    ]
    np.testing.assert_allclose(short.scores, answers, 1e-5, 1e-6)
    assert (short.scores >= short.start_scores).all() and short.images.dtype == np.float32
    off = np.abs(short.trace[:, 0] - short.start_scores) / np.maximum(short.start_scores, 1)
    assert 1e-5 < off.max() < 0.05, "a trace is what the steps saw"
    found = exact.scores > 0
    np.testing.assert_allclose(np.median(short.scores[found] / exact.scores[found]), 1, atol=0.05)


def problem_of(model: Model, precision: str) -> Problem:
    """Runs for the maps of conv2 with the default method."""
    objective = Map("conv2")
    return Problem(
        network=model.network,
        objective=objective,
        pre_activation=objective.pre_activation(model),
        space=space_for(model),
        method=Momentum(),
        criterion=1e-3,
        record_images=False,
        precision=precision,
    )


@pytest.mark.slow
def test_the_result_is_never_below_the_start_even_if_steps_are_short(tiny):
    """A best point that is worse than the start, evaluated exactly, gives way to it."""
    problem = problem_of(tiny, "tf32")
    z = make_starts(KEY, space_for(tiny), np.arange(2))
    target, reports = jnp.asarray(3), jnp.arange(2)
    first = [step(problem, tiny.params, target, 1, begin(problem, jnp.asarray(one))) for one in z]
    scores = [float(state.current.response) for state in first]
    good, bad = np.argmax(scores), np.argmin(scores)
    best = first[bad].best._replace(response=jnp.asarray(1e9))
    run = begin_run(problem, reports, jnp.asarray(z[good]))
    run = run._replace(state=first[bad]._replace(best=best))
    out = result(problem, tiny.params, reports, target, run)
    np.testing.assert_allclose(out.images, z[good], atol=1e-6)
    assert float(out.responses) == pytest.approx(max(scores), rel=1e-5)
    assert float(out.start_scores) <= float(out.responses) + 1e-6


def test_options_are_those_of_the_config_and_the_changes(tiny):
    config = AscentConfig(steps=5, reports=1, tile=2, space="box")
    given = KEY, tiny, Map("conv2"), np.array([2, 3]), np.array([0, 1])
    by_config = ascend(*given, config=config)
    by_name = ascend(*given, steps=5, reports=1, tile=2, space=space_for(tiny, "box"))
    mixed = ascend(*given, config=AscentConfig(steps=9, space="box"), steps=5, reports=1, tile=2)
    for name in Ascent._fields:
        np.testing.assert_array_equal(getattr(by_config, name), getattr(by_name, name))
        np.testing.assert_array_equal(getattr(by_config, name), getattr(mixed, name))
    assert AscentConfig(space=None, method=None, tile=None) == AscentConfig()


def test_unknown_options_are_named_with_the_nearest_one(tiny):
    given = KEY, tiny, Map("conv2"), np.array([2]), np.array([0])
    with pytest.raises(ValueError, match="unknown option 'step'; did you mean 'steps'"):
        ascend(*given, step=5)
    with pytest.raises(ValueError, match="unknown image space 'sphere'"):
        ascend(*given, space="sphere")


def test_runs_that_must_wait_for_fetched_results_are_all_made(tiny, monkeypatch):
    options = {"steps": 40, "criterion": 3e-3, "tile": 3, "stop": True}
    given = KEY, tiny, Map("conv2"), np.arange(32) % 4 + 2, np.arange(32)
    free = ascend(*given, **options)
    monkeypatch.setattr("oipjax.search.engine.AHEAD", 1)
    bounded = ascend(*given, **options)
    for name in Ascent._fields:
        np.testing.assert_array_equal(getattr(bounded, name), getattr(free, name), err_msg=name)


@pytest.mark.parametrize("stop", [False, True])
def test_no_more_is_computed_than_a_slow_reader_needs(tiny, monkeypatch, stop):
    monkeypatch.setattr("oipjax.search.engine.AHEAD", 1)
    monkeypatch.setattr("oipjax.search.engine.workers", lambda: 2)
    problem = replace(problem_of(tiny, "float32"), stop=stop)
    z = make_starts(KEY, space_for(tiny), np.arange(24))
    begun = []

    def starts_of(worker, numbers):
        begun.extend(numbers.tolist())
        return z[numbers]

    engine = Engine(problem, tiny.params, np.zeros(1, np.int32), most_reports=2, tile=2)
    job = Job(starts_of, np.full(24, 3, np.int32), count=24, recorded_steps=(0, 9))
    parts = engine.run(job)
    next(parts)
    assert max(begun) < (1 + 2) * 2, "one tile was fetched, and there are two workers"
    parts.close()
    assert max(begun) < (1 + 2) * 2


def test_an_error_in_a_worker_reaches_the_caller(tiny):
    def starts_of(worker, numbers):
        raise RuntimeError("no starts")

    problem = problem_of(tiny, "float32")
    engine = Engine(problem, tiny.params, np.zeros(1, np.int32), most_reports=2, tile=2)
    job = Job(starts_of, np.full(5, 3, np.int32), count=5, recorded_steps=(0, 3))
    with pytest.raises(RuntimeError, match="no starts"):
        list(engine.run(job))


def test_unknown_precisions_are_named(tiny):
    with pytest.raises(ValueError, match="unknown precision 'half'; there are float32, tf32, bf16"):
        ascend(KEY, tiny, Map("conv2"), np.array([2]), np.array([0]), precision="half")
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        plan_study(KEY, tiny, precision="half")


def test_starts_can_be_images_and_are_projected(tiny):
    wild = np.random.default_rng(0).normal(5, 3, (2, 8, 8, 1)).astype(np.float32)
    out = ascend(KEY, tiny, Class(), np.array([0, 1]), wild, steps=1)
    assert space_for(tiny).domain.contains(out.images).all()
    standardised = (wild - wild.mean((1, 2, 3), keepdims=True)) / wild.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out.images, standardised, atol=1e-5)
    assert out.trace_steps.tolist() == [0] and (out.scores == out.start_scores).all()


def test_tiles_come_one_by_one(tiny):
    calls = []
    parts = ascend_tiles(
        KEY,
        tiny,
        Map("conv2"),
        np.arange(6),
        np.arange(6),
        steps=3,
        tile=4,
        progress=lambda done, total: calls.append((done, total)),
    )
    first = next(parts)
    assert first.scores.shape == (4,) and first.images.shape == (4, 8, 8, 1)
    assert next(parts).scores.shape == (2,) and list(parts) == []
    assert calls == [(4, 6), (6, 6)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": -3}, "steps must be at least 1"),
        ({"reports": -1}, "reports must not be negative"),
        ({"criterion": -1.0}, "criterion is a relative change"),
        ({"criterion": float("nan")}, "criterion is a relative change"),
        ({"starts": np.arange(3)}, "one target per start"),
        ({"starts": np.zeros((2, 8, 9, 1), np.float32)}, r"floats \[n, 8, 8, 1\]"),
        ({"starts": np.array([0, -1])}, "numbered by integers"),
        ({"starts": np.zeros((2, 8, 8, 1), np.float32)}, "is it constant"),
        ({"starts": 7}, "starts are integers"),
        ({"space": Box((9, 9, 1), (0.0,), (1.0,))}, "takes images"),
        ({"starts": np.zeros(0, int), "targets": np.zeros(0, int)}, "no starts given"),
        ({"targets": np.array([0, 6])}, "no map of conv2 6"),
        ({"key": jax.random.PRNGKey(0)}, "typed key"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tiny, options, words):
    arguments = {"key": KEY, "targets": np.array([0, 1]), "starts": np.array([0, 1]), **options}
    key, targets, starts = (arguments.pop(name) for name in ("key", "targets", "starts"))
    with pytest.raises(ValueError, match=words):
        ascend(key, tiny, Map("conv2"), targets, starts, **arguments)


def test_backtracking_returns_to_the_best_image(linear):
    """Long steps wander in a box; with backtracking a run comes back and stays near its best."""

    @dataclass(frozen=True)
    class Wild(Momentum):
        def step_size(self):
            return lambda share: 8.0 + 0 * share

    space = Box((6, 5, 2), (-1.0, -1.0), (1.0, 1.0))
    peak = replace(linear, apply=Peak(), params={}, layers=("maps",))
    options = {"space": space, "steps": 30}
    maps, starts = np.zeros(4, int), np.arange(4)
    lost = ascend(
        KEY, peak, Map("maps"), maps, starts, method=Wild(tolerance=float("inf")), **options
    )
    kept = ascend(KEY, peak, Map("maps"), maps, starts, method=Wild(tolerance=0.1), **options)
    assert (lost.trace[:, -1] < 0.8 * lost.scores).all()
    assert (kept.trace[:, -1] >= 0.9 * kept.scores).all() and (kept.scores > lost.scores).all()


def test_how_long_a_step_is_follows_from_its_share_of_the_ascent(linear):
    """Momentum on the normalised gradient of a linear function, in a box that is never reached."""
    space = Box((6, 5, 2), (-1e3, -1e3), (1e3, 1e3), contrast=1e-4)
    method = Momentum(step=1e-3, momentum=0.5, warmup=0.25)

    def score(x):
        return linear.apply(linear.params, x[None])["maps"][0, :, :, 0].mean()

    gradient = np.asarray(jax.grad(score)(jnp.zeros((6, 5, 2))))
    direction = gradient / np.sqrt(np.mean(gradient**2))
    for steps in (9, 17):
        length, along = 0.0, 0.0
        for number in range(steps - 1):
            share = number / (steps - 1)
            cosine = 0.5 * (1 + np.cos(np.pi * (share - 0.25) / 0.75))
            along = 0.5 * along + 1
            length += 2e3 * 1e-3 * along * (0.05 + 0.95 * share / 0.25 if share < 0.25 else cosine)
        out = ascend(
            KEY,
            linear,
            Map("maps"),
            np.array([0]),
            np.array([1]),
            space=space,
            method=method,
            steps=steps,
        )
        climbed = float(out.scores[0] - out.start_scores[0])
        assert climbed == pytest.approx(length * np.sum(gradient * direction), rel=1e-4)


@dataclass(frozen=True)
class Peak:
    """One map with its maximum 1 at the image 0; a long step from near it ends in a corner."""

    def __call__(self, params, x):
        return {"maps": jnp.exp(-jnp.mean(jnp.square(x), (1, 2, 3)))[:, None]}


def test_being_sent_back_is_not_convergence(tiny):
    hopeless = Momentum(step=1e4, tolerance=0.0, shrink=1.0, warmup=0.0)
    out = ascend(
        KEY,
        tiny,
        Map("conv2_pre"),
        np.array([2, 3, 4, 5]),
        np.arange(4),
        method=hopeless,
        steps=12,
        stop=True,
        criterion=1e-6,
    )
    stood_still = (out.changes[:, 1:] == 0).any(1)
    assert (
        stood_still.any()
        and (out.converged[stood_still] == -1).all()
        and (out.evaluations == 12).all()
    )


def test_key_reuse_checker_finds_nothing(tiny):
    with jax.debug_key_reuse(True):
        ascend(jax.random.key(1), tiny, Map("conv2"), np.array([2]), np.array([3]), steps=3, tile=2)
