"""A model: facts about its layers, its identity, and functions that are no networks."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oipjax.model import LayerFacts, Model
from oipjax.networks import Autoencoder, AutoencoderConfig, CNNConfig, autoencoder, cnn
from oipjax.pytrees import fingerprint, flatten, program_fingerprint

W = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype(np.float32)


def conv(x, w):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dimensions)


def relu_net(params, x):
    pre = conv(x, params)
    return {"pre": pre, "out": jax.nn.relu(pre), "mean": pre.mean((1, 2))}


def mine(apply, layers=("out",), **options) -> Model:
    params = options.pop("params", W)
    return Model("mine", apply, params, layers, (6, 8, 1), **options)


# --- layers


def test_layers_of_our_own_networks_say_what_they_are(tiny):
    kinds = {name: tiny.layer(name).kind for name in tiny.layers}
    assert kinds == {
        "conv1_pre": "conv",
        "conv1": "nonlinearity",
        "pool1_pre": "pool",
        "pool1": "pool",
        "conv2_pre": "conv",
        "conv2": "nonlinearity",
        "dense1_pre": "dense",
        "dense1": "nonlinearity",
        "logits": "output",
    }
    layer = tiny.layer("conv2")
    assert (layer.pre, layer.floor, layer.ceiling) == ("conv2_pre", 0.0, None)
    assert layer.parameters == () and layer.shape == (1, 1, 6) and layer.maps == 6


@pytest.mark.parametrize("which", ["cnn", "autoencoder"])
def test_each_parameter_belongs_to_one_layer(which):
    if which == "cnn":
        config = CNNConfig((12, 12, 1), (3, 4), 3, (2, 2), (5, 6), 3)
        model = cnn.model(cnn.init(jax.random.key(0), config), config)
    else:
        config = AutoencoderConfig((8, 8, 1), (3, 4), 3, (2, 1), 5)
        params = autoencoder.init(jax.random.key(0), config)
        model = Autoencoder(config, params).model
        assert {name: model.layer(name).kind for name in model.layers[-3:]} == {
            "latent": "dense",
            "image_pre": "conv",
            "image": "output",
        }
    used = [path for name in model.layers for path in model.layer(name).parameters]
    assert sorted(used) == sorted(flatten(model.params))
    apply = jax.jit(model.apply)
    image = jnp.ones((1, *model.input_shape))
    before = apply(model.params, image)
    paths, structure = jax.tree_util.tree_flatten_with_path(model.params)
    for name in model.layers:
        parameters = model.layer(name).parameters
        changed = [
            leaf + 1
            if jax.tree_util.keystr(path, simple=True, separator="/") in parameters
            else leaf
            for path, leaf in paths
        ]
        after = apply(jax.tree_util.tree_unflatten(structure, changed), image)
        assert np.array_equal(before[name], after[name]) == (not parameters), name


def test_layers_of_a_plain_function_have_likely_kinds():
    layers = ("pre", "out", "flat", "mean")

    def apply(params, x):
        out = relu_net(params, x)
        return out | {"flat": out["mean"]}

    model = mine(apply, layers, nonlinearities={"out": ("pre", 0.0)})
    kinds = [model.layer(name).kind for name in layers]
    assert kinds == ["conv", "nonlinearity", "dense", "output"]
    assert all(model.layer(name).parameters == () for name in layers)
    assert model.default_layer == "out" and model.layer("out").pre == "pre"
    assert mine(apply, layers).default_layer == "mean"
    facts = {"pre": LayerFacts("norm", ceiling=2.0)}
    assert mine(apply, layers, facts=facts).layer("pre").kind == "norm"
    assert mine(apply, layers, facts=facts).layer("pre").ceiling == 2.0


# --- what apply returns


@pytest.mark.parametrize(
    ("apply", "layers", "words"),
    [
        (lambda p, x: {"out": {"__call__": (conv(x, p),)}}, ("out",), "layer 'out' is a dict"),
        (lambda p, x: (conv(x, p),), ("out",), "apply returns a tuple, expected a dictionary"),
        (conv, ("out",), "expected a dictionary of arrays, one for each of out"),
        (relu_net, ("conv",), "apply returns no layer 'conv'; it returns mean, out, pre"),
        (lambda p, x: {"out": None}, ("out",), "layer 'out' is a NoneType"),
        (lambda p, x: {"out": conv(x, p)[0]}, ("out",), r"is \[6, 8, 4\] for 11 images"),
        (lambda p, x: {"out": x.mean((1, 2, 3))}, ("out",), r"is \[11\] for 11 images"),
        (lambda p, x: {"out": jnp.argmax(conv(x, p), -1)[..., None]}, ("out",), "of type int32"),
    ],
)
def test_functions_that_are_no_networks_are_refused(apply, layers, words):
    def swapped(params, x):
        return apply(x, params) if apply is conv else apply(params, x)

    with pytest.raises(ValueError, match=words) as caught:
        mine(swapped, layers).layer(layers[0])
    assert str(caught.value).startswith("mine: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"out": ("nope", 0.0)}, "apply returns no layer 'nope'"),
        ({"nope": ("out", 0.0)}, "apply returns no layer 'nope'"),
        ({"out": "pre"}, "the nonlinearity of 'out' is declared as 'pre'"),
        ({"out": ("pre", "0")}, "expected .layer before it, floor or None."),
        ({"out": ("pre", np.nan)}, "expected .layer before it, floor or None."),
        ({"out": ("pre", 0.0, 1.0)}, "expected .layer before it, floor or None."),
        ({"out": ("narrow", 0.0)}, "'out' has 4 maps, but 'narrow' before it has 2"),
    ],
)
def test_nonlinearities_that_do_not_fit_are_refused(declared, words):
    def apply(params, x):
        out = relu_net(params, x)
        return out | {"narrow": out["pre"][..., :2]}

    with pytest.raises(ValueError, match=words):
        mine(apply, nonlinearities=declared).layer("out")


def test_other_outputs_of_apply_do_not_matter():
    model = mine(lambda p, x: relu_net(p, x) | {"note": {"nested": jnp.zeros(3, jnp.int32)}})
    assert model.shapes == {"out": (6, 8, 4)}


# --- identity


@dataclass(frozen=True)
class Closed:
    """A network that closes over its weights; ``scale`` is a constant of the program."""

    weights: bytes
    scale: float = 2.0

    def __call__(self, params, x):
        w = np.frombuffer(self.weights, np.float32).reshape(W.shape)
        return {"out": self.scale * jax.nn.relu(conv(x, w))}


def test_the_identity_sees_everything_that_decides_the_activations():
    def closed(weights, scale=2.0, **options):
        return mine(Closed(weights.tobytes(), scale), params=None, **options)

    other = W.copy()
    other[0, 0, 0, 0] = np.nextafter(other[0, 0, 0, 0], np.float32(9))
    models = {
        "as it is": closed(W),
        "one bit of a weight that is closed over": closed(other),
        "a number in the program": closed(W, float(np.nextafter(np.float32(2), np.float32(3)))),
        "mean": closed(W, mean=(0.1,)),
        "std": closed(W, std=(0.5,)),
        "input shape": replace(closed(W), input_shape=(6, 9, 1)),
        "floor": closed(W, nonlinearities={"out": ("out", 0.0)}),
        "no floor": closed(W, nonlinearities={"out": ("out", None)}),
        "parameters": mine(Closed(W.tobytes()), params={"unused": W}),
        "another program": mine(lambda p, x: {"out": jax.nn.elu(conv(x, W))}, params=None),
        "the same steps otherwise connected": mine(
            lambda p, x: {"out": jax.nn.elu(conv(jax.nn.elu(x), W) - x)}, params=None
        ),
        "connected": mine(
            lambda p, x: {"out": jax.nn.elu(conv(jax.nn.elu(x), W) - jax.nn.elu(x))}, params=None
        ),
    }
    identities = {name: model.identity for name, model in models.items()}
    assert len(set(identities.values())) == len(models), identities
    assert closed(W).identity == identities["as it is"]
    assert all(len(identity) == 64 for identity in identities.values())


def test_the_identity_sees_weights_that_are_scaled_in_the_function():
    def network(scale):
        return mine(lambda p, x: {"out": conv(x, scale * jnp.asarray(W))}, params=None)

    assert network(1.0).identity == network(1.0).identity != network(-5.0).identity


def test_the_identity_does_not_see_names_nor_settings(tiny):
    renamed = replace(tiny, name="other", params=jax.tree.map(np.asarray, tiny.params))
    assert renamed.identity == tiny.identity
    with jax.default_matmul_precision("bfloat16"):
        assert replace(tiny).identity == tiny.identity

    def first(params, x):
        return {"out": jax.jit(jax.nn.relu)(conv(x, params))}

    def second(weights, image):
        activations = jax.jit(jax.nn.relu)(conv(image, weights))
        return {"out": activations}

    assert mine(first).identity == mine(second).identity


CHILD = """
import jax, numpy as np, oipjax
from oipjax.model import Model

def apply(params, x):
    def body(carry, _):
        return jax.nn.relu(carry * 2 + W), None
    W = jax.random.normal(jax.random.key(0), (1, 1, 1, 1))
    turned, _ = jax.lax.scan(body, x, None, length=2)
    picked = jax.lax.cond(x.sum() > 0, lambda a: a, lambda a: -a, turned)
    return {"out": picked, "noise": x + jax.random.normal(jax.random.key(1), x.shape)}

print(oipjax.load().identity, Model("m", apply, None, ("out", "noise"), (4, 4, 1)).identity)
"""


def test_the_identity_is_the_same_in_every_process():
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", CHILD]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and len(outputs[0].split()) == 2


def test_constants_of_inner_programs_and_random_keys_count():
    def program(key, constant):
        def function(x):
            return jax.jit(lambda y: y + constant)(x) + jax.random.normal(key, (2,))

        return program_fingerprint(jax.make_jaxpr(function)(jnp.zeros(2)))

    key = jax.random.key(0)
    base = program(key, np.array([1, 2], np.float32))
    assert base == program(key, np.array([1, 2], np.float32))
    assert base != program(key, np.array([1, 3], np.float32))
    assert base != program(jax.random.key(1), np.array([1, 2], np.float32))
    assert fingerprint({"a": W}) != fingerprint({"b": W})
