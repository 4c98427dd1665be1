"""Named random streams: who may draw what from one root key.

A root key is never drawn from. It splits into streams by ``fold_in(root, STREAM)``, and within a
stream every consumer has its own number, so a random value depends on *what* it is for and never on
batch size, order or what else is asked. (``jax.random.split(key, n)[i]`` is ``fold_in(key, i)``:
without named streams two uses would collide in silence.)
"""

import jax
import jax.numpy as jnp
from jax import Array

SURVEY = 0
"""Start ``i`` is made from ``fold_in(stream(root, SURVEY), i)``, ``i < 2**32``."""
RUN = 1
"""The noise of one run: ``fold_in(fold_in(stream(root, RUN), i), map)``."""
RESTART = 2
"""Extra starts for silent maps: ``fold_in(fold_in(stream(root, WAKE), map), attempt)``."""
TRAIN = 3
"""Initial weights (0) and the order of images in epoch ``e`` (``1 + e``), whose number 2 is for
noise on its images."""
SPLIT = 4
"""Which of one's own images are held out for the test."""
NOISE = 5
"""What is done to image ``i`` before an autoencoder sees it: ``fold_in(fold_in(stream(root, NOISE),
part), i)``; part 0 is for images held out of a training, 1 for test images."""


def stream(root: Array, name: int) -> Array:
    """The key of one named stream.

    Args:
        root: a typed key, ``jax.random.key(seed)``, scalar.
        name: one of `SURVEY`, `RUN`, `RESTART`, `TRAIN`, `SPLIT`, `NOISE`.

    Raises:
        ValueError: ``root`` is an old-style ``uint32[2]`` key, or not a single key.
    """
    check(root)
    return jax.random.fold_in(root, name)


def check(root: Array) -> None:
    """Raise a ValueError unless ``root`` is one typed key."""
    if (
        not isinstance(root, jax.Array)
        or not jnp.issubdtype(root.dtype, jax.dtypes.prng_key)
        or root.ndim
    ):
        raise ValueError(
            f"expected one typed key, as jax.random.key(0) makes it, got {_short(root)}"
        )


def _short(value) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return repr(value)[:60]
