"""How like one image is to another: numbers for each pair of images ``[n, h, w, c]``, pixels in [0, 1].

The truth comes second everywhere. Colours are compared in luma and chroma, Y, Cb and Cr of ITU-R
BT.601, which JPEG uses; Y reaches from 0 to 1, Cb and Cr from -0.5 to 0.5.
"""

import numpy as np
from scipy import ndimage

from oipjax.training import LUMA

WINDOW = 11
"""Side of the window in which `ssim` compares, in pixels."""
_DEVIATION, _K1, _K2 = 1.5, 0.01, 0.03


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of pixels, ``[n]``."""
    _check(images, truth)
    return np.square(images.astype(np.float64) - truth).mean((1, 2, 3))


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio, ``[n]``, in dB: ``-10 log10(mse)``; infinite where an image is its truth."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mse(images, truth))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity, ``[n]``, at most 1.

    Z. Wang and others 2004, doi:10.1109/TIP.2003.819861: a Gaussian window of 11 x 11 pixels,
    standard deviation 1.5, K1 = 0.01, K2 = 0.03; the mean over all places where the window lies
    inside the image, and over the channels.

    Raises:
        ValueError: the images are of different shapes, or smaller than the window.
    """
    _check(images, truth)
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(
            f"SSIM needs images of {WINDOW} x {WINDOW} pixels or more, got {list(images.shape)}"
        )
    x, y = images.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    both = _blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return (likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean((1, 2, 3))


def luma(images: np.ndarray) -> np.ndarray:
    """Y of colour images ``[n, h, w, 3]``, ``[n, h, w, 1]``."""
    if images.shape[-1] != 3:
        raise ValueError(f"expected images of 3 channels, got {list(images.shape)}")
    return (images @ np.array(LUMA, images.dtype))[..., None]


def chroma(images: np.ndarray) -> np.ndarray:
    """Cb and Cr of colour images ``[n, h, w, 3]``, ``[n, h, w, 2]``."""
    y = luma(images)
    blue, red = (
        0.5 / (1 - LUMA[channel]) * (images[..., channel : channel + 1] - y) for channel in (2, 0)
    )
    return np.concatenate([blue, red], -1)


def with_chroma(y: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Colour images of a luma ``[n, h, w, 1]`` and a chroma ``[n, h, w, 2]``; cut to [0, 1]."""
    blue, red = y + 2 * (1 - LUMA[2]) * chroma[..., :1], y + 2 * (1 - LUMA[0]) * chroma[..., 1:]
    green = (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return np.clip(np.concatenate([red, green, blue], -1), 0, 1)


def chroma_error(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root mean square over the pixels of the distance between two chromas (Cb, Cr), ``[n]``."""
    _check(images, truth)
    return np.sqrt(np.square(chroma(images) - chroma(truth)).sum(-1).mean((1, 2)))


def _check(images: np.ndarray, truth: np.ndarray) -> None:
    if images.shape != truth.shape or images.ndim != 4:
        raise ValueError(
            f"expected two arrays [n, h, w, c] of one shape, got {images.shape} and {truth.shape}"
        )


def _blur(images: np.ndarray) -> np.ndarray:
    """Means in the window, where it lies inside."""
    edge = WINDOW // 2
    window = np.exp(-0.5 * (np.arange(-edge, edge + 1) / _DEVIATION) ** 2)
    for axis in (1, 2):
        images = ndimage.correlate1d(images, window / window.sum(), axis)
    return images[:, edge:-edge, edge:-edge]
