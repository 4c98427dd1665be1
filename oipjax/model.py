"""A trained network as a pure function and its parameters.

Nothing here knows Flax: any function that returns its activations is a network. Layers come before
and after their nonlinearity (``conv3_pre``, ``conv3``), because a ReLU that is off has no gradient.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.ops import trace_only

Params = Any
Activations = dict[str, Array]


@dataclass(frozen=True)
class LayerInfo:
    """What is known of one layer.

    Attributes:
        name: the key in the activations.
        shape: of one image's activations, ``(h, w, k)`` or ``(k,)``.
        pre: the layer that holds its value before the nonlinearity, if it has one.
        floor: the smallest value the nonlinearity can give (0 for ReLU); None if there is none.
    """

    name: str
    shape: tuple[int, ...]
    pre: str | None = None
    floor: float | None = None

    @property
    def maps(self) -> int:
        """The number of maps (channels)."""
        return self.shape[-1]


@runtime_checkable
class Network(Protocol):
    """A pure function that returns activations; a subclass may compute less than all of them.

    A frozen dataclass that subclasses it and defines `__call__` is a network. The other methods
    compute everything and drop what was not asked for; override them where less will do.
    """

    def __call__(self, params: Params, x: Array) -> Activations:
        """Activations of all layers for images ``x [n, h, w, c]``."""
        ...

    def activations(self, params: Params, x: Array, layers: tuple[str, ...]) -> Activations:
        """Activations of some layers, in their order."""
        every = self(params, x)
        return {name: every[name] for name in layers}

    def channel(self, params: Params, x: Array, layer: str, index: Array) -> Activations:
        """One channel of a layer and of the layer before its nonlinearity, ``[n, h, w, 1]``.

        Under `jax.vmap` each image may ask for a channel of its own. Layers with as many channels
        may be among what is returned.

        Args:
            params: the parameters.
            x: images ``[n, h, w, c]``.
            layer: name of the layer.
            index: the channel, an integer scalar.
        """
        every = self(params, x)
        channels = every[layer].shape[-1]
        alike = {name: a for name, a in every.items() if a.shape[-1] == channels}
        return {name: jnp.take(a, index[None], axis=-1) for name, a in alike.items()}


@dataclass(frozen=True)
class FunctionNetwork(Network):
    """A plain function as a `Network`."""

    function: Callable[[Params, Array], Activations]

    def __call__(self, params: Params, x: Array) -> Activations:
        """See `Network`."""
        return self.function(params, x)


@dataclass(frozen=True, eq=False)
class Model:
    """A network, ready to be looked into.

    Attributes:
        name: for people and for folder names.
        apply: pure function ``apply(params, x[n, h, w, c]) -> {layer: array[n, h, w, k] or [n,
            k]}``, float32, NHWC. An ascent with ``precision="bf16"`` gives it numbers of 16 bits,
            and constants of 32 bits may then not fit. Programs are cached per ``apply``, so give
            equal networks equal functions (a frozen dataclass with `X
        params: the pytree that goes with it; always passed as an argument, never closed over.
        layers: names of the activations, in the network's order (jit sorts dictionary keys).
        input_shape: of one image, ``(h, w, c)``.
        mean, std: the normalisation, one number per channel: network input = (pixel in [0, 1] -
            mean) / std.
        nonlinearities: for a layer after a nonlinearity, ``(layer before it, floor or None)``.
        classes: names of the output classes, if any.
    """

    name: str
    apply: Callable[[Params, Array], Activations]
    params: Params
    layers: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    nonlinearities: Mapping[str, tuple[str, float | None]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @property
    def network(self) -> Network:
        """``apply`` as a `Network`."""
        return self.apply if isinstance(self.apply, Network) else FunctionNetwork(self.apply)

    @property
    def normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """``(mean, std)`` as float32 arrays ``[c]``."""
        channels = self.input_shape[2]
        return tuple(
            np.broadcast_to(np.asarray(v, np.float32), (channels,)) for v in (self.mean, self.std)
        )  # pyright: ignore

    @property
    def input_box(self) -> tuple[np.ndarray, np.ndarray]:
        """The box of valid inputs, ``(low[c], high[c])``: where black and white pixels are mapped to."""
        mean, std = self.normalisation
        ends = np.stack([(0 - mean) / std, (1 - mean) / std])
        return ends.min(0), ends.max(0)

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Network inputs of ``pixels[..., h, w, c]``: floats in [0, 1], or uint8."""
        pixels = np.asarray(pixels)
        scaled = (
            pixels.astype(np.float32) / np.float32(255)
            if pixels.dtype == np.uint8
            else pixels.astype(np.float32)
        )
        mean, std = self.normalisation
        return (scaled - mean) / std

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's activations for one image, in the network's order. Nothing is computed for it."""
        image = jax.ShapeDtypeStruct((1, *self.input_shape), np.float32)
        with trace_only():
            out = jax.eval_shape(self.apply, self.params, image)
        return {name: tuple(out[name].shape[1:]) for name in self.layers}

    def layer(self, name: str) -> LayerInfo:
        """Facts about one layer.

        Raises:
            ValueError: there is no such layer; the message lists those there are.
        """
        if name not in self.layers:
            raise ValueError(f"{self.name} has no layer {name!r}; it has {', '.join(self.layers)}")
        pre, floor = self.nonlinearities.get(name, (None, None))
        return LayerInfo(name, self.shapes[name], pre, floor)

    @property
    def default_layer(self) -> str:
        """The deepest layer of maps with a nonlinearity (pooled ones apart), or the last layer."""
        named = [
            name
            for name in self.layers
            if name in self.nonlinearities and not name.startswith("pool")
        ]
        maps = [name for name in named if len(self.shapes[name]) == 3]
        return maps[-1] if maps else self.layers[-1]


def normalise(pixels: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """As `Model.to_input`, inside a compiled program: network inputs of pixels ``float32 [n, h, w, c]`` in [0, 1]."""
    mean_of, std_of = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (mean, std))
    return (pixels - mean_of) / std_of
