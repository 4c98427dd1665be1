"""Your images as a data set: a folder or zip of files, an .npz of arrays, or the Olivetti faces.

Every image is decoded once, cropped and resized if asked, into one ``uint8 [n, h, w, c]`` array.
Images in several sub-folders are of as many classes. Which ones are held out for the test depends
on how many there are and on a seed of its own, so that different trainings can be compared.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from oipjax import keys
from oipjax.data.dataset import Dataset, Split
from oipjax.data.sources import Pictures, find, undamaged

REPORT = 64
"""Number of images between two reports of progress."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Shaping:
    """What is done to every image, in this order.

    Attributes:
        crop: ``(left, top, right, bottom)`` in pixels, as Pillow counts; None: nothing is cut off.
        size: ``(h, w)``: the middle of the image in this proportion, made so large; None: as it is.
        colour: True for three channels, False for grey; None: three as soon as one image has
            colours.
    """

    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    colour: bool | None = None

    def __post_init__(self):
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size is (h, w) in pixels, at least 1, got {self.size}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError(
                    "crop is (left, top, right, bottom) with left < right and top < bottom, "
                    f"got {self.crop}"
                )

    def __call__(self, image: Any, name: str) -> np.ndarray:
        """Pixels ``uint8 [h, w, c]`` of a Pillow image.

        Raises:
            ValueError: the crop lies outside of the image.
        """
        from PIL import Image, ImageOps

        if self.crop is not None:
            _, _, right, bottom = self.crop
            if right > image.width or bottom > image.height:
                raise ValueError(
                    f"{name} is {image.width} x {image.height} pixels, "
                    f"too small for the crop {self.crop}"
                )
            image = image.crop(self.crop)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        is_grey = image.mode in ("1", "L", "LA") if self.colour is None else not self.colour
        image = image.convert("L" if is_grey else "RGB")
        if self.size is not None:
            h, w = self.size
            image = ImageOps.fit(image, (w, h), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def load(
    place: str | Path,
    *,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
    colour: bool | None = None,
    test: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Read images.

    Args:
        place: a folder or a .zip of images, in as many sub-folders as there are classes, or all in
            one without classes; an .npz with ``images`` (``uint8 [n, h, w]`` or ``[n, h, w, c]``)
            and, if there are classes, ``labels`` (``[n]``, from 0) and ``classes`` (their names);
            ``olivettifaces.mat``, 40 persons with 10 pictures each.
        crop: the part of each image that is kept; see `Shaping`.
        size: to which images are scaled; see `Shaping`.
        colour: whether images have three channels or one; see `Shaping`.
        test: share of the images to be held out for the test.
        seed: decides which images are held out.
        progress: called with (phase, done, in all).

    Returns:
        The data set; ``skipped`` names the files that could not be read, ``names`` the others.

    Raises:
        ValueError: there are no images, they are of different sizes, or the options do not fit
            them.
    """
    place = Path(place)
    shaping = Shaping(crop, size, colour)
    if not 0 < test < 1:
        raise ValueError(f"test is a share of the images between 0 and 1, got {test}")
    pictures = find(place)
    decoded = _decode(pictures, shaping, progress)
    count = len(decoded.images)
    if count < 2:
        skipped = decoded.skipped
        reason = "all there are"
        if skipped:
            reason = f"first of {len(skipped)} that could not: {skipped[0]}"
        raise ValueError(f"{place}: {count} images could be read, at least 2 are needed; {reason}")
    test_count = min(max(1, round(test * count)), count - 1)
    key = keys.stream(jax.random.key(seed), keys.SPLIT)
    # A training holds out the last images. In the order of files these would be of one class.
    order = np.asarray(jax.random.permutation(key, count))
    train_split, train_names = _part(pictures, decoded, order[test_count:])
    test_split, test_names = _part(pictures, decoded, order[:test_count])
    return Dataset(
        name=place.stem,
        train=train_split,
        test=test_split,
        classes=pictures.classes,
        skipped=tuple(decoded.skipped),
        names=(train_names, test_names),
    )


class Attributes(NamedTuple):
    """What is known of images, beside their class.

    Attributes:
        names: of the attributes, ``a`` of them.
        has: ``bool [n, a]``.
        known: for which of the images anything is known, ``bool [n]``.
    """

    names: tuple[str, ...]
    has: np.ndarray
    known: np.ndarray


def attributes(file: str | Path, names: Sequence[str]) -> Attributes:
    """Read a table of attributes, as CelebA has one.

    Args:
        file: a .csv: a line of names; then for each image the name of its file, and numbers, above
            0 where it has the attribute.
        names: of the images' files, as `Dataset.names` has them; folders do not matter.

    Raises:
        ValueError: there is no such table, it is none, or it knows none of the images.
    """
    place = Path(file)
    if not place.is_file():
        raise ValueError(f"{place}: no such file (a .csv of attributes was expected)")
    lines = undamaged(place, lambda: list(csv.reader(place.read_text().splitlines())))
    head = lines[0] if lines else []
    table = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            table[PurePosixPath(line[0]).name] = [float(value) > 0 for value in line[1:]]
        except (IndexError, ValueError):
            raise ValueError(
                f"{place}, line {number}: expected a file's name and numbers, got {line[:4]}"
            ) from None
        if len(line) != len(head) or len(head) < 2:
            raise ValueError(
                f"{place}, line {number}: {len(line)} columns, but {len(head)} in the first line"
            )
    rows = [table.get(PurePosixPath(name).name) for name in names]
    known = np.array([row is not None for row in rows], bool)
    if not known.any():
        raise ValueError(
            f"{place}: none of the {len(rows)} images is in this table; "
            "names are to be those of the files"
        )
    nothing = [False] * (len(head) - 1)
    has = np.array([nothing if row is None else row for row in rows], bool)
    return Attributes(tuple(head[1:]), has, known)


class _Decoded(NamedTuple):
    """Images that could be read.

    Attributes:
        images: ``uint8 [n, h, w, c]``.
        numbers: of the pictures that they are.
        skipped: a line for each of the others.
    """

    images: np.ndarray
    numbers: np.ndarray
    skipped: list[str]


def _decode(pictures: Pictures, shaping: Shaping, progress: Progress | None) -> _Decoded:
    """Decode all pictures that can be read."""
    count = len(pictures.names)
    images: Any = np.empty((0, 0, 0, 0), np.uint8)
    numbers = []
    skipped = []
    for number, name in enumerate(pictures.names):
        if progress is not None and number % REPORT == 0:
            progress("images", number, count)
        try:
            with pictures.open(number) as image:
                image.load()
        except Exception as error:  # noqa: BLE001  (Pillow raises a dozen types for damaged files)
            skipped.append(f"{name} ({type(error).__name__}: {error})")
            continue
        pixels = shaping(image, name)
        if not numbers:
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape[:2] != images.shape[1:3]:
            h, w = pixels.shape[:2]
            height, width = images.shape[1:3]
            first = pictures.names[numbers[0]]
            raise ValueError(
                f"{name} is {w} x {h} pixels, {first} {width} x {height}: "
                "images must be of one size; give --size (and --crop)"
            )
        if pixels.shape[2] > images.shape[3]:
            # All images before the first coloured one are grey.
            images = np.repeat(images, pixels.shape[2], 3)
        images[len(numbers)] = pixels
        numbers.append(number)
    if progress is not None:
        progress("images", count, count)
    return _Decoded(images[: len(numbers)], np.array(numbers, int), skipped)


def _part(pictures: Pictures, decoded: _Decoded, part: np.ndarray) -> tuple[Split, tuple[str, ...]]:
    """Some of the images with their labels, and their names; ``part`` holds their indices."""
    numbers = decoded.numbers[part]
    dtype = np.uint8 if len(pictures.classes) <= 256 else np.int32
    split = Split(decoded.images[part], pictures.labels[numbers].astype(dtype))
    return split, tuple(str(pictures.names[number]) for number in numbers)
