"""Bounds hold: no image, sampled or optimised, exceeds one.

Dead maps are proved dead, maps that are barely alive are not.
"""

import functools
import importlib
import pkgutil
import re
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oipjax
import oipjax.study
from oipjax import ops
from oipjax.bounds import (
    REFINEMENTS,
    State,
    assemble,
    best_images,
    certify,
    crown,
    hull_limits,
    intervals,
    refine,
    refine_scores,
    relaxed_images,
    strip_images,
)
from oipjax.bounds.conv import recognise
from oipjax.bounds.conv.chain import chain
from oipjax.bounds.interval import trace
from oipjax.bounds.interval.scores import computed_mean
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.spaces import Box, Sphere, space_for, standardise

SHAPE = (7, 6, 2)


@dataclass(frozen=True)
class Zoo:
    """A small network with one of many kinds of steps between two convolutions."""

    kind: str

    def __call__(self, params, x):
        first = ops.conv2d(x, params["w1"]) + params["b1"].reshape(1, 1, 1, -1)
        middle = KINDS[self.kind](first)
        second = ops.conv2d(middle, params["w2"]) + params["b2"].reshape(1, 1, 1, -1)
        flat = jax.nn.relu(second).reshape(x.shape[0], -1)
        return {
            "first": first,
            "middle": middle,
            "second_pre": second,
            "second": jax.nn.relu(second),
            "flat": flat,
        }


def _average(x):
    sums = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    return sums / jnp.asarray(4, x.dtype)


def _normalised(x):
    mean = jnp.mean(x, (1, 2, 3), keepdims=True)
    return (x - mean) / jnp.sqrt(jnp.mean(jnp.square(x), (1, 2, 3), keepdims=True) + 1)


SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)
KINDS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "abs": jnp.abs,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "clip": lambda x: jnp.clip(x, -0.3, 0.5),
    "exp": lambda x: jnp.exp(-jnp.abs(x)),
    "sine": jnp.sin,
    "pool": lambda x: ops.max_pool(jax.nn.relu(x), (2, 2), (1, 1)),
    "pool by reshape": lambda x: jnp.max(
        x[:, :4, :4].reshape(-1, 2, 2, 2, 2, x.shape[3]), (2, 4)
    ).repeat(2, 1),
    "average": _average,
    "residual": lambda x: x + jax.nn.relu(x - 0.1) * 0.5,
    "padded": lambda x: jnp.pad(
        jax.nn.relu(x), ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=0.25
    ),
    "stacked": lambda x: jnp.tile(jnp.stack([abs(x), -x], 2), (1, 1, 1, 2, 1)).reshape(
        len(x), 8, -1, 3
    )[:, ::3],
    "channels": lambda x: jnp.concatenate([jax.nn.relu(x), -jax.nn.relu(-x)], 1)[:, ::2],
    "where": lambda x: jnp.where(x > 0.2, x, 0.1 * x),
    "normalised": _normalised,
    "remat": jax.checkpoint(lambda x: jax.nn.relu(x) * 2),
    "reversed": lambda x: jnp.flip(jnp.swapaxes(jax.nn.relu(x), 1, 2), 1),
}


def zoo(kind: str, seed: int, scale: float = 1.0) -> Model:
    rng = np.random.default_rng(seed)
    params = {
        "w1": rng.normal(size=(2, 2, 2, 3)) * scale,
        "b1": rng.normal(size=3) * 0.3,
        "w2": rng.normal(size=(2, 2, 3, 4)),
        "b2": rng.normal(size=4),
    }
    params = {name: jnp.asarray(value.astype(np.float32)) for name, value in params.items()}
    names = ("first", "middle", "second_pre", "second", "flat")
    return Model(
        kind, Zoo(kind), params, names, SHAPE, nonlinearities={"second": ("second_pre", 0.0)}
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def attempts(apply, shape, params, key, low, high, sphere):
    """Images that try hard, and their activations.

    They are random ones, corners, and both climbed along gradients.
    """
    keys = jax.random.split(key)
    uniform = jax.random.uniform(keys[0], (24, *shape))
    start = jnp.concatenate([uniform, jnp.round(uniform)])
    out = jax.eval_shape(apply, params, start)
    signs = [
        jax.random.normal(jax.random.fold_in(keys[1], i), (len(start), *leaf.shape[1:]))
        for i, leaf in enumerate(jax.tree.leaves(out))
    ]
    picks = jax.nn.one_hot(jnp.arange(len(start)) % len(out), len(out))

    def valid(x):
        return jnp.where(
            sphere, jax.vmap(standardise)(x), jnp.clip(low + x * (high - low), low, high)
        )

    def gain(x):
        leaves = jax.tree.leaves(apply(params, valid(x)))
        each = [
            jnp.sum(sign * leaf, tuple(range(1, leaf.ndim)))
            for sign, leaf in zip(signs, leaves, strict=True)
        ]
        return jnp.sum(jnp.stack(each, 1) * picks)

    def climb(_, x):
        x = x + 0.2 * jnp.sign(jnp.nan_to_num(jax.grad(gain)(x)))
        return jnp.where(sphere, x, jnp.clip(x, 0, 1))

    images = valid(jnp.concatenate([start, jax.lax.fori_loop(0, 12, climb, start)]))
    return images, apply(params, images)


def tried(model: Model, domain: Box | Sphere, seed: int):
    """Activations of many images of a domain, float64."""
    sphere = isinstance(domain, Sphere)
    ends = ((0.0,), (1.0,)) if sphere else (domain.low, domain.high)
    low, high = (jnp.broadcast_to(np.float32(end), (1, 1, 1, model.input_shape[2])) for end in ends)
    images, out = attempts(
        model.apply, model.input_shape, model.params, jax.random.key(seed), low, high, sphere
    )
    assert domain.contains(np.asarray(images)).mean() > 0.9
    return {name: np.asarray(out[name], np.float64) for name in model.layers}


def holds(model: Model, domain: Box | Sphere, seed: int, names: tuple[str, ...]):
    ends, out = intervals(model, domain), tried(model, domain, seed)
    for name in model.layers:
        assert np.all(out[name] >= ends[name].low) and np.all(out[name] <= ends[name].high), name
    for name in names:
        proved, facts = assemble(model, name, domain), model.layer(name)
        assert np.all(out[name].mean((1, 2)) <= proved.score), name
        assert np.all(out[facts.pre].max((0, 1, 2)) <= proved.node), name
        plain = computed_mean(ends[name].high.mean((0, 1)), ends[name])
        assert np.all(proved.score <= plain + 1e-12 * np.abs(plain))
        assert facts.floor is None or not np.any(
            (out[name] > facts.floor).any((0, 1, 2)) & proved.dead
        )


@pytest.mark.parametrize("kind", ["relu", *(SLOW(kind) for kind in KINDS if kind != "relu")])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), box=st.booleans(), scale=st.sampled_from([0.1, 1.0, 4.0]))
def test_no_image_leaves_its_interval(kind, seed, box, scale):
    model = zoo(kind, seed, scale)
    domain = Box(SHAPE, (-0.4, -1.0), (1.5, 0.25)) if box else Sphere(SHAPE)
    holds(model, domain, seed, ("second",))


CONFIGS = [
    cnn.CNNConfig((8, 9, 1), (3, 4), 3, (2, 1), (5,), 3),
    cnn.CNNConfig((9, 9, 2), (3, 4), 2, (1, 2), (), 3),
    cnn.CNNConfig((8, 8, 1), (3, 4), 3, (2, 1), (5,), 3, activation="elu"),
    cnn.CNNConfig((8, 8, 1), (3, 4), 3, (1, 1), (5,), 3, activation="leaky_relu", padding="SAME"),
    cnn.CNNConfig((9, 9, 1), (2, 3), 2, (2, 1), (), 3, activation="tanh"),
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.activation}-{c.padding}-{c.pools}")
@settings(max_examples=80)
@given(seed=st.integers(0, 2**31), box=st.booleans())
def test_no_image_exceeds_a_bound_of_a_cnn(config, seed, box):
    shapes = jax.eval_shape(lambda: cnn.init(jax.random.key(0), config))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(np.float32)), shapes
    )
    model = cnn.model(params, config)
    holds(
        model, space_for(model, "box" if box else "standardised").domain, seed, ("conv1", "conv2")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", CONFIGS[:3], ids=lambda c: f"{c.activation}-{c.padding}-{c.pools}"
)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), box=st.booleans())
def test_no_image_exceeds_a_linear_relaxation(config, seed, box):
    shapes = jax.eval_shape(lambda: cnn.init(jax.random.key(0), config))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(np.float32)), shapes
    )
    model = cnn.model(params, config)
    domain = space_for(model, "box" if box else "standardised").domain
    out, ends = tried(model, domain, seed), intervals(model, domain)
    for layer in ("conv2_pre", "logits"):
        limit = crown(model, layer, domain, steps=3)
        assert np.all(limit <= ends[layer].high)
        assert np.all(out[layer] <= limit + ends[layer].error + 1e-9)


@pytest.mark.slow
def test_a_linear_relaxation_is_tighter_and_slopes_help(tiny):
    domain = space_for(tiny, "box").domain
    high = intervals(tiny, domain)["logits"].high
    first, better = (crown(tiny, "logits", domain, steps=steps) for steps in (1, 12))
    assert np.all(first <= high) and np.any(first < high)
    assert np.all(better <= first + 1e-9) and np.any(better < first)
    found = certify(tiny, "logits", domain, level="tight")
    assert np.all(found.score <= better * (1 + 1e-5)) and np.any(found.score < 0.95 * better), (
        "the hull helps"
    )
    assert set(found.method) == {"crown"}
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        crown(tiny, "logits", domain, steps=0)


@pytest.mark.slow
def test_intervals_are_exact_for_the_first_convolution(tiny):
    """Over the box and the sphere, the interval of a linear node ends at its best image."""
    nodes = np.array([(2, 3, number) for number in range(4)])
    for name in ("box", "standardised"):
        domain = space_for(tiny, name).domain
        best = best_images(tiny, "conv1_pre", nodes, domain)
        values = np.asarray(tiny.apply(tiny.params, jnp.asarray(best.images))["conv1_pre"])[
            range(4), 2, 3, range(4)
        ]
        high = intervals(tiny, domain)["conv1_pre"].high[2, 3]
        np.testing.assert_allclose(values, best.values, rtol=1e-5)
        np.testing.assert_allclose(high, best.values, rtol=5e-4)
        assert np.all(high >= values) and domain.contains(best.images).all()


def test_ascent_reaches_the_closed_form(tiny):
    nodes = np.array([(2, 3, number) for number in range(4)])
    for name in ("box", "standardised"):
        space = space_for(tiny, name)
        best = best_images(tiny, "conv1_pre", nodes, space.domain).values
        run = oipjax.ascend(
            jax.random.key(0),
            tiny,
            oipjax.Node("conv1_pre"),
            nodes,
            np.arange(4),
            space=space,
            steps=100,
        )
        assert np.all(run.scores >= 0.999 * best)
        assert np.all(run.scores <= best * (1 + 1e-4))


def test_closed_forms_are_for_linear_layers_only(tiny):
    with pytest.raises(ValueError, match="conv2_pre of tiny is not linear"):
        best_images(tiny, "conv2_pre", np.array([(0, 0, 0)]), space_for(tiny, "box").domain)


def planted(tiny: Model, height: float) -> Model:
    """A copy whose map 0 of conv2 peaks at ``height``.

    It is the value of one pixel less a constant.
    """
    params = jax.tree.map(np.array, tiny.params)
    params["conv1"]["kernel"][:] = 0
    params["conv1"]["kernel"][1, 1, 0, 0] = 1.0
    params["conv1"]["bias"][:] = 0
    params["conv2"]["kernel"][..., 0] = 0
    params["conv2"]["kernel"][1, 1, 0, 0] = 1.0
    top = float(tiny.input_box[1][0])
    params["conv2"]["bias"][0] = height - top
    return replace(tiny, params=jax.tree.map(jnp.asarray, params))


@pytest.mark.slow
def test_dead_is_proved_and_barely_alive_is_not(tiny):
    for level in ("cheap", "tight"):
        domain = space_for(tiny, "box").domain
        assert certify(planted(tiny, -1e-3), "conv2", domain, level=level).dead[0]
        assert not certify(planted(tiny, 1e-3), "conv2", domain, level=level).dead[0]
        assert certify(tiny, "conv2", domain, level=level).dead[0]


def test_an_atlas_tells_dead_from_barely_alive(tiny):
    for height, counts in ((-1e-3, "dead"), (1e-3, "found")):
        result = oipjax.atlas(
            jax.random.key(0),
            planted(tiny, height),
            "conv2",
            maps=(0,),
            space=space_for(tiny, "box"),
            draws=64,
            steps=30,
        )
        assert result.counts[counts] == 1
        assert result.scores[0, 0] <= result.bound[0]
        assert np.isnan(result.achieved[0]) == (counts == "dead")


def test_rounding_is_covered():
    """A node that is 0 in exact arithmetic and above it in float32 is not called dead."""
    values = np.float32([1e8, 1.0, -1e8, 1.0, -2.0])
    params = {"w": jnp.asarray(values).reshape(5, 1)}
    apply = Dot()
    model = Model(
        "dot", apply, params, ("pre", "out"), (5, 1, 1), nonlinearities={"out": ("pre", 0.0)}
    )
    domain = Box((5, 1, 1), (1.0,), (1.0 + 1e-6,))
    ends = intervals(model, domain)
    assert ends["pre"].error[0] > 1 and not certify(model, "out", domain).dead[0]


@dataclass(frozen=True)
class Dot:
    def __call__(self, params, x):
        pre = x.reshape(x.shape[0], -1) @ params["w"]
        return {"pre": pre, "out": jax.nn.relu(pre)}


@dataclass(frozen=True)
class Sorted:
    def __call__(self, params, x):
        return {"out": jnp.sort(x.reshape(x.shape[0], -1), 1)}


def test_an_unknown_primitive_is_named():
    model = Model("sorted", Sorted(), {"w": jnp.zeros(1)}, ("out",), (2, 2, 1))
    with pytest.raises(
        ValueError, match="no bound is known for the primitive 'sort'; there are rules for abs, "
    ):
        intervals(model, Box((2, 2, 1), (0.0,), (1.0,)))
    with pytest.raises(ValueError, match="without bounds .none. the search goes on"):
        oipjax.atlas(jax.random.key(0), model, "out", draws=8, steps=2)
    oipjax.atlas(jax.random.key(0), model, "out", draws=8, steps=2, bounds="none")


def test_wrong_questions_are_told_apart(tiny):
    domain = space_for(tiny, "box").domain
    with pytest.raises(ValueError, match="unknown level of bounds 'huge'; there are cheap, tight"):
        certify(tiny, "conv2", domain, level="huge")
    with pytest.raises(ValueError, match="tiny has no layer 'conv9'"):
        certify(tiny, "conv9", domain)
    with pytest.raises(ValueError, match="over a Box or a Sphere, not over a object"):
        intervals(tiny, object())  # pyright: ignore


def test_programs_are_flat(tiny):
    names = {equation.name for equation in trace(tiny).equations}
    assert names == {
        "conv_general_dilated",
        "reshape",
        "add",
        "max",
        "reduce_window_max",
        "dot_general",
    }


def test_the_chain_is_read_off_the_program(tiny):
    stages = chain(tiny, "conv2")
    assert [(stage.layer, stage.pool, stage.shape) for stage in stages] == [
        ("conv1_pre", 2, (6, 6, 4)),
        ("conv2_pre", 1, (1, 1, 6)),
    ]
    np.testing.assert_array_equal(stages[1].kernel, np.asarray(tiny.params["conv2"]["kernel"]))
    np.testing.assert_array_equal(stages[1].bias, np.asarray(tiny.params["conv2"]["bias"]))
    assert chain(tiny, "logits") == ()


@dataclass(frozen=True)
class Cropped:
    """Two convolutions of the whole image, and three of the part that the third one sees."""

    cropped: bool = True

    def __call__(self, params, x):
        def stage(x, number):
            pre = ops.conv2d(x, params[f"w{number}"]) + params[f"b{number}"].reshape(1, 1, 1, -1)
            return pre, jax.nn.relu(pre)

        def pooled(x):
            return jax.nn.relu(ops.max_pool(stage(x, 1)[0]))

        out = dict(zip(("a_pre", "a"), stage(x, 1), strict=True))
        out |= dict(zip(("b_pre", "b"), stage(pooled(x), 2), strict=True))
        seen = pooled(x[:, :9, :9] if self.cropped else x)
        deep = jax.nn.relu(ops.max_pool(stage(seen, 2)[0]))
        return out | dict(zip(("c_pre", "c"), stage(deep, 3), strict=True))


@pytest.mark.slow
def test_a_deep_layer_may_see_a_crop_of_the_image():
    rng = np.random.default_rng(0)
    sizes = {"w1": (2, 2, 1, 3), "b1": 3, "w2": (2, 2, 3, 4), "b2": 4, "w3": (1, 1, 4, 5), "b3": 5}
    params = {
        name: jnp.asarray(rng.normal(size=size).astype(np.float32)) for name, size in sizes.items()
    }
    names, floors = (
        ("a_pre", "a", "b_pre", "b", "c_pre", "c"),
        {name: (f"{name}_pre", 0.0) for name in "abc"},
    )
    cropped, plain = (
        Model(str(crop), Cropped(crop), params, names, (10, 11, 1), nonlinearities=floors)
        for crop in (True, False)
    )
    assert [(s.layer, s.pool, s.shape) for s in chain(cropped, "c")] == [
        ("a_pre", 2, (8, 8, 3)),
        ("b_pre", 2, (3, 3, 4)),
        ("c_pre", 1, (1, 1, 5)),
    ]
    assert [(s.layer, s.shape) for s in chain(cropped, "b")] == [
        ("a_pre", (9, 10, 3)),
        ("b_pre", (3, 4, 4)),
    ]
    domain = Box((10, 11, 1), (0.0,), (1.0,))
    limits = hull_limits(cropped, "c", domain, splits=1, steps=20)
    assert set(limits) == {"b_pre"}
    cheap, better = (intervals(cropped, domain, known)["c_pre"].high for known in (None, limits))
    assert np.all(better <= cheap) and np.any(better < 0.95 * cheap)
    out = tried(cropped, domain, 1)
    for layer in "abc":
        found, expected = (assemble(model, layer, domain, limits) for model in (cropped, plain))
        for name in ("score", "node"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-12
            )
        assert np.all(out[layer].mean((1, 2)) <= found.score)
        assert np.all(out[f"{layer}_pre"].max((0, 1, 2)) <= found.node)


@dataclass(frozen=True)
class First:
    """A convolution of the leading 3 x 3 pixels."""

    def __call__(self, params, x):
        pre = ops.conv2d(x[:, :3, :3], params["w"]) + params["b"].reshape(1, 1, 1, -1)
        return {"pre": pre, "out": jax.nn.relu(pre)}


def test_strips_count_only_the_pixels_that_are_seen():
    """A mean of 2 x 2 positions may be larger than one of 5 x 5."""
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.normal(size=(2, 2, 1, 4)), jnp.float32),
        "b": jnp.zeros(4, jnp.float32),
    }
    model = Model(
        "first", First(), params, ("pre", "out"), (6, 6, 1), nonlinearities={"out": ("pre", 0.0)}
    )
    domain = Box((6, 6, 1), (-1.0,), (1.0,))
    bits = (np.arange(2**9)[:, None] >> np.arange(9)) & 1
    images = np.zeros((2**9, 6, 6, 1), np.float32)
    images[:, :3, :3] = (2.0 * bits - 1).reshape(-1, 3, 3, 1)
    best = np.asarray(model.apply(params, jnp.asarray(images))["out"]).mean((1, 2)).max(0)
    found = refine_scores(model, assemble(model, "out", domain), domain)
    assert np.all(best <= found.score)
    np.testing.assert_allclose(found.score, best, rtol=1e-4)


def test_a_limit_is_not_carried_where_it_does_not_hold():
    """Only leading rows and columns count as a crop.

    Nodes outside of a named layer keep their own limits.
    """

    @dataclass(frozen=True)
    class Parts:
        part: str

        def __call__(self, params, x):
            parts = {"rows": x[:, 1:], "leading": x[:, :3], "strided": x[:, ::2], "whole": x}
            small, large = parts[self.part] * params["w"], x * params["w"]
            return {"small": small, "large": large, "largest": large.max((1, 2))}

    domain = Box((4, 4, 1), (0.0,), (1.0,))
    for part, layer in (("rows", "large"), ("strided", "large"), ("leading", "small")):
        model = Model(
            part,
            Parts(part),
            {"w": jnp.ones((1, 1, 1, 1))},
            ("small", "large", "largest"),
            (4, 4, 1),
        )
        known = {layer: (np.zeros(1), np.full(1, 0.5))}
        ends = intervals(model, domain, known)
        other = {"large": "small", "small": "large"}[layer]
        assert ends[layer].high.max() < 0.51 and ends[other].high.max() >= 1, part
    model = Model(
        "leading",
        Parts("leading"),
        {"w": jnp.ones((1, 1, 1, 1))},
        ("small", "large", "largest"),
        (4, 4, 1),
    )
    ends = intervals(
        model, domain, {"large": (np.zeros((4, 4, 1)), np.linspace(0.1, 1, 16).reshape(4, 4, 1))}
    )
    np.testing.assert_allclose(
        ends["small"].high, np.linspace(0.1, 1, 16).reshape(4, 4, 1)[:3], rtol=1e-6
    )


def modules_of(package):
    """All modules of a package."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


# --- refinements


def small_cnn(shape=(8, 8, 1), kernel=3, pools=(2, 1), activation="relu") -> Model:
    """A network of two convolutions with random weights."""
    config = cnn.CNNConfig(shape, (3, 4), kernel, pools, (), 3, activation=activation)
    shapes = jax.eval_shape(lambda: cnn.init(jax.random.key(0), config))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return cnn.model(params, config)


UNFIT = {
    "a patch of too many pixels": (
        small_cnn((9, 9, 2), 3, (1, 1)),
        "conv2",
        "box",
        {"hull": "patch of 3 x 3 x 2 has 18 pixels", "windows": "patch of 3 x 3 x 2 has 18 pixels"},
    ),
    "a second kernel of too many taps": (
        small_cnn((9, 9, 1), 4, (1, 1)),
        "conv2",
        "box",
        {"windows": "second kernel of 4 x 4 has more than 9 taps"},
    ),
    "an image in colour": (
        small_cnn((8, 8, 2)),
        "conv1",
        "box",
        {"strips": "need an image of one channel, and this one has 2"},
    ),
    "a kernel that is too large for strips": (
        small_cnn((16, 16, 1), 5),
        "conv1",
        "box",
        {"strips": "kernel of 5 x 5 is too large for strips"},
    ),
    "a window of too many pixels": (
        small_cnn((24, 24, 2), 8),
        "conv2",
        "standardised",
        {"energy": "window of 23 x 23 x 2 has 1058 pixels"},
    ),
    "another nonlinearity": (
        small_cnn(activation="elu"),
        "conv1",
        "box",
        {"sets": "output of a ReLU", "strips": "0 are recognised"},
    ),
    "a layer without positions": (
        small_cnn(),
        "logits",
        "box",
        {"sets": r"need a layer \[h, w, k\], and this one is \(3,\)"},
    ),
    "too many positions": (
        small_cnn((35, 35, 1)),
        "conv1",
        "standardised",
        {"sets": "too long for 1089 positions, more than 1024"},
    ),
}
OTHERS_HELP = ("a second kernel of too many taps", "a layer without positions")
"""Cases in which another refinement of the tight level fits."""


@pytest.mark.slow
@pytest.mark.parametrize("case", UNFIT)
def test_a_shape_that_does_not_fit_gives_the_looser_bound_and_a_reason(case):
    """Where no refinement of the tight level fits, the bounds are the cheap ones."""
    model, layer, space, reasons = UNFIT[case]
    domain = space_for(model, space).domain
    found = certify(model, layer, domain, level="tight")
    for name, reason in reasons.items():
        assert re.search(reason, found.reasons[name])
        assert not any(name in method.split(" + ") for method in found.method)
    cheap = certify(model, layer, domain)
    assert np.all(found.score <= cheap.score)
    if case not in OTHERS_HELP:
        np.testing.assert_array_equal(found.score, cheap.score)
        np.testing.assert_array_equal(found.node, cheap.node)


def test_weights_that_are_not_finite_are_a_reason(tiny):
    params = jax.tree.map(np.array, tiny.params)
    params["conv2"]["bias"][1] = np.nan
    model = replace(tiny, params=jax.tree.map(jnp.asarray, params))
    for space, name in (("box", "hull"), ("box", "windows"), ("standardised", "energy")):
        domain = space_for(model, space).domain
        found = certify(model, "conv2", domain, level="tight")
        assert "of conv2_pre are not all finite" in found.reasons[name]
        assert not found.dead[1]
        assert strip_images(model, "conv2", domain) is None
        assert relaxed_images(model, "conv2", domain, np.array([0])) is None


@pytest.mark.slow
def test_the_reasons_name_all_refinements_that_were_not_used(tiny):
    domain = space_for(tiny, "box").domain
    cheap = certify(tiny, "conv2", domain)
    tight = certify(tiny, "conv2", domain, level="tight")
    few = refine(tiny, "conv2", domain, np.array([1]))
    assert not cheap.reasons
    assert set(tight.reasons) == {"energy", "crown", "strips"}
    assert set(few.reasons) == {"energy"}
    assert all(reason.endswith(".") for reason in tight.reasons.values())
    assert "hull" in tight.method


BROKEN = [
    ("conv.strip_means.mean_bound", "conv1", "box"),
    ("conv.window_means.window_bound", "conv2", "box"),
    ("conv.patch_hull.cells", "conv2", "box"),
    ("conv.patch_hull.hull_bound", "logits", "box"),
    ("conv.shared_energy.energy_bound", "conv2", "standardised"),
    ("linear.crown.crown", "logits", "box"),
    ("linear.means.pull", "conv2", "box"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer", "space"), BROKEN)
def test_an_error_inside_a_bound_is_raised(tiny, monkeypatch, name, layer, space):
    """A fault of a bound must not pass for a shape that does not fit."""

    def broken(*_, **__):
        raise ValueError("a fault inside the bound")

    jax.clear_caches()
    monkeypatch.setattr(f"oipjax.bounds.{name}", broken)
    with pytest.raises(ValueError, match="a fault inside the bound"):
        certify(tiny, layer, space_for(tiny, space).domain, level="tight")


def test_an_error_inside_a_search_for_starts_is_raised(tiny, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a fault inside the search")

    domain = space_for(tiny, "box").domain
    monkeypatch.setattr("oipjax.bounds.conv.starts.mean_search", broken)
    with pytest.raises(ValueError, match="a fault inside the search"):
        strip_images(tiny, "conv1", domain)
    monkeypatch.setattr("oipjax.bounds.conv.starts.cells", broken)
    with pytest.raises(ValueError, match="a fault inside the search"):
        relaxed_images(tiny, "conv2", domain, np.array([0]))


@pytest.mark.slow
def test_the_stack_is_recognised_once(tiny, monkeypatch):
    calls = []

    def counted(model, layer):
        calls.append(layer)
        return recognise(model, layer)

    monkeypatch.setattr("oipjax.bounds.refinement.recognise", counted)
    domain = space_for(tiny, "box").domain
    for level in ("cheap", "tight"):
        certify(tiny, "conv2", domain, level=level)
    refine(tiny, "conv2", domain, np.array([1]))
    assert calls == ["conv2"] * 3


@dataclass(frozen=True)
class Half:
    """A false bound: half of what is proved."""

    name: ClassVar[str] = "half"
    level: ClassVar[str] = "cheap"

    def fits(self, stack, domain):
        return None if isinstance(domain, Box) else "Half is a bound over a box."

    def refine(self, state: State) -> State:
        half = state.bounds.with_scores(state.bounds.score / 2, self.name)
        return replace(state, bounds=half)


def test_a_refinement_is_one_line(tiny, monkeypatch):
    box, sphere = (space_for(tiny, space).domain for space in ("box", "standardised"))
    before, untouched = (certify(tiny, "conv2", domain) for domain in (box, sphere))
    refinements = (*REFINEMENTS, Half())
    monkeypatch.setattr("oipjax.bounds.certificate.REFINEMENTS", refinements)
    found, other = (certify(tiny, "conv2", domain) for domain in (box, sphere))
    np.testing.assert_array_equal(found.score, before.score / 2)
    np.testing.assert_array_equal(found.node, before.node)
    assert set(found.method) == {"half"}
    np.testing.assert_array_equal(other.score, untouched.score)
    assert other.reasons == {"half": "Half is a bound over a box."}


def test_no_name_hides_a_module():
    for module in modules_of(oipjax.bounds):
        package, _, name = module.__name__.rpartition(".")
        assert getattr(sys.modules[package], name) is module, module.__name__
