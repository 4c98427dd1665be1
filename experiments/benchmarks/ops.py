"""How fast are our convolution and pooling beside lax's, in the ascent they are made for?

Question: image-steps per second of the same ascent with `oipjax.ops`, and with ``lax.conv_general_dilated`` and
``lax.reduce_window`` in their place, as a share of a 2048x2048 float32 matrix product measured between the runs.
Expected: several times faster on a CPU; the scores are the same up to rounding. On a GPU both are ``lax``.
Cost: about 1 minute of two cores.
Command: python -m experiments.benchmarks.ops
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import oipjax
from experiments.common import save, show
from oipjax import ops

RESULTS = Path(__file__).parent / "results"
MFLOP_PER_IMAGE_STEP = 12.4


@dataclass(frozen=True)
class Config:
    """Tiles to try, steps of each ascent, repetitions (the median counts)."""

    tiles: tuple[int, ...] = (16, 32, 64, 128)
    steps: int = 30
    repeat: int = 5
    matrix: int = 2048
    seed: int = 0


SMOKE = Config((8,), 3, 1, 64)


@dataclass(frozen=True)
class LaxApply:
    """The same network with lax's convolution and pooling."""

    apply: Any

    def __call__(self, params: Any, x: Any) -> Any:
        """As the network's own."""
        with mock.patch.object(ops, "conv2d", _conv), mock.patch.object(ops, "max_pool", _pool):
            return self.apply(params, x)


def _conv(x, w, stride, padding):
    return jax.lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _pool(x, window):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *window, 1), "VALID")


def seconds(call: Any, repeat: int) -> float:
    """Median of warm calls."""
    call()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model, key = oipjax.load(), jax.random.key(config.seed)
    matrix = jnp.ones((config.matrix, config.matrix), jnp.float32)
    product = jax.jit(jnp.matmul)
    rows, scores = [], {}
    for tile in config.tiles:
        for name, network in (("oipjax", model), ("lax", replace(model, apply=LaxApply(model.apply)))):
            targets, starts = np.arange(tile) % 128, np.arange(tile)

            def climb(network=network, targets=targets, starts=starts, tile=tile):
                return oipjax.ascend(
                    key, network, oipjax.Map("conv3"), targets, starts, steps=config.steps, tile=tile
                ).scores

            rate = 2 * config.matrix**3 / seconds(lambda: product(matrix, matrix).block_until_ready(), config.repeat)
            image_steps = tile * config.steps / seconds(climb, config.repeat)
            scores[name] = climb()
            share = image_steps * MFLOP_PER_IMAGE_STEP * 1e6 / rate
            rows.append({"ops": name, "tile": tile, "image-steps/s": round(image_steps), "share of matmul": share})
        close = np.median(np.abs(scores["oipjax"] - scores["lax"]) / np.maximum(np.abs(scores["lax"]), 1e-9))
        rows[-1]["median difference of scores"] = float(close)
        rows[-2]["times lax"] = rows[-2]["image-steps/s"] / rows[-1]["image-steps/s"]
    columns = ["ops", "tile", "image-steps/s", "share of matmul", "times lax", "median difference of scores"]
    show("ascent of the shipped network", columns, [[row.get(name) for name in columns] for row in rows])
    save(results, "ops", {"config": vars(config), "mflop_per_image_step": MFLOP_PER_IMAGE_STEP, "rows": rows})
    return rows


if __name__ == "__main__":
    tyro.cli(lambda: main(), description=__doc__)
