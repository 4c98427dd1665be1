"""Can the picture be believed?

Question: is the image an ascent finds for a map stronger than every real digit, and is it processed
    as real digits are
that excite the same map? Path similarity (R. Geirhos and others, "Don't trust your eyes: on the
(un)reliability of feature visualizations", ICML 2024, arXiv:2306.04719) is Spearman's correlation
of all activations of a layer, on a scale where two digits that excite the same map are at 1 and two
that excite different maps at 0; means over maps are taken first. Real digits are made images of the
space as well: clipped into the box (nothing changes), or standardised. Expected: no digit is better
than the OIP of its map. As in the paper, in the early layers an OIP is less similar to the map's
digits than digits of other maps are (below 0), and approaches them only near the map's own layer.
An image on its way to the OIP that scores as the digits do is nearer to them than the OIP. Cost:
about 2 minutes and 3 GB, with all 70,000 digits (if OIPJAX_DATA is set) or with the sample of
1,000. Command: python -m experiments.trust
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from oipjax import keys
from oipjax.analysis import (
    PIXELS,
    alike,
    exemplars,
    layer_activations,
    layer_similarities,
    map_means,
    relative,
)
from oipjax.data import mnist as data
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
OWN, STAGE, OTHER, NOISE, DIGIT = (
    "OIP", "on its way, as strong as the digits", "OIP of another map", "random start", "digit at random",
)  # fmt: skip
STYLES = {
    OWN: (BLUE, "o-"), STAGE: ("#56B4E9", "s-"), OTHER: (INACTIVE, "^-"), NOISE: (FAINT, "d-"), DIGIT: (INK, ":"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """``keep`` digits for each map; ``digits`` in all, by default all there are."""

    checkpoint: str = "mnist-cnn"
    layers: tuple[str, ...] = ("conv2", "conv3")
    spaces: tuple[str, ...] = ("standardised", "box")
    digits: int | None = None
    keep: int = 8
    draws: int = 4096
    steps: int = 100
    seed: int = 0


SMOKE = Config(layers=("conv3",), spaces=("standardised",), digits=60, keep=2, draws=64, steps=6)


def real_digits(count: int | None) -> np.ndarray:
    """MNIST's digits, those of the test first: all 70,000 if ``OIPJAX_DATA`` is set, else the sample of 1,000."""
    if not os.environ.get(data.ENVIRONMENT):
        return data.sample().images[:count]
    whole = data.load()
    return np.concatenate([whole.test.images, whole.train.images])[:count]


def scores_of(model: oipjax.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Scores ``[n, k]`` of all maps; activations of so many images at once would not fit into memory."""
    parts = np.array_split(images, -(-len(images) // 2000))
    return np.concatenate(
        [map_means(layer_activations(model, part, (layer,))[layer]) for part in parts]
    )


def measure(
    config: Config, model: oipjax.Model, name: str, layer: str, digits: np.ndarray
) -> dict[str, Any]:
    """Both studies of one layer over one image space; arrays for the figure are under ``examples``."""
    key, space = jax.random.key(config.seed), oipjax.space_for(model, name)
    real = np.asarray(jax.vmap(space.project)(jnp.asarray(model.to_input(digits))))
    atlas = oipjax.atlas(
        key, model, layer, space=space, draws=config.draws, steps=config.steps, exemplars=real[:1000],
        progress=lambda phase, done, total: print(f"{name} {layer}: {phase} {done}/{total}   ", end="\r", flush=True),
    )  # fmt: skip
    found = atlas.status == FOUND
    maps, made, best = atlas.maps[found], atlas.images[found, 0], atlas.scores[found, 0]
    scores = scores_of(model, layer, real)[:, found]
    sizes = sorted({min(n, len(real)) for n in (10, 100, 1000, 10000, len(real))})
    growth = [[n, float(np.median(scores[:n].max(0) / best))] for n in sizes]
    strongest = exemplars(scores, config.keep)
    used = np.take_along_axis(scores.T, strongest, 1).min(1) > 0
    if used.sum() < 2:
        raise ValueError(
            f"expected {config.keep} digits or more that excite each map of {layer}; use more digits"
        )
    curves, matched, stages = paths(
        config, model, space, layer, maps[used], made[used], scores[:, used], strongest[used], real
    )
    top = scores.max(0)
    ratio = np.where(top > 0, best / np.where(top > 0, top, 1), np.inf)
    finite = ratio[np.isfinite(ratio)]
    order = np.argsort(ratio[used])[
        np.unique(np.linspace(0, used.sum() - 1, 8).round().astype(int))
    ]
    shown = np.flatnonzero(used)[order]
    return {
        "space": name, "layer": layer, "digits": len(real), "maps found": int(found.sum()),
        "maps that no digit excites": int(np.sum(top <= 0)),
        "maps with a digit better than the OIP": int(np.sum(ratio < 1)),
        "OIP / best digit, least": float(finite.min()),
        "OIP / best digit, quartiles": np.percentile(finite, (25, 50, 75)).tolist(),
        "OIP / best digit, most": float(finite.max()),
        "best of n digits / OIP, median map": growth,
        "best digit / bound, median map": float(np.nanmedian(top / atlas.bound[found])),
        "OIP / bound, median map": float(np.nanmedian(best / atlas.bound[found])),
        "maps whose paths are compared": int(used.sum()),
        "score on its way / of the digits, quartiles": np.percentile(matched, (25, 50, 75)).tolist(),
        "path similarity": curves,
        "columns": ["map", "OIP", "best digit", "bound"],
        "rows": [[int(k), float(a), float(b), float(c)]
                 for k, a, b, c in zip(maps, best, top, atlas.bound[found], strict=True)],
        "examples": [(int(maps[i]), float(ratio[i]), real[scores[:, i].argmax()], stages[j], made[i])
                     for i, j in zip(shown, order, strict=True)],
    }  # fmt: skip


def paths(
    config: Config, model: oipjax.Model, space: Any, layer: str, maps: np.ndarray, made: np.ndarray,
    scores: np.ndarray, strongest: np.ndarray, real: np.ndarray,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:  # fmt: skip
    """The curves, ``{layer: {kind of picture: (value, low, high)}}``; scores and images of the ascents on their way."""
    key = jax.random.fold_in(keys.stream(jax.random.key(config.seed), keys.RUN), 0)
    for_starts, for_digits, for_error = jax.random.split(key, 3)
    starts = np.asarray(jax.vmap(space.init)(jax.random.split(for_starts, len(maps))))
    climbed = oipjax.ascend(
        key,
        model,
        oipjax.Map(layer),
        maps,
        starts,
        space=space,
        steps=config.steps,
        reports=8,
        record_images=True,
    )
    goal = np.take_along_axis(scores, strongest.T, 0).mean(0)
    nearest = np.abs(np.log(np.maximum(climbed.trace, 1e-9) / goal[:, None])).argmin(1)
    own = np.arange(len(maps))
    stages = climbed.trace_images[own, nearest]
    used, place = np.unique(strongest, return_inverse=True)
    at_random = np.asarray(jax.random.choice(for_digits, len(real), (len(maps),)))
    images = np.concatenate([real[used], made, stages, starts, real[at_random]])
    first = len(used) + len(maps) * np.arange(4)
    queries = {
        OWN: first[0] + own, STAGE: first[1] + own, OTHER: first[0] + np.roll(own, len(own) // 2),
        NOISE: first[2] + own, DIGIT: first[3] + own,
    }  # fmt: skip
    layers = [n for n in model.layers if n in model.nonlinearities and not n.startswith("pool")] + [
        model.layers[-1]
    ]
    similarity = layer_similarities(model, images, (PIXELS, *layers))
    curves = {}
    for name, pairs in similarity.items():
        found = alike(pairs, place.reshape(strongest.shape), queries)
        curves[name] = {kind: relative(for_error, found, kind) for kind in queries}
        curves[name] |= {
            "same map": float(found.same.mean()),
            "other map": float(found.other.mean()),
        }
    return curves, climbed.trace[own, nearest] / goal, stages


def plot(config: Config, facts: list[dict[str, Any]]) -> Figure:
    """How much stronger OIPs are than digits, with examples; and where their paths part, layer by layer."""
    figure = Figure(figsize=(13.2, 8.6), facecolor="white")
    title = f"{config.checkpoint}: what optimisation finds, beside real digits"
    figure.text(0.03, 0.968, title, fontsize=15, fontweight="bold", color=INK, va="center")
    last = [fact for fact in facts if fact["layer"] == config.layers[-1]]
    axes = figure.add_axes((0.065, 0.575, 0.29, 0.31))
    for fact, colour in zip(facts, (BLUE, INACTIVE, "#56B4E9", "#E69F00"), strict=False):
        ratio = np.sort([a / b for _, a, b, _ in fact["rows"] if b > 0])
        label = f"{fact['layer']}, {fact['space']}: median {np.median(ratio):.1f}"
        axes.step(
            ratio,
            100 * np.arange(1, len(ratio) + 1) / len(fact["rows"]),
            where="post",
            color=colour,
            label=label,
        )
    axes.axvline(1, color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    words(
        axes,
        f"Score of the OIP / of the best of {facts[0]['digits']:,} digits",
        "ratio",
        "maps with no more (%)",
    )
    axes.legend(fontsize=8, loc="lower right", edgecolor="none")
    grid = figure.add_gridspec(
        3, 8, left=0.44, right=0.985, top=0.89, bottom=0.555, wspace=0.06, hspace=0.06
    )
    figure.text(0.44, 0.907, f"Maps of {last[0]['layer']}, from the least ratio to the greatest "
                f"({last[0]['space']})", fontsize=10, fontweight="bold", color=INK, va="center")  # fmt: skip
    for column, (number, ratio, *pair) in enumerate(last[0]["examples"]):
        for row, (image, name) in enumerate(
            zip(pair, ("best digit", "on its way", "OIP"), strict=True)
        ):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(contrast(image, 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(name, fontsize=8, color=INK)
            if row == 2:
                axes.set_xlabel(
                    f"map {number}\n\N{MULTIPLICATION SIGN} {ratio:.1f}", fontsize=8, color=INK
                )
    for index, fact in enumerate(last):
        axes = figure.add_axes((0.065 + 0.475 * index, 0.075, 0.43, 0.36))
        names = list(fact["path similarity"])
        for kind, (colour, style) in STYLES.items():
            value, low, high = np.array([fact["path similarity"][name][kind] for name in names]).T
            axes.plot(names, value, style, color=colour, markersize=4, linewidth=1.6, label=kind)
            axes.fill_between(range(len(names)), low, high, color=colour, alpha=0.15, linewidth=0)
        for level in (0, 1):
            axes.axhline(level, color="#555555", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1, linscale=1)
        ticks = [
            t
            for t in (-16, -8, -4, -2, -1, -0.5, 0, 0.5, 1, 2)
            if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]
        ]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.axvline(names.index(fact["layer"]), color=FAINT, linewidth=5, alpha=0.18)
        heading = f"Path similarity to digits that excite the same map of {fact['layer']} ({fact['space']})"
        words(
            axes,
            heading,
            "layer",
            "0: digits of another map, 1: of the same map" if index == 0 else "",
        )
        if index == 0:
            axes.legend(fontsize=8, loc="lower right", edgecolor="none")
    return figure


def words(axes: Axes, title: str, x: str, y: str) -> None:
    """What stands around a panel."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model, digits = oipjax.load(config.checkpoint), real_digits(config.digits)
    facts = [
        measure(config, model, space, layer, digits)
        for layer in config.layers
        for space in config.spaces
    ]
    print()
    hidden = ("space", "layer", "path similarity", "columns", "rows", "examples")
    cells = [
        [name, *(_short(fact[name]) for fact in facts)] for name in facts[0] if name not in hidden
    ]
    show("scores", ["", *(f"{fact['layer']}, {fact['space']}" for fact in facts)], cells)
    for fact in facts:
        table = [
            [
                kind,
                *(
                    "{:.2f} ({:.2f} to {:.2f})".format(*of[kind])
                    for of in fact["path similarity"].values()
                ),
            ]
            for kind in STYLES
        ]
        show(
            f"path similarity: {fact['layer']}, {fact['space']}",
            ["", *fact["path similarity"]],
            table,
        )
    figure = plot(config, facts)
    content = {
        "config": asdict(config),
        "cases": [{k: v for k, v in f.items() if k != "examples"} for f in facts],
    }
    save(results, "trust", content, figure)
    return content


def _short(value: Any) -> Any:
    """Lists of numbers in few characters."""
    if isinstance(value, list):
        return " ".join(
            f"{item[0]}: {item[1]:.2f}" if isinstance(item, list) else f"{item:.3g}"
            for item in value
        )
    return value


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
