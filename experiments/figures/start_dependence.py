"""The figure of ``experiments.start_dependence``."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments.common import words
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast

SURVEYED, WOKEN, OPEN, PROVED = (
    "a random start responds",
    "found by pre_activation only",
    "open",
    "proved dead",
)
"""What an atlas says of a map."""


def plot(
    model: str, shares: dict[str, np.ndarray], fate: np.ndarray, zeros: list[dict[str, Any]], source: float,
    cover: dict[str, Any], runs: Any, alike: np.ndarray,
) -> Figure:  # fmt: skip
    """Maps and scales; maps at zero; coverage; and what the ends have of their starts.

    Args:
        model: its name.
        shares: of starts that each map responds to, ``[k]``, by recipe.
        fate: what an atlas says of each map, ``str [k]``.
        zeros: rows of maps at zero without a survey.
        source: the share at zero in the source article.
        cover: of surveys by their size.
        runs: ascents from random starts, `experiments.start_dependence.Runs`.
        alike: ``[k, r]``, similarity of each run's end to the best end of its map.
    """
    figure = Figure(figsize=(13.2, 13.0), facecolor="white")
    title = f"{model} \N{MIDDLE DOT} what a pattern owes to its start"
    figure.text(0.03, 0.978, title, fontsize=15, fontweight="bold", color=INK, va="center")
    grid = figure.add_gridspec(
        4,
        1,
        left=0.085,
        right=0.955,
        top=0.945,
        bottom=0.05,
        hspace=0.44,
        height_ratios=[1.0, 1.2, 1.15, 0.95],
    )
    _matrix(figure, grid[0], shares, fate)
    middle = grid[1].subgridspec(1, 3, wspace=0.16, width_ratios=[0.42, 1, 0.95])
    low = grid[2].subgridspec(1, 3, wspace=0.3)
    _bars(figure.add_subplot(middle[1]), zeros, source)
    _coverage(figure.add_subplot(middle[2]), cover, int(np.sum(fate != PROVED)))
    share = runs.ended / np.maximum(runs.ended.max(1, keepdims=True), 1e-9)
    axes = [figure.add_subplot(low[i]) for i in range(3)]
    axes[0].plot(cover["sizes"], cover["score, share of the best"], "o-", color=BLUE, markersize=4)
    axes[0].fill_between(
        cover["sizes"], *cover["score, quartiles over maps"], color=BLUE, alpha=0.2, linewidth=0
    )
    axes[0].set_xscale("log", base=4)
    axes[0].set_xticks(cover["sizes"], [f"{size:,}" for size in cover["sizes"]], rotation=35)
    words(
        axes[0],
        "What the best of n starts ends at",
        "starts n seen by the survey",
        "final score / map's best",
    )
    responds = runs.begun > 0
    first = runs.begun / np.maximum(runs.ended.max(1, keepdims=True), 1e-9)
    for some, colour, label in (
        (responds, BLUE, "map responds to the start"),
        (~responds, INACTIVE, "map silent at first"),
    ):
        axes[1].plot(
            first[some], share[some], ".", color=colour, markersize=2.5, alpha=0.35, rasterized=True
        )
        axes[1].plot([], [], "o", color=colour, markersize=4, label=label)
        other = some & (share < 1)
        axes[2].plot(
            alike[other],
            share[other],
            ".",
            color=colour,
            markersize=2.5,
            alpha=0.35,
            rasterized=True,
        )
    axes[1].legend(fontsize=8, loc="lower right", edgecolor="none", framealpha=0.9)
    words(
        axes[1], "Start and end", "start score / map's best final score", "final score / map's best"
    )
    words(
        axes[2],
        "Pattern and score",
        "similarity to the map's best pattern",
        "final score / map's best",
    )
    _strip(figure, grid[3], runs)
    return figure


def _matrix(figure: Figure, place: Any, shares: dict[str, np.ndarray], fate: np.ndarray) -> None:
    order = np.lexsort((np.mean(list(shares.values()), 0), fate != PROVED))
    parts = place.subgridspec(
        2, 2, height_ratios=[12, 1], width_ratios=[60, 1], hspace=0.06, wspace=0.03
    )
    axes, below = figure.add_subplot(parts[0, 0]), figure.add_subplot(parts[1, 0])
    drawn = axes.imshow(100 * np.stack([s[order] for s in shares.values()]), aspect="auto", cmap="cividis", vmin=0,
                        vmax=100, interpolation="nearest")  # fmt: skip
    axes.set_yticks(range(len(shares)), list(shares), fontsize=9)
    axes.set_xticks([])
    axes.set_title(
        "Share of random starts that each map responds to (%), by field size", fontsize=10, color=INK, loc="left",
        fontweight="bold",
    )  # fmt: skip
    bar = figure.colorbar(drawn, cax=figure.add_subplot(parts[0, 1]))
    bar.ax.tick_params(labelsize=8)
    kinds, colours = [PROVED, OPEN, WOKEN, SURVEYED], ["#4d4d4d", "#CC79A7", INACTIVE, "#e8e8e8"]
    below.imshow([[kinds.index(f) for f in fate[order]]], aspect="auto", cmap=ListedColormap(colours), vmin=0, vmax=3,
                 interpolation="nearest")  # fmt: skip
    below.set_yticks([])
    below.set_xticks([])
    below.set_xlabel(
        f"the {len(fate)} maps, from those that few starts wake to those that all do", fontsize=9
    )
    for kind, colour in zip(kinds, colours, strict=True):
        below.plot([], [], "s", color=colour, label=f"{kind} ({np.sum(fate == kind)})")
    below.legend(
        ncols=4,
        fontsize=8,
        loc="upper right",
        bbox_to_anchor=(1.0, -0.9),
        frameon=False,
        handletextpad=0.2,
    )


def _bars(axes: Axes, zeros: list[dict[str, Any]], source: float) -> None:
    colours = {PROVED: "#4d4d4d", OPEN: "#CC79A7", WOKEN: INACTIVE, SURVEYED: "#56B4E9"}
    labels = [f"{row['network']}: {row['starts']}" for row in zeros]
    for place, row in enumerate(zeros):
        left = 0.0
        for kind in [kind for kind in colours if kind in row.get("by kind", {})]:
            width = 100 * row["by kind"][kind]
            axes.barh(place, width, left=left, color=colours[kind], height=0.66)
            left += width
        if not left:
            axes.barh(place, 100 * row["at zero"], color="#b8b8b8", height=0.66)
        axes.errorbar(
            100 * row["at zero"],
            place,
            xerr=100 * row["one round, sd"],
            color=INK,
            capsize=2,
            linewidth=1,
        )
    axes.axvline(
        100 * source, color=FAINT, linestyle="--", linewidth=1.2, label="the source, 67 of 128"
    )
    names = {
        SURVEYED: "silent by chance",
        WOKEN: "no start of the survey responds",
        OPEN: "open",
        PROVED: "proved dead",
    }
    for kind, name in names.items():
        axes.plot([], [], "s", color=colours[kind], label=name)
    axes.plot([], [], "s", color="#b8b8b8", label="not told apart")
    axes.set_yticks(range(len(zeros)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    words(
        axes,
        "Maps at zero at one random start each, no survey",
        "maps (%); line: sd of one round",
        "",
    )
    axes.legend(fontsize=7.5, loc="center right", frameon=False, borderaxespad=0)


def _coverage(axes: Axes, cover: dict[str, Any], possible: int) -> None:
    lines = [name for name in cover if "x" in name or name == "default"]
    for name, colour in zip(
        lines, ("#009E73", "#56B4E9", "#999999", "#E69F00", BLUE), strict=False
    ):
        axes.plot(cover["sizes"], cover[name], "o-", color=colour, markersize=3, label=name)
    axes.plot(
        cover["sizes"],
        cover["found"],
        "D",
        color=INACTIVE,
        markersize=5,
        label="found, climbed from the best",
    )
    axes.axhline(possible, color=FAINT, linewidth=1, linestyle=":")
    axes.text(
        cover["sizes"][-1],
        possible + 1.6,
        f"{possible} not proved dead",
        fontsize=8,
        color=FAINT,
        ha="right",
    )
    axes.set_xscale("log", base=4)
    axes.set_xticks(cover["sizes"], [f"{size:,}" for size in cover["sizes"]], rotation=35)
    axes.set_ylim(55, possible + 6)
    words(axes, "Maps that respond to at least one of n starts", "starts n", "maps")
    axes.legend(fontsize=8, loc="lower right", edgecolor="none", framealpha=0.9)


def _strip(figure: Figure, place: Any, runs: Any) -> None:
    """Two maps, of which the ends differ little and much: starts above, ends below."""
    spread = runs.ended.std(1) / np.maximum(runs.ended.mean(1), 1e-9)
    some = np.argsort(spread)[[len(spread) // 10, len(spread) * 9 // 10]]
    shown = min(8, runs.ended.shape[1])
    whole = place.subgridspec(1, 2, wspace=0.06)
    for half, k in enumerate(some):
        order = np.argsort(-runs.ended[k])[
            np.linspace(0, runs.ended.shape[1] - 1, shown).round().astype(int)
        ]
        grid = whole[half].subgridspec(2, shown, wspace=0.06, hspace=0.1)
        for column, r in enumerate(order):
            for row, (image, score) in enumerate(
                ((runs.starts[k, r], runs.begun[k, r]), (runs.images[k, r], runs.ended[k, r]))
            ):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(
                    contrast(image, 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
                )
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                axes.set_xlabel(
                    f"{score:.2g}" if score < 10 else f"{score:.0f}", fontsize=7.5, labelpad=1
                )
                if not row and not column:
                    words = (
                        f"map {runs.maps[k]}: final scores differ by {100 * spread[k]:.0f} % (sd)"
                    )
                    axes.set_title(words, fontsize=9, color=INK, loc="left", fontweight="bold")
                if not column and not half:
                    axes.set_ylabel(("start", "end")[row], fontsize=9)
