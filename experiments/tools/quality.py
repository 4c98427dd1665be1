"""How alike images are: numbers for each pair of images ``[n, h, w, c]``, pixels in [0, 1].

The truth comes second everywhere. Colours are compared in luma and chroma, Y, Cb and Cr of ITU-R
BT.601, which JPEG uses; Y reaches from 0 to 1, Cb and Cr from -0.5 to 0.5.
"""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from oipjax.training import LUMA

WINDOW = 11
"""Side of the window in which `ssim` compares, in pixels."""
DEVIATION = 1.5
"""Standard deviation of the window's Gaussian, in pixels."""


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of pixels, ``[n]``."""
    _check(images, truth)
    return np.square(images.astype(np.float64) - truth).mean((1, 2, 3))


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio, ``[n]``, in dB; infinite where an image equals its truth."""
    _check(images, truth)
    ratios = []
    with np.errstate(divide="ignore"):
        for image, original in zip(images, truth, strict=True):
            ratios.append(peak_signal_noise_ratio(original, image, data_range=1))
    return np.array(ratios)


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
        given = list(images.shape)
        raise ValueError(f"SSIM needs images of {WINDOW} x {WINDOW} pixels or more, got {given}")
    values = []
    for image, original in zip(images, truth, strict=True):
        value = structural_similarity(
            image.astype(np.float64),
            original.astype(np.float64),
            gaussian_weights=True,
            sigma=DEVIATION,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        values.append(value)
    return np.array(values)


def luma(images: np.ndarray) -> np.ndarray:
    """Y of colour images ``[n, h, w, 3]``, ``[n, h, w, 1]``."""
    if images.shape[-1] != 3:
        raise ValueError(f"expected images of 3 channels, got {list(images.shape)}")
    return (images @ np.array(LUMA, images.dtype))[..., None]


def chroma(images: np.ndarray) -> np.ndarray:
    """Cb and Cr of colour images ``[n, h, w, 3]``, ``[n, h, w, 2]``."""
    y = luma(images)
    blue = 0.5 / (1 - LUMA[2]) * (images[..., 2:3] - y)
    red = 0.5 / (1 - LUMA[0]) * (images[..., 0:1] - y)
    return np.concatenate([blue, red], -1)


def with_chroma(y: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Colour images of a luma ``[n, h, w, 1]`` and a chroma ``[n, h, w, 2]``; clipped to [0, 1]."""
    blue = y + 2 * (1 - LUMA[2]) * chroma[..., :1]
    red = y + 2 * (1 - LUMA[0]) * chroma[..., 1:]
    green = (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return np.clip(np.concatenate([red, green, blue], -1), 0, 1)


def chroma_error(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root mean square over the pixels of the distance between two chromas (Cb, Cr), ``[n]``."""
    _check(images, truth)
    difference = chroma(images) - chroma(truth)
    return np.sqrt(np.square(difference).sum(-1).mean((1, 2)))


def _check(images: np.ndarray, truth: np.ndarray) -> None:
    if images.shape != truth.shape or images.ndim != 4:
        raise ValueError(
            f"expected two arrays [n, h, w, c] of one shape, got {images.shape} and {truth.shape}"
        )
