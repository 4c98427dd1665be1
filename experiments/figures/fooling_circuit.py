"""The figure of ``experiments.fooling_circuit``."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import words
from experiments.figures.trust import draw_image
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

ROWS = ("best digit", "OIP, honest", "decoy", "OIP, fooled", "fooled,\nfrom the digit")
"""The pictures of a map."""
SHOWN = 8
"""Maps in the figure."""
POINTS = 2000
"""Digits in the figure, of those that give the same bits."""


class Pictures(NamedTuple):
    """The pictures of ``m`` maps.

    Attributes:
        maps: their indices ``[m]``, the map of greatest score first.
        rows: for each of `ROWS` images ``[m, h, w, c]``.
    """

    maps: np.ndarray
    rows: tuple[np.ndarray, ...]


class Digits(NamedTuple):
    """What both networks answer to digits.

    Attributes:
        honest: scores ``[n, m]`` of the network.
        fooled: scores ``[n, m]`` of the network with the circuit.
        is_changed: bool ``[n]``, whether any map of the layer differs.
        same_bits: the share of the digits for which all nodes are equal.
    """

    honest: np.ndarray
    fooled: np.ndarray
    is_changed: np.ndarray
    same_bits: float


def plot(
    title: str, pictures: Pictures, digits: Digits, told_apart: dict[str, list[float]]
) -> Figure:
    """Pictures of eight maps before and after; scores of digits; and how well measures do.

    Args:
        title: of the figure.
        pictures: of the maps.
        digits: their scores in both networks.
        told_apart: by measure two medians, the area under the ROC curve, and its interval.
    """
    figure = Figure(figsize=(13.2, 5.9), facecolor="white")
    style: dict[str, Any] = {"color": INK, "fontweight": "bold"}
    figure.text(0.03, 0.955, title, fontsize=15, va="center", **style)
    draw_pictures(figure, pictures)
    count = len(digits.is_changed)
    heading = f"{100 * digits.same_bits:.2f} % of {count:,} digits give the same bits"
    figure.text(0.645, 0.885, heading, fontsize=10, **style)
    draw_digits(figure.add_axes((0.785, 0.58, 0.195, 0.28)), digits)
    figure.text(0.645, 0.455, "Who notices?", fontsize=10, **style)
    draw_measures(figure.add_axes((0.785, 0.1, 0.195, 0.33)), told_apart)
    return figure


def draw_pictures(figure: Figure, pictures: Pictures) -> None:
    """The two maps of greatest score, whose decoys are drawn, and six of the others."""
    last = len(pictures.maps) - 1
    others = np.linspace(2, last, SHOWN - 2).round().astype(int)
    edges = {"left": 0.105, "right": 0.6, "top": 0.86, "bottom": 0.03}
    grid = figure.add_gridspec(len(ROWS), SHOWN, wspace=0.06, hspace=0.06, **edges)
    for column, place in enumerate(np.unique(np.r_[0, 1, others])):
        for row, name in enumerate(ROWS):
            axes = figure.add_subplot(grid[row, column])
            draw_image(axes, pictures.rows[row][place])
            if column == 0:
                side = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8}
                axes.set_ylabel(name, fontsize=10, color=INK, **side)
            if row == 0:
                axes.set_title(f"map {pictures.maps[place]}", fontsize=9, color=INK, pad=3)


def draw_digits(axes: Axes, digits: Digits) -> None:
    """The scores of all maps for digits, in one network against the other."""
    style = {"markersize": 2.5, "alpha": 0.5, "rasterized": True}
    equal = np.flatnonzero(~digits.is_changed)[:POINTS]
    changed = np.flatnonzero(digits.is_changed)
    for chosen, colour in ((equal, BLUE), (changed, INACTIVE)):
        before = digits.honest[chosen].ravel()
        after = digits.fooled[chosen].ravel()
        axes.plot(before, after, ".", color=colour, **style)
    words(axes, "", "score of a map for a digit, honest", "the same, fooled")


def draw_measures(axes: Axes, told_apart: dict[str, list[float]]) -> None:
    """How well each measure tells fooled maps from honest ones."""
    names = list(told_apart)[::-1]
    areas = [told_apart[name][2:] for name in names]
    value, low, high = np.transpose(areas)
    colours = [BLUE if end > 0.5 else FAINT for end in low]
    axes.barh(names, value, color=colours, height=0.62)
    axes.hlines(range(len(names)), low, high, color=INK, linewidth=1.2)
    style = {"fontsize": 8, "va": "center", "color": "white", "fontweight": "bold"}
    for place, area in enumerate(value):
        axes.text(0.03, place, f"{area:.2f}", **style)
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    words(axes, "", "area under the ROC curve (0.5: by chance)")
