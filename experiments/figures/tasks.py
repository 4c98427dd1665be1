"""Figures of ``experiments.compression``, ``denoising`` and ``recolouring``.

They show images before and after, and the images themselves.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import words
from experiments.figures.page import Page
from experiments.tools import quality
from oipjax.data import Split
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

AUTOENCODER = "autoencoder"
COMPONENTS = "principal components"
SMALLER = "smaller picture"
JPEG = "JPEG"
CORRUPTED = "seen"
"""The corrupted images themselves, which a network sees."""
LINEAR = "linear map"
GREY = "grey, as seen"
KEPT = "autoencoder, luma kept"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
ORANGE = "#E69F00"
COLOURS = {AUTOENCODER: BLUE, COMPONENTS: INACTIVE, SMALLER: GREEN, JPEG: PURPLE}
MARKS = {AUTOENCODER: "o", COMPONENTS: "s", SMALLER: "^", JPEG: "D"}
STYLES = {
    CORRUPTED: (FAINT, "x"),
    "Gaussian blur": (GREEN, "^"),
    "median filter": (PURPLE, "v"),
    COMPONENTS: (INACTIVE, "s"),
    LINEAR: (ORANGE, "D"),
    AUTOENCODER: (BLUE, "o"),
    "autoencoder, all": (SKY, "P"),
}
"""Colours and marks of denoised images."""
TARGETS = (100, 400)
"""Bits at which images are shown."""
FULL = 32
"""Bits of a number that is not quantised."""
CELL = 0.62
"""Side of an image, in inches."""
LEFT = 1.75
"""Where images begin, in inches from the left."""
NUMBER = 0.6
"""Width of a number to the right of images, in inches."""
GAP = 0.14
"""Height of a gap between rows of images, in inches."""
BELOW = 4.9
"""Where images begin below panels, in inches from the top."""


MEASURES = (("psnr", 1, 1), ("ssim", 1, 2), ("accuracy", 100, 1))
"""What stands beside denoised images: a measure, its scale, and the digits that are shown."""
Row = dict[str, Any]
Rows = Sequence[Row]
Pictures = dict[str, dict[str, np.ndarray]]


class Line(NamedTuple):
    """A row of images.

    Attributes:
        name: stands to the left.
        images: ``[n, h, w, c]``.
        texts: stand to the right.
    """

    name: str
    images: np.ndarray
    texts: Sequence[str] = ()


Lines = Sequence[Line | None]
"""Rows of images; None: a gap."""


def titled_page(wide: float, high: float, title: str) -> Page:
    """A page with its title."""
    page = Page(wide, high)
    page.write(0.15, 0.25, title, size=12, weight="bold")
    return page


def draw_gallery(page: Page, y: float, lines: Lines, heads: Sequence[str], x: float = LEFT) -> None:
    """Draw rows of images.

    Args:
        page: the figure.
        y: where the rows begin, in inches from the top.
        lines: the rows; None: a gap.
        heads: names above the texts to the right of the images.
        x: where the images begin, in inches from the left.
    """
    count = max(len(line.images) for line in lines if line is not None)
    right = x + count * CELL
    marks = [right + (0.6 + number) * NUMBER for number in range(len(heads))]
    for mark, head in zip(marks, heads, strict=True):
        page.write(mark, y - 0.05, head, 8, FAINT, ha="center", va="bottom")
    for line in lines:
        if line is None:
            y += GAP
            continue
        picture = np.clip(np.concatenate(list(line.images), 1), 0, 1)
        axes = page.axes(x, y, len(line.images) * CELL, CELL - 0.04)
        style = {"cmap": "gray", "vmin": 0, "vmax": 1}
        axes.imshow(picture.squeeze(), aspect="auto", interpolation="nearest", **style)
        axes.set_axis_off()
        middle = y + CELL / 2
        page.write(x - 0.1, middle, line.name, ha="right")
        for mark, text in zip(marks, line.texts, strict=False):
            page.write(mark, middle, text, ha="center")
        y += CELL


def height(lines: Lines) -> float:
    """Height of a gallery, in inches."""
    return sum(GAP if line is None else CELL for line in lines)


def compression(
    rows: Rows, pictures: Sequence[np.ndarray], truth: np.ndarray, title: str
) -> Figure:
    """PSNR and SSIM by the bits of an image; images at about 100 and 400 bits.

    Args:
        rows: of the table.
        pictures: images ``[n, h, w, c]`` of each row.
        truth: the images themselves.
        title: of the figure.
    """
    lines: list[Line | None] = [Line("image", truth)]
    for target in TARGETS:
        lines.append(None)
        for method in COLOURS:
            best = nearest_row(rows, method, target)
            row = rows[best]
            texts = [f"{row['bits']:.0f}", f"{row['psnr']:.1f}", f"{row['ssim']:.2f}"]
            lines.append(Line(method, pictures[best], texts))
    wide = max(9.5, LEFT + len(truth) * CELL + 3.4 * NUMBER)
    page = titled_page(wide, BELOW + height(lines) + 0.15, title)
    panel = (wide - 1.75) / 2
    axes = page.axes(0.75, 0.8, panel, 3.3)
    draw_rates(axes, rows, "psnr")
    words(axes, "PSNR against what an image costs", "bits for an image", "PSNR (dB)")
    axes.legend(fontsize=8, edgecolor="none", loc="upper left")
    axes = page.axes(1.6 + panel, 0.8, panel, 3.3)
    draw_rates(axes, rows, "ssim")
    words(axes, "SSIM against what an image costs", "bits for an image", "SSIM")
    draw_gallery(page, BELOW, lines, ("bits", "PSNR", "SSIM"))
    return page.figure


def nearest_row(rows: Rows, method: str, bits: float) -> int:
    """The index of a method's row with about so many bits, and of equal ones the best."""

    def distance(number: int) -> tuple[float, float]:
        row = rows[number]
        return abs(math.log(row["bits"] / bits)), -row["psnr"]

    own = [number for number, row in enumerate(rows) if row["method"] == method]
    return min(own, key=distance)


def draw_rates(axes: Axes, rows: Rows, measure: str) -> None:
    """A measure by the bits of an image, for each method.

    Points are hollow if their numbers are not quantised. A line leads through those points that no
    point with fewer bits excels.
    """
    for method, colour in COLOURS.items():
        own = [row for row in rows if row["method"] == method]
        best = -math.inf
        bits = []
        values = []
        for row in sorted(own, key=lambda row: (row["bits"], -row[measure])):
            is_full = row.get("bits each") == FULL
            face = "white" if is_full else colour
            style = {"color": colour, "markersize": 4.5, "markerfacecolor": face}
            axes.plot(row["bits"], row[measure], MARKS[method], alpha=0.9, **style)
            if row[measure] > best:
                best = row[measure]
                bits.append(row["bits"])
                values.append(best)
        axes.plot(bits, values, color=colour, linewidth=1.4)
        axes.plot([], [], f"{MARKS[method]}-", color=colour, markersize=4.5, label=method)
    axes.set_xscale("log")


def denoising(
    rows: Rows,
    pictures: Pictures,
    truth: np.ndarray,
    crossed: dict[str, dict[str, float]],
    title: str,
) -> Figure:
    """PSNR and accuracy by corruption, gains on other corruptions, images before and after.

    Args:
        rows: of the table.
        pictures: images ``[n, h, w, c]`` by corruption, and by what was made of them.
        truth: the images themselves.
        crossed: gains in dB, by the corruption of a network's training, and by corruption.
        title: of the figure.
    """
    texts = {}
    for row in rows:
        texts[row["corruption"], row["images"]] = numbers_of(row)
    left = every_corruption(pictures, truth, texts)
    right = every_method(pictures, truth, texts)
    half = LEFT + len(truth) * CELL + 3.4 * NUMBER
    wide = max(13.2, 2 * half)
    high = BELOW + max(height(left), height(right)) + 0.15
    page = titled_page(wide, high, title)
    names = list(pictures)
    axes = page.axes(0.75, 0.8, 3.7, 2.9)
    draw_methods(axes, rows, names, "psnr", 1)
    words(axes, "Test images, before and after", "", "PSNR (dB)")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 6)
    axes.legend(fontsize=7.5, edgecolor="none", ncols=2, loc="upper center")
    axes = page.axes(5.25, 0.8, 3.7, 2.9)
    draw_methods(axes, rows, names, "accuracy", 100)
    words(axes, "Images that a classifier reads right", "", "accuracy (%)")
    if rows[0]["accuracy"] is not None:
        clean = 100 * rows[0]["accuracy"]
        axes.axhline(clean, color=INK, linewidth=1, linestyle=":")
        axes.text(0, clean + 0.5, "clean", fontsize=8, va="bottom")
    draw_crossed(page.axes(wide - 3.2, 0.8, 3.0, 2.9), crossed)
    heads = ("PSNR", "SSIM", "right %")
    draw_gallery(page, BELOW, left, heads)
    draw_gallery(page, BELOW, right, heads, wide - half + LEFT)
    return page.figure


def numbers_of(row: Row) -> list[str]:
    """PSNR, SSIM and accuracy of a row as texts; empty where they were not measured."""
    texts = []
    for name, scale, digits in MEASURES:
        value = row[name]
        texts.append("" if value is None else f"{scale * value:.{digits}f}")
    return texts


def every_corruption(
    pictures: Pictures,
    truth: np.ndarray,
    texts: dict[tuple[str, str], list[str]],
) -> list[Line | None]:
    """Images with each corruption, and denoised by the autoencoder."""
    lines: list[Line | None] = [Line("image", truth)]
    for name, images in pictures.items():
        lines.append(None)
        lines.append(Line(name, images[CORRUPTED], texts[name, CORRUPTED]))
        lines.append(Line("autoencoder", images[AUTOENCODER], texts[name, AUTOENCODER]))
    return lines


def every_method(
    pictures: Pictures,
    truth: np.ndarray,
    texts: dict[tuple[str, str], list[str]],
) -> list[Line | None]:
    """Images with two of the corruptions, and denoised by each method."""
    names = list(pictures)
    first = names[(len(names) - 1) // 4]
    second = names[-(len(names) + 2) // 4]
    lines: list[Line | None] = [Line("image", truth)]
    for name in dict.fromkeys((first, second)):
        lines.append(None)
        for method, images in pictures[name].items():
            label = f"{name}: {method}" if method == CORRUPTED else method
            lines.append(Line(label, images, texts[name, method]))
    return lines


def draw_methods(axes: Axes, rows: Rows, names: Sequence[str], measure: str, scale: float) -> None:
    """A measure of the images of each method, by corruption."""
    x = np.arange(len(names))
    for method, (colour, mark) in STYLES.items():
        values = [row[measure] for row in rows if row["images"] == method]
        if None in values:
            continue
        style = {"color": colour, "markersize": 5, "alpha": 0.9}
        axes.plot(x, scale * np.array(values), mark, label=method, **style)
    name_slanted(axes, names)


def draw_crossed(axes: Axes, gains: dict[str, dict[str, float]]) -> None:
    """A matrix of gains with its numbers."""
    values = np.array([list(row.values()) for row in gains.values()])
    axes.imshow(values, cmap="RdBu", vmin=-15, vmax=15, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if value > 9 else INK
        text = axes.text(j, i, f"{value:.1f}", fontsize=7.5, color=colour)
        text.set_horizontalalignment("center")
        text.set_verticalalignment("center")
    names = [name.removeprefix("autoencoder, ") for name in gains]
    axes.set_yticks(range(len(gains)), names)
    name_slanted(axes, list(next(iter(gains.values()))))
    title = "Gain (dB), by corruption of the training"
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.tick_params(labelsize=8, colors="#444444", length=0)


def name_slanted(axes: Axes, names: Sequence[str]) -> None:
    """Slanted names below the axes."""
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")


def recolouring(
    rows: Rows,
    recoloured: dict[str, np.ndarray],
    test: Split,
    shown: np.ndarray,
    title: str,
) -> Figure:
    """Images before and after, with numbers, and where the mean colours of images lie.

    Args:
        rows: of the table.
        recoloured: images ``[n, h, w, 3]`` by method.
        test: the images themselves.
        shown: numbers of those that are shown.
        title: of the figure.
    """
    has_hue = rows[0]["hue right"] is not None
    heads = ["PSNR", "SSIM", "chroma\nerror"]
    if has_hue:
        heads.append("hue\nright")
    lines: list[Line | None] = []
    for row in rows:
        texts = [f"{row['psnr']:.1f}", f"{row['ssim']:.2f}", f"{row['chroma error']:.3f}"]
        if has_hue:
            texts.append(f"{100 * row['hue right']:.1f} %")
        method = row["images"]
        lines.append(Line(method, recoloured[method][shown], texts))
    lines.insert(1, None)
    lines.append(None)
    lines.append(Line("truth", test.images[shown] / 255))
    top = 0.75
    left = LEFT + len(shown) * CELL + (0.4 + len(heads)) * NUMBER
    high = max(top + height(lines), 4.9) + 0.15
    page = titled_page(left + 4.6, high, title)
    draw_gallery(page, top, lines, heads)
    axes = page.axes(left + 0.9, top, 3.5, 3.5)
    draw_colours(axes, test.images, recoloured[AUTOENCODER])
    return page.figure


def draw_colours(axes: Axes, truth: np.ndarray, recoloured: np.ndarray) -> None:
    """Mean chroma of images, the true one and that of the autoencoder.

    Args:
        axes: to draw on.
        truth: ``uint8 [n, h, w, 3]``.
        recoloured: pixels in [0, 1] ``[n, h, w, 3]``.
    """
    pixels = truth.astype(np.float32) / 255
    true = quality.chroma(pixels).mean((1, 2))
    after = quality.chroma(recoloured).mean((1, 2))
    every = max(1, len(true) // 2000)
    luma = np.full((len(true), 1, 1, 1), 0.55)
    strong = 3 * true[:, None, None]
    colours = quality.with_chroma(luma, strong).reshape(-1, 3)
    style = {"c": colours[::every], "s": 7, "linewidths": 0}
    axes.scatter(*after[::every].T, label="of the autoencoder", **style)
    style = {"c": "none", "s": 3, "edgecolors": INK, "linewidths": 0.25, "alpha": 0.5}
    axes.scatter(*true[::every].T, label="true", **style)
    axes.set_aspect("equal", "datalim")
    words(axes, "Mean chroma of images (colour: the true one)", "Cb (blue)", "Cr (red)")
    axes.legend(fontsize=7.5, edgecolor="none", loc="upper left", framealpha=0.6)
