"""The figure of ``experiments.trust``."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import words
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast

OWN = "OIP"
STAGE = "on its way, as strong as the digits"
OTHER = "OIP of another map"
NOISE = "random start"
DIGIT = "digit at random"
STYLES = {
    OWN: (BLUE, "o-"),
    STAGE: ("#56B4E9", "s-"),
    OTHER: (INACTIVE, "^-"),
    NOISE: (FAINT, "d-"),
    DIGIT: (INK, ":"),
}
"""The colour and the line of each kind of picture."""
COLOURS = (BLUE, INACTIVE, "#56B4E9", "#E69F00")
"""Of the layers and image spaces."""
SHOWN = 8
"""Maps in the figure."""
TICKS = (-16, -8, -4, -2, -1, -0.5, 0, 0.5, 1, 2)
"""Of path similarity."""


class Example(NamedTuple):
    """A map of the figure.

    Attributes:
        number: of the map.
        ratio: the score of the OIP by that of the best digit.
        pictures: the best digit, an image on its way, and the OIP.
    """

    number: int
    ratio: float
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray]


def plot(network: str, facts: list[dict[str, Any]]) -> Figure:
    """How much stronger OIPs are than digits, with examples; and their paths, layer by layer."""
    figure = Figure(figsize=(13.2, 8.6), facecolor="white")
    title = f"{network}: what optimisation finds, beside real digits"
    figure.text(0.03, 0.968, title, fontsize=15, fontweight="bold", color=INK, va="center")
    last = [fact for fact in facts if fact["layer"] == facts[-1]["layer"]]
    draw_ratios(figure.add_axes((0.065, 0.575, 0.29, 0.31)), facts)
    heading = (
        f"Maps of {last[0]['layer']}, from the least ratio to the greatest ({last[0]['space']})"
    )
    style = {"fontsize": 10, "fontweight": "bold", "color": INK, "va": "center"}
    figure.text(0.44, 0.907, heading, **style)
    draw_examples(figure, last[0]["examples"])
    for index, fact in enumerate(last):
        is_first = index == 0
        axes = figure.add_axes((0.065 + 0.475 * index, 0.075, 0.43, 0.36))
        draw_paths(axes, fact)
        heading = (
            f"Path similarity to digits that excite the same map of {fact['layer']} "
            f"({fact['space']})"
        )
        scale = "0: digits of another map, 1: of the same map"
        words(axes, heading, "layer", scale if is_first else "")
        if is_first:
            axes.legend(fontsize=8, loc="lower right", edgecolor="none")
    return figure


def draw_ratios(axes: Axes, facts: list[dict[str, Any]]) -> None:
    """The shares of maps whose OIP is no more than so many times as strong as the best digit."""
    for fact, colour in zip(facts, COLOURS, strict=False):
        ratios = [oip / digit for _, oip, digit, _ in fact["rows"] if digit > 0]
        ratio = np.sort(ratios)
        number = np.arange(1, len(ratio) + 1)
        share = 100 * number / len(fact["rows"])
        label = f"{fact['layer']}, {fact['space']}: median {np.median(ratio):.1f}"
        axes.step(ratio, share, where="post", color=colour, label=label)
    axes.axvline(1, color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    ticks = (1, 2, 5, 10, 20)
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    title = f"Score of the OIP / of the best of {facts[0]['digits']:,} digits"
    words(axes, title, "ratio", "maps with no more (%)")
    axes.legend(fontsize=8, loc="lower right", edgecolor="none")


def draw_examples(figure: Figure, shown: Sequence[Example]) -> None:
    """Of some maps the best digit, an image on its way, and the OIP."""
    names = ("best digit", "on its way", "OIP")
    edges = {"left": 0.44, "right": 0.985, "top": 0.89, "bottom": 0.555}
    grid = figure.add_gridspec(len(names), SHOWN, wspace=0.06, hspace=0.06, **edges)
    for column, example in enumerate(shown):
        for row, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            draw_image(axes, example.pictures[row])
            if column == 0:
                axes.set_ylabel(name, fontsize=8, color=INK)
            if row == len(names) - 1:
                label = f"map {example.number}\n\N{MULTIPLICATION SIGN} {example.ratio:.1f}"
                axes.set_xlabel(label, fontsize=8, color=INK)


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """An image ``[h, w, c]`` without a frame."""
    picture = contrast(image, 2.0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_paths(axes: Axes, fact: dict[str, Any]) -> None:
    """Path similarity of each kind of picture, layer by layer."""
    curves = fact["path similarity"]
    names = list(curves)
    places = range(len(names))
    for kind, (colour, style) in STYLES.items():
        points = [curves[name][kind] for name in names]
        value, low, high = np.transpose(points)
        line = {"color": colour, "markersize": 4, "linewidth": 1.6}
        axes.plot(names, value, style, label=kind, **line)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    for level in (0, 1):
        axes.axhline(level, color="#555555", linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1, linscale=1)
    lowest, highest = axes.get_ylim()
    ticks = [tick for tick in TICKS if lowest <= tick <= highest]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    own = names.index(fact["layer"])
    axes.axvline(own, color=FAINT, linewidth=5, alpha=0.18)
