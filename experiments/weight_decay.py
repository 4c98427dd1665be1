"""How much weight decay should the shipped network have?

Question: how do accuracy and the number of live maps depend on the L2 term of the training?
Expected: accuracy hardly moves between 0 and 1e-3, while more and more kernels of the third layer
go to zero, and with them their maps: these maps are dead, not hard to find.
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
from oipjax.training import ClassifierTrainConfig

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """The weight decays to compare; everything else is the default training.

    Attributes:
        l2: values of the L2 term.
        train: the training.
        draws: random starts of each survey.
        norm: a kernel with a smaller norm counts as near zero.
        seed: of the training, the survey and the atlas.
    """

    l2: tuple[float, ...] = (0.0, 3e-5, 1e-4, 3e-4, 1e-3)
    train: ClassifierTrainConfig = ClassifierTrainConfig()
    draws: int = 4096
    norm: float = 1e-2
    seed: int = 0


SMOKE = Config((0.0, 1e-3), ClassifierTrainConfig(epochs=1, validation=66), 64)


def measure(config: Config, l2: float, digits: Dataset) -> dict[str, Any]:
    """Train with one weight decay, and count the maps of the last convolution."""

    def report(epoch: Any) -> None:
        print(f"l2 {l2:g}: epoch {epoch.epoch}, held out {epoch.validation_accuracy:.4f}")

    key = jax.random.key(config.seed)
    plan = replace(config.train, l2=l2)
    trained = training.train_classifier(key, plan, digits, progress=report)
    model = trained.model
    layer = model.default_layer
    kernel = np.asarray(model.params[layer]["kernel"])
    norms = np.sqrt(np.square(kernel).sum((0, 1, 2)))
    survey = oipjax.survey(key, model, layer, draws=config.draws)
    counts = oipjax.atlas(key, model, layer, draws=config.draws, keep=1, steps=60).counts
    return {
        "l2": l2,
        "test_accuracy": trained.test_accuracy,
        "kernels_near_zero": int((norms < config.norm).sum()),
        "maps_responding_to_random_starts": int((survey.responded > 0).sum()),
        "maps_found": counts["found"],
        "maps": counts["maps"],
    }


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[dict[str, Any]]:
    """Run, print, write."""
    images = data.load() if digits is None else digits
    rows = [measure(config, l2, images) for l2 in config.l2]
    show("weight decay", list(rows[0]), [list(row.values()) for row in rows])
    save(results, "weight_decay", {"rows": rows})
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
