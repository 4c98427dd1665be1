"""The space of a decoder's images, with a small random autoencoder."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import oipjax
from oipjax import records
from oipjax.cli import main as cli
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder, checkpoint
from oipjax.objectives import Map
from oipjax.search import make_starts
from oipjax.spaces import Decoder, accepts_images, decoder_space
from oipjax.study import DEAD, plan_study

KEY = jax.random.key(4)
CONFIG = AutoencoderConfig((8, 8, 1), (3, 4), 3, (2, 1), 5)
OPTIONS: dict[str, Any] = {
    "draws": 32,
    "keep": 3,
    "steps": 8,
    "screen": 2,
    "restarts": 2,
    "search": 2,
    "tile": 4,
}


def made(seed: int = 0) -> Autoencoder:
    return Autoencoder(CONFIG, autoencoder.init(jax.random.key(seed), CONFIG), name="small")


def space_of(model, seed: int = 0, **options) -> Decoder:
    network = made(seed)
    mixed = (
        np.random.default_rng(1).normal(size=(40, 5)) @ np.random.default_rng(2).normal(size=(5, 5))
        + 1
    )
    return decoder_space(
        model, "small", network.decode, {"decoder": network.params["decoder"]}, mixed, **options
    )


@pytest.fixture
def space(tiny) -> Decoder:
    return space_of(tiny)


def test_it_is_a_value(tiny, space):
    assert space == space_of(tiny) and hash(space) == hash(space_of(tiny))
    assert space != space_of(tiny, 1) and space != space_of(tiny, confidence=0.9)


def test_images_lie_in_the_box_and_are_what_the_decoder_makes(tiny, space):
    z = jax.vmap(space.init)(jax.random.split(KEY, 50))
    images = np.asarray(jax.vmap(space.render)(z))
    low, high = tiny.input_box
    assert images.shape == (50, 8, 8, 1) and (images >= low).all() and (images <= high).all()
    assert space.domain.contains(images).all()
    arrays, network = space.fixed.arrays, made()
    latent = arrays["mean"] + np.asarray(z) @ arrays["factor"].T
    expected = tiny.to_input(np.asarray(network.decode(network.params, jnp.asarray(latent))))
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-5)


def test_projection_leads_into_the_ellipsoid_and_stays_there(space):
    z = 4 * jax.random.normal(KEY, (100, 5))
    inside = np.asarray(jax.vmap(space.project)(z))
    radius = scipy.stats.chi2.ppf(0.99, 5) ** 0.5
    np.testing.assert_allclose(space.radius, radius)
    assert (np.linalg.norm(inside, axis=1) <= radius * (1 + 1e-6)).all()
    np.testing.assert_allclose(jax.vmap(space.project)(inside), inside, rtol=1e-6)
    short = np.linalg.norm(z, axis=1) < radius
    assert 0 < short.sum() < 100
    np.testing.assert_array_equal(inside[short], np.asarray(z)[short])
    np.testing.assert_array_equal(space.project(jnp.zeros(5)), 0)


def test_no_image_can_be_a_start(space):
    assert space.from_image(jnp.zeros((8, 8, 1))) is None and not accepts_images(space)


def test_the_tangent_does_not_lead_out(space):
    z = space.project(100 * jnp.arange(1.0, 6))
    gradient = jnp.array([1.0, 0, 0, 0, 2])
    along = space.tangent(z, gradient)
    assert abs(float(jnp.vdot(along, z))) < 1e-4
    np.testing.assert_array_equal(space.tangent(z, -gradient), -gradient)
    np.testing.assert_array_equal(space.tangent(z / 2, gradient), gradient)


def test_ascent_raises_the_score_and_gives_it_again(tiny, space):
    run = oipjax.ascend(
        KEY, tiny, Map("conv1"), np.arange(4), np.arange(4), space=space, steps=30, tile=4
    )
    assert (run.scores >= run.start_scores).all() and (run.scores > run.start_scores).sum() >= 3
    again = np.asarray(tiny.apply(tiny.params, run.images)["conv1"]).mean((1, 2))[
        np.arange(4), np.arange(4)
    ]
    np.testing.assert_allclose(again, run.scores, rtol=1e-5)
    assert space.domain.contains(run.images).all()


@pytest.mark.parametrize("bounds", ["none", "cheap"])
def test_a_map_alone_has_the_bits_of_the_crowd(tiny, space, bounds):
    crowd = oipjax.atlas(KEY, tiny, "conv2", space=space, bounds=bounds, **OPTIONS)
    assert bounds == "none" or crowd.status[0] == DEAD
    alone = oipjax.atlas(KEY, tiny, "conv2", maps=(3,), space=space, bounds=bounds, **OPTIONS)
    for name in ("images", "scores", "start_index", "trace", "status"):
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(crowd, name)[3])


def test_exemplars_and_every_restart_strategy_are_harmless(tiny, space):
    digits = np.zeros((3, 8, 8, 1), np.float32)
    found = oipjax.atlas(KEY, tiny, "conv2", space=space, exemplars=digits, **OPTIONS)
    assert not set(found.found_by) & {"exemplar", "relaxation", "strips"}
    assert (found.scores[:, 0] >= found.start_scores.max(1)).all()


def test_starts_are_the_same_whoever_asks(space):
    np.testing.assert_array_equal(
        make_starts(KEY, space, np.arange(9), tile=4)[[2, 7]],
        make_starts(KEY, space, np.array([2, 7]), tile=4),
    )


def test_a_record_is_resumed_and_read(tiny, space, tmp_path):
    study = plan_study(KEY, tiny, "conv2", space=space, **OPTIONS)
    straight = records.make(tmp_path / "straight", study).atlas

    def interrupt(phase, done, total):
        if phase == "ascent-on":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.make(tmp_path / "cut", study, progress=interrupt)
    made_again = records.make(
        tmp_path / "cut", plan_study(KEY, tiny, "conv2", space=space_of(tiny), **OPTIONS)
    )
    assert made_again.manifest["resumed"]
    np.testing.assert_array_equal(made_again.atlas.images, straight.images)
    read, manifest = records.read(tmp_path / "cut")
    np.testing.assert_array_equal(read.images, straight.images)
    described = manifest["config"]["space"]
    assert (
        manifest["image_space"] == described["name"] == "Decoder"
        and described["autoencoder"] == "small"
    )
    assert len(described["fixed"]["sha256"]) == 64 and len(json.dumps(described)) < 1000
    with pytest.raises(ValueError, match="fixed.sha256"):
        records.make(
            tmp_path / "cut", plan_study(KEY, tiny, "conv2", space=space_of(tiny, 1), **OPTIONS)
        )


def test_bad_input(tiny, linear):
    network, codes = made(), np.random.default_rng(0).normal(size=(20, 5))
    params = {"decoder": network.params["decoder"]}
    for model, given, message in (
        (linear, codes, r"linear takes images \(6, 5, 2\), small makes \(8, 8, 1\)"),
        (tiny, codes[:5], r"more vectors than numbers, got \[5, 5\]"),
        (tiny, np.repeat(codes[:1], 9, 0), "do not span all 5 directions"),
        (tiny, codes * np.nan, "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder_space(model, "small", network.decode, params, given)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        space_of(tiny, confidence=1)


@pytest.mark.parametrize("command", [("atlas",), ("oip", "--map", "1")])
def test_the_command_line_says_what_is_wrong(tiny_folder, tmp_path, capfd, monkeypatch, command):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "small", made(), {"command": "test"})
    for arguments, message in (
        (("--autoencoder", "nowhere"), "nowhere: no checkpoint there"),
        (("--autoencoder", str(tiny_folder)), "is no autoencoder"),
        (("--autoencoder", str(tmp_path / "small")), "the sample of digits has them"),
        (("--recipe", "3:1"), "leave it out"),
        ((), "expected (8, 8, 1) as tiny has them"),
    ):
        given = [*command, "--checkpoint", str(tiny_folder), "--space", "decoder", *arguments]
        assert cli.main(given) == 2
        error = capfd.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_command_line_with_what_ships(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    small = ["--draws", "32", "--steps", "3", "--space", "decoder", "--tile", "8"]
    assert cli.main(["oip", "--map", "120", *small, "--out", str(tmp_path / "oip")]) == 0
    assert (
        cli.main(
            ["atlas", "--maps", "120", *small, "--bounds", "none", "--out", str(tmp_path / "atlas")]
        )
        == 0
    )
    assert "best score" in capfd.readouterr().out
    config = json.loads((tmp_path / "atlas" / "manifest.json").read_text())["config"]
    assert config["space"]["autoencoder"] == "mnist-autoencoder"
