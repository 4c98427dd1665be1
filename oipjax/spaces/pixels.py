"""Image spaces: how an image is parameterised and kept valid; and the fluctuations that ascents start from.

A space is a pair ``init(key) -> z``, ``project(z) -> z`` with ``render(z) -> image``; an ascent
moves ``z`` in units of ``scale`` and projects after every step, so ``render`` never has to clip (a
clipped pixel has no gradient: it sticks).

Fluctuations are random fields of a few coarse sizes, resized to the image and mixed, as in the
source series (R. Mönchmeyer, "A simple CNN for the MNIST dataset", parts VIII-X): coarse fields
find far more live maps than pixel noise does.
"""

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.model import Model

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Fluctuation:
    """One recipe: normal random fields of several sizes, resized (cubic), each brought to mean 0 and std 1, and mixed.

    Attributes:
        sizes: height and width of each field; a field of the image's size is pixel noise.
        weights: how much of each field; only their ratio matters. A field of weight 0 is not drawn.
        smoothing: standard deviation in pixels of a Gaussian blur of the mixture; 0 for none.
    """

    sizes: tuple[tuple[int, int], ...] = ((3, 3), (7, 7), (14, 14), (28, 28))
    weights: tuple[float, ...] = (0.2, 0.2, 0.0, 0.0)
    smoothing: float = 0.0

    def __post_init__(self):
        if not self.sizes or len(self.sizes) != len(self.weights):
            raise ValueError(
                f"a recipe needs one weight per field size, got {self.sizes} and {self.weights}"
            )
        if any(h < 1 or w < 1 for h, w in self.sizes):
            raise ValueError(f"field sizes must be at least 1x1, got {self.sizes}")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or not any(self.weights):
            raise ValueError(
                f"weights must be finite, not negative and not all 0, got {self.weights}"
            )
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise ValueError(f"smoothing is a blur in pixels, 0 or more, got {self.smoothing}")

    def __str__(self) -> str:
        """As `parse` reads it: ``3:0.2,7:0.2~1.5``."""
        parts = (
            f"{h}:{weight:g}" if h == w else f"{h}x{w}:{weight:g}"
            for (h, w), weight in zip(self.sizes, self.weights, strict=True)
            if weight
        )
        return ",".join(parts) + (f"~{self.smoothing:g}" if self.smoothing else "")

    @classmethod
    def parse(cls, text: str) -> "Fluctuation":
        """A recipe from text: ``3:0.2,7:0.2`` (size:weight), ``~1.5`` behind it for the smoothing.

        >>> Fluctuation.parse("3:1,7:1~1.5")
        Fluctuation(sizes=((3, 3), (7, 7)), weights=(1.0, 1.0), smoothing=1.5)
        """
        fields, _, smoothing = text.partition("~")
        sizes, weights = [], []
        try:
            for part in fields.split(","):
                size, _, weight = part.partition(":")
                h, _, w = size.partition("x")
                sizes.append((int(h), int(w or h)))
                weights.append(float(weight or 1))
            blur = float(smoothing or 0)
        except ValueError:
            raise ValueError(
                f"cannot read the recipe {text!r}; expected size:weight,... like 3:0.2,7:0.2~1.5"
            ) from None
        return cls(tuple(sizes), tuple(weights), blur)


@dataclass(frozen=True)
class Fluctuations:
    """Several recipes in one: each key picks one of them with equal chance.

    Attributes:
        recipes: at least one.
    """

    recipes: tuple[Fluctuation, ...] = (Fluctuation(),)

    def __post_init__(self):
        if not self.recipes:
            raise ValueError("expected at least one recipe")

    def which(self, key: Array) -> Array:
        """Index of the recipe that this key picks, an int32 scalar."""
        return jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(self.recipes), jnp.int32)

    def draw(self, key: Array, shape: Shape) -> Array:
        """One start of mean 0 and standard deviation 1 over ``[h, w, c]``; channels are independent.

        Args:
            key: consumed.
            shape: ``(h, w, c)``.
        """
        h, w, channels = shape
        sizes = sorted(
            {
                s
                for r in self.recipes
                for s, weight in zip(r.sizes, r.weights, strict=True)
                if weight
            }
        )
        table = np.array([[_weight(r, s) for s in sizes] for r in self.recipes], np.float32)
        which = self.which(key)
        weights = jnp.asarray(table)[which]
        total = jnp.zeros(shape, jnp.float32)
        counts = [fh * fw * channels for fh, fw in sizes]
        noise = jax.random.normal(jax.random.fold_in(key, 1), (sum(counts),))
        for index, size in enumerate(sizes):
            first = sum(counts[:index])
            field = noise[first : first + counts[index]].reshape(*size, channels)
            if size != (h, w):
                field = jnp.einsum(
                    "yh,xw,hwc->yxc", _resize(size[0], h), _resize(size[1], w), field
                )
            total = total + weights[index] * standardise(field)
        if any(r.smoothing for r in self.recipes):
            rows, columns = (
                np.stack([_blur(r.smoothing, n) for r in self.recipes]) for n in (h, w)
            )
            total = jnp.einsum(
                "yh,xw,hwc->yxc", jnp.asarray(rows)[which], jnp.asarray(columns)[which], total
            )
        return standardise(total)


def default_fluctuations(shape: Shape) -> Fluctuations:
    """The recipes of a survey unless told otherwise: each of four length scales, and two mixtures.

    The scales are 3/28, 1/4, 1/2 and 1 of the image's size: 3, 7, 14 and 28 for MNIST.
    """
    h, w, _ = shape
    sizes = tuple((max(2, round(h * f)), max(2, round(w * f))) for f in (3 / 28, 1 / 4, 1 / 2))
    sizes = tuple(dict.fromkeys((*sizes, (h, w))))
    single = tuple(Fluctuation((size,), (1.0,)) for size in sizes)
    coarse = Fluctuation(sizes[:2], (1.0,) * len(sizes[:2]))
    return Fluctuations((*single, coarse, Fluctuation(sizes, (1.0,) * len(sizes))))


def _weight(recipe: Fluctuation, size: tuple[int, int]) -> float:
    return sum(weight for s, weight in zip(recipe.sizes, recipe.weights, strict=True) if s == size)


@functools.cache
def _resize(small: int, large: int) -> np.ndarray:
    """The matrix ``[large, small]`` of a one-dimensional cubic resize (Keys 1981, a = -1/2), as ``jax.image.resize``.

    Made in numpy, because a start-up should not compile a dozen programs for a constant.
    """
    position = (np.arange(large) + 0.5) * small / large - 0.5
    # Downwards the kernel is widened, so that nothing between two samples is lost.
    x = np.abs(position[:, None] - np.arange(small)) / max(1.0, small / large)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    matrix = np.where(x <= 1, near, np.where(x < 2, far, 0))
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


@functools.cache
def _blur(sigma: float, n: int) -> np.ndarray:
    """The matrix ``[n, n]`` of a one-dimensional Gaussian blur; rows sum to 1 at the border too."""
    if not sigma:
        return np.eye(n, dtype=np.float32)
    distance = np.subtract.outer(np.arange(n), np.arange(n))
    matrix = np.exp(-0.5 * (distance / sigma) ** 2)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def standardise(x: Array) -> Array:
    """``x`` with mean 0 and standard deviation 1 (population) over all its values."""
    x = x - jnp.mean(x)
    return x / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x))), 1e-6)


# --- spaces
# -----------------------------------------------------------------------------------------------------------


class Space(Protocol):
    """What an ascent needs to know of an image space. Frozen, hashable, equal by value."""

    @property
    def scale(self) -> Array | float:
        """The unit of a step, broadcastable to ``z``."""
        ...

    @property
    def domain(self) -> "Domain":
        """The set of all images the space can make."""
        ...

    def init(self, key: Array) -> Array:
        """A random start ``z``; the key is consumed."""
        ...

    def render(self, z: Array) -> Array:
        """The image ``[h, w, c]``, a network input."""
        ...

    def project(self, z: Array) -> Array:
        """The valid ``z`` that stands for ``z``."""
        ...

    def tangent(self, z: Array, gradient: Array) -> Array:
        """The part of a gradient that a small projected step can follow."""
        ...


class Domain(Protocol):
    """A set of images ``[h, w, c]``."""

    def contains(self, images: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
        """For ``images [n, h, w, c]``: bool ``[n]``."""
        ...


@dataclass(frozen=True)
class Sphere:
    """All images whose pixels have mean 0 and standard deviation 1, over h, w and c together."""

    shape: Shape

    def contains(self, images: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
        """For ``images [n, h, w, c]``: bool ``[n]``."""
        axes = (1, 2, 3)
        return (np.abs(images.mean(axes)) < tolerance) & (np.abs(images.std(axes) - 1) < tolerance)


@dataclass(frozen=True)
class Standardised:
    """Images of mean 0 and standard deviation 1: the space of the source series and of the `classic` rule.

    Attributes:
        shape: ``(h, w, c)``.
        starts: what `init` draws.
    """

    shape: Shape
    starts: Fluctuations = Fluctuations()

    @property
    def scale(self) -> float:
        """1: a standard deviation."""
        return 1.0

    @property
    def domain(self) -> Sphere:
        """The sphere of standardised images."""
        return Sphere(self.shape)

    def init(self, key: Array) -> Array:
        """A fluctuation; it is standardised already."""
        return self.starts.draw(key, self.shape)

    def render(self, z: Array) -> Array:
        """``z`` itself."""
        return z

    def project(self, z: Array) -> Array:
        """``z``, standardised again."""
        return standardise(z)

    def tangent(self, z: Array, gradient: Array) -> Array:
        """The gradient without its mean and without its part along ``z``: the gradient through the projection."""
        gradient = gradient - jnp.mean(gradient)
        return gradient - z * jnp.mean(gradient * z)


@dataclass(frozen=True)
class Box:
    """Images whose pixels lie in a box, such as those a camera can take.

    Attributes:
        shape: ``(h, w, c)``.
        low, high: ends of the box in network input units, one per channel.
        starts: what `init` draws, at a standard deviation of ``contrast`` times the width around
            the middle.
        contrast: see ``starts``.
    """

    shape: Shape
    low: tuple[float, ...]
    high: tuple[float, ...]
    starts: Fluctuations = Fluctuations()
    contrast: float = 0.25

    def __post_init__(self):
        if len(self.low) != self.shape[2] or len(self.high) != self.shape[2]:
            raise ValueError(
                f"a box of {self.shape} needs {self.shape[2]} ends each, got {self.low} and {self.high}"
            )
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs low < high, got {self.low} and {self.high}")

    @property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.asarray(end, np.float32).reshape(1, 1, -1) for end in (self.low, self.high))  # pyright: ignore

    @property
    def scale(self) -> Array:
        """The width of the box, ``[1, 1, c]``."""
        low, high = self._ends
        return jnp.asarray(high - low)

    @property
    def domain(self) -> "Box":
        """The box itself."""
        return self

    def contains(self, images: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
        """For ``images [n, h, w, c]``: bool ``[n]``; the tolerance is a share of the width."""
        low, high = self._ends
        slack = tolerance * (high - low)
        return np.asarray(((images >= low - slack) & (images <= high + slack)).all((1, 2, 3)))

    def init(self, key: Array) -> Array:
        """A fluctuation around the middle of the box, clipped."""
        low, high = self._ends
        return self.project(
            jnp.asarray((low + high) / 2)
            + self.contrast * self.scale * self.starts.draw(key, self.shape)
        )

    def render(self, z: Array) -> Array:
        """``z`` itself."""
        return z

    def project(self, z: Array) -> Array:
        """``z``, clipped into the box."""
        low, high = self._ends
        return jnp.clip(z, low, high)

    def tangent(self, z: Array, gradient: Array) -> Array:
        """The gradient, without the pixels that it would push out of the box."""
        low, high = self._ends
        blocked = ((z <= low) & (gradient < 0)) | ((z >= high) & (gradient > 0))
        return jnp.where(blocked, 0, gradient)


@functools.lru_cache(maxsize=64)
def space_shapes(space: Space) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a space's ``z`` and of its images."""
    z = jax.eval_shape(space.init, jax.random.key(0))
    return z.shape, jax.eval_shape(space.render, z).shape


def checked_space(model: Model, space: Space | None) -> Space:
    """``space``, or the default one; a ValueError if its images are not what the network takes."""
    if space is None:
        return space_for(model)
    shape = space_shapes(space)[1]
    if shape != model.input_shape:
        raise ValueError(
            f"{model.name} takes images {model.input_shape}, {type(space).__name__} makes {shape}"
        )
    return space


def accepts_images(space: Space) -> bool:
    """Whether an image can be a start of the space; a decoder's space has no way back from images."""
    return isinstance(space, Standardised | Box)


SPACES = ("standardised", "box")


def space_for(
    model: Model, name: str = "standardised", starts: Fluctuations | None = None
) -> Standardised | Box:
    """The image space of a network by name.

    Args:
        model: gives shape and box.
        name: one of `SPACES`.
        starts: recipes; `default_fluctuations` unless given.

    Raises:
        ValueError: there is no such space.
    """
    starts = default_fluctuations(model.input_shape) if starts is None else starts
    match name:
        case "standardised":
            return Standardised(model.input_shape, starts)
        case "box":
            low, high = model.input_box
            return Box(model.input_shape, tuple(map(float, low)), tuple(map(float, high)), starts)
    raise ValueError(f"unknown image space {name!r}; there are {', '.join(SPACES)}")
