"""The figures of ``experiments.latent_space``."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from oipjax import autoencoding, latent
from oipjax.plots import BLUE, FAINT, INK, SILENT

GREEN, MARKS = "#009E73", (11.2, 11.95, 12.6)
"""A colour, and where numbers stand beside the rows of images, in inches."""


def images(study: Any, rows: list[dict[str, Any]], pictures: dict[str, np.ndarray]) -> Figure:
    """What each generator's vectors give, walks along principal axes and through a plane, and ways between two codes.

    Args:
        study: `experiments.latent_space.Study`.
        rows: of the table.
        pictures: images ``[16, h, w, c]`` by generator.
    """
    # Sizes in inches, from the top, so that every image is a square.
    shape, strip, cell, wide = study.auto.config.input_shape, 0.516, 0.46, 13.2
    walk, between = principal(study), ways(study)
    upper = 0.95 + len(rows) * (strip + 0.035)
    high = upper + 0.9 + max(9 + 4 + 2, len(walk[1]) // shape[0]) * cell + 0.6
    figure = Figure(figsize=(wide, high), facecolor="white")

    def place(x: float, y: float, columns: float, lines: float, side: float) -> Axes:
        return figure.add_axes((x / wide, 1 - (y + lines * side) / high, columns * side / wide, lines * side / high))

    def write(x: float, y: float, text: str, size: float = 9.5, colour: str = INK, to: str = "center") -> None:
        figure.text(x / wide, 1 - y / high, text, fontsize=size, color=colour, ha=to, va="center")

    _title(
        figure, f"{study.auto.name} \N{MIDDLE DOT} what latent vectors give, by where they come from", 1 - 0.3 / high
    )
    for x, text in zip(MARKS, ("confidence*", "precision", "recall"), strict=True):
        write(x, 0.77, text, 8.5, FAINT)
    for i, row in enumerate(rows):
        y = 0.95 + i * (strip + 0.035)
        _show(place(2.45, y, 16, 1, strip), _strip(pictures[row["vectors"]]))
        write(2.35, y + strip / 2, row["vectors"], to="right")
        for x, value in zip(MARKS, (row["relative"], row["precision"], row["recall"]), strict=True):
            write(x, y + strip / 2, "" if value is None else f"{value:.2f}")
    write(2.45, upper + 0.12, "* mean confidence of the classifier, relative to that in held-out images given back", 8,
          FAINT, "left")  # fmt: skip
    low = upper + 0.8
    axes = place(0.95, low, len(walk[0]), len(walk[1]) // shape[0], cell)
    _show(axes, walk[1])
    _ticks(axes, walk[0], [f"axis {i + 1}" for i in range(len(walk[1]) // shape[0])], shape)
    _words(axes, "Along the principal axes from the centre", "standard deviations of the codes")
    pair, values, grid = plane(study)
    axes = place(7.9, low, 9, 9, cell)
    _show(axes, grid)
    marks = [f"{value:.1f}" for value in values]
    _ticks(axes, marks, marks[::-1], shape)
    _words(axes, "Through the plane of two coordinates, the others at the centre", f"component {pair[0]}")
    axes.set_ylabel(f"component {pair[1]}", fontsize=8.5, color="#444444")
    axes = place(7.9, low + 11 * cell, 9, len(between) // shape[0], cell)
    _show(axes, between)
    _ticks(axes, [f"{t:.2f}" for t in np.linspace(0, 1, 9)], ["line", "arc"] * 2, shape)
    _words(axes, "Between two held-out codes, twice", "share of the way")
    return figure


def region(study: Any, vectors: dict[str, np.ndarray], rows: list[dict[str, Any]]) -> Figure:
    """Densities of components, ellipses of pairs, radii beside chi, variances of the axes, boxes, and confidences."""
    figure = Figure(figsize=(13.2, 8.4), facecolor="white")
    _title(figure, f"{study.auto.name} \N{MIDDLE DOT} where {len(study.codes):,} codes lie ({study.source})", 0.965)
    grid = figure.add_gridspec(2, 3, left=0.055, right=0.985, top=0.885, bottom=0.07, wspace=0.22, hspace=0.4)
    _densities(figure.add_subplot(grid[0]), study)
    _pair(figure.add_subplot(grid[1]), study, vectors)
    _radii(figure.add_subplot(grid[2]), study, vectors)
    _spectrum(figure.add_subplot(grid[3]), study)
    _nearness(figure.add_subplot(grid[4]), rows)
    _quality(figure.add_subplot(grid[5]), rows)
    return figure


def principal(study: Any, axes: int = 14) -> tuple[list[str], np.ndarray]:
    """Steps, and one picture: a row for each of the first principal axes."""
    steps = np.array([-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6], float)
    units = np.eye(len(study.normal.mean))[:axes]
    z = study.normal.from_axes((units[:, None] * steps[None, :, None]).reshape(-1, units.shape[1]))
    made = autoencoding.decode(study.auto, z)
    return [f"{step:g}" for step in steps], np.concatenate([_strip(row) for row in np.split(made, len(units))])


def plane(study: Any, points: int = 9) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """The two most correlated components, values of both, and one picture ``[points * h, points * w, c]``."""
    pair = most_correlated(study.codes)
    reach = 1.6 * np.abs(study.codes[:, pair]).max()
    values = np.linspace(-reach, reach, points)
    z = np.tile(study.normal.mean, (points * points, 1))
    z[:, pair[0]], z[:, pair[1]] = np.tile(values, points), np.repeat(values[::-1], points)
    rows = np.split(autoencoding.decode(study.auto, z), points)
    return pair, values, np.concatenate([_strip(row) for row in rows])


def ways(study: Any) -> np.ndarray:
    """Straight lines and arcs about the centre for two pairs of codes of different classes."""
    t, rows = np.linspace(0, 1, 9), []
    different = np.flatnonzero(np.diff(study.test_labels.astype(int)))[:2]
    for i in different:
        a, b = study.test_codes[i], study.test_codes[i + 1]
        for z in (latent.interpolate(a, b, t), latent.spherical(a, b, t, study.normal.mean)):
            rows.append(_strip(autoencoding.decode(study.auto, z)))
    return np.concatenate(rows)


def most_correlated(codes: np.ndarray) -> tuple[int, int]:
    """The pair of components with the greatest absolute correlation."""
    size = np.abs(latent.correlations(codes))
    np.fill_diagonal(size, 0)
    i, j = np.unravel_index(size.argmax(), size.shape)
    return int(i), int(j)


def _densities(axes: Axes, study: Any) -> None:
    parts = latent.components(study.codes)
    edges, densities = latent.histograms((study.codes - parts.mean) / parts.std, 60)
    for i, density in enumerate(densities):
        axes.stairs(density, edges, color=BLUE, alpha=0.35, linewidth=0.9, label=None if i else "each component")
    x = np.linspace(-4, 4, 200)
    axes.plot(x, stats.norm.pdf(x), color=INK, linewidth=1.6, label="normal")
    axes.set_xlim(-4, 4)
    _plain(axes, f"Components, scaled: KS distance at most {parts.distance.max():.2f}",
           "standard deviations from the mean", "density")  # fmt: skip
    axes.legend(fontsize=8, edgecolor="none", loc="upper right")


def _pair(axes: Axes, study: Any, vectors: dict[str, np.ndarray]) -> None:
    i, j = most_correlated(study.codes)
    every = max(1, len(study.codes) // 3000)
    name, box = _box(vectors)
    axes.plot(*box[:, [i, j]].T, ".", color=SILENT, markersize=3, alpha=0.5, label=name)
    axes.plot(*study.codes[::every, [i, j]].T, ".", color=BLUE, markersize=3, alpha=0.35, label="codes")
    for p, style in ((0.5, "-"), (0.9, "--"), (0.99, ":")):
        axes.plot(*study.normal.ellipse(i, j, p).T, style, color=INK, linewidth=1.3, label=f"{100 * p:g} %")
    axes.plot(0, 0, "+", color=INK, markersize=10, markeredgewidth=1.6)
    axes.margins(0.12)
    _plain(axes, "The most correlated pair of components (+: origin)", f"component {i}", f"component {j}")
    axes.legend(fontsize=8, edgecolor="none", loc="best", framealpha=0.85)


def _radii(axes: Axes, study: Any, vectors: dict[str, np.ndarray]) -> None:
    name, box = _box(vectors)
    far = study.normal.radii(box)
    bins = np.linspace(0, 1.05 * max(np.quantile(far, 0.995), latent.radius(0.999, len(study.normal.mean))), 60)
    for label, z, colour in (("held-out codes", study.test_codes, BLUE), (name, box, SILENT)):
        axes.hist(study.normal.radii(z), bins, density=True, color=colour, alpha=0.45, label=label)
    x = np.linspace(0, bins[-1], 300)
    axes.plot(x, stats.chi.pdf(x, len(study.normal.mean)), color=INK, linewidth=1.6,
              label=f"chi, {len(study.normal.mean)} dimensions")  # fmt: skip
    limit = latent.radius(0.99, len(study.normal.mean))
    axes.axvline(limit, color=INK, linewidth=1, linestyle=":")
    axes.text(limit, axes.get_ylim()[1] * 0.97, " 99 %", fontsize=8, va="top", color=INK)
    _plain(axes, "Mahalanobis radii", "radius", "density")
    axes.legend(fontsize=8, edgecolor="none", loc="center right")


def _spectrum(axes: Axes, study: Any) -> None:
    share = study.normal.explained
    number = np.arange(1, len(share) + 1)
    axes.bar(number, 100 * share, color=BLUE, label="one axis")
    axes.plot(number, 100 * share.cumsum(), "o-", color=INK, markersize=3.5, linewidth=1.2, label="together")
    axes.set_ylim(0, 104)
    _plain(axes, "Variance along the principal axes", "axis", "share of the variance (%)")
    axes.legend(fontsize=8, edgecolor="none", loc="center right")


def _nearness(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """How far a generator's vectors are from codes, and how much the images they give move when encoded again."""
    for row in rows:
        axes.plot(row["to nearest code"], row["code moved"], "o", color=_colour(row["vectors"]), markersize=7)
    _plain(axes, "Far from the codes, vectors do not come back", "median distance to the nearest training code",
           "moved by decode and encode (of codes' spread)")  # fmt: skip
    _key(axes, "upper left")


def _quality(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Precision against recall."""
    for row in rows:
        axes.plot(row["recall"], row["precision"], "o", color=_colour(row["vectors"]), markersize=7)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    _plain(axes, "Images beside training images", "recall: real images within what is made",
           "precision: made within what is real")  # fmt: skip
    _key(axes, "lower right")


def _key(axes: Axes, where: str) -> None:
    for colour, name in ((INK, "held out, given back"), (SILENT, "boxes"), (FAINT, "normal, no correlations"),
                         (BLUE, "fitted normal, normals of classes"), (GREEN, "ellipses, ellipsoid")):  # fmt: skip
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(fontsize=8, edgecolor="none", loc=where, framealpha=0.85)  # pyright: ignore[reportArgumentType]


def _colour(name: str) -> str:
    if name.startswith("box"):
        return SILENT
    if name.startswith("ellips"):
        return GREEN
    return {"held out, given back": INK, "normal, no correlations": FAINT}.get(name, BLUE)


def _box(vectors: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The box whose vectors are as long as codes are."""
    codes = np.median(np.linalg.norm(vectors["held out, given back"], axis=1))
    boxes = {name: z for name, z in vectors.items() if name.startswith("box")}
    return min(boxes.items(), key=lambda item: abs(np.median(np.linalg.norm(item[1], axis=1)) - codes))


def _strip(made: np.ndarray) -> np.ndarray:
    """Images ``[n, h, w, c]`` side by side."""
    return np.concatenate(list(made), 1)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _ticks(axes: Axes, columns: list[str], rows: list[str], shape: tuple[int, int, int]) -> None:
    """Names of the columns below, and of the rows, from the top, to the left."""
    axes.set_xticks((np.arange(len(columns)) + 0.5) * shape[1] - 0.5, columns)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * shape[0] - 0.5, rows)
    axes.tick_params(labelsize=8, colors="#444444", length=0)


def _words(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=10, fontweight="bold", color=INK, loc="left", pad=5)
    axes.set_xlabel(below, fontsize=8.5, color="#444444")


def _plain(axes: Axes, title: str, below: str, beside: str) -> None:
    _words(axes, title, below)
    axes.set_ylabel(beside, fontsize=8.5, color="#444444")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")


def _title(figure: Figure, text: str, y: float) -> None:
    figure.text(0.03, y, text, fontsize=15, fontweight="bold", color=INK, va="center")
