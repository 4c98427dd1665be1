"""Is every map explained: found, or proved dead?

Question: how many maps are neither found nor proved dead, in every convolution, over the box of
pixels and over the standardised images, for the shipped network and for three more? Those are
trained with seeds 1, 2 and 3 and everything else, weight decay included (3e-4), as the shipped one.
Expected: at most one map for each layer of the shipped network in the box and 2 % of the maps over
standardised images; at most three for each of the others.
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
from experiments.common import NETWORKS, command, network, progress_line, save, show
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.pytrees import fingerprint
from oipjax.study import BY_PRE_ACTIVATION, BY_SURVEY, DEAD, FOUND, UNRESOLVED
from oipjax.training import ClassifierTrainConfig

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("network", "space", "layer", "maps", "found", "dead", "unresolved")
MEASURES = ("map", "best node found", "node at most", "score at most", "kernel norm")


@dataclass(frozen=True)
class Config:
    """The networks, and the atlases of their layers.

    Attributes:
        seeds: of the trainings, beside the shipped network.
        layers: of each network.
        train: the training of the others.
        draws: random starts of each survey.
        steps: of each ascent.
        seed: of the atlases.
        networks: folder of the trained networks.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    train: ClassifierTrainConfig = ClassifierTrainConfig()
    draws: int = 4096
    steps: int = 100
    seed: int = 0
    networks: Path = NETWORKS


SMOKE = Config((), ("conv1",), draws=64, steps=3)


def study(config: Config, name: str, model: oipjax.Model, space: str, layer: str) -> dict[str, Any]:
    """One atlas: its counts, and the maps that are unresolved."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed),
        model,
        layer,
        space=oipjax.space_for(model, space),
        draws=config.draws,
        steps=config.steps,
        exemplars=model.to_input(data.sample().images),
        progress=progress_line(f"{name} {layer}"),
    )
    kernel = np.asarray(model.params[layer]["kernel"])
    norms = np.sqrt(np.square(kernel).sum((0, 1, 2)))
    is_found = atlas.status == FOUND
    is_hard = is_found & ~np.isin(atlas.found_by, (BY_SURVEY, BY_PRE_ACTIVATION))
    hard_scores = atlas.scores[is_hard, 0].tolist()
    unresolved = np.flatnonzero(atlas.status == UNRESOLVED)
    return {
        "network": name,
        "space": space,
        "layer": layer,
        **atlas.counts,
        "parameters_sha256": fingerprint(model.params),
        "found by": tally(atlas.found_by[is_found]),
        "dead by": tally(atlas.bound_by[atlas.status == DEAD]),
        "found hardest": dict(zip(atlas.maps[is_hard].tolist(), hard_scores, strict=True)),
        "kernel norm, median": float(np.median(norms)),
        "unresolved maps": [measures(atlas, int(k), norms) for k in unresolved],
    }


def measures(atlas: oipjax.Atlas, k: int, norms: np.ndarray) -> dict[str, Any]:
    """How near an unresolved map is to being found, and to being proved dead."""
    values = (
        int(atlas.maps[k]),
        float(atlas.responses[k, 0]),
        float(atlas.node_bound[k]),
        float(atlas.bound[k]),
        float(norms[atlas.maps[k]]),
    )
    return dict(zip(MEASURES, values, strict=True))


def tally(names: np.ndarray) -> dict[str, int]:
    """How often each name occurs."""
    different, counts = np.unique(names, return_counts=True)
    return {str(name): int(count) for name, count in zip(different, counts, strict=True)}


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[dict[str, Any]]:
    """Run, print, write."""
    shipped = oipjax.load()
    cases = [("shipped", shipped, "box"), ("shipped", shipped, "standardised")]
    for seed in config.seeds:
        model = network(seed, config.train, config.networks, digits)
        cases.append((f"seed {seed}", model, "box"))
    rows = []
    for case in cases:
        for layer in config.layers:
            rows.append(study(config, *case, layer))
    print()
    cells = [[row[name] for name in COLUMNS] for row in rows]
    show("is every map explained?", COLUMNS, cells)
    unresolved = []
    for row in rows:
        for measured in row["unresolved maps"]:
            place = [row["network"], row["space"], row["layer"]]
            unresolved.append([*place, *measured.values()])
    show("unresolved", ["network", "space", "layer", *MEASURES], unresolved)
    save(results, "unresolved", {"rows": rows})
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
