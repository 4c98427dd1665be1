"""The figures of ``experiments.latent_space``."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from oipjax.analysis import latent
from oipjax.plots import BLUE, FAINT, INACTIVE, INK
from oipjax.training import autoencoder as autoencoding

GREEN, MARKS = "#009E73", (11.1, 11.85, 12.55)
"""A colour, and where numbers stand beside the rows of images, in inches."""
CLASSES = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F", "#4D4D4D", "#7B4EA3", "#9BBF3B",
)  # fmt: skip
FEW = 2000
"""Codes that are drawn one by one."""


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
    marks = ["MSE again*" if rows[0]["relative"] is None else "confidence*"]
    upper = 0.95 + len(rows) * (strip + 0.035)
    high = upper + 0.9 + max(9 + 4 + 2, len(walk[1]) // shape[0]) * cell + 0.6
    figure = Figure(figsize=(wide, high), facecolor="white")

    def place(x: float, y: float, columns: float, lines: float, side: float) -> Axes:
        return figure.add_axes(
            (x / wide, 1 - (y + lines * side) / high, columns * side / wide, lines * side / high)
        )

    def write(
        x: float, y: float, text: str, size: float = 9.5, colour: str = INK, to: str = "center"
    ) -> None:
        figure.text(x / wide, 1 - y / high, text, fontsize=size, color=colour, ha=to, va="center")

    _title(
        figure,
        f"{study.auto.name} \N{MIDDLE DOT} what latent vectors give, by where they come from",
        1 - 0.3 / high,
    )
    for x, text in zip(MARKS, (*marks, "density", "coverage"), strict=True):
        write(x, 0.77, text, 8.5, FAINT)
    for i, row in enumerate(rows):
        y = 0.95 + i * (strip + 0.035)
        _show(place(2.45, y, 16, 1, strip), _strip(pictures[row["vectors"]]))
        write(2.35, y + strip / 2, row["vectors"], to="right")
        numbers = (
            row["again MSE"] if row["relative"] is None else row["relative"],
            row["density"],
            row["coverage"],
        )
        for x, value in zip(MARKS, numbers, strict=True):
            write(x, y + strip / 2, f"{value:.4f}" if value == row["again MSE"] else f"{value:.2f}")
    note = (
        "* squared error after encoding and decoding the image again" if rows[0]["relative"] is None else
        "* mean confidence of the classifier, relative to that in held-out images given back"
    )  # fmt: skip
    write(2.45, upper + 0.12, note, 8, FAINT, "left")
    low = upper + 0.8
    axes = place(0.95, low, len(walk[0]), len(walk[1]) // shape[0], cell)
    _show(axes, walk[1])
    _ticks(axes, walk[0], [f"axis {i + 1}" for i in range(len(walk[1]) // shape[0])], shape)
    _words(axes, "Along the principal axes from the centre", "standard deviations of the codes")
    pair, values, grid = plane(study)
    axes = place(7.9, low, 9, 9, cell)
    _show(axes, grid)
    ticks = [f"{value:.1f}" for value in values]
    _ticks(axes, ticks, ticks[::-1], shape)
    _words(
        axes,
        "Through the plane of two coordinates, the others at the centre",
        f"component {pair[0]}",
    )
    axes.set_ylabel(f"component {pair[1]}", fontsize=8.5, color="#444444")
    axes = place(7.9, low + 11 * cell, 9, len(between) // shape[0], cell)
    _show(axes, between)
    _ticks(axes, [f"{t:.2f}" for t in np.linspace(0, 1, 9)], ["line", "arc"] * 2, shape)
    _words(axes, "Between two held-out codes, twice", "share of the way")
    return figure


def region(
    study: Any, vectors: dict[str, np.ndarray], rows: list[dict[str, Any]], found: dict[str, Any]
) -> Figure:
    """Where codes lie and how they hang together; no image is shown.

    Densities of components, ellipses of pairs, radii beside chi; variances of the axes, how vectors
    come back, images beside real ones; two projections, and valleys between groups.

    Args:
        study: `experiments.latent_space.Study`.
        vectors: of each generator, ``[n, d]``.
        rows: of the table.
        found: about the region.
    """
    figure = Figure(figsize=(13.2, 12.6), facecolor="white")
    title = f"{study.auto.name} \N{MIDDLE DOT} where {len(study.codes):,} codes lie ({study.images.name})"
    _title(figure, title, 0.977)
    grid = figure.add_gridspec(
        3, 3, left=0.055, right=0.985, top=0.925, bottom=0.048, wspace=0.22, hspace=0.34
    )
    _densities(figure.add_subplot(grid[0]), study)
    _pair(figure.add_subplot(grid[1]), study, vectors)
    _radii(figure.add_subplot(grid[2]), study, vectors)
    _spectrum(figure.add_subplot(grid[3]), study)
    _nearness(figure.add_subplot(grid[4]), rows)
    _quality(figure.add_subplot(grid[5]), rows)
    _principal_plane(figure.add_subplot(grid[6]), study, vectors)
    _neighbours(figure.add_subplot(grid[7]), study, vectors)
    _valleys(figure.add_subplot(grid[8]), found["bodies"])
    return figure


def attributes(study: Any, rows: list[dict[str, Any]], count: int = 8) -> Figure:
    """Held-out images moved along the vectors of the attributes that are read best, and how well all are read.

    Args:
        study: `experiments.latent_space.Study`.
        rows: of the attributes' table, the best first.
        count: attributes that are shown.
    """
    steps, known, names = np.linspace(-1.5, 1.5, 7), study.tables[0].known, study.tables[0].names
    figure = Figure(figsize=(13.2, 0.72 * count + 1.5), facecolor="white")
    _title(
        figure, f"{study.auto.name} \N{MIDDLE DOT} held-out images along attribute vectors", 0.955
    )
    grid = figure.add_gridspec(1, 2, left=0.125, right=0.725, top=0.88, bottom=0.09, wspace=0.04)
    shape = study.auto.config.input_shape
    for column in range(2):
        made = []
        for row in rows[:count]:
            vector = latent.attribute(
                study.codes[known], study.tables[0].has[known, names.index(row["attribute"])]
            )
            made.append(
                _strip(
                    autoencoding.decode(
                        study.auto, study.test_codes[column] + steps[:, None] * vector
                    )
                )
            )
        axes = figure.add_subplot(grid[column])
        _show(axes, np.concatenate(made))
        _ticks(
            axes,
            [f"{step:+.1f}" for step in steps],
            [row["attribute"] for row in rows[:count]],
            shape,
        )
        _words(axes, f"Image {column + 1} (0: as it is given back)", "times the attribute vector")
        axes.tick_params(labelleft=column == 0)
    axes = figure.add_axes((0.825, 0.09, 0.16, 0.79))
    order = range(len(rows))[::-1]
    areas = [
        [row[name] for row in rows]
        for name in ("AUC along the vector", "AUC along Fisher's direction")
    ]
    errors = [row["its standard error"] for row in rows]
    axes.errorbar(
        areas[0],
        order,
        xerr=errors,
        fmt="o",
        color=BLUE,
        markersize=4,
        linewidth=1,
        label="the vector",
    )
    axes.plot(areas[1], order, "o", color=INACTIVE, markersize=4, label="Fisher's direction")
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(order, [row["attribute"] for row in rows])
    _plain(axes, "Read from held-out codes", "AUC (0.5: chance)", "")
    axes.tick_params(axis="y", labelsize=6.5)
    axes.legend(fontsize=7, edgecolor="none", loc="lower right", framealpha=0.85)
    return figure


def principal(study: Any, axes: int = 14) -> tuple[list[str], np.ndarray]:
    """Steps, and one picture: a row for each of the first principal axes."""
    steps = np.array([-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6], float)
    units = np.eye(len(study.normal.mean))[:axes]
    z = study.normal.from_axes((units[:, None] * steps[None, :, None]).reshape(-1, units.shape[1]))
    made = autoencoding.decode(study.auto, z)
    return [f"{step:g}" for step in steps], np.concatenate(
        [_strip(row) for row in np.split(made, len(units))]
    )


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
    classes = (
        np.arange(len(study.test_codes))
        if study.test_classes is None
        else study.test_classes.astype(int)
    )
    different = np.flatnonzero(np.diff(classes))[:3:2]
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
        axes.stairs(density, edges, color=BLUE, alpha=0.35 if len(densities) < 50 else 0.12, linewidth=0.9,
                    label=None if i else "each component")  # fmt: skip
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
    axes.plot(*box[:, [i, j]].T, ".", color=INACTIVE, markersize=3, alpha=0.5, label=name)
    axes.plot(
        *study.codes[::every, [i, j]].T, ".", color=BLUE, markersize=3, alpha=0.35, label="codes"
    )
    for p, style in ((0.5, "-"), (0.9, "--"), (0.99, ":")):
        axes.plot(
            *study.normal.ellipse(i, j, p).T,
            style,
            color=INK,
            linewidth=1.3,
            label=f"{100 * p:g} %",
        )
    axes.plot(0, 0, "+", color=INK, markersize=10, markeredgewidth=1.6)
    axes.margins(0.12)
    _plain(
        axes,
        "The most correlated pair of components (+: origin)",
        f"component {i}",
        f"component {j}",
    )
    axes.legend(fontsize=8, edgecolor="none", loc="best", framealpha=0.85)


def _radii(axes: Axes, study: Any, vectors: dict[str, np.ndarray]) -> None:
    name, box = _box(vectors)
    far = study.normal.radii(box)
    bins = np.linspace(
        0, 1.05 * max(np.quantile(far, 0.995), latent.radius(0.999, len(study.normal.mean))), 60
    )
    for label, z, colour in (("held-out codes", study.test_codes, BLUE), (name, box, INACTIVE)):
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
    style = "o-" if len(share) < 50 else "-"
    axes.plot(
        number,
        100 * share.cumsum(),
        style,
        color=INK,
        markersize=3.5,
        linewidth=1.2,
        label="together",
    )
    axes.set_ylim(0, 104)
    _plain(axes, "Variance along the principal axes", "axis", "share of the variance (%)")
    axes.legend(fontsize=8, edgecolor="none", loc="center right")


def _nearness(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """How far a generator's vectors are from codes, and how much the images they give move when encoded again."""
    for row in rows:
        axes.plot(
            row["to nearest code"],
            row["code moved"],
            "o",
            color=_colour(row["vectors"]),
            markersize=7,
        )
    _plain(axes, "Far from the codes, vectors do not come back", "median distance to the nearest training code",
           "moved by decode and encode (of codes' spread)")  # fmt: skip
    _key(axes, "upper left")


def _quality(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Density against coverage."""
    for row in rows:
        axes.plot(row["coverage"], row["density"], "o", color=_colour(row["vectors"]), markersize=7)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, None)
    _plain(axes, "Images beside training images", "coverage: real images with a made one near",
           "density: real images near a made one")  # fmt: skip
    _key(axes, "upper left")


def _principal_plane(axes: Axes, study: Any, vectors: dict[str, np.ndarray]) -> None:
    """Codes by class on the plane of the first two principal axes, with a box's vectors and the ellipses."""
    every = max(1, len(study.codes) // FEW)
    spread = np.sqrt(study.normal.variances[:2])

    def flat(z: np.ndarray) -> np.ndarray:
        return study.normal.to_axes(z)[:, :2] * spread

    name, box = _box(vectors)
    axes.plot(*flat(box).T, ".", color="#c4c4c4", markersize=2.5, label=name)
    marks, names = marks_of(study)
    _points(axes, flat(study.codes[::every]), marks[::every], names)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = latent.radius(0.99, 2) * spread * np.stack([np.cos(angle), np.sin(angle)], 1)
    axes.plot(*circle.T, ":", color=INK, linewidth=1.3, label="99 %")
    # Room for the legend to the left.
    axes.set_xlim(-1.9 * circle[0, 0], 1.1 * circle[0, 0])
    _plain(axes, "Along the first two principal axes", "first axis", "second axis")
    axes.legend(fontsize=7, edgecolor="none", loc="center left", framealpha=0.85, handletextpad=0.1,
                borderaxespad=0.1)  # fmt: skip


def _neighbours(axes: Axes, study: Any, vectors: dict[str, np.ndarray]) -> None:
    """Codes and draws from the fitted normal together by t-SNE; without scikit-learn, along the next two axes."""
    every = max(1, len(study.codes) // FEW)
    codes, drawn = study.codes[::every][:FEW], vectors["fitted normal"][: FEW // 2]
    if study.projection == "tsne":
        flat = latent.embed(np.concatenate([codes, drawn]), "tsne", study.config.seed)
        title, words = "t-SNE, with draws of the fitted normal (grey)", ("", "")
    else:
        flat = study.normal.to_axes(np.concatenate([codes, drawn]))[:, 2:4]
        title, words = (
            "Next two axes, with draws of the normal (grey)",
            ("third axis (std)", "fourth axis (std)"),
        )
    axes.plot(*flat[len(codes) :].T, ".", color="#b4b4b4", markersize=2.5)
    _points(axes, flat[: len(codes)], marks_of(study)[0][::every][:FEW], ())
    _plain(axes, title, *words)
    if study.projection == "tsne":
        axes.set_xticks([])
        axes.set_yticks([])


def marks_of(study: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number of each training code's class and the classes' names; else of the marked attribute, -1 where unknown."""
    if study.classes is not None:
        return study.classes.astype(int), study.images.classes
    if study.marked is None:
        return np.full(len(study.codes), -1), ()
    table = study.tables[0]
    has = table.has[:, table.names.index(study.marked)]
    return np.where(table.known, has.astype(int), -1), (f"not {study.marked}", study.marked)


def _points(axes: Axes, flat: np.ndarray, marks: np.ndarray, names: tuple[str, ...]) -> None:
    axes.plot(
        *flat[marks < 0].T,
        ".",
        color="#7fb2d6",
        markersize=2.5,
        label="codes" if (marks < 0).any() else None,
    )
    for number in range(marks.max(initial=-1) + 1):
        name = names[number] if number < len(names) else None
        axes.plot(
            *flat[marks == number].T,
            ".",
            color=CLASSES[number % len(CLASSES)],
            markersize=3.5,
            label=name,
        )


def _valleys(axes: Axes, bodies: dict[str, Any]) -> None:
    """The shallowest valley around each group, for classes, for groups of codes, and for groups of a normal's draws."""
    colours = {"classes": INACTIVE, "codes": BLUE, "fitted normal": INK}
    names = {
        "classes": "classes of codes",
        "codes": "codes, groups by k-means",
        "fitted normal": "normal, by k-means",
    }
    for name in filter(bodies.get, colours):
        depth = bodies[name]["shallowest valley of each group"]
        gain = bodies[name]["gain over one normal"][0]
        axes.plot(np.arange(1, len(depth) + 1), depth, "o-", color=colours[name], markersize=5, linewidth=1.2,
                  label=f"{names[name]}: {gain:+.1f} nats")  # fmt: skip
    axes.set_ylim(-0.03, 1.45)
    axes.set_yticks(np.linspace(0, 1, 6))
    _plain(
        axes,
        "Valleys between groups of codes",
        "group, in order",
        "density in its shallowest valley / peak",
    )
    axes.legend(fontsize=8, edgecolor="none", loc="upper left", framealpha=0.85, title_fontsize=8, alignment="left",
                title="gain of the groups' normals over one")  # fmt: skip


def _key(axes: Axes, where: str) -> None:
    for colour, name in ((INK, "held out, given back"), (INACTIVE, "boxes"), (FAINT, "normal, no correlations"),
                         (BLUE, "fitted normal, normals of classes"), (GREEN, "ellipses, ellipsoid")):  # fmt: skip
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(fontsize=8, edgecolor="none", loc=where, framealpha=0.85)  # pyright: ignore[reportArgumentType]


def _colour(name: str) -> str:
    if name.startswith("box"):
        return INACTIVE
    if name.startswith("ellips"):
        return GREEN
    return {"held out, given back": INK, "normal, no correlations": FAINT}.get(name, BLUE)


def _box(vectors: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The box whose vectors are as long as codes are."""
    codes = np.median(np.linalg.norm(vectors["held out, given back"], axis=1))
    boxes = {name: z for name, z in vectors.items() if name.startswith("box")}
    return min(
        boxes.items(), key=lambda item: abs(np.median(np.linalg.norm(item[1], axis=1)) - codes)
    )


def _strip(made: np.ndarray) -> np.ndarray:
    """Images ``[n, h, w, c]`` side by side."""
    return np.concatenate(list(made), 1)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(
        picture[..., 0] if picture.shape[-1] == 1 else picture,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect="auto",
    )
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
