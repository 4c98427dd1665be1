"""What benchmarks beside other libraries share: environments of their own, and processes that answer."""

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
from typing import Any

import jax.numpy as jnp
import numpy as np

import oipjax

SCRIPTS = Path(__file__).parent / "peer"
LAYER = "conv3"
NO_CACHE = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("JAX_COMPILATION_CACHE")
}


@dataclass(frozen=True)
class Environment:
    """What a peer needs, as arguments of one ``pip install`` after the other, and what a person should know of it."""

    installs: tuple[str, ...]
    remark: str


ENVIRONMENTS = {
    "torch": Environment(
        (
            "torch==2.13.0 numpy==2.4.6 pillow==13.0.0 tqdm==4.70.1 decorator==5.3.1 ipython==9.18.1",
            "--no-deps torch-lucent==0.1.8 kornia==0.4.1 torchvision==0.28.0",
        ),
        "a plain install of torch-lucent takes the newest torch, on PyPI built for CUDA (gigabytes; without"
        " them it does not import), test tools, and kornia of 2020. With torch's CPU wheels (in reach of pip by"
        " PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu) it is 1 GB; torchvision, if it still comes from"
        " PyPI, then fails to import until the names of two operators are defined, which run_lucent.py does",
    ),
    "tf-keras-vis": Environment(
        ("tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 tf-keras-vis==0.8.7",),
        "installs cleanly beside tensorflow-cpu, which it leaves to the user",
    ),
    "xplique": Environment(
        (
            "tensorflow-cpu==2.20.0 keras==3.15.1 tf_keras==2.20.1 tensorflow-probability==0.25.0 numpy==2.4.6"
            " deprecated==1.3.1 einops==0.8.2 matplotlib==3.11.2 opencv-python-headless==5.0.0.93 scikit-image==0.25.2"
            " scikit-learn==1.7.2 scipy==1.15.3",
            "--no-deps xplique==2.0.2",
        ),
        "a plain install takes tensorflow[and-cuda] (gigabytes), opencv with its graphical parts, and ruff; without"
        " dependencies, and the rest by hand, tensorflow-cpu does",
    ),
}


@dataclass(frozen=True)
class Contender:
    """A script of ``peer/``, the environment it runs in (none: this one), and the settings to try."""

    name: str
    script: str
    environment: str
    variants: tuple[str, ...]
    space: str = "box"
    classic: bool = False


def python_of(environment: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made if it is missing or not what it should be.

    Raises:
        RuntimeError: it cannot be made; the message says why.
    """
    if not environment:
        return Path(sys.executable)
    wanted, place = ENVIRONMENTS[environment].installs, folder.expanduser() / environment
    made, python = (
        place / "installed.json",
        place / ("Scripts" if os.name == "nt" else "bin") / "python",
    )
    if made.exists() and tuple(json.loads(made.read_text())) == wanted:
        return python
    print(f"making {place}", flush=True)
    venv.create(place, clear=True, with_pip=False)
    for install in wanted:
        command = [*_pip(), "--python", str(python), "install", "--quiet", *install.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(_last_line(done.stderr))
    made.write_text(json.dumps(wanted))
    return python


def _pip() -> list[str]:
    for python in filter(None, (sys.executable, shutil.which("python3"))):
        if not subprocess.run(
            [python, "-m", "pip", "--version"], capture_output=True, check=False
        ).returncode:
            return [python, "-m", "pip"]
    raise RuntimeError("there is no pip")


def _last_line(text: str) -> str:
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message"
    )


class Process:
    """A contender at work: it has built its network, and answers requests until it is closed."""

    def __init__(self, contender: Contender, folder: Path, environments: Path):
        python, self.out, self.log = (
            python_of(contender.environment, environments),
            folder / "out.npy",
            folder / "log",
        )
        begin = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, SCRIPTS / contender.script, folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=NO_CACHE,
            )  # fmt: skip
        try:
            self.facts = self._read()
        except BaseException:
            self.close()
            raise
        self.start = time.perf_counter() - begin

    def ask(
        self, setting: str, targets: np.ndarray, steps: int, batch: int = 1 << 30, seed: int = 0
    ) -> tuple[float, np.ndarray]:
        """Seconds, and network inputs ``[n, h, w, c]``."""
        request = {
            "setting": setting, "targets": [int(target) for target in targets], "steps": steps, "batch": batch,
            "seed": seed, "out": str(self.out),
        }  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()["seconds"], np.load(self.out)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
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


@contextlib.contextmanager
def exported(model: oipjax.Model) -> Iterator[Path]:
    """A folder with the network, as the scripts read it."""
    images = model.to_input(np.random.default_rng(0).random((4, *model.input_shape)))
    arrays: dict[str, Any] = dict(zip(("mean", "std"), model.normalisation, strict=True))
    arrays |= {
        "check_images": images,
        "check_conv3": model.apply(model.params, jnp.asarray(images))[LAYER],
    }
    for layer, both in model.params.items():
        arrays |= {f"{layer}_{name}": value for name, value in both.items()}
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "network.npz", **arrays)
        yield Path(name)
