"""Where your images come from: a folder, a zip, an .npz of arrays, or the Olivetti faces' .mat."""

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Pictures(NamedTuple):
    """Images that are not decoded yet.

    Attributes:
        names: of the images.
        open: of number ``i``: the Pillow image.
        labels: ``int [n]``.
        classes: names of the labels; none if the images have no labels.
    """

    names: Sequence[str]
    open: Callable[[int], Any]
    labels: np.ndarray
    classes: tuple[str, ...]


def find(place: Path) -> Pictures:
    """The images in a folder or file.

    Raises:
        ValueError: there are none.
    """
    if place.is_dir():
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*")}
        return _files(place, list(files), lambda name: files[name])
    if not place.is_file():
        raise ValueError(
            f"{place}: no such folder or file "
            "(a folder or zip of images, an .npz or a .mat was expected)"
        )
    readers = {".zip": _zip, ".npz": _npz, ".mat": _mat}
    suffix = place.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{place}: expected a folder of images, or a file {', '.join(readers)}")
    return readers[suffix](place)


def undamaged(place: Path, read: Callable[[], Any]) -> Any:
    """The result of ``read``; a ValueError that names the file if it is damaged."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001  (numpy, scipy and zipfile raise a dozen types for damaged files)
        raise ValueError(f"{place}: cannot be read ({type(error).__name__}: {error})") from None


def _files(place: Path, names: list[str], file: Callable[[str], Any]) -> Pictures:
    """Image files by their names; the folders below the one that holds all are their classes."""
    from PIL import Image

    named = {PurePosixPath(name): name for name in names}
    paths = sorted(path for path in named if _is_image(path))
    if not paths:
        suffixes = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise ValueError(f"{place}: no images there ({suffixes})")
    folders = _folders(paths)
    classes = tuple(sorted(set(folders)))
    if "" in classes and len(classes) > 1:
        loose = paths[folders.index("")]
        raise ValueError(
            f"{place}: images beside folders of images ({loose}): either all in classes, or none"
        )

    def open_one(number: int) -> Any:
        return Image.open(file(named[paths[number]]))

    return Pictures(
        names=[str(path) for path in paths],
        open=open_one,
        labels=np.array([classes.index(folder) for folder in folders]),
        classes=classes if len(classes) > 1 else (),
    )


def _folders(paths: list[PurePosixPath]) -> list[str]:
    """For each path the folder below the one that holds them all; "" where there is none."""
    shared = 0
    while _is_shared(paths, shared):
        shared += 1
    return [path.parts[shared] if len(path.parts) > shared + 1 else "" for path in paths]


def _is_shared(paths: list[PurePosixPath], depth: int) -> bool:
    """Whether all paths go through the same folder at this depth."""
    if any(len(path.parts) <= depth + 1 for path in paths):
        return False
    return len({path.parts[depth] for path in paths}) == 1


def _is_image(path: PurePosixPath) -> bool:
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not is_hidden


def _zip(place: Path) -> Pictures:
    archive = undamaged(place, lambda: zipfile.ZipFile(place))
    return _files(place, archive.namelist(), lambda name: io.BytesIO(archive.read(name)))


def _npz(place: Path) -> Pictures:
    arrays = undamaged(place, lambda: _read_npz(place))
    images = arrays.get("images")
    if images is None or not _is_pixels(images):
        raise ValueError(
            f"{place}: expected images uint8 [n, h, w] or [n, h, w, 1 or 3], got {_given(images)}"
        )
    labels = arrays.get("labels")
    if labels is None:
        return _arrays(images, np.zeros(len(images), int), ())
    if not _is_labels(labels, len(images)):
        raise ValueError(
            f"{place}: expected labels, [{len(images)}] integers from 0, got {_given(labels)}"
        )
    numbers = range(int(labels.max(initial=0)) + 1)
    classes = tuple(map(str, arrays.get("classes", numbers)))
    if len(classes) < len(numbers):
        raise ValueError(
            f"{place}: {len(classes)} names of classes, but labels up to {labels.max()}"
        )
    return _arrays(images, labels, classes)


def _read_npz(place: Path) -> dict[str, np.ndarray]:
    with place.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def _is_pixels(images: np.ndarray) -> bool:
    has_shape = images.ndim == 3 or images.shape[3:] in ((1,), (3,))
    return images.dtype == np.uint8 and has_shape


def _is_labels(labels: np.ndarray, count: int) -> bool:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        return False
    return not labels.size or labels.min() >= 0


def _given(array: np.ndarray | None) -> str:
    """Type and shape of an array, for messages."""
    return "none" if array is None else f"{array.dtype}{list(array.shape)}"


def _mat(place: Path) -> Pictures:
    """The Olivetti faces: 40 persons with 10 pictures each."""
    import scipy.io

    faces = undamaged(place, lambda: scipy.io.loadmat(place)).get("faces")
    if faces is None or not _is_faces(faces):
        raise ValueError(
            f"{place}: expected the Olivetti faces, an array faces uint8 [4096, 400], "
            f"got {_given(faces)}"
        )
    side = math.isqrt(faces.shape[0])
    # Matlab counts column by column.
    images = faces.T.reshape(-1, side, side).transpose(0, 2, 1)
    labels = np.arange(len(images)) // 10
    persons = range(int(labels.max(initial=0)) + 1)
    return _arrays(images, labels, tuple(map(str, persons)))


def _is_faces(faces: np.ndarray) -> bool:
    is_square = math.isqrt(faces.shape[0]) ** 2 == faces.shape[0]
    return faces.dtype == np.uint8 and faces.ndim == 2 and is_square


def _arrays(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Pictures:
    """Images ``uint8 [n, h, w]`` or ``[n, h, w, c]``."""
    from PIL import Image

    if images.shape[3:] == (1,):
        images = images[..., 0]
    names = [f"image {number}" for number in range(len(images))]
    return Pictures(names, lambda number: Image.fromarray(images[number]), labels, classes)
