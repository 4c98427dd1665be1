"""The official files, and every way in which they can be wrong."""

import gzip
import hashlib
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oipjax.data import mnist as data


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def small(tmp_path) -> tuple[data.IdxFiles, Path]:
    """A data set of 6 and 4 images in the official format."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (6, 5, 5), np.uint8),
        rng.integers(0, 3, 6, np.uint8),
        rng.integers(0, 256, (4, 5, 5), np.uint8),
        rng.integers(0, 3, 4, np.uint8),
    ]
    folder, files = tmp_path / "data" / "small", []
    folder.mkdir(parents=True)
    for (name, _), array in zip(data.MNIST.files, arrays, strict=True):
        raw = idx(array)
        (folder / name).write_bytes(raw)
        files.append((name, hashlib.md5(raw).hexdigest()))
    return data.IdxFiles("small", ("http://127.0.0.1:9/",), tuple(files), tuple("abc")), folder


def test_a_local_folder_and_its_parent(small, monkeypatch):
    source, folder = small
    for place in (folder, folder.parent):
        loaded = data.load(source, place)
        assert loaded.train.images.shape == (6, 5, 5, 1) and loaded.test.labels.shape == (4,)
    monkeypatch.setenv(data.ENVIRONMENT, str(folder))
    np.testing.assert_array_equal(data.load(source).train.images, loaded.train.images)


def damage(raw: bytes, how: str) -> bytes | None:
    match how:
        case "missing":
            return None
        case "truncated":
            return raw[: len(raw) // 2]
        case "not gzip":
            return b"<html>404</html>"
        case "flipped":
            middle = len(raw) // 2
            return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        case "empty":
            return b""
        case "other format":
            return gzip.compress(b"hello")
        case "short body":
            return gzip.compress(gzip.decompress(raw)[:-3])
    return idx(np.zeros((6, 5, 5), np.uint8))


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "truncated",
        "not gzip",
        "flipped",
        "empty",
        "other format",
        "short body",
        "other content",
    ],
)
def test_a_damaged_file_is_named(small, index, how):
    source, folder = small
    file = folder / source.files[index][0]
    bad = damage(file.read_bytes(), how)
    file.unlink() if bad is None else file.write_bytes(bad)
    with pytest.raises(ValueError, match=source.files[index][0]):
        data.load(source, folder)


def test_no_folder(small, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        data.load(small[0], tmp_path / "nowhere")


def test_images_and_labels_of_different_number(small):
    source, folder = small
    name = source.files[1][0]
    raw = idx(np.zeros(5, np.uint8))
    (folder / name).write_bytes(raw)
    files = (source.files[0], (name, hashlib.md5(raw).hexdigest()), *source.files[2:])
    with pytest.raises(ValueError, match="6 images but 5 labels"):
        data.load(replace(source, files=files), folder)


def test_a_download_that_fails_says_what_to_do(small, monkeypatch, tmp_path):
    monkeypatch.delenv(data.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"train-images.*could not be downloaded.*--data or OIPJAX_DATA"
    ):
        data.load(small[0])


def test_a_download_is_checked_and_kept(small, monkeypatch, tmp_path):
    """Fetched from a server on this machine: the MD5 is checked, and nothing is fetched twice."""
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    source, folder = small
    monkeypatch.delenv(data.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requests.append(self.path)

    class Bar:
        total, done = 0, 0

        def update(self, count):
            self.done += count

        def reset(self):
            self.done = 0

        def close(self):
            pass

    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = replace(
            source, mirrors=("http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_address[1]}/")
        )
        bar = Bar()
        first = data.load(source, progress=bar)
        assert len(requests) == 4 and bar.total > 0
        second = data.load(source)
        assert len(requests) == 4
        server.shutdown()
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_the_sample():
    images, labels = data.sample()
    assert images.shape == (1000, 28, 28, 1) and images.dtype == np.uint8
    assert np.bincount(labels).min() > 80 and len(np.bincount(labels)) == 10
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.skipif(
    not os.environ.get(data.ENVIRONMENT), reason="needs the official files in OIPJAX_DATA"
)
def test_the_official_fashion_files():
    fashion = data.load(data.FASHION)
    assert fashion.train.images.shape == (60000, 28, 28, 1) and fashion.test.images.shape == (
        10000,
        28,
        28,
        1,
    )
    assert fashion.classes[9] == "Ankle boot" and fashion.train.labels[0] == 9
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10


@pytest.mark.skipif(
    not os.environ.get(data.ENVIRONMENT), reason="needs the official MNIST files in OIPJAX_DATA"
)
def test_the_official_files():
    mnist = data.load()
    assert mnist.train.images.shape == (60000, 28, 28, 1) and mnist.test.images.shape == (
        10000,
        28,
        28,
        1,
    )
    sample = data.sample()
    np.testing.assert_array_equal(sample.images, mnist.test.images[:1000])
    np.testing.assert_array_equal(sample.labels, mnist.test.labels[:1000])
