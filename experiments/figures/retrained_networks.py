"""The figure of ``experiments.retrained_networks``."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from experiments.common import words
from experiments.figures.trust import draw_image
from oipjax.analysis import match
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

SEEDS = "other seeds"
TWINS = "same start, other order"
UNTRAINED = "untrained"
SHUFFLED = "shuffled images"
COLOURS = {SEEDS: BLUE, TWINS: "#009E73", UNTRAINED: INACTIVE, SHUFFLED: FAINT}
"""The colours of the kinds of pairs."""


class Kind(NamedTuple):
    """Pairs of networks of one kind.

    Attributes:
        curve: mean and standard error of the shares of maps with a partner, ``[t]`` each.
        measures: mean and standard error of the measures, ``[q]`` each.
        pairs: the measures of each pair ``[p, q]``.
    """

    curve: tuple[np.ndarray, np.ndarray]
    measures: tuple[np.ndarray, np.ndarray]
    pairs: np.ndarray


class Layer(NamedTuple):
    """A layer of ``m`` networks.

    Attributes:
        name: of the layer.
        live: how many maps respond to digits, by network ``[m]``.
        levels: of correlation ``[t]``.
        kinds: the pairs of networks, by kind.
        square: correlations of activations ``[m, k, m, k]``.
        images: the OIPs ``[m, k, h, w, c]``.
        found: bool ``[m, k]``.
    """

    name: str
    live: list[int]
    levels: np.ndarray
    kinds: dict[str, Kind]
    square: np.ndarray
    images: np.ndarray
    found: np.ndarray


class Rows(NamedTuple):
    """The pictures of a layer: a row for each map, a column for each network.

    Attributes:
        names: of the columns.
        maps: indices ``[rows, columns]``.
        correlation: with the map of the first column ``[rows, columns]``.
    """

    names: list[str]
    maps: np.ndarray
    correlation: np.ndarray


def plot(
    seeds: Sequence[int], reordered: Sequence[int], most_rows: int, layers: Sequence[Layer]
) -> Figure:
    """Shares of maps with a partner, layer by layer; below, OIPs of some maps and their partners.

    Args:
        seeds: of the first networks.
        reordered: the seeds of the other ones, trained with the images in another order.
        most_rows: maps of each layer.
        layers: the layers.
    """
    figure = Figure(figsize=(14.4, 11.2), facecolor="white")
    bold = {"fontweight": "bold", "color": INK}
    small = {"fontsize": 9, "color": FAINT}
    title = "Do two trainings give the same maps?"
    figure.text(0.045, 0.972, title, **{"fontsize": 15, **bold})
    note = (
        f"{len(seeds)} networks that differ in their seed. Lines: mean over pairs, "
        "bands: one standard error (networks left out in turn)."
    )
    figure.text(0.045, 0.953, note, **small)
    edges = {"left": 0.045, "right": 0.985, "top": 0.915, "bottom": 0.7}
    top = figure.add_gridspec(1, len(layers), wspace=0.16, **edges)
    for column, layer in enumerate(layers):
        axes = figure.add_subplot(top[column])
        draw_shares(axes, layer)
        if column == 0:
            axes.set_ylabel("maps that have such a partner (%)", fontsize=9)
        if column == len(layers) - 1:
            legend = {"fontsize": 8.5, "title_fontsize": 8.5, "frameon": False}
            axes.legend(loc="upper right", title="pairs of networks", **legend)
        rows = choose_rows(seeds, reordered, most_rows, layer)
        left = 0.045 + column * 0.321
        edges = {"left": left, "right": left + 0.28, "top": 0.58, "bottom": 0.03}
        columns = len(seeds) + min(1, len(reordered))
        grid = figure.add_gridspec(most_rows, columns, wspace=0.1, hspace=0.34, **edges)
        draw_rows(figure, grid, layer, rows)
    title = "OIPs of maps of the first network and of their partners"
    figure.text(0.045, 0.633, title, **{"fontsize": 11.5, **bold})
    note = (
        "From well to badly matched. "
        "Below each: the map's index, and the correlation of its activations."
    )
    figure.text(0.045, 0.618, note, **small)
    return figure


def draw_shares(axes: Axes, layer: Layer) -> None:
    """The share of maps that have a partner, by the correlation with it."""
    for name, kind in layer.kinds.items():
        mean, error = kind.curve
        low = 100 * mean - 100 * error
        high = 100 * mean + 100 * error
        colour = COLOURS[name]
        axes.plot(layer.levels, 100 * mean, color=colour, label=name, linewidth=1.8)
        axes.fill_between(layer.levels, low, high, color=colour, alpha=0.2, linewidth=0)
    fewest = min(layer.live)
    most = max(layer.live)
    span = f"{fewest} to {most}" if fewest < most else f"{most}"
    maps = layer.found.shape[1]
    title = f"{layer.name}: {span} of {maps} maps answer to digits"
    words(axes, title, "correlation with the partner, at least")
    axes.set(xlim=(0, 1), ylim=(0, 103))


def choose_rows(
    seeds: Sequence[int], reordered: Sequence[int], most_rows: int, layer: Layer
) -> Rows:
    """Some maps whose partners are found in all networks, from well to badly matched."""
    names = [f"seed {seed}" for seed in seeds]
    if reordered[:1] == seeds[:1]:
        names.append(f"seed {seeds[0]}\nreordered")
    maps = np.arange(layer.found.shape[1])
    partners = [maps]
    correlations = [np.ones(len(maps))]
    is_shown = layer.found[0]
    for network in range(1, len(names)):
        matching = match(layer.square[0, :, network])
        has_partner = matching.partner >= 0
        is_shown = is_shown & has_partner & layer.found[network, matching.partner]
        partners.append(matching.partner)
        correlations.append(matching.correlation)
    level = np.mean(correlations[1 : len(seeds)], axis=0)
    order = np.flatnonzero(is_shown)
    order = order[np.argsort(-level[order], kind="stable")]
    places = np.linspace(0, len(order) - 1, most_rows).round().astype(int)
    chosen = order[np.unique(places)]
    return Rows(
        names=names,
        maps=np.stack(partners, 1)[chosen],
        correlation=np.stack(correlations, 1)[chosen],
    )


def draw_rows(figure: Figure, grid: GridSpec, layer: Layer, rows: Rows) -> None:
    """A row for each map: its OIP and those of its partners."""
    for row, maps in enumerate(rows.maps):
        for column, number in enumerate(maps):
            axes = figure.add_subplot(grid[row, column])
            draw_image(axes, layer.images[column, number])
            label = str(number)
            if column > 0:
                label += f" \N{MIDDLE DOT} {rows.correlation[row, column]:.2f}"
            axes.set_xlabel(label, fontsize=7.5, color=INK, labelpad=2)
            if row == 0:
                colour = FAINT if column else INK
                axes.set_title(rows.names[column], fontsize=8, color=colour, pad=4)
