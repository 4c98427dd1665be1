"""Can an autoencoder give a grey image its colours back?

Question: how near do the colours come that an autoencoder gives to grey images, beside no colour,
    the mean colour, the
mean colour of each grey level, and the best linear map? The digits' hue is that of their class, at
one luma for all, so that a grey pixel tells nothing of its colour: the digit must be recognised.
Other images: one's own, with --data. Expected: for digits the three rivals without recognition find
no hue at all, the linear map that of most digits, the autoencoder that of 97 % or so. What it is
not sure of it paints paler. In photographs of one kind the lookup already halves the error of grey,
and the autoencoder gains less than 2 dB over it once the known luma is kept. Cost: it trains one
autoencoder, 6 minutes of two cores, once (kept in oipjax-out); then 2 minutes. Command:
OIPJAX_DATA=folder python -m experiments.recolouring (others: --data ZIP --name faces --size 64 64)
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from oipjax.training import AutoencoderTrainConfig, Grey
from oipjax.training import autoencoder as autoencoding

RESULTS, FIGURES = Path(__file__).parent / "results", Path("oipjax-out/recolouring")
COLUMNS = ("images", "psnr", "ssim", "chroma error", "chroma / true", "hue right")
RADIUS = 0.28
"""Chroma of a digit's brightest pixels: nearly the most that all hues reach at half the luma."""
_PALE = 1e-3


@dataclass(frozen=True)
class Config:
    """Digits, or one's own images with ``data``, a folder or zip, called ``name``; ``faces`` is then how to train.

    Figures of one's own images go to ``oipjax-out``, since not everyone may see them.
    """

    source: Literal["mnist", "fashion"] = "mnist"
    data: str | None = None
    name: str | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    train: AutoencoderTrainConfig = sized(AUTOENCODING, input_shape=(28, 28, 3), latent=64)
    faces: AutoencoderTrainConfig = replace(autoencoding.PRESETS["faces"], epochs=10)
    shown: int = 10

    def __post_init__(self):
        if self.data is None and (self.name, self.crop, self.size) != (None, None, None):
            raise ValueError(
                "--name, --crop and --size are for one's own images: --data FOLDER_OR_ZIP"
            )


SMOKE = Config(train=sized(SMALL, input_shape=(28, 28, 3)), shown=4)


def hues(classes: int) -> np.ndarray:
    """Chroma ``[classes, 2]`` of the classes, evenly round the circle."""
    angle = 2 * np.pi * np.arange(classes) / classes
    return RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)


def coloured(digits: Dataset) -> Dataset:
    """Digits in the hue of their class: black to a colour of half the luma, the same one for all classes.

    Levels are made even first, so that the luma, rounded to 256 levels, is the same number whatever
    the hue.
    """
    half = np.full((1, 1, 1, 1), 0.5)
    colours = [
        quality.with_chroma(half, hue.reshape(1, 1, 1, 2)).astype(np.float32)
        for hue in hues(len(digits.classes))
    ]

    def paint(split: Split) -> Split:
        images = np.empty((*split.images.shape[:3], 3), np.uint8)
        for label, colour in enumerate(colours):
            own = split.labels == label
            images[own] = np.round(split.images[own] // 2 * 2 * colour)
        return Split(images, split.labels)

    return Dataset(
        f"{digits.name}-coloured", paint(digits.train), paint(digits.test), digits.classes
    )


def images(config: Config, digits: Dataset | None) -> tuple[Dataset, AutoencoderTrainConfig, bool]:
    """Colour images, how to train with them, and whether their hue is that of their class."""
    if config.data is None:
        return coloured(digits or images_of(config.source)), config.train, True
    own = pictures.load(config.data, crop=config.crop, size=config.size, colour=True)
    train = sized(config.faces, input_shape=own.train.images.shape[1:])
    return own, train, False


def lookup(grey: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Mean chroma ``[256, 2]`` of the pixels of each grey level; that of all pixels for levels that do not occur."""
    levels, counts = np.round(grey[..., 0] * 255).astype(int), np.zeros(256)
    sums = np.zeros((256, 2))
    for first in range(0, len(grey), 1000):
        some = levels[first : first + 1000].ravel()
        chroma = quality.chroma(linear.pixels_of(colours[first : first + 1000])).reshape(-1, 2)
        counts += np.bincount(some, minlength=256)
        sums += np.stack([np.bincount(some, part, 256) for part in chroma.T], 1)
    mean = sums.sum(0) / counts.sum()
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], mean)


def recoloured(data: Dataset, train: AutoencoderTrainConfig) -> dict[str, np.ndarray]:
    """The test images, from their luma alone, by every method; ``float32 [n, h, w, 3]``."""
    auto = autoencoder(replace(train, corrupt=Grey()), data)
    learnt, seen = (grey_of(split.images) for split in (data.train, data.test))
    table = lookup(learnt, data.train.images)
    chroma = quality.chroma(linear.pixels_of(data.train.images))
    mean = chroma.mean((0, 1, 2), dtype=np.float64)
    guess = linear.regression(learnt, chroma)
    made = autoencoding.reconstruct(auto, np.repeat(seen, 3, -1))
    return {
        figures.GREY: np.repeat(seen, 3, -1),
        "mean colour": quality.with_chroma(seen, np.broadcast_to(mean, (*seen.shape[:3], 2))),
        "mean colour of the grey": quality.with_chroma(seen, table[np.round(seen[..., 0] * 255).astype(int)]),
        figures.LINEAR: quality.with_chroma(seen, guess(seen)),
        figures.AUTOENCODER: made,
        figures.KEPT: quality.with_chroma(seen, quality.chroma(made)),
    }  # fmt: skip


def grey_of(images: np.ndarray) -> np.ndarray:
    """Luma ``float32 [n, h, w, 1]`` of ``uint8`` images, in the 256 levels of `Grey`."""
    made = [
        np.round(quality.luma(linear.pixels_of(some)) * 255)
        for some in np.array_split(images, len(images) // 1000 + 1)
    ]
    return np.concatenate(made) / np.float32(255)


def row(name: str, made: np.ndarray, data: Dataset, by_class: bool) -> dict[str, Any]:
    """A row of the table."""
    truth = linear.pixels_of(data.test.images)
    strength = [np.linalg.norm(quality.chroma(one), axis=-1).mean((1, 2)) for one in (made, truth)]
    right = hue_right(made, data.test.labels, len(data.classes)) if by_class else None
    parts = {} if right is None else {"hue right": right, "hue wrong": ~right}
    return {
        "images": name,
        **scores(made, truth),
        "chroma error": float(quality.chroma_error(made, truth).mean()),
        "chroma / true": float(strength[0].sum() / strength[1].sum()),
        "hue right": None if right is None else float(right.mean()),
        "chroma / true, if": {
            part: float(strength[0][own].sum() / strength[1][own].sum())
            for part, own in parts.items()
            if own.any()
        },
    }


def hue_right(made: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Whose mean chroma has, of all classes' hues, that of its class nearest, ``bool [n]``; grey has no hue."""
    mean = quality.chroma(made).mean((1, 2))
    nearest = (mean @ hues(classes).T).argmax(1)
    return (nearest == labels) & (np.linalg.norm(mean, axis=1) > _PALE)


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    data, train, by_class = images(config, digits)
    made = recoloured(data, train)
    rows = [row(name, one, data, by_class) for name, one in made.items()]
    source = f"{data.name}, {len(data.test.images):,} test images"
    show(f"{source}; psnr in dB", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    first = (
        np.unique(data.test.labels, return_index=True)[1] if by_class else np.arange(config.shown)
    )
    figure = figures.recolouring(
        rows, made, data.test, first[: config.shown], f"Colours from grey, {source}"
    )
    own = config.data is not None
    facts = {
        "config": asdict(config) | {"data": data.name},
        "rows": rows,
    }  # not where one's own images are
    name = f"recolouring_{config.name or (data.name if own else config.source)}".removesuffix(
        "_mnist"
    )
    save(results, name, facts, None if own else figure)
    if own:
        FIGURES.mkdir(parents=True, exist_ok=True)
        figure.savefig(FIGURES / f"{name}.png", dpi=150)
        print(f"the figure, of your own images: {FIGURES / name}.png")
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
