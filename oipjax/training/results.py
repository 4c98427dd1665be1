"""What trainings have in common once they are done: a result, and the data of its pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from oipjax.data import Dataset
from oipjax.model import Model
from oipjax.networks import Autoencoder

PICTURED = 24
"""How many test images the picture of reconstructions shows."""


class Curve(NamedTuple):
    """One measure over the epochs of a training.

    Attributes:
        label: of the axis, with the unit.
        train: its value during each epoch.
        held_out: its value after each epoch, on images held out; NaN where there are none.
        log: draw it on a logarithmic axis.
    """

    label: str
    train: Sequence[float]
    held_out: Sequence[float]
    log: bool


class Curves(NamedTuple):
    """Data of a picture: curves over the epochs, with the epoch that was kept."""

    epochs: tuple[int, ...]
    curves: tuple[Curve, ...]
    best_epoch: int


class ConfusionMatrix(NamedTuple):
    """Data of a picture: counts ``int [true class, predicted class]``, and the classes' names."""

    counts: np.ndarray
    classes: tuple[str, ...]


class Reconstructions(NamedTuple):
    """Data of a picture: images beside what an autoencoder makes of them.

    Attributes:
        images: pixels ``[n, h, w, c]`` in [0, 1].
        reconstructions: likewise.
        corrupted: the pixels that the network got, if they were corrupted.
        note: a line below the title.
    """

    images: np.ndarray
    reconstructions: np.ndarray
    corrupted: np.ndarray | None
    note: str


Picture = Curves | ConfusionMatrix | Reconstructions


class Trained(Protocol):
    """The result of a training."""

    @property
    def network(self) -> Model | Autoencoder:
        """The network, with the parameters of the best epoch."""
        ...

    @property
    def best_epoch(self) -> int:
        """Number of the epoch that was kept, from 1."""
        ...

    @property
    def history(self) -> tuple[Any, ...]:
        """One line for each epoch."""
        ...

    def summary(self) -> str:
        """One line for a person: how good the network is on the test images."""
        ...

    def facts(self) -> dict[str, Any]:
        """The results on the test images, as plain JSON."""
        ...

    def figures(self, data: Dataset) -> dict[str, Picture]:
        """What to draw, by the name of the picture; ``data`` is the data set of the training."""
        ...
