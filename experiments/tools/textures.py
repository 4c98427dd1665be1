"""The size of the features of a pattern, and whether they repeat."""

import jax
import numpy as np
from jax import Array
from scipy.ndimage import map_coordinates


def autocorrelation(image: np.ndarray) -> np.ndarray:
    """Correlation of an image with itself at every shift; the shift 0 is in the middle.

    Sums over the overlap are divided by its size, so the peaks of a texture that repeats are as
    high as the middle one.

    Args:
        image: ``[h, w]``.

    Returns:
        ``[2h - 1, 2w - 1]``.
    """
    centred = image - image.mean()
    size = [2 * side - 1 for side in image.shape]
    power = np.abs(np.fft.rfft2(centred, size)) ** 2
    power_of_ones = np.abs(np.fft.rfft2(np.ones(image.shape), size)) ** 2
    overlap = np.fft.irfft2(power_of_ones, size)
    found = np.fft.irfft2(power, size) / np.maximum(overlap.round(), 1)
    return np.fft.fftshift(found / max(found[0, 0], 1e-12))


def measures(image: np.ndarray, beyond: int) -> dict[str, float]:
    """Sizes, in pixels, of the features of an image.

    Args:
        image: ``[h, w]``.
        beyond: the smallest shift at which ``repeats`` looks.

    Returns:
        ``width`` and ``length`` of a feature: the full width at half maximum of the
            autocorrelation, in the direction in which it is narrowest and in the one in which it is
            widest; at most the image's side.
        ``period``: one over the mean frequency of the power spectrum, under a Hann window.
        ``repeats``: the largest autocorrelation at shifts of ``beyond`` pixels or more, down or
            across, where at least half of the rows and columns still overlap; NaN if there are
            none.
    """
    correlation = autocorrelation(image)
    half_widths = _half_widths(correlation, image.shape)
    return {
        "width": float(2 * half_widths.min()),
        "length": float(2 * half_widths.max()),
        "period": _period(image),
        "repeats": _repeats(correlation, image.shape, beyond),
    }


def _half_widths(correlation: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """In each of 64 directions the first radius at which the autocorrelation is below a half."""
    h, w = shape
    radii = np.arange(0, min(h, w) / 2, 0.05)
    angles = np.linspace(0, np.pi, 64, False)
    radius, angle = np.meshgrid(radii, angles, indexing="ij")
    places = np.stack([h - 1 + radius * np.sin(angle), w - 1 + radius * np.cos(angle)])
    is_below = map_coordinates(correlation, places, order=3) < 0.5
    # The last radius where it never falls below a half.
    first = np.where(is_below.any(0), is_below.argmax(0), -1)
    return radii[first]


def _period(image: np.ndarray) -> float:
    h, w = image.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])
    centred = image - np.average(image, weights=window)
    power = np.abs(np.fft.fft2(centred * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    weighted = (power * frequency).sum()
    return float(power.sum() / max(weighted, 1e-300))


def _repeats(correlation: np.ndarray, shape: tuple[int, ...], beyond: int) -> float:
    h, w = shape
    down, across = np.meshgrid(np.arange(1 - h, h), np.arange(1 - w, w), indexing="ij")
    is_far = np.maximum(np.abs(down), np.abs(across)) >= beyond
    is_overlapping = (np.abs(down) <= h // 2) & (np.abs(across) <= w // 2)
    values = correlation[is_far & is_overlapping]
    return float(values.max()) if values.size else float("nan")


def shuffled(key: Array, image: np.ndarray, block: int) -> np.ndarray:
    """An image cut into square blocks that change places at random; pixels keep their values.

    Args:
        key: a typed key, consumed.
        image: ``[h, w, c]``.
        block: side of a block in pixels.

    Raises:
        ValueError: h or w is no multiple of ``block``.
    """
    h, w, c = image.shape
    if block < 1 or h % block or w % block:
        raise ValueError(f"blocks of {block} pixels do not fill an image of {h} x {w}")
    rows = h // block
    columns = w // block
    blocks = image.reshape(rows, block, columns, block, c).swapaxes(1, 2)
    order = np.asarray(jax.random.permutation(key, rows * columns))
    mixed = blocks.reshape(-1, block, block, c)[order].reshape(blocks.shape)
    return mixed.swapaxes(1, 2).reshape(image.shape)
