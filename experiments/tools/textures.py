"""How large the features of a pattern are, and whether they repeat."""

import jax
import numpy as np
from jax import Array
from scipy.ndimage import map_coordinates


def autocorrelation(image: np.ndarray) -> np.ndarray:
    """Correlation of an image ``[h, w]`` with itself at every shift, ``[2h - 1, 2w - 1]``, the shift 0 in the middle.

    Sums over the overlap are divided by its size, so the peaks of a texture that repeats are as
    high as the middle one.
    """
    image = image - image.mean()
    size = [2 * n - 1 for n in image.shape]
    power = np.abs(np.fft.rfft2(image, size)) ** 2
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(np.ones(image.shape), size)) ** 2, size)
    found = np.fft.irfft2(power, size) / np.maximum(overlap.round(), 1)
    return np.fft.fftshift(found / max(found[0, 0], 1e-12))


def measures(image: np.ndarray, beyond: int) -> dict[str, float]:
    """Sizes, in pixels, of what is in an image.

    Args:
        image: ``[h, w]``.
        beyond: where ``repeats`` begins to look.

    Returns:
        ``width``, ``length``: of a feature, the full width at half maximum of the autocorrelation,
            in the direction in
        which it is narrowest and in the one in which it is widest; at most the image's side.
        ``period``: one over the mean frequency of the power spectrum, under a Hann window.
        ``repeats``: the largest autocorrelation at shifts of ``beyond`` pixels or more, down or
            across, where at least
        half of the rows and columns still overlap; NaN if there are none.
    """
    found = autocorrelation(image)
    h, w = image.shape
    y, x = np.meshgrid(np.arange(1 - h, h), np.arange(1 - w, w), indexing="ij")
    radius, angle = np.meshgrid(
        np.arange(0, min(h, w) / 2, 0.05), np.linspace(0, np.pi, 64, False), indexing="ij"
    )
    circles = np.stack([h - 1 + radius * np.sin(angle), w - 1 + radius * np.cos(angle)])
    below = map_coordinates(found, circles, order=3) < 0.5
    # The first radius in each direction at which it is below a half; the last one if it never is.
    half = radius[np.where(below.any(0), below.argmax(0), -1), 0]
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])
    power = np.abs(np.fft.fft2((image - np.average(image, weights=window)) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    far = (
        (np.maximum(np.abs(y), np.abs(x)) >= beyond) & (np.abs(y) <= h // 2) & (np.abs(x) <= w // 2)
    )
    return {
        "width": float(2 * half.min()),
        "length": float(2 * half.max()),
        "period": float(power.sum() / max((power * frequency).sum(), 1e-300)),
        "repeats": float(found[far].max()) if far.any() else float("nan"),
    }


def shuffled(key: Array, image: np.ndarray, block: int) -> np.ndarray:
    """An image ``[h, w, c]`` cut into square blocks that change places at random; pixels keep their values.

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
    blocks = image.reshape(h // block, block, w // block, block, c).swapaxes(1, 2)
    order = np.asarray(jax.random.permutation(key, (h // block) * (w // block)))
    mixed = blocks.reshape(-1, block, block, c)[order].reshape(blocks.shape)
    return mixed.swapaxes(1, 2).reshape(image.shape)
