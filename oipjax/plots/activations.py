"""Figures of the activations that images leave in a network."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oipjax.plots.style import BLUE, FAINT, INK, Page, contrast, show_image

PICTURE = 1.15
"""Side of an image above its activations, in inches."""
LEFT = 1.05
"""Room for the names of the layers, in inches."""
GAP = 0.22
LAYER_GAP = 0.12
FOOT = 0.3
BARS = 0.9
"""Height of a layer that is drawn as bars, in inches."""
WIDTHS = {1: 6.6, 2: 4.4, 3: 3.7}
"""Width of a column for so many images, in inches; 2.9 for more."""


def maps_figure(
    title: str,
    pixels: np.ndarray,
    captions: Sequence[str],
    values: Mapping[str, np.ndarray],
    note: str = "",
    *,
    scale: Literal["layer", "map"] = "layer",
) -> Figure:
    """Images side by side, and below each all maps of every layer.

    A layer without height and width is drawn as bars.

    Args:
        title: of the figure.
        pixels: the images ``[n, h, w, c]`` in [0, 1].
        captions: a text above each image.
        values: activations ``[n, h, w, k]`` or ``[n, k]`` by the layer's name, from top to bottom.
        note: a line below the title.
        scale: brightness is comparable within a ``layer``, or, where weak maps are to be visible
            too, only within a ``map``. Images can be compared in both.
    """
    count = len(pixels)
    width = WIDTHS.get(count, 2.9)
    mosaics = [_mosaic(array, scale) for array in values.values()]
    heights = [_height(mosaic, width) for mosaic in mosaics]
    lines = 1 + max(caption.count("\n") for caption in captions)
    head = (0.85 if note else 0.6) + 0.17 * lines
    top = head + PICTURE + GAP
    below = sum(heights) + len(heights) * (GAP + LAYER_GAP) + FOOT
    page = Page(LEFT + count * (width + GAP) + 0.1, top + below)
    page.title(0.15, 0.28, title)
    page.note(0.15, 0.55, note)
    for column in range(count):
        middle = LEFT + column * (width + GAP) + width / 2
        axes = page.axes(middle - PICTURE / 2, head, PICTURE, PICTURE)
        is_grey = pixels.shape[3] == 1
        picture = pixels[column, ..., 0] if is_grey else contrast(pixels[column], 2.0)
        show_image(axes, picture)
        axes.set_title(captions[column], fontsize=9, color=INK, pad=4)
        axes.set_axis_off()
    y = top
    for (name, array), mosaic, height in zip(values.items(), mosaics, heights, strict=True):
        _describe_layer(page, y + height / 2, name, array)
        for column in range(count):
            axes = page.axes(LEFT + column * (width + GAP), y, width, height)
            if mosaic is None:
                _show_bars(axes, array, column)
            else:
                _show_mosaic(axes, mosaic.values[column], mosaic.shape)
        y += height + GAP + LAYER_GAP
    page.note(0.15, page.height - 0.14, _legend(values, scale), size=7)
    return page.figure


def exemplars_figure(
    title: str,
    names: Sequence[str],
    reasons: Sequence[str],
    patterns: np.ndarray,
    pattern_scores: Sequence[float],
    images: np.ndarray,
    scores: np.ndarray,
    note: str = "",
) -> Figure:
    """Maps row by row: the pattern found for each, and the real images that excite it most.

    Args:
        title: of the figure.
        names: of the maps, ``k``.
        reasons: a line below each name.
        patterns: ``[k, h, w, c]``.
        pattern_scores: ``k``.
        images: ``[k, r, h, w, c]`` in [0, 1].
        scores: ``[k, r]``.
        note: a line below the title.
    """
    count, keep = scores.shape
    cell = 0.82
    label = 0.2
    head = 1.12
    left = 1.5
    step = cell + 0.08
    page = Page(left + (keep + 1) * step + 0.45, head + count * (cell + label) + 0.1)
    page.title(0.2, 0.3, title)
    page.note(0.2, 0.57, note)
    first_image = left + 0.3 + step
    columns = [left, *(first_image + i * step for i in range(keep))]
    headings = {left: "pattern", first_image: "images that excite it most"}
    for x, text in headings.items():
        page.text(x, head - 0.16, text, fontsize=9, color=INK, va="center")
    for row in range(count):
        y = head + row * (cell + label)
        _describe(page, 0.2, y + cell / 2, names[row], reasons[row], size=9.5)
        pictures = [contrast(patterns[row], 2.0), *(image[..., 0] for image in images[row])]
        values = [pattern_scores[row], *scores[row]]
        for x, picture, value in zip(columns, pictures, values, strict=True):
            axes = page.axes(x, y, cell, cell)
            show_image(axes, picture)
            axes.set_axis_off()
            style = {"fontsize": 7, "color": FAINT, "ha": "center", "va": "top"}
            axes.text(0.5, -0.03, f"{value:.3g}", transform=axes.transAxes, **style)
    return page.figure


def mosaic_columns(maps: int) -> int:
    """How many maps stand side by side: about twice as many as one above another.

    Rows are full if that is possible.
    """
    least = math.sqrt(2 * maps)
    for columns in range(math.ceil(least), math.floor(2 * least) + 1):
        if maps % columns == 0:
            return columns
    return math.ceil(least)


class _Mosaic(NamedTuple):
    """The maps of a layer for display.

    Attributes:
        values: ``[n, h, w, k]`` in [0, 1], or in [-1, 1] where some are negative.
        shape: height and width of one image's mosaic, in nodes.
    """

    values: np.ndarray
    shape: tuple[int, int]


def _mosaic(array: np.ndarray, scale: str) -> _Mosaic | None:
    """None for a layer without height and width."""
    if array.ndim == 2:
        return None
    _, height, width, maps = array.shape
    if scale == "map":
        largest = np.abs(array).max((0, 1, 2))
    else:
        largest = np.quantile(np.abs(array).max((1, 2)), 0.98)
    columns = mosaic_columns(maps)
    rows = math.ceil(maps / columns)
    gap = _gap(width)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap)
    share = np.clip(array / np.maximum(largest, 1e-9), -1, 1)
    return _Mosaic(np.sign(share) * np.sqrt(np.abs(share)), shape)


def _gap(width: int) -> int:
    """Nodes between two maps: a ninth of a map keeps maps of 3x3 nodes apart."""
    return max(1, round(width / 9))


def _height(mosaic: _Mosaic | None, width: float) -> float:
    if mosaic is None:
        return BARS
    rows, columns = mosaic.shape
    return width * rows / columns


def _describe_layer(page: Page, y: float, name: str, array: np.ndarray) -> None:
    maps = array.shape[-1]
    sides = " x ".join(map(str, array.shape[1:-1]))
    lines = [f"{maps} maps", sides] if sides else [f"{maps} nodes"]
    lines.append(f"{float(array.min()):.3g} to {float(array.max()):.3g}")
    _describe(page, 0.15, y, name, "\n".join(lines), size=10)


def _describe(page: Page, x: float, y: float, name: str, text: str, *, size: float) -> None:
    """A name above ``y``, and smaller text below it."""
    page.text(x, y, name, fontsize=size, fontweight="bold", color=INK, va="bottom")
    page.text(x, y, text, fontsize=7.5, color=FAINT, va="top", linespacing=1.4)


def _legend(values: Mapping[str, np.ndarray], scale: str) -> str:
    legend = "Left of a row: the number of its first map, from 0. "
    legend += "Brightness goes with the root of the value, and is "
    legend += "comparable within a layer." if scale == "layer" else "comparable within a map alone."
    if any(array.ndim == 4 and array.min() < 0 for array in values.values()):
        legend += " Red: above 0; blue: below."
    return legend


def _show_bars(axes: Axes, array: np.ndarray, image: int) -> None:
    """The nodes of one image in ``array [n, k]``; all images share the scale."""
    low = float(array.min())
    high = float(array.max())
    nodes = array.shape[1]
    axes.bar(np.arange(nodes), array[image], width=0.85, color=BLUE)
    axes.set_xlim(-0.7, nodes - 0.3)
    axes.set_ylim(min(0, low) * 1.05, max(high, low + 1e-9) * 1.05)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.tick_params(labelsize=6.5, length=2, colors="#666666")


def _show_mosaic(axes: Axes, values: np.ndarray, shape: tuple[int, int]) -> None:
    """All maps ``values [h, w, k]`` of one image; left of each row the number of its first map."""
    height, width, maps = values.shape
    gap = _gap(width)
    columns = mosaic_columns(maps)
    canvas = np.full(shape, np.nan)
    for index in range(maps):
        row, column = divmod(index, columns)
        y = gap + row * (height + gap)
        x = gap + column * (width + gap)
        canvas[y : y + height, x : x + width] = values[..., index]
    is_signed = bool((values < 0).any())
    colours = colormaps["RdBu_r" if is_signed else "magma"].with_extremes(bad="white")
    low = -1 if is_signed else 0
    axes.imshow(canvas, cmap=colours, vmin=low, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    firsts = range(0, maps, columns)
    middles = [gap + (height - 1) / 2 + row * (height + gap) for row in range(len(firsts))]
    axes.set_yticks(middles, list(map(str, firsts)))
    axes.tick_params(length=0, labelsize=6, pad=1, colors="#666666")
    axes.spines[:].set_visible(False)
