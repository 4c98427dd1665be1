"""The arithmetic of the bounds holds for the program as it runs: float32, NaN, roundings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oipjax
from oipjax import ops
from oipjax.bounds import assemble, certify, hull_limits, intervals, refine_scores
from oipjax.bounds.conv.chain import chain
from oipjax.bounds.conv.sphere import energy_bound
from oipjax.bounds.interval import trace
from oipjax.bounds.interval.scores import computed_mean
from oipjax.bounds.linear.backward import ROUNDING
from oipjax.data import mnist as data
from oipjax.jaxpr import PIECEWISE
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.spaces import Box, Sphere, space_for, standardise


@dataclass(frozen=True)
class Function:
    """``pre`` is any function of parameters and images, ``out`` its ReLU."""

    function: Callable[[Any, Any], Any]

    def __call__(self, params, x):
        pre = self.function(params, x)
        return {"pre": pre, "out": jax.nn.relu(pre)}


def network(function, shape, **params) -> Model:
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()} or {
        "none": jnp.zeros(1)
    }
    return Model(
        "function",
        Function(function),
        params,
        ("pre", "out"),
        shape,
        nonlinearities={"out": ("pre", 0.0)},
    )


def holds(model: Model, domain: Box | Sphere, images) -> Any:
    """The bounds of ``out``; that they hold for images of the domain is checked."""
    images = jnp.asarray(images, jnp.float32)
    assert domain.contains(np.asarray(images)).all()
    found, ends = certify(model, "out", domain), intervals(model, domain)
    out = {
        name: np.asarray(value)
        for name, value in jax.jit(model.apply)(model.params, images).items()
    }
    score = np.asarray(
        jax.jit(lambda x: x.mean((1, 2)))(out["out"]) if out["out"].ndim == 4 else out["out"]
    )
    for name in model.layers:
        value = np.nan_to_num(out[name].astype(np.float64), nan=0.0)
        assert np.all((value >= ends[name].low) & (value <= ends[name].high)), name
    assert not np.any((score > 0).any(0) & found.dead)
    assert np.all(np.nan_to_num(score).max(0) <= found.score)
    return found


def box(*shape: int, low: float = 0.0, high: float = 1.0) -> Box:
    return Box(shape, (low,) * shape[2], (high,) * shape[2])


@jax.jit
def _less_all(x):
    return jnp.where(x > 0, x - x.sum((1, 2, 3), keepdims=True), -1.0)


@jax.jit
def _at_zero(x):
    return jnp.where(x > 0, -1.0, jnp.where(x >= 0, 5.0, -1.0))


def test_only_elementwise_functions_are_taken_in_two_pieces():
    image = -np.ones((1, 4, 4, 1))
    image[0, 0, 0, 0] = 1
    model = network(lambda p, x: _less_all(x) - 2, (4, 4, 1))
    assert PIECEWISE not in {equation.name for equation in trace(model).equations}
    assert not holds(model, box(4, 4, 1, low=-1.0), image).dead[0]
    # The threshold itself on two sides at once is no function in two pieces either.
    assert not holds(
        network(lambda p, x: _at_zero(x), (2, 1, 1)), box(2, 1, 1), np.zeros((1, 2, 1, 1))
    ).dead[0]
    assert PIECEWISE in {
        e.name for e in trace(network(lambda p, x: jax.nn.leaky_relu(x), (2, 1, 1))).equations
    }


def test_a_pixel_that_is_spread_out_enters_a_sum_more_than_once():
    spike = np.full((8, 8, 1), -1 / 8)
    spike[0, 0, 0] = 8
    image = standardise(jnp.asarray(spike, jnp.float32))[None]
    for spread in (
        lambda p, x: (x * p["w"]).sum(-1, keepdims=True) - 20,
        lambda p, x: (x + p["w"]).sum(-1, keepdims=True) - 24,
        lambda p, x: (x / p["w"]).sum(-1, keepdims=True) - 20,
        lambda p, x: (p["w"] - x[..., :1]).sum(-1, keepdims=True) * -1 - 20,
    ):
        assert not holds(
            network(spread, (8, 8, 1), w=np.ones((1, 1, 1, 4))), Sphere((8, 8, 1)), image
        ).dead[0]


def test_padding_with_what_depends_on_the_image_is_not_linear():
    def padded(p, x):
        return (
            jax.lax.pad(x, x[0, 0, 0, 0], ((0, 0, 0), (0, 2, 0), (0, 2, 0), (0, 0, 0))).sum((1, 2))
            - 40
        )

    spike = np.full((4, 4, 1), -0.25)
    spike[0, 0, 0] = 4
    image = standardise(jnp.asarray(spike, jnp.float32))[None]
    holds(network(padded, (4, 4, 1)), Sphere((4, 4, 1)), image)


@pytest.mark.parametrize(
    "function",
    [
        lambda r: jnp.where(r > 0.5, -1.0, 1.0),
        lambda r: jnp.where(r <= 0.5, -1.0, 1.0),
        lambda r: jnp.where(jax.nn.relu(r) >= 0, -1.0, 1.0),
        lambda r: jnp.where(jnp.clip(r, 0, 1) >= 0, -1.0, 1.0),
        lambda r: jnp.where(jnp.tanh(r) >= -1, -1.0, 1.0),
        lambda r: jnp.where(r == r, -1.0, 1.0),
        lambda r: jnp.where(r != r, 1.0, -1.0),
        lambda r: jnp.where(jnp.square(r) >= 0, -1.0, 1.0),
        lambda r: jnp.where(jnp.isfinite(r), -1.0, 1.0),
        lambda r: jnp.where(jnp.sin(r) < 2, -1.0, 1.0),
        lambda r: jnp.where(ops.max_pool(r, (1, 1)) >= r, -1.0, 1.0),
        jax.jit(lambda r: jnp.where(r > 0, -1.0, jnp.where(r <= 0, -1.0, 1.0))),
    ],
)
def test_nan_is_never_overlooked(function):
    """0 / 0 is on no side of a threshold. Steps hide NaN, but not its effect on comparisons."""
    model = network(lambda p, x: function(x[:, :1] / x[:, 1:]), (2, 1, 1))
    assert not holds(model, box(2, 1, 1), np.zeros((1, 2, 1, 1))).dead[0]


def test_a_root_of_less_than_nothing_is_nan():
    for root in (jnp.sqrt, jnp.log, jax.lax.rsqrt, jnp.log1p):
        model = network(
            lambda p, x, root=root: jnp.where(jax.nn.relu(root(x - 2)) >= 0, -1.0, 1.0), (1, 1, 1)
        )
        assert not holds(model, box(1, 1, 1, low=-1.0), np.zeros((1, 1, 1, 1))).dead[0]


def test_overflow_is_infinite():
    for overflow in (
        lambda p, x: jnp.where(jnp.exp(x * 100) < jnp.inf, -1.0, 1.0),
        lambda p, x: jnp.where(x * 3e38 * 2 < jnp.inf, -1.0, 1.0),
        # A sum of which only a part overflows.
        lambda p, x: jnp.where(
            jnp.abs((x * 3e38).reshape(-1, 4) @ p["w"]).reshape(-1, 1, 1, 1) < 1e38, -1.0, 1.0
        ),
    ):
        model = network(overflow, (2, 2, 1), w=np.reshape([1.0, 1.0, -1.0, -1.0], (4, 1)))
        assert not holds(model, box(2, 2, 1), np.ones((1, 2, 2, 1))).dead.all()


def test_what_is_too_small_may_be_nothing():
    """The smallest numbers are taken as 0 by some processors and not by others."""
    small = float(np.float32(2.0**-130))
    for function in (
        lambda p, x: jnp.where(x * p["w"] > 0, -1.0, 1.0),
        lambda p, x: jnp.where(x * p["w"] == 0, -1.0, 1.0),
        lambda p, x: jnp.where(x * 0 + p["w"] > 0, -1.0, 1.0),
    ):
        model = network(function, (1, 1, 1), w=np.full((1, 1, 1, 1), small))
        assert not certify(model, "out", box(1, 1, 1, low=0.5)).dead[0]
    # Where nothing is added to nothing there is nothing, and a map without weights is dead.
    empty = network(lambda p, x: ops.conv2d(x, p["w"]), (3, 3, 1), w=np.zeros((2, 2, 1, 2)))
    assert certify(empty, "out", box(3, 3, 1)).dead.all()


@pytest.mark.parametrize("power", [3, 31])
def test_high_powers_round_more(power):
    ends = intervals(network(lambda p, x: x**power, (1, 1, 1)), box(1, 1, 1, low=1.0, high=1.5))
    assert ends["pre"].high.item() >= 1.5**power * (1 + max(16, power) * 2.0**-24)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_other_precisions_are_refused(kind):
    model = network(lambda p, x: x.astype(kind).astype(jnp.float32) - 0.9995, (4, 4, 1))
    with pytest.raises(
        ValueError, match="bounds are for float32 networks, and this one computes in b?float16"
    ):
        certify(model, "out", box(4, 4, 1))


def test_reduced_precision_is_counted():
    model = network(lambda p, x: jax.lax.reduce_precision(x, 8, 4) - 0.99, (1, 1, 1))
    images = np.linspace(0.9, 0.98, 50).reshape(-1, 1, 1, 1)
    assert not holds(model, box(1, 1, 1, high=0.98), images).dead[0]
    narrow = network(lambda p, x: jax.lax.reduce_precision(x, 5, 10), (1, 1, 1))
    with pytest.raises(ValueError, match="'reduce_precision' to 5 bits of exponent"):
        certify(narrow, "out", box(1, 1, 1))


def test_powers_that_no_rounding_is_known_of_are_refused():
    for power, message in ((-2, "negative powers"), (2**17, "powers above 65536")):
        model = network(lambda p, x, y=power: jax.lax.integer_pow(x, y), (1, 1, 1))
        with pytest.raises(ValueError, match=message):
            certify(model, "out", box(1, 1, 1))


def test_the_example_of_exp2_stays_below_its_bound():
    high = 59.530567
    model = network(lambda p, x: jnp.exp2(x), (1, 1, 1))
    image = np.full((1, 1, 1, 1), high, np.float32)
    found = certify(model, "out", box(1, 1, 1, high=high))
    value = float(jax.jit(model.apply)(model.params, image)["out"].item())
    assert value > 2.0 ** float(np.float32(high)) * (1 + 16 * 2.0**-24), "XLA rounds less by now"
    assert found.node[0] >= value and found.score[0] >= value


@pytest.mark.parametrize(
    ("function", "exact", "low", "high"),
    [
        (jnp.exp2, np.exp2, 40, 60),
        (jnp.sinh, np.sinh, 35, 60),
        (lambda x: jnp.exp(x) * jnp.exp(x + 5), lambda x: np.exp(2 * x + 5), 28, 40),
        (lambda x: jnp.exp(x) / jnp.exp(-5 - x), lambda x: np.exp(2 * x + 5), 28, 40),
        (lambda x: jax.lax.integer_pow(jnp.exp(x), 3), lambda x: np.exp(3 * x), 20, 28),
    ],
    ids=["exp2", "sinh", "product", "quotient", "cube"],
)
def test_functions_that_xla_rounds_more_than_16_units_stay_below_their_bound(
    function, exact, low, high
):
    """The image is the one whose value is rounded up most, and it is an end of the box."""
    model = network(lambda p, x: function(x), (1, 1, 1))
    numbers = np.linspace(low, high, 2**16, dtype=np.float32)
    images = numbers.reshape(-1, 1, 1, 1)
    values = np.asarray(jax.jit(model.apply)(model.params, images)["out"], np.float64).ravel()
    error = values / exact(numbers.astype(np.float64)) - 1
    worst = np.argmax(error)
    assert error[worst] > 20 * 2.0**-24, "XLA rounds less by now"
    found = holds(model, box(1, 1, 1, high=float(numbers[worst])), images[worst : worst + 1])
    assert found.node[0] >= values[worst]


def test_the_inverse_of_a_large_number_may_be_nothing():
    """XLA multiplies with the inverse of a constant, which is below the smallest normal number."""
    large = float(np.float32(2.5e38))
    model = network(lambda p, x: x / np.float32(large), (1, 1, 1))
    domain = box(1, 1, 1, low=large, high=3e38)
    holds(model, domain, np.full((1, 1, 1, 1), large))
    assert intervals(model, domain)["pre"].low.item() <= 0


def test_a_parameter_that_is_too_small_may_be_nothing():
    small = np.full((1, 1, 1, 1), 2.0**-130)
    for function in (jnp.sqrt, lambda w: 1e-30 / jax.lax.rsqrt(w)):
        model = network(
            lambda p, x, f=function: jnp.where(x * 0 + f(p["w"]) > 1e-36, -1.0, 1.0),
            (1, 1, 1),
            w=small,
        )
        assert not certify(model, "out", box(1, 1, 1)).dead[0]


# --- parameters that are computed
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_computed_from_parameters_is_rounded():
    def product(p, x):
        w = p["w"]
        for _ in range(10):
            w = w * p["a"]
        return x * w - p["t"]

    rng, ratio = np.random.default_rng(0), np.float32(1.1)
    worst = (0.0, 0.0, 0.0)
    for start in rng.uniform(1, 2, 300).astype(np.float32):
        rounded, true = start, float(start)
        for _ in range(10):
            rounded, true = np.float32(rounded * ratio), true * float(ratio)
        worst = max(worst, (float(rounded) / true, float(start), float(rounded)))
    below = np.nextafter(np.float32(worst[2]), np.float32(0))
    params = {"w": np.full((1, 1, 1, 1), worst[1]), "a": ratio, "t": np.full((1, 1, 1, 1), below)}
    assert not holds(
        network(product, (1, 1, 1), **params), box(1, 1, 1), np.ones((1, 1, 1, 1))
    ).dead[0]


def _batch_norm(p, x):
    scale = p["gamma"] / jnp.sqrt(p["var"] + 1e-5)
    return ops.conv2d(x, p["w"]) * scale.reshape(1, 1, 1, -1) + (
        p["beta"] - p["mean"] * scale
    ).reshape(1, 1, 1, -1)


def _folded(p, x):
    scale = p["gamma"] * jax.lax.rsqrt(p["var"] + 1e-5)
    return ops.conv2d(x, p["w"] * scale.reshape(1, 1, 1, -1)) + (
        p["beta"] - p["mean"] * scale
    ).reshape(1, 1, 1, -1)


def _standardised_weights(p, x):
    w = p["w"] - p["w"].mean((0, 1, 2), keepdims=True)
    w = w / jnp.sqrt(jnp.mean(jnp.square(w), (0, 1, 2), keepdims=True) + 1e-4)
    return ops.conv2d(x, w) + p["beta"].reshape(1, 1, 1, -1)


def _low_rank(p, x):
    y = x.reshape(x.shape[0], -1) @ (p["u"] @ p["v"] + jax.nn.leaky_relu(p["e"]))
    return y.reshape(x.shape[0], 1, 1, -1)


def _normed_images(p, x):
    return ops.conv2d(
        (x - p["mean"][:1].reshape(1, 1, 1, 1)) / jnp.sqrt(p["var"][:1]).reshape(1, 1, 1, 1), p["w"]
    )


def _columns(p, x):
    return ops.conv2d(x, p["w"]) + p["columns"].reshape(1, 1, 3, 1)


ARITHMETIC = [_batch_norm, _folded, _standardised_weights, _low_rank, _normed_images, _columns]


@pytest.mark.slow
@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), boxed=st.booleans())
def test_no_image_leaves_the_interval_of_a_network_that_computes_parameters(function, seed, boxed):
    rng = np.random.default_rng(seed)
    vectors = {name: rng.normal(size=3) for name in ("gamma", "beta", "mean", "columns")}
    model = network(
        function,
        (4, 4, 1),
        w=rng.normal(size=(2, 2, 1, 3)),
        var=rng.uniform(0.01, 2, 3),
        u=rng.normal(size=(16, 2)),
        v=rng.normal(size=(2, 3)),
        e=rng.normal(size=(16, 3)),
        **vectors,
    )
    domain = box(4, 4, 1, low=-1.0) if boxed else Sphere((4, 4, 1))
    images = rng.integers(0, 2, (64, 4, 4, 1)) * 2.0 - 1
    found = holds(
        model, domain, images if boxed else jax.vmap(standardise)(jnp.asarray(images, jnp.float32))
    )
    assert np.all(np.isfinite(found.node))
    # The intervals are not much wider than without rounding.
    assert np.all(intervals(model, domain)["pre"].error < 1e-3)


def test_an_unknown_step_between_parameters_is_named():
    model = network(lambda p, x: x * jax.lax.erf_inv(p["w"]), (1, 1, 1), w=np.zeros((1, 1, 1, 1)))
    with pytest.raises(ValueError, match="no bound is known for the primitive 'erf_inv'"):
        certify(model, "out", box(1, 1, 1))


# --- means and chains
# ------------------------------------------------------------------------------------------------


def test_the_mean_itself_is_rounded():
    """28 x 28 equal values: their float32 mean is above each of them."""
    value = np.float32(0.77457625)
    found = holds(
        network(lambda p, x: x, (28, 28, 1)),
        box(28, 28, 1, high=float(value)),
        np.full((1, 28, 28, 1), value),
    )
    assert found.node[0] == value < found.score[0] < value * (1 + 1e-4)


def test_a_mean_of_both_signs_is_rounded_by_its_magnitudes():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, 20, 20, 1)) * 1e6
    model = network(lambda p, x: x * 0 + p["w"], (20, 20, 1), w=weights - weights.mean())
    ends = intervals(model, box(20, 20, 1))["pre"]
    proved = assemble(model, "pre", box(20, 20, 1)).score
    values = np.asarray(model.params["w"], np.float64)[0, ..., 0].ravel()
    for order in (values, np.sort(values), -np.sort(-values)):
        assert np.cumsum(order.astype(np.float32), dtype=np.float32)[-1] / 400 <= proved[0]
    assert proved[0] >= computed_mean(ends.high.mean((0, 1)), ends)[0] > 0.1


@dataclass(frozen=True)
class Columns:
    """Two convolutions, the first with a bias for each column (as many as maps) or for each map."""

    shape: tuple[int, ...]

    def __call__(self, params, x):
        a = ops.conv2d(x, params["w1"]) + params["b1"].reshape(self.shape)
        b = ops.conv2d(jax.nn.relu(a), params["w2"]) + params["b2"].reshape(1, 1, 1, -1)
        return {"a_pre": a, "a": jax.nn.relu(a), "b_pre": b, "b": jax.nn.relu(b)}


def test_a_bias_of_columns_is_none_of_maps():
    rng = np.random.default_rng(0)
    params = {
        "w1": rng.normal(size=(2, 2, 1, 4)),
        "b1": [-5, -5, -5, 5],
        "w2": rng.normal(size=(2, 2, 4, 3)),
        "b2": [0, 0, 0],
    }
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    names, floors = ("a_pre", "a", "b_pre", "b"), {"a": ("a_pre", 0.0), "b": ("b_pre", 0.0)}
    for shape, length in (((1, 1, 4, 1), 0), ((1, 4, 1, 1), 0), ((1, 1, 1, 4), 2)):
        model = Model("columns", Columns(shape), params, names, (5, 5, 1), nonlinearities=floors)
        assert len(chain(model, "b")) == length


# --- the sphere
# ------------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_no_image_exceeds_the_shared_energy(seed):
    """Images climbed along the gradient of each node come near the bound, and stay below it."""
    config, rng = cnn.CNNConfig((6, 6, 1), (3, 4), 2, (2, 1), (), 2), np.random.default_rng(seed)
    model = random_cnn(config, seed)
    first, second = chain(model, "conv2")
    limit = energy_bound(first, second, Sphere((6, 6, 1)), steps=30)
    x = climbed(model, "conv2_pre", jnp.asarray(rng.normal(size=(32, 6, 6, 1)), jnp.float32))
    best = np.asarray(model.apply(model.params, x)["conv2_pre"], np.float64).max((0, 1, 2))
    error = intervals(model, Sphere((6, 6, 1)))["conv2_pre"].error.max((0, 1))
    assert np.all(best <= limit + error)
    assert np.all(best >= second.bias - 1e-6) and ROUNDING < 1e-6


def random_cnn(config: cnn.CNNConfig, seed: int) -> Model:
    """A network of normal weights and biases."""
    shapes = jax.eval_shape(lambda: cnn.init(jax.random.key(0), config))
    rng = np.random.default_rng(seed)
    return cnn.model(
        jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes),
        config,
    )


def climbed(model: Model, layer: str, starts):
    """Standardised images ``[n, h, w, c]``, each of which lifts the first node of one map."""
    return _climbed(model.apply, layer, model.params, starts)


def _climb(apply, layer, params, starts):
    maps = jax.eval_shape(apply, params, starts)[layer].shape[3]
    which = jax.nn.one_hot(jnp.arange(len(starts)) % maps, maps)

    def height(x):
        return jnp.sum(apply(params, jax.vmap(standardise)(x))[layer][:, 0, 0] * which)

    def step(_, x):
        slope = jax.grad(height)(x)
        return jax.vmap(standardise)(
            x + 3 * slope / jnp.maximum(jnp.abs(slope).max((1, 2, 3), keepdims=True), 1e-9)
        )

    return jax.lax.fori_loop(0, 40, step, jax.vmap(standardise)(starts))


_climbed = jax.jit(_climb, static_argnums=(0, 1))


# --- the shipped network
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_the_hull_proves_of_the_shipped_network_holds_in_float32():
    """Real digits, black and white noise, and the corners that lift each map's linear part."""
    model = oipjax.load()
    domain, rng = space_for(model, "box").domain, np.random.default_rng(0)
    limits = hull_limits(model, "conv2", domain, splits=0, steps=30)
    found = assemble(model, "conv2", domain, limits)
    noise = rng.integers(0, 2, (200, 28, 28, 1))
    pixels = np.concatenate([noise, np.repeat(np.repeat(noise[:, ::4, ::4], 4, 1), 4, 2)]).astype(
        np.float32
    )
    images = np.concatenate([model.to_input(pixels), model.to_input(data.sample().images[:200])])
    out = jax.jit(model.apply)(model.params, jnp.asarray(images))
    low, high = limits["conv2_pre"]
    value = np.asarray(out["conv2_pre"], np.float64)
    error = intervals(model, domain)["conv2_pre"].error.max((0, 1))
    assert np.all(value.max((0, 1, 2)) <= high + error) and np.all(
        value.min((0, 1, 2)) >= low - error
    )
    assert np.all(value.max((0, 1, 2)) <= found.node)
    assert np.all(np.asarray(out["conv2"]).mean((1, 2)).max(0) <= found.score)
    strips = refine_scores(model, assemble(model, "conv1", domain), domain)
    assert np.all(np.asarray(out["conv1"]).mean((1, 2)).max(0) <= strips.score)
