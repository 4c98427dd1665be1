"""The convolutional network of the MNIST tutorials, with its layers and sizes open to change.

The default is 28x28x1 -> conv 3x3 32 -> pool 2 -> conv 3x3 64 -> pool 2 -> conv 3x3 128 -> dense
100 -> dense 10, all 'valid', ReLU; the third convolution has 128 maps of 3x3 nodes.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oipjax import ops
from oipjax.model import Activations, LayerFacts, Model, Network, Params

ACTIVATIONS = {
    "relu": (jax.nn.relu, 0.0),
    "leaky_relu": (jax.nn.leaky_relu, None),
    "elu": (jax.nn.elu, None),
    "tanh": (jnp.tanh, None),
}
"""Name -> (function, floor): the least value it can give, if it takes that value on a whole
region."""

LOGITS = "logits"
"""Name of the output layer."""

Size = tuple[int, int]


class Stage(NamedTuple):
    """A convolution, pool or dense layer, and the nonlinearity behind it.

    Attributes:
        kind: of the layer before its nonlinearity.
        number: of the layer among those of its kind, from 1.
        blocks: number of blocks (a convolution and its pool) that an image passes before.
    """

    kind: Literal["conv", "pool", "dense"]
    number: int
    blocks: int

    @property
    def name(self) -> str:
        """Name of the activations after the nonlinearity, and of the parameters."""
        return f"{self.kind}{self.number}"

    @property
    def pre(self) -> str:
        """Name of the activations before the nonlinearity."""
        return f"{self.name}_pre"


@dataclass(frozen=True)
class CNNConfig:
    """The architecture, equal by value and small enough to be written into a checkpoint.

    Attributes:
        input_shape: one image, ``(h, w, c)``.
        filters: maps of each convolution.
        kernel: side of every kernel, in pixels.
        pools: side of the max-pool after each convolution; 1 for none.
        dense: nodes of each hidden dense layer.
        classes: nodes of the output.
        activation: after every hidden layer.
        padding: of the convolutions.
    """

    input_shape: tuple[int, int, int] = (28, 28, 1)
    filters: tuple[int, ...] = (32, 64, 128)
    kernel: int = 3
    pools: tuple[int, ...] = (2, 2, 1)
    dense: tuple[int, ...] = (100,)
    classes: int = 10
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] = "relu"
    padding: Literal["VALID", "SAME"] = "VALID"

    def __post_init__(self):
        if len(self.filters) != len(self.pools):
            raise ValueError(
                f"one pool per convolution: got filters {self.filters} and pools {self.pools}"
            )
        layers = (*self.filters, *self.pools, *self.dense)
        smallest = min(*self.input_shape, *layers, self.kernel, self.classes)
        if len(self.input_shape) != 3 or smallest < 1:
            raise ValueError(f"every size must be at least 1 and the input (h, w, c), got {self}")
        check_activation(self.activation)
        if self.padding not in ("VALID", "SAME"):
            raise ValueError(f"padding is VALID or SAME, got {self.padding!r}")
        if min(self.pooled_size(len(self.filters))) < 1:
            raise ValueError(
                f"images of {self.input_shape[:2]} are too small for "
                f"{len(self.filters)} convolutions"
            )

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Shape ``(h, w, k)`` of what the dense part is fed with."""
        h, w = self.pooled_size(len(self.filters))
        maps = self.filters[-1] if self.filters else self.input_shape[2]
        return h, w, maps

    def pooled_size(self, blocks: int) -> Size:
        """Height and width behind the first ``blocks`` convolutions and their pools."""
        h, w, _ = self.input_shape
        border = 0 if self.padding == "SAME" else self.kernel - 1
        for pool in self.pools[:blocks]:
            h = (h - border) // pool
            w = (w - border) // pool
        return h, w

    def input_size(self, blocks: int) -> Size:
        """Height and width of the part of the image that layers behind ``blocks`` blocks look at.

        It is the top left part, since a pool drops the pixels that do not fill its last window: of
        28x28 pixels 26x26 reach the third convolution.
        """
        if self.padding == "SAME":
            return self.input_shape[:2]
        h, w = self.pooled_size(blocks)
        for pool in reversed(self.pools[:blocks]):
            h = h * pool + self.kernel - 1
            w = w * pool + self.kernel - 1
        return h, w

    @property
    def blocks(self) -> tuple[tuple[Stage, Stage | None], ...]:
        """Each convolution, and the pool behind it if there is one."""
        blocks = []
        for number, side in enumerate(self.pools, 1):
            conv = Stage("conv", number, number - 1)
            pool = Stage("pool", number, number) if side > 1 else None
            blocks.append((conv, pool))
        return tuple(blocks)

    @property
    def hidden(self) -> tuple[Stage, ...]:
        """The hidden dense layers."""
        numbers = range(1, len(self.dense) + 1)
        return tuple(Stage("dense", number, len(self.pools)) for number in numbers)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All layers but the output, in order."""
        stages = []
        for conv, pool in self.blocks:
            stages.append(conv)
            if pool is not None:
                stages.append(pool)
        return (*stages, *self.hidden)

    def stage_of(self, layer: str) -> Stage | None:
        """The stage that a layer is the nonlinearity of, or is before it; None for the output."""
        for stage in self.stages:
            if layer in (stage.pre, stage.name):
                return stage
        return None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all activations, in order."""
        names = []
        for stage in self.stages:
            names += [stage.pre, stage.name]
        return (*names, LOGITS)

    @property
    def nonlinearities(self) -> dict[str, tuple[str, float | None]]:
        """As in `Model`."""
        _, floor = ACTIVATIONS[self.activation]
        return {stage.name: (stage.pre, floor) for stage in self.stages}

    @property
    def facts(self) -> dict[str, LayerFacts]:
        """As in `Model`. A pool is one before and after its nonlinearity, and has no parameters."""
        facts = {}
        for stage in self.stages:
            parameters = () if stage.kind == "pool" else parameters_of(stage.name)
            facts[stage.pre] = LayerFacts(stage.kind, parameters=parameters)
            after = "pool" if stage.kind == "pool" else "nonlinearity"
            facts[stage.name] = LayerFacts(after)
        facts[LOGITS] = LayerFacts("output", parameters=parameters_of(LOGITS))
        return facts

    def by_input_size(self, layers: Collection[str]) -> dict[Size, set[str]]:
        """The given layers, grouped by the `input_size` that they look at, in order."""
        groups: dict[Size, set[str]] = {}
        for layer in self.layers:
            if layer in layers:
                stage = self.stage_of(layer)
                blocks = len(self.pools) if stage is None else stage.blocks
                groups.setdefault(self.input_size(blocks), set()).add(layer)
        return groups


class CNN(nnx.Module):
    """The network itself; see `CNNConfig`.

    Args:
        config: the architecture.
        rngs: for the weights.
        drawn: draw the weights; without it they are zeros, for who needs only their shapes.
    """

    def __init__(self, config: CNNConfig, *, rngs: nnx.Rngs, drawn: bool = True):
        self.config = config
        zeros = nnx.initializers.zeros
        hidden_init = nnx.initializers.he_normal() if drawn else zeros
        last_init = nnx.initializers.lecun_normal() if drawn else zeros
        inputs = config.input_shape[2]
        for (conv, _), filters in zip(config.blocks, config.filters, strict=True):
            layer = conv_of(
                inputs, filters, config.kernel, rngs, padding=config.padding, init=hidden_init
            )
            setattr(self, conv.name, layer)
            inputs = filters
        h, w, k = config.feature_shape
        inputs = h * w * k
        for stage, nodes in zip(config.hidden, config.dense, strict=True):
            layer = nnx.Linear(inputs, nodes, kernel_init=hidden_init, rngs=rngs)
            setattr(self, stage.name, layer)
            inputs = nodes
        self.logits = nnx.Linear(inputs, config.classes, kernel_init=last_init, rngs=rngs)

    def __call__(self, x: Array) -> Activations:
        """Activations of all layers for images ``[n, h, w, c]``."""
        return self.activations(x, self.config.layers)

    def activations(self, x: Array, layers: Collection[str]) -> Activations:
        """Activations of the given layers alone.

        Each is computed from that part of the image that it looks at.
        """
        out = {}
        for (h, w), group in self.config.by_input_size(layers).items():
            out |= self._layers(x[:, :h, :w], group)
        return out

    def channel(self, x: Array, layer: str, index: Array) -> Activations:
        """One map of a layer, before and after its nonlinearity, ``[..., 1]``.

        Args:
            x: images ``[n, h, w, c]``.
            layer: name of a layer, before or after its nonlinearity. Of one that is no convolution
                all maps are computed.
            index: the map, an integer scalar; it may differ from image to image under `jax.vmap`.
        """
        stage = self.config.stage_of(layer)
        if stage is not None and stage.kind == "conv":
            return self._map_of(stage, x, index)
        layers = (layer,) if stage is None else (stage.pre, stage.name)
        out = {}
        for name, activation in self.activations(x, layers).items():
            out[name] = jnp.take(activation, index[None], axis=-1)
        return out

    def _map_of(self, stage: Stage, x: Array, index: Array) -> Activations:
        """One map of a convolution, see `channel`."""
        h, w = self.config.input_size(stage.blocks)
        x = x[:, :h, :w]
        if stage.blocks:
            conv_before, pool_before = self.config.blocks[stage.blocks - 1]
            before = (conv_before if pool_before is None else pool_before).name
            x = self._layers(x, {before})[before]
        conv = self._module(stage)
        kernel = jnp.take(conv.kernel[...], index, axis=-1)
        bias = jnp.take(conv.bias[...], index, axis=-1)
        pre = ops.conv2d_map(x, kernel, self.config.padding)[..., None] + bias
        activation, _ = ACTIVATIONS[self.config.activation]
        return {stage.pre: pre, stage.name: activation(pre)}

    def _layers(self, x: Array, layers: set[str]) -> Activations:
        """The given layers of an image, which may be smaller than the network's."""
        activation, _ = ACTIVATIONS[self.config.activation]
        out: Activations = {}

        def keep(stage: Stage, pre: Array) -> Array:
            out[stage.pre] = pre
            out[stage.name] = activation(pre)
            return out[stage.name]

        for conv, pool in self.config.blocks:
            inputs = x
            if pool is None or not layers.isdisjoint((conv.pre, conv.name)):
                x = keep(conv, self._module(conv)(inputs))
            if pool is not None and not layers <= out.keys():
                x = keep(pool, self._pooled(conv, inputs, out.get(conv.pre)))
            if layers <= out.keys():
                return _selected(out, layers)
        x = x.reshape(x.shape[0], -1)
        for stage in self.config.hidden:
            x = keep(stage, self._module(stage)(x))
        out[LOGITS] = self.logits(x)
        return _selected(out, layers)

    def _pooled(self, stage: Stage, x: Array, convolved: Array | None) -> Array:
        """A convolution and the pool behind it, before the nonlinearity.

        A monotone activation and a maximum commute. Pooled first, the activation works on a quarter
        of the values.

        Args:
            stage: the convolution.
            x: its input.
            convolved: its output, if it is known.
        """
        side = self.config.pools[stage.number - 1]
        conv = self._module(stage)
        if convolved is not None:
            return ops.max_pool(convolved, (side, side))
        if side == 2:
            return ops.conv_pool(x, conv.kernel[...], conv.bias[...], self.config.padding)
        return ops.max_pool(conv(x), (side, side))

    def _module(self, stage: Stage) -> Any:
        """The module that holds the parameters of a stage."""
        return vars(self)[stage.name]


def _selected(activations: Activations, layers: set[str]) -> Activations:
    return {name: array for name, array in activations.items() if name in layers}


def parameters_of(module: str) -> tuple[str, str]:
    """Paths of the parameters of a convolution or dense layer, as in `pytrees.flatten`."""
    return f"{module}/bias", f"{module}/kernel"


def check_activation(name: str) -> None:
    """Raise a ValueError unless there is an activation of this name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; there are {', '.join(ACTIVATIONS)}")


def conv_of(
    inputs: int,
    filters: int,
    kernel: int,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    padding: str = "SAME",
    init: Any = nnx.initializers.he_normal(),
) -> nnx.Conv:
    """A convolution that is computed by `ops.conv2d`.

    Its weights are drawn for a ReLU behind it (He et al. 2015), unless ``init`` says otherwise.
    """
    return nnx.Conv(
        inputs,
        filters,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        conv_general_dilated=_conv,  # pyright: ignore[reportArgumentType]
        kernel_init=init,
        rngs=rngs,
    )


def _conv(x, w, strides, padding, *, lhs_dilation, rhs_dilation, feature_group_count, **_):
    """`nnx.Conv`'s hook for the convolution itself."""
    if set(lhs_dilation) | set(rhs_dilation) != {1} or feature_group_count != 1:
        raise ValueError("dilated and grouped convolutions are not covered by oipjax.ops.conv2d")
    return ops.conv2d(x, w, tuple(strides), padding)


@dataclass(frozen=True)
class CNNApply(Network):
    """``apply`` of a `Model`.

    It is equal for equal architectures, so that they share compiled programs.
    """

    config: CNNConfig

    def __call__(self, params: Params, x: Array) -> Activations:
        """Activations of all layers for images ``[n, h, w, c]``."""
        return self._network(params)(x)

    def activations(self, params: Params, x: Array, layers: tuple[str, ...]) -> Activations:
        """See `Network`."""
        out = self._network(params).activations(x, layers)
        return {name: out[name] for name in layers}

    def channel(self, params: Params, x: Array, layer: str, index: Array) -> Activations:
        """See `Network`."""
        return self._network(params).channel(x, layer, index)

    def _network(self, params: Params) -> CNN:
        graph, _ = _abstract(self.config)
        return nnx.merge(graph, nnx.State(params))


@functools.cache
def _abstract(config: CNNConfig):
    """Structure and shapes of a network: ``(graph, state)``."""
    network = nnx.eval_shape(lambda: CNN(config, rngs=nnx.Rngs(0), drawn=False))
    return nnx.split(network)


def shapes(config: CNNConfig) -> Params:
    """The parameters of `init` as `jax.ShapeDtypeStruct`: their shapes and dtypes."""
    _, state = _abstract(config)
    return nnx.to_pure_dict(state)


def init(key: Array, config: CNNConfig) -> Params:
    """Fresh parameters, ``{"conv1": {"kernel": [kh, kw, c, k], "bias": [k]}, ...}``.

    Args:
        key: consumed.
        config: the architecture.
    """
    network = CNN(config, rngs=nnx.Rngs(key))
    return nnx.to_pure_dict(nnx.state(network))


def model(
    params: Params,
    config: CNNConfig = CNNConfig(),
    *,
    name: str = "cnn",
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    classes: tuple[str, ...] = (),
) -> Model:
    """The network as a `Model`."""
    return Model(
        name=name,
        apply=CNNApply(config),
        params=params,
        layers=config.layers,
        input_shape=config.input_shape,
        mean=mean,
        std=std,
        nonlinearities=config.nonlinearities,
        classes=classes,
        facts=config.facts,
    )
