"""Does the ascent reach optima that are known?

Question: a node of the first convolution before its ReLU is linear in the image, so its best image
is known in closed form over the box and over the standardised images. How much of it does the
default ascent reach?
Expected: 99.9 % for every map, in both image spaces.
Cost: half a minute on two cores.
Command: python -m experiments.benchmarks.exact
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import oipjax
from experiments.common import command, save, show
from oipjax.bounds import best_images

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("image space", "least", "median", "maps", "maps at .999")


@dataclass(frozen=True)
class Config:
    """The node in the middle of every map of a layer is compared.

    Attributes:
        layer: the layer, before its nonlinearity.
        steps: of each ascent.
        starts: random starts of each map.
        seed: of the starts.
    """

    layer: str = "conv1_pre"
    steps: int = 100
    starts: int = 4
    seed: int = 0


SMOKE = Config(steps=40, starts=1)


def measure(config: Config, model: oipjax.Model, name: str) -> dict[str, Any]:
    """The share of the closed form that the ascent reaches in one image space."""
    space = oipjax.space_for(model, name)
    h, w, maps = model.shapes[config.layer]
    nodes = np.array([(h // 2, w // 2, index) for index in range(maps)])
    best = best_images(model, config.layer, nodes, space.domain).values
    run = oipjax.ascend(
        jax.random.key(config.seed),
        model,
        oipjax.Node(config.layer),
        np.repeat(nodes, config.starts, 0),
        np.tile(np.arange(config.starts), maps),
        space=space,
        steps=config.steps,
    )
    share = run.scores.reshape(maps, config.starts).max(1) / best
    return {
        "image space": name,
        "least": float(share.min()),
        "median": float(np.median(share)),
        "maps": maps,
        "maps at .999": int(np.sum(share >= 0.999)),
        "shares": share.tolist(),
    }


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model = oipjax.load()
    rows = [measure(config, model, name) for name in ("box", "standardised")]
    cells = [[row[name] for name in COLUMNS] for row in rows]
    show("score reached / closed form", COLUMNS, cells)
    save(results, "exact", {"config": vars(config), "rows": rows})
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
