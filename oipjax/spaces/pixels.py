"""Spaces whose ``z`` is the image itself: standardised images, and images in a box."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Key

from oipjax.model import Model
from oipjax.spaces.base import Shape, Sphere
from oipjax.spaces.noise import Fluctuations, standardise


@dataclass(frozen=True)
class Standardised:
    """Images of mean 0 and standard deviation 1, as the source series and the `classic` rule have.

    Attributes:
        shape: ``(h, w, c)``.
        starts: the fluctuations that `init` draws from.
    """

    shape: Shape
    starts: Fluctuations = Fluctuations()

    @classmethod
    def of(cls, model: Model, starts: Fluctuations) -> "Standardised":
        """The space of a network's standardised images."""
        return cls(model.input_shape, starts)

    @property
    def scale(self) -> float:
        """1: a standard deviation."""
        return 1.0

    @property
    def domain(self) -> Sphere:
        """The sphere of standardised images."""
        return Sphere(self.shape)

    def init(self, key: Key[Array, ""]) -> Float[Array, "h w c"]:
        """A fluctuation; it is standardised already."""
        return self.starts.draw(key, self.shape)

    def render(self, z: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """``z`` itself."""
        return z

    def project(self, z: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """``z``, standardised again."""
        return standardise(z)

    def tangent(
        self, z: Float[Array, "h w c"], gradient: Float[Array, "h w c"]
    ) -> Float[Array, "h w c"]:
        """The gradient through the projection: without its mean and its part along ``z``."""
        gradient = gradient - jnp.mean(gradient)
        return gradient - z * jnp.mean(gradient * z)

    def from_image(self, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The image, standardised."""
        return self.project(image)


@dataclass(frozen=True)
class Box:
    """Images whose pixels lie in a box, such as those a camera can take.

    Attributes:
        shape: ``(h, w, c)``.
        low, high: ends of the box in network input units, one per channel.
        starts: the fluctuations that `init` draws from, around the middle of the box.
        contrast: standard deviation of the starts, as a share of the box's width.
    """

    shape: Shape
    low: tuple[float, ...]
    high: tuple[float, ...]
    starts: Fluctuations = Fluctuations()
    contrast: float = 0.25

    def __post_init__(self):
        channels = self.shape[2]
        if len(self.low) != channels or len(self.high) != channels:
            raise ValueError(
                f"a box of {self.shape} needs {channels} ends each, got {self.low} and {self.high}"
            )
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs low < high, got {self.low} and {self.high}")

    @classmethod
    def of(cls, model: Model, starts: Fluctuations) -> "Box":
        """The space of a network's valid inputs, `Model.input_box`."""
        low, high = model.input_box
        return cls(model.input_shape, tuple(map(float, low)), tuple(map(float, high)), starts)

    @property
    def ends(self) -> tuple[Float32[np.ndarray, "1 1 c"], Float32[np.ndarray, "1 1 c"]]:
        """``low`` and ``high`` as ``float32 [1, 1, c]``."""
        low = np.asarray(self.low, np.float32)
        high = np.asarray(self.high, np.float32)
        return low.reshape(1, 1, -1), high.reshape(1, 1, -1)

    @property
    def scale(self) -> Float32[Array, "1 1 c"]:
        """The width of the box, ``[1, 1, c]``."""
        low, high = self.ends
        return jnp.asarray(high - low)

    @property
    def domain(self) -> "Box":
        """The box itself."""
        return self

    def contains(
        self, images: Float[np.ndarray, "n h w c"], tolerance: float = 1e-4
    ) -> Bool[np.ndarray, " n"]:
        """For ``images [n, h, w, c]``: bool ``[n]``; the tolerance is a share of the width."""
        low, high = self.ends
        slack = tolerance * (high - low)
        is_inside = (images >= low - slack) & (images <= high + slack)
        return np.asarray(is_inside.all((1, 2, 3)))

    def init(self, key: Key[Array, ""]) -> Float[Array, "h w c"]:
        """A fluctuation around the middle of the box, clipped."""
        low, high = self.ends
        middle = jnp.asarray((low + high) / 2)
        fluctuation = self.contrast * self.scale * self.starts.draw(key, self.shape)
        return self.project(middle + fluctuation)

    def render(self, z: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """``z`` itself."""
        return z

    def project(self, z: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """``z``, clipped into the box."""
        low, high = self.ends
        return jnp.clip(z, low, high)

    def tangent(
        self, z: Float[Array, "h w c"], gradient: Float[Array, "h w c"]
    ) -> Float[Array, "h w c"]:
        """The gradient, without the pixels that it would push out of the box."""
        low, high = self.ends
        leaves_below = (z <= low) & (gradient < 0)
        leaves_above = (z >= high) & (gradient > 0)
        return jnp.where(leaves_below | leaves_above, 0, gradient)

    def from_image(self, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """The image, clipped into the box."""
        return self.project(image)
