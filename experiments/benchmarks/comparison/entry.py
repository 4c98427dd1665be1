"""A contender in one of its settings, its measurements, and the scores of its images."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import oipjax
from experiments.benchmarks.common import LAYER, Contender, Process

OWN = Contender("oipjax", "run_oipjax.py", "", ())
SPACES = ("box", "standardised")
"""The image spaces in which contenders are compared."""
DOCUMENTED = "documented"
"""The setting in which a library runs as its documentation shows it."""
DEFAULT_JOB = "default"
SHORT_JOB = "survey and ascent"


class Judge:
    """Scores images with oipjax's network, whoever made them.

    Args:
        model: the network.
    """

    def __init__(self, model: oipjax.Model):
        self.model = model
        self.domains = {name: oipjax.space_for(model, name).domain for name in SPACES}

    def __call__(self, images: np.ndarray, targets: np.ndarray, space: str) -> np.ndarray:
        """Scores ``[n]`` of images ``[n, h, w, c]``; 0 for an image outside the space."""
        is_valid = self.domains[space].contains(images)
        valid_images = np.where(is_valid[:, None, None, None], images, 0)
        activations = self.model.apply(self.model.params, jnp.asarray(valid_images))
        means = np.asarray(activations[LAYER]).mean((1, 2))
        scores = means[np.arange(len(targets)), targets]
        return np.where(is_valid, scores, 0.0)


def quality(scores: np.ndarray) -> dict[str, Any]:
    """The median of the scores, how many are zero, and how many there are."""
    return {
        "median score": float(np.median(scores)),
        "at zero": int(np.sum(scores <= 0)),
        "of": len(scores),
    }


class Measurement(NamedTuple):
    """One round of an entry.

    Attributes:
        seconds: of the whole call.
        overhead: seconds of a call of one step; 0 for a whole job of oipjax.
        maps: int ``[n]``, the targets.
        scores: ``[n]``, of the images.
    """

    seconds: float
    overhead: float
    maps: np.ndarray
    scores: np.ndarray


@dataclass
class Entry:
    """A contender in one of its settings, and its measurements.

    Attributes:
        contender: whose setting it is.
        how: a short name of the setting, for tables.
        setting: as the contender's script reads it.
        batch: number of images that are climbed at a time.
        steps: of each image.
        cold: seconds of the first call with the start of the process; None if not measured.
        rounds: the measurements.
    """

    contender: Contender
    how: str
    setting: str
    batch: int
    steps: int
    cold: float | None = None
    rounds: list[Measurement] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Whether it is oipjax's."""
        return self.contender.name == OWN.name

    @property
    def is_job(self) -> bool:
        """Whether it is a whole job of oipjax."""
        return self.setting.startswith("atlas")

    @property
    def is_documented(self) -> bool:
        """Whether it climbs a few maps one by one, as its documentation shows it."""
        return self.how == DOCUMENTED

    @property
    def seconds(self) -> np.ndarray:
        """Seconds of each round."""
        return np.array([measurement.seconds for measurement in self.rounds])

    @property
    def overheads(self) -> np.ndarray:
        """Seconds before the first step in each round."""
        return np.array([measurement.overhead for measurement in self.rounds])

    def rates(self, *, steady: bool) -> np.ndarray:
        """Image-steps per second in each round.

        Args:
            steady: leave out the time before the first step, where that is possible.
        """
        counts = np.array([len(measurement.maps) for measurement in self.rounds])
        seconds = self.seconds
        seconds_after_first = seconds - self.overheads
        if not steady or np.any(seconds_after_first <= 0):
            return counts * self.steps / seconds
        return counts * (self.steps - 1) / seconds_after_first

    def run(self, process: Process, judge: Judge, targets: np.ndarray, seed: int) -> None:
        """Measure one round."""
        overhead = 0.0
        if not self.is_job:
            overhead, _ = process.ask(self.setting, targets, 1, self.batch, seed)
        seconds, images = process.ask(self.setting, targets, self.steps, self.batch, seed)
        scores = judge(images, targets, self.contender.space)
        measurement = Measurement(seconds=seconds, overhead=overhead, maps=targets, scores=scores)
        self.rounds.append(measurement)
