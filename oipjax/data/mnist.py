"""The official files of MNIST and Fashion-MNIST, and 1,000 digits that come with the package.

MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", CC BY-SA
3.0. Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf 2017, arXiv:1708.07747, MIT. Your images are read
by `oipjax.data.folder`.
"""

import gzip
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from oipjax.data.dataset import Dataset, Split

ENVIRONMENT = "OIPJAX_DATA"
"""Environment variable that names a local folder of data sets."""


@dataclass(frozen=True)
class IdxFiles:
    """Where the four files of an MNIST-like data set are, and their checksums.

    Attributes:
        name: of the data set, and of its folder.
        mirrors: addresses tried in order.
        files: ``(file name, MD5)`` of train images, train labels, test images, test labels.
        classes: names of the labels.
    """

    name: str
    mirrors: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]


# The checksums are those of torchvision's MNIST and FashionMNIST (torchvision/datasets/mnist.py).
MNIST = IdxFiles(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files=(
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    classes=tuple("0123456789"),
)
FASHION = IdxFiles(
    name="fashion_mnist",
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    files=(
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)


def load(
    source: IdxFiles = MNIST, folder: str | Path | None = None, *, progress: Any = False
) -> Dataset:
    """Read a data set from a local folder, or download it once into the user's cache.

    Args:
        source: which files.
        folder: holds the files, or a sub-folder ``source.name`` with them; ``OIPJAX_DATA`` if not
            given; else download.
        progress: show a progress bar while downloading: True, or an object as ``pooch`` takes it.

    Raises:
        ValueError: a file is missing, truncated, not the official one, or cannot be downloaded; the
            message names it.
    """
    if folder is None and os.environ.get(ENVIRONMENT):
        folder = os.environ[ENVIRONMENT]
    paths = _download(source, progress) if folder is None else _local(source, Path(folder))
    arrays = []
    for path, (name, md5) in zip(paths, source.files, strict=True):
        arrays.append(_read_official(path, f"{name} of {source.name}", md5))
    images, labels, test_images, test_labels = arrays
    file_names = [name for name, _ in source.files]
    train = _split(images, labels, file_names[0])
    test = _split(test_images, test_labels, file_names[2])
    return Dataset(source.name, train, test, source.classes)


def sample() -> Split:
    """The first 1,000 images of MNIST's test set, in the package.

    Returns:
        Images ``uint8 [1000, 28, 28, 1]`` and labels.
    """
    place = resources.files("oipjax.data.assets").joinpath("mnist_sample.npz")
    with place.open("rb") as file, np.load(file) as archive:
        return Split(archive["images"][..., None], archive["labels"])


def sample_dataset() -> Dataset:
    """The sample as a data set of 800 training and 200 test images.

    That is enough to try things out, not to measure them.
    """
    images, labels = sample()
    train = Split(images[:800], labels[:800])
    test = Split(images[800:], labels[800:])
    return Dataset("mnist-sample", train, test, MNIST.classes)


def read_idx(raw: bytes, name: str) -> np.ndarray:
    """Decode a gzipped IDX file of unsigned bytes; the format is described on the MNIST page.

    Args:
        raw: the file's bytes.
        name: of the file, for error messages.

    Raises:
        ValueError: the file is not gzip, is truncated or damaged, or is not an IDX file of bytes.
    """
    try:
        data = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: truncated or not a gzip file ({error})") from None
    has_magic = len(data) >= 4 and data[:3] == b"\0\0\x08"
    header = 4 + 4 * data[3] if has_magic else 4
    if not has_magic or len(data) < header:
        start = data[:4].hex() if data else "nothing"
        raise ValueError(f"{name}: not an IDX file of bytes (it starts with {start})")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    body = np.frombuffer(data, np.uint8, offset=header)
    if body.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{name}: truncated: {body.size} bytes where its header promises {shape}")
    return body.reshape(shape)


def _read_official(path: Path, name: str, md5: str) -> np.ndarray:
    """The array in a file; a ValueError unless its checksum is the official one."""
    raw = path.read_bytes()
    array = read_idx(raw, str(path))
    if hashlib.md5(raw).hexdigest() != md5:
        raise ValueError(f"{path}: not the official {name} (its MD5 is not {md5})")
    return array


def _split(images: np.ndarray, labels: np.ndarray, name: str) -> Split:
    """Images ``[n, h, w]`` and their labels; ``name`` is that of the images' file."""
    if len(images) != len(labels):
        raise ValueError(f"{name}: {len(images)} images but {len(labels)} labels")
    return Split(images[..., None], labels)


def _local(source: IdxFiles, folder: Path) -> list[Path]:
    """The four files in a local folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder (expected one with the files of {source.name})")
    nested = folder / source.name
    folder = nested if nested.is_dir() else folder
    paths = [folder / name for name, _ in source.files]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{folder}: missing {', '.join(missing)} of {source.name}")
    return paths


def _download(source: IdxFiles, progress: Any) -> list[Path]:
    """The four files in the user's cache; those that are not there yet are downloaded."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=60)
    return [_downloaded(source, name, md5, downloader) for name, md5 in source.files]


def _downloaded(source: IdxFiles, name: str, md5: str, downloader: Any) -> Path:
    """One file in the user's cache, from the first mirror that has it."""
    import pooch

    errors = []
    for mirror in source.mirrors:
        try:
            path = pooch.retrieve(
                mirror + name,
                known_hash=f"md5:{md5}",
                fname=name,
                path=pooch.os_cache("oipjax") / source.name,
                downloader=downloader,
            )
        except Exception as error:  # noqa: BLE001  (of whatever type: the next mirror is tried)
            errors.append(f"{mirror}: {type(error).__name__}")
        else:
            return Path(path)
    raise ValueError(
        f"{name}: could not be downloaded ({'; '.join(errors)}); "
        f"put the files of {source.name} into a folder and give it by --data or {ENVIRONMENT}"
    )
