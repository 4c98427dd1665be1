"""Is the classic rule, as oipjax defines it, the rule of the source article?

Question: how does a map's score rise under the classic rule, over 600 steps, from random starts
    that it responds to, with
the source's mixture of fields (weights .2, .2, 0, 0 for 3x3, 7x7, 14x14, 28x28)?
Expected: the shape of the curve that the source prints for its map 120 (R. Moenchmeyer, "A simple
    CNN for the MNIST
dataset", part IX): 7.38, 16.6, 28.3, 67.8, 157, 273, 319, 327 at the steps 0, 9, 18, 36, 72, 144,
288, 599. Only the shape: absolute values depend on the trained weights.
Cost: about a minute of two cores.
Command: python -m experiments.classic_curve
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from oipjax.search import make_starts

RESULTS = Path(__file__).parent / "results"
PUBLISHED = {0: 7.3800406, 9: 16.631456, 18: 28.324467, 36: 67.79664, 72: 157.14531, 144: 272.91815, 288: 319.47913,
             599: 327.4784}  # fmt: skip
BANDS = {9: (0.04, 0.10), 36: (0.15, 0.30), 72: (0.38, 0.58), 144: (0.70, 0.88), 288: (0.91, 0.99)}


@dataclass(frozen=True)
class Config:
    """``starts`` random starts that each map responds to, among the first ``draws``."""

    checkpoint: str = "mnist-cnn"
    draws: int = 2048
    starts: int = 3
    steps: int = 600
    seed: int = 0


SMOKE = Config(draws=32, starts=1, steps=12)


def responding_starts(
    config: Config, model: oipjax.Model, space: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The first few starts that each map responds to, in the order of drawing: ``(maps [n], starts [n])``."""
    drawn = make_starts(jax.random.key(config.seed), space, np.arange(config.draws))
    answer = jax.jit(lambda x: model.apply(model.params, x)[model.default_layer].max((1, 2)))
    responds = np.concatenate(
        [np.asarray(answer(part)) > 0 for part in np.array_split(drawn, max(1, len(drawn) // 64))]
    )
    pairs = [
        (k, i)
        for k in range(responds.shape[1])
        for i in np.flatnonzero(responds[:, k])[: config.starts]
    ]
    return np.array([k for k, _ in pairs]), np.array([i for _, i in pairs])


def plot(steps: list[int], shares: np.ndarray) -> Figure:
    """Median and quartiles over maps, beside the published curve and the bands."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.percentile(shares, (25, 50, 75), axis=0)
    axes.fill_between(
        steps, low, high, color="#0072B2", alpha=0.2, linewidth=0, label="oipjax, half of the maps"
    )
    axes.plot(steps, middle, "o-", color="#0072B2", markersize=4, label="oipjax, median over maps")
    published = np.array(list(PUBLISHED.values())) / PUBLISHED[599]
    axes.plot(
        list(PUBLISHED), published, "s--", color="#D55E00", markersize=4, label="published, map 120"
    )
    axes.set_xscale("symlog", linthresh=9, linscale=0.5)
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.set(xlabel="step", ylabel="score / last score")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    source = oipjax.Fluctuations((oipjax.Fluctuation(weights=(0.2, 0.2, 0.0, 0.0)),))
    space = oipjax.Standardised(model.input_shape, source)
    maps, starts = responding_starts(config, model, space)
    run = oipjax.ascend(
        jax.random.key(config.seed), model, oipjax.Map(model.default_layer), maps, starts, space=space,
        method=oipjax.Classic(), steps=config.steps,
    )  # fmt: skip
    steps, shares = run.trace_steps.tolist(), run.trace / run.trace[:, -1:]
    shares = np.stack([np.median(shares[maps == k], 0) for k in np.unique(maps)])
    rows = []
    for step, value in zip(steps, np.median(shares, 0), strict=True):
        band, published = BANDS.get(step), PUBLISHED.get(step)
        inside = None if band is None else bool(band[0] <= value <= band[1])
        rows.append(
            [
                step,
                float(value),
                published and published / PUBLISHED[599],
                *(band or (None, None)),
                inside,
            ]
        )
    columns = ["step", "median", "published", "from", "to", "inside"]
    show(f"score / last score, {len(shares)} maps, {len(maps)} runs", columns, rows)
    facts = {
        "config": vars(config),
        "maps": len(shares),
        "runs": len(maps),
        "columns": columns,
        "rows": rows,
    }
    save(results, "classic_curve", facts, plot(steps, shares))
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
