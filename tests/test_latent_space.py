"""The study of the latent space with your images, and what it says of input that cannot be used."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import decoder_space, latent_space
from experiments.common import command
from experiments.latent_space import Config
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder, checkpoint

SMALL = AutoencoderConfig((8, 8, 3), (4,), 3, (4,), 5)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with an autoencoder, and 150 pictures without classes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(
        tmp_path / "small", Autoencoder(SMALL, autoencoder.init(jax.random.key(0), SMALL)), {}
    )
    rng = np.random.default_rng(0)
    (tmp_path / "own").mkdir()
    for number in range(150):
        pixels = rng.integers(0, 256, (12, 10, 3), np.uint8) // (1 + number % 2)
        Image.fromarray(pixels).save(tmp_path / "own" / f"{number:03d}.png")
    (tmp_path / "own" / "zz.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path


@pytest.mark.slow
def test_your_images_are_shown_nowhere_but_in_a_folder_for_it(place, capsys):
    lines = [f"{number:03d}.png,{1 if number % 2 else -1},-1" for number in range(149)]
    (place / "table.csv").write_text("\n".join([",dark,never", *lines]))
    config = Config(
        "small",
        data=place / "own",
        crop=(0, 1, 10, 11),
        test=0.3,
        attributes=place / "table.csv",
        name="noise",
        boxes=(1.0,),
        confidences=(0.9,),
        draws=30,
        projection="pca",
    )
    with jax.numpy_dtype_promotion("standard"):
        rows = latent_space.main(config, place / "results")
    assert "left out: zz.jpg" in capsys.readouterr().err
    assert all(row["confidence"] is None and 0 <= row["coverage"] <= 1 for row in rows)
    assert {path.name for path in (place / "results").iterdir()} == {
        "latent_space_noise.json",
        "latent_space_noise_region.png",
    }
    assert {path.name for path in latent_space.PICTURES.iterdir()} == {
        "latent_space_noise.png",
        "latent_space_noise_attributes.png",
    }
    text = (place / "results" / "latent_space_noise.json").read_text()
    found = json.loads(text)
    assert str(place) not in text and found["config"]["data"] == "own"
    (dark,) = found["attributes"]
    assert dark["attribute"] == "dark" and dark["AUC along the vector"] > 0.9
    assert set(found["region"]["bodies"]) == {"codes", "fitted normal"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--autoencoder", "nowhere"], "nowhere: no checkpoint there"),
        (["--latent", "32"], "has 5 latent numbers, expected 32"),
        (["--data", "empty"], "empty: no images there"),
        (["--data", "nowhere"], "nowhere: no such folder or file"),
        (["--data", "own", "--crop", "0", "0", "99", "99"], "too small for the crop"),
        (["--data", "own", "--attributes", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--crop", "0", "0", "9", "9"], "are for your images"),
        (["--data", "own", "--classifier", "mnist-cnn"], "takes images (28, 28, 1), "),
        (["--data", "own", "--feature", "dense7"], "has no layer 'dense7'; it has conv1_pre"),
        ([], "takes images (8, 8, 3), those of mnist"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(place, monkeypatch, capsys, arguments, words):
    (place / "empty").mkdir()
    (place / "own" / "zz.jpg").unlink()
    monkeypatch.setattr(sys, "argv", ["latent_space", *(["--autoencoder", "small", *arguments])])
    with pytest.raises(SystemExit) as stop, jax.numpy_dtype_promotion("standard"):
        command(latent_space.main, Config, latent_space.__doc__, place / "results")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1


def test_the_decoder_study_takes_options(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["decoder_space", "--autoencoder", "nowhere", "--maps", "3", "--draws", "8"]
    )
    with pytest.raises(SystemExit) as stop, jax.numpy_dtype_promotion("standard"):
        command(decoder_space.main, decoder_space.Config, decoder_space.__doc__, tmp_path)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(
        "nowhere: no checkpoint there"
    )
