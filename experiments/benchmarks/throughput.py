"""How near is the machine's limit? Survey, ascent and training beside a plain product of matrices.

Question: image-steps per second of the shipped network's survey, ascent and training, as a share of
    the rate of a
2048x2048 float32 matrix product measured between the runs on the same cores; how many times as fast
the ascent is as the same rule written plainly, ``jit(vmap(grad))`` with ``lax``'s convolution and
pooling; and where its time goes. Expected: more than the matrix product's rate for the ascent, and
ten times the plain one. Every image-step counts as 12.4 MFLOP, what a plain computation of all maps
takes: the share is one of useful work, not of instructions. Minimal filtering makes the second
    convolution of 4/9 of its products, and of the third one map is computed, not 128.
Cost: about 3 minutes of two cores.
Command: python -m experiments.benchmarks.throughput
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from oipjax import ops, training
from oipjax.data import mnist as data
from oipjax.plots import BLUE, FAINT, INK
from oipjax.runtime import cast, default_tile

RESULTS = Path(__file__).parent / "results"
FORWARD = 6.2e6  # FLOP for one image of the shipped network: 2 for each weight and position
LAYER = "conv3"


@dataclass(frozen=True)
class Config:
    """``rounds`` of everything in turn; ``runs`` ascents of ``steps``; ``draws`` starts; ``images`` to train with."""

    rounds: int = 7
    tiles: tuple[int, ...] = (8, 16, 32, 64)
    runs: int = 256
    steps: int = 30
    draws: int = 4096
    images: int = 6400
    matrix: int = 2048
    seed: int = 0


SMOKE = Config(1, (16,), 8, 3, 32, 128, 64)


@dataclass(frozen=True)
class LaxApply:
    """The same network with lax's convolution and pooling."""

    apply: Any

    def __call__(self, params: Any, x: Any) -> Any:
        """As the network's own."""
        with (
            mock.patch.object(ops, "conv2d", _conv),
            mock.patch.object(ops, "max_pool", _pool),
            mock.patch.object(ops, "conv_pool", _conv_pool),
        ):
            return self.apply(params, x)


def _conv(x, w, stride, padding):
    return jax.lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pool(x, window):
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *window, 1), "VALID"
    )


def _conv_pool(x, w, b, padding):
    return _pool(_conv(x, w, (1, 1), padding) + b.reshape(1, 1, 1, -1), (2, 2))


def contenders(config: Config, model: oipjax.Model) -> dict[str, tuple[Callable[[], Any], float]]:
    """Name -> (what to time, its FLOP)."""
    key, targets = jax.random.key(config.seed), np.arange(config.runs) % model.layer(LAYER).maps
    starts = np.arange(config.runs)
    out: dict[str, tuple[Callable[[], Any], float]] = {}

    def ascent(network, tile):
        return oipjax.ascend(
            key, network, oipjax.Map(LAYER), targets, starts, steps=config.steps, tile=tile
        )

    work = 2 * FORWARD * config.runs * config.steps
    for tile in config.tiles:
        out[f"ascent, tile {tile}"] = functools.partial(ascent, model, tile), work
    with_lax = replace(model, apply=LaxApply(model.apply))
    out["ascent, lax ops"] = functools.partial(ascent, with_lax, config.tiles[-1]), work
    out["plain JAX"] = plain_jax(config, model, targets), work
    out["survey"] = (
        lambda: oipjax.survey(key, model, LAYER, draws=config.draws),
        FORWARD * config.draws,
    )
    out["training"] = epoch(config), 3 * FORWARD * config.images
    return out


def plain_jax(
    config: Config, model: oipjax.Model, targets: np.ndarray, precision: str = "float32"
) -> Callable[[], Any]:
    """The classic rule as one would write it: plain layers, all runs in one batch, a loop around a compiled step."""
    z = jax.random.normal(jax.random.key(config.seed), (config.runs, *model.input_shape))
    layers = [
        (model.params[name]["kernel"], model.params[name]["bias"])
        for name in ("conv1", "conv2", "conv3")
    ]
    layers = cast(layers, precision)

    def score(image, target):
        x = cast(image[None], precision)
        for number, (kernel, bias) in enumerate(layers):
            x = jax.nn.relu(_conv(x, kernel, (1, 1), "VALID") + bias.reshape(1, 1, 1, -1))
            x = _pool(x, (2, 2)) if number < 2 else x
        return jnp.mean(x, (0, 1, 2))[target]

    @jax.jit
    def step(z):
        g = jax.vmap(jax.grad(score))(z, targets)
        z = z + 0.01 * g / (jnp.sqrt(jnp.mean(g**2, (1, 2, 3), keepdims=True)) + 1e-7)
        return (z - z.mean((1, 2, 3), keepdims=True)) / z.std((1, 2, 3), keepdims=True)

    def run():
        here = z
        for _ in range(config.steps):
            here = step(here)
        return here.block_until_ready()

    return run


def epoch(config: Config) -> Callable[[], Any]:
    """One epoch of training, on digits of the sample over and over."""
    plan = training.ClassifierTrainConfig(epochs=1, validation=0)
    images, labels = data.sample_dataset().train
    place = np.arange(config.images) % len(images)
    given = jnp.asarray(images[place]), jnp.asarray(labels[place])
    model = oipjax.load()
    params = jax.tree.map(np.asarray, model.params)
    steps = config.images // plan.batch
    start = training.optimizer(plan, steps).init(params)

    def run():
        state = training.State(*jax.tree.map(jnp.array, (params, start)))
        normalisation = (model.mean, model.std)
        return training.run_epoch(
            plan, steps, model.apply, normalisation, state, jax.random.key(0), *given
        )

    return lambda: jax.block_until_ready(run())


def account(
    config: Config, model: oipjax.Model, tile: int
) -> dict[str, tuple[Callable[[], Any], float]]:
    """Each operation of one image-step alone, in a compiled loop: name -> (what to time, its FLOP).

    As many count as a plain convolution has, whatever is computed instead.
    """
    layers = {name: model.params[name] for name in ("conv1", "conv2", "conv3")}
    sides, out = {"conv1": 26, "conv2": 12, "conv3": 5}, {}
    for name, layer in layers.items():
        w, b, side = jnp.asarray(layer["kernel"]), jnp.asarray(layer["bias"]), sides[name]
        (kh, kw), x = (
            w.shape[:2],
            jax.random.normal(jax.random.key(0), (tile, side, side, w.shape[2])),
        )
        work = 2.0 * tile * (side - kh + 1) * (side - kw + 1) * w.size * config.steps
        if name == "conv3":
            # What an ascent computes of it, each image for a map of its own, and what a survey
            # does.
            each = jnp.moveaxis(w[..., :tile], 3, 0)
            alone = jax.vmap(lambda x, w: ops.conv2d_map(x[None], w)[0])
            out["conv3, one map, forward"] = (
                _loop(config, functools.partial(alone, w=each), x),
                work,
            )
            back = functools.partial(_pulled, functools.partial(alone, w=each), x)
            out["conv3, one map, gradient"] = _loop(config, back, alone(x, each)), work
            out["conv3, all maps, forward"] = (
                _loop(config, functools.partial(ops.conv2d, w=w), x),
                work,
            )
            continue
        pooled = functools.partial(ops.conv_pool, w=w, b=b)
        out[f"{name} and its pool, forward"] = _loop(config, pooled, x), work
        out[f"{name} and its pool, both ways"] = (
            _loop(config, functools.partial(_both_ways, pooled), x),
            2 * work,
        )
    return out


def _pulled(function, x, dy):
    return jax.vjp(function, x)[1](dy)[0]


def _both_ways(function, x):
    y, pull = jax.vjp(function, x)
    return pull(y)[0]


def _loop(config: Config, function, x) -> Callable[[], Any]:
    """``function`` so many times in one compiled loop, each call depending on the last."""

    def again(_, carry):
        x, y = carry
        y = function(x.at[(0,) * x.ndim].add(1e-30 * y.ravel()[0]))
        return x, y

    looped = jax.jit(lambda x, y: jax.lax.fori_loop(0, config.steps, again, (x, y)))
    y = jnp.zeros_like(function(x))
    return lambda: jax.block_until_ready(looped(x, y))


def measure(
    config: Config, calls: dict[str, tuple[Callable[[], Any], float]]
) -> list[dict[str, Any]]:
    """Everything in turn, ``rounds`` times, a matrix product before and after each: rates and shares (medians)."""
    matrix = jax.random.normal(jax.random.key(0), (config.matrix, config.matrix))
    product = jax.jit(jnp.matmul)

    def rate(call: Callable[[], Any], work: float) -> float:
        begin = time.perf_counter()
        call()
        return work / (time.perf_counter() - begin)

    def limit() -> float:
        return rate(lambda: product(matrix, matrix).block_until_ready(), 2 * config.matrix**3)

    for call, _ in calls.values():
        call()
    limit()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(config.rounds):
        print(f"round {number + 1}/{config.rounds}", end="\r", flush=True)
        for name, (call, work) in calls.items():
            before, speed = limit(), rate(call, max(work, 1.0))
            seen[name].append((speed, (before + limit()) / 2))
    rows = []
    for name, (_, work) in calls.items():
        speed, top = np.array(seen[name]).T
        row = {"what": name, "seconds": float(np.median(max(work, 1.0) / speed))}
        row["seconds of matmul"] = float(np.median(row["seconds"] * top) / 2 / config.matrix**3)
        if work:
            row |= {
                "GFLOP/s": float(np.median(speed)) / 1e9,
                "share of matmul": float(np.median(speed / top)),
            }
        rows.append(row)
    return rows


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model = oipjax.load()
    rows = measure(config, contenders(config, model))
    plain = next(row for row in rows if row["what"] == "plain JAX")
    for row in rows:
        if row["what"].startswith("ascent"):
            row["image-steps/s"] = row["GFLOP/s"] * 1e9 / 2 / FORWARD
            row["times plain JAX"] = plain["seconds"] / row["seconds"]
    columns = ["what", "image-steps/s", "GFLOP/s", "share of matmul", "times plain JAX"]
    show(
        "rates on the shipped network",
        columns,
        [[row.get(name) for name in columns] for row in rows],
    )
    tile = default_tile()
    parts = measure(config, account(config, model, tile))
    for row in parts:
        row["us per image"] = row["seconds"] / config.steps / tile * 1e6
    columns = ["what", "us per image", "GFLOP/s", "share of matmul"]
    show(
        f"one image-step, tile {tile}, operations alone",
        columns,
        [[r.get(n) for n in columns] for r in parts],
    )
    content = {
        "config": vars(config),
        "flop_per_image_step": 2 * FORWARD,
        "rows": rows,
        "account": parts,
    }
    save(results, "throughput", content, figure(rows, parts))
    return rows


def figure(rows: list[dict[str, Any]], parts: list[dict[str, Any]]) -> Figure:
    """Shares of the matrix product's rate, and the account of one image-step."""
    shape = Figure(figsize=(10, 4), layout="constrained")
    left, right = shape.subplots(1, 2)
    names = [row["what"] for row in rows]
    left.barh(
        names,
        [row["share of matmul"] for row in rows],
        color=[BLUE if "tile" in n else FAINT for n in names],
    )
    left.axvline(1, color=INK, linewidth=0.8)
    left.set_xlabel("share of a matrix product's rate")
    right.barh([row["what"] for row in parts], [row["us per image"] for row in parts], color=BLUE)
    right.set_xlabel("µs per image and step, each alone")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return shape


if __name__ == "__main__":
    command(main, Config, __doc__)
