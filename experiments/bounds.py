"""How good is the best? The scores that are reached, beside the most that is proved possible.

Question: for every convolution of the shipped network, how far is the best image found from the
least upper bound proved, for one node and for a map's mean? How does that change with effort:
restarts on the one side, the refinement of the bound on the other?
Expected: the first layer is solved. For nodes of the second the joint patch hull proves about twice
as tight a bound as intervals; the rest of the gap is mostly the bound's. Each deeper layer loses
more.
Cost: about 15 minutes on two cores.
Command: python -m experiments.bounds
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import oipjax
from experiments.common import command, save, show
from oipjax.bounds import (
    Bounds,
    Limits,
    assemble,
    best_images,
    hull_limits,
    refine_scores,
    strip_images,
)
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

RESULTS = Path(__file__).parent / "results"
COLOURS = {"conv1": FAINT, "conv2": BLUE, "conv3": INACTIVE}
COLUMNS = ("layer", "of", "bound", "median", "least", "most", "live", "dead", "seconds")


@dataclass(frozen=True)
class Config:
    """The ascents, and the refinements of the bounds.

    Attributes:
        checkpoint: the network.
        layers: the layers.
        draws: random starts of each survey.
        starts: ascents of each map.
        steps: of each ascent.
        splits: how often a patch's box is cut in two; one patch hull for each number.
        search: steps of each patch hull's search.
        tight: whether the strip and window bounds are computed.
        seed: of the starts.
    """

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


class Timed(NamedTuple):
    """A result, and the seconds that it took with everything before it."""

    value: Any
    seconds: float


def reached(config: Config, model: oipjax.Model, layer: str, kind: str) -> np.ndarray:
    """Scores ``[k, starts]`` of ascents from the survey's best starts, in its order."""

    def report(done: int, total: int) -> None:
        print(f"{layer} {kind}: ascent {done}/{total}", end="\r", flush=True)

    key = jax.random.key(config.seed)
    space = oipjax.space_for(model, "box")
    options = {"space": space, "draws": config.draws, "keep": config.starts}
    starts = oipjax.survey(key, model, layer, **options).start_index
    h, w, maps = model.shapes[layer]
    targets: Any = np.repeat(np.arange(maps), config.starts)
    objective: Any = oipjax.Map(layer)
    if kind == "node":
        objective = oipjax.Node(layer)
        rows = np.full_like(targets, h // 2)
        columns = np.full_like(targets, w // 2)
        targets = np.stack([rows, columns, targets], 1)
    options = {"space": space, "steps": config.steps, "progress": report}
    run = oipjax.ascend(key, model, objective, targets, starts.ravel(), **options)
    print()
    return run.scores.reshape(maps, config.starts)


def exact(model: oipjax.Model, layer: str, kind: str) -> np.ndarray | None:
    """Scores ``[k]`` of the best images where they have a closed form or an exact search."""
    domain = oipjax.space_for(model, "box").domain
    if layer != model.layers[1]:
        return None
    if kind == "node":
        h, w, maps = model.shapes[layer]
        nodes = np.array([(h // 2, w // 2, index) for index in range(maps)])
        return np.maximum(best_images(model, model.layers[0], nodes, domain).values, 0)
    images = strip_images(model, layer, domain)
    if images is None:
        return None
    activations = model.apply(model.params, jnp.asarray(images))[layer]
    return np.asarray(activations).mean((1, 2)).diagonal()


def hulls(config: Config, model: oipjax.Model) -> dict[int, Timed]:
    """The patch hull's limits of the second convolution, by its number of splits."""
    domain = oipjax.space_for(model, "box").domain
    found = {}
    for splits in config.splits:
        begin = time.perf_counter()
        print(f"patch hull, {2**splits} parts")
        limits: Limits = hull_limits(
            model, config.layers[-1], domain, splits=splits, steps=config.search
        )
        found[splits] = Timed(limits, time.perf_counter() - begin)
    return found


def proved(
    config: Config, model: oipjax.Model, layer: str, hull_by_splits: dict[int, Timed]
) -> dict[str, Timed]:
    """Bounds by the name of their refinement; the seconds include compiling."""
    domain = oipjax.space_for(model, "box").domain
    is_first = layer == model.layers[1]
    begin = time.perf_counter()
    cheap = assemble(model, layer, domain)
    found = {"intervals, sets": Timed(cheap, time.perf_counter() - begin)}
    if not is_first:
        for splits, hull in hull_by_splits.items():
            begin = time.perf_counter()
            bound = assemble(model, layer, domain, hull.value)
            seconds = hull.seconds + time.perf_counter() - begin
            found[f"patch hull, {2**splits} parts"] = Timed(bound, seconds)
    if config.tight:
        name, last = list(found.items())[-1]
        begin = time.perf_counter()
        refined: Bounds = refine_scores(model, last.value, domain)
        seconds = last.seconds + time.perf_counter() - begin
        if refined is not last.value:
            refined_name = "strips" if is_first else f"{name}, windows"
            found[refined_name] = Timed(refined, seconds)
    return found


def limit_of(bound: Bounds, kind: str) -> np.ndarray:
    """The upper limit ``[k]`` of a map's node or mean."""
    return bound.score if kind == "mean" else np.maximum(bound.node, 0)


def compare(
    layer: str, kind: str, scores: np.ndarray, best: np.ndarray, bounds: dict[str, Timed]
) -> list[dict[str, Any]]:
    """A row for each bound: the best score of live maps as a share of it."""
    live = best > 0
    rows = []
    for name, (bound, seconds) in bounds.items():
        share = best[live] / limit_of(bound, kind)[live]
        if share.max() > 1 + 1e-6:
            raise RuntimeError(
                f"an image of {layer} exceeds its bound ({name}, {kind}): {share.max()}"
            )
        row = {
            "layer": layer,
            "of": kind,
            "bound": name,
            "median": float(np.median(share)),
            "least": float(share.min()),
            "most": float(share.max()),
            "live": int(live.sum()),
            "dead": int(bound.dead.sum()),
            "seconds": seconds,
        }
        rows.append(row)
    return rows


def curve(
    scores: np.ndarray, best: np.ndarray, known: np.ndarray | None, limit: np.ndarray
) -> dict[str, Any]:
    """The median share of the last bound, by the number of ascents."""
    live = best > 0
    starts = scores.shape[1]
    counts = [2**i for i in range(starts.bit_length()) if 2**i <= starts]
    medians = []
    for count in counts:
        share = scores[live, :count].max(1) / limit[live]
        medians.append(float(np.median(share)))
    exact_share = None if known is None else float(np.median(known[live] / limit[live]))
    return {"restarts": counts, "median": medians, "exact": exact_share}


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    hull_by_splits = hulls(config, model)
    rows = []
    curves = {}
    for layer in config.layers:
        bounds = proved(config, model, layer, hull_by_splits)
        last = list(bounds.values())[-1].value
        for kind in ("node", "mean"):
            scores = reached(config, model, layer, kind)
            known = exact(model, layer, kind)
            best = scores.max(1)
            if known is not None:
                best = np.maximum(best, known)
            rows += compare(layer, kind, scores, best, bounds)
            curves[f"{layer} {kind}"] = curve(scores, best, known, limit_of(last, kind))
    cells = [[row[name] for name in COLUMNS] for row in rows]
    show("reached / bound over the box of pixels", COLUMNS, cells)
    content = {"config": vars(config), "rows": rows, "curves": curves}
    save(results, "bounds", content, figure(rows, curves, model.name))
    return rows


def style_of(label: str) -> dict[str, Any]:
    """The line of a layer and a kind."""
    layer, kind = label.split()
    dashes = "-" if kind == "node" else "--"
    return {"color": COLOURS.get(layer, INK), "linestyle": dashes}


def figure(rows: list[dict[str, Any]], curves: dict[str, Any], name: str) -> Figure:
    """Medians against restarts, and against the refinement of the bound."""
    drawn = Figure(figsize=(11, 4.6), facecolor="white", layout="constrained")
    title = f"{name}: the best image found, as a share of the most that is proved possible"
    drawn.suptitle(title, fontsize=12, color=INK)
    left, right = drawn.subplots(1, 2, sharey=True)
    draw_restarts(left, curves)
    names = list(dict.fromkeys(row["bound"] for row in rows))
    for label in curves:
        layer, kind = label.split()
        own = [row for row in rows if row["layer"] == layer and row["of"] == kind]
        places = [names.index(row["bound"]) for row in own]
        medians = [row["median"] for row in own]
        right.plot(places, medians, marker="o", markersize=4, **style_of(label))
    ticks = [text.replace(", ", ",\n") for text in names]
    right.set_xticks(range(len(names)), ticks, fontsize=8)
    right.set_xlabel("bound")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    legend = {"fontsize": 8, "frameon": False, "ncols": 3, "loc": "upper right"}
    right.legend(*left.get_legend_handles_labels(), **legend)
    return drawn


def draw_restarts(axes: Axes, curves: dict[str, Any]) -> None:
    """Medians against the number of ascents, and a star where the optimum is known."""
    for label, values in curves.items():
        style = style_of(label)
        axes.plot(
            values["restarts"], values["median"], marker="o", markersize=4, label=label, **style
        )
        if values["exact"] is not None:
            beyond = 2.0 * values["restarts"][-1]
            axes.plot(beyond, values["exact"], marker="*", markersize=11, **style)
    counts = next(iter(curves.values()))["restarts"]
    axes.set_xscale("log", base=2)
    ticks = [*counts, 2 * counts[-1]]
    axes.set_xticks(ticks, [*map(str, counts), "exact\nsearch"], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("ascents per map")
    axes.set_ylabel("median reached / bound")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.05)


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
