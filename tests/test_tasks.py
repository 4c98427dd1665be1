"""The parts of the experiments on compression, denoising and recolouring."""

import io
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import common, compression, denoising, recolouring
from experiments.tools import quality
from oipjax.data import mnist as data
from oipjax.images import to_unit
from oipjax.networks import AutoencoderConfig, checkpoint
from oipjax.training import AutoencoderTrainConfig, ClassifierTrainConfig, Grey, Noise
from oipjax.training import autoencoder as autoencoding

SMALL = AutoencoderTrainConfig(
    AutoencoderConfig((28, 28, 1), (4,), 3, (4,), 3), l2=0.0, epochs=1, validation=40, loss="bce"
)


def digits(train: int = 200, test: int = 50) -> data.Dataset:
    whole = data.sample_dataset()
    return whole._replace(
        train=data.Split(*(array[:train] for array in whole.train)),
        test=data.Split(*(array[:test] for array in whole.test)),
    )


@pytest.mark.slow
def test_an_autoencoder_is_trained_once_for_each_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, names = replace(SMALL, corrupt=Noise(0.5)), []

    def train(key, config, images, *, name, **options):
        names.append(name)
        raise KeyboardInterrupt

    with jax.numpy_dtype_promotion("standard"):
        auto = common.autoencoder(config, digits())
    facts = checkpoint.read_facts(common.AUTOENCODERS / auto.name)["training"]
    assert (
        facts["config"]["corrupt"] == "Noise(sigma=0.5, clip=True)" and len(facts["history"]) == 1
    )
    monkeypatch.setattr(autoencoding, "train", train)
    again = common.autoencoder(config, digits())
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, auto.params))
    for other, few, seed in (
        (SMALL, digits(), 0),
        (config, digits(), 1),
        (replace(config, corrupt=Noise(0.5, clip=False)), digits(), 0),
        (config, digits(150), 0),
    ):
        with pytest.raises(KeyboardInterrupt):
            common.autoencoder(other, few, seed=seed)
    assert len({auto.name, *names}) == 5
    with pytest.raises(ValueError, match="expected the training of an autoencoder"):
        common.autoencoder(ClassifierTrainConfig(), digits())


def test_input_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(data.ENVIRONMENT, "nowhere")
    for module, options, line in (
        (compression, [], "nowhere: no such folder"),
        (denoising, ["--source", "fashion"], "mnist-cnn reads digits"),
        (denoising, ["--sigmas", "--dropped"], "no corruption"),
        (denoising, ["--sigmas", "0", "--classifier", "None"], "the noise's sigma"),
        (recolouring, ["--data", "pictures.zip"], "pictures.zip: no such folder or file"),
        (recolouring, ["--size", "8", "8"], "--name, --crop and --size are for your images"),
    ):
        monkeypatch.setattr(sys, "argv", [module.__name__, *options])
        with pytest.raises(SystemExit) as end:
            common.command(module.main, module.Config, module.__doc__, tmp_path)
        told = " ".join(capsys.readouterr().err.split())
        assert end.value.code == 2 and line in told and "Traceback" not in told


def test_all_jpeg_files_of_one_quality_begin_alike():
    heads = set()
    for image in digits().test.images[:20]:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0]).save(buffer, "jpeg", quality=30)
        head, pixels = compression.halves(buffer.getvalue())
        assert head + pixels + b"\xff\xd9" == buffer.getvalue() and 20 < len(pixels) < 300
        heads.add(head)
    assert len(heads) == 1 and len(heads.pop()) > 250


def test_a_smaller_picture_keeps_what_is_smooth():
    slope = np.linspace(0, 255, 28).astype(np.uint8).reshape(1, 28, 1, 1).repeat(28, 2)
    for side, limit in ((28, 1e-6), (14, 0.02), (4, 0.1)):
        codec = compression.smaller(side, slope.shape[1:])
        codes = codec.encode(slope)
        assert codes.shape == (1, side * side)
        assert np.abs(codec.decode(codes) - to_unit(slope)).max() < limit


def test_what_a_filter_gives_is_brought_to_the_scale_of_images():
    truth = np.random.default_rng(0).random((5, 6, 6, 1)).astype(np.float32)
    gain, offset, left = denoising.fitted(0.5 * truth + 0.2, truth)
    assert (gain, offset, left) == pytest.approx((2, -0.4, 0), abs=1e-5)
    gain, offset, left = denoising.fitted(np.zeros_like(truth), truth)
    assert (gain, offset, left) == pytest.approx((0, truth.mean(), truth.var()), rel=1e-4)


def test_the_grey_of_a_coloured_digit_does_not_tell_its_class():
    plain = digits()
    greys = []
    for shift in range(10):
        labels = (plain.train.labels + shift).astype(np.uint8) % 10
        painted = recolouring.coloured(
            plain._replace(train=data.Split(plain.train.images, labels))
        ).train
        pixels = to_unit(painted.images)
        assert recolouring.hue_right(pixels, labels, 10).all()
        greys.append(np.asarray(Grey()(jax.random.key(0), pixels))[..., :1])
        np.testing.assert_allclose(recolouring.grey_of(painted.images), greys[-1], atol=1e-6)
    for grey in greys[1:]:
        np.testing.assert_array_equal(grey, greys[0])
    np.testing.assert_allclose(greys[0] * 255, plain.train.images // 2, atol=1e-4)
    colours = quality.with_chroma(
        np.full((10, 1, 1, 1), 0.5), recolouring.hues(10).reshape(10, 1, 1, 2)
    )
    assert colours.min() > 0 and colours.max() < 1
    assert not recolouring.hue_right(np.repeat(greys[0], 3, -1), plain.train.labels, 10).any()


def test_the_lookup_is_the_mean_chroma_of_a_grey_level():
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8)
    grey = recolouring.grey_of(images)
    table = recolouring.lookup(grey, images)
    chroma = quality.chroma(to_unit(images))
    for level in (60, 128, 130):
        own = np.round(grey[..., 0] * 255) == level
        expected = chroma[own].mean(0) if own.any() else chroma.mean((0, 1, 2))
        np.testing.assert_allclose(table[level], expected, atol=1e-6)


def test_your_colours_are_not_shown_among_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(60):
        file = tmp_path / "private" / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(file)
    faces = replace(
        recolouring.Config().faces,
        epochs=1,
        network=AutoencoderConfig((12, 12, 3), (4,), 3, (4,), 3),
    )
    config = recolouring.Config(data=str(tmp_path / "private"), size=(12, 12), faces=faces, shown=3)
    with jax.numpy_dtype_promotion("standard"):
        rows = recolouring.main(config, results=tmp_path / "results")
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["recolouring_private.json"]
    text = (tmp_path / "results" / "recolouring_private.json").read_text()
    assert str(tmp_path) not in text and json.loads(text)["config"]["data"] == "private"
    assert Path("oipjax-out/recolouring/recolouring_private.png").exists()
    assert {row["hue right"] for row in rows} == {None} and asdict(config)["data"] not in text
