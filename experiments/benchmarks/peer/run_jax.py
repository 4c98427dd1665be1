"""Naive JAX: ``vmap(grad)`` of a network of lax's convolution and pooling, with optax's Adam.

Pixels are sigmoids. All steps of a batch are one compiled loop. Settings are named layer, rate.
``documented`` is the usual first try, one map after another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from protocol import CONVOLUTIONS, Network, serve


class Naive:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.mean = network["mean"]
        self.std = network["std"]
        self.shape = network["check_images"].shape[1:]
        self.weights = []
        for name in CONVOLUTIONS:
            kernel = jnp.asarray(network[f"{name}_kernel"])
            bias = jnp.asarray(network[f"{name}_bias"])
            self.weights.append((kernel, bias))

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {"jax": jax.__version__, "optax": optax.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        maps = _conv3_before_relu(self.weights, jnp.asarray(images))
        return np.asarray(jax.nn.relu(maps))

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`."""
        is_single = setting == "documented"
        layer, rate = ("conv3", "0.05") if is_single else setting.split(", ")
        groups = [[target] for target in targets] if is_single else [targets]
        keys = jax.random.split(jax.random.key(seed), len(groups))
        optimise = functools.partial(
            _climb, layer == "conv3", float(rate), self.weights, self.mean, self.std
        )
        images = []
        for key, group in zip(keys, groups, strict=True):
            z = 0.01 * jax.random.normal(key, (len(group), *self.shape))
            images.append(optimise(z, jnp.asarray(group), steps))
        return np.concatenate(images)


def _conv3_before_relu(weights, x):
    order = ("NHWC", "HWIO", "NHWC")
    sides = (1, 2, 2, 1)
    for number, (kernel, bias) in enumerate(weights):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=order)
        x = y + bias
        if number < len(weights) - 1:
            x = jax.nn.relu(x)
            x = lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")
    return x


@functools.partial(jax.jit, static_argnums=(0, 1))
def _climb(relu, rate, weights, mean, std, z, targets, steps):
    """Network inputs after ``steps`` of Adam from ``z``, by the maps after or before the ReLU."""
    optimiser = optax.adam(rate)

    def image(z):
        return (jax.nn.sigmoid(z) - mean) / std

    def loss(z, target):
        maps = _conv3_before_relu(weights, image(z)[None])[0]
        if relu:
            maps = jax.nn.relu(maps)
        return -jnp.mean(maps[..., target])

    def step(_, carry):
        z, state = carry
        gradient = jax.vmap(jax.grad(loss))(z, targets)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(z, updates), state

    start = (z, optimiser.init(z))
    z, _ = lax.fori_loop(0, steps, step, start)
    return image(z)


serve(Naive)
