"""Is the classic rule, as oipjax defines it, the rule of the source article?

Question: how does a map's score rise under the classic rule, over 600 steps, from random starts
that it responds to, with the source's mixture of fields (weights .2, .2, 0, 0 for 3x3, 7x7, 14x14,
28x28)?
Expected: the shape of the curve that the source prints for its map 120 (R. Moenchmeyer, "A simple
CNN for the MNIST dataset", part IX): 7.38, 16.6, 28.3, 67.8, 157, 273, 319, 327 at the steps 0, 9,
18, 36, 72, 144, 288, 599. Only the shape: absolute values depend on the trained weights.
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
PUBLISHED = {
    0: 7.3800406,
    9: 16.631456,
    18: 28.324467,
    36: 67.79664,
    72: 157.14531,
    144: 272.91815,
    288: 319.47913,
    599: 327.4784,
}
"""Scores of the source's map 120 by step."""
BANDS = {9: (0.04, 0.10), 36: (0.15, 0.30), 72: (0.38, 0.58), 144: (0.70, 0.88), 288: (0.91, 0.99)}
"""The band for the median share of the last score, by step."""
COLUMNS = ("step", "median", "published", "from", "to", "inside")
BATCH = 64


@dataclass(frozen=True)
class Config:
    """Random starts and the ascent.

    Attributes:
        checkpoint: the network.
        draws: random starts to look at.
        starts: the first so many that a map responds to are climbed from.
        steps: of each ascent.
        seed: of the starts.
    """

    checkpoint: str = "mnist-cnn"
    draws: int = 2048
    starts: int = 3
    steps: int = 600
    seed: int = 0


SMOKE = Config(draws=32, starts=1, steps=12)


def responding_starts(
    config: Config, model: oipjax.Model, space: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The first few starts that each map responds to, in the order of drawing.

    Returns:
        ``(maps [n], starts [n])``.
    """
    images = make_starts(jax.random.key(config.seed), space, np.arange(config.draws))

    @jax.jit
    def highest(batch):
        return model.apply(model.params, batch)[model.default_layer].max((1, 2))

    batches = np.array_split(images, max(1, len(images) // BATCH))
    responds = np.concatenate([np.asarray(highest(batch)) > 0 for batch in batches])
    maps = []
    starts = []
    for index in range(responds.shape[1]):
        first = np.flatnonzero(responds[:, index])[: config.starts]
        maps.append(np.full(len(first), index))
        starts.append(first)
    return np.concatenate(maps), np.concatenate(starts)


def plot(steps: list[int], shares: np.ndarray) -> Figure:
    """Median and quartiles over maps, beside the published curve."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.percentile(shares, (25, 50, 75), axis=0)
    band = {"color": "#0072B2", "alpha": 0.2, "linewidth": 0}
    axes.fill_between(steps, low, high, label="oipjax, half of the maps", **band)
    own = {"color": "#0072B2", "markersize": 4}
    axes.plot(steps, middle, "o-", label="oipjax, median over maps", **own)
    published = np.array(list(PUBLISHED.values())) / PUBLISHED[599]
    theirs = {"color": "#D55E00", "markersize": 4}
    axes.plot(list(PUBLISHED), published, "s--", label="published, map 120", **theirs)
    axes.set_xscale("symlog", linthresh=9, linscale=0.5)
    axes.set_xticks(steps, list(map(str, steps)))
    axes.minorticks_off()
    axes.set(xlabel="step", ylabel="score / last score")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def row(step: int, share: float) -> list[Any]:
    """A row of the table: the median share at a step, the published one, and the band."""
    published = PUBLISHED[step] / PUBLISHED[599] if step in PUBLISHED else None
    if step not in BANDS:
        return [step, share, published, None, None, None]
    low, high = BANDS[step]
    return [step, share, published, low, high, bool(low <= share <= high)]


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    source = oipjax.Fluctuations((oipjax.Fluctuation(weights=(0.2, 0.2, 0.0, 0.0)),))
    space = oipjax.Standardised(model.input_shape, source)
    maps, starts = responding_starts(config, model, space)
    run = oipjax.ascend(
        jax.random.key(config.seed),
        model,
        oipjax.Map(model.default_layer),
        maps,
        starts,
        space=space,
        method=oipjax.Classic(),
        steps=config.steps,
    )
    steps = run.trace_steps.tolist()
    shares = run.trace / run.trace[:, -1:]
    by_map = np.stack([np.median(shares[maps == index], 0) for index in np.unique(maps)])
    medians = np.median(by_map, 0)
    rows = [row(step, float(share)) for step, share in zip(steps, medians, strict=True)]
    show(f"score / last score, {len(by_map)} maps, {len(maps)} runs", COLUMNS, rows)
    facts = {
        "config": vars(config),
        "maps": len(by_map),
        "runs": len(maps),
        "columns": COLUMNS,
        "rows": rows,
    }
    save(results, "classic_curve", facts, plot(steps, by_map))
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
