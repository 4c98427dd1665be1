"""Every experiment and benchmark runs, small."""

import importlib
import json
import pkgutil

import jax
import pytest

import experiments
import experiments.benchmarks
from oipjax import data

NAMES = [
    f"{package.__name__}.{module.name}"
    for package in (experiments, experiments.benchmarks)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg and module.name != "common"
]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_for_and_runs(name, tmp_path):
    module = importlib.import_module(name)
    for word in ("Question:", "Expected:", "Cost:", f"python -m {name}"):
        assert word in module.__doc__
    trains = name.endswith(("weight_decay", "training_trajectory"))
    options = {"digits": data.sample_dataset()} if trains else {}
    with jax.numpy_dtype_promotion("standard"):
        assert module.main(module.SMOKE, results=tmp_path, **options)
    (written,) = tmp_path.glob("*.json")
    assert {"processor", "cores", "date", "versions", "device"} <= set(json.loads(written.read_text())["machine"])


def test_the_classic_rule_has_the_published_shape(tmp_path):
    from experiments import classic_curve

    with jax.numpy_dtype_promotion("standard"):
        rows = classic_curve.main(classic_curve.Config(draws=256, starts=1), results=tmp_path)["rows"]
    assert [row[-1] for row in rows if row[-1] is not None] == [True] * 5, rows


def test_one_network_is_not_enough():
    from experiments import oip_transfer, retrained_networks

    with pytest.raises(ValueError, match=r"two or more networks to compare, got \(0,\)"):
        retrained_networks.Config((0,), ())
    with pytest.raises(ValueError, match=r"some of the seeds \(0, 1\), got \(2,\)"):
        retrained_networks.Config((0, 1), (2,))
    with pytest.raises(ValueError, match="two or more networks.*name a second"):
        oip_transfer.Config(("mnist-cnn",))
