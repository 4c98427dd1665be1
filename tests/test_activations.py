"""Activations of real images: statistics beside the same written the dumb way, and the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_plots import check_text

from oipjax.analysis import activations as acts
from oipjax.cli import main as cli
from oipjax.cli.activations import caption_of, readings_of
from oipjax.data import mnist as data
from oipjax.data import read_image
from oipjax.plots import exemplars_figure, maps_figure


def test_activations_are_those_of_the_network_whatever_the_tile(tiny):
    images = np.random.default_rng(0).normal(size=(11, 8, 8, 1)).astype(np.float32)
    expected = tiny.apply(tiny.params, images)
    for tile in (3, 16):
        found = acts.layer_activations(tiny, images, ("conv2", "conv1", "logits"), tile=tile)
        assert list(found) == ["conv2", "conv1", "logits"]
        for name, array in found.items():
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)
    assert tuple(acts.layer_activations(tiny, images[:1])) == tiny.layers
    np.testing.assert_allclose(
        acts.map_means(found["conv2"]), np.mean(expected["conv2"], (1, 2)), rtol=1e-5, atol=1e-5
    )
    assert acts.map_means(found["logits"]).shape == (11, 3)
    with pytest.raises(ValueError, match="no layer 'conv7'; it has conv1_pre"):
        acts.layer_activations(tiny, images, ("conv7",))
    for wrong in (images[0], images[:, :7], images[:0]):
        with pytest.raises(
            ValueError, match=r"tiny takes images \[n, 8, 8, 1\] with n at least 1, got"
        ):
            acts.layer_activations(tiny, wrong)


def test_exemplars_are_the_best_images_first(cloud):
    scores = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
    assert acts.exemplars(scores, 3).tolist() == [[1, 3, 2], [2, 3, 0]]
    for keep in (0, 5):
        with pytest.raises(
            ValueError, match=r"keep must be between 1 and the number of images \(4\)"
        ):
            acts.exemplars(scores, keep)


def test_class_means(cloud):
    features, labels = cloud
    classes, means = acts.class_means(features, labels)
    assert classes.tolist() == [2, 5, 7] and means.shape == (3, 2, 3, 4)
    np.testing.assert_allclose(means[1], sum(features[i] for i in range(40) if labels[i] == 5) / 11)


@pytest.mark.parametrize("scale", ["layer", "map"])
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (3, 1), (4, 3)])
def test_the_picture_of_activations_shows_all_maps(count, channels, scale):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(count, 12, 12, channels))
    values = {"conv1": rng.normal(size=(count, 5, 5, 7)), "dense": rng.normal(size=(count, 11))}
    figure = maps_figure(
        "title",
        pixels,
        [f"image {i}\nread as 3" for i in range(count)],
        values,
        "note",
        scale=scale,
    )
    check_text(figure)
    assert len(figure.axes) == count * 3


def test_the_picture_of_exemplars():
    rng = np.random.default_rng(0)
    figure = exemplars_figure(
        "title",
        [f"map {k}" for k in range(3)],
        ["why"] * 3,
        rng.normal(size=(3, 8, 8, 1)),
        [1.0, 2.0, 3.0],
        rng.uniform(size=(3, 4, 8, 8, 1)),
        rng.uniform(size=(3, 4)),
        "note",
    )
    check_text(figure)
    assert sum(bool(axes.images) for axes in figure.axes) == 3 * 5


# --- files
# ------------------------------------------------------------


def test_pictures_are_read_as_pixels_between_0_and_1(tmp_path):
    digit = data.sample().images[0]
    grey = Image.fromarray(digit[..., 0])
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "rgb.png")
    grey.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(digit[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    grey.save(tmp_path / "grey.jpg", quality=100)
    np.save(tmp_path / "bytes.npy", digit)
    np.save(tmp_path / "flat.npy", digit[..., 0] / 255)
    for file in tmp_path.iterdir():
        found = read_image(file, (28, 28, 1))
        assert found.shape == (28, 28, 1) and found.dtype == np.float32
        np.testing.assert_allclose(found, digit / 255, atol=0.02 if file.suffix == ".jpg" else 1e-6)
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    np.testing.assert_allclose(
        read_image(tmp_path / "colour.png", (6, 5, 3)), colour / 255, atol=1e-6
    )


def test_pictures_that_do_not_fit_get_one_clear_line(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(rng.integers(0, 256, (28, 28, 4), np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(rng.integers(0, 256, (32, 30), np.uint8)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "notes.txt").write_text("x")
    np.save(tmp_path / "range.npy", np.full((28, 28), 3.0))
    np.save(tmp_path / "nan.npy", np.full((28, 28), np.nan))
    np.save(tmp_path / "ints.npy", np.zeros((28, 28), int))
    np.save(tmp_path / "many.npy", np.zeros((5, 28, 28, 1)))
    words = {
        "colour.png": "is in colour",
        "alpha.png": "partly transparent",
        "large.png": r"32 x 30 .* 28 x 28",
        "text.png": "cannot be read as a picture",
        "text.npy": "cannot be read as an array",
        "notes.txt": "png, jpg",
        "range.npy": r"between 0 and 1, got 3 to 3",
        "nan.npy": "between 0 and 1",
        "ints.npy": "int64",
        "many.npy": r"\[5, 28, 28, 1\]",
    }
    for name, text in words.items():
        with pytest.raises(ValueError, match=f"{name}: .*{text}"):
            read_image(tmp_path / name, (28, 28, 1))
    with pytest.raises(ValueError, match=r"no.png: no such file"):
        read_image(tmp_path / "no.png", (28, 28, 1))


# --- the command
# ------------------------------------------------------------


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main(["activations", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, " ".join(out.split()), err

    return run


def visible(folder: Path) -> list[str]:
    """Names of the files in a folder, without hidden ones such as locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_activations_of_one_digit_and_of_a_class(call):
    code, out, _ = call("--index", 449)
    folder = Path("oipjax-out/mnist-cnn-activations")
    assert (
        code == 0
        and "449" in out
        and "class 3, read as 5" in out
        and str(folder / "activations.png") in out
    )
    names = ["activations.csv", "activations.npz", "activations.png", "manifest.json"]
    assert visible(folder) == names
    assert call("--index", 449)[1].startswith("finished before")
    code, _, err = call("--digit", 4)
    assert code == 2 and "--overwrite" in err
    code, out, _ = call(
        "--digit", 4, "--count", 2, "--layer", "conv3", "dense1", "--overwrite", "--format", "svg"
    )
    assert code == 0 and out.count("class 4, read as 4") == 2
    assert visible(folder) == [
        "activations.csv",
        "activations.npz",
        "activations.svg",
        "manifest.json",
    ]
    with np.load(folder / "activations.npz") as file:
        assert file["conv3"].shape == (2, 3, 3, 128) and file["images"].shape == (2, 28, 28, 1)
        means = file["conv3"].mean((1, 2))
    assert json.loads((folder / "manifest.json").read_text())["labels"] == [4, 4]
    rows = [row.split(",") for row in (folder / "activations.csv").read_text().splitlines()]
    assert rows[0] == ["image", "layer", "map", "mean", "largest", "share_active"] and len(
        rows
    ) == 1 + 2 * (128 + 100)
    assert float(rows[6][3]) == pytest.approx(means[0, 5], rel=1e-5)


def test_activations_of_files_beside_a_digit(call):
    digit = data.sample().images[3, ..., 0]
    Image.fromarray(digit).save("mine.png")
    code, out, _ = call("--file", "mine.png", "--index", 3, "--layer", "conv1", "--out", "there")
    assert code == 0 and "mine.png" in out
    with np.load("there/activations.npz") as file:
        np.testing.assert_array_equal(file["conv1"][0], file["conv1"][1])
    np.save("mine.npy", digit)
    code, _, err = call("--file", "mine.npy", "--out", "there")
    assert code == 2 and "--overwrite" in err


def test_a_comma_in_a_file_name_makes_no_further_column(call):
    digits = data.sample().images[..., 0]
    Image.fromarray(digits[0]).save("a,b.png")
    Image.fromarray(digits[1]).save('say "c".png')
    options = ["--layer", "conv1", "--out", "there"]
    code, _, err = call("--file", "a,b.png", 'say "c".png', *options)
    assert code == 0, err
    with Path("there/activations.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {6} and len(rows) == 1 + 2 * 32
    assert {row[0] for row in rows[1:]} == {"a,b.png", 'say "c".png'}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --index, --file or --digit"),
        (["--index", 1000], "images are numbered from 0 to 999, got 1000"),
        (["--index", -1], "images are numbered from 0 to 999, got -1"),
        (["--digit", 11], "no class 11; there are 0 to 9"),
        (["--digit", 4, "--count", 0], "--count must be between 1 and"),
        (
            ["--digit", 4, "--count", 1000],
            "--count must be between 1 and 110, the images of class 4, got 1000",
        ),
        (["--index", 1, "--layer", "conv9"], "no layer 'conv9'"),
        (["--index", *range(13)], "at most 12 images"),
        (["--file", "nothing.png"], "no such file"),
        (["--index", 1, "--data", "nowhere"], "no such folder"),
        (["--index", 1, "--layer", "conv1", "conv1"], "named twice"),
    ],
)
def test_bad_input_is_one_line(call, arguments, words):
    code, _, err = call(*arguments)
    assert code == 2 and words in err and len(err.splitlines()) == 1
    assert not Path("oipjax-out").exists()


def test_a_network_without_classes_reads_nothing(linear, tiny):
    assert (
        readings_of(linear, np.zeros((4, 3))) == [None] * 4
        and readings_of(tiny, np.zeros((2, 6, 6, 3))) == [None] * 2
    )
    ((name, chance),) = readings_of(tiny, np.array([[0.0, np.log(2), 0.0]]))
    assert name == "b" and chance == pytest.approx(0.5)
    assert caption_of(7, None) == "class 7" and caption_of(None, ("b", 0.5)) == "read as b (50 %)"


def test_digits_that_do_not_fit_the_network(call, tiny_folder):
    code, _, err = call("--checkpoint", tiny_folder, "--index", 3)
    assert code == 2 and "tiny takes images 8 x 8 x 1" in err
    np.save("mine.npy", np.random.default_rng(0).uniform(size=(8, 8)))
    code, out, _ = call("--checkpoint", tiny_folder, "--file", "mine.npy", "--scale", "map")
    assert code == 0 and "mine.npy" in out and "read as" in out
