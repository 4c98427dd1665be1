"""Which method climbs best for each gradient it computes?

Question: how do the best scores of all maps, from the same survey, compare with those of the
    classic rule from four
starts with 600 steps each? What does each part of the default method contribute, and what is gained
when short ascents choose among the starts (successive halving: Jamieson and Talwalkar 2016,
arXiv:1502.07943)? Expected: on standardised images the default with 100 steps is at least as good
for at least 95 % of the found maps, and 0.99 for every one; short ascents give nearly the same for
half of the gradients. Cost: about 15 minutes of two cores.
Command: python -m experiments.benchmarks.methods
"""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
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
    """Short ascents of ``screen`` steps from ``keep`` starts, the ``finish`` best climbed on by ``steps``."""

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


SCHEMES = tuple(
    Scheme(*numbers)
    for numbers in (
        (4, 6, 1, 25), (4, 12, 1, 50), (4, 25, 1, 50), (4, 25, 1, 100), (4, 25, 2, 100), (4, 50, 1, 100),
        (4, 25, 1, 200), (16, 6, 1, 50), (16, 12, 1, 100), (16, 12, 2, 100), (16, 25, 2, 100),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The survey, and the numbers of steps; the variants run with ``ablation`` steps. All of it once for each seed."""

    checkpoint: str = "mnist-cnn"
    draws: int = 4096
    keep: int = 4
    classic: tuple[int, ...] = (300, 600)
    default: tuple[int, ...] = (15, 30, 60, 100, 200)
    ablation: int = 100
    schemes: tuple[Scheme, ...] = SCHEMES
    seeds: tuple[int, ...] = (0, 1)
    spaces: tuple[str, ...] = ("standardised", "box")


SMOKE = replace(
    Config(),
    draws=64,
    keep=1,
    classic=(8,),
    default=(4,),
    ablation=4,
    seeds=(0,),
    spaces=("standardised",),
    schemes=(Scheme(2, 2, 1, 3),),
)


def climb_all(
    config: Config, model: oipjax.Model, name_of_space: str, seed: int
) -> dict[tuple[str, int], tuple[np.ndarray, float]]:
    """For each method and gradients per map: scores ``[k, r]`` from the same survey, and seconds."""
    key, layer, space = (
        jax.random.key(seed),
        model.default_layer,
        oipjax.space_for(model, name_of_space),
    )
    starts = oipjax.survey(
        key, model, layer, space=space, draws=config.draws, keep=config.keep
    ).start_index
    count = len(starts)
    maps = np.repeat(np.arange(count), config.keep)
    runs: list[tuple[str, Any, int]] = [("classic", Classic(), steps) for steps in config.classic]
    runs += [("default", DEFAULT, steps) for steps in config.default]
    runs += [(name, method, config.ablation) for name, method in VARIANTS.items()]
    done = {}
    for name, method, steps in runs:
        begin = time.perf_counter()
        run = oipjax.ascend(
            key,
            model,
            oipjax.Map(layer),
            maps,
            starts.ravel(),
            space=space,
            method=method,
            steps=steps,
        )
        done[name, config.keep * steps] = run.scores.reshape(count, -1), time.perf_counter() - begin
        print(
            f"{name_of_space}, seed {seed}: {name}, {steps} steps, {time.perf_counter() - begin:.1f} s",
            flush=True,
        )
    for scheme in config.schemes:
        begin = time.perf_counter()
        atlas = oipjax.atlas(
            key,
            model,
            layer,
            space=space,
            draws=config.draws,
            restarts=0,
            search=0,
            bounds="none",
            **scheme._asdict(),
        )
        done[scheme.name, scheme.gradients] = atlas.scores, time.perf_counter() - begin
        print(
            f"{name_of_space}, seed {seed}: {scheme.name}, {time.perf_counter() - begin:.1f} s",
            flush=True,
        )
    return done


def compare(config: Config, space: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One line per method and number of steps, over all seeds; and the scores of every map for every seed."""
    model = oipjax.load(config.checkpoint)
    seeds = [climb_all(config, model, space, seed) for seed in config.seeds]
    last = ("classic", config.keep * config.classic[-1])
    reference = np.stack([done[last][0] for done in seeds])
    alive = reference.max(2) > 0
    rows = []
    for name, gradients in seeds[0]:
        scores = np.stack([done[name, gradients][0] for done in seeds])
        ratio = scores.max(2)[alive] / reference.max(2)[alive]
        worst = [
            float((s.max(1)[a] / r.max(1)[a]).min())
            for s, r, a in zip(scores, reference, alive, strict=True)
        ]
        rows.append({
            "space": space,
            "method": name,
            "gradients per map": gradients,
            "median": float(np.median(ratio)),
            "least": float(ratio.min()),
            "share >= 1": float(np.mean(ratio >= 1)),
            "share >= .99": float(np.mean(ratio >= 0.99)),
            "found": [int((s.max(1) > 0).sum()) for s in scores],
            "least by seed": worst,
            "s": round(float(np.median([done[name, gradients][1] for done in seeds])), 1),
        })  # fmt: skip
    steps = config.ablation if config.ablation in config.default else config.default[-1]
    maps = [
        {
            "space": space,
            "seed": seed,
            "classic": done[last][0].max(1).tolist(),
            "default": done["default", config.keep * steps][0].max(1).tolist(),
        }
        for seed, done in zip(config.seeds, seeds, strict=True)
    ]
    return rows, maps


def plot(rows: list[dict[str, Any]]) -> Figure:
    """Score against gradients, median and worst map, a panel for each image space."""
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    figure = Figure(figsize=(4.6 * len(spaces) + 0.6, 4.2), layout="constrained")
    looks = {
        "classic": ("#D55E00", "o-", "s:"),
        "default": ("#0072B2", "o-", "s:"),
        "short ascents": ("#009E73", "D", "d"),
    }
    kinds = dict.fromkeys(VARIANTS, "one less") | {"classic": "classic", "default": "default"}
    for axes, space in zip(
        figure.subplots(1, len(spaces), sharey=True, squeeze=False)[0], spaces, strict=True
    ):
        here = [row for row in rows if row["space"] == space]
        for name, (color, middle, worst) in looks.items():
            some = [row for row in here if kinds.get(row["method"], "short ascents") == name]
            gradients = [row["gradients per map"] for row in some]
            axes.plot(
                gradients,
                [row["median"] for row in some],
                middle,
                color=color,
                label=f"{name}, median map",
            )
            face = {"markerfacecolor": "white"}
            axes.plot(
                gradients,
                [row["least"] for row in some],
                worst,
                color=color,
                label=f"{name}, worst map",
                **face,
            )
        some = [row for row in here if row["method"] in VARIANTS]
        axes.plot(
            [row["gradients per map"] for row in some], [row["median"] for row in some], "x", color="#8a8a8a",
            label="default less one part, median",
        )  # fmt: skip
        axes.axhline(1, color="#8a8a8a", linewidth=0.8)
        axes.set_xscale("log")
        axes.set(xlabel="gradients per map", title=space)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("best score / classic's, 4 x 600")
    figure.axes[0].legend(frameon=False, fontsize=7.5)
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    compared = [compare(config, space) for space in config.spaces]
    rows, maps = ([item for pair in compared for item in pair[part]] for part in (0, 1))
    columns = [name for name in rows[0] if name != "least by seed"]
    show(
        "best score of each map / classic's",
        columns,
        [[row[name] for name in columns] for row in rows],
    )
    save(
        results,
        "methods",
        {"config": vars(config), "rows": rows, "maps": maps},
        plot(rows),
    )
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
