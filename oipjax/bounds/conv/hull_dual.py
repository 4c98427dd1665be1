"""The dual problem of the patch hull: valid for any multipliers, in float64, rounded up.

`oipjax.bounds.conv.hull` states the problem.

Axes: ``m`` problems, ``n`` cells, ``c`` columns (``c = m * n``), ``k`` channels that are alive,
``q`` positions of the pooling window, ``p`` pixels of a patch, ``b`` parts of a box, ``u`` corners.
"""

import numpy as np

from oipjax.bounds.conv.patches import ROUNDING, Cells, corners, feasible_slopes

_CORNERS_AT_A_TIME = 2048


class HullDual:
    """The dual problem for windows of one size.

    Attributes:
        alive: int ``[k]``, the channels of the first stage that can be positive.
        conv: float64 ``[k, q, p]``, their convolution.
        bias: float64 ``[k]``, their bias.
        index: ``[n, p]``, the image's pixel of which each pixel of a patch is a copy.
        count: ``[hwc]``, the number of copies of each pixel.
        shape: ``(h, w, c)`` of the image that the window sees.
        patch_low: float64 ``[p]``, the smallest value of each pixel of a patch.
        patch_high: float64 ``[p]``, the largest value of each pixel of a patch.
        low: float64 ``[hwc]``, the smallest value of each pixel of the image.
        high: float64 ``[hwc]``, the largest value of each pixel of the image.
    """

    def __init__(self, cells: Cells, a: int, b: int):
        self.alive = np.flatnonzero(cells.alive)
        self.conv = cells.conv[self.alive]
        self.bias = cells.bias[self.alive]
        self.index, self.shape = cells.copies(a, b)
        pixels = int(np.prod(self.shape))
        self.count = np.bincount(self.index.ravel(), minlength=pixels)
        self.patch_low = cells.low
        self.patch_high = cells.high
        self.low = self._over_image(cells.low)
        self.high = self._over_image(cells.high)

    def _over_image(self, patch: np.ndarray) -> np.ndarray:
        image = np.zeros(len(self.count))
        image[self.index] = patch
        return image

    def total(self, patches: np.ndarray) -> np.ndarray:
        """Sum over the copies of each pixel: ``[m, n, p]`` to float64 ``[m, hwc]``."""
        image = np.zeros((len(patches), len(self.count)))
        copies = np.moveaxis(patches, 0, 2).astype(np.float64)
        np.add.at(image.T, self.index, copies)
        return image

    def mean(self, patches: np.ndarray) -> np.ndarray:
        """Take the mean over the copies of each pixel: ``[m, n, p]`` to float64 ``[m, hwc]``."""
        return self.total(patches) / np.maximum(self.count, 1)

    def bound(
        self,
        omega: np.ndarray,
        lam: np.ndarray,
        alpha: np.ndarray,
        boxes: np.ndarray,
    ) -> np.ndarray:
        """Evaluate the bound over all corners, in float64 and rounded up.

        Args:
            omega: ``[m, n, k]``, the weights.
            lam: ``[m, n, p]``, any numbers.
            alpha: ``[b, m, n, k, q]``, any numbers.
            boxes: ``[b, 2, p]``, the parts of a patch's box.

        Returns:
            ``[m]``.
        """
        m, n, _ = omega.shape
        # The mean lambda of each pixel is taken off its copies. The remainder is left by rounding.
        # It is a linear function of the image, and is bounded as one.
        lam = lam.astype(np.float64)
        lam = lam - self.mean(lam)[:, self.index]
        remainder = self.total(lam)
        at_low = -remainder * self.low
        at_high = -remainder * self.high
        remainder_bound = np.maximum(at_low, at_high).sum(1)

        largest = np.full(m * n, -np.inf)
        for box, slopes in zip(boxes, feasible_slopes(alpha), strict=True):
            largest_here = self._cell_maxima(omega, lam, slopes, box)
            largest = np.maximum(largest, largest_here)
        bound = largest.reshape(m, n).sum(1) + remainder_bound
        return bound + ROUNDING * self._magnitude(omega, lam)

    def _cell_maxima(
        self,
        omega: np.ndarray,
        lam: np.ndarray,
        slopes: np.ndarray,
        box: np.ndarray,
    ) -> np.ndarray:
        """The maximum of each cell over the corners of one box, ``[c]``.

        Args:
            omega: ``[m, n, k]``.
            lam: ``[m, n, p]``.
            slopes: ``[m, n, k, q]``, valid slopes.
            box: ``[2, p]``.
        """
        m, n, k = omega.shape
        q, p = self.conv.shape[1:]
        columns = m * n
        positive = np.maximum(omega, 0).reshape(columns, k)
        negative = np.minimum(omega, 0)[..., None]
        weights = (negative * slopes).reshape(columns, k, q)
        flat_weights = weights.reshape(columns, k * q)
        flat_conv = self.conv.reshape(k * q, p)
        vector = lam.reshape(columns, p) + flat_weights @ flat_conv
        offset = weights.sum(2) @ self.bias
        factors = np.concatenate([positive, vector], 1).T  # [k + p, c]

        largest = np.full(columns, -np.inf)
        chunks = -(-(2**p) // _CORNERS_AT_A_TIME)
        for points in np.array_split(corners(box), chunks):
            channels = self._channels(points)
            channels_and_pixels = np.concatenate([channels, points], 1)
            values = channels_and_pixels @ factors  # [u, c]
            np.maximum(largest, values.max(0), out=largest)
        return largest + offset

    def _channels(self, points: np.ndarray) -> np.ndarray:
        """The channels ``[u, k]`` of a cell for patches ``points[u, p]``."""
        k, q, p = self.conv.shape
        products = points @ self.conv.reshape(k * q, p).T
        largest = products.reshape(len(points), k, q).max(2)
        return (largest + self.bias[None]).clip(0)

    def _magnitude(self, omega: np.ndarray, lam: np.ndarray) -> np.ndarray:
        """The sum of the magnitudes of all terms of the bound, ``[m]``."""
        size = np.maximum(np.abs(self.patch_low), np.abs(self.patch_high))
        response = (np.abs(self.conv) @ size).max(1, initial=0)
        heaviest = response + np.abs(self.bias)
        magnitude = np.abs(omega) @ heaviest + np.abs(lam) @ size
        return magnitude.sum(1)
