"""Is every map explained: found, or proved dead?

Question: how many maps are neither found nor proved dead, in every convolution, over the box of
    pixels and over the
standardised images, for the shipped network and for three more, trained with seeds 1, 2 and 3 and
everything else, weight decay included (3e-4), as the shipped one?
Expected: at most one map for each layer of the shipped network in the box and 2 % of the maps over
    standardised images;
at most three for each of the others.
Cost: about 4 minutes for each training (kept in oipjax-out/seeds, and not done again), half a
    minute for each atlas.
Command: OIPJAX_DATA=folder python -m experiments.unresolved
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import oipjax
from experiments.common import NETWORKS, command, network, save, show
from oipjax import training
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.pytrees import fingerprint
from oipjax.study import BY_PRE_ACTIVATION, BY_SURVEY, DEAD, FOUND, UNRESOLVED

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """Networks by the seed of their training, beside the shipped one."""

    seeds: tuple[int, ...] = (1, 2, 3)
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    train: training.ClassifierTrainConfig = training.ClassifierTrainConfig()
    draws: int = 4096
    steps: int = 100
    seed: int = 0
    networks: Path = NETWORKS


SMOKE = Config((), ("conv1",), draws=64, steps=3)


def study(config: Config, name: str, model: oipjax.Model, space: str, layer: str) -> dict[str, Any]:
    """One atlas: its counts and what is left open."""
    digits = data.sample().images
    atlas = oipjax.atlas(
        jax.random.key(config.seed), model, layer, space=oipjax.space_for(model, space), draws=config.draws,
        steps=config.steps, exemplars=model.to_input(digits),
        progress=lambda phase, done, total: print(f"{name} {layer}: {phase} {done}/{total}   ", end="\r", flush=True),
    )  # fmt: skip
    left, found = np.flatnonzero(atlas.status == UNRESOLVED), atlas.status == FOUND
    norms = np.sqrt(np.square(np.asarray(model.params[layer]["kernel"])).sum((0, 1, 2)))
    hard = found & ~np.isin(atlas.found_by, (BY_SURVEY, BY_PRE_ACTIVATION))
    return {
        "network": name, "space": space, "layer": layer, **atlas.counts,
        "parameters_sha256": fingerprint(model.params),
        "found by": tally(atlas.found_by[found]), "dead by": tally(atlas.bound_by[atlas.status == DEAD]),
        "found hardest": dict(zip(atlas.maps[hard].tolist(), atlas.scores[hard, 0].tolist(), strict=True)),
        "kernel norm, median": float(np.median(norms)),
        "open": [
            {"map": int(atlas.maps[k]), "best node found": float(atlas.responses[k, 0]),
             "node at most": float(atlas.node_bound[k]), "score at most": float(atlas.bound[k]),
             "kernel norm": float(norms[atlas.maps[k]])}
            for k in left
        ],
    }  # fmt: skip


def tally(names: np.ndarray) -> dict[str, int]:
    """How often each name occurs."""
    different, counts = np.unique(names, return_counts=True)
    return {str(name): int(count) for name, count in zip(different, counts, strict=True)}


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[dict[str, Any]]:
    """Run, print, write."""
    shipped = oipjax.load()
    cases = [("shipped", shipped, space) for space in ("box", "standardised")]
    cases += [
        (f"seed {seed}", network(seed, config.train, config.networks, digits), "box")
        for seed in config.seeds
    ]
    rows = [study(config, *case, layer) for case in cases for layer in config.layers]
    print()
    columns = ["network", "space", "layer", "maps", "found", "dead", "unresolved"]
    show("is every map explained?", columns, [[row[name] for name in columns] for row in rows])
    left = [
        [row["network"], row["space"], row["layer"], *map_.values()]
        for row in rows
        for map_ in row["open"]
    ]
    measures = ["map", "best node found", "node at most", "score at most", "kernel norm"]
    show("open", ["network", "space", "layer", *measures], left)
    save(results, "unresolved", {"rows": rows})
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__)
