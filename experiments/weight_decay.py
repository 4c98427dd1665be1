"""How much weight decay should the shipped network have?

Question: how do accuracy and the number of live maps depend on the L2 term of the training?
Expected: accuracy hardly moves between 0 and 1e-3, while more and more kernels of the third layer
    go to zero, and with them their maps: dead, not hard to find.
Cost: about 3 minutes of two cores for each value, 15 in all.
Command: OIPJAX_DATA=folder python -m experiments.weight_decay
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import oipjax
from experiments.common import command, save, show
from oipjax import training
from oipjax.data import Dataset
from oipjax.data import mnist as data

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """Values of ``l2`` to compare; everything else is the default training."""

    l2: tuple[float, ...] = (0.0, 3e-5, 1e-4, 3e-4, 1e-3)
    train: training.ClassifierTrainConfig = training.ClassifierTrainConfig()
    draws: int = 4096
    norm: float = 1e-2
    seed: int = 0


SMOKE = Config((0.0, 1e-3), training.ClassifierTrainConfig(epochs=1, validation=66), 64)


def measure(config: Config, l2: float, digits: Dataset) -> dict[str, Any]:
    """Train with one weight decay, and count the maps of the last convolution."""
    key = jax.random.key(config.seed)
    trained = training.train_classifier(
        key, replace(config.train, l2=l2), digits,
        progress=lambda epoch: print(f"l2 {l2:g}: epoch {epoch.epoch}, held out {epoch.validation_accuracy:.4f}"),
    )  # fmt: skip
    model = trained.model
    layer = model.default_layer
    norms = np.sqrt(np.square(np.asarray(model.params[layer]["kernel"])).sum((0, 1, 2)))
    answer = oipjax.survey(key, model, layer, draws=config.draws)
    counts = oipjax.atlas(key, model, layer, draws=config.draws, keep=1, steps=60).counts
    return {
        "l2": l2,
        "test_accuracy": trained.test_accuracy,
        "kernels_near_zero": int((norms < config.norm).sum()),
        "maps_reacting_to_random_starts": int((answer.responded > 0).sum()),
        "maps_found": counts["found"],
        "maps": counts["maps"],
    }


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[dict[str, Any]]:
    """Run, print, write."""
    digits = digits or data.load()
    rows = [measure(config, l2, digits) for l2 in config.l2]
    columns = list(rows[0])
    show("weight decay", columns, [[row[name] for name in columns] for row in rows])
    save(results, "weight_decay", {"rows": rows})
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__)
