"""How much noise does an autoencoder take away?

Question: what do autoencoders make of images with Gaussian noise or lost pixels, in dB, in SSIM and
    for a classifier,
beside filters, principal components and the best linear map? Does each corruption need a network of
its own? Expected: 8 dB or more at sigma 0.5 (noise cut to the range of pixels; in test images of no
training), 2 dB or more above the best linear map, which itself is far above blur and median. The
classifier reads denoised images nearly as well as clean ones. A network is best at the corruption
that it was trained with, and of little use for another kind; one trained with all of them loses 0.5
dB to heavy ones and 2 dB to light ones. Cost: it trains seven autoencoders, 5 minutes of two cores
each, once (kept in oipjax-out); then 5 minutes. Command: OIPJAX_DATA=folder python -m
experiments.denoising (clothes: --source fashion --classifier None)
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from scipy import ndimage

import oipjax
from experiments.common import (
    AUTOENCODING,
    SMALL,
    autoencoder,
    command,
    images_of,
    save,
    scores,
    show,
    sized,
)
from experiments.figures import tasks as figures
from experiments.tools import linear
from oipjax import keys
from oipjax.analysis import layer_activations
from oipjax.data import Dataset, Split
from oipjax.model import Model
from oipjax.networks import Autoencoder
from oipjax.training import (
    AutoencoderTrainConfig,
    Corruption,
    Dropped,
    Noise,
    OneOf,
    corrupted,
    reconstruct,
)

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("corruption", "images", "strength", "psnr", "gain", "ssim", "accuracy")
CLEAN, ALL = "clean", "autoencoder, all"
OWN = figures.AUTOENCODER
Filter = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Config:
    """Corruptions, the training of the autoencoders, and strengths of the rivals, of which the best one counts.

    ``blurs`` are standard deviations in pixels, ``medians`` sides of the window, ``components`` how
    many of the principal components are kept; they are chosen on the first ``tuned`` training
    images.
    """

    source: Literal["mnist", "fashion"] = "mnist"
    classifier: str | None = "mnist-cnn"
    sigmas: tuple[float, ...] = (0.25, 0.5, 0.75)
    dropped: tuple[float, ...] = (0.25, 0.5, 0.75)
    train: AutoencoderTrainConfig = sized(AUTOENCODING, latent=64)
    blurs: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.7, 2.0)
    medians: tuple[int, ...] = (2, 3, 4, 5, 7)
    components: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300)
    tuned: int = 5000
    shown: int = 6

    def __post_init__(self):
        if not self.corruptions:
            raise ValueError("no corruption: give --sigmas or --dropped")
        if self.source == "fashion" and self.classifier == "mnist-cnn":
            raise ValueError(
                "mnist-cnn reads digits: with --source fashion, give --classifier None or one's folder"
            )

    @property
    def corruptions(self) -> dict[str, Corruption]:
        """By their names."""
        noises: dict[str, Corruption] = {f"noise {sigma:g}": Noise(sigma) for sigma in self.sigmas}
        return noises | {f"{100 * share:g} % dropped": Dropped(share) for share in self.dropped}


SMOKE = Config(
    sigmas=(0.5,), dropped=(0.5,), blurs=(1.0,), medians=(3,), components=(10,), tuned=100, shown=2,
    train=SMALL,
)  # fmt: skip


class Study:
    """Images, a classifier, the networks by what they were trained with, and principal components."""

    def __init__(self, config: Config, digits: Dataset):
        self.config, self.digits = config, digits
        self.classifier = None if config.classifier is None else oipjax.load(config.classifier)
        self.truth = linear.pixels_of(digits.test.images)
        self.principal = linear.principal(digits.train.images)
        trained = dict(config.corruptions) | {ALL: OneOf(tuple(config.corruptions.values()))}
        self.networks = {name: self.network(corrupt) for name, corrupt in trained.items()}

    def network(self, corrupt: Corruption) -> Autoencoder:
        """The one that is trained with a corruption."""
        return autoencoder(replace(self.config.train, corrupt=corrupt), self.digits)

    def seen(self, corrupt: Corruption, part: int, images: np.ndarray) -> np.ndarray:
        """Corrupted images; part 0 is for training images, 1 for test images."""
        return corrupted(
            corrupt, jax.random.fold_in(keys.stream(jax.random.key(0), keys.NOISE), part), images
        )

    def filters(self) -> dict[str, tuple[Filter, tuple[float, ...]]]:
        """Rivals with a strength, and the strengths that are tried."""
        return {
            "Gaussian blur": (blur, self.config.blurs),
            "median filter": (median, self.config.medians),
            figures.COMPONENTS: (self.project, self.config.components),
        }

    def project(self, images: np.ndarray, count: float) -> np.ndarray:
        """What so many principal components of clean images keep."""
        some = self.principal.first(min(int(count), len(self.principal.axes)))
        return some.decode(some.encode(images))

    def restored(self, name: str) -> dict[str, tuple[np.ndarray, float | None]]:
        """All that is made of the test images with one corruption, and the strength that was chosen."""
        corrupt, train = self.config.corruptions[name], self.digits.train.images
        seen, learnt = self.seen(corrupt, 1, self.digits.test.images), self.seen(corrupt, 0, train)
        made: dict[str, tuple[np.ndarray, float | None]] = {figures.SEEN: (seen, None)}
        some, goal = learnt[: self.config.tuned], linear.pixels_of(train[: self.config.tuned])
        for rival, (call, strengths) in self.filters().items():
            errors = [fitted(call(some, strength), goal)[1] for strength in strengths]
            best = strengths[int(np.argmin(errors))]
            (gain, offset), _ = fitted(call(some, best), goal)
            made[rival] = np.clip(gain * call(seen, best) + offset, 0, 1), float(best)
        made[figures.LINEAR] = np.clip(linear.regression(learnt, train)(seen), 0, 1), None
        for network, auto in ((OWN, self.networks[name]), (ALL, self.networks[ALL])):
            made[network] = reconstruct(auto, seen), None
        return made

    def row(
        self,
        corruption: str,
        name: str,
        images: np.ndarray,
        strength: float | None,
        before: float | None,
    ) -> dict:
        """A row of the table."""
        marks = (
            scores(images, self.truth)
            if name != CLEAN
            else {"mse": None, "psnr": None, "ssim": None}
        )
        gain = None if before is None or marks["psnr"] is None else marks["psnr"] - before
        accuracy = (
            None if self.classifier is None else read(self.classifier, images, self.digits.test)
        )
        return {"corruption": corruption, "images": name, "strength": strength, **marks, "gain": gain,
                "accuracy": accuracy}  # fmt: skip

    def crossed(self) -> dict[str, dict[str, float]]:
        """Gains in dB of every network (first) on every corruption (second)."""
        gains: dict[str, dict[str, float]] = {name: {} for name in self.networks}
        for name, corrupt in self.config.corruptions.items():
            seen = self.seen(corrupt, 1, self.digits.test.images)
            before = scores(seen, self.truth)["psnr"]
            for network, auto in self.networks.items():
                gains[network][name] = scores(reconstruct(auto, seen), self.truth)["psnr"] - before
        return gains


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of so many pixels."""
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def median(images: np.ndarray, side: float) -> np.ndarray:
    """The median in a square window."""
    return ndimage.median_filter(images, (1, int(side), int(side), 1), mode="nearest")


def fitted(images: np.ndarray, truth: np.ndarray) -> tuple[tuple[float, float], float]:
    """Gain and offset that bring images nearest to the truth, and the squared error that is left.

    A mean of noise that is cut to [0, 1] is no longer the image, nor is one of pixels half of which
    are lost.
    """
    x, y = images.ravel().astype(np.float64), truth.ravel().astype(np.float64)
    covariance = np.cov(x, y, bias=True)
    gain = covariance[0, 1] / max(covariance[0, 0], 1e-12)
    return (float(gain), float(y.mean() - gain * x.mean())), float(
        covariance[1, 1] - gain * covariance[0, 1]
    )


def read(classifier: Model, images: np.ndarray, split: Split) -> float:
    """Share of the images that the classifier takes for what they are."""
    logits = layer_activations(classifier, classifier.to_input(images), ("logits",), tile=200)[
        "logits"
    ]
    return float((logits.argmax(1) == split.labels).mean())


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    study = Study(config, digits or images_of(config.source))
    rows, pictures = [study.row("", CLEAN, study.truth, None, None)], {}
    for name in config.corruptions:
        made, before = study.restored(name), None
        for what, (images, strength) in made.items():
            rows.append(study.row(name, what, images, strength, before))
            before = rows[-1]["psnr"] if what == figures.SEEN else before
        pictures[name] = {what: images[: config.shown] for what, (images, _) in made.items()}
    crossed = study.crossed()
    source = f"{study.digits.name}, {len(study.truth):,} test images"
    show(
        f"{source}; psnr and gain in dB", COLUMNS, [[row[name] for name in COLUMNS] for row in rows]
    )
    show("gain (dB) of networks by what they were trained with", ["trained with", *config.corruptions],
         [[name, *gains.values()] for name, gains in crossed.items()])  # fmt: skip
    figure = figures.denoising(
        rows, pictures, study.truth[: config.shown], crossed, f"Denoising, {source}"
    )
    name = "denoising" if config.source == "mnist" else f"denoising_{config.source}"
    save(
        results,
        name,
        {"config": asdict(config), "data": study.digits.name, "rows": rows, "crossed": crossed},
        figure,
    )
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
