"""The figure of ``experiments.training_trajectory``."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import words
from experiments.figures.trust import draw_image
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

GREEN = "#009E73"
LAYERS = {"conv1": INACTIVE, "conv2": GREEN, "conv3": BLUE}
"""The colours of the layers."""
ERRORS = (0.5, 1, 2, 5, 10, 50, 90)
"""Ticks of the test error, in percent."""


class Trajectory(NamedTuple):
    """The network and its OIPs at ``t`` moments of a training.

    OIPs have one more row: those of the last moment, from other starts.

    Attributes:
        moments: their names ``[t]``.
        accuracy: on the test images ``[t]``.
        alike: by layer the correlation of each map's activations with those at the end ``[t, k]``.
        maps: the maps that are found at the end ``[m]``.
        images: their OIPs ``[t + 1, m, h, w, c]``.
        found: bool ``[t + 1, k]``.
        scores: of the OIPs, relative to those at the end ``[t + 1, m]``.
        oips: similarity of the OIPs to those at the end ``[t + 1, m]``; NaN where none is found.
        others: the median similarity of two different maps' OIPs at the end.
    """

    moments: list[str]
    accuracy: list[float]
    alike: dict[str, np.ndarray]
    maps: np.ndarray
    images: np.ndarray
    found: np.ndarray
    scores: np.ndarray
    oips: np.ndarray
    others: float

    @property
    def again(self) -> float:
        """The median similarity of OIPs at the end that come from different starts."""
        return float(np.nanmedian(self.oips[-1]))


def plot(layer: str, most_rows: int, trajectory: Trajectory) -> Figure:
    """A row of OIPs for each of some maps, and curves of all maps.

    Args:
        layer: whose OIPs they are.
        most_rows: how many maps have a row.
        trajectory: the maps at each moment.
    """
    figure = Figure(figsize=(15.4, 8.8), facecolor="white")
    title = f"How OIPs come about in training \N{MIDDLE DOT} {layer}"
    figure.text(0.04, 0.965, title, fontsize=15, fontweight="bold", color=INK)
    note = (
        "Columns: steps, then epochs; again: the end, from other starts. "
        "Below: similarity to the end; early first."
    )
    figure.text(0.04, 0.941, note, fontsize=9, color=FAINT)
    draw_rows(figure, most_rows, trajectory)
    edges = {"left": 0.715, "right": 0.985, "top": 0.9, "bottom": 0.045}
    right = figure.add_gridspec(4, 1, hspace=0.42, **edges)
    draw_activations(figure.add_subplot(right[0]), trajectory)
    draw_similarities(figure.add_subplot(right[1]), trajectory)
    draw_scores(figure.add_subplot(right[2]), trajectory)
    draw_error(figure.add_subplot(right[3]), trajectory)
    return figure


def draw_rows(figure: Figure, most_rows: int, trajectory: Trajectory) -> None:
    """The OIPs of some maps at each moment; maps that come to their OIP early are first."""
    moments = len(trajectory.moments)
    names = [*trajectory.moments, "again"]
    similarity = np.nan_to_num(trajectory.oips[:moments]).mean(0)
    order = np.argsort(-similarity, kind="stable")
    places = np.linspace(0, len(order) - 1, most_rows).round().astype(int)
    chosen = order[np.unique(places)]
    edges = {"left": 0.04, "right": 0.655, "top": 0.9, "bottom": 0.03}
    grid = figure.add_gridspec(len(chosen), len(names), wspace=0.08, **edges)
    for row, place in enumerate(chosen):
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            alike = trajectory.oips[column, place]
            draw_oip(axes, trajectory.images[column, place], alike)
            if row == 0:
                axes.set_title(name, fontsize=8.5, color=INK, pad=4)
            if column == 0:
                number = str(trajectory.maps[place])
                side: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"}
                axes.set_ylabel(number, fontsize=9, color=INK, **side)


def draw_oip(axes: Axes, image: np.ndarray, alike: float) -> None:
    """An OIP and its similarity to that at the end; NaN: none is found."""
    if np.isfinite(alike):
        draw_image(axes, image)
        axes.set_xlabel(f"{alike:.2f}", fontsize=7, color=INK, labelpad=1.5)
        return
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("unresolved", fontsize=7, color=INACTIVE, labelpad=1.5)


def draw_activations(axes: Axes, trajectory: Trajectory) -> None:
    """Correlations of activations, by layer."""
    for layer, colour in LAYERS.items():
        draw_band(axes, trajectory.alike[layer], colour, layer)
    label_panel(axes, "Activations: correlation with the end", trajectory.moments)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def draw_similarities(axes: Axes, trajectory: Trajectory) -> None:
    """Similarities of OIPs, and those of other starts and of other maps."""
    moments = trajectory.moments
    draw_band(axes, trajectory.oips[: len(moments)], BLUE, "the map at the end")
    dashes = {"color": GREEN, "linewidth": 1.2, "linestyle": "--"}
    axes.axhline(trajectory.again, label="the end, from other starts", **dashes)
    dots = {"color": INACTIVE, "linewidth": 1.2, "linestyle": ":"}
    axes.axhline(trajectory.others, label="other maps at the end", **dots)
    label_panel(axes, "OIPs: similarity to", moments)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def draw_scores(axes: Axes, trajectory: Trajectory) -> None:
    """Scores of OIPs."""
    moments = trajectory.moments
    draw_band(axes, trajectory.scores[: len(moments)], BLUE, "")
    label_panel(axes, "Score of the OIP, relative to the end", moments)


def draw_error(axes: Axes, trajectory: Trajectory) -> None:
    """The test error."""
    error = 100 * (1 - np.array(trajectory.accuracy))
    axes.semilogy(error, "o-", color=INK, markersize=3.5)
    axes.set_yticks(ERRORS, [f"{error:g}" for error in ERRORS], minor=False)
    axes.minorticks_off()
    label_panel(axes, "Test error (%)", trajectory.moments)


def draw_band(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    """The median over maps, and the quartiles."""
    low, middle, high = np.nanpercentile(values, (25, 50, 75), axis=1)
    steps = np.arange(len(middle))
    axes.plot(middle, "o-", color=colour, markersize=3.5, label=label)
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)


def label_panel(axes: Axes, title: str, moments: Sequence[str]) -> None:
    """Title a panel and name the moments."""
    words(axes, title, "")
    axes.set_xticks(range(len(moments)), moments)
