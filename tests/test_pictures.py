"""Your images: folders, archives, arrays, and every way in which they can be wrong."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from oipjax.data import folder as pictures


def image(value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, value if mode == "L" else (value, 255 - value, 0))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten images of two classes, in a folder of their own below other things."""
    root = tmp_path / "cats and dogs"
    for number in range(10):
        file = root / "img" / ("cat" if number % 2 else "dog") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image(20 * number).save(file)
    (root / "readme.txt").write_text("x")
    (root / "img" / ".hidden.png").write_bytes(b"x")
    return root


def both(dataset) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.concatenate(parts) for parts in zip(dataset.train, dataset.test, strict=True))


def test_a_folder_with_classes(folder):
    read = pictures.load(folder, test=0.3)
    assert read.classes == ("cat", "dog") and read.name == "cats and dogs" and not read.skipped
    assert read.train.images.shape == (7, 4, 6, 3) and read.test.images.shape == (3, 4, 6, 3)
    images, labels = both(read)
    assert images.dtype == np.uint8 and sorted(images[:, 0, 0, 0].tolist()) == list(
        range(0, 200, 20)
    )
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 20 % 2 == 0)
    again, other = pictures.load(folder, test=0.3), pictures.load(folder, test=0.3, seed=1)
    np.testing.assert_array_equal(read.test.images, again.test.images)
    assert not np.array_equal(read.test.images, other.test.images)


def test_a_zip_is_the_same(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/img/cat/._01.png", b"x")
    for one, other in zip(
        both(pictures.load(folder)), both(pictures.load(tmp_path / "all.zip")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_images_keep_their_names(folder):
    (folder / "img" / "cat" / "05.png").write_bytes(b"x")
    read = pictures.load(folder, test=0.3)
    for split, names in zip((read.train, read.test), read.names, strict=True):
        assert [int(Path(name).stem) for name in names] == (split.images[:, 0, 0, 0] // 20).tolist()
    assert "img/cat/05.png" not in sum(read.names, ())


def test_attributes_of_images(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text(",smiling,old\n01.png,-1,1\nx/02.png,1,0\n")
    read = pictures.attributes(table, ["img/02.png", "img/07.png", "01.png"])
    assert read.names == ("smiling", "old") and read.known.tolist() == [True, False, True]
    assert read.has.tolist() == [[True, False], [False, False], [False, True]]
    for content, words in (
        (None, "no such file"),
        ("", "none of the 1 images"),
        (",a\n02.png,1\n", "none of the 1 images is in this table"),
        (
            ",a\n01.png,yes\n",
            r"line 2: expected a file's name and numbers, got \['01.png', 'yes'\]",
        ),
        (",a\n01.png,1,1\n", "line 2: 3 columns, but 2 in the first line"),
    ):
        table.unlink(missing_ok=True)
        if content is not None:
            table.write_text(content)
        with pytest.raises(ValueError, match=words):
            pictures.attributes(table, ["01.png"])


def test_one_folder_is_no_class(tmp_path):
    place = tmp_path / "celeba" / "img_align_celeba"
    place.mkdir(parents=True)
    for number in range(4):
        image(50, (178, 218)).save(place / f"{number:06d}.jpg")
    read = pictures.load(tmp_path / "celeba", crop=(0, 20, 178, 198), size=(16, 16))
    assert (
        read.classes == ()
        and read.train.images.shape[1:] == (16, 16, 3)
        and not read.train.labels.any()
    )


def test_crop_and_size(tmp_path):
    """The crop is exact; size takes the middle in its proportion."""
    pixels = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)
    np.savez(tmp_path / "a.npz", images=np.stack([pixels] * 3))
    read = pictures.load(tmp_path / "a.npz", crop=(1, 2, 5, 8))
    np.testing.assert_array_equal(read.train.images[0, ..., 0], pixels[2:8, 1:5])
    read = pictures.load(tmp_path / "a.npz", size=(8, 8))
    np.testing.assert_array_equal(read.train.images[0, ..., 0], pixels[:, 2:10])
    assert pictures.load(tmp_path / "a.npz", size=(4, 6)).train.images.shape == (2, 4, 6, 1)


def test_channels(tmp_path):
    for number, mode in enumerate(("L", "L", "RGB", "L")):
        image(100 + number, mode=mode).save(tmp_path / f"{number}.png")
    images, _ = both(pictures.load(tmp_path))
    assert images.shape == (4, 4, 6, 3) and sorted(images[:, 0, 0, 0].tolist()) == [
        100,
        101,
        102,
        103,
    ]
    assert both(pictures.load(tmp_path, colour=False))[0].shape == (4, 4, 6, 1)
    (tmp_path / "2.png").unlink()
    assert both(pictures.load(tmp_path))[0].shape == (3, 4, 6, 1)
    assert both(pictures.load(tmp_path, colour=True))[0].shape == (3, 4, 6, 3)


def test_sixteen_bits_are_made_eight(tmp_path):
    for number in range(2):
        Image.fromarray(np.full((4, 4), 0x8100, np.uint16)).save(tmp_path / f"{number}.png")
    assert set(both(pictures.load(tmp_path))[0].ravel().tolist()) == {0x81}


def test_broken_files_are_named_and_counted(folder):
    content = (folder / "img" / "cat" / "01.png").read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    (folder / "img" / "cat" / "01.png").write_bytes(content[:45])
    (folder / "img" / "cat" / "truncated.jpg").write_bytes(buffer.getvalue()[:-10])
    (folder / "img" / "dog" / "page.jpg").write_text("<html>404</html>")
    (folder / "img" / "dog" / "empty.jpg").write_bytes(b"")
    reports = []
    read = pictures.load(folder, progress=lambda *report: reports.append(report))
    assert len(both(read)[0]) == 9 and [line.split(" ")[0] for line in read.skipped] == [
        "img/cat/01.png",
        "img/cat/truncated.jpg",
        "img/dog/empty.jpg",
        "img/dog/page.jpg",
    ]
    assert reports[0] == ("images", 0, 13) and reports[-1] == ("images", 13, 13)


def test_olivetti(tmp_path):
    faces = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    scipy.io.savemat(
        tmp_path / "olivettifaces.mat", {"faces": faces.transpose(2, 1, 0).reshape(16, 20)}
    )
    read = pictures.load(tmp_path / "olivettifaces.mat", test=0.5)
    images, labels = both(read)
    assert read.classes == ("0", "1") and images.shape == (20, 4, 4, 1)
    for one, label in zip(images, labels, strict=True):
        assert int(np.flatnonzero((faces == one[..., 0]).all((1, 2)))[0]) // 10 == label


def test_arrays_with_labels(tmp_path):
    arrays = {"images": np.zeros((6, 3, 3, 3), np.uint8), "labels": np.array([0, 1, 2, 0, 1, 2])}
    np.savez(tmp_path / "a.npz", **arrays, classes=np.array(["x", "y", "z"]))
    assert pictures.load(tmp_path / "a.npz").classes == ("x", "y", "z")
    np.savez(tmp_path / "a.npz", **arrays)
    read = pictures.load(tmp_path / "a.npz")
    assert read.classes == ("0", "1", "2") and sorted(both(read)[1].tolist()) == [0, 0, 1, 1, 2, 2]


def save(place: Path, **arrays) -> None:
    np.savez(place, **arrays)


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda p: None, "nothing", "no such folder or file"),
        (lambda p: (p / "d").mkdir(), "d", "no images there"),
        (
            lambda p: (p / "a.txt").write_text("x"),
            "a.txt",
            "expected a folder of images, or a file .zip, .npz, .mat",
        ),
        (lambda p: (p / "a.zip").write_text("x"), "a.zip", "cannot be read"),
        (lambda p: (p / "a.mat").write_text("x"), "a.mat", "a.mat: cannot be read"),
        (lambda p: (p / "a.npz").write_text("x"), "a.npz", "a.npz: cannot be read"),
        (lambda p: save(p / "a.npz", x=np.zeros(3)), "a.npz", r"expected images uint8 .* got none"),
        (
            lambda p: save(p / "a.npz", images=np.zeros((3, 4, 4))),
            "a.npz",
            r"got float64\[3, 4, 4\]",
        ),
        (
            lambda p: save(p / "a.npz", images=np.zeros((3, 4, 4, 2), np.uint8)),
            "a.npz",
            r"got uint8\[3, 4, 4, 2\]",
        ),
        (
            lambda p: save(p / "a.npz", images=np.zeros((0, 4, 4), np.uint8)),
            "a.npz",
            "0 images could be read",
        ),
        (
            lambda p: save(
                p / "a.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.zeros(4, int)
            ),
            "a.npz",
            r"expected labels, \[3\] integers from 0, got int64\[4\]",
        ),
        (
            lambda p: save(
                p / "a.npz",
                images=np.zeros((3, 4, 4), np.uint8),
                labels=np.arange(3),
                classes=["a"],
            ),
            "a.npz",
            "1 names of classes, but labels up to 2",
        ),
        (
            lambda p: scipy.io.savemat(p / "a.mat", {"x": np.zeros(3)}),
            "a.mat",
            "expected the Olivetti faces",
        ),
        (
            lambda p: [image(1).save(p / "d.png") for _ in range(2)],
            ".",
            "1 images could be read, at least 2",
        ),
    ],
)
def test_what_is_no_set_of_images_is_named(tmp_path, make, name, words):
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        pictures.load(tmp_path / name)


def test_mixed_sizes(folder):
    image(1, (9, 9)).save(folder / "img" / "dog" / "zz.png")
    with pytest.raises(
        ValueError, match=r"dog/zz.png is 9 x 9 pixels, img/cat/01.png 6 x 4.*give --size"
    ):
        pictures.load(folder)
    assert pictures.load(folder, size=(4, 4)).train.images.shape == (10, 4, 4, 3)
    assert pictures.load(folder, crop=(1, 1, 4, 4)).train.images.shape == (10, 3, 3, 3)
    with pytest.raises(
        ValueError, match=r"img/cat/01.png is 6 x 4 pixels, too small for the crop \(0, 0, 8, 8\)"
    ):
        pictures.load(folder, crop=(0, 0, 8, 8))


def test_images_beside_folders_of_images(folder):
    image(1).save(folder / "img" / "loose.png")
    with pytest.raises(ValueError, match=r"images beside folders of images \(img/loose.png\)"):
        pictures.load(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test": 0.0}, "share of the images between 0 and 1"),
        ({"size": (0, 4)}, "at least 1"),
        ({"crop": (4, 0, 2, 2)}, "left < right"),
    ],
)
def test_wrong_options(folder, options, words):
    with pytest.raises(ValueError, match=words):
        pictures.load(folder, **options)
