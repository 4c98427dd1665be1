"""A convolutional autoencoder: images to a few numbers, the latent vector ``z``, and back.

The encoder is a stack of strided convolutions and one dense layer; the decoder is its mirror image.
Where the encoder makes an image smaller, the decoder has a transposed convolution,
`ops.conv2d_transpose`: a matrix product and a sum of shifted pictures. On two CPU cores a training
step of the default network took half the time of one with sub-pixel convolutions, three quarters of
one that repeats pixels and convolves, and a tenth of one with ``lax.conv_transpose``.

The default is that of the preset for MNIST: 28x28x1, four convolutions each way, 16 latent numbers.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oipjax import ops
from oipjax.model import Activations, Model, Params, normalise
from oipjax.networks.cnn import ACTIVATIONS, conv_of


@dataclass(frozen=True)
class AutoencoderConfig:
    """The architecture, equal by value and small enough to be written into a checkpoint.

    Attributes:
        input_shape: one image, ``(h, w, c)``.
        filters: maps of each convolution of the encoder; the decoder has them in reverse.
        kernel: side of every kernel, in pixels.
        strides: of each convolution of the encoder; the decoder enlarges by them in reverse.
        latent: how many numbers describe an image.
        activation: after every layer but the latent one and the last.
    """

    input_shape: tuple[int, int, int] = (28, 28, 1)
    filters: tuple[int, ...] = (32, 64, 64, 64)
    kernel: int = 3
    strides: tuple[int, ...] = (2, 2, 1, 1)
    latent: int = 16
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] = "leaky_relu"

    def __post_init__(self):
        if len(self.filters) != len(self.strides) or not self.filters:
            raise ValueError(
                f"one stride per convolution: got filters {self.filters} and strides {self.strides}"
            )
        sizes = (*self.input_shape, *self.filters, *self.strides, self.kernel, self.latent)
        if len(self.input_shape) != 3 or any(size < 1 for size in sizes):
            raise ValueError(f"every size must be at least 1 and the input (h, w, c), got {self}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; there are {', '.join(ACTIVATIONS)}"
            )

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Of the image and of the maps behind each convolution of the encoder."""
        shapes = [self.input_shape]
        for filters, stride in zip(self.filters, self.strides, strict=True):
            h, w, _ = shapes[-1]
            shapes.append((-(-h // stride), -(-w // stride), filters))
        return tuple(shapes)

    @property
    def reversed(self) -> tuple[tuple[int, int], ...]:
        """``(i, stride)`` of the decoder's layers in order; number ``i`` undoes convolution ``i`` of the encoder."""
        return tuple(enumerate(self.strides, 1))[::-1]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the encoder's activations, and of the decoder's output before and after its sigmoid."""
        convolutions = [
            name for i, _ in enumerate(self.filters, 1) for name in (f"conv{i}_pre", f"conv{i}")
        ]
        return (*convolutions, "latent", "image_pre", "image")

    @property
    def nonlinearities(self) -> dict[str, tuple[str, float | None]]:
        """As in `Model`."""
        floor = ACTIVATIONS[self.activation][1]
        return {f"conv{i}": (f"conv{i}_pre", floor) for i, _ in enumerate(self.filters, 1)}


class Encoder(nnx.Module):
    """Images to latent vectors; see `AutoencoderConfig`."""

    def __init__(self, config: AutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        for i, stride in enumerate(config.strides, 1):
            setattr(
                self, f"conv{i}", conv_of(*_channels(config, i), config.kernel, rngs, stride=stride)
            )
        h, w, k = config.shapes[-1]
        self.latent = nnx.Linear(h * w * k, config.latent, rngs=rngs)

    def __call__(self, x: Array) -> Activations:
        """Activations of all layers for network inputs ``[n, h, w, c]``; ``latent`` is ``[n, d]``."""
        activation, out = ACTIVATIONS[self.config.activation][0], {}
        for i, _ in enumerate(self.config.filters, 1):
            out[f"conv{i}_pre"] = getattr(self, f"conv{i}")(x)
            out[f"conv{i}"] = x = activation(out[f"conv{i}_pre"])
        out["latent"] = self.latent(x.reshape(x.shape[0], -1))
        return out


class Enlarge(nnx.Module):
    """A transposed convolution: maps ``[n, i, j, inputs]`` to ``[n, *size, outputs]``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        size: tuple[int, int],
        *,
        rngs: nnx.Rngs,
    ):
        # A pixel of the large image is a sum over one of stride * stride parts of the kernel.
        scaling = nnx.initializers.variance_scaling(
            2.0 * stride**2, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
        )
        self.stride, self.size = (stride, stride), size
        self.kernel = nnx.Param(
            scaling(rngs.params(), (kernel, kernel, outputs, inputs), jnp.float32)
        )
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, y: Array) -> Array:
        """The enlarged maps."""
        return ops.conv2d_transpose(y, self.kernel[...], self.size, self.stride) + self.bias[
            ...
        ].reshape(1, 1, 1, -1)


class Decoder(nnx.Module):
    """Latent vectors to images; see `AutoencoderConfig`."""

    def __init__(self, config: AutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        h, w, k = config.shapes[-1]
        init = nnx.initializers.he_normal()
        self.dense = nnx.Linear(config.latent, h * w * k, kernel_init=init, rngs=rngs)
        for i, stride in config.reversed:
            outputs, inputs = _channels(config, i)
            size = config.shapes[i - 1][:2]
            enlarge = Enlarge(inputs, outputs, config.kernel, stride, size, rngs=rngs)
            setattr(
                self,
                f"conv{i}",
                enlarge if stride > 1 else conv_of(inputs, outputs, config.kernel, rngs),
            )

    def __call__(self, z: Array) -> Activations:
        """``image_pre`` and ``image``, ``[n, h, w, c]``, for latent vectors ``[n, d]``."""
        activation = ACTIVATIONS[self.config.activation][0]
        x = self.dense(z).reshape(-1, *self.config.shapes[-1])
        for i, _ in self.config.reversed:
            x = getattr(self, f"conv{i}")(activation(x))
        return {"image_pre": x, "image": jax.nn.sigmoid(x)}


class Network(nnx.Module):
    """Encoder and decoder in a row."""

    def __init__(self, config: AutoencoderConfig, *, rngs: nnx.Rngs):
        self.encoder, self.decoder = Encoder(config, rngs=rngs), Decoder(config, rngs=rngs)

    def __call__(self, x: Array) -> Activations:
        """Activations of all layers for network inputs ``[n, h, w, c]``."""
        out = self.encoder(x)
        return out | self.decoder(out["latent"])


def _channels(config: AutoencoderConfig, i: int) -> tuple[int, int]:
    """Maps before and behind convolution ``i`` of the encoder."""
    return config.shapes[i - 1][2], config.shapes[i][2]


@functools.cache
def _abstract(module: type[nnx.Module], config: AutoencoderConfig):
    return nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class AutoencoderApply:
    """``apply`` of a `Model`: equal for equal architectures, so that they share compiled programs."""

    config: AutoencoderConfig

    def __call__(self, params: Params, x: Array) -> Activations:
        """Activations of all layers for network inputs ``[n, h, w, c]``; XLA drops what nobody asks for."""
        return nnx.merge(_abstract(Network, self.config)[0], nnx.State(params))(x)


@dataclass(frozen=True)
class Encode:
    """``encode(params, pixels) -> z``, pure and equal by value."""

    config: AutoencoderConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, params: Params, pixels: Array) -> Array:
        """Latent vectors ``[n, d]`` of images ``[n, h, w, c]``: floats in [0, 1], or uint8.

        Raises:
            ValueError: the images are of another shape than the autoencoder's.
        """
        if pixels.shape[1:] != self.config.input_shape:
            raise ValueError(
                f"expected images [n, {_commas(self.config.input_shape)}], got {list(pixels.shape)}"
            )
        pixels = jnp.asarray(pixels)
        pixels = pixels.astype(jnp.float32) / 255 if pixels.dtype == jnp.uint8 else pixels
        encoder = nnx.merge(_abstract(Encoder, self.config)[0], nnx.State(params["encoder"]))
        return encoder(normalise(pixels, self.mean, self.std))["latent"]


@dataclass(frozen=True)
class Decode:
    """``decode(params, z) -> images``, pure and equal by value."""

    config: AutoencoderConfig

    def __call__(self, params: Params, z: Array) -> Array:
        """Images ``[n, h, w, c]`` with pixels in [0, 1], of latent vectors ``[n, d]``.

        Raises:
            ValueError: the vectors are of another length than the autoencoder's.
        """
        if z.ndim != 2 or z.shape[1] != self.config.latent:
            raise ValueError(
                f"expected latent vectors [n, {self.config.latent}], got {list(z.shape)}"
            )
        return nnx.merge(_abstract(Decoder, self.config)[0], nnx.State(params["decoder"]))(z)[
            "image"
        ]


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder, ready to be used: ``auto.decode(auto.params, auto.encode(auto.params, pixels))``.

    Attributes:
        config: the architecture.
        params: ``{"encoder": ..., "decoder": ...}``; always passed as an argument, never closed
            over.
        mean, std: the normalisation of the encoder's input, one number per channel.
        name: for people and for folder names.
    """

    config: AutoencoderConfig
    params: Params
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    name: str = "autoencoder"

    @property
    def encode(self) -> Encode:
        """Pure function ``(params, pixels[n, h, w, c]) -> z[n, d]``; pixels are floats in [0, 1], or uint8."""
        return Encode(self.config, self.mean, self.std)

    @property
    def decode(self) -> Decode:
        """Pure function ``(params, z[n, d]) -> images[n, h, w, c]`` in [0, 1]."""
        return Decode(self.config)

    @property
    def model(self) -> Model:
        """The whole as a `Model`, for surveys, ascents and bounds; its maps are the encoder's."""
        return Model(
            name=self.name,
            apply=AutoencoderApply(self.config),
            params=self.params,
            layers=self.config.layers,
            input_shape=self.config.input_shape,
            mean=self.mean,
            std=self.std,
            nonlinearities=self.config.nonlinearities,
        )


def shapes(config: AutoencoderConfig) -> Params:
    """Shapes and dtypes of the parameters, as `jax.ShapeDtypeStruct`, in the structure of `init`."""
    return nnx.to_pure_dict(_abstract(Network, config)[1])


def init(key: Array, config: AutoencoderConfig) -> Params:
    """Fresh parameters, ``{"encoder": {"conv1": {"kernel", "bias"}, ...}, "decoder": ...}``; the key is consumed."""
    return nnx.to_pure_dict(nnx.state(Network(config, rngs=nnx.Rngs(key))))


def _commas(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
