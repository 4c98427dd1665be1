"""The run of the source article: one map, one random image, 600 steps.

Question: how does the pattern of map 120 come out of a random image under the classic rule, when
does the run converge, and how often does the map respond to the first random image?
Expected: the course that the source prints for its map 120 (R. Moenchmeyer, "A simple CNN for the
MNIST dataset", part IX): the score rises slowly, then fast, then hardly; its relative change per
step falls through the criterion 2e-4 at about step 288 (2.03e-4 there) and is 6.3e-5 at the end.
From some random images the run stays inactive, and others must be tried.
Cost: half a minute of two cores.
Command: python -m experiments.one_map
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

import oipjax
from experiments import classic_curve
from experiments.classic_curve import PUBLISHED, responding_starts
from experiments.common import command, save, show
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, oip_figure
from oipjax.search import Ascent
from oipjax.spaces import Fluctuation, Fluctuations

RESULTS = Path(__file__).parent / "results"
RECIPE = "3:0.2,7:0.2"
"""The source's mixture: weights .2, .2, 0, 0 of fields of 3x3, 7x7, 14x14, 28x28."""
PUBLISHED_CHANGE = {
    0: 7.380040645599365,
    9: 1.0486774,
    18: 1.439024,
    36: 2.7197113,
    72: 2.3575745,
    144: 0.9178772,
    288: 0.064941406,
    599: 0.020477295,
}
"""Change of the score by the last step, as the source prints it."""
COLUMNS = (
    "step",
    "score",
    "change",
    "relative change",
    "score / last",
    "published",
    "published relative change",
)


@dataclass(frozen=True)
class Config:
    """One run that is shown, and many for the band around it.

    Attributes:
        checkpoint: the network.
        map: index of the map.
        draws: random images to look at.
        starts: the first so many that the map responds to are climbed from.
        steps: of each ascent.
        reports: recorded steps between the first and the last.
        criterion: relative change per step below which a run counts as converged.
        seed: of the images.
    """

    checkpoint: str = "mnist-cnn"
    map: int = 120
    draws: int = 2048
    starts: int = 100
    steps: int = 600
    reports: int = 6
    criterion: float = 2e-4
    seed: int = 0


SMOKE = Config(draws=64, starts=2, steps=24)


def climb(config: Config, model: oipjax.Model, starts: np.ndarray, **options: Any) -> Ascent:
    """The classic rule from some starts."""
    space = oipjax.Standardised(model.input_shape, Fluctuations((Fluctuation.parse(RECIPE),)))
    return oipjax.ascend(
        jax.random.key(config.seed),
        model,
        oipjax.Map(model.default_layer),
        np.full(len(starts), config.map),
        starts,
        space=space,
        method=oipjax.Classic(),
        steps=config.steps,
        reports=config.reports,
        criterion=config.criterion,
        **options,
    )


def relative(change: np.ndarray, score: np.ndarray) -> np.ndarray:
    """``|change / score|``, NaN where the score is 0."""
    return np.abs(change) / np.where(score > 0, score, np.nan)


def published_share(step: int) -> float | None:
    """The published score as a share of the last one."""
    return PUBLISHED[step] / PUBLISHED[599] if step in PUBLISHED else None


def published_change(step: int) -> float | None:
    """The published relative change."""
    return PUBLISHED_CHANGE[step] / PUBLISHED[step] if step in PUBLISHED else None


def plot(config: Config, run: Ascent, runs: Ascent) -> Figure:
    """Score and relative change of one run, the band of many, and the published points."""
    figure = Figure(figsize=(11.0, 4.2), facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    steps = run.trace_steps
    score = run.trace[0] / run.trace[0, -1]
    scores = runs.trace / runs.trace[:, -1:]
    published = {step: published_share(step) for step in PUBLISHED}
    draw_band(left, steps, score, scores, published)
    change = relative(run.changes[0], run.trace[0])[1:]
    changes = relative(runs.changes, runs.trace)[:, 1:]
    published = {step: published_change(step) for step in list(PUBLISHED)[1:]}
    draw_band(middle, steps[1:], change, changes, published)
    middle.set_yscale("log")
    middle.axhline(config.criterion, color=FAINT, linewidth=1, linestyle=":")
    text = f"criterion {config.criterion:g}"
    middle.text(steps[1], config.criterion * 0.93, text, fontsize=8, color=FAINT, va="top")
    draw_convergence(right, config, runs)
    titles = {
        left: "score / last score",
        middle: "relative change by one step",
        right: "runs that have met the criterion (%)",
    }
    for axes, title in titles.items():
        axes.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors="#444444")
        if axes.get_legend_handles_labels()[0]:
            place = "center left" if axes is right else "best"
            axes.legend(fontsize=8, frameon=False, loc=place)
    return figure


def draw_band(
    axes: Axes, steps: np.ndarray, one: np.ndarray, many: np.ndarray, published: dict
) -> None:
    """One run ``[t]``, the band of many ``[n, t]``, and published values by step."""
    low, high = np.nanpercentile(many, (5, 95), axis=0)
    band = {"color": BLUE, "alpha": 0.18, "linewidth": 0}
    axes.fill_between(steps, low, high, label=f"{len(many)} starts, 90 %", **band)
    axes.plot(steps, one, "o-", color=BLUE, markersize=4, label="the run shown")
    theirs = {"color": INACTIVE, "markersize": 4, "label": "published"}
    axes.plot(list(published), list(published.values()), "s--", **theirs)
    positive = steps[steps > 0]
    first = int(positive[0]) if positive.size else 1
    axes.set_xscale("symlog", linthresh=max(1, first), linscale=0.5)
    axes.xaxis.set_major_locator(FixedLocator(steps.tolist()))
    axes.set_xticks(steps.tolist(), list(map(str, steps)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("step", fontsize=9)


def draw_convergence(axes: Axes, config: Config, runs: Ascent) -> None:
    """The share of runs that have met the criterion, by step."""
    met = np.sort(runs.converged[runs.converged >= 0])
    if met.size:
        share = 100 * np.arange(1, len(met) + 1) / len(runs.converged)
        axes.step(met, share, where="post", color=BLUE)
        label = "published: just\nabove it at 288"
        axes.axvline(288, color=INACTIVE, linewidth=1, linestyle="--", label=label)
    axes.set(xlabel="step", xlim=(0, config.steps), ylim=(0, 100))


def table(run: Ascent) -> list[list[Any]]:
    """A row for each recorded step, in the order of `COLUMNS`."""
    rows = []
    last = run.trace[0, -1]
    for step, score, change in zip(run.trace_steps, run.trace[0], run.changes[0], strict=True):
        number = int(step)
        own = [float(score), float(change), float(relative(change, score)), float(score / last)]
        rows.append([number, *own, published_share(number), published_change(number)])
    return rows


def convergence(runs: Ascent) -> dict[str, Any]:
    """When runs met the criterion, and how they ended."""
    met = runs.converged[runs.converged >= 0]
    quartiles = np.percentile(met, (50, 25, 75)).tolist() if met.size else None
    final = runs.trace[:, -1]
    changes = relative(runs.changes, runs.trace)[:, -1]
    return {
        "runs": len(final),
        "runs that met the criterion": len(met),
        "step, median and quartiles": quartiles,
        "relative change at the end, median": float(np.median(changes)),
        "last score, median": float(np.median(final)),
        "last score, least and greatest": [float(final.min()), float(final.max())],
    }


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    space = oipjax.Standardised(model.input_shape, Fluctuations((Fluctuation.parse(RECIPE),)))
    looked_at = classic_curve.Config(
        checkpoint=config.checkpoint, draws=config.draws, starts=config.draws, seed=config.seed
    )
    maps, starts = responding_starts(looked_at, model, space)
    own = starts[maps == config.map]
    if not own.size:
        raise ValueError(
            f"map {config.map} responds to none of {config.draws} random images; "
            "ask for more, or another map"
        )
    run = climb(config, model, own[:1], record_images=True)
    runs = climb(config, model, own[: config.starts])
    rows = table(run)
    show(f"map {config.map}, start {own[0]}", COLUMNS, rows)
    layer = model.layer(model.default_layer)
    facts = {
        "first start that the map responds to": int(own[0]),
        "starts that it responds to": [len(own), config.draws],
        "of all maps, those that respond to the first start": int(np.sum(starts == 0)),
        "those that respond to none": layer.maps - len(np.unique(maps)),
        "this run met the criterion at step": int(run.converged[0]),
        **convergence(runs),
    }
    show("convergence", ["", ""], [[name, str(value)] for name, value in facts.items()])
    title = f"{config.checkpoint} \N{MIDDLE DOT} {layer.name} \N{MIDDLE DOT} map {config.map}"
    note = (
        f"start {own[0]} of the source's mixture of fields ({RECIPE}), "
        f"classic rule, {config.steps} steps"
    )
    steps = run.trace_steps.tolist()
    strip = oip_figure(title, steps, run.trace_images[0], run.trace[0], run.changes[0], note)
    content = {"config": asdict(config), "columns": COLUMNS, "rows": rows, **facts}
    save(results, "one_map", content, strip)
    plot(config, run, runs).savefig(results / "one_map_convergence.png", dpi=150)
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
