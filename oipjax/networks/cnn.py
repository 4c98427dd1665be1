"""The convolutional network of the MNIST tutorials, with its layers and sizes open to change.

The default is 28x28x1 -> conv 3x3 32 -> pool 2 -> conv 3x3 64 -> pool 2 -> conv 3x3 128 -> dense
100 -> dense 10, all 'valid', ReLU; the third convolution has 128 maps of 3x3 nodes.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oipjax import ops
from oipjax.model import Activations, Model, Network, Params

ACTIVATIONS = {
    "relu": (jax.nn.relu, 0.0),
    "leaky_relu": (jax.nn.leaky_relu, None),
    "elu": (jax.nn.elu, None),
    "tanh": (jnp.tanh, None),
}
"""Name -> (function, floor): the least value it can give, if it takes that value on a whole
region."""


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
        sizes = (
            *self.input_shape,
            *self.filters,
            *self.pools,
            *self.dense,
            self.kernel,
            self.classes,
        )
        if len(self.input_shape) != 3 or any(size < 1 for size in sizes):
            raise ValueError(f"every size must be at least 1 and the input (h, w, c), got {self}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; there are {', '.join(ACTIVATIONS)}"
            )
        if self.padding not in ("VALID", "SAME"):
            raise ValueError(f"padding is VALID or SAME, got {self.padding!r}")
        self.feature_shape  # noqa: B018  (raises for images that are too small)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Shape ``(h, w, k)`` that the dense part is fed with."""
        h, w = self.pooled_size(len(self.filters))
        if h < 1 or w < 1:
            raise ValueError(
                f"images of {self.input_shape[:2]} are too small for {len(self.filters)} convolutions"
            )
        return h, w, self.filters[-1] if self.filters else self.input_shape[2]

    def pooled_size(self, blocks: int) -> tuple[int, int]:
        """Height and width behind the first ``blocks`` convolutions and their pools."""
        h, w = self.input_shape[:2]
        shrink = 0 if self.padding == "SAME" else self.kernel - 1
        for pool in self.pools[:blocks]:
            h, w = (h - shrink) // pool, (w - shrink) // pool
        return h, w

    def seen(self, blocks: int) -> tuple[int, int]:
        """Height and width of the top left part of the image that reaches behind the first ``blocks`` pools.

        A pool drops what does not fill its last window: of 28x28 pixels 26x26 reach the third
        convolution.
        """
        h, w = self.input_shape[:2] if self.padding == "SAME" else self.pooled_size(blocks)
        for pool in reversed(self.pools[:blocks] if self.padding == "VALID" else ()):
            h, w = h * pool + self.kernel - 1, w * pool + self.kernel - 1
        return h, w

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of all activations in order; group ``b`` needs what `seen` says of ``b``."""
        groups: list[tuple[str, ...]] = [()]
        for i, pool in enumerate(self.pools, 1):
            groups[-1] += (f"conv{i}_pre", f"conv{i}")
            groups.append((f"pool{i}_pre", f"pool{i}") if pool > 1 else ())
        for i, _ in enumerate(self.dense, 1):
            groups[-1] += (f"dense{i}_pre", f"dense{i}")
        groups[-1] += ("logits",)
        return tuple(groups)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all activations, in order."""
        return sum(self.groups, ())

    @property
    def nonlinearities(self) -> dict[str, tuple[str, float | None]]:
        """As in `Model`."""
        floor = ACTIVATIONS[self.activation][1]
        return {
            name: (f"{name}_pre", floor) for name in self.layers if f"{name}_pre" in self.layers
        }


class CNN(nnx.Module):
    """The network itself; see `CNNConfig`."""

    def __init__(self, config: CNNConfig, *, rngs: nnx.Rngs, drawn: bool = True):
        self.config = config
        inputs = config.input_shape[2]
        # Of a network whose weights are given only shapes are needed.
        zeros = nnx.initializers.zeros
        hidden, last = (
            (nnx.initializers.he_normal(), nnx.initializers.lecun_normal())
            if drawn
            else (zeros, zeros)
        )
        for i, filters in enumerate(config.filters, 1):
            conv = conv_of(
                inputs, filters, config.kernel, rngs, padding=config.padding, init=hidden
            )
            setattr(self, f"conv{i}", conv)
            inputs = filters
        h, w, k = config.feature_shape
        inputs = h * w * k
        for i, nodes in enumerate(config.dense, 1):
            setattr(self, f"dense{i}", nnx.Linear(inputs, nodes, kernel_init=hidden, rngs=rngs))
            inputs = nodes
        self.logits = nnx.Linear(inputs, config.classes, kernel_init=last, rngs=rngs)

    def __call__(self, x: Array) -> Activations:
        """Activations of all layers, before and after the nonlinearity, for images ``[n, h, w, c]``."""
        return self.activations(x, self.config.layers)

    def activations(self, x: Array, names: tuple[str, ...]) -> Activations:
        """As `__call__`, of these layers alone; each is computed from that part of the image that it sees."""
        out, groups = {}, enumerate(self.config.groups)
        for (h, w), same in itertools.groupby(groups, lambda group: self.config.seen(group[0])):
            wanted = {name for _, group in same for name in group}.intersection(names)
            out |= self._layers(x[:, :h, :w], wanted) if wanted else {}
        return out

    def _layers(self, x: Array, wanted: set[str]) -> Activations:
        """Layers of an image that may be smaller than the network's, up to the last one that is wanted."""
        config, out = self.config, {}
        activation = ACTIVATIONS[config.activation][0]

        def kept(name: str, pre: Array) -> Array:
            out[f"{name}_pre"], out[name] = pre, activation(pre)
            return out[name]

        for i, pool in enumerate(config.pools, 1):
            images = x
            if pool == 1 or wanted & {f"conv{i}_pre", f"conv{i}"}:
                x = kept(f"conv{i}", getattr(self, f"conv{i}")(images))
            if pool > 1 and not wanted <= out.keys():
                whole = out.get(f"conv{i}_pre")
                x = kept(
                    f"pool{i}",
                    self.pooled(i, images) if whole is None else ops.max_pool(whole, (pool, pool)),
                )
            if wanted <= out.keys():
                return {name: out[name] for name in wanted}
        x = x.reshape(x.shape[0], -1)
        for i, _ in enumerate(config.dense, 1):
            x = kept(f"dense{i}", getattr(self, f"dense{i}")(x))
        out["logits"] = self.logits(x)
        return {name: out[name] for name in wanted}

    def pooled(self, i: int, x: Array) -> Array:
        """What the pool behind convolution ``i`` gives, before the nonlinearity.

        A monotone activation and a maximum commute: pooled first, it works on a quarter of the
        values.
        """
        conv, pool = getattr(self, f"conv{i}"), self.config.pools[i - 1]
        if pool == 2:
            return ops.conv_pool(x, conv.kernel[...], conv.bias[...], self.config.padding)
        return ops.max_pool(conv(x), (pool, pool))

    def channel(self, x: Array, layer: str, number: Array) -> Activations:
        """As `__call__`, but one map of a layer alone, before and after its nonlinearity, ``[..., 1]``.

        Args:
            x: images ``[n, h, w, c]``.
            layer: a convolution's name, before or after its nonlinearity; of others all maps are
                computed.
            number: the map, an integer scalar; it may differ from image to image under `jax.vmap`.
        """
        name, config = layer.removesuffix("_pre"), self.config
        if not name.startswith("conv"):
            both = self.activations(
                x, tuple(each for each in config.layers if each in (name, f"{name}_pre"))
            )
            return {each: jnp.take(a, number[None], axis=-1) for each, a in both.items()}
        i = int(name.removeprefix("conv"))
        h, w = config.seen(i - 1)
        x = x[:, :h, :w]
        if i > 1:
            before = f"pool{i - 1}" if config.pools[i - 2] > 1 else f"conv{i - 1}"
            x = self._layers(x, {before})[before]
        conv = getattr(self, name)
        kernel, bias = (jnp.take(a[...], number, axis=-1) for a in (conv.kernel, conv.bias))
        pre = ops.conv2d_map(x, kernel, config.padding)[..., None] + bias
        return {f"{name}_pre": pre, name: ACTIVATIONS[config.activation][0](pre)}


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
    """A convolution that is computed by `ops.conv2d`, with weights as ReLU wants them (He et al. 2015)."""
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
    """``apply`` of a `Model`: equal for equal architectures, so that they share compiled programs."""

    config: CNNConfig

    def __call__(self, params: Params, x: Array) -> Activations:
        """Activations of all layers for images ``[n, h, w, c]``."""
        return self._network(params)(x)

    def activations(self, params: Params, x: Array, layers: tuple[str, ...]) -> Activations:
        """See `Network`."""
        found = self._network(params).activations(x, layers)
        return {name: found[name] for name in layers}

    def channel(self, params: Params, x: Array, layer: str, index: Array) -> Activations:
        """See `Network`."""
        return self._network(params).channel(x, layer, index)

    def _network(self, params: Params) -> CNN:
        return nnx.merge(_abstract(self.config)[0], nnx.State(params))


@functools.cache
def _abstract(config: CNNConfig):
    return nnx.split(nnx.eval_shape(lambda: CNN(config, rngs=nnx.Rngs(0), drawn=False)))


def shapes(config: CNNConfig) -> Params:
    """Shapes and dtypes of the parameters, as `jax.ShapeDtypeStruct`, in the structure of `init`."""
    return nnx.to_pure_dict(_abstract(config)[1])


def init(key: Array, config: CNNConfig) -> Params:
    """Fresh parameters, ``{"conv1": {"kernel": [kh, kw, c, k], "bias": [k]}, ...}``; the key is consumed."""
    return nnx.to_pure_dict(nnx.state(CNN(config, rngs=nnx.Rngs(key))))


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
    )
