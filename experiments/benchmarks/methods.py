"""Which method climbs best for each gradient it computes?

Question: how do the best scores of all maps, from the same survey, compare with those of the
classic rule from four starts with 600 steps each? What does each part of the default method
contribute? What is gained when short ascents choose among the starts (successive halving: Jamieson
and Talwalkar 2016, arXiv:1502.07943)?
Expected: on standardised images the default with 100 steps is at least as good for at least 95 % of
the found maps, and reaches 0.99 for every one; short ascents give nearly the same for half of the
gradients.
Cost: about 15 minutes of two cores.
Command: python -m experiments.benchmarks.methods
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from oipjax import Classic, Momentum

RESULTS = Path(__file__).parent / "results"
DEFAULT = Momentum()
VARIANTS = {
    "without warm-up": replace(DEFAULT, warmup=0.0),
    "without backtracking": replace(DEFAULT, tolerance=math.inf),
    "without momentum": replace(DEFAULT, momentum=0.0),
    "short steps (0.1)": replace(DEFAULT, step=0.1),
    "momentum .9, step .3, neither": Momentum(
        step=0.3, momentum=0.9, warmup=0.0, tolerance=math.inf
    ),
}


class Scheme(NamedTuple):
    """Short ascents, and the best ones continued.

    Attributes:
        keep: starts.
        screen: steps of each short ascent.
        finish: how many of them are continued.
        steps: steps of each continuation.
    """

    keep: int
    screen: int
    finish: int
    steps: int

    @property
    def gradients(self) -> int:
        """For each map."""
        return self.keep * self.screen + self.finish * self.steps

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.keep} x {self.screen}, then {self.finish} x {self.steps}"


SCHEMES = (
    Scheme(4, 6, 1, 25),
    Scheme(4, 12, 1, 50),
    Scheme(4, 25, 1, 50),
    Scheme(4, 25, 1, 100),
    Scheme(4, 25, 2, 100),
    Scheme(4, 50, 1, 100),
    Scheme(4, 25, 1, 200),
    Scheme(16, 6, 1, 50),
    Scheme(16, 12, 1, 100),
    Scheme(16, 12, 2, 100),
    Scheme(16, 25, 2, 100),
)


@dataclass(frozen=True)
class Config:
    """The survey and the numbers of steps; everything runs once for each seed and image space.

    Attributes:
        checkpoint: the network.
        draws: of the survey.
        keep: starts of each map.
        classic: numbers of steps of the classic rule; the last one is the reference.
        default: numbers of steps of the default method.
        ablation: steps of the default method without one of its parts.
        schemes: short ascents, and the best ones continued.
        seeds: of the surveys.
        spaces: names of the image spaces.
    """

    checkpoint: str = "mnist-cnn"
    draws: int = 4096
    keep: int = 4
    classic: tuple[int, ...] = (300, 600)
    default: tuple[int, ...] = (15, 30, 60, 100, 200)
    ablation: int = 100
    schemes: tuple[Scheme, ...] = SCHEMES
    seeds: tuple[int, ...] = (0, 1)
    spaces: tuple[str, ...] = ("standardised", "box")


SMOKE = Config(
    draws=64,
    keep=1,
    classic=(8,),
    default=(4,),
    ablation=4,
    seeds=(0,),
    spaces=("standardised",),
    schemes=(Scheme(2, 2, 1, 3),),
)


class Measured(NamedTuple):
    """Scores ``[k, r]`` of all maps, and the seconds they took."""

    scores: np.ndarray
    seconds: float

    @property
    def best(self) -> np.ndarray:
        """``[k]``."""
        return self.scores.max(1)


Results = dict[tuple[str, int], Measured]
"""By the name of the method and its gradients per map."""


def timed(label: str, run: Callable[[], np.ndarray]) -> Measured:
    """Scores and seconds of one measurement, which is announced."""
    begin = time.perf_counter()
    scores = run()
    seconds = time.perf_counter() - begin
    print(f"{label}, {seconds:.1f} s", flush=True)
    return Measured(scores, seconds)


def climb_all(config: Config, model: oipjax.Model, space_name: str, seed: int) -> Results:
    """All methods and schemes from the same survey."""
    key = jax.random.key(seed)
    layer = model.default_layer
    space = oipjax.space_for(model, space_name)
    survey = oipjax.survey(key, model, layer, space=space, draws=config.draws, keep=config.keep)
    starts = survey.start_index
    count = len(starts)
    maps = np.repeat(np.arange(count), config.keep)
    label = f"{space_name}, seed {seed}"
    results = {}

    def climb(method: Any, steps: int) -> np.ndarray:
        options = {"space": space, "method": method, "steps": steps}
        run = oipjax.ascend(key, model, oipjax.Map(layer), maps, starts.ravel(), **options)
        return run.scores.reshape(count, -1)

    def screen(scheme: Scheme) -> np.ndarray:
        cheap = {"restarts": 0, "search": 0, "bounds": "none"}
        options = {"space": space, "draws": config.draws, **cheap, **scheme._asdict()}
        return oipjax.atlas(key, model, layer, **options).scores

    for name, method, steps in methods(config):
        measured = timed(f"{label}: {name}, {steps} steps", lambda m=method, s=steps: climb(m, s))
        results[name, config.keep * steps] = measured
    for scheme in config.schemes:
        measured = timed(f"{label}: {scheme.name}", lambda s=scheme: screen(s))
        results[scheme.name, scheme.gradients] = measured
    return results


def methods(config: Config) -> list[tuple[str, Any, int]]:
    """Name, method and steps of all plain ascents."""
    classic = [("classic", Classic(), steps) for steps in config.classic]
    default = [("default", DEFAULT, steps) for steps in config.default]
    variants = [(name, method, config.ablation) for name, method in VARIANTS.items()]
    return [*classic, *default, *variants]


def compare(config: Config, space: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for each method and number of steps over all seeds, and every map's scores by seed."""
    model = oipjax.load(config.checkpoint)
    by_seed = [climb_all(config, model, space, seed) for seed in config.seeds]
    reference = ("classic", config.keep * config.classic[-1])
    rows = []
    for name, gradients in by_seed[0]:
        row = {"space": space, "method": name, "gradients per map": gradients}
        measured = [results[name, gradients] for results in by_seed]
        references = [results[reference] for results in by_seed]
        rows.append(row | ratios(measured, references))
    steps = config.ablation if config.ablation in config.default else config.default[-1]
    maps = []
    for seed, results in zip(config.seeds, by_seed, strict=True):
        classic = results[reference].best.tolist()
        default = results["default", config.keep * steps].best.tolist()
        maps.append({"space": space, "seed": seed, "classic": classic, "default": default})
    return rows, maps


def ratios(measured: list[Measured], references: list[Measured]) -> dict[str, Any]:
    """Best scores as shares of those of the reference, over the maps that it finds."""
    shares = []
    for own, reference in zip(measured, references, strict=True):
        is_found = reference.best > 0
        shares.append(own.best[is_found] / reference.best[is_found])
    ratio = np.concatenate(shares)
    return {
        "median": float(np.median(ratio)),
        "least": float(ratio.min()),
        "share >= 1": float(np.mean(ratio >= 1)),
        "share >= .99": float(np.mean(ratio >= 0.99)),
        "found": [int((own.best > 0).sum()) for own in measured],
        "least by seed": [float(share.min()) for share in shares],
        "s": round(float(np.median([own.seconds for own in measured])), 1),
    }


LOOKS = {
    "classic": ("#D55E00", "o-", "s:"),
    "default": ("#0072B2", "o-", "s:"),
    "short ascents": ("#009E73", "D", "d"),
}
"""Colour of a kind of method, and the marks of its median and its worst map."""


def kind_of(method: str) -> str:
    """The kind of a method: ``classic``, ``default``, a ``variant``, or ``short ascents``."""
    if method in ("classic", "default"):
        return method
    return "variant" if method in VARIANTS else "short ascents"


def plot(rows: list[dict[str, Any]]) -> Figure:
    """Score against gradients, median and worst map, a panel for each image space."""
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    figure = Figure(figsize=(4.6 * len(spaces) + 0.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(spaces), sharey=True, squeeze=False)[0]
    for axes, space in zip(panels, spaces, strict=True):
        draw(axes, [row for row in rows if row["space"] == space])
        axes.set_title(space)
    figure.axes[0].set_ylabel("best score / classic's, 4 x 600")
    figure.axes[0].legend(frameon=False, fontsize=7.5)
    return figure


def draw(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """The rows of one image space."""

    def curve(kind: str, value: str, mark: str, label: str, **style: Any) -> None:
        own = [row for row in rows if kind_of(row["method"]) == kind]
        gradients = [row["gradients per map"] for row in own]
        axes.plot(gradients, [row[value] for row in own], mark, label=label, **style)

    for kind, (colour, median, worst) in LOOKS.items():
        curve(kind, "median", median, f"{kind}, median map", color=colour)
        hollow = {"color": colour, "markerfacecolor": "white"}
        curve(kind, "least", worst, f"{kind}, worst map", **hollow)
    curve("variant", "median", "x", "default less one part, median", color="#8a8a8a")
    axes.axhline(1, color="#8a8a8a", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("gradients per map")
    axes.spines[["top", "right"]].set_visible(False)


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    rows = []
    maps = []
    for space in config.spaces:
        own_rows, own_maps = compare(config, space)
        rows += own_rows
        maps += own_maps
    columns = [name for name in rows[0] if name != "least by seed"]
    cells = [[row[name] for name in columns] for row in rows]
    show("best score of each map / classic's", columns, cells)
    content = {"config": vars(config), "rows": rows, "maps": maps}
    save(results, "methods", content, plot(rows))
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
