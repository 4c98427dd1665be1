"""Linear rivals of an autoencoder: principal components, and the best linear map between images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from oipjax.images import to_unit

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties that `regression` chooses from, as multiples of the pixels' mean variance."""
_BATCH = 2000


@dataclass(frozen=True, eq=False)
class Principal:
    """Principal components as a code: the linear autoencoder with the least squared error.

    Attributes:
        mean: of the images, ``[p]``, ``p = h * w * c``.
        axes: ``[d, p]``, that of the largest variance first.
        shape: of an image.
    """

    mean: np.ndarray
    axes: np.ndarray
    shape: tuple[int, ...]

    def first(self, count: int) -> "Principal":
        """The same with the first ``count`` components alone."""
        if not 1 <= count <= len(self.axes):
            raise ValueError(f"there are 1 to {len(self.axes)} principal components, got {count}")
        return Principal(self.mean, self.axes[:count], self.shape)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Codes ``float32 [n, d]`` of images ``[n, h, w, c]``: floats, or uint8 as pixels."""
        parts = [(batch - self.mean) @ self.axes.T for batch in _batches(images)]
        return np.concatenate(parts).astype(np.float32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Images ``float32 [n, h, w, c]``, clipped to [0, 1]."""
        parts = [np.clip(self.mean + batch @ self.axes, 0, 1) for batch in _batches(codes)]
        return np.concatenate(parts).astype(np.float32).reshape(-1, *self.shape)


def principal(images: np.ndarray) -> Principal:
    """The principal components of images ``[n, h, w, c]``.

    It takes memory for ``(h * w * c) ** 2`` numbers.
    """
    found = PCA(svd_solver="covariance_eigh").fit(_flat(images))
    axes = np.asarray(found.components_)
    return Principal(found.mean_, axes, images.shape[1:])


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Pixels or other numbers from pixels, by one matrix.

    Attributes:
        model: the fitted regression.
        shape: of one output.
        ridge: the penalty, of `RIDGES`.
    """

    model: Ridge
    shape: tuple[int, ...]
    ridge: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs ``float32 [n, *shape]`` of images ``[n, h, w, c]``."""
        parts = [self.model.predict(batch).reshape(len(batch), -1) for batch in _batches(images)]
        return np.concatenate(parts).astype(np.float32).reshape(-1, *self.shape)


def regression(
    inputs: np.ndarray, truth: np.ndarray, ridges: Sequence[float] = RIDGES
) -> LinearMap:
    """Ridge regression of ``truth`` on ``inputs``; the last twelfth chooses the penalty.

    Args:
        inputs: images ``[n, h, w, c]``: floats, or uint8 as pixels in [0, 1].
        truth: ``[n, ...]``, likewise.
        ridges: penalties to choose from, as multiples of the mean variance of the inputs.
    """
    kept = len(inputs) - max(1, len(inputs) // 12)
    pixels = _flat(inputs[:kept])
    goal = _flat(truth[:kept])
    scale = len(pixels) * max(float(pixels.var(0).mean()), 1e-12)
    candidates = []
    errors = []
    for ridge in ridges:
        model = Ridge(alpha=ridge * scale).fit(pixels, goal)
        candidate = LinearMap(model, truth.shape[1:], ridge)
        difference = candidate(inputs[kept:]) - to_unit(truth[kept:])
        candidates.append(candidate)
        errors.append(float(np.square(difference).mean()))
    return candidates[int(np.argmin(errors))]


def _flat(images: np.ndarray) -> np.ndarray:
    return to_unit(images).reshape(len(images), -1).astype(np.float64)


def _batches(images: np.ndarray) -> list[np.ndarray]:
    firsts = range(0, len(images), _BATCH)
    return [_flat(images[first : first + _BATCH]) for first in firsts]
