"""Checkpoints: round trip, and every kind of damage named."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import oipjax
from oipjax.networks import checkpoint, cnn
from oipjax.pytrees import check_finite, fingerprint


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a.params, b.params))


def test_round_trip(tiny, tiny_folder):
    model = oipjax.load(tiny_folder)
    assert same(model, tiny) and model.apply == tiny.apply and hash(model.apply) == hash(tiny.apply)
    for name in ("name", "layers", "input_shape", "mean", "std", "nonlinearities", "classes"):
        assert getattr(model, name) == getattr(tiny, name)


def test_no_file_tells_where_it_was_written(tiny_folder):
    files = [
        path
        for folder in (tiny_folder, *checkpoint.shipped().values())
        for path in folder.rglob("*")
    ]
    for path in files:
        if path.is_file():
            assert str(tiny_folder.parent).encode() not in path.read_bytes(), path
    assert not any(path.name == "commit_success.txt" for path in files)


def test_the_shipped_network_is_what_it_says():
    model = oipjax.load()
    facts = checkpoint.read_facts(checkpoint.shipped()[checkpoint.DEFAULT])
    training = facts["training"]
    assert training["test_accuracy"] >= 0.992 and training["test_images"] == 10_000
    assert np.trace(training["confusion"]) == round(10_000 * training["test_accuracy"])
    assert (
        training["config"]["seed"] == 0 and len(training["history"]) == training["config"]["epochs"]
    )
    assert fingerprint(model.params) == facts["parameters"]["sha256"]
    assert model.layer("conv3").shape == (3, 3, 128) and model.layer("conv3").floor == 0
    assert model.default_layer == "conv3"


def test_the_shipped_network_reads_the_sample():
    from oipjax import training
    from oipjax.data import mnist as data

    model = oipjax.load()
    confusion, loss = training.evaluate_classifier(model, model.params, data.sample())
    assert confusion.sum() == 1000 and np.trace(confusion) >= 990 and loss < 0.05


def test_one_flipped_bit_anywhere_is_noticed_or_harmless(tiny, tiny_folder, tmp_path):
    rng = np.random.default_rng(0)
    files = sorted(
        path.relative_to(tiny_folder) for path in tiny_folder.rglob("*") if path.is_file()
    )
    for number, name in enumerate(name for name in files for _ in range(3)):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tiny_folder, copy)
        content = bytearray((copy / name).read_bytes())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (copy / name).write_bytes(content)
        try:
            model = oipjax.load(copy)
        except ValueError as error:
            assert str(copy) in str(error) and "\n" not in str(error)
        else:
            # A digit beyond the precision of a float, at most.
            assert name == Path(checkpoint.FILE) and same(model, tiny)
            for fact in (
                "name",
                "apply",
                "layers",
                "input_shape",
                "mean",
                "std",
                "nonlinearities",
                "classes",
            ):
                assert getattr(model, fact) == getattr(tiny, fact)


def test_a_flipped_bit_in_the_largest_file_is_named(tiny_folder):
    largest = max(
        (tiny_folder / "params").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        oipjax.load(tiny_folder)


def edit(folder: Path, change) -> None:
    facts = json.loads((folder / checkpoint.FILE).read_text())
    change(facts)
    facts["sha256"] = checkpoint.digest(facts)
    (folder / checkpoint.FILE).write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f: f["architecture"]["config"].update(filters=[4, 7]),
            "do not fit the architecture.*conv2/",
        ),
        (lambda f: f["architecture"]["config"].update(dense=[]), "do not fit the architecture"),
        (lambda f: f["architecture"]["config"].update(filters="x"), "damaged"),
        (lambda f: f["architecture"]["config"].update(nonsense=1), "damaged"),
        (lambda f: f["architecture"].update(type="RNN"), "'RNN'"),
        (lambda f: f.update(schema=99), "schema 99"),
        (lambda f: f["parameters"].update(sha256="0" * 64), "sha256"),
        (lambda f: f.pop("normalisation"), "damaged"),
        (lambda f: f.pop("parameters"), "damaged"),
        (lambda f: f.pop("files"), "damaged"),
        (lambda f: f["files"].update({"params/nothing": "0"}), "params/nothing: missing"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(tiny_folder, change, words):
    edit(tiny_folder, change)
    with pytest.raises(ValueError, match=words):
        oipjax.load(tiny_folder)


def test_missing_things_are_named(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint there.*mnist-cnn"):
        oipjax.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no checkpoint there"):
        oipjax.load("no-such-name")
    shutil.rmtree(tiny_folder / "params")
    with pytest.raises(ValueError, match=r"params/\S+: missing or damaged"):
        oipjax.load(tiny_folder)
    (tiny_folder / checkpoint.FILE).write_text("{")
    with pytest.raises(ValueError, match=r"checkpoint.json: cannot be read"):
        oipjax.load(tiny_folder)


def test_nan_in_the_weights_is_named(tiny, tmp_path):
    bad = jax.tree.map(np.array, tiny.params)
    bad["conv2"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in the parameters conv2/kernel"):
        check_finite(bad, "x")
    model = cnn.model(bad, tiny.apply.config, name="bad")
    folder = checkpoint.save(tmp_path / "bad", model, {})
    with pytest.raises(ValueError, match="conv2/kernel"):
        oipjax.load(folder)


def test_nothing_is_overwritten_unasked(tiny, tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="--overwrite replaces it"):
        checkpoint.save(tiny_folder, tiny, {})
    checkpoint.save(tiny_folder, tiny, {"second": True}, overwrite=True)
    assert checkpoint.read_facts(tiny_folder)["training"] == {"second": True}
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_text("x")
    with pytest.raises(ValueError, match=r"holds other things \(a.jpg\)"):
        checkpoint.save(other, tiny, {}, overwrite=True)


def test_places_where_no_checkpoint_can_be_are_named_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for place, words in (
        ("file", "is a file"),
        ("file/below", "cannot be written"),
        (".", "current folder"),
    ):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=words):
            checkpoint.check_free(Path(place), overwrite=True)


def test_a_changed_word_in_the_json_is_noticed(tiny_folder):
    facts = json.loads((tiny_folder / checkpoint.FILE).read_text())
    facts["normalisation"]["std"] = [0.3307]
    (tiny_folder / checkpoint.FILE).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="content is not what it was written with"):
        oipjax.load(tiny_folder)


def test_the_fingerprint_sees_everything(tiny):
    base = fingerprint(tiny.params)
    for change in (
        lambda p: p["conv1"]["bias"].__setitem__(
            0, np.nextafter(p["conv1"]["bias"][0], np.float32(9))
        ),
        lambda p: p["conv1"].update(bias=p["conv1"]["bias"].astype(np.float64)),
        lambda p: p["conv1"].update(bias=p["conv1"]["bias"][None]),
        lambda p: p.update(conv3=p.pop("conv1")),
    ):
        params = jax.tree.map(np.array, tiny.params)
        assert fingerprint(params) == base
        change(params)
        assert fingerprint(params) != base
