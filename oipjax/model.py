"""A trained network as a pure function and its parameters.

Nothing here knows Flax: any function that returns its activations is a network. Layers come before
and after their nonlinearity (``conv3_pre``, ``conv3``), because a ReLU that is off has no gradient.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

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


@dataclass(frozen=True, eq=False)
class Model:
    """A network, ready to be looked into.

    Attributes:
        name: for people and for folder names.
        apply: pure function ``apply(params, x[n, h, w, c]) -> {layer: array[n, h, w, k] or [n,
            k]}``, float32, NHWC. An ascent with ``precision="bf16"`` gives it numbers of 16 bits,
            and constants of 32 bits may then not fit. Programs are cached per ``apply``, so give
            equal networks equal functions (a frozen dataclass with ``__call__``, or one
            module-level function), not a fresh lambda each time. What it can do faster than that it
            may say by methods, see `some` and `one_map`.
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


def some(
    apply: Callable[..., Activations], params: Params, x: Array, names: tuple[str, ...]
) -> Activations:
    """The layers of these names, in their order.

    An ``apply`` may have a method ``some(params, x, names)`` that gives no more than it is asked
    for. XLA drops what is not used anyway, but only after it has been traced.
    """
    own = getattr(apply, "some", None)
    out = apply(params, x) if own is None else own(params, x, names)
    return {name: out[name] for name in names}


def one_map(
    apply: Callable[..., Activations], params: Params, x: Array, layer: str, number: Array
) -> Activations | None:
    """One map of a layer, before and after its nonlinearity, ``[n, h, w, 1]``; None if ``apply`` has no way to do that.

    Such a way is its method ``one_map(params, x, layer, number)``: under `jax.vmap` each image may
    ask for a map of its own, by a fraction of the products that all maps take.
    """
    own = getattr(apply, "one_map", None)
    return None if own is None else own(params, x, layer, number)


def normalise(pixels: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """As `Model.to_input`, inside a compiled program: network inputs of pixels ``float32 [n, h, w, c]`` in [0, 1]."""
    mean_of, std_of = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (mean, std))
    return (pixels - mean_of) / std_of


def fingerprint(params: Params) -> str:
    """sha256 over the sorted (path, dtype, shape, bytes) of all parameters: equal iff every bit is equal."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flatten(params: Params) -> dict[str, np.ndarray]:
    """``{"conv1/kernel": array, ...}``."""
    return {path: np.asarray(leaf) for path, leaf in leaves(params).items()}


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as they are."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


def check_finite(params: Params, name: str) -> None:
    """Raise a ValueError that names the parameters holding NaN or infinity."""
    bad = [path for path, leaf in flatten(params).items() if not np.all(np.isfinite(leaf))]
    if bad:
        raise ValueError(
            f"{name}: NaN or infinity in the parameters {', '.join(bad)}; such a network has no scores"
        )
