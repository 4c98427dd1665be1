"""The image space of a decoder: an ascent moves the latent vector of an autoencoder.

In pixel space a search may reach images that no data set holds. A decoder's images keep to what it
has learned (A. Nguyen and others, "Synthesizing the preferred inputs for neurons in neural networks
via deep generator networks", 2016, arXiv:1605.09304). They bound the latent numbers one by one.
Here the vector stays inside an ellipsoid of the normal distribution that was fitted to the codes of
images, which takes their correlations into account.
"""

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Key

from oipjax.model import Model, Params
from oipjax.pytrees import check_finite, fingerprint
from oipjax.spaces.base import Shape
from oipjax.spaces.pixels import Box


@dataclass(frozen=True)
class Fixed:
    """Arrays that belong to a value: equal, hashed and recorded by their fingerprint.

    Attributes:
        tree: the arrays, a pytree; they are kept as `arrays`.
        sha256: see `pytrees.fingerprint`; the only field.
    """

    tree: InitVar[Any]
    sha256: str = field(init=False)

    def __post_init__(self, tree: Any):
        object.__setattr__(self, "_arrays", jax.tree.map(np.asarray, tree))
        object.__setattr__(self, "sha256", fingerprint(tree))

    @property
    def arrays(self) -> Any:
        """The arrays, of numpy, in the structure of ``tree``."""
        return vars(self)["_arrays"]


@dataclass(frozen=True)
class Decoder:
    """Images that a decoder makes of the latent vectors inside an ellipsoid.

    The ``z`` of the space is a latent vector in whitened coordinates: ``latent = mean + factor @
    z``, so that the codes of images have mean 0 and covariance 1 there, and the ellipsoid is a
    ball. A space does not take parameters as an argument: the decoder's are constants of the
    programs compiled for it.

    Attributes:
        autoencoder: its name, for records.
        decode: pure function ``(params, latent[n, d]) -> pixels[n, h, w, c]`` in [0, 1], a frozen
            dataclass.
        fixed: ``{"params", "mean": [d], "factor": [d, d]}``: the parameters of ``decode``, and mean
            and covariance factor of the normal distribution that was fitted to codes.
        latent: the number ``d`` of latent numbers.
        shape: ``(h, w, c)`` of the images.
        low, high: black and white in network input units, one per channel.
        confidence: share of the normal distribution inside the ellipsoid.
    """

    autoencoder: str
    decode: Callable[[Params, Float[Array, "n d"]], Float[Array, "n h w c"]]
    fixed: Fixed
    latent: int
    shape: Shape
    low: tuple[float, ...]
    high: tuple[float, ...]
    confidence: float = 0.99

    def __post_init__(self):
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is a share between 0 and 1, got {self.confidence}")

    @property
    def radius(self) -> float:
        """Radius of the ball: the root of chi-square's quantile for ``d`` degrees of freedom."""
        from scipy import special  # slow to import, and no other space needs it

        quantile = 2 * float(special.gammaincinv(self.latent / 2, self.confidence))
        return math.sqrt(quantile)

    @property
    def scale(self) -> float:
        """1: a standard deviation of the codes."""
        return 1.0

    @property
    def domain(self) -> Box:
        """The box of valid pixels, which holds all of the decoder's images and many others.

        A proof over the box is also a proof over the decoder's images.
        """
        return Box(self.shape, self.low, self.high)

    def init(self, key: Key[Array, ""]) -> Float[Array, " d"]:
        """A draw from the fitted normal, brought into the ellipsoid."""
        return self.project(jax.random.normal(key, (self.latent,)))

    def latent_of(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """The decoder's latent vector ``[d]``."""
        arrays = self.fixed.arrays
        return jnp.asarray(arrays["mean"]) + jnp.asarray(arrays["factor"]) @ z

    def render(self, z: Float[Array, " d"]) -> Float[Array, "h w c"]:
        """The decoded image ``[h, w, c]``, as network input."""
        low, high = self.domain.ends
        params = jax.tree.map(jnp.asarray, self.fixed.arrays["params"])
        pixels = self.decode(params, self.latent_of(z)[None])[0]
        image = jnp.asarray(low) + pixels * jnp.asarray(high - low)
        # The pixels are in [0, 1] already: this clips only the last bit, which rounding may carry
        # out of the box.
        return jnp.clip(image, low, high)

    def project(self, z: Float[Array, " d"]) -> Float[Array, " d"]:
        """``z``, shortened to the ball's radius if it is longer."""
        norm = jnp.linalg.norm(z)
        shortened = z * (self.radius / jnp.maximum(norm, self.radius))
        return jnp.where(norm > self.radius, shortened, z)

    def tangent(self, z: Float[Array, " d"], gradient: Float[Array, " d"]) -> Float[Array, " d"]:
        """The gradient; at the ball's surface without its part that leads out of the ball."""
        square = jnp.maximum(jnp.vdot(z, z), 1e-12)
        outwards = jnp.maximum(jnp.vdot(z, gradient), 0) / square
        is_at_surface = square >= (1 - 1e-5) * self.radius**2
        return jnp.where(is_at_surface, gradient - outwards * z, gradient)

    def from_image(self, image: Float[Array, "h w c"]) -> None:
        """None: there is no way from an image back to its latent vector."""
        del image


def decoder_space(
    model: Model,
    autoencoder: str,
    decode: Callable[[Params, Float[Array, "n d"]], Float[Array, "n h w c"]],
    params: Params,
    codes: Float[np.ndarray, "n d"],
    *,
    confidence: float = 0.99,
) -> Decoder:
    """The space of a decoder's images for a network.

    Args:
        model: gives the shape and the valid range of images.
        autoencoder: name, for records.
        decode: see `Decoder`.
        params: the first argument of ``decode``, without anything that it does not need.
        codes: latent vectors ``[n, d]`` of images, ``n > d``; the normal is fitted to them.
        confidence: share of that normal inside the ellipsoid.

    Raises:
        ValueError: the decoder's images have another shape than the network's input, there are too
            few codes or they do not span all directions, or something is not finite.
    """
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or len(codes) <= codes.shape[1]:
        raise ValueError(
            f"codes are [n, d] with more vectors than numbers, got {list(codes.shape)}"
        )
    check_finite({"codes": codes, "params": params}, autoencoder)
    latent = codes.shape[1]
    images = jax.eval_shape(decode, params, jax.ShapeDtypeStruct((1, latent), np.float32))
    shape = images.shape[1:]
    if shape != model.input_shape:
        raise ValueError(
            f"{model.name} takes images {model.input_shape}, {autoencoder} makes {shape}: "
            "choose another"
        )
    mean, factor = _fitted_normal(codes, autoencoder)
    low, high = model.input_box
    return Decoder(
        autoencoder=autoencoder,
        decode=decode,
        fixed=Fixed({"params": params, "mean": mean, "factor": factor}),
        latent=latent,
        shape=model.input_shape,
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        confidence=confidence,
    )


def _fitted_normal(
    codes: Float[np.ndarray, "n d"], autoencoder: str
) -> tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, "d d"]]:
    """Mean ``[d]`` of codes ``[n, d]`` and a factor ``[d, d]`` of their covariance, in float32."""
    mean = codes.mean(0)
    centred = codes - mean
    # The sums have a fixed order whatever the number of cores, since the bits decide whether a
    # record is the same.
    covariance = np.einsum("ni,nj->ij", centred, centred) / (len(codes) - 1)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{autoencoder}: the codes do not span all {codes.shape[1]} directions; give more"
        ) from None
    return mean.astype(np.float32), factor.astype(np.float32)
