"""Image spaces: how an image is parameterised and kept valid.

A space has ``init(key) -> z``, ``project(z) -> z`` and ``render(z) -> image``. An ascent moves
``z`` in units of ``scale`` and projects after every step, so ``render`` never has to clip: a
clipped pixel has no gradient, so it would never move again.
"""

import functools
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Key

Shape = tuple[int, int, int]


class Space(Protocol):
    """An image space as an ascent needs it. Frozen, hashable, equal by value."""

    @property
    def scale(self) -> Float[Array, "..."] | float:
        """The unit of a step, broadcastable to ``z``."""
        ...

    @property
    def domain(self) -> "Domain":
        """The set of all images that the space can make."""
        ...

    def init(self, key: Key[Array, ""]) -> Float[Array, "..."]:
        """A random start ``z``; the key is consumed."""
        ...

    def render(self, z: Float[Array, "..."]) -> Float[Array, "h w c"]:
        """The image ``[h, w, c]``, a network input."""
        ...

    def project(self, z: Float[Array, "*z"]) -> Float[Array, "*z"]:
        """The valid ``z`` that stands for ``z``."""
        ...

    def tangent(self, z: Float[Array, "*z"], gradient: Float[Array, "*z"]) -> Float[Array, "*z"]:
        """The part of a gradient that a small projected step can follow."""
        ...

    def from_image(self, image: Float[Array, "h w c"]) -> Float[Array, "..."] | None:
        """The valid ``z`` for an image ``[h, w, c]``, or None if the space has no way back."""
        ...


class Domain(Protocol):
    """A set of images ``[h, w, c]``."""

    def contains(
        self, images: Float[np.ndarray, "n h w c"], tolerance: float = 1e-4
    ) -> Bool[np.ndarray, " n"]:
        """For ``images [n, h, w, c]``: bool ``[n]``."""
        ...


@dataclass(frozen=True)
class Sphere:
    """All images whose pixels have mean 0 and standard deviation 1, over h, w and c together."""

    shape: Shape

    def contains(
        self, images: Float[np.ndarray, "n h w c"], tolerance: float = 1e-4
    ) -> Bool[np.ndarray, " n"]:
        """For ``images [n, h, w, c]``: bool ``[n]``."""
        axes = (1, 2, 3)
        has_mean = np.abs(images.mean(axes)) < tolerance
        has_std = np.abs(images.std(axes) - 1) < tolerance
        return has_mean & has_std


@functools.lru_cache(maxsize=64)
def space_shapes(space: Space) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a space's ``z`` and of its images."""
    z = jax.eval_shape(space.init, jax.random.key(0))
    image = jax.eval_shape(space.render, z)
    return z.shape, image.shape


@functools.lru_cache(maxsize=64)
def accepts_images(space: Space) -> bool:
    """Whether an image can be a start of the space."""
    _, shape = space_shapes(space)
    z = jax.eval_shape(space.from_image, jax.ShapeDtypeStruct(shape, np.float32))
    return z is not None
