"""What all figures share: colours, numbers as text, images for display, and pages in inches."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1a1a1a"
"""The colour of text."""
FAINT = "#8a8a8a"
"""The colour of secondary text."""
INACTIVE = "#D55E00"
"""Vermilion of Okabe and Ito's palette, which colour-blind people can tell from `BLUE`."""
BLUE = "#0072B2"
"""Blue of the same palette."""


class Page:
    """A figure whose places are given in inches from the upper left corner.

    Args:
        width: of the figure.
        height: of the figure.
    """

    def __init__(self, width: float, height: float):
        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text at a place; ``style`` is that of matplotlib's ``Figure.text``."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def title(self, x: float, y: float, text: str, size: float = 13) -> None:
        """Write a title whose vertical middle is at ``y``."""
        self.text(x, y, text, fontsize=size, fontweight="bold", color=INK, va="center")

    def note(self, x: float, y: float, text: str, size: float = 8) -> None:
        """Write a line of secondary text whose vertical middle is at ``y``."""
        self.text(x, y, text, fontsize=size, color=FAINT, va="center")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is at a place."""
        left = x / self.width
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((left, bottom, width / self.width, height / self.height))


def contrast(image: np.ndarray, spread: float) -> np.ndarray:
    """An image for display: its mean becomes mid-grey.

    Args:
        image: ``[h, w, c]``.
        spread: so many standard deviations from the mean become black and white.

    Returns:
        Values in [0, 1]: ``[h, w]`` for one channel, else ``[h, w, 3]`` of the first three.
    """
    image = np.asarray(image, np.float64)
    centred = image - image.mean()
    deviation = max(float(centred.std()), 1e-9)
    scaled = np.clip(0.5 + centred / (2 * spread * deviation), 0, 1)
    channels = scaled.shape[2]
    if channels == 1:
        return scaled[..., 0]
    missing = max(0, 3 - channels)
    return np.pad(scaled[..., :3], ((0, 0), (0, 0), (0, missing)))


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draw ``[h, w]``, ``[h, w, 1]`` or ``[h, w, 3]``, values in [0, 1]; pixels stay sharp."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def percent(share: float) -> str:
    """A share of a bound as text; it is never rounded up to the whole."""
    digits = 1 if share >= 0.995 else 0
    most = 99.9 if share < 1 else 100
    return f"{min(100 * share, most):.{digits}f}%"


def number(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if not -3 <= magnitude < 6:
        return f"{value:.1e}"
    digits = min(max(2 - magnitude, 0), 4)
    return f"{value:.{digits}f}"


def hide_axes(axes: Axes) -> None:
    """Remove ticks and frame, and leave room for a label."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def plain_axes(axes: Axes) -> None:
    """Leave two sides of the frame and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")
