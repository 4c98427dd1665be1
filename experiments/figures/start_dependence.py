"""The figure of ``experiments.start_dependence``."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from experiments.common import words
from experiments.figures.trust import draw_image
from experiments.tools.dependence import Runs
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

BY_START = "a random start responds"
BY_PRE_ACTIVATION = "found by pre_activation only"
UNRESOLVED = "unresolved"
PROVED = "proved dead"
KINDS = (BY_START, BY_PRE_ACTIVATION, UNRESOLVED, PROVED)
"""What an atlas says of a map."""
COLOURS = {
    PROVED: "#4d4d4d",
    UNRESOLVED: "#CC79A7",
    BY_PRE_ACTIVATION: INACTIVE,
    BY_START: "#56B4E9",
}
"""Of the kinds of maps."""
PALE = "#e8e8e8"
"""The colour of maps that random starts find, where they are the ground of a panel."""
GREY = "#b8b8b8"
"""The colour of maps of which the kind is not known."""
INACTIVE_AT_START = {
    BY_START: "inactive by chance",
    BY_PRE_ACTIVATION: "no start of the survey responds",
    UNRESOLVED: UNRESOLVED,
    PROVED: PROVED,
}
"""Why a map is at zero at a start."""
SHARE = "final score / map's best"
STRIP = 8
"""Runs of a map in the figure."""


def plot(
    model: str,
    shares: dict[str, np.ndarray],
    kinds: np.ndarray,
    zeros: list[dict[str, Any]],
    source: float,
    cover: dict[str, Any],
    runs: Runs,
    alike: np.ndarray,
) -> Figure:
    """Maps and scales; maps at zero; coverage; and the ends of runs beside their starts.

    Args:
        model: its name.
        shares: of starts that each map responds to, ``[k]``, by recipe.
        kinds: of each map, one of `KINDS`, ``str [k]``.
        zeros: rows of maps at zero without a survey.
        source: the share at zero in the source article.
        cover: of surveys by their size.
        runs: ascents from random starts, `experiments.tools.dependence.Runs`.
        alike: ``[k, r]``, similarity of each run's end to the best end of its map.
    """
    figure = Figure(figsize=(13.2, 13.0), facecolor="white")
    title = f"{model} \N{MIDDLE DOT} what a pattern owes to its start"
    style: dict[str, Any] = {"fontsize": 15, "fontweight": "bold", "color": INK}
    figure.text(0.03, 0.978, title, va="center", **style)
    edges = {"left": 0.085, "right": 0.955, "top": 0.945, "bottom": 0.05}
    heights = [1.0, 1.2, 1.15, 0.95]
    grid = figure.add_gridspec(4, 1, hspace=0.44, height_ratios=heights, **edges)
    draw_shares(figure, grid[0], shares, kinds)
    widths = [0.42, 1, 0.95]
    middle = grid[1].subgridspec(1, 3, wspace=0.16, width_ratios=widths)
    draw_zeros(figure.add_subplot(middle[1]), zeros, source)
    possible = int(np.sum(kinds != PROVED))
    draw_coverage(figure.add_subplot(middle[2]), cover, possible)
    low = grid[2].subgridspec(1, 3, wspace=0.3)
    draw_best_of(figure.add_subplot(low[0]), cover)
    draw_starts_and_ends(figure.add_subplot(low[1]), runs)
    draw_similarity(figure.add_subplot(low[2]), runs, alike)
    draw_strips(figure, grid[3], runs)
    return figure


def draw_shares(
    figure: Figure, place: SubplotSpec, shares: dict[str, np.ndarray], kinds: np.ndarray
) -> None:
    """The share of starts that each map responds to, by recipe; and the kinds of the maps."""
    mean_share = np.mean(list(shares.values()), 0)
    order = np.lexsort((mean_share, kinds != PROVED))
    sizes = {"height_ratios": [12, 1], "width_ratios": [60, 1]}
    parts = place.subgridspec(2, 2, hspace=0.06, wspace=0.03, **sizes)
    axes = figure.add_subplot(parts[0, 0])
    below = figure.add_subplot(parts[1, 0])
    table = 100 * np.stack(list(shares.values()))[:, order]
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
    drawn = axes.imshow(table, cmap="cividis", vmin=0, vmax=100, **style)
    axes.set_yticks(range(len(shares)), list(shares), fontsize=9)
    axes.set_xticks([])
    title = "Share of random starts that each map responds to (%), by field size"
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    bar = figure.colorbar(drawn, cax=figure.add_subplot(parts[0, 1]))
    bar.ax.tick_params(labelsize=8)
    colours = COLOURS | {BY_START: PALE}
    names = list(colours)
    line = [names.index(kind) for kind in kinds[order]]
    colour_map = ListedColormap(list(colours.values()))
    below.imshow([line], cmap=colour_map, vmin=0, vmax=3, **style)
    below.set_yticks([])
    below.set_xticks([])
    label = f"the {len(kinds)} maps, by the share of starts that they respond to"
    below.set_xlabel(label, fontsize=9)
    for kind, colour in colours.items():
        label = f"{kind} ({np.sum(kinds == kind)})"
        below.plot([], [], "s", color=colour, label=label)
    legend: dict[str, Any] = {"fontsize": 8, "frameon": False, "handletextpad": 0.2}
    below.legend(ncols=4, loc="upper right", bbox_to_anchor=(1.0, -0.9), **legend)


def draw_zeros(axes: Axes, zeros: list[dict[str, Any]], source: float) -> None:
    """The share of maps at zero, by kind, for each network and its starts."""
    labels = [f"{row['network']}: {row['starts']}" for row in zeros]
    for place, row in enumerate(zeros):
        percent = 100 * row["at zero"]
        by_kind = row.get("by kind", {})
        left = 0.0
        for kind, colour in COLOURS.items():
            if kind in by_kind:
                width = 100 * by_kind[kind]
                axes.barh(place, width, left=left, color=colour, height=0.66)
                left += width
        if not left:
            axes.barh(place, percent, color=GREY, height=0.66)
        deviation = 100 * row["one round, sd"]
        axes.errorbar(percent, place, xerr=deviation, color=INK, capsize=2, linewidth=1)
    line = {"color": FAINT, "linestyle": "--", "linewidth": 1.2}
    axes.axvline(100 * source, label="the source, 67 of 128", **line)
    for kind, name in INACTIVE_AT_START.items():
        axes.plot([], [], "s", color=COLOURS[kind], label=name)
    axes.plot([], [], "s", color=GREY, label="not told apart")
    axes.set_yticks(range(len(zeros)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    title = "Maps at zero at one random start each, no survey"
    words(axes, title, "maps (%); line: sd of one round")
    axes.legend(fontsize=7.5, loc="center right", frameon=False, borderaxespad=0)


def set_sizes(axes: Axes, sizes: list[int]) -> None:
    """A logarithmic axis of the sizes of surveys."""
    axes.set_xscale("log", base=4)
    labels = [f"{size:,}" for size in sizes]
    axes.set_xticks(sizes, labels, rotation=35)


def draw_coverage(axes: Axes, cover: dict[str, Any], possible: int) -> None:
    """Maps that respond to one of n starts, by recipe, and those that an ascent finds."""
    sizes = cover["sizes"]
    recipes = [name for name in cover if "x" in name or name == "default"]
    colours = ("#009E73", "#56B4E9", "#999999", "#E69F00", BLUE)
    for name, colour in zip(recipes, colours, strict=False):
        axes.plot(sizes, cover[name], "o-", color=colour, markersize=3, label=name)
    label = "found, climbed from the best"
    diamonds = {"color": INACTIVE, "markersize": 5}
    axes.plot(sizes, cover["found"], "D", label=label, **diamonds)
    axes.axhline(possible, color=FAINT, linewidth=1, linestyle=":")
    text = f"{possible} not proved dead"
    above = possible + 1.6
    axes.text(sizes[-1], above, text, fontsize=8, color=FAINT, ha="right")
    set_sizes(axes, sizes)
    axes.set_ylim(55, possible + 6)
    words(axes, "Maps that respond to at least one of n starts", "starts n", "maps")
    axes.legend(fontsize=8, loc="lower right", edgecolor="none", framealpha=0.9)


def draw_best_of(axes: Axes, cover: dict[str, Any]) -> None:
    """Final scores of ascents from the best of n starts."""
    sizes = cover["sizes"]
    low, high = cover["score, quartiles over maps"]
    axes.plot(sizes, cover["score, share of the best"], "o-", color=BLUE, markersize=4)
    axes.fill_between(sizes, low, high, color=BLUE, alpha=0.2, linewidth=0)
    set_sizes(axes, sizes)
    title = "What the best of n starts ends at"
    words(axes, title, "starts n seen by the survey", SHARE)


def points_of(runs: Runs) -> tuple[tuple[np.ndarray, str, str], ...]:
    """Which runs, their colour and their label: those that respond to their start, and others."""
    return (
        (runs.responds, BLUE, "map responds to the start"),
        (~runs.responds, INACTIVE, "map inactive at first"),
    )


def draw_points(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """One point for each run."""
    style = {"markersize": 2.5, "alpha": 0.35, "rasterized": True}
    axes.plot(x, y, ".", color=colour, **style)


def draw_starts_and_ends(axes: Axes, runs: Runs) -> None:
    """Final scores against start scores."""
    first = runs.begun / runs.best
    for chosen, colour, label in points_of(runs):
        draw_points(axes, first[chosen], runs.share[chosen], colour)
        axes.plot([], [], "o", color=colour, markersize=4, label=label)
    axes.legend(fontsize=8, loc="lower right", edgecolor="none", framealpha=0.9)
    words(axes, "Start and end", "start score / map's best final score", SHARE)


def draw_similarity(axes: Axes, runs: Runs, alike: np.ndarray) -> None:
    """Final scores against the similarity to the map's best pattern; the best are left out."""
    for chosen, colour, _ in points_of(runs):
        others = chosen & (runs.share < 1)
        draw_points(axes, alike[others], runs.share[others], colour)
    words(axes, "Pattern and score", "similarity to the map's best pattern", SHARE)


def draw_strips(figure: Figure, place: SubplotSpec, runs: Runs) -> None:
    """Two maps, of which the ends differ little and much: starts above, ends below."""
    means = np.maximum(runs.ended.mean(1), 1e-9)
    spread = runs.ended.std(1) / means
    order = np.argsort(spread)
    maps = len(spread)
    chosen = order[[maps // 10, maps * 9 // 10]]
    whole = place.subgridspec(1, 2, wspace=0.06)
    for half, k in enumerate(chosen):
        axes = draw_strip(figure, whole[half], runs, k)
        text = f"map {runs.maps[k]}: final scores differ by {100 * spread[k]:.0f} % (sd)"
        axes[0].set_title(text, fontsize=9, color=INK, loc="left", fontweight="bold")
        if half == 0:
            axes[0].set_ylabel("start", fontsize=9)
            axes[1].set_ylabel("end", fontsize=9)


def draw_strip(figure: Figure, place: SubplotSpec, runs: Runs, k: int) -> tuple[Axes, Axes]:
    """Runs of one map, the best first.

    Returns:
        The axes of the first start and of the first end.
    """
    count = runs.ended.shape[1]
    shown = min(STRIP, count)
    places = np.linspace(0, count - 1, shown).round().astype(int)
    order = np.argsort(-runs.ended[k])[places]
    grid = place.subgridspec(2, shown, wspace=0.06, hspace=0.1)
    starts = []
    ends = []
    for column, r in enumerate(order):
        start = figure.add_subplot(grid[0, column])
        draw_scored(start, runs.starts[k, r], runs.begun[k, r])
        starts.append(start)
        end = figure.add_subplot(grid[1, column])
        draw_scored(end, runs.images[k, r], runs.ended[k, r])
        ends.append(end)
    return starts[0], ends[0]


def draw_scored(axes: Axes, image: np.ndarray, score: float) -> None:
    """An image with its score below."""
    draw_image(axes, image)
    text = f"{score:.2g}" if score < 10 else f"{score:.0f}"
    axes.set_xlabel(text, fontsize=7.5, labelpad=1)
