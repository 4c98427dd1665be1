"""A first convolution of one input channel, and its outputs for images of two pixel values.

Axes: ``k`` maps, ``n`` images, ``h w`` of an image, ``kh kw`` of the kernel, ``i j`` positions of
the output. ``C = 2**R`` values of a column of ``R`` pixels; bit ``i`` of a value is row ``i``.
"""

from typing import NamedTuple

import numpy as np

MAX_STATE_BITS = 14
"""The dynamic programme of one output row may have a state of so many pixels."""

MAX_TABLE_BITS = 16
"""The kernel may have so many weights."""

TABLE_BITS = 12
"""Of the default strips and bands: their tables fit a core's cache."""


class StripLayer(NamedTuple):
    """A first convolution, and the images it is applied to.

    Attributes:
        kernel: float64 ``[k, kh, kw]``.
        bias: float64 ``[k]``.
        low: the smallest pixel value.
        high: the largest pixel value.
        shape: ``(h, w)`` of the image.
    """

    kernel: np.ndarray
    bias: np.ndarray
    low: float
    high: float
    shape: tuple[int, int]

    def transposed(self) -> "StripLayer":
        """Exchange rows and columns."""
        h, w = self.shape
        return self._replace(
            kernel=self.kernel.swapaxes(1, 2),
            shape=(w, h),
        )

    def fits(self) -> bool:
        """Tell whether a horizontal strip of one output row fits the dynamic programme."""
        kh, kw = self.kernel.shape[1:]
        return kh * (kw - 1) <= MAX_STATE_BITS and kh * kw <= MAX_TABLE_BITS

    def output_shape(self) -> tuple[int, int]:
        """Give the number of positions of the output, from top to bottom and from left to right."""
        kh, kw = self.kernel.shape[1:]
        h, w = self.shape
        return h - kh + 1, w - kw + 1

    def mean(self, images: np.ndarray) -> np.ndarray:
        """Score ``images[k, n, h, w]`` by ``mean(relu(bias + kernel * x))``: float64 ``[k, n]``."""
        outputs = convolve(images.astype(np.float64), self.kernel, self.bias)
        return np.maximum(outputs, 0).mean((2, 3))

    def pixels(self, bits: np.ndarray) -> np.ndarray:
        """Turn bits into the pixel values ``low`` and ``high``."""
        return np.where(bits, self.high, self.low)


def make_layer(kernel, bias, low, high, shape) -> StripLayer:
    """Check a first convolution. A side of 1 of its kernel gets a second pixel of weight 0.

    Args:
        kernel: ``[kh, kw, 1, k]``.
        bias: ``[k]``.
        low: the smallest pixel value, one number.
        high: the largest pixel value, one number.
        shape: ``(h, w)`` of the image.

    Raises:
        ValueError: the kernel has several input channels, or no strip of it fits the dynamic
            programme.
    """
    kernel = np.asarray(kernel, np.float64)
    bias = np.asarray(bias, np.float64)
    _check(kernel, bias, low, high, shape)
    kh, kw = kernel.shape[:2]
    extra_row = int(kh == 1)
    extra_column = int(kw == 1)
    by_map = np.moveaxis(kernel[:, :, 0], 2, 0)
    padding = ((0, 0), (0, extra_row), (0, extra_column))
    layer = StripLayer(
        kernel=np.pad(by_map, padding),
        bias=bias,
        low=float(np.reshape(low, ())),
        high=float(np.reshape(high, ())),
        shape=(int(shape[0]) + extra_row, int(shape[1]) + extra_column),
    )
    if not layer.fits() and not layer.transposed().fits():
        raise ValueError(
            f"a kernel of {layer.kernel.shape[1:]} does not fit strips, which take at most "
            f"{MAX_TABLE_BITS} weights and a state of {MAX_STATE_BITS} pixels: use another bound"
        )
    return layer


def _check(kernel: np.ndarray, bias: np.ndarray, low, high, shape) -> None:
    """Refuse shapes and ranges that do not fit."""
    has_one_channel = kernel.ndim == 4 and kernel.shape[2] == 1
    if not has_one_channel or bias.shape != kernel.shape[3:]:
        raise ValueError(
            "strips need a kernel[kh, kw, 1, k] of one input channel and a bias[k], got "
            f"{kernel.shape} and {bias.shape}: use another bound"
        )
    kh, kw = kernel.shape[:2]
    if len(shape) != 2 or shape[0] < kh or shape[1] < kw:
        raise ValueError(
            f"a kernel of {kernel.shape[:2]} does not fit into an image of {tuple(shape)}"
        )
    is_one_pair = np.size(low) == 1 and np.size(high) == 1
    if not is_one_pair or not np.all(np.less_equal(low, high)):
        raise ValueError(f"strips need one pair low <= high, got {low} and {high}")


def convolve(images, kernel, bias):
    """Apply each map's kernel to its images.

    Args:
        images: ``[k, n, h, w]``.
        kernel: ``[k, kh, kw]``.
        bias: ``[k]``.

    Returns:
        pre-activations ``[k, n, i, j]``, of the type of the arguments.
    """
    kh, kw = kernel.shape[1:]
    height = images.shape[2] - kh + 1
    width = images.shape[3] - kw + 1
    total = bias[:, None, None, None]
    for i, j in np.ndindex(kh, kw):
        weight = kernel[:, i, j, None, None, None]
        total = total + weight * images[:, :, i : i + height, j : j + width]
    return total


def all_bits(size: int) -> np.ndarray:
    """List the bits of all numbers below ``2**size``, lowest first: ``[2**size, size]``."""
    numbers = np.arange(2**size)[:, None]
    return (numbers >> np.arange(size)) & 1


def column_responses(kernel: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Tabulate the outputs of a strip for all values of ``kw`` neighbouring columns.

    Args:
        kernel: ``[k, kh, kw]``.
        pixels: ``[C, R]``, the pixels of each value of a column.

    Returns:
        ``[k, r, C, ..., C]``, ``kw`` times ``C``, the oldest column first; ``r = R - kh + 1`` rows
        of output.
    """
    k, kh, _ = kernel.shape
    rows = pixels.shape[1] - kh + 1
    outputs = []
    for row in range(rows):
        columns = np.einsum("cr,krw->wkc", pixels[:, row : row + kh], kernel)
        total = columns[0]
        for column in columns[1:]:
            older = (1,) * (total.ndim - 1)
            total = total[..., None] + column.reshape(k, *older, -1)
        outputs.append(total)
    return np.stack(outputs, 1)
