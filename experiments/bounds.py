"""How good is the best? What is reached, held against what is proved to be the most.

Question: for every convolution of the shipped network, how far is the best image found from the
    least upper bound
proved, for one node and for a map's mean, and how does that move with effort: restarts on the one
side, how hard the bound is tried on the other?
Expected: the first layer is solved. For nodes of the second the joint patch hull proves about twice
    as tight as
intervals; what is left above is mostly the bound's. Each deeper layer loses more.
Cost: about 15 minutes on two cores.
Command: python -m experiments.bounds
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import oipjax
from experiments.common import command, save, show
from oipjax.bounds import Bounds, assemble, best_images, hull_limits, refine_scores, strip_images
from oipjax.bounds.interval.enclosures import Limits
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

RESULTS = Path(__file__).parent / "results"
COLOURS = {"conv1": FAINT, "conv2": BLUE, "conv3": INACTIVE}


@dataclass(frozen=True)
class Config:
    """``starts`` ascents per map; the patch hull at several numbers of ``splits``, with ``search`` steps each."""

    checkpoint: str = "mnist-cnn"
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    draws: int = 4096
    starts: int = 32
    steps: int = 200
    splits: tuple[int, ...] = (0, 2, 4, 6)
    search: int = 300
    tight: bool = True
    seed: int = 0


SMOKE = Config(layers=("conv3",), draws=64, starts=2, steps=3, splits=(), tight=False)


def reached(config: Config, model: oipjax.Model, layer: str, kind: str) -> np.ndarray:
    """Scores ``[k, starts]`` of ascents from the survey's best starts, in its order."""
    key, space = jax.random.key(config.seed), oipjax.space_for(model, "box")
    found = oipjax.survey(key, model, layer, space=space, draws=config.draws, keep=config.starts)
    h, w, maps = model.shapes[layer]
    targets: Any = np.repeat(np.arange(maps), config.starts)
    objective: Any = oipjax.Map(layer)
    if kind == "node":
        objective = oipjax.Node(layer)
        targets = np.stack(
            [np.full_like(targets, h // 2), np.full_like(targets, w // 2), targets], 1
        )
    run = oipjax.ascend(
        key, model, objective, targets, found.start_index.ravel(), space=space, steps=config.steps,
        progress=lambda done, total: print(f"{layer} {kind}: ascent {done}/{total}", end="\r", flush=True),
    )  # fmt: skip
    print()
    return run.scores.reshape(maps, config.starts)


def exactly(model: oipjax.Model, layer: str, kind: str) -> np.ndarray | None:
    """Scores ``[k]`` of the best images where they can be computed or searched for exactly."""
    domain = oipjax.space_for(model, "box").domain
    if layer != model.layers[1]:
        return None
    if kind == "node":
        h, w, maps = model.shapes[layer]
        nodes = np.array([(h // 2, w // 2, number) for number in range(maps)])
        return np.maximum(best_images(model, model.layers[0], nodes, domain).values, 0)
    images = strip_images(model, layer, domain)
    if images is None:
        return None
    return np.asarray(model.apply(model.params, jnp.asarray(images))[layer]).mean((1, 2)).diagonal()


def hulls(config: Config, model: oipjax.Model) -> dict[int, tuple[Limits, float]]:
    """What the patch hull proves of the second convolution, by its ``splits``, and the seconds it took."""
    domain, out = oipjax.space_for(model, "box").domain, {}
    for splits in config.splits:
        begin = time.perf_counter()
        print(f"patch hull, {2**splits} parts")
        limits = hull_limits(model, config.layers[-1], domain, splits=splits, steps=config.search)
        out[splits] = limits, time.perf_counter() - begin
    return out


def proved(
    config: Config, model: oipjax.Model, layer: str, limits: dict[int, tuple[Limits, float]]
) -> dict[str, tuple[Bounds, float]]:
    """Bounds by how hard they are tried, and the seconds they took (compiling included)."""
    domain, out = oipjax.space_for(model, "box").domain, {}
    begin = time.perf_counter()
    cheap = assemble(model, layer, domain)
    out["intervals, sets"] = (cheap, time.perf_counter() - begin)
    for splits in config.splits if layer != model.layers[1] else ():
        begin, (known, seconds) = time.perf_counter(), limits[splits]
        bound = assemble(model, layer, domain, known)
        out[f"patch hull, {2**splits} parts"] = (bound, seconds + time.perf_counter() - begin)
    if config.tight:
        begin, (name, (last, before)) = time.perf_counter(), list(out.items())[-1]
        best = refine_scores(model, last, domain)
        if best is not last:
            by = "strips" if layer == model.layers[1] else "windows"
            out[by if layer == model.layers[1] else f"{name}, {by}"] = (
                best,
                before + time.perf_counter() - begin,
            )
    return out


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    rows, curves, limits = [], {}, hulls(config, model)
    for layer in config.layers:
        bounds = proved(config, model, layer, limits)
        for kind in ("node", "mean"):
            scores = reached(config, model, layer, kind)
            exact = exactly(model, layer, kind)
            best = scores.max(1) if exact is None else np.maximum(scores.max(1), exact)
            live = best > 0
            limit = None
            for name, (bound, seconds) in bounds.items():
                limit = bound.score if kind == "mean" else np.maximum(bound.node, 0)
                share = best[live] / limit[live]
                if share.max() > 1 + 1e-6:
                    raise RuntimeError(
                        f"an image of {layer} exceeds its bound ({name}, {kind}): {share.max()}"
                    )
                rows.append(
                    {"layer": layer, "of": kind, "bound": name, "median": float(np.median(share)),
                     "least": float(share.min()), "most": float(share.max()), "live": int(live.sum()),
                     "dead": int(bound.dead.sum()), "seconds": seconds}
                )  # fmt: skip
            counts = [2**i for i in range(config.starts.bit_length()) if 2**i <= config.starts]
            last: Any = limit
            curves[f"{layer} {kind}"] = {
                "restarts": counts,
                "median": [
                    float(np.median(scores[live, :count].max(1) / last[live])) for count in counts
                ],
                "exact": None if exact is None else float(np.median(exact[live] / last[live])),
            }
    columns = ["layer", "of", "bound", "median", "least", "most", "live", "dead", "seconds"]
    show(
        "reached / bound over the box of pixels",
        columns,
        [[row[name] for name in columns] for row in rows],
    )
    save(
        results,
        "bounds",
        {"config": vars(config), "rows": rows, "curves": curves},
        figure(rows, curves, model.name),
    )
    return rows


def figure(rows: list[dict[str, Any]], curves: dict[str, Any], name: str) -> Figure:
    """Medians against restarts, and against how hard the bound is tried."""
    drawn = Figure(figsize=(11, 4.6), facecolor="white", layout="constrained")
    drawn.suptitle(
        f"{name}: the best image found, as a share of the most that is proved possible",
        fontsize=12,
        color=INK,
    )
    left, right = drawn.subplots(1, 2, sharey=True)
    for label, curve in curves.items():
        layer, kind = label.split()
        style = {
            "color": COLOURS.get(layer, INK),
            "linestyle": "-" if kind == "node" else "--",
            "markersize": 4,
        }
        left.plot(curve["restarts"], curve["median"], marker="o", label=label, **style)
        if curve["exact"] is not None:
            left.plot(
                2.0 * curve["restarts"][-1],
                curve["exact"],
                marker="*",
                **{**style, "markersize": 11},
            )
    counts = next(iter(curves.values()))["restarts"]
    left.set_xscale("log", base=2)
    left.set_xticks([*counts, 2 * counts[-1]], [*map(str, counts), "exact\nsearch"], fontsize=8)
    left.minorticks_off()
    left.set_xlabel("ascents per map")
    left.set_ylabel("median reached / bound")
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.set_ylim(0, 1.05)
    names = list(dict.fromkeys(row["bound"] for row in rows))
    for label in curves:
        layer, kind = label.split()
        own = [row for row in rows if row["layer"] == layer and row["of"] == kind]
        style = {
            "color": COLOURS.get(layer, INK),
            "linestyle": "-" if kind == "node" else "--",
            "markersize": 4,
        }
        right.plot(
            [names.index(row["bound"]) for row in own],
            [row["median"] for row in own],
            marker="o",
            **style,
        )
    right.set_xticks(range(len(names)), [text.replace(", ", ",\n") for text in names], fontsize=8)
    right.set_xlabel("bound")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    right.legend(
        *left.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="upper right"
    )
    return drawn


if __name__ == "__main__":
    command(main, Config, __doc__)
