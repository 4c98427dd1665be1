"""How many different patterns does one map have?

Question: of the patterns that ascents from many starts find for a map, how many are distinct once
shifts are taken out, how large are their shares, and how much do their scores differ?
Expected: the observation of the source article (R. Moenchmeyer, "A simple CNN for the MNIST
dataset", part IX): patterns of one map are similar in structure and different in detail. In
numbers: pairs of a map are far more alike than pairs of different maps. At that level a map has a
few distinct patterns with nearly equal scores; at a stricter one, every run has its own.
Cost: about 6 minutes of one core, nearly all of it ascents.
Command: python -m experiments.optima
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

import oipjax
from experiments.common import command, progress_line, save, show, words
from oipjax.analysis import Clusters, cluster, seen, similarity
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "map",
    "distinct",
    "largest share",
    "inactive",
    "best score",
    "second / best",
    "last / best",
)
ROWS = 12
"""Maps in the figure."""
SHOWN = 8
"""Patterns of a map in the figure."""


@dataclass(frozen=True)
class Config:
    """The patterns, and when two of them count as the same.

    Attributes:
        checkpoint: the network.
        layer: the layer.
        spaces: names of the image spaces.
        draws: random starts of each survey.
        keep: patterns of each map.
        steps: of each ascent.
        chance: two patterns are alike if they are more similar than all but this share of the
            pairs of different maps.
        thresholds: levels of similarity for the curve.
        seed: of the starts.
    """

    checkpoint: str = "mnist-cnn"
    layer: str = "conv3"
    spaces: tuple[str, ...] = ("standardised", "box")
    draws: int = 4096
    keep: int = 32
    steps: int = 100
    chance: float = 0.01
    thresholds: tuple[float, ...] = tuple(round(0.3 + 0.05 * i, 2) for i in range(14))
    seed: int = 0


SMOKE = Config(spaces=("standardised",), draws=64, keep=3, steps=4, thresholds=(0.4, 0.8))


class Patterns(NamedTuple):
    """The patterns of all found maps of one image space.

    Attributes:
        maps: their indices ``[k]``.
        images: ``[k, r, h, w, c]``.
        scores: ``[k, r]``.
        similarities: ``[k, r, r]``, of the patterns of one map.
        floor: of the layer's nonlinearity.
    """

    maps: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray
    floor: float | None

    def groups(self, threshold: float) -> list[Clusters]:
        """The distinct patterns of each map at a level of similarity."""
        found = []
        for images, scores, ncc in zip(self.images, self.scores, self.similarities, strict=True):
            options = {"threshold": threshold, "floor": self.floor, "ncc": ncc}
            found.append(cluster(images, scores, **options))
        return found


def gradients(model: oipjax.Model, layer: str, maps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Gradients of each map's score at its patterns ``[k, r, h, w, c]``."""

    @jax.jit
    def one_map(images, index):
        def total(images):
            return model.apply(model.params, images)[layer][..., index].mean((1, 2)).sum()

        return jax.grad(total)(images)

    found = [np.asarray(one_map(own, index)) for index, own in zip(maps, images, strict=True)]
    return np.stack(found)


def find(config: Config, model: oipjax.Model, space: str) -> tuple[Patterns, np.ndarray]:
    """The patterns, and the similarities of pairs of different maps' best ones."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed),
        model,
        config.layer,
        space=oipjax.space_for(model, space),
        draws=config.draws,
        keep=config.keep,
        steps=config.steps,
        screen=0,
        progress=progress_line(space),
    )
    print()
    is_found = atlas.status == FOUND
    maps = atlas.maps[is_found]
    images = atlas.images[is_found]
    slopes = gradients(model, config.layer, maps, images)
    weights = np.stack([seen(slope) for slope in slopes])
    between_maps, _ = similarity(images[:, 0], weights[:, 0])
    similarities = []
    for own, own_weights in zip(images, weights, strict=True):
        similarities.append(similarity(own, own_weights)[0])
    patterns = Patterns(
        maps=maps,
        images=images,
        scores=atlas.scores[is_found],
        similarities=np.stack(similarities),
        floor=model.layer(config.layer).floor,
    )
    return patterns, above_diagonal(between_maps)


def above_diagonal(square: np.ndarray) -> np.ndarray:
    """The entries above the diagonal."""
    return square[np.triu_indices(len(square), 1)]


def row(index: int, group: Clusters) -> list[Any]:
    """A map's row, in the order of `COLUMNS`."""
    best = group.best
    second = float(best[1] / best[0]) if len(best) > 1 else None
    facts = [int(index), len(best), float(group.shares.max()), group.inactive]
    return [*facts, float(best[0]), second, float(best[-1] / best[0])]


def measure(
    config: Config, model: oipjax.Model, space: str
) -> tuple[dict[str, Any], np.ndarray, list[Clusters]]:
    """Facts, the found maps' images ``[k, r, h, w, c]``, and the groups of each."""
    patterns, others = find(config, model, space)
    threshold = float(np.clip(np.quantile(others, 1 - config.chance), 0.01, 1))
    groups = patterns.groups(threshold)
    rows = [row(index, group) for index, group in zip(patterns.maps, groups, strict=True)]
    summary = summarise(patterns, groups, rows, others, threshold)
    curve = []
    for level in config.thresholds:
        distinct = [len(group.best) for group in patterns.groups(level)]
        curve.append([level, float(np.median(distinct))])
    facts = {"space": space, **summary, "curve": curve, "columns": COLUMNS, "rows": rows}
    return facts, patterns.images, groups


def summarise(
    patterns: Patterns,
    groups: list[Clusters],
    rows: list[list[Any]],
    others: np.ndarray,
    threshold: float,
) -> dict[str, Any]:
    """The numbers of one image space."""
    pairs = []
    for ncc, group in zip(patterns.similarities, groups, strict=True):
        active = np.flatnonzero(group.labels >= 0)
        pairs.append(above_diagonal(ncc[np.ix_(active, active)]))
    same = np.concatenate(pairs)
    distinct = np.array([values[1] for values in rows])
    largest = np.array([values[2] for values in rows])
    second = [values[5] for values in rows if values[5] is not None]
    last = [values[6] for values in rows]
    best_is_largest = [group.counts[0] == group.counts.max() for group in groups]
    return {
        "maps found": len(patterns.maps),
        "inactive runs": float(np.mean([group.inactive for group in groups])),
        "similarity, pairs of one map": float(np.median(same)),
        "similarity, pairs of different maps": float(np.median(others)),
        "threshold": threshold,
        "pairs of one map above it": float(np.mean(same >= threshold)),
        "distinct, median": float(np.median(distinct)),
        "distinct, quartiles": np.percentile(distinct, (25, 75)).tolist(),
        "maps with one": int(np.sum(distinct == 1)),
        "largest share, median": float(np.median(largest)),
        "best group is the largest": float(np.mean(best_is_largest)),
        "second / best score, median": float(np.median(second)) if second else 1.0,
        "last / best score, median": float(np.median(last)),
    }


def plot(
    config: Config, facts: list[dict[str, Any]], images: np.ndarray, groups: list[Clusters]
) -> Figure:
    """Twelve maps with their distinct patterns, and how many there are."""
    figure = Figure(figsize=(13.2, 11.6), facecolor="white")
    title = f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}: the distinct patterns of a map"
    figure.text(0.03, 0.972, title, fontsize=15, fontweight="bold", color=INK, va="center")
    note = (
        "Best first, below each its score and its share of the map's "
        f"{config.keep} runs ({facts[0]['space']}). Shifted copies count as one. "
        "Rows from few to many: maps at equal steps of the ranking by number."
    )
    figure.text(0.03, 0.949, note, fontsize=9, color=FAINT, va="center")
    edges = {"left": 0.075, "right": 0.63, "top": 0.93, "bottom": 0.028}
    grid = figure.add_gridspec(ROWS, SHOWN, hspace=0.32, wspace=0.08, **edges)
    order = np.argsort([len(group.best) for group in groups], kind="stable")
    places = np.linspace(0, len(order) - 1, ROWS).round().astype(int)
    for line, index in enumerate(order[np.unique(places)]):
        number = facts[0]["rows"][index][0]
        draw_patterns(figure, grid, line, number, images[index], groups[index])
    edges = {"left": 0.69, "right": 0.98, "top": 0.90, "bottom": 0.055}
    right = figure.add_gridspec(3, 1, hspace=0.36, **edges)
    panels = [figure.add_subplot(right[i]) for i in range(3)]
    draw_statistics(panels, config, facts)
    return figure


def draw_patterns(
    figure: Figure, grid: GridSpec, line: int, number: int, images: np.ndarray, group: Clusters
) -> None:
    """A row of the figure: the distinct patterns of one map."""
    count = len(group.best)
    for column in range(min(SHOWN, count)):
        axes = figure.add_subplot(grid[line, column])
        picture = contrast(images[group.representative[column]], 2.0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        score = f"{group.best[column]:.3g}"
        label = f"{score} \N{MIDDLE DOT} {100 * group.shares[column]:.0f} %"
        axes.set_xlabel(label, fontsize=7.5, color=INK, labelpad=2)
        if column == 0:
            text = f"{count} pattern{'s' * (count > 1)}"
            if count > SHOWN:
                text += f",\nbest {SHOWN} shown"
            place = {"transform": axes.transAxes, "ha": "right"}
            axes.text(-0.2, 0.62, f"map {number}", fontsize=9, fontweight="bold", **place)
            axes.text(-0.2, 0.5, text, va="top", fontsize=7.5, color=FAINT, **place)


def draw_statistics(panels: list[Axes], config: Config, facts: list[dict[str, Any]]) -> None:
    """Numbers of distinct patterns, their largest share, and the curve by similarity."""
    counts, shares, levels = panels
    several = len(facts) > 1
    width = 0.4 if several else 0.8
    for fact, colour, side in zip(facts, (BLUE, INACTIVE), (-0.5, 0.5), strict=False):
        space = fact["space"]
        distinct = [values[1] for values in fact["rows"]]
        number, maps = np.unique(distinct, return_counts=True)
        shift = side * width if several else 0
        label = f"{space}: median {np.median(distinct):g}"
        counts.bar(number + shift, maps, width, color=colour, label=label)
        sizes = 100 * np.sort([values[2] for values in fact["rows"]])
        maps_with_no_more = 100 * np.arange(1, len(sizes) + 1) / len(sizes)
        label = f"{space}: median {np.median(sizes):.0f} %"
        shares.step(sizes, maps_with_no_more, where="post", color=colour, label=label)
        levels.plot(*np.transpose(fact["curve"]), "o-", color=colour, markersize=3.5)
        label = f"used: {fact['threshold']:.2f} ({space})"
        levels.axvline(fact["threshold"], color=colour, linewidth=1, linestyle=":", label=label)
    counts.xaxis.set_major_locator(MaxNLocator(integer=True))
    levels.set_yscale("log", base=2)
    ticks = [2**i for i in range(12) if 2**i <= config.keep]
    levels.set_yticks(ticks, list(map(str, ticks)))
    words(counts, "How many distinct patterns a map has", "distinct patterns", "maps")
    words(
        shares,
        "How much the largest group holds",
        "largest share of the runs (%)",
        "maps with no more (%)",
    )
    words(
        levels,
        "Alike in structure, different in detail",
        "similarity that counts as the same",
        "distinct patterns, median",
    )
    places = ("upper right", "upper left", "lower right")
    for axes, place in zip(panels, places, strict=True):
        axes.legend(fontsize=8, loc=place, edgecolor="none", framealpha=1)


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    measured = [measure(config, model, space) for space in config.spaces]
    facts = [fact for fact, _, _ in measured]
    hidden = ("space", "curve", "columns", "rows")
    names = [name for name in facts[0] if name not in hidden]
    cells = [[name, *(fact[name] for fact in facts)] for name in names]
    show("distinct patterns", ["", *config.spaces], cells)
    content = {"config": asdict(config), "spaces": facts}
    _, images, groups = measured[0]
    save(results, "optima", content, plot(config, facts, images, groups))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
