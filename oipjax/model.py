"""A trained network as a pure function, its parameters and its layers.

Any function that returns its activations is a network. Layers come before and after their
nonlinearity (``conv3_pre``, ``conv3``), because a ReLU that is off has no gradient.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.images import to_unit
from oipjax.ops import trace_only
from oipjax.pytrees import fingerprint, program_fingerprint

Params = Any
Activations = dict[str, Array]
Kind = Literal[
    "conv", "dense", "norm", "nonlinearity", "pool", "add", "concat", "attention", "output"
]

TRACED_IMAGES = 11
"""How many images ``apply`` is traced with: a number that hardly any layer has as its height."""


@dataclass(frozen=True)
class LayerFacts:
    """What a network declares of one of its layers.

    Attributes:
        kind: what the layer computes; "nonlinearity" for a layer after its nonlinearity.
        ceiling: the largest value the layer can have; None if there is none.
        parameters: paths of the parameters that the layer uses, as in `pytrees.flatten`.
    """

    kind: Kind
    ceiling: float | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LayerInfo(LayerFacts):
    """What is known of one layer: its `LayerFacts`, and what the `Model` adds to them.

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
        """Activations of the given layers, in their order."""
        every = self(params, x)
        return {name: every[name] for name in layers}

    def channel(self, params: Params, x: Array, layer: str, index: Array) -> Activations:
        """One channel of a layer and of the layer before its nonlinearity, ``[n, h, w, 1]``.

        Under `jax.vmap` each image may ask for a channel of its own. Other layers that have the
        same number of channels may be among what is returned.

        Args:
            params: the parameters.
            x: images ``[n, h, w, c]``.
            layer: name of the layer.
            index: the channel, an integer scalar.
        """
        every = self(params, x)
        channels = every[layer].shape[-1]
        out = {}
        for name, activation in every.items():
            if activation.shape[-1] == channels:
                out[name] = jnp.take(activation, index[None], axis=-1)
        return out


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
            equal networks equal functions (a frozen dataclass with ``__call__``).
        params: the pytree that goes with it; always passed as an argument, never closed over.
        layers: names of the activations, in the network's order (jit sorts dictionary keys).
        input_shape: of one image, ``(h, w, c)``.
        mean, std: the normalisation, one number per channel: network input = (pixel in [0, 1] -
            mean) / std.
        nonlinearities: for a layer after a nonlinearity, ``(layer before it, floor or None)``.
        classes: names of the output classes, if any.
        facts: for layers of which more is known, their kind, ceiling and parameters.
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
    facts: Mapping[str, LayerFacts] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """``apply`` as a `Network`."""
        return self.apply if isinstance(self.apply, Network) else FunctionNetwork(self.apply)

    @property
    def normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """``(mean, std)`` as float32 arrays ``[c]``."""
        channels = (self.input_shape[2],)
        mean = np.broadcast_to(np.asarray(self.mean, np.float32), channels)
        std = np.broadcast_to(np.asarray(self.std, np.float32), channels)
        return mean, std

    @property
    def input_box(self) -> tuple[np.ndarray, np.ndarray]:
        """The box of valid inputs, ``(low[c], high[c])``: the inputs of black and white pixels."""
        mean, std = self.normalisation
        ends = np.stack([(0 - mean) / std, (1 - mean) / std])
        return ends.min(0), ends.max(0)

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Network inputs of ``pixels[..., h, w, c]``: floats in [0, 1], or uint8."""
        mean, std = self.normalisation
        return (to_unit(np.asarray(pixels)) - mean) / std

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's activations for one image, in order; nothing is computed for it.

        Raises:
            ValueError: ``apply`` does not return what `Model` says, or the declared layers do not
                fit; the message says what was expected.
        """
        with trace_only():
            out = jax.eval_shape(self.apply, self.params, self._traced_images)
        return _checked_shapes(self, out)

    @cached_property
    def identity(self) -> str:
        """A sha256 that tells networks apart, however they are written.

        It covers the parameters, the traced program of ``apply`` with all its constants (so also
        weights that ``apply`` closes over), the input's shape and normalisation, and the layers.
        It is the same in every process, but may change with the version of JAX.
        """
        layers = list(self.shapes.items())
        # The precision of products that is set from outside belongs to a run, not to the network.
        with trace_only(), jax.default_matmul_precision(None):
            program = jax.make_jaxpr(self.apply)(self.params, self._traced_images)
        mean, std = self.normalisation
        nonlinearities = {}
        for name, (pre, floor) in self.nonlinearities.items():
            nonlinearities[name] = [pre, None if floor is None else float(floor)]
        content = {
            "parameters": fingerprint(self.params),
            "program": program_fingerprint(program),
            "input_shape": self.input_shape,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "layers": layers,
            "nonlinearities": nonlinearities,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def layer(self, name: str) -> LayerInfo:
        """Facts about one layer.

        Where a network declares no `LayerFacts`, a layer after a nonlinearity is of that kind, the
        last layer is the output, and others are of kind "conv" or "dense" by their shape.

        Raises:
            ValueError: there is no such layer; the message lists those there are.
        """
        if name not in self.layers:
            raise ValueError(f"{self.name} has no layer {name!r}; it has {', '.join(self.layers)}")
        shape = self.shapes[name]
        pre, floor = self.nonlinearities.get(name, (None, None))
        facts = self.facts.get(name, LayerFacts(self._likely_kind(name, shape)))
        return LayerInfo(name=name, shape=shape, pre=pre, floor=floor, **vars(facts))

    @property
    def default_layer(self) -> str:
        """The deepest nonlinearity with maps of more than one node, or else the last layer."""
        for layer in map(self.layer, reversed(self.layers)):
            if layer.kind == "nonlinearity" and len(layer.shape) == 3:
                return layer.name
        return self.layers[-1]

    @property
    def _traced_images(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((TRACED_IMAGES, *self.input_shape), np.float32)

    def _likely_kind(self, name: str, shape: tuple[int, ...]) -> Kind:
        if name in self.nonlinearities:
            return "nonlinearity"
        if name == self.layers[-1]:
            return "output"
        return "conv" if len(shape) == 3 else "dense"


def _checked_shapes(model: Model, out: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of one image's activations by layer; see `Model.shapes`."""
    if not isinstance(out, dict):
        raise ValueError(
            f"{model.name}: apply returns a {type(out).__name__}, expected a dictionary of arrays, "
            f"one for each of {', '.join(model.layers)}"
        )
    for name, declared in model.nonlinearities.items():
        _check_nonlinearity(model, name, declared)
    layers_before = [pre for pre, _ in model.nonlinearities.values()]
    for name in (*model.layers, *model.nonlinearities, *layers_before):
        if name not in out:
            given = ", ".join(out)
            raise ValueError(f"{model.name}: apply returns no layer {name!r}; it returns {given}")
    for name, (pre, _) in model.nonlinearities.items():
        maps = _checked_shape(model, name, out[name])[-1]
        maps_before = _checked_shape(model, pre, out[pre])[-1]
        if maps != maps_before:
            raise ValueError(
                f"{model.name}: {name!r} has {maps} maps, but {pre!r} before it has {maps_before}"
            )
    return {name: _checked_shape(model, name, out[name]) for name in model.layers}


def _checked_shape(model: Model, name: str, array: Any) -> tuple[int, ...]:
    """The shape of a layer of one image."""
    if not isinstance(array, jax.ShapeDtypeStruct):
        given = f"a {type(array).__name__}"
    elif not jnp.issubdtype(array.dtype, jnp.floating):
        given = f"of type {array.dtype}"
    elif array.ndim < 2 or array.shape[0] != TRACED_IMAGES:
        given = f"{list(array.shape)} for {TRACED_IMAGES} images"
    else:
        return array.shape[1:]
    raise ValueError(
        f"{model.name}: layer {name!r} is {given}, "
        "expected floating numbers [n, h, w, k] or [n, k] for n images"
    )


def _check_nonlinearity(model: Model, name: str, declared: Any) -> None:
    """Raise a ValueError unless a nonlinearity is declared by the layer before it and a floor."""
    if isinstance(declared, tuple) and len(declared) == 2:
        pre, floor = declared
        is_number = isinstance(floor, float | int | np.number) and np.isfinite(floor)
        if isinstance(pre, str) and (floor is None or is_number):
            return
    raise ValueError(
        f"{model.name}: the nonlinearity of {name!r} is declared as {declared!r}, "
        "expected (layer before it, floor or None)"
    )
