"""Naive JAX: ``vmap(grad)`` of a network made of lax's own convolution and pooling, sigmoid pixels, optax's Adam.

All steps of a batch are one compiled loop. Settings are named layer, rate; ``documented`` is the
usual first try, one map after another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from protocol import CONVOLUTIONS, serve


class Naive:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.mean, self.std = network["mean"], network["std"]
        self.shape = network["check_images"].shape[1:]
        self.weights = [
            (jnp.asarray(network[f"{n}_kernel"]), jnp.asarray(network[f"{n}_bias"]))
            for n in CONVOLUTIONS
        ]

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {"jax": jax.__version__, "optax": optax.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return np.asarray(jax.nn.relu(_conv3_before_relu(self.weights, jnp.asarray(images))))

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`."""
        single = setting == "documented"
        layer, rate = ("conv3", "0.05") if single else setting.split(", ")
        groups = [[target] for target in targets] if single else [targets]
        keys = jax.random.split(jax.random.key(seed), len(groups))
        pixels = [
            _climb(
                layer == "conv3",
                float(rate),
                self.weights,
                self.mean,
                self.std,
                0.01 * jax.random.normal(key, (len(group), *self.shape)),
                jnp.asarray(group),
                steps,
            )
            for key, group in zip(keys, groups, strict=True)
        ]
        return np.concatenate(pixels)


def _conv3_before_relu(weights, x):
    for number, (kernel, bias) in enumerate(weights):
        x = (
            lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + bias
        )
        if number < len(weights) - 1:
            x = lax.reduce_window(
                jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )
    return x


@functools.partial(jax.jit, static_argnums=(0, 1))
def _climb(relu, rate, weights, mean, std, z, targets, steps):
    optimiser = optax.adam(rate)

    def image(z):
        return (jax.nn.sigmoid(z) - mean) / std

    def loss(z, target):
        maps = _conv3_before_relu(weights, image(z)[None])[0]
        return -jnp.mean((jax.nn.relu(maps) if relu else maps)[..., target])

    def step(_, state):
        z, memory = state
        updates, memory = optimiser.update(jax.vmap(jax.grad(loss))(z, targets), memory)
        return optax.apply_updates(z, updates), memory

    return image(lax.fori_loop(0, steps, step, (z, optimiser.init(z)))[0])


serve(Naive)
