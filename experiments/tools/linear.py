"""The linear rivals of an autoencoder: principal components, and the best linear map from one image to another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
        """Codes ``float32 [n, d]`` of images ``[n, h, w, c]``: floats, or uint8 as pixels in [0, 1]."""
        return _by_batch(lambda pixels: (pixels - self.mean) @ self.axes.T, images)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Images ``float32 [n, h, w, c]``, cut to [0, 1]."""
        images = _by_batch(lambda some: np.clip(self.mean + some @ self.axes, 0, 1), codes)
        return images.reshape(-1, *self.shape)


def principal(images: np.ndarray) -> Principal:
    """The principal components of images ``[n, h, w, c]``; takes memory for ``(h * w * c) ** 2`` numbers."""
    mean, _, covariance = _moments(images, images)
    return Principal(mean, np.linalg.eigh(covariance)[1].T[::-1], images.shape[1:])


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Pixels or other numbers from pixels, by one matrix.

    Attributes:
        weights: ``[p, q]``.
        offset: ``[q]``.
        shape: of one output.
        ridge: the penalty, of `RIDGES`.
    """

    weights: np.ndarray
    offset: np.ndarray
    shape: tuple[int, ...]
    ridge: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs ``float32 [n, *shape]`` of images ``[n, h, w, c]``."""
        return _by_batch(lambda pixels: pixels @ self.weights + self.offset, images).reshape(
            -1, *self.shape
        )


def regression(seen: np.ndarray, truth: np.ndarray, ridges: Sequence[float] = RIDGES) -> LinearMap:
    """Ridge regression of ``truth`` on ``seen``; the last twelfth of the images chooses the penalty.

    Args:
        seen: images ``[n, h, w, c]``: floats, or uint8 as pixels in [0, 1].
        truth: ``[n, ...]``, likewise.
        ridges: penalties to choose from, as multiples of the mean variance of what is seen.
    """
    kept = len(seen) - max(1, len(seen) // 12)
    mean, _, squares = _moments(seen[:kept], seen[:kept])
    _, goal, products = _moments(seen[:kept], truth[:kept])
    values, vectors = np.linalg.eigh(squares)
    values, along = np.maximum(values, 0), vectors.T @ products

    def fitted(ridge: float) -> LinearMap:
        weights = vectors @ (along / (values + ridge * max(values.mean(), 1e-12))[:, None])
        return LinearMap(weights, goal - mean @ weights, truth.shape[1:], ridge)

    def error(ridge: float) -> float:
        return float(np.square(fitted(ridge)(seen[kept:]) - pixels_of(truth[kept:])).mean())

    return fitted(min(ridges, key=error))


def pixels_of(images: np.ndarray) -> np.ndarray:
    """The images as ``float32``, uint8 as pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)


def _flat(images: np.ndarray) -> np.ndarray:
    return pixels_of(images).reshape(len(images), -1).astype(np.float64)


def _moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means ``[p]`` and ``[q]``, and the covariance ``[p, q]``."""
    sums, products = [0.0, 0.0], 0.0
    for first in range(0, len(x), _BATCH):
        one, other = _flat(x[first : first + _BATCH]), _flat(y[first : first + _BATCH])
        sums = [sums[0] + one.sum(0), sums[1] + other.sum(0)]
        products = products + one.T @ other
    means = [np.asarray(total) / len(x) for total in sums]
    return means[0], means[1], np.asarray(products) / len(x) - np.outer(*means)


def _by_batch(call: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    parts = [call(_flat(inputs[first : first + _BATCH])) for first in range(0, len(inputs), _BATCH)]
    return np.concatenate(parts).astype(np.float32)
