"""The figure of ``experiments.oip_transfer``."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.common import words
from experiments.figures.trust import draw_image
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

PARTNER = "OIP of the partner"
DIGIT = "best digit"
ITS_DIGIT = "best digit of the partner"
OTHER = "OIP of another map"
COLOURS = {PARTNER: BLUE, DIGIT: "#009E73", ITS_DIGIT: "#CC79A7", OTHER: INACTIVE}
"""The colours of the kinds of images."""


class Picture(NamedTuple):
    """An image and its scores as shares of the OIPs' scores.

    Attributes:
        image: ``[h, w, c]``.
        in_a: the share in the first network.
        in_b: the share in the second network.
    """

    image: np.ndarray
    in_a: float
    in_b: float


class Row(NamedTuple):
    """Two partners: the OIP of each, and the best digit of each.

    Attributes:
        label: of the maps.
        pictures: OIP of A, OIP of B, best digit of A, best digit of B.
    """

    label: str
    pictures: tuple[Picture, ...]


def plot(
    title: str,
    note: str,
    correlation: np.ndarray,
    shares: dict[str, np.ndarray],
    names: Sequence[str],
    rows: Sequence[Row],
) -> Figure:
    """Shares of the score that are kept: by the partners' correlation, over maps, and in pictures.

    Args:
        title: of the figure.
        note: on the networks and the images.
        correlation: of the partners' activations ``[p]``.
        shares: of the own OIP's score ``[p]``, by kind of image.
        names: of the networks A and B.
        rows: pictures of some partners.
    """
    figure = Figure(figsize=(13.6, 9.2), facecolor="white")
    figure.text(0.05, 0.965, title, fontsize=15, fontweight="bold", color=INK)
    figure.text(0.05, 0.942, note, fontsize=9, color=FAINT)
    text = "Below each: what it scores in A and in B. First those whose activations agree most."
    figure.text(0.545, 0.942, text, fontsize=9, color=FAINT)
    edges = {"left": 0.055, "right": 0.43, "top": 0.9, "bottom": 0.065}
    left = figure.add_gridspec(2, 1, hspace=0.28, **edges)
    draw_correlation(figure.add_subplot(left[0]), correlation, shares)
    draw_distribution(figure.add_subplot(left[1]), shares)
    draw_pictures(figure, names, rows)
    return figure


def draw_correlation(axes: Axes, correlation: np.ndarray, shares: dict[str, np.ndarray]) -> None:
    """Shares of the score by the correlation of the partners."""
    style: dict[str, Any] = {"s": 9, "alpha": 0.55, "linewidth": 0}
    for kind in (OTHER, DIGIT, PARTNER):
        axes.scatter(correlation, shares[kind], color=COLOURS[kind], label=kind, **style)
    words(
        axes,
        "Partners that agree on digits share their OIPs (colours as below)",
        "correlation of the partners' activations on digits",
        "share of the own OIP's score",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def draw_distribution(axes: Axes, shares: dict[str, np.ndarray]) -> None:
    """How many maps keep no more than a share of the score."""
    for kind, colour in COLOURS.items():
        label = f"{kind}: median {100 * np.median(shares[kind]):.0f} %"
        axes.ecdf(shares[kind], color=colour, linewidth=1.8, label=label)
    title = "Over all pairs of maps"
    words(axes, title, "share of the own OIP's score", "maps with no more")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")


def draw_pictures(figure: Figure, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Rows of partners, from well to badly matched, with scores in both networks."""
    first, second = names
    heads = (f"OIP of A\n{first}", f"OIP of B\n{second}", "best digit of A", "best digit of B")
    edges = {"left": 0.56, "right": 0.985, "top": 0.875, "bottom": 0.035}
    grid = figure.add_gridspec(len(rows), len(heads), hspace=0.3, wspace=0.02, **edges)
    side: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8, "color": INK}
    for number, row in enumerate(rows):
        for column, picture in enumerate(row.pictures):
            axes = figure.add_subplot(grid[number, column])
            draw_image(axes, picture.image)
            in_a = f"A {100 * picture.in_a:.0f}"
            in_b = f"B {100 * picture.in_b:.0f} %"
            text = f"{in_a} \N{MIDDLE DOT} {in_b}"
            axes.set_xlabel(text, fontsize=7.5, color=INK, labelpad=2)
            if number == 0:
                axes.set_title(heads[column], fontsize=8.5, color=INK)
            if column == 0:
                axes.text(-0.25, 0.5, row.label, transform=axes.transAxes, **side)
