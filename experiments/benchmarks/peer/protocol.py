"""The parts that all scripts share: the exported network, and the conversation with the benchmark.

Each script of this folder runs in an environment of its own, so this module imports nothing but the
standard library and numpy. The benchmark starts ``python run_NAME.py FOLDER``. The folder holds
``network.npz``: kernels ``[h, w, in, out]`` and biases of the three convolutions and the two dense
layers, the normalisation, and a few images with the activations of the third convolution for them.
Then each request is one JSON line, and so is its answer:

    {"setting": name, "targets": [maps], "steps": n, "batch": n, "seed": n, "out": path or null}
    {"seconds": wall time of all batches, "calls": number of batches}

The images ``[n, h, w, c]`` are written to ``out``, as network inputs in the order of the targets.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Network = dict[str, np.ndarray]
"""The arrays of ``network.npz``, by name."""

CONVOLUTIONS = ("conv1", "conv2", "conv3")
DENSE = ("dense1", "logits")
CLOSE = 1e-3
"""The largest relative difference of a worker's activations from those of the exported network."""


class Worker(Protocol):
    """One way to climb, in one framework."""

    def versions(self) -> dict[str, str]:
        """Names and versions of the packages that matter."""
        ...

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """Activations of the third convolution after its ReLU.

        Args:
            images: network inputs ``[n, h, w, c]``.

        Returns:
            ``[n, h, w, k]``.
        """
        ...

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """Images that excite the maps ``targets``, all climbed in one batch.

        Args:
            setting: name of the variant.
            targets: map indices.
            steps: of each image.
            seed: of the random starts.

        Returns:
            Network inputs ``[n, h, w, c]``.
        """
        ...


def serve(build: Callable[[Network], Worker]) -> None:
    """Build the worker, check its network, and answer requests until there are no more.

    Args:
        build: makes the worker from the exported network.

    Raises:
        SystemExit: the worker's network differs from the exported one.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Libraries may print. Their output must not get among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with np.load(Path(sys.argv[1]) / "network.npz") as file:
        network = dict(file)
    worker = build(network)
    difference = _difference(worker, network)
    if not difference < CLOSE:
        raise SystemExit(
            f"conv3 differs from the exported network's by {difference:.2g}, relatively"
        )
    _send(answers, {"versions": worker.versions(), "difference": difference})
    for line in sys.stdin:
        _send(answers, _answer(worker, **json.loads(line)))


def _difference(worker: Worker, network: Network) -> float:
    """The largest difference of conv3's activations, relative to the largest activation."""
    expected = network["check_conv3"]
    activations = worker.conv3(network["check_images"])
    largest_difference = np.abs(activations - expected).max()
    return float(largest_difference / np.abs(expected).max())


def _answer(
    worker: Worker,
    setting: str,
    targets: list[int],
    steps: int,
    batch: int,
    seed: int,
    out: str | None,
) -> dict[str, Any]:
    """Climb in batches, and write the images."""
    parts = []
    begin = time.perf_counter()
    for number, first in enumerate(range(0, len(targets), batch)):
        batch_targets = targets[first : first + batch]
        parts.append(worker.climb(setting, batch_targets, steps, 1000 * seed + number))
    seconds = time.perf_counter() - begin
    if out is not None:
        np.save(out, np.concatenate(parts).astype(np.float32))
    return {"seconds": seconds, "calls": len(parts)}


def _send(stream: Any, content: dict[str, Any]) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()
