"""The steps of CONTRIBUTING.md: an objective, a space and a command, each added in one place."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import oipjax
from oipjax import Map, Objective, Standardised, TotalVariation

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)


def code_after(heading: str) -> str:
    """The first block of Python below a heading of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index(f"### {heading}") :]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


def defined(heading: str, name: str):
    """The class that a block of CONTRIBUTING.md defines."""
    names = {
        "dataclass": dataclass,
        "jnp": jnp,
        "Map": Map,
        "Objective": Objective,
        "Standardised": Standardised,
    }
    exec(compile(code_after(heading), "CONTRIBUTING.md", "exec"), names)
    return names[name]


def test_a_toy_objective(tiny):
    peak = defined("A toy objective", "Peak")
    targets = np.array([2, 3, 4])
    run = oipjax.ascend(KEY, tiny, peak("conv1"), targets % 4, np.arange(3), steps=8)
    activations = tiny.apply(tiny.params, jnp.asarray(run.images))["conv1"]
    highest = np.asarray(activations).max((1, 2))[np.arange(3), targets % 4]
    np.testing.assert_allclose(run.scores, highest, rtol=1e-5)
    assert (run.scores >= run.start_scores).all()
    both = 2 * peak("conv1") - TotalVariation()
    summed = oipjax.ascend(KEY, tiny, both, (targets % 4,), np.arange(3), steps=3)
    assert summed.scores.shape == (3,)


def test_a_toy_space(tiny):
    mirrored = defined("A toy space", "Mirrored")
    space = mirrored(tiny.input_shape, oipjax.space_for(tiny).starts)
    atlas = oipjax.atlas(KEY, tiny, "conv2", space=space, draws=32, keep=2, steps=6, search=0)
    images = atlas.images
    np.testing.assert_allclose(images, images[:, :, :, ::-1], atol=1e-6)
    assert atlas.counts["found"] > 0


def test_a_toy_command(tmp_path):
    copy = tmp_path / "oipjax"
    shutil.copytree(ROOT / "oipjax", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "cli" / "hello.py").write_text(code_after("A toy command"))
    main = copy / "cli" / "main.py"
    text = main.read_text()
    changed = text.replace("COMMANDS = {\n", 'COMMANDS = {\n    "hello": "greet a person",\n')
    assert changed != text
    main.write_text(changed)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "oipjax.cli", *arguments]
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(command, check=True, **options).stdout

    assert call("hello", "--name", "you") == "hello you\n"
    assert "whom to greet" in call("hello", "--help")
    assert "hello" in call("--help")
