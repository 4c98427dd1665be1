"""Figures of ``experiments.compression``, ``denoising`` and ``recolouring``: images before, after and as they are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common import words
from experiments.tools import quality
from oipjax.data import Split
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

AUTOENCODER, COMPONENTS, SMALLER, JPEG = (
    "autoencoder",
    "principal components",
    "smaller picture",
    "JPEG",
)
SEEN, LINEAR, GREY, KEPT = "seen", "linear map", "grey, as seen", "autoencoder, luma kept"
GREEN, PURPLE, SKY, ORANGE = "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = {AUTOENCODER: BLUE, COMPONENTS: INACTIVE, SMALLER: GREEN, JPEG: PURPLE}
MARKS = {AUTOENCODER: "o", COMPONENTS: "s", SMALLER: "^", JPEG: "D"}
STYLES = {
    SEEN: (FAINT, "x"), "Gaussian blur": (GREEN, "^"), "median filter": (PURPLE, "v"), COMPONENTS: (INACTIVE, "s"),
    LINEAR: (ORANGE, "D"), AUTOENCODER: (BLUE, "o"), "autoencoder, all": (SKY, "P"),
}  # fmt: skip
TARGETS = (100, 400)
"""Bits at which images are shown."""
FULL = 32
"""Bits of a number that is not quantised."""
CELL, LEFT, NUMBER = 0.62, 1.75, 0.6
"""Side of an image, what stands to its left, and a number to its right, in inches."""
Line = tuple[str, np.ndarray, Sequence[str]]
"""A row of images: its name, images ``[n, h, w, c]``, and texts to their right."""


class Page:
    """A figure laid out in inches from its upper left corner, so that every image is as wide as it is high."""

    def __init__(self, wide: float, high: float, title: str):
        self.wide, self.high = wide, high
        self.figure = Figure(figsize=(wide, high), facecolor="white")
        self.write(0.15, 0.25, title, size=12, weight="bold")

    def axes(self, x: float, y: float, w: float, h: float) -> Axes:
        """Axes of a width and a height."""
        return self.figure.add_axes(
            (x / self.wide, 1 - (y + h) / self.high, w / self.wide, h / self.high)
        )

    def write(
        self, x: float, y: float, text: str, size: float = 9, colour: str = INK, **how: Any
    ) -> None:
        """A text, by default to the right of the point."""
        how = {"ha": "left", "va": "center", "color": colour, "fontsize": size, **how}
        self.figure.text(x / self.wide, 1 - y / self.high, text, **how)

    def gallery(
        self, y: float, lines: Sequence[Line | None], heads: Sequence[str] = (), x: float = LEFT
    ) -> None:
        """Rows of images from ``y`` on, a gap for None, and names above the texts to their right."""
        count = max(len(line[1]) for line in lines if line is not None)
        marks = [x + count * CELL + (0.6 + i) * NUMBER for i, _ in enumerate(heads)]
        for mark, head in zip(marks, heads, strict=True):
            self.write(mark, y - 0.05, head, 8, FAINT, ha="center", va="bottom")
        for line in lines:
            if line is None:
                y += 0.14
                continue
            name, images, texts = line
            picture = np.clip(np.concatenate(list(images), 1), 0, 1)
            axes = self.axes(x, y, len(images) * CELL, CELL - 0.04)
            axes.imshow(
                picture.squeeze(),
                cmap="gray",
                vmin=0,
                vmax=1,
                aspect="auto",
                interpolation="nearest",
            )
            axes.set_axis_off()
            self.write(x - 0.1, y + CELL / 2, name, ha="right")
            for mark, text in zip(marks, texts, strict=False):
                self.write(mark, y + CELL / 2, text, ha="center")
            y += CELL


def height(lines: Sequence[Line | None]) -> float:
    """Of a gallery, in inches."""
    return sum(0.14 if line is None else CELL for line in lines)


def compression(
    rows: Sequence[dict[str, Any]], pictures: Sequence[np.ndarray], truth: np.ndarray, title: str
) -> Figure:
    """PSNR and SSIM by the bits that are spent; images at about 100 and 300 bits.

    Args:
        rows: of the table.
        pictures: images ``[n, h, w, c]`` of each row.
        truth: the images themselves.
        title: of the figure.
    """
    lines: list[Line | None] = [("image", truth, ())]
    for target in TARGETS:
        lines.append(None)
        for method in COLOURS:
            own = [i for i, row in enumerate(rows) if row["method"] == method]
            best = min(
                own, key=lambda i: (abs(math.log(rows[i]["bits"] / target)), -rows[i]["psnr"])
            )
            row = rows[best]
            lines.append(
                (
                    method,
                    pictures[best],
                    [f"{row['bits']:.0f}", f"{row['psnr']:.1f}", f"{row['ssim']:.2f}"],
                )
            )
    wide, below = max(9.5, LEFT + len(truth) * CELL + 3.4 * NUMBER), 4.9
    page = Page(wide, below + height(lines) + 0.15, title)
    panel = (wide - 1.75) / 2
    for x, name, label in ((0.75, "psnr", "PSNR (dB)"), (1.6 + panel, "ssim", "SSIM")):
        axes = page.axes(x, 0.8, panel, 3.3)
        for method, colour in COLOURS.items():
            _rates(axes, [row for row in rows if row["method"] == method], name, method, colour)
        axes.set_xscale("log")
        words(axes, f"{label.split()[0]} against what an image costs", "bits for an image", label)
        if name == "psnr":
            axes.legend(fontsize=8, edgecolor="none", loc="upper left")
    page.gallery(below, lines, ("bits", "PSNR", "SSIM"))
    return page.figure


def denoising(
    rows: Sequence[dict[str, Any]],
    pictures: dict[str, dict[str, np.ndarray]],
    truth: np.ndarray,
    crossed: dict[str, dict[str, float]],
    title: str,
) -> Figure:
    """PSNR and accuracy by corruption, gains of networks on each other's corruptions, images before and after.

    Args:
        rows: of the table.
        pictures: images ``[n, h, w, c]`` by corruption, and by what was made of them.
        truth: the images themselves.
        crossed: gains in dB, by what a network was trained with, and by corruption.
        title: of the figure.
    """
    texts = {
        (row["corruption"], row["images"]): [
            "" if row[name] is None else f"{scale * row[name]:.{digits}f}"
            for name, scale, digits in (("psnr", 1, 1), ("ssim", 1, 2), ("accuracy", 100, 1))
        ]
        for row in rows
    }
    first: list[Line | None] = [("image", truth, ())]
    second: list[Line | None] = [("image", truth, ())]
    for name, made in pictures.items():
        first += [
            None,
            (name, made[SEEN], texts[name, SEEN]),
            ("autoencoder", made[AUTOENCODER], texts[name, AUTOENCODER]),
        ]
    names = list(pictures)
    for name in dict.fromkeys((names[(len(names) - 1) // 4], names[-(len(names) + 2) // 4])):
        second.append(None)
        second += [
            (f"{name}: {what}" if what == SEEN else what, images, texts[name, what])
            for what, images in pictures[name].items()
        ]
    half = LEFT + len(truth) * CELL + 3.4 * NUMBER
    wide, below = max(13.2, 2 * half), 4.9
    page = Page(wide, below + max(height(first), height(second)) + 0.15, title)
    x = np.arange(len(names))
    for place, (key, label, scale) in enumerate(
        (("psnr", "PSNR (dB)", 1), ("accuracy", "accuracy (%)", 100))
    ):
        axes = page.axes(0.75 + place * 4.5, 0.8, 3.7, 2.9)
        for what, (colour, mark) in STYLES.items():
            values = [row[key] for row in rows if row["images"] == what]
            if None not in values:
                axes.plot(
                    x,
                    scale * np.array(values),
                    mark,
                    color=colour,
                    markersize=5,
                    label=what,
                    alpha=0.9,
                )
        words(
            axes,
            ("Test images, before and after", "What a classifier reads right")[place],
            "",
            label,
        )
        _slanted(axes, names)
        if place == 0:
            axes.set_ylim(axes.get_ylim()[0], axes.get_ylim()[1] + 6)
            axes.legend(fontsize=7.5, edgecolor="none", ncols=2, loc="upper center")
        elif rows[0][key] is not None:
            axes.axhline(scale * rows[0][key], color=INK, linewidth=1, linestyle=":")
            axes.text(0, scale * rows[0][key] + 0.5, "clean", fontsize=8, va="bottom")
    _crossed(page.axes(wide - 3.2, 0.8, 3.0, 2.9), crossed)
    page.gallery(below, first, ("PSNR", "SSIM", "right %"))
    page.gallery(below, second, ("PSNR", "SSIM", "right %"), wide - half + LEFT)
    return page.figure


def _crossed(axes: Axes, gains: dict[str, dict[str, float]]) -> None:
    """A matrix of gains with its numbers."""
    values = np.array([list(row.values()) for row in gains.values()])
    axes.imshow(values, cmap="RdBu", vmin=-15, vmax=15, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        axes.text(
            j,
            i,
            f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if value > 9 else INK,
        )
    axes.set_yticks(range(len(gains)), [name.removeprefix("autoencoder, ") for name in gains])
    _slanted(axes, list(next(iter(gains.values()))))
    axes.set_title(
        "Gain (dB), by what was trained with", fontsize=10, color=INK, loc="left", fontweight="bold"
    )
    axes.tick_params(labelsize=8, colors="#444444", length=0)


def _slanted(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")


def _rates(axes: Axes, rows: Sequence[dict[str, Any]], name: str, method: str, colour: str) -> None:
    """A method's points, hollow if its numbers are not quantised, and a line through those that none excels."""
    best, line = -math.inf, []
    for row in sorted(rows, key=lambda row: (row["bits"], -row[name])):
        full = row.get("bits each") == FULL
        axes.plot(row["bits"], row[name], MARKS[method], color=colour, markersize=4.5,
                  markerfacecolor="white" if full else colour, alpha=0.9)  # fmt: skip
        if row[name] > best:
            best = row[name]
            line.append((row["bits"], best))
    axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.4)
    axes.plot([], [], f"{MARKS[method]}-", color=colour, markersize=4.5, label=method)


def recolouring(
    rows: Sequence[dict[str, Any]],
    made: dict[str, np.ndarray],
    test: Split,
    shown: np.ndarray,
    title: str,
) -> Figure:
    """Images before and after, with numbers, and where the mean colours of images lie.

    Args:
        rows: of the table.
        made: images ``[n, h, w, 3]`` by method.
        test: the images themselves.
        shown: numbers of those that are shown.
        title: of the figure.
    """
    heads = [
        "PSNR",
        "SSIM",
        "chroma\nerror",
        *(["hue\nright"] if rows[0]["hue right"] is not None else []),
    ]
    lines: list[Line | None] = []
    for row in rows:
        texts = [f"{row['psnr']:.1f}", f"{row['ssim']:.2f}", f"{row['chroma error']:.3f}"]
        texts += [f"{100 * row['hue right']:.1f} %"] if row["hue right"] is not None else []
        lines.append((row["images"], made[row["images"]][shown], texts))
    lines.insert(1, None)
    lines += [None, ("truth", test.images[shown] / 255, ())]
    below = 0.75
    left = LEFT + len(shown) * CELL + (0.4 + len(heads)) * NUMBER
    page = Page(left + 4.6, max(below + height(lines), 4.9) + 0.15, title)
    page.gallery(below, lines, heads)
    axes = page.axes(left + 0.9, below, 3.5, 3.5)
    true, after = (
        quality.chroma(images).mean((1, 2))
        for images in (test.images.astype(np.float32) / 255, made[AUTOENCODER])
    )
    every = max(1, len(true) // 2000)
    colours = quality.with_chroma(
        np.full((len(true), 1, 1, 1), 0.55), 3 * true[:, None, None]
    ).reshape(-1, 3)
    axes.scatter(
        *after[::every].T, c=colours[::every], s=7, linewidths=0, label="given by the autoencoder"
    )
    axes.scatter(
        *true[::every].T, c="none", s=3, edgecolors=INK, linewidths=0.25, alpha=0.5, label="true"
    )
    axes.set_aspect("equal", "datalim")
    words(axes, "Mean chroma of images (colour: the true one)", "Cb (blue)", "Cr (red)")
    axes.legend(fontsize=7.5, edgecolor="none", loc="upper left", framealpha=0.6)
    return page.figure
