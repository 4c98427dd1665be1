"""Objectives as values: algebra, targets, gradients."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oipjax
from oipjax.objectives import Class, Direction, Layer, Map, Node, PreActivation, Sum, TotalVariation

rng = np.random.default_rng(0)
ACTS = {
    "a": rng.normal(size=(3, 4, 5)).astype(np.float32),
    "logits": rng.normal(size=7).astype(np.float32),
}
IMAGE = rng.normal(size=(6, 6, 1)).astype(np.float32)


def score(objective, target):
    return float(objective(ACTS, IMAGE, jax.tree.map(jnp.asarray, target)))


def test_what_each_objective_is():
    assert score(Map("a"), 2) == pytest.approx(ACTS["a"][..., 2].mean(), rel=1e-6)
    assert score(Map("logits"), 2) == pytest.approx(ACTS["logits"][2])
    assert score(Class(), 3) == pytest.approx(ACTS["logits"][3])
    assert score(Node("a"), np.array([1, 2, 3])) == pytest.approx(ACTS["a"][1, 2, 3])
    assert score(Node("logits"), np.array(3)) == pytest.approx(ACTS["logits"][3])
    vector = rng.normal(size=5).astype(np.float32)
    assert score(Direction("a"), vector) == pytest.approx(
        float(ACTS["a"].mean((0, 1)) @ vector), rel=1e-5
    )
    assert score(Layer("a"), None) == pytest.approx(float(np.square(ACTS["a"]).mean()), rel=1e-6)
    flat = np.abs(np.diff(IMAGE, axis=0)).mean() + np.abs(np.diff(IMAGE, axis=1)).mean()
    assert score(TotalVariation(), None) == pytest.approx(flat, rel=1e-6)


def test_algebra_is_exact_and_leaves_its_operands_alone():
    a, b = Map("a"), Class()
    va, vb = score(a, 1), score(b, 2)
    combined, difference = 2 * a + 3 * b, a - b
    assert score(combined, (1, 2)) == pytest.approx(2 * va + 3 * vb, rel=1e-6)
    assert score(difference, (1, 2)) == pytest.approx(va - vb, rel=1e-6)
    assert score(-(2 * difference), (1, 2)) == pytest.approx(-2 * (va - vb), rel=1e-6)
    assert score(2 * (a + 0.5 * (b - a)), (1, 2, 3)) == pytest.approx(
        2 * va + vb - score(a, 3), rel=1e-5
    )
    assert (a, b) == (Map("a"), Class())
    assert combined == 2 * a + 3 * b and difference == a - b
    assert hash(combined) == hash(2 * a + 3 * b) and combined != 3 * a + 2 * b
    assert repr(combined) == "2.0*Map(layer='a') + 3.0*Class(layer='logits')"
    assert isinstance(a - 0.1 * TotalVariation(), Sum)
    assert score(a - 0.1 * TotalVariation(), (1,)) == pytest.approx(
        va - 0.1 * score(TotalVariation(), None), rel=1e-5
    )
    for nonsense in ("x", None, a):
        with pytest.raises(TypeError):
            a * nonsense  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(TypeError):
        a + 1  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("objective", "targets", "words"),
    [
        (Map("conv9"), [0], "no layer 'conv9'; it has conv1_pre, conv1"),
        (Map("conv2"), [6], "no map of conv2 6: there are 6, counted from 0"),
        (Map("conv2"), [-1], "no map of conv2 -1"),
        (Map("conv2"), [0.5], "integers"),
        (Map("conv2"), [[0]], "integers"),
        (Map("conv2"), None, "integers"),
        (Node("conv2"), [[0, 0]], "integers"),
        (Node("conv2"), [[0, 1, 0]], "no node of conv2"),
        (Class(), [3], "no map of logits 3"),
        (Direction("conv2"), np.ones((2, 5)), "directions in conv2 are"),
        (Direction("conv2"), np.full((1, 6), np.nan), "finite"),
        (TotalVariation(), [0], "takes no target"),
        (Map("conv2") + Class(), [0], "a tuple of 2 targets"),
        (Map("conv2") + Class(), ([0, 1], [0]), "different lengths"),
    ],
)
def test_targets_that_do_not_fit_are_refused(tiny, objective, targets, words):
    with pytest.raises(ValueError, match=words):
        objective.check(tiny, targets)


@pytest.mark.slow
def test_gradients_against_finite_differences_in_float64(tiny):
    objective = (
        Map("conv2_pre") + 0.5 * Class() - 0.2 * Layer("dense1_pre") + 0.1 * Direction("conv2_pre")
    )
    # Before the nonlinearities of the last layers the score is smooth enough for differences of
    # 1e-6.
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tiny.params)
        image = jnp.asarray(np.random.default_rng(3).normal(size=(8, 8, 1)))
        target = (jnp.int32(2), jnp.int32(1), jnp.asarray(np.random.default_rng(4).normal(size=6)))

        def value(image):
            acts = {name: a[0] for name, a in tiny.apply(params, image[None]).items()}
            return objective(acts, image, target)

        gradient = np.asarray(jax.grad(value)(image))
        value = jax.jit(value)
        for i, j in ((0, 0), (2, 3), (4, 4), (5, 1)):
            step = jnp.zeros((8, 8, 1)).at[i, j, 0].set(1e-6)
            numeric = float(value(image + step) - value(image - step)) / 2e-6
            assert gradient[i, j, 0] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
            assert gradient.dtype == np.float64


@pytest.mark.slow
def test_no_gradient_outside_the_receptive_field():
    import oipjax

    model = oipjax.load()
    image = jnp.asarray(np.random.default_rng(0).normal(size=(28, 28, 1)), jnp.float32)

    def node(image):
        return model.apply(model.params, image[None])["conv3_pre"][0, 0, 0].sum()

    gradient = np.asarray(jax.grad(node)(image))
    assert (
        (gradient[18:] == 0).all()
        and (gradient[:, 18:] == 0).all()
        and (gradient[:18, :18] != 0).any()
    )

    def maps(image):
        return model.apply(model.params, image[None])["conv3_pre"].sum()

    gradient = np.asarray(jax.grad(maps)(image))
    assert (
        (gradient[26:] == 0).all()
        and (gradient[:, 26:] == 0).all()
        and (gradient[:26, :26] != 0).mean() > 0.9
    )


def test_pre_activation_joins_score_and_node():
    pre_activation = PreActivation(Map("a"), "pre", 0.0)
    pre = np.array([[[-3.0, -1, 2], [-2, -5, -1]]], np.float32)
    acts = {"pre": jnp.asarray(pre), "a": jnp.maximum(pre, 0)}
    expected = [-2.0, -1.0, 1.0]
    assert pre_activation.every_map(acts).tolist() == expected
    assert [float(pre_activation(acts, IMAGE, jnp.int32(k))) for k in range(3)] == expected
    node = PreActivation(Node("a"), "pre", 0.0)
    assert (
        float(node(acts, IMAGE, jnp.array([0, 1, 1]))) == -5
        and float(node(acts, IMAGE, jnp.array([0, 0, 2]))) == 2
    )


def test_pre_activation_is_for_maps_behind_a_floor(tiny, linear):
    assert Map("conv2").pre_activation(tiny) == PreActivation(Map("conv2"), "conv2_pre", 0.0)
    assert Node("dense1").pre_activation(tiny) == PreActivation(Node("dense1"), "dense1_pre", 0.0)
    assert Map("conv2_pre").pre_activation(tiny) is None
    assert (2 * Map("conv2")).pre_activation(tiny) is None
    assert Map("maps").pre_activation(linear) is None


@dataclass(frozen=True)
class LogProbability(Map):
    def __call__(self, activations, image, target):
        return jnp.take(jax.nn.log_softmax(activations[self.layer]), target, axis=0)


@pytest.mark.slow
def test_a_subclass_that_scores_differently_sees_the_whole_layer(tiny):
    """One channel alone has a probability of 1, whatever the image."""
    goal = LogProbability("logits")
    assert goal.channel_layer is None and goal.pre_activation(tiny) is None
    assert LogProbability("conv2").pre_activation(tiny) is None
    run = oipjax.ascend(jax.random.key(0), tiny, goal, np.arange(3), np.arange(3), steps=5)
    logits = tiny.apply(tiny.params, jnp.asarray(run.images))["logits"]
    expected = np.asarray(jax.nn.log_softmax(logits))[np.arange(3), np.arange(3)]
    np.testing.assert_allclose(run.scores, expected, rtol=1e-5)
    assert (run.scores < 0).all() and (run.scores > run.start_scores).all()
