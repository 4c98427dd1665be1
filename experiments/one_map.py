"""The run of the source article: one map, one random image, 600 steps.

Question: how does the pattern of map 120 come out of a random image under the classic rule, when
    does the run converge,
and how often does the first random image do?
Expected: what the source prints for its map 120 (R. Moenchmeyer, "A simple CNN for the MNIST
    dataset", part IX): the
score rises slowly, then fast, then hardly; its relative change per step falls through the criterion
2e-4 at about step 288 (2.03e-4 there) and is 6.3e-5 at the end. Some random images leave the map
silent, and others must be tried. Cost: half a minute of two cores.
Command: python -m experiments.one_map
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

import oipjax
from experiments import classic_curve
from experiments.classic_curve import PUBLISHED, responding_starts
from experiments.common import command, save, show
from oipjax.cli.oip import CLASSIC, oip
from oipjax.cli.options import Output, SpaceOptions
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, oip_figure
from oipjax.records import read_run
from oipjax.search import Ascent
from oipjax.spaces import Fluctuation, Fluctuations

RESULTS = Path(__file__).parent / "results"
RECIPE = "3:0.2,7:0.2"
"""The source's mixture: weights .2, .2, 0, 0 of fields of 3x3, 7x7, 14x14, 28x28."""
PUBLISHED_CHANGE = {0: 7.380040645599365, 9: 1.0486774, 18: 1.439024, 36: 2.7197113, 72: 2.3575745, 144: 0.9178772,
                    288: 0.064941406, 599: 0.020477295}  # fmt: skip
"""Change of the score by the last step, as the source prints it."""


@dataclass(frozen=True)
class Config:
    """``starts`` runs for the band, from the first of ``draws`` random images that the map responds to."""

    checkpoint: str = "mnist-cnn"
    map: int = 120
    draws: int = 2048
    starts: int = 100
    steps: int = 600
    reports: int = 6
    criterion: float = 2e-4
    seed: int = 0


SMOKE = Config(draws=64, starts=2, steps=24)


def first_run(config: Config, start: int) -> Ascent:
    """What ``oipjax oip`` finds from this start."""
    with TemporaryDirectory() as folder:
        oip(
            map=config.map,
            checkpoint=config.checkpoint,
            start=start,
            ascent=replace(
                CLASSIC, steps=config.steps, reports=config.reports, criterion=config.criterion
            ),
            space=SpaceOptions(recipe=(RECIPE,)),
            seed=config.seed,
            output=Output(out=Path(folder) / "run"),
        )
        return read_run(Path(folder) / "run")


def relative(change: np.ndarray, score: np.ndarray) -> np.ndarray:
    """``|change / score|``, NaN where the score is 0."""
    return np.abs(change) / np.where(score > 0, score, np.nan)


def plot(config: Config, run: Ascent, runs: Ascent) -> Figure:
    """Score and relative change of one run, the band of many, and the published points."""
    figure = Figure(figsize=(11.0, 4.2), facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    steps = run.trace_steps
    final = runs.trace[:, -1:]
    published = [{s: v / PUBLISHED[599] for s, v in PUBLISHED.items()},
                 {s: PUBLISHED_CHANGE[s] / PUBLISHED[s] for s in list(PUBLISHED)[1:]}]  # fmt: skip
    for axes, one, many, theirs in (
        (left, run.trace[0] / run.trace[0, -1], runs.trace / final, published[0]),
        (middle, relative(run.changes[0], run.trace[0])[1:], relative(runs.changes, runs.trace)[:, 1:],
         published[1]),
    ):  # fmt: skip
        here = steps[-len(one) :]
        low, high = np.nanpercentile(many, (5, 95), axis=0)
        axes.fill_between(
            here, low, high, color=BLUE, alpha=0.18, linewidth=0, label=f"{len(many)} starts, 90 %"
        )
        axes.plot(here, one, "o-", color=BLUE, markersize=4, label="the run shown")
        axes.plot(
            list(theirs),
            list(theirs.values()),
            "s--",
            color=INACTIVE,
            markersize=4,
            label="published",
        )
        axes.set_xscale(
            "symlog", linthresh=max(1, int(steps[min(1, len(steps) - 1)])), linscale=0.5
        )
        axes.xaxis.set_major_locator(FixedLocator(here.tolist()))
        axes.set_xticks(here.tolist(), [str(step) for step in here])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("step", fontsize=9)
    left.set_title("score / last score", fontsize=10, loc="left", color=INK, fontweight="bold")
    middle.set_yscale("log")
    middle.axhline(config.criterion, color=FAINT, linewidth=1, linestyle=":")
    middle.text(
        steps[1],
        config.criterion * 0.93,
        f"criterion {config.criterion:g}",
        fontsize=8,
        color=FAINT,
        va="top",
    )
    middle.set_title(
        "relative change by one step", fontsize=10, loc="left", color=INK, fontweight="bold"
    )
    met = runs.converged[runs.converged >= 0]
    if met.size:
        right.step(
            np.sort(met),
            100 * np.arange(1, len(met) + 1) / len(runs.converged),
            where="post",
            color=BLUE,
        )
        right.axvline(
            288,
            color=INACTIVE,
            linewidth=1,
            linestyle="--",
            label="published: just\nabove it at 288",
        )
    right.set(xlabel="step", xlim=(0, config.steps), ylim=(0, 100))
    right.set_title(
        "runs that have met the criterion (%)",
        fontsize=10,
        loc="left",
        color=INK,
        fontweight="bold",
    )
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors="#444444")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, loc="center left" if axes is right else "best")
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    space = oipjax.Standardised(model.input_shape, Fluctuations((Fluctuation.parse(RECIPE),)))
    asked = classic_curve.Config(
        config.checkpoint, config.draws, config.draws, config.steps, config.seed
    )
    maps, responding = responding_starts(asked, model, space)
    everywhere, responding = responding, responding[maps == config.map]
    if not responding.size:
        raise ValueError(
            f"map {config.map} responds to none of {config.draws} random images; ask for more, or another map"
        )
    run = first_run(config, int(responding[0]))
    starts = responding[: config.starts]
    runs = oipjax.ascend(
        jax.random.key(config.seed), model, oipjax.Map(model.default_layer), np.full(len(starts), config.map), starts,
        space=space, method=oipjax.Classic(), steps=config.steps, reports=config.reports, criterion=config.criterion,
    )  # fmt: skip
    columns = [
        "step",
        "score",
        "change",
        "relative change",
        "score / last",
        "published",
        "published relative change",
    ]
    rows = [
        [int(step), float(score), float(change), float(relative(change, score)), float(score / run.trace[0, -1]),
         PUBLISHED[step] / PUBLISHED[599] if step in PUBLISHED else None,
         PUBLISHED_CHANGE[step] / PUBLISHED[step] if step in PUBLISHED else None]
        for step, score, change in zip(run.trace_steps.tolist(), run.trace[0], run.changes[0], strict=True)
    ]  # fmt: skip
    show(f"map {config.map}, start {responding[0]}", columns, rows)
    met = runs.converged[runs.converged >= 0]
    facts = {
        "first start that responds": int(responding[0]),
        "starts that respond": [len(responding), config.draws],
        "of all maps, those that respond to the first start": int(np.sum(everywhere == 0)),
        "those that respond to none": model.layer(model.default_layer).maps - len(np.unique(maps)),
        "this run met the criterion at step": int(run.converged[0]),
        "runs": len(starts),
        "runs that met the criterion": len(met),
        "step, median and quartiles": np.percentile(met, (50, 25, 75)).tolist()
        if met.size
        else None,
        "relative change at the end, median": float(
            np.median(relative(runs.changes, runs.trace)[:, -1])
        ),
        "last score, median, least, greatest": [
            float(f(runs.trace[:, -1])) for f in (np.median, np.min, np.max)
        ],
    }
    show("convergence", ["", ""], [[name, str(value)] for name, value in facts.items()])
    title = (
        f"{config.checkpoint} \N{MIDDLE DOT} {model.default_layer} \N{MIDDLE DOT} map {config.map}"
    )
    note = f"start {responding[0]} of the source's mixture of fields ({RECIPE}), classic rule, {config.steps} steps"
    strip = oip_figure(
        title, run.trace_steps.tolist(), run.trace_images[0], run.trace[0], run.changes[0], note
    )
    save(
        results,
        "one_map",
        {"config": asdict(config), "columns": columns, "rows": rows, **facts},
        strip,
    )
    plot(config, run, runs).savefig(results / "one_map_convergence.png", dpi=150)
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__)
