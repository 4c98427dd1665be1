"""Images as arrays: bytes as numbers in [0, 1], normalisation, and blur."""

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

Pixels = TypeVar("Pixels", np.ndarray, Array)


def to_unit(pixels: Pixels) -> Pixels:
    """Pixels as ``float32`` in [0, 1], of an array of numpy or of JAX.

    Args:
        pixels: ``uint8``, which is divided by 255; or numbers in [0, 1], which keep their values.
    """
    numbers = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        return numbers / np.float32(255)
    return numbers


def normalise(pixels: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Network inputs of pixels, inside a compiled program; `Model.to_input` is its like in numpy.

    Args:
        pixels: ``float32 [n, h, w, c]`` in [0, 1].
        mean: one number per channel, or one for all.
        std: likewise.

    Returns:
        Network inputs ``[n, h, w, c]``.
    """
    means = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    stds = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return (pixels - means) / stds


def blur_matrix(sigma: float, n: int) -> np.ndarray:
    """The matrix ``float64 [n, n]`` of a one-dimensional Gaussian blur.

    Its rows sum to 1 at the border too: what lies outside of the image does not count.

    Args:
        sigma: standard deviation in pixels; 0 for no blur.
        n: number of pixels.
    """
    if sigma == 0:
        return np.eye(n)
    place = np.arange(n)
    distance = place[:, None] - place
    matrix = np.exp(-0.5 * np.square(distance / sigma))
    return matrix / matrix.sum(1, keepdims=True)
