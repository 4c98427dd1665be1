"""How much noise does an autoencoder take away?

Question: how well do autoencoders restore images with Gaussian noise or lost pixels, in dB, in SSIM
and for a classifier, beside filters, principal components and the best linear map? Does each
corruption need a network of its own?
Expected: 8 dB or more at sigma 0.5 (noise cut to the range of pixels; in test images of no
training). That is 2 dB or more above the best linear map, which itself is far above blur and
median. The classifier reads denoised images nearly as well as clean ones. A network is best at the
corruption that it was trained with, and of little use for another kind. A network that was trained
with all of them loses 0.5 dB to heavy ones and 2 dB to light ones.
Cost: it trains seven autoencoders, 5 minutes of two cores each, once (kept in oipjax-out); then 5
minutes.
Command: OIPJAX_DATA=folder python -m experiments.denoising (clothes: --source fashion --classifier
None)
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
from oipjax.images import to_unit
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
CLEAN = "clean"
ALL = "autoencoder, all"
TRAIN = 0
"""The number of the key for corruptions of training images."""
TEST = 1
"""The number of the key for corruptions of test images."""
Filter = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Config:
    """Corruptions, the training of the autoencoders, and strengths of the rivals.

    The best strength of each rival counts. It is chosen with training images.

    Attributes:
        source: the data set.
        classifier: reads the images; None: there is none.
        sigmas: standard deviations of the noise.
        dropped: shares of lost pixels.
        train: the training of the autoencoders; the corruption is replaced.
        blurs: standard deviations of the Gaussian blur, in pixels.
        medians: sides of the median filter's window, in pixels.
        components: numbers of principal components.
        tuned: training images that the strengths are chosen with.
        shown: images in the figure.
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
                "mnist-cnn reads digits: with --source fashion, give --classifier None "
                "or the folder of a classifier"
            )

    @property
    def corruptions(self) -> dict[str, Corruption]:
        """The corruptions by their names."""
        found: dict[str, Corruption] = {}
        for sigma in self.sigmas:
            found[f"noise {sigma:g}"] = Noise(sigma)
        for share in self.dropped:
            found[f"{100 * share:g} % dropped"] = Dropped(share)
        return found


SMOKE = Config(
    sigmas=(0.5,),
    dropped=(0.5,),
    blurs=(1.0,),
    medians=(3,),
    components=(10,),
    tuned=100,
    shown=2,
    train=SMALL,
)


class Restored(NamedTuple):
    """Test images that a method has restored.

    Attributes:
        images: pixels ``[n, h, w, c]``.
        strength: of the method, if it has one.
    """

    images: np.ndarray
    strength: float | None = None


class Fit(NamedTuple):
    """Images times a gain plus an offset, as near to the truth as possible.

    Attributes:
        gain: the factor.
        offset: is added.
        error: the mean squared error that is left.
    """

    gain: float
    offset: float
    error: float


class Study:
    """Images, a classifier, the networks by the corruption of their training, and components."""

    def __init__(self, config: Config, digits: Dataset):
        self.config = config
        self.digits = digits
        self.classifier = None if config.classifier is None else oipjax.load(config.classifier)
        self.truth = to_unit(digits.test.images)
        self.principal = linear.principal(digits.train.images)
        self.networks = {}
        for name, corruption in config.corruptions.items():
            self.networks[name] = self.network(corruption)
        self.networks[ALL] = self.network(OneOf(tuple(config.corruptions.values())))

    def network(self, corruption: Corruption) -> Autoencoder:
        """The network that is trained with a corruption."""
        return autoencoder(replace(self.config.train, corrupt=corruption), self.digits)

    def corrupted(self, corruption: Corruption, part: int, images: np.ndarray) -> np.ndarray:
        """Corrupted images; ``part`` is `TRAIN` or `TEST`."""
        noise = keys.stream(jax.random.key(0), keys.NOISE)
        return corrupted(corruption, jax.random.fold_in(noise, part), images)

    def filters(self) -> dict[str, tuple[Filter, tuple[float, ...]]]:
        """Rivals with a strength, and the strengths that are tried."""
        return {
            "Gaussian blur": (blur, self.config.blurs),
            "median filter": (median, self.config.medians),
            figures.COMPONENTS: (self.project, self.config.components),
        }

    def project(self, images: np.ndarray, count: float) -> np.ndarray:
        """Images from so many principal components of clean images."""
        first = self.principal.first(min(int(count), len(self.principal.axes)))
        return first.decode(first.encode(images))

    def restored(self, name: str) -> dict[str, Restored]:
        """The test images with one corruption, restored by every method."""
        corruption = self.config.corruptions[name]
        train = self.digits.train.images
        test_inputs = self.corrupted(corruption, TEST, self.digits.test.images)
        train_inputs = self.corrupted(corruption, TRAIN, train)
        restored = {figures.CORRUPTED: Restored(test_inputs)}
        count = self.config.tuned
        truth = to_unit(train[:count])
        for rival, (call, strengths) in self.filters().items():
            strength, fit = tune(call, strengths, train_inputs[:count], truth)
            images = fit.gain * call(test_inputs, strength) + fit.offset
            restored[rival] = Restored(np.clip(images, 0, 1), float(strength))
        predicted = linear.regression(train_inputs, train)(test_inputs)
        restored[figures.LINEAR] = Restored(np.clip(predicted, 0, 1))
        for method, network in ((figures.AUTOENCODER, name), (ALL, ALL)):
            restored[method] = Restored(reconstruct(self.networks[network], test_inputs))
        return restored

    def clean_row(self) -> dict[str, Any]:
        """The row of the images themselves."""
        return {
            "corruption": "",
            "images": CLEAN,
            "strength": None,
            "mse": None,
            "psnr": None,
            "ssim": None,
            "gain": None,
            "accuracy": self.accuracy(self.truth),
        }

    def row(
        self, corruption: str, method: str, restored: Restored, before: float | None
    ) -> dict[str, Any]:
        """A row of the table; ``before`` is the PSNR of the corrupted images."""
        measures = scores(restored.images, self.truth)
        return {
            "corruption": corruption,
            "images": method,
            "strength": restored.strength,
            **measures,
            "gain": None if before is None else measures["psnr"] - before,
            "accuracy": self.accuracy(restored.images),
        }

    def accuracy(self, images: np.ndarray) -> float | None:
        """Share of the test images that the classifier reads right, if there is a classifier."""
        if self.classifier is None:
            return None
        return accuracy(self.classifier, images, self.digits.test)

    def crossed(self) -> dict[str, dict[str, float]]:
        """Gains in dB of every network (first) on every corruption (second)."""
        gains: dict[str, dict[str, float]] = {name: {} for name in self.networks}
        for name, corruption in self.config.corruptions.items():
            inputs = self.corrupted(corruption, TEST, self.digits.test.images)
            before = scores(inputs, self.truth)["psnr"]
            for network, auto in self.networks.items():
                after = scores(reconstruct(auto, inputs), self.truth)["psnr"]
                gains[network][name] = after - before
        return gains


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur; ``sigma`` is in pixels."""
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def median(images: np.ndarray, side: float) -> np.ndarray:
    """The median in a square window; ``side`` is in pixels."""
    window = (1, int(side), int(side), 1)
    return ndimage.median_filter(images, window, mode="nearest")


def tune(
    call: Filter, strengths: tuple[float, ...], images: np.ndarray, truth: np.ndarray
) -> tuple[float, Fit]:
    """The strength of a filter with the least squared error, and its fit."""
    fits = [fitted(call(images, strength), truth) for strength in strengths]
    best = int(np.argmin([fit.error for fit in fits]))
    return strengths[best], fits[best]


def fitted(images: np.ndarray, truth: np.ndarray) -> Fit:
    """Gain and offset that bring images nearest to the truth.

    They are needed since the noise is cut to [0, 1], and lost pixels are black: the mean of such
    pixels is not the image.
    """
    x = images.ravel().astype(np.float64)
    y = truth.ravel().astype(np.float64)
    covariance = np.cov(x, y, bias=True)
    gain = covariance[0, 1] / max(covariance[0, 0], 1e-12)
    offset = y.mean() - gain * x.mean()
    error = covariance[1, 1] - gain * covariance[0, 1]
    return Fit(float(gain), float(offset), float(error))


def accuracy(classifier: Model, images: np.ndarray, split: Split) -> float:
    """Share of the images that the classifier reads right."""
    inputs = classifier.to_input(images)
    logits = layer_activations(classifier, inputs, ("logits",), tile=200)["logits"]
    return float((logits.argmax(1) == split.labels).mean())


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    study = Study(config, images_of(config.source) if digits is None else digits)
    rows = [study.clean_row()]
    pictures = {}
    for name in config.corruptions:
        before = None
        pictures[name] = {}
        for method, restored in study.restored(name).items():
            row = study.row(name, method, restored, before)
            rows.append(row)
            pictures[name][method] = restored.images[: config.shown]
            if method == figures.CORRUPTED:
                before = row["psnr"]
    crossed = study.crossed()
    source = f"{study.digits.name}, {len(study.truth):,} test images"
    cells = [[row[name] for name in COLUMNS] for row in rows]
    show(f"{source}; psnr and gain in dB", COLUMNS, cells)
    cells = [[name, *gains.values()] for name, gains in crossed.items()]
    columns = ["trained with", *config.corruptions]
    show("gain (dB) of networks by the corruption of their training", columns, cells)
    truth = study.truth[: config.shown]
    figure = figures.denoising(rows, pictures, truth, crossed, f"Denoising, {source}")
    name = "denoising" if config.source == "mnist" else f"denoising_{config.source}"
    content = {
        "config": asdict(config),
        "data": study.digits.name,
        "rows": rows,
        "crossed": crossed,
    }
    save(results, name, content, figure)
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
