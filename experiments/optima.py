"""How many different patterns does one map have?

Question: of the patterns that ascents from many starts find for a map, how many are distinct once
    shifts are taken out,
how large are their shares, and how much do their scores differ?
Expected: what the source article (R. Moenchmeyer, "A simple CNN for the MNIST dataset", part IX)
    sees: patterns of one
map are similar in structure and different in detail. In numbers: pairs of a map are far more alike
than pairs of different maps; at that level a map has a few distinct patterns with nearly equal
scores; at a stricter one, every run has its own.
Cost: about 6 minutes of one core, nearly all of it ascents.
Command: python -m experiments.optima
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import oipjax
from experiments.common import command, save, show, words
from oipjax.analysis import Clusters, cluster, seen, similarity
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
COLUMNS = [
    "map",
    "distinct",
    "largest share",
    "silent",
    "best score",
    "second / best",
    "last / best",
]


@dataclass(frozen=True)
class Config:
    """``keep`` patterns per map; two are alike if closer than all but ``chance`` of the pairs of different maps."""

    checkpoint: str = "mnist-cnn"
    layer: str = "conv3"
    spaces: tuple[str, ...] = ("standardised", "box")
    draws: int = 4096
    keep: int = 32
    steps: int = 100
    chance: float = 0.01
    thresholds: tuple[float, ...] = (
        0.3,
        0.35,
        0.4,
        0.45,
        0.5,
        0.55,
        0.6,
        0.65,
        0.7,
        0.75,
        0.8,
        0.85,
        0.9,
        0.95,
    )
    seed: int = 0


SMOKE = Config(spaces=("standardised",), draws=64, keep=3, steps=4, thresholds=(0.4, 0.8))


def gradients(model: oipjax.Model, layer: str, maps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Of each map's score at its patterns ``[k, r, h, w, c]``; computed map by map."""

    @jax.jit
    def one(x, k):
        return jax.grad(lambda x: model.apply(model.params, x)[layer][..., k].mean((1, 2)).sum())(x)

    return np.stack([np.asarray(one(x, k)) for k, x in zip(maps, images, strict=True)])


def measure(
    config: Config, model: oipjax.Model, space: str
) -> tuple[dict[str, Any], np.ndarray, list[Clusters]]:
    """Facts, the found maps' images ``[k, r, h, w, c]``, and the groups of each."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed), model, config.layer, space=oipjax.space_for(model, space), draws=config.draws,
        keep=config.keep, steps=config.steps, screen=0,
        progress=lambda phase, done, total: print(f"{space}: {phase} {done}/{total}", end="\r", flush=True),
    )  # fmt: skip
    print()
    found = atlas.status == FOUND
    maps, images, scores = atlas.maps[found], atlas.images[found], atlas.scores[found]
    weights = np.stack([seen(g) for g in gradients(model, config.layer, maps, images)])
    floor = model.layer(config.layer).floor
    others = upper(similarity(images[:, 0], weights[:, 0])[0])
    threshold = float(np.clip(np.quantile(others, 1 - config.chance), 0.01, 1))
    alike = [similarity(x, w)[0] for x, w in zip(images, weights, strict=True)]

    def grouped(level: float) -> list[Clusters]:
        given = zip(images, scores, alike, strict=True)
        return [cluster(x, s, threshold=level, floor=floor, ncc=ncc) for x, s, ncc in given]

    groups = grouped(threshold)
    rows = [
        [int(k), len(g.best), float(g.shares.max()), g.inactive, float(g.best[0]),
         float(g.best[1] / g.best[0]) if len(g.best) > 1 else None, float(g.best[-1] / g.best[0])]
        for k, g in zip(maps, groups, strict=True)
    ]  # fmt: skip
    same = np.concatenate(
        [
            upper(ncc[np.ix_(g.labels >= 0, g.labels >= 0)])
            for ncc, g in zip(alike, groups, strict=True)
        ]
    )
    summary = {
        "maps found": len(maps),
        "silent runs": float(np.mean([g.inactive for g in groups])),
        "similarity, pairs of one map": float(np.median(same)),
        "similarity, pairs of different maps": float(np.median(others)),
        "threshold": threshold,
        "pairs of one map above it": float(np.mean(same >= threshold)),
        "distinct, median": float(np.median([row[1] for row in rows])),
        "distinct, quartiles": np.percentile([row[1] for row in rows], (25, 75)).tolist(),
        "maps with one": int(np.sum([row[1] == 1 for row in rows])),
        "largest share, median": float(np.median([row[2] for row in rows])),
        "best group is the largest": float(
            np.mean([g.counts[0] == g.counts.max() for g in groups])
        ),
        "second / best score, median": float(
            np.median([row[5] for row in rows if row[5] is not None] or [1.0])
        ),
        "last / best score, median": float(np.median([row[6] for row in rows])),
    }
    curve = [
        [level, float(np.median([len(g.best) for g in grouped(level)]))]
        for level in config.thresholds
    ]
    facts = {"space": space, **summary, "curve": curve, "columns": COLUMNS, "rows": rows}
    return facts, images, groups


def upper(square: np.ndarray) -> np.ndarray:
    """The entries above the diagonal."""
    return square[np.triu_indices(len(square), 1)]


def plot(
    config: Config, facts: list[dict[str, Any]], images: np.ndarray, groups: list[Clusters]
) -> Figure:
    """Twelve maps with their distinct patterns, and how many there are: per map, and by threshold."""
    order = np.argsort([len(g.best) for g in groups], kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, 12).round().astype(int))]
    columns, first = 8, facts[0]
    figure = Figure(figsize=(13.2, 11.6), facecolor="white")
    title = f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}: the distinct patterns of a map"
    figure.text(0.03, 0.972, title, fontsize=15, fontweight="bold", color=INK, va="center")
    note = (
        f"Best first, below each its score and its share of the map's {config.keep} runs ({first['space']}). "
        f"Shifted copies count as one. Rows from few to many: maps at equal steps of the ranking by number."
    )
    figure.text(0.03, 0.949, note, fontsize=9, color=FAINT, va="center")
    grid = figure.add_gridspec(
        12, columns, left=0.075, right=0.63, top=0.93, bottom=0.028, hspace=0.32, wspace=0.08
    )
    for row, index in enumerate(order):
        group, number = groups[index], first["rows"][index][0]
        for column in range(min(columns, len(group.best))):
            axes = figure.add_subplot(grid[row, column])
            shown = contrast(images[index, group.representative[column]], 2.0)
            axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            label = f"{group.best[column]:.3g} \N{MIDDLE DOT} {100 * group.shares[column]:.0f} %"
            axes.set_xlabel(label, fontsize=7.5, color=INK, labelpad=2)
            if column == 0:
                count = len(group.best)
                axes.text(
                    -0.2,
                    0.62,
                    f"map {number}",
                    transform=axes.transAxes,
                    fontsize=9,
                    fontweight="bold",
                    ha="right",
                )
                text = f"{count} pattern{'s' * (count > 1)}" + f",\nbest {columns} shown" * (
                    count > columns
                )
                axes.text(
                    -0.2,
                    0.5,
                    text,
                    va="top",
                    transform=axes.transAxes,
                    fontsize=7.5,
                    color=FAINT,
                    ha="right",
                )
    right = figure.add_gridspec(3, 1, left=0.69, right=0.98, top=0.90, bottom=0.055, hspace=0.36)
    colours = [BLUE, INACTIVE]
    panels = [figure.add_subplot(right[i]) for i in range(3)]
    for fact, colour, shift in zip(facts, colours, (-0.5, 0.5), strict=False):
        distinct = [row[1] for row in fact["rows"]]
        shift = shift if len(facts) > 1 else 0
        width = 0.4 if len(facts) > 1 else 0.8
        number, maps = np.unique(distinct, return_counts=True)
        middle = f"{fact['space']}: median {np.median(distinct):g}"
        panels[0].bar(number + shift * width, maps, width, color=colour, label=middle)
        sizes = np.sort([row[2] for row in fact["rows"]])
        panels[1].step(100 * sizes, 100 * np.arange(1, len(sizes) + 1) / len(sizes), where="post", color=colour,
                       label=f"{fact['space']}: median {100 * np.median(sizes):.0f} %")  # fmt: skip
        panels[2].plot(*np.transpose(fact["curve"]), "o-", color=colour, markersize=3.5)
        panels[2].axvline(fact["threshold"], color=colour, linewidth=1, linestyle=":",
                          label=f"used: {fact['threshold']:.2f} ({fact['space']})")  # fmt: skip
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[2].set_yscale("log", base=2)
    ticks = [2**i for i in range(12) if 2**i <= config.keep]
    panels[2].set_yticks(ticks, [str(tick) for tick in ticks])
    _words(
        panels[0],
        "How many distinct patterns a map has",
        "distinct patterns",
        "maps",
        "upper right",
    )
    _words(
        panels[1],
        "How much the largest group holds",
        "largest share of the runs (%)",
        "maps with no more (%)",
        "upper left",
    )
    _words(panels[2], "Alike in structure, different in detail", "similarity that counts as the same",
           "distinct patterns, median", "lower right")  # fmt: skip
    return figure


def _words(axes: Axes, title: str, x: str, y: str, legend: Any) -> None:
    words(axes, title, x, y)
    axes.legend(fontsize=8, loc=legend, edgecolor="none", framealpha=1)


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    measured = [measure(config, model, space) for space in config.spaces]
    facts = [fact for fact, _, _ in measured]
    names = [name for name in facts[0] if name not in ("space", "curve", "columns", "rows")]
    show(
        "distinct patterns",
        ["", *config.spaces],
        [[name, *(fact[name] for fact in facts)] for name in names],
    )
    content = {"config": asdict(config), "spaces": facts}
    save(results, "optima", content, plot(config, facts, *measured[0][1:]))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
