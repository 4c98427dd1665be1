"""Can an autoencoder give a grey image its colours back?

Question: how near to the truth are the colours that an autoencoder gives to grey images? It is
compared with no colour, the mean colour, the mean colour of each grey level, and the best linear
map. The digits' hue is that of their class, at one luma for all, so that a grey pixel does not tell
its colour: the digit must be recognised. Other images: yours, with --data.
Expected: for digits the three rivals without recognition find no hue at all, the linear map that of
most digits, the autoencoder that of 97 % or so. Digits that it is not sure of it paints paler. In
photographs of one kind the lookup already halves the error of grey, and the autoencoder gains less
than 2 dB over it once the known luma is kept.
Cost: it trains one autoencoder, 6 minutes of two cores, once (kept in oipjax-out); then 2 minutes.
Command: OIPJAX_DATA=folder python -m experiments.recolouring (others: --data ZIP --name faces
--size 64 64)
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

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
from experiments.tools import linear, quality
from oipjax.data import Dataset, Split
from oipjax.data import folder as pictures
from oipjax.images import to_unit
from oipjax.training import PRESETS, AutoencoderTrainConfig, Grey, reconstruct

RESULTS = Path(__file__).parent / "results"
FIGURES = Path("oipjax-out/recolouring")
"""The folder of figures that show your images: you may not be allowed to publish them."""
COLUMNS = ("images", "psnr", "ssim", "chroma error", "chroma / true", "hue right")
RADIUS = 0.28
"""Chroma of a digit's brightest pixels: nearly the most that all hues reach at half the luma."""
PALE = 1e-3
"""An image with less mean chroma has no hue."""
BATCH = 1000
"""Images whose pixels are looked at together."""


@dataclass(frozen=True)
class Config:
    """The images, and how to train with them.

    Figures of your images go to ``oipjax-out``, since not everyone may see them.

    Attributes:
        source: the digits or clothes, unless ``data`` is given.
        data: a folder or zip of your images.
        name: of your images, for the files that are written.
        crop: of your images, as in `pictures.load`.
        size: of your images, as in `pictures.load`.
        train: the training with digits.
        faces: the training with your images.
        shown: images in the figure.
    """

    source: Literal["mnist", "fashion"] = "mnist"
    data: str | None = None
    name: str | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    train: AutoencoderTrainConfig = sized(AUTOENCODING, input_shape=(28, 28, 3), latent=64)
    faces: AutoencoderTrainConfig = replace(PRESETS["faces"], epochs=10)
    shown: int = 10

    def __post_init__(self):
        options = (self.name, self.crop, self.size)
        if self.data is None and options != (None, None, None):
            raise ValueError("--name, --crop and --size are for your images: --data FOLDER_OR_ZIP")


SMOKE = Config(train=sized(SMALL, input_shape=(28, 28, 3)), shown=4)


class Task(NamedTuple):
    """Images to be recoloured.

    Attributes:
        images: the data set, in colours.
        train: how to train with it.
        by_class: whether the hue of an image is that of its class.
    """

    images: Dataset
    train: AutoencoderTrainConfig
    by_class: bool


def hues(classes: int) -> np.ndarray:
    """Chroma ``[classes, 2]`` of the classes, evenly round the circle."""
    angle = 2 * np.pi * np.arange(classes) / classes
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)


def coloured(digits: Dataset) -> Dataset:
    """Digits in the hue of their class.

    Pixels go from black to a colour of half the luma, which is the same for all classes. Levels are
    made even first, so that the luma, rounded to 256 levels, is the same number for every hue.
    """
    half = np.full((1, 1, 1, 1), 0.5)
    colours = []
    for hue in hues(len(digits.classes)):
        colour = quality.with_chroma(half, hue.reshape(1, 1, 1, 2))
        colours.append(colour.astype(np.float32))

    def paint(split: Split) -> Split:
        images = np.empty((*split.images.shape[:3], 3), np.uint8)
        for label, colour in enumerate(colours):
            own = split.labels == label
            even = split.images[own] // 2 * 2
            images[own] = np.round(even * colour)
        return Split(images, split.labels)

    return Dataset(
        name=f"{digits.name}-coloured",
        train=paint(digits.train),
        test=paint(digits.test),
        classes=digits.classes,
    )


def task_of(config: Config, digits: Dataset | None) -> Task:
    """The images of a configuration; ``digits`` are used instead of those of the data set."""
    if config.data is None:
        plain = images_of(config.source) if digits is None else digits
        return Task(coloured(plain), config.train, by_class=True)
    images = pictures.load(config.data, crop=config.crop, size=config.size, colour=True)
    train = sized(config.faces, input_shape=images.train.images.shape[1:])
    return Task(images, train, by_class=False)


def levels_of(grey: np.ndarray) -> np.ndarray:
    """Levels 0 to 255, ``[n, h, w]``, of grey images ``[n, h, w, 1]`` in [0, 1]."""
    return np.round(grey[..., 0] * 255).astype(int)


def lookup(grey: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Mean chroma ``[256, 2]`` of the pixels of each grey level.

    Levels that do not occur get the mean chroma of all pixels.

    Args:
        grey: images ``[n, h, w, 1]`` in [0, 1].
        colours: the same images in colours, ``[n, h, w, 3]``.
    """
    counts = np.zeros(256)
    sums = np.zeros((256, 2))
    for first in range(0, len(grey), BATCH):
        levels = levels_of(grey[first : first + BATCH]).ravel()
        pixels = to_unit(colours[first : first + BATCH])
        chroma = quality.chroma(pixels).reshape(-1, 2)
        blue = np.bincount(levels, chroma[:, 0], 256)
        red = np.bincount(levels, chroma[:, 1], 256)
        counts += np.bincount(levels, minlength=256)
        sums += np.stack([blue, red], 1)
    mean = sums.sum(0) / counts.sum()
    level_means = sums / np.maximum(counts, 1)[:, None]
    return np.where(counts[:, None] > 0, level_means, mean)


def recoloured(images: Dataset, train: AutoencoderTrainConfig) -> dict[str, np.ndarray]:
    """The test images, from their luma alone, by every method; ``float32 [n, h, w, 3]``."""
    auto = autoencoder(replace(train, corrupt=Grey()), images)
    train_grey = grey_of(images.train.images)
    grey = grey_of(images.test.images)
    table = lookup(train_grey, images.train.images)
    chroma = quality.chroma(to_unit(images.train.images))
    mean = chroma.mean((0, 1, 2), dtype=np.float64)
    mean_everywhere = np.broadcast_to(mean, (*grey.shape[:3], 2))
    predicted = linear.regression(train_grey, chroma)(grey)
    three_channels = np.repeat(grey, 3, -1)
    reconstructed = reconstruct(auto, three_channels)
    return {
        figures.GREY: three_channels,
        "mean colour": quality.with_chroma(grey, mean_everywhere),
        "mean colour of the grey": quality.with_chroma(grey, table[levels_of(grey)]),
        figures.LINEAR: quality.with_chroma(grey, predicted),
        figures.AUTOENCODER: reconstructed,
        figures.KEPT: quality.with_chroma(grey, quality.chroma(reconstructed)),
    }


def grey_of(images: np.ndarray) -> np.ndarray:
    """Luma ``float32 [n, h, w, 1]`` of ``uint8`` images, in the 256 levels of `Grey`."""
    levels = []
    for batch in np.array_split(images, len(images) // BATCH + 1):
        luma = quality.luma(to_unit(batch))
        levels.append(np.round(luma * 255))
    return np.concatenate(levels) / np.float32(255)


def mean_strength(images: np.ndarray) -> np.ndarray:
    """Mean length ``[n]`` of the chroma of the pixels."""
    return np.linalg.norm(quality.chroma(images), axis=-1).mean((1, 2))


def row(method: str, made: np.ndarray, images: Dataset, by_class: bool) -> dict[str, Any]:
    """A row of the table.

    Args:
        method: its name.
        made: the recoloured test images ``[n, h, w, 3]``.
        images: the data set, in its true colours.
        by_class: whether the hue of an image is that of its class.
    """
    truth = to_unit(images.test.images)
    strength = mean_strength(made)
    true_strength = mean_strength(truth)
    hue_share = None
    shares = {}
    if by_class:
        right = hue_right(made, images.test.labels, len(images.classes))
        hue_share = float(right.mean())
        for part, own in (("hue right", right), ("hue wrong", ~right)):
            if own.any():
                shares[part] = float(strength[own].sum() / true_strength[own].sum())
    return {
        "images": method,
        **scores(made, truth),
        "chroma error": float(quality.chroma_error(made, truth).mean()),
        "chroma / true": float(strength.sum() / true_strength.sum()),
        "hue right": hue_share,
        "chroma / true, if": shares,
    }


def hue_right(made: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Whether the hue of an image's class is nearest to its mean chroma, ``bool [n]``.

    Grey images have no hue.
    """
    mean = quality.chroma(made).mean((1, 2))
    nearest = (mean @ hues(classes).T).argmax(1)
    has_hue = np.linalg.norm(mean, axis=1) > PALE
    return (nearest == labels) & has_hue


def file_name(config: Config, images: Dataset) -> str:
    """The name of the files that are written; that of the images is left out for MNIST."""
    if config.name:
        source = config.name
    else:
        source = config.source if config.data is None else images.name
    return f"recolouring_{source}".removesuffix("_mnist")


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    images, train, by_class = task_of(config, digits)
    made = recoloured(images, train)
    rows = [row(method, pixels, images, by_class) for method, pixels in made.items()]
    source = f"{images.name}, {len(images.test.images):,} test images"
    cells = [[facts[name] for name in COLUMNS] for facts in rows]
    show(f"{source}; psnr in dB", COLUMNS, cells)
    shown = np.arange(config.shown)
    if by_class:
        _, first_of_class = np.unique(images.test.labels, return_index=True)
        shown = first_of_class[: config.shown]
    title = f"Colours from grey, {source}"
    figure = figures.recolouring(rows, made, images.test, shown, title)
    name = file_name(config, images)
    # The name of your images is written, but not the folder that they lie in.
    content = {"config": asdict(config) | {"data": images.name}, "rows": rows}
    if config.data is None:
        save(results, name, content, figure)
        return rows
    save(results, name, content)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=150)
    print(f"the figure, of your images: {FIGURES / name}.png")
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
