"""Which method climbs best for each gradient it computes?

Question: how do the best scores of all maps, from the same starts, compare with those of the classic rule after 600
steps, and what does each part of the default method contribute?
Expected: the default with 120 steps is at least as good for at least 95 % of the found maps, and 0.99 for every one.
Cost: about 4 minutes of two cores.
Command: python -m experiments.benchmarks.methods
"""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

import oipjax
from experiments.common import save, show
from oipjax import Classic, Momentum

RESULTS = Path(__file__).parent / "results"
DEFAULT = Momentum()
VARIANTS = {
    "without warm-up": replace(DEFAULT, warmup=0.0),
    "without backtracking": replace(DEFAULT, tolerance=math.inf),
    "without momentum": replace(DEFAULT, momentum=0.0),
    "short steps (0.1)": replace(DEFAULT, step=0.1),
    "momentum .9, step .3, neither": Momentum(step=0.3, momentum=0.9, warmup=0.0, tolerance=math.inf),
}


@dataclass(frozen=True)
class Config:
    """The survey, and the numbers of steps; the variants run with ``ablation`` steps."""

    checkpoint: str = "mnist-cnn"
    draws: int = 4096
    keep: int = 4
    classic: tuple[int, ...] = (120, 300, 600)
    default: tuple[int, ...] = (15, 30, 60, 120, 240)
    ablation: int = 120
    seed: int = 0


SMOKE = Config(draws=64, keep=1, classic=(4, 8), default=(4,), ablation=4)


def compare(config: Config) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One line per method and number of steps, and the scores of every map."""
    model, key = oipjax.load(config.checkpoint), jax.random.key(config.seed)
    layer = model.default_layer
    starts = oipjax.survey(key, model, layer, draws=config.draws, keep=config.keep).start_index
    count = len(starts)
    maps = np.repeat(np.arange(count), config.keep)

    def climb(method: Any, steps: int) -> tuple[np.ndarray, float]:
        begin = time.perf_counter()
        run = oipjax.ascend(key, model, oipjax.Map(layer), maps, starts.ravel(), method=method, steps=steps)
        return run.scores.reshape(count, -1), time.perf_counter() - begin

    runs: list[tuple[str, Any, int]] = [("classic", Classic(), steps) for steps in config.classic]
    runs += [("default", DEFAULT, steps) for steps in config.default]
    runs += [(name, method, config.ablation) for name, method in VARIANTS.items()]
    scores, seconds = {}, {}
    for name, method, steps in runs:
        scores[name, steps], seconds[name, steps] = climb(method, steps)
    reference = scores["classic", config.classic[-1]].max(1)
    alive = reference > 0
    rows = []
    for name, _, steps in runs:
        ratio = scores[name, steps].max(1)[alive] / reference[alive]
        single = (scores[name, steps] / np.maximum(scores["classic", config.classic[-1]], 1e-12))[alive]
        rows.append({
            "method": name,
            "gradients": steps,
            "median": float(np.median(ratio)),
            "least": float(ratio.min()),
            "share >= 1": float(np.mean(ratio >= 1)),
            "share >= .99": float(np.mean(ratio >= 0.99)),
            "median of runs": float(np.median(single)),
            "found": int((scores[name, steps].max(1) > 0).sum()),
            "s": round(seconds[name, steps], 1),
        })  # fmt: skip
    best = scores["default", config.ablation if config.ablation in config.default else config.default[-1]].max(1)
    table = {"map": np.arange(count).tolist(), "classic": reference.tolist(), "default": best.tolist()}
    return rows, table


def plot(rows: list[dict[str, Any]]) -> Figure:
    """Score against gradients, median and worst map."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, color in (("classic", "#D55E00"), ("default", "#0072B2")):
        some = [row for row in rows if row["method"] == name]
        steps = [row["gradients"] for row in some]
        axes.plot(steps, [row["median"] for row in some], "o-", color=color, label=f"{name}, median map")
        axes.plot(steps, [row["least"] for row in some], "s:", color=color, label=f"{name}, worst map")
    for row in rows:
        if row["method"] in VARIANTS:
            axes.plot(row["gradients"], row["median"], "x", color="#8a8a8a")
    axes.plot([], [], "x", color="#8a8a8a", label="default less one part, median")
    axes.axhline(1, color="#8a8a8a", linewidth=0.8)
    axes.set_xscale("log")
    ticks = sorted({row["gradients"] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="gradients per run", ylabel="best score / classic's after 600")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    rows, table = compare(config)
    columns = list(rows[0])
    show("best score of each map / classic's", columns, [[row[name] for name in columns] for row in rows])
    save(results, "methods", {"config": vars(config), "rows": rows, "maps": table}, plot(rows))
    return rows


if __name__ == "__main__":
    tyro.cli(lambda: main(), description=__doc__)
