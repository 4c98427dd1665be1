"""Every experiment and benchmark runs, small."""

import importlib
import json
import pkgutil
import runpy
import warnings

import jax
import pytest

import experiments
import experiments.benchmarks
from oipjax.data import mnist as data

NAMES = [
    f"{package.__name__}.{module.name}"
    for package in (experiments, experiments.benchmarks)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg and module.name != "common"
]


TRAIN = ("weight_decay", "training_trajectory", "compression", "denoising", "recolouring")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_for_and_runs(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    for word in ("Question:", "Expected:", "Cost:", f"python -m {name}"):
        assert word in module.__doc__
    options = {}
    if name.endswith(TRAIN):
        options = {"digits": data.sample_dataset()}
        monkeypatch.chdir(tmp_path)  # where autoencoders are kept
    with jax.numpy_dtype_promotion("standard"):
        assert module.main(module.SMOKE, results=tmp_path, **options)
    (written,) = tmp_path.glob("*.json")
    assert {"processor", "cores", "date", "versions", "device"} <= set(
        json.loads(written.read_text())["machine"]
    )


@pytest.mark.slow
def test_the_classic_rule_has_the_published_shape(tmp_path):
    from experiments import classic_curve

    with jax.numpy_dtype_promotion("standard"):
        rows = classic_curve.main(classic_curve.Config(draws=256, starts=1), results=tmp_path)[
            "rows"
        ]
    assert [row[-1] for row in rows if row[-1] is not None] == [True] * 5, rows


def test_one_network_is_not_enough():
    from experiments import oip_transfer, retrained_networks

    with pytest.raises(ValueError, match=r"two or more networks to compare, got \(0,\)"):
        retrained_networks.Config((0,), ())
    with pytest.raises(ValueError, match=r"some of the seeds \(0, 1\), got \(2,\)"):
        retrained_networks.Config((0, 1), (2,))
    with pytest.raises(ValueError, match="two or more networks.*name a second"):
        oip_transfer.Config(("mnist-cnn",))


def run_as_program(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module(name, run_name="__main__")


@pytest.mark.parametrize("name", NAMES)
def test_its_options_explain_themselves(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        run_as_program(name)
    told = capsys.readouterr().out
    assert "--results" in told and "Question:" in told


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "retrained_networks",
            ["--seeds", "0"],
            "expected the seeds of two or more networks to compare, got (0,)",
        ),
        ("weight_decay", ["--data", "nowhere"], "nowhere: no such folder"),
        ("class_patterns", ["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    name, options, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.argv", [name, *options, "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        run_as_program(f"experiments.{name}")
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
