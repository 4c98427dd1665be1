"""A figure that is laid out in inches."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oipjax.plots import INK


class Page:
    """A figure laid out in inches from its upper left corner, so that images can be squares."""

    def __init__(self, wide: float, high: float):
        self.wide = wide
        self.high = high
        self.figure = Figure(figsize=(wide, high), facecolor="white")

    def axes(self, x: float, y: float, w: float, h: float) -> Axes:
        """Axes of a width and a height, with the upper left corner at ``x``, ``y``."""
        left = x / self.wide
        bottom = 1 - (y + h) / self.high
        return self.figure.add_axes((left, bottom, w / self.wide, h / self.high))

    def write(
        self, x: float, y: float, text: str, size: float = 9, colour: str = INK, **how: Any
    ) -> None:
        """A text, by default to the right of the point."""
        options = {"ha": "left", "va": "center", "color": colour, "fontsize": size, **how}
        left = x / self.wide
        bottom = 1 - y / self.high
        self.figure.text(left, bottom, text, **options)
