"""Fluctuations: the random images that ascents start from.

Fluctuations are random fields of a few coarse sizes, resized to the image and mixed, as in the
source series (R. Mönchmeyer, "A simple CNN for the MNIST dataset", parts VIII-X): coarse fields
find far more live maps than pixel noise does.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int32, Key

from oipjax.images import blur_matrix
from oipjax.spaces.base import Shape

Size = tuple[int, int]


@dataclass(frozen=True)
class Fluctuation:
    """One recipe: normal random fields of several sizes, mixed.

    Each field is resized (cubic) and brought to mean 0 and standard deviation 1 before.

    Attributes:
        sizes: height and width of each field; a field of the image's size is pixel noise.
        weights: how much of each field; only their ratio matters. A field of weight 0 is not drawn.
        smoothing: standard deviation in pixels of a Gaussian blur of the mixture; 0 for none.
    """

    sizes: tuple[Size, ...] = ((3, 3), (7, 7), (14, 14), (28, 28))
    weights: tuple[float, ...] = (0.2, 0.2, 0.0, 0.0)
    smoothing: float = 0.0

    def __post_init__(self):
        if not self.sizes or len(self.sizes) != len(self.weights):
            raise ValueError(
                f"a recipe needs one weight per field size, got {self.sizes} and {self.weights}"
            )
        if any(h < 1 or w < 1 for h, w in self.sizes):
            raise ValueError(f"field sizes must be at least 1x1, got {self.sizes}")
        are_valid = all(math.isfinite(weight) and weight >= 0 for weight in self.weights)
        if not are_valid or not any(self.weights):
            raise ValueError(
                f"weights must be finite, not negative and not all 0, got {self.weights}"
            )
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise ValueError(f"smoothing is a blur in pixels, 0 or more, got {self.smoothing}")

    def __str__(self) -> str:
        """As `parse` reads it: ``3:0.2,7:0.2~1.5``."""
        fields = []
        for (h, w), weight in self.drawn:
            size = f"{h}" if h == w else f"{h}x{w}"
            fields.append(f"{size}:{weight:g}")
        text = ",".join(fields)
        return f"{text}~{self.smoothing:g}" if self.smoothing else text

    @property
    def drawn(self) -> tuple[tuple[Size, float], ...]:
        """``(size, weight)`` of each field that is drawn."""
        fields = zip(self.sizes, self.weights, strict=True)
        return tuple((size, weight) for size, weight in fields if weight)

    def weight_of(self, size: Size) -> float:
        """The weight of all fields of a size together."""
        return sum(weight for other, weight in self.drawn if other == size)

    @classmethod
    def parse(cls, text: str) -> "Fluctuation":
        """A recipe from text: ``3:0.2,7:0.2`` (size:weight), ``~1.5`` behind it for the smoothing.

        >>> Fluctuation.parse("3:1,7:1~1.5")
        Fluctuation(sizes=((3, 3), (7, 7)), weights=(1.0, 1.0), smoothing=1.5)

        Raises:
            ValueError: the text is no recipe.
        """
        fields, _, smoothing = text.partition("~")
        sizes = []
        weights = []
        try:
            for field in fields.split(","):
                size, _, weight = field.partition(":")
                h, _, w = size.partition("x")
                sizes.append((int(h), int(w) if w else int(h)))
                weights.append(float(weight) if weight else 1.0)
            blur = float(smoothing) if smoothing else 0.0
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

    def which(self, key: Key[Array, ""]) -> Int32[Array, ""]:
        """Index of the recipe that this key picks, an int32 scalar."""
        return jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(self.recipes), jnp.int32)

    def draw(self, key: Key[Array, ""], shape: Shape) -> Float32[Array, "h w c"]:
        """One start of mean 0 and standard deviation 1 over ``[h, w, c]``.

        Channels are independent.

        Args:
            key: consumed.
            shape: ``(h, w, c)``.
        """
        which = self.which(key)
        mixture = self._mixture(key, which, shape)
        if any(recipe.smoothing for recipe in self.recipes):
            rows = self._blurs(shape[0])
            columns = self._blurs(shape[1])
            mixture = _transformed(mixture, jnp.asarray(rows)[which], jnp.asarray(columns)[which])
        return standardise(mixture)

    def _mixture(self, key: Array, which: Array, shape: Shape) -> Array:
        """The weighted sum ``[h, w, c]`` of one recipe's fields."""
        h, w, channels = shape
        sizes = self._sizes()
        weights = jnp.asarray(self._weights(sizes))[which]
        total = jnp.zeros(shape, jnp.float32)
        counts = [field_h * field_w * channels for field_h, field_w in sizes]
        noise = jax.random.normal(jax.random.fold_in(key, 1), (sum(counts),))
        first = 0
        for index, size in enumerate(sizes):
            last = first + counts[index]
            field = noise[first:last].reshape(*size, channels)
            if size != (h, w):
                field = _transformed(field, _resize_matrix(size[0], h), _resize_matrix(size[1], w))
            total = total + weights[index] * standardise(field)
            first = last
        return total

    def _sizes(self) -> list[Size]:
        """Sizes of the fields of all recipes."""
        sizes = set()
        for recipe in self.recipes:
            sizes.update(size for size, _ in recipe.drawn)
        return sorted(sizes)

    def _weights(self, sizes: list[Size]) -> np.ndarray:
        """The weight of each recipe for each size, ``float32 [recipes, sizes]``."""
        rows = []
        for recipe in self.recipes:
            rows.append([recipe.weight_of(size) for size in sizes])
        return np.array(rows, np.float32)

    def _blurs(self, n: int) -> np.ndarray:
        """Each recipe's blur along a side of the image, ``float32 [recipes, n, n]``."""
        return np.stack([_blur_matrix(recipe.smoothing, n) for recipe in self.recipes])


def default_fluctuations(shape: Shape) -> Fluctuations:
    """The recipes of a survey unless told otherwise: each of four length scales, and two mixtures.

    The scales are 3/28, 1/4, 1/2 and 1 of the image's size: 3, 7, 14 and 28 for MNIST.
    """
    h, w, _ = shape
    sizes = []
    for fraction in (3 / 28, 1 / 4, 1 / 2):
        sizes.append((max(2, round(h * fraction)), max(2, round(w * fraction))))
    sizes = tuple(dict.fromkeys((*sizes, (h, w))))
    single = [Fluctuation((size,), (1.0,)) for size in sizes]
    coarse = Fluctuation(sizes[:2], (1.0,) * len(sizes[:2]))
    every = Fluctuation(sizes, (1.0,) * len(sizes))
    return Fluctuations((*single, coarse, every))


def standardise(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """``x`` with mean 0 and standard deviation 1 (population) over all its values."""
    x = x - jnp.mean(x)
    return x / jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x))), 1e-6)


def _transformed(field: Array, rows: Array | np.ndarray, columns: Array | np.ndarray) -> Array:
    """``field [h, w, c]`` with a matrix applied along each side, ``[y, x, c]``."""
    return jnp.einsum("yh,xw,hwc->yxc", rows, columns, field)


@functools.cache
def _resize_matrix(small: int, large: int) -> np.ndarray:
    """The matrix ``[large, small]`` of a one-dimensional cubic resize, as ``jax.image.resize``.

    The kernel is that of Keys (1981) with a = -1/2. It is computed in numpy, because a start-up
    should not compile a dozen programs for a constant.
    """
    position = (np.arange(large) + 0.5) * small / large - 0.5
    # When an image is made smaller, a wider kernel keeps all that lies between two samples.
    width = max(1.0, small / large)
    x = np.abs(position[:, None] - np.arange(small)) / width
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    matrix = np.where(x <= 1, near, np.where(x < 2, far, 0))
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


@functools.cache
def _blur_matrix(sigma: float, n: int) -> np.ndarray:
    return blur_matrix(sigma, n).astype(np.float32)
