"""Named random streams: which part of the package draws which random numbers from one root key.

No random number is drawn from a root key itself. It splits into streams by
``fold_in(root, STREAM)``, and each consumer within a stream has a number of its own. So a random
value depends on its purpose and never on batch size, order or other requests.
(``jax.random.split(key, n)[i]`` is
``fold_in(key, i)``: without named streams two uses would have the same numbers, unnoticed.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

SURVEY = 0
"""Start ``i`` is made from ``fold_in(stream(root, SURVEY), i)``, ``i < 2**32``."""
RUN = 1
"""The noise of one run: ``fold_in(fold_in(stream(root, RUN), i), map)``."""
RESTART = 2
"""Further starts for unresolved maps: ``fold_in(fold_in(stream(root, RESTART), map), attempt)``."""
TRAIN = 3
"""Number 0 makes the initial weights, number ``1 + e`` the order of the images in epoch ``e``; its
number 2 makes the noise on its images."""
SPLIT = 4
"""The choice of your images that are held out for the test."""
NOISE = 5
"""The corruption of image ``i`` before an autoencoder gets it:
``fold_in(fold_in(stream(root, NOISE), part), i)``. Part 0 is for images held out of a training, 1
for test images."""


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
    if not _is_typed_key(root) or root.ndim:
        raise ValueError(
            f"expected one typed key, as jax.random.key(0) makes it, got {_short(root)}"
        )


def _is_typed_key(value: object) -> bool:
    return isinstance(value, Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _short(value: object) -> str:
    if isinstance(value, Array | np.ndarray):
        return f"an array {value.dtype}{list(value.shape)}"
    return repr(value)[:60]
