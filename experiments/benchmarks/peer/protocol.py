"""What the worker scripts share: the exported network, and the conversation with the benchmark.

Each script of this folder runs in an environment of its own, so nothing is imported but the
standard library and numpy. The benchmark starts ``python run_NAME.py FOLDER``. The folder holds
``network.npz``: kernels ``[h, w, in, out]`` and biases of the three convolutions and the two dense
    layers, the normalisation, and a few images with what the
third convolution answers to them. Then one JSON line goes each way for every request:

    {"setting": name, "targets": [maps], "steps": n, "batch": n, "seed": n, "out": path or null}
    {"seconds": wall time of all batches, "calls": number of batches}

and the images ``[n, h, w, c]``, network inputs in the order of the targets, are written to ``out``.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

CONVOLUTIONS = ("conv1", "conv2", "conv3")
DENSE = ("dense1", "logits")
CLOSE = 1e-3


class Worker(Protocol):
    """One way to climb, in one framework."""

    def versions(self) -> dict[str, str]:
        """Names and versions of the packages that matter."""
        ...

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """Activations ``[n, h, w, k]`` of the third convolution after its ReLU, for network inputs ``[n, h, w, c]``."""
        ...

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """Network inputs ``[n, h, w, c]`` that excite the maps ``targets``, all climbed in one batch."""
        ...


def serve(build: Callable[[dict[str, np.ndarray]], Worker]) -> None:
    """Build the worker, check its network, and answer requests until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # whatever a library prints must not end up among the answers
    with np.load(Path(sys.argv[1]) / "network.npz") as file:
        network = dict(file)
    worker = build(network)
    expected = network["check_conv3"]
    difference = float(
        np.abs(worker.conv3(network["check_images"]) - expected).max() / np.abs(expected).max()
    )
    if not difference < CLOSE:
        raise SystemExit(
            f"conv3 differs from the exported network's by {difference:.2g}, relatively"
        )
    _say(answers, {"versions": worker.versions(), "difference": difference})
    for line in sys.stdin:
        _say(answers, _answer(worker, **json.loads(line)))


def _answer(
    worker: Worker,
    setting: str,
    targets: list[int],
    steps: int,
    batch: int,
    seed: int,
    out: str | None,
) -> dict[str, Any]:
    begin = time.perf_counter()
    starts = range(0, len(targets), batch)
    parts = [
        worker.climb(setting, targets[first : first + batch], steps, 1000 * seed + number)
        for number, first in enumerate(starts)
    ]
    seconds = time.perf_counter() - begin
    if out is not None:
        np.save(out, np.concatenate(parts).astype(np.float32))
    return {"seconds": seconds, "calls": len(starts)}


def _say(stream: Any, content: dict[str, Any]) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()
