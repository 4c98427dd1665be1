"""How many bits does an image need?

Question: how well are images reconstructed from an autoencoder's code of 2 to 64 numbers, stored in
full or in few bits? It is compared, for each number of bits, with as many principal components, a
smaller picture enlarged again, and JPEG.
Expected: with as many numbers, from 16 to 64, the autoencoder's squared error is a third of that of
principal components. 6 bits for each number cost less than 0.3 dB, 4 bits about 1 dB. At 100 bits
an image the autoencoder leads by 4 dB. JPEG needs five times the bits for the same PSNR, but
reaches a PSNR that the autoencoder cannot reach.
Cost: it trains six autoencoders, 5 minutes of two cores each, once (kept in oipjax-out); then 5
minutes.
Command: OIPJAX_DATA=folder python -m experiments.compression (clothes: --source fashion)
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
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
from oipjax.images import to_unit
from oipjax.training import AutoencoderTrainConfig
from oipjax.training import autoencoder as autoencoding

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("method", "numbers", "bits each", "bits", "mse", "psnr", "ssim")
START_OF_SCAN = b"\xff\xda"
"""The mark of the last segment of a JPEG file's header."""


@dataclass(frozen=True)
class Config:
    """The codes that are compared.

    Attributes:
        source: the data set.
        latents: latent sizes of the autoencoders.
        components: numbers of principal components.
        sides: of the smaller picture, in pixels.
        bits: of each number.
        qualities: of JPEG.
        train: the training of all autoencoders; the latent size is replaced.
        shown: images in the figure.
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
                "expected at least one latent size and one number of bits, "
                f"got {self.latents} and {self.bits}"
            )


SMOKE = Config(
    latents=(3,),
    components=(3,),
    sides=(2,),
    bits=(4,),
    qualities=(10,),
    shown=4,
    train=SMALL,
)


class Codec(NamedTuple):
    """A code of numbers.

    Attributes:
        name: of the method.
        encode: images ``uint8 [n, h, w, c]`` to numbers ``[n, d]``.
        decode: the numbers to pixels in [0, 1].
    """

    name: str
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


class Measured(NamedTuple):
    """One way of storing the test images.

    Attributes:
        row: of the table.
        pictures: the first images, decoded.
    """

    row: dict[str, Any]
    pictures: np.ndarray


def codecs(config: Config, digits: Dataset) -> Iterator[Codec]:
    """All codes of numbers, one after another."""
    shape = digits.train.images.shape[1:]
    for latent in config.latents:
        train = sized(config.train, latent=latent, input_shape=shape)
        auto = autoencoder(train, digits)
        encode = partial(autoencoding.encode, auto)
        decode = partial(autoencoding.decode, auto)
        yield Codec(figures.AUTOENCODER, encode, decode)
    principal = linear.principal(digits.train.images)
    for count in config.components:
        first = principal.first(count)
        yield Codec(figures.COMPONENTS, first.encode, first.decode)
    for side in config.sides:
        yield smaller(side, shape)


def smaller(side: int, shape: tuple[int, ...]) -> Codec:
    """A picture of ``side * side`` pixels, enlarged again; both are bicubic."""
    channels = shape[2]

    def encode(images: np.ndarray) -> np.ndarray:
        pixels = to_unit(images)
        small = jax.image.resize(pixels, (len(images), side, side, channels), "cubic")
        return np.asarray(small).reshape(len(images), -1)

    def decode(codes: np.ndarray) -> np.ndarray:
        small = codes.reshape(len(codes), side, side, channels)
        large = jax.image.resize(small, (len(codes), *shape), "cubic")
        return np.clip(np.asarray(large), 0, 1)

    return Codec(figures.SMALLER, encode, decode)


def stored(config: Config, codec: Codec, digits: Dataset) -> Iterator[Measured]:
    """The test images by one codec: their numbers in full, and in fewer and fewer bits."""
    train = codec.encode(digits.train.images)
    test = codec.encode(digits.test.images)
    count = test.shape[1]
    for bits in (figures.FULL, *config.bits):
        is_full = bits == figures.FULL
        numbers = test if is_full else quantisation.fit(train, bits)(test)
        decoded = codec.decode(numbers)
        facts = {"numbers": count, "bits each": bits, "bits": float(count * bits)}
        row = row_of(codec.name, decoded, digits, **facts)
        yield Measured(row, decoded[: config.shown])


def jpeg(config: Config, quality: int, digits: Dataset) -> Measured:
    """The test images by JPEG; its bits are those of the coded pixels alone.

    The header (sizes, tables of quantisation and of Huffman's codes) is the same for all images.
    Whoever knows the quality needs it only once.
    """
    decoded = np.empty(digits.test.images.shape, np.float32)
    bits = []
    bits_with_header = []
    headers = set()
    for number, image in enumerate(digits.test.images):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze()).save(buffer, "jpeg", quality=quality, optimize=False)
        header, pixels = halves(buffer.getvalue())
        headers.add(header)
        bits.append(8 * len(pixels))
        bits_with_header.append(8 * (len(header) + len(pixels)))
        read = np.asarray(Image.open(buffer), np.float32)
        decoded[number] = read.reshape(image.shape) / 255
    if len(headers) != 1:
        raise ValueError(
            f"JPEG of quality {quality}: expected one header for all images, got {len(headers)}"
        )
    facts = {
        "quality": quality,
        "bits": float(np.mean(bits)),
        "bits with header": float(np.mean(bits_with_header)),
    }
    row = row_of(figures.JPEG, decoded, digits, **facts)
    return Measured(row, decoded[: config.shown])


def halves(file: bytes) -> tuple[bytes, bytes]:
    """The two parts of a JPEG file.

    Returns:
        The header, to the end of its start-of-scan segment, and the coded pixels without the end
        mark.
    """
    position = 2
    mark = b""
    while mark != START_OF_SCAN:
        mark = file[position : position + 2]
        length = int.from_bytes(file[position + 2 : position + 4], "big")
        position += 2 + length
    return file[:position], file[position:-2]


def row_of(method: str, decoded: np.ndarray, digits: Dataset, **facts: Any) -> dict[str, Any]:
    """A row of the table."""
    truth = to_unit(digits.test.images)
    return {"method": method, **facts, **scores(decoded, truth)}


def main(
    config: Config = Config(), results: Path = RESULTS, digits: Dataset | None = None
) -> list[dict[str, Any]]:
    """Run, print, write."""
    digits = images_of(config.source) if digits is None else digits
    measured = []
    for codec in codecs(config, digits):
        measured += stored(config, codec, digits)
    for quality in config.qualities:
        measured.append(jpeg(config, quality, digits))
    rows = [one.row for one in measured]
    pictures = [one.pictures for one in measured]
    cells = [[row.get(name) for name in COLUMNS] for row in rows]
    show(f"{digits.name}, {len(digits.test.images):,} test images; psnr in dB", COLUMNS, cells)
    name = "compression" if config.source == "mnist" else f"compression_{config.source}"
    title = f"{digits.name}: test images reconstructed from a few bits"
    truth = digits.test.images[: config.shown] / 255
    figure = figures.compression(rows, pictures, truth, title)
    content = {"config": asdict(config), "data": digits.name, "rows": rows}
    save(results, name, content, figure)
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
