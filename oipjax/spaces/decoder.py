"""The image space of a decoder: images that an autoencoder can make, searched by moving its latent vector.

Pixels may go where no image of the data is; a decoder's images keep to what it has learned (A.
Nguyen and others, "Synthesizing the preferred inputs for neurons in neural networks via deep
generator networks", 2016, arXiv:1605.09304). They bound the latent numbers one by one; here the
vector stays inside an ellipsoid of the normal distribution that was fitted to the codes of images,
which takes their correlations into account.
"""

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

from oipjax.model import Model, Params
from oipjax.pytrees import check_finite, fingerprint
from oipjax.spaces.pixels import Box, Shape


@dataclass(frozen=True)
class Fixed:
    """Arrays that belong to a value: equal, hashed and recorded by their fingerprint.

    Attributes:
        sha256: see `model.fingerprint`; the only field.
        tree: the arrays, a pytree.
    """

    tree: InitVar[Any]
    sha256: str = field(init=False)

    def __post_init__(self, tree: Any):
        object.__setattr__(self, "arrays", jax.tree.map(np.asarray, tree))
        object.__setattr__(self, "sha256", fingerprint(tree))


@dataclass(frozen=True)
class Decoder:
    """Images that a decoder makes of the latent vectors inside an ellipsoid.

    The ``z`` of the space is a latent vector in whitened coordinates: ``latent = mean + factor @
    z``, so that the codes of images have mean 0 and covariance 1 there, and the ellipsoid is a
    ball. A space has no room for parameters as an argument: the decoder's are constants of the
    programs compiled for it.

    Attributes:
        autoencoder: its name, for records.
        decode: pure function ``(params, latent[n, d]) -> pixels[n, h, w, c]`` in [0, 1], a frozen
            dataclass.
        fixed: ``{"params", "mean": [d], "factor": [d, d]}``: of ``decode``, and of the normal
            fitted to codes.
        latent: how many numbers ``d`` there are.
        shape: ``(h, w, c)`` of the images.
        low, high: black and white in network input units, one per channel.
        confidence: share of the normal distribution inside the ellipsoid.
    """

    autoencoder: str
    decode: Callable[[Params, Array], Array]
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
        """Of the ball that ``z`` stays in: the root of chi-square's quantile for ``d`` degrees of freedom."""
        return math.sqrt(2 * float(scipy.special.gammaincinv(self.latent / 2, self.confidence)))

    @property
    def scale(self) -> float:
        """1: a standard deviation of the codes."""
        return 1.0

    @property
    def domain(self) -> Box:
        """The box of valid pixels, which holds far more than the decoder's images; its proofs hold for them."""
        return Box(self.shape, self.low, self.high)

    def init(self, key: Array) -> Array:
        """A draw from the fitted normal, brought into the ellipsoid."""
        return self.project(jax.random.normal(key, (self.latent,)))

    def latent_of(self, z: Array) -> Array:
        """The decoder's latent vector ``[d]``."""
        arrays = self.fixed.arrays  # pyright: ignore[reportAttributeAccessIssue]
        return jnp.asarray(arrays["mean"]) + jnp.asarray(arrays["factor"]) @ z

    def render(self, z: Array) -> Array:
        """The decoded image ``[h, w, c]``, as network input."""
        low, high = (np.asarray(end, np.float32).reshape(1, 1, -1) for end in (self.low, self.high))
        params = self.fixed.arrays["params"]  # pyright: ignore[reportAttributeAccessIssue]
        pixels = self.decode(jax.tree.map(jnp.asarray, params), self.latent_of(z)[None])[0]
        # Only the last bit is clipped, which rounding may carry out of the box; the pixels are in
        # [0, 1] already.
        return jnp.clip(jnp.asarray(low) + pixels * jnp.asarray(high - low), low, high)

    def project(self, z: Array) -> Array:
        """``z``, shortened to the ball's radius if it is longer."""
        norm = jnp.linalg.norm(z)
        return jnp.where(norm > self.radius, z * (self.radius / jnp.maximum(norm, self.radius)), z)

    def tangent(self, z: Array, gradient: Array) -> Array:
        """The gradient; at the ball's surface without what would lead out of it."""
        square = jnp.maximum(jnp.vdot(z, z), 1e-12)
        outwards = jnp.maximum(jnp.vdot(z, gradient), 0) / square
        return jnp.where(square >= (1 - 1e-5) * self.radius**2, gradient - outwards * z, gradient)


def decoder_space(
    model: Model,
    autoencoder: str,
    decode: Callable[[Params, Array], Array],
    params: Params,
    codes: np.ndarray,
    *,
    confidence: float = 0.99,
) -> Decoder:
    """The space of a decoder's images for a network.

    Args:
        model: says what its input looks like.
        autoencoder: name, for records.
        decode: see `Decoder`.
        params: what ``decode`` takes, and no more than it needs.
        codes: latent vectors ``[n, d]`` of images, ``n > d``; the normal is fitted to them.
        confidence: share of that normal inside the ellipsoid.

    Raises:
        ValueError: the decoder's images are not what the network takes, there are too few codes or
            they do not span all directions, or something is not finite.
    """
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or len(codes) <= codes.shape[1]:
        raise ValueError(
            f"codes are [n, d] with more vectors than numbers, got {list(codes.shape)}"
        )
    check_finite({"codes": codes, "params": params}, autoencoder)
    image = jax.eval_shape(
        decode, params, jax.ShapeDtypeStruct((1, codes.shape[1]), np.float32)
    ).shape[1:]
    if image != model.input_shape:
        raise ValueError(
            f"{model.name} takes images {model.input_shape}, {autoencoder} makes {image}: choose another"
        )
    mean = codes.mean(0)
    # Sums in a fixed order, whatever the number of cores: the bits decide whether a record is the
    # same.
    covariance = np.einsum("ni,nj->ij", codes - mean, codes - mean) / (len(codes) - 1)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{autoencoder}: the codes do not span all {codes.shape[1]} directions; give more"
        ) from None
    fixed = Fixed(
        {"params": params, "mean": mean.astype(np.float32), "factor": factor.astype(np.float32)}
    )
    low, high = (tuple(map(float, end)) for end in model.input_box)
    return Decoder(
        autoencoder, decode, fixed, codes.shape[1], model.input_shape, low, high, confidence
    )
