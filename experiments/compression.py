"""How many bits does an image need?

Question: how well are images given back from an autoencoder's code of 2 to 64 numbers, stored in
    full or in few bits,
beside as many principal components, a smaller picture enlarged again, and JPEG, for each bit that
is spent? Expected: with as many numbers, from 16 to 64, the autoencoder's squared error is a third
of that of principal components. 6 bits for each number cost less than 0.3 dB, 4 bits about 1 dB. At
100 bits an image the autoencoder leads by 4 dB; JPEG needs five times the bits for the same PSNR,
but can go on where the autoencoder cannot. Cost: it trains six autoencoders, 5 minutes of two cores
each, once (kept in oipjax-out); then 5 minutes. Command: OIPJAX_DATA=folder python -m
experiments.compression (clothes: --source fashion)
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from PIL import Image

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
from experiments.tools import linear, quantisation
from oipjax.data import Dataset
from oipjax.training import AutoencoderTrainConfig
from oipjax.training import autoencoder as autoencoding

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("method", "numbers", "bits each", "bits", "mse", "psnr", "ssim")


@dataclass(frozen=True)
class Config:
    """Codes to compare: latent sizes, principal components, sides of the smaller picture, bits, qualities of JPEG.

    ``train`` is the training of all autoencoders, but for the latent size.
    """

    source: Literal["mnist", "fashion"] = "mnist"
    latents: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    components: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    sides: tuple[int, ...] = (2, 3, 4, 5, 7, 10, 14)
    bits: tuple[int, ...] = (8, 6, 4, 3, 2)
    qualities: tuple[int, ...] = (1, 3, 5, 10, 15, 20, 30, 50, 70, 90)
    train: AutoencoderTrainConfig = AUTOENCODING
    shown: int = 10

    def __post_init__(self):
        if not (self.latents and self.bits):
            raise ValueError(
                f"expected a latent size and a number of bits at least, got {self.latents}, {self.bits}"
            )


SMOKE = Config(
    latents=(3,), components=(3,), sides=(2,), bits=(4,), qualities=(10,), shown=4,
    train=SMALL,
)  # fmt: skip


class Codec(NamedTuple):
    """Images ``uint8 [n, h, w, c]`` to numbers ``[n, d]`` and back to pixels in [0, 1]."""

    name: str
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


def codecs(config: Config, digits: Dataset) -> Iterator[Codec]:
    """All that store numbers, one after another."""
    for latent in config.latents:
        auto = autoencoder(
            sized(config.train, latent=latent, input_shape=digits.train.images.shape[1:]), digits
        )
        yield Codec(
            figures.AUTOENCODER,
            lambda images, auto=auto: autoencoding.encode(auto, images),
            lambda codes, auto=auto: autoencoding.decode(auto, codes),
        )
    principal = linear.principal(digits.train.images)
    for count in config.components:
        yield Codec(
            figures.COMPONENTS, principal.first(count).encode, principal.first(count).decode
        )
    for side in config.sides:
        yield smaller(side, digits.train.images.shape[1:])


def smaller(side: int, shape: tuple[int, ...]) -> Codec:
    """A picture of ``side * side`` pixels, enlarged again, both bicubic."""

    def encode(images: np.ndarray) -> np.ndarray:
        small = jax.image.resize(
            linear.pixels_of(images), (len(images), side, side, shape[2]), "cubic"
        )
        return np.asarray(small).reshape(len(images), -1)

    def decode(codes: np.ndarray) -> np.ndarray:
        small = codes.reshape(len(codes), side, side, shape[2])
        return np.clip(np.asarray(jax.image.resize(small, (len(codes), *shape), "cubic")), 0, 1)

    return Codec(figures.SMALLER, encode, decode)


def stored(
    config: Config, codec: Codec, digits: Dataset
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """A codec's rows of the table, and the first images that are read back: in full, and in fewer and fewer bits."""
    train, test = codec.encode(digits.train.images), codec.encode(digits.test.images)
    for bits in (figures.FULL, *config.bits):
        back = codec.decode(test if bits == figures.FULL else quantisation.fit(train, bits)(test))
        count = test.shape[1]
        facts = {"numbers": count, "bits each": bits, "bits": float(count * bits)}
        yield row(codec.name, back, digits, **facts), back[: config.shown]


def jpeg(config: Config, quality: int, digits: Dataset) -> tuple[dict[str, Any], np.ndarray]:
    """JPEG's row; its bits are those of the coded pixels alone.

    Everything before them, sizes, tables of quantisation and of Huffman's codes, is the same for
    all images, so that one who knows the quality needs it once.
    """
    back, bits, heads, whole = np.empty(digits.test.images.shape, np.float32), [], set(), []
    for number, image in enumerate(digits.test.images):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze()).save(buffer, "jpeg", quality=quality, optimize=False)
        head, pixels = halves(buffer.getvalue())
        heads.add(head)
        bits.append(8 * len(pixels))
        whole.append(8 * (len(head) + len(pixels)))
        back[number] = np.asarray(Image.open(buffer), np.float32).reshape(image.shape) / 255
    if len(heads) != 1:
        raise ValueError(
            f"JPEG of quality {quality}: expected one header for all images, got {len(heads)}"
        )
    facts = {
        "quality": quality,
        "bits": float(np.mean(bits)),
        "bits with header": float(np.mean(whole)),
    }
    return row(figures.JPEG, back, digits, **facts), back[: config.shown]


def halves(file: bytes) -> tuple[bytes, bytes]:
    """The header of a JPEG file, to the end of its start-of-scan segment, and the coded pixels without the end mark."""
    at = 2
    while file[at : at + 2] != b"\xff\xda":
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return file[:at], file[at:-2]


def row(method: str, back: np.ndarray, digits: Dataset, **facts: Any) -> dict[str, Any]:
    """A row of the table."""
    return {"method": method, **facts, **scores(back, linear.pixels_of(digits.test.images))}


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    digits = digits or images_of(config.source)
    made = [one for codec in codecs(config, digits) for one in stored(config, codec, digits)]
    made += [jpeg(config, quality, digits) for quality in config.qualities]
    rows, pictures = [row for row, _ in made], [pictures for _, pictures in made]
    show(f"{digits.name}, {len(digits.test.images):,} test images; psnr in dB", COLUMNS,
         [[row.get(name) for name in COLUMNS] for row in rows])  # fmt: skip
    name = "compression" if config.source == "mnist" else f"compression_{config.source}"
    title = f"{digits.name}: test images given back from a few bits"
    figure = figures.compression(rows, pictures, digits.test.images[: config.shown] / 255, title)
    save(results, name, {"config": asdict(config), "data": digits.name, "rows": rows}, figure)
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
