"""Training in torch: a plain loop over a data set that is in memory as one tensor of normalised images.

A request is one epoch: ``steps`` is its number, and 1 starts anew from the weights of
``start{round}.npz``; the one target is the number of images; the seed is 1000 times the round, as
`protocol` makes it. The answer is ``[[seconds, test accuracy]]``, without the time of the test.

Settings are named memory layout, Adam's implementation, and where batches come from: images
gathered ``by batch``, or shuffled ``at once`` and cut.
"""

# pyright: reportMissingImports=false

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch_network
from protocol import serve

FOLDER = Path(sys.argv[1])
TEST_BATCH = 500


class Loop:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        torch.set_flush_denormal(
            True
        )  # as the others do: means of gradients that have become zero are slow otherwise
        self.network = network
        with np.load(FOLDER / "training.npz") as file:
            plan = dict(file)
        self.batch, self.rate = int(plan["batch"]), float(plan["rate"])
        self.images, self.test_images = (
            torch.from_numpy(
                (plan[f"{split}_images"] / np.float32(255) - network["mean"]) / network["std"]
            )
            for split in ("train", "test")
        )
        self.labels, self.test_labels = (
            torch.from_numpy(plan[f"{split}_labels"].astype(np.int64))
            for split in ("train", "test")
        )
        self._start("contiguous", False, 0)

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """One epoch."""
        layout, adam, source = setting.split(", ")
        if steps == 1:
            self._start(layout, adam == "fused", seed)
        (count,) = targets
        torch.manual_seed(seed + steps)
        begin = time.perf_counter()
        order = torch.randperm(count)[: count // self.batch * self.batch]
        if source == "at once":
            batches = zip(
                self.images[order].split(self.batch),
                self.labels[order].split(self.batch),
                strict=True,
            )
        else:
            batches = ((self.images[some], self.labels[some]) for some in order.split(self.batch))
        for images, labels in batches:
            self.optimiser.zero_grad()
            torch.nn.functional.cross_entropy(self.model(self._arranged(images)), labels).backward()
            self.optimiser.step()
        seconds = time.perf_counter() - begin
        return np.array([[seconds, self._accuracy()]])

    def _start(self, layout: str, fused: bool, seed: int) -> None:
        with np.load(FOLDER / f"start{seed // 1000}.npz") as file:
            layers = torch_network.layers(self.network | dict(file))
        self.layout = torch.channels_last if layout == "channels last" else torch.contiguous_format
        self.model = (
            torch.nn.Sequential(*layers.values()).to(memory_format=self.layout).requires_grad_(True)
        )
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=self.rate, fused=fused)

    def _arranged(self, images):
        if self.layout == torch.channels_last:
            return images.permute(0, 3, 1, 2)
        return images.reshape(
            len(images), 1, *images.shape[1:3]
        )  # one channel: the same in both layouts

    def _accuracy(self) -> float:
        with torch.no_grad():
            parts = [
                self.model(self._arranged(some)).argmax(1)
                for some in self.test_images.split(TEST_BATCH)
            ]
        return float((torch.cat(parts) == self.test_labels).double().mean())


serve(Loop)
