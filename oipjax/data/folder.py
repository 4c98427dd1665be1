"""One's own images as a data set: a folder or zip of image files, an .npz of arrays, or the Olivetti faces' .mat.

Every image is decoded once, cropped and resized if asked, into one ``uint8 [n, h, w, c]`` array.
Images in several sub-folders are of as many classes. Which ones are held out for the test depends
on how many there are and on a seed of its own, so that different trainings can be compared.
"""

import csv
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from oipjax import keys
from oipjax.data.mnist import Dataset, Split

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_REPORT = 64  # images between two reports of progress


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
        if self.crop is not None and not (
            0 <= self.crop[0] < self.crop[2] and 0 <= self.crop[1] < self.crop[3]
        ):
            raise ValueError(
                f"crop is (left, top, right, bottom) with left < right and top < bottom, got {self.crop}"
            )

    def __call__(self, image: Any, name: str) -> np.ndarray:
        """Pixels ``uint8 [h, w, c]`` of a Pillow image.

        Raises:
            ValueError: the crop lies outside of the image.
        """
        from PIL import Image, ImageOps

        if self.crop is not None:
            if self.crop[2] > image.width or self.crop[3] > image.height:
                raise ValueError(f"{name} is {_size(image)}, too small for the crop {self.crop}")
            image = image.crop(self.crop)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        grey = image.mode in ("1", "L", "LA") if self.colour is None else not self.colour
        image = image.convert("L" if grey else "RGB")
        if self.size is not None:
            h, w = self.size
            image = ImageOps.fit(image, (w, h), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels


class _Pictures(NamedTuple):
    """Names, how to open number ``i`` as a Pillow image, and labels with the names of their classes."""

    names: Sequence[str]
    open: Callable[[int], Any]
    labels: np.ndarray
    classes: tuple[str, ...]


def load(
    place: str | Path,
    *,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
    colour: bool | None = None,
    test: float = 0.1,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """Read images.

    Args:
        place: a folder or a .zip of images, in as many sub-folders as there are classes, or all in
            one without classes; an .npz with ``images`` (``uint8 [n, h, w]`` or ``[n, h, w, c]``)
            and, if there are classes, ``labels`` (``[n]``, from 0) and ``classes`` (their names);
            ``olivettifaces.mat``, 40 persons with 10 pictures each.
        crop: as in `Shaping`.
        size: as in `Shaping`.
        colour: as in `Shaping`.
        test: share of the images to be held out for the test.
        seed: chooses them.
        progress: called with (phase, done, in all).

    Returns:
        The data set; ``skipped`` names the files that could not be read, ``names`` the others.

    Raises:
        ValueError: there are no images, they are of different sizes, or the options do not fit
            them.
    """
    place, shaping = Path(place), Shaping(crop, size, colour)
    if not 0 < test < 1:
        raise ValueError(f"test is a share of the images between 0 and 1, got {test}")
    pictures = _find(place)
    images, kept, skipped = _decode(pictures, shaping, progress)
    if len(images) < 2:
        raise ValueError(
            f"{place}: {len(images)} images could be read, at least 2 are needed; {_some(skipped)}"
        )
    labels = pictures.labels[kept].astype(np.uint8 if len(pictures.classes) <= 256 else np.int32)
    held_out = min(max(1, round(test * len(images))), len(images) - 1)
    order = np.asarray(
        jax.random.permutation(keys.stream(jax.random.key(seed), keys.SPLIT), len(images))
    )
    # In random order, since a training holds out the last ones, which else were all of one class.
    parts = order[held_out:], order[:held_out]
    rest, tested = (Split(images[part], labels[part]) for part in parts)
    of_rest, of_tested = (
        tuple(str(pictures.names[number]) for number in kept[part]) for part in parts
    )
    return Dataset(place.stem, rest, tested, pictures.classes, tuple(skipped), (of_rest, of_tested))


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
    head, *lines = _opened(place, lambda: list(csv.reader(place.read_text().splitlines()))) or [[]]
    table = {}
    for number, line in enumerate(lines, 2):
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
            f"{place}: none of the {len(rows)} images is in this table; names are to be those of the files"
        )
    has = np.array([row if row is not None else [False] * (len(head) - 1) for row in rows], bool)
    return Attributes(tuple(head[1:]), has, known)


def _find(place: Path) -> _Pictures:
    if place.is_dir():
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*")}
        return _files(place, list(files), lambda name: files[name])
    if not place.is_file():
        raise ValueError(
            f"{place}: no such folder or file (a folder or zip of images, an .npz or a .mat was expected)"
        )
    readers = {".zip": _zip, ".npz": _npz, ".mat": _mat}
    if place.suffix.lower() not in readers:
        raise ValueError(f"{place}: expected a folder of images, or a file {', '.join(readers)}")
    return readers[place.suffix.lower()](place)


def _opened(place: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` gives; a ValueError if the file is damaged."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001  (numpy, scipy and zipfile raise a dozen types for damaged files)
        raise ValueError(f"{place}: cannot be read ({type(error).__name__}: {error})") from None


def _files(place: Path, names: list[str], file: Callable[[str], Any]) -> _Pictures:
    """Image files by their names; the folders below the one that holds all are their classes."""
    from PIL import Image

    named = {PurePosixPath(name): name for name in names}
    paths = sorted(path for path in named if _is_image(path))
    if not paths:
        raise ValueError(
            f"{place}: no images there ({', '.join(suffix[1:] for suffix in SUFFIXES)})"
        )
    depth = 0
    while (
        all(len(path.parts) > depth + 1 for path in paths)
        and len({path.parts[depth] for path in paths}) == 1
    ):
        depth += 1
    folders = [path.parts[depth] if len(path.parts) > depth + 1 else "" for path in paths]
    classes = tuple(sorted(set(folders)))
    if "" in classes and len(classes) > 1:
        loose = paths[folders.index("")]
        raise ValueError(
            f"{place}: images beside folders of images ({loose}): either all in classes, or none"
        )
    labels = np.array([classes.index(folder) for folder in folders])

    def open_one(number: int) -> Any:
        return Image.open(file(named[paths[number]]))

    return _Pictures(
        [str(path) for path in paths], open_one, labels, classes if len(classes) > 1 else ()
    )


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _zip(place: Path) -> _Pictures:
    archive = _opened(place, lambda: zipfile.ZipFile(place))
    return _files(place, archive.namelist(), lambda name: io.BytesIO(archive.read(name)))


def _npz(place: Path) -> _Pictures:
    def read() -> dict[str, np.ndarray]:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    arrays = _opened(place, read)
    images = arrays.get("images")
    if (
        images is None
        or images.dtype != np.uint8
        or not (images.ndim == 3 or images.shape[3:] in ((1,), (3,)))
    ):
        given = "none" if images is None else f"{images.dtype}{list(images.shape)}"
        raise ValueError(
            f"{place}: expected images uint8 [n, h, w] or [n, h, w, 1 or 3], got {given}"
        )
    labels = arrays.get("labels")
    if labels is None:
        return _arrays(images, np.zeros(len(images), int), ())
    if (
        labels.shape != (len(images),)
        or labels.dtype.kind not in "iu"
        or (labels.size and labels.min() < 0)
    ):
        given = f"{labels.dtype}{list(labels.shape)}"
        raise ValueError(f"{place}: expected labels, [{len(images)}] integers from 0, got {given}")
    numbers = range(int(labels.max(initial=0)) + 1)
    classes = tuple(str(name) for name in arrays.get("classes", np.array(numbers)))
    if len(classes) < len(numbers):
        raise ValueError(
            f"{place}: {len(classes)} names of classes, but labels up to {labels.max()}"
        )
    return _arrays(images, labels, classes)


def _mat(place: Path) -> _Pictures:
    import scipy.io

    faces = _opened(place, lambda: scipy.io.loadmat(place)).get("faces")
    side = 0 if faces is None else math.isqrt(faces.shape[0])
    if faces is None or faces.dtype != np.uint8 or faces.ndim != 2 or side**2 != faces.shape[0]:
        given = "none" if faces is None else f"{faces.dtype}{list(faces.shape)}"
        raise ValueError(
            f"{place}: expected the Olivetti faces, an array faces uint8 [4096, 400], got {given}"
        )
    images = faces.T.reshape(-1, side, side).transpose(
        0, 2, 1
    )  # column by column, as Matlab counts
    labels = np.arange(len(images)) // 10
    return _arrays(
        images, labels, tuple(str(person) for person in range(int(labels.max(initial=0)) + 1))
    )


def _arrays(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> _Pictures:
    from PIL import Image

    images = images[..., 0] if images.shape[3:] == (1,) else images
    names = [f"image {number}" for number in range(len(images))]
    return _Pictures(names, lambda number: Image.fromarray(images[number]), labels, classes)


def _decode(
    pictures: _Pictures, shaping: Shaping, progress: Callable[[str, int, int], None] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels of all that can be read, which ones these are, and a line for each of the others."""
    count = len(pictures.names)
    images: Any = np.empty((0, 0, 0, 0), np.uint8)
    kept, skipped = [], []
    for number, name in enumerate(pictures.names):
        if progress is not None and (number % _REPORT == 0):
            progress("images", number, count)
        try:
            with pictures.open(number) as image:
                image.load()
        except Exception as error:  # noqa: BLE001  (Pillow raises a dozen types for damaged files)
            skipped.append(f"{name} ({type(error).__name__}: {error})")
            continue
        pixels = shaping(image, name)
        if not kept:
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape[:2] != images.shape[1:3]:
            (h, w), first = pixels.shape[:2], pictures.names[kept[0]]
            raise ValueError(
                f"{name} is {w} x {h} pixels, {first} {images.shape[2]} x {images.shape[1]}: "
                "images must be of one size; give --size (and --crop)"
            )
        if pixels.shape[2] > images.shape[3]:
            images = np.repeat(
                images, pixels.shape[2], 3
            )  # the grey ones before the first coloured one
        images[len(kept)] = pixels
        kept.append(number)
    if progress is not None:
        progress("images", count, count)
    return images[: len(kept)], np.array(kept, int), skipped


def _size(image: Any) -> str:
    return f"{image.width} x {image.height} pixels"


def _some(skipped: list[str]) -> str:
    return f"first of {len(skipped)} that could not: {skipped[0]}" if skipped else "all there are"
