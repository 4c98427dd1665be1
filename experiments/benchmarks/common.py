"""Benchmarks beside other libraries: environments of their own, and processes that answer."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

import oipjax

SCRIPTS = Path(__file__).parent / "peer"
LAYER = "conv3"
ALL = 1 << 30
"""A batch size above every number of images."""


@dataclass(frozen=True)
class Environment:
    """The packages of a peer.

    Attributes:
        installs: arguments of one ``pip install`` after the other.
        remark: facts about the installation that a person should know.
    """

    installs: tuple[str, ...]
    remark: str


ENVIRONMENTS = {
    "torch": Environment(
        (
            "torch==2.13.0 numpy==2.4.6 pillow==13.0.0 tqdm==4.70.1 decorator==5.3.1"
            " ipython==9.18.1",
            "--no-deps torch-lucent==0.1.8 kornia==0.4.1 torchvision==0.28.0",
        ),
        "a plain install of torch-lucent takes the newest torch, on PyPI built for CUDA (gigabytes;"
        " without them it does not import), test tools, and kornia of 2020. With torch's CPU wheels"
        " (pip finds them with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu) it is 1"
        " GB. If torchvision still comes from PyPI, it then fails to import until the names of two"
        " operators are defined, which run_lucent.py does",
    ),
    "tf-keras-vis": Environment(
        ("tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 tf-keras-vis==0.8.7",),
        "installs cleanly beside tensorflow-cpu, which it leaves to the user",
    ),
    "xplique": Environment(
        (
            "tensorflow-cpu==2.20.0 keras==3.15.1 tf_keras==2.20.1 tensorflow-probability==0.25.0"
            " numpy==2.4.6 deprecated==1.3.1 einops==0.8.2 matplotlib==3.11.2"
            " opencv-python-headless==5.0.0.93 scikit-image==0.25.2 scikit-learn==1.7.2"
            " scipy==1.15.3",
            "--no-deps xplique==2.0.2",
        ),
        "a plain install takes tensorflow[and-cuda] (gigabytes), opencv with its graphical parts,"
        " and ruff; installed without dependencies, tensorflow-cpu and the rest by hand suffice",
    ),
}


@dataclass(frozen=True)
class Contender:
    """A script of ``peer/`` in one of its environments.

    Attributes:
        name: in tables.
        script: file name.
        environment: a key of `ENVIRONMENTS`; empty for this one.
        variants: settings to try.
        space: name of the image space of its images.
        classic: whether it climbs by the classic rule.
    """

    name: str
    script: str
    environment: str
    variants: tuple[str, ...]
    space: str = "box"
    classic: bool = False


def python_of(environment: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made if it is missing or differs.

    Raises:
        RuntimeError: it cannot be made; the message says why.
    """
    if not environment:
        return Path(sys.executable)
    installs = ENVIRONMENTS[environment].installs
    place = folder.expanduser() / environment
    record = place / "installed.json"
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if record.exists() and tuple(json.loads(record.read_text())) == installs:
        return python
    print(f"making {place}", flush=True)
    venv.create(place, clear=True, with_pip=False)
    for install in installs:
        command = [*_pip(), "--python", str(python), "install", "--quiet", *install.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(_last_line(done.stderr))
    record.write_text(json.dumps(installs))
    return python


def _pip() -> list[str]:
    for python in (sys.executable, shutil.which("python3")):
        if python is None:
            continue
        command = [python, "-m", "pip"]
        done = subprocess.run([*command, "--version"], capture_output=True, check=False)
        if not done.returncode:
            return command
    raise RuntimeError("there is no pip")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


class Process:
    """A contender at work: it has built its network, and answers requests until it is closed.

    Args:
        contender: the script and its environment.
        folder: with the network; its log goes there too.
        environments: folder of all environments.
    """

    def __init__(self, contender: Contender, folder: Path, environments: Path):
        python = python_of(contender.environment, environments)
        self.out = folder / "out.npy"
        self.log = folder / "log"
        begin = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, SCRIPTS / contender.script, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_without_compiled_programs(),
            )
        try:
            self.facts = self._read()
        except BaseException:
            self.close()
            raise
        self.start = time.perf_counter() - begin

    def ask(
        self, setting: str, targets: np.ndarray, steps: int, batch: int = ALL, seed: int = 0
    ) -> tuple[float, np.ndarray]:
        """Seconds, and network inputs ``[n, h, w, c]``."""
        request = {
            "setting": setting,
            "targets": np.asarray(targets).tolist(),
            "steps": steps,
            "batch": batch,
            "seed": seed,
            "out": str(self.out),
        }
        stream = self._pipe(self.process.stdin)
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        return self._read()["seconds"], np.load(self.out)

    def _pipe(self, stream: IO[str] | None) -> IO[str]:
        if stream is None:
            raise RuntimeError("the process has no pipes")
        return stream

    def _read(self) -> dict[str, Any]:
        line = self._pipe(self.process.stdout).readline()
        if not line:
            self.process.wait()
            raise RuntimeError(_last_line(self.log.read_text(errors="replace")))
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()


def _without_compiled_programs() -> dict[str, str]:
    """The environment's variables, without JAX's cache of compiled programs."""
    environment = dict(os.environ)
    for name in os.environ:
        if name.startswith("JAX_COMPILATION_CACHE"):
            del environment[name]
    return environment


@contextlib.contextmanager
def exported(model: oipjax.Model) -> Iterator[Path]:
    """A folder with the network, as the scripts read it."""
    images = model.to_input(np.random.default_rng(0).random((4, *model.input_shape)))
    mean, std = model.normalisation
    arrays: dict[str, Any] = {"mean": mean, "std": std, "check_images": images}
    arrays["check_conv3"] = model.apply(model.params, jnp.asarray(images))[LAYER]
    for layer, parameters in model.params.items():
        for name, value in parameters.items():
            arrays[f"{layer}_{name}"] = value
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "network.npz", **arrays)
        yield Path(name)
