"""How near is the machine's limit? Survey, ascent and training beside a plain product of matrices.

Question: image-steps per second of the shipped network's survey, ascent and training, as a share of
the rate of a 2048x2048 float32 matrix product, which is measured between the runs on the same
cores. How many times as fast is the ascent as the same rule written plainly, ``jit(vmap(grad))``
with ``lax``'s convolution and pooling? Where does its time go?
Expected: more than the matrix product's rate for the ascent, and ten times the plain one. Every
image-step counts as 12.4 MFLOP, the work of a plain computation of all maps. The share is therefore
one of useful work, not of instructions: minimal filtering computes the second convolution with 4/9
of its products, and of the third convolution one map is computed, not 128.
Cost: about 3 minutes of two cores.
Command: python -m experiments.benchmarks.throughput
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
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
FORWARD = 6.2e6
"""FLOP for one image of the shipped network: 2 for each weight and position."""
LAYER = "conv3"
SIDES = {"conv1": 26, "conv2": 12, "conv3": 5}
"""The sides of the images that reach the convolutions."""


@dataclass(frozen=True)
class Config:
    """Sizes of the jobs.

    Attributes:
        rounds: measurements of each job, all in turn.
        tiles: batch sizes of the ascent.
        runs: of the ascent.
        steps: of each run.
        draws: of the survey.
        images: of the training.
        matrix: side of the matrices whose product is the limit.
        seed: of the key.
    """

    rounds: int = 7
    tiles: tuple[int, ...] = (8, 16, 32, 64)
    runs: int = 256
    steps: int = 30
    draws: int = 4096
    images: int = 6400
    matrix: int = 2048
    seed: int = 0


SMOKE = Config(1, (16,), 8, 3, 32, 128, 64)


class Job(NamedTuple):
    """A call to time, and its FLOP."""

    call: Callable[[], Any]
    work: float


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
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=order)


def _pool(x, window):
    sides = (1, *window, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sides, sides, "VALID")


def _conv_pool(x, w, b, padding):
    y = _conv(x, w, (1, 1), padding) + b.reshape(1, 1, 1, -1)
    return _pool(y, (2, 2))


def contenders(config: Config, model: oipjax.Model) -> dict[str, Job]:
    """The jobs of the table, by name."""
    key = jax.random.key(config.seed)
    starts = np.arange(config.runs)
    targets = starts % model.layer(LAYER).maps
    objective = oipjax.Map(LAYER)
    work = 2 * FORWARD * config.runs * config.steps

    def ascent(network: oipjax.Model, tile: int) -> Job:
        def call() -> Any:
            options = oipjax.AscentConfig(steps=config.steps, tile=tile)
            return oipjax.ascend(key, network, objective, targets, starts, config=options)

        return Job(call, work)

    def survey() -> Any:
        return oipjax.survey(key, model, LAYER, draws=config.draws)

    jobs = {f"ascent, tile {tile}": ascent(model, tile) for tile in config.tiles}
    with_lax = replace(model, apply=LaxApply(model.apply))
    jobs["ascent, lax ops"] = ascent(with_lax, config.tiles[-1])
    jobs["plain JAX"] = Job(plain_jax(config, model, targets), work)
    jobs["survey"] = Job(survey, FORWARD * config.draws)
    jobs["training"] = Job(epoch(config), 3 * FORWARD * config.images)
    return jobs


def plain_jax(
    config: Config, model: oipjax.Model, targets: np.ndarray, precision: str = "float32"
) -> Callable[[], Any]:
    """The classic rule as one would write it: plain layers, one batch, a loop around a step."""
    z = jax.random.normal(jax.random.key(config.seed), (config.runs, *model.input_shape))
    layers = []
    for name in SIDES:
        layer = model.params[name]
        layers.append(cast((layer["kernel"], layer["bias"]), precision))

    def score(image, target):
        x = cast(image[None], precision)
        for number, (kernel, bias) in enumerate(layers):
            y = _conv(x, kernel, (1, 1), "VALID") + bias.reshape(1, 1, 1, -1)
            x = jax.nn.relu(y)
            if number < 2:
                x = _pool(x, (2, 2))
        return jnp.mean(x, (0, 1, 2))[target]

    @jax.jit
    def step(z):
        gradient = jax.vmap(jax.grad(score))(z, targets)
        size = jnp.sqrt(jnp.mean(gradient**2, (1, 2, 3), keepdims=True))
        z = z + 0.01 * gradient / (size + 1e-7)
        centred = z - z.mean((1, 2, 3), keepdims=True)
        return centred / z.std((1, 2, 3), keepdims=True)

    def run():
        image = z
        for _ in range(config.steps):
            image = step(image)
        return image.block_until_ready()

    return run


def epoch(config: Config) -> Callable[[], Any]:
    """One epoch of training, on digits of the sample over and over."""
    plan = training.ClassifierTrainConfig(epochs=1, validation=0)
    images, labels = data.sample_dataset().train
    place = np.arange(config.images) % len(images)
    digits = jnp.asarray(images[place])
    truth = jnp.asarray(labels[place])
    model = oipjax.load()
    normalisation = (model.mean, model.std)
    params = jax.tree.map(np.asarray, model.params)
    steps = config.images // plan.batch
    start = training.optimizer(plan, steps).init(params)
    key = jax.random.key(0)

    def run():
        state = training.State(*jax.tree.map(jnp.array, (params, start)))
        given = (plan, steps, model.apply, normalisation, state, key, digits, truth)
        return jax.block_until_ready(training.run_epoch(*given))

    return run


def account(config: Config, model: oipjax.Model, tile: int) -> dict[str, Job]:
    """Each operation of one image-step alone, in a compiled loop.

    Each counts as many FLOP as a plain convolution has, whatever is computed instead.
    """
    jobs = {}
    for name in ("conv1", "conv2"):
        w, b, x, work = _operands(config, model, name, tile)
        pooled = functools.partial(ops.conv_pool, w=w, b=b)
        both = functools.partial(_both_ways, pooled)
        jobs[f"{name} and its pool, forward"] = Job(_loop(config, pooled, x), work)
        jobs[f"{name} and its pool, both ways"] = Job(_loop(config, both, x), 2 * work)
    w, _, x, work = _operands(config, model, "conv3", tile)
    # An ascent computes one map of it, each image a map of its own; a survey computes all.
    maps = jnp.moveaxis(w[..., :tile], 3, 0)
    alone = functools.partial(jax.vmap(lambda x, w: ops.conv2d_map(x[None], w)[0]), w=maps)
    back = functools.partial(_pulled, alone, x)
    every = functools.partial(ops.conv2d, w=w)
    jobs["conv3, one map, forward"] = Job(_loop(config, alone, x), work)
    jobs["conv3, one map, gradient"] = Job(_loop(config, back, alone(x)), work)
    jobs["conv3, all maps, forward"] = Job(_loop(config, every, x), work)
    return jobs


def _operands(config: Config, model: oipjax.Model, name: str, tile: int):
    """Kernel, bias and random images of a convolution, and the FLOP of all steps."""
    layer = model.params[name]
    w = jnp.asarray(layer["kernel"])
    side = SIDES[name]
    height = side - w.shape[0] + 1
    width = side - w.shape[1] + 1
    x = jax.random.normal(jax.random.key(0), (tile, side, side, w.shape[2]))
    work = 2.0 * tile * height * width * w.size * config.steps
    return w, jnp.asarray(layer["bias"]), x, work


def _pulled(function, x, dy):
    return jax.vjp(function, x)[1](dy)[0]


def _both_ways(function, x):
    y, pull = jax.vjp(function, x)
    return pull(y)[0]


def _loop(config: Config, function, x) -> Callable[[], Any]:
    """``function`` in a compiled loop of ``steps``; each call depends on the one before."""

    def again(_, carry):
        x, y = carry
        tiny = 1e-30 * y.ravel()[0]
        return x, function(x.at[(0,) * x.ndim].add(tiny))

    looped = jax.jit(lambda x, y: jax.lax.fori_loop(0, config.steps, again, (x, y)))
    y = jnp.zeros_like(function(x))
    return lambda: jax.block_until_ready(looped(x, y))


def rate(job: Job) -> float:
    """FLOP per second of one call."""
    begin = time.perf_counter()
    job.call()
    return job.work / (time.perf_counter() - begin)


def measure(config: Config, jobs: dict[str, Job]) -> list[dict[str, Any]]:
    """All jobs in turn, ``rounds`` times, a matrix product before and after each: medians."""
    matrix = jax.random.normal(jax.random.key(0), (config.matrix, config.matrix))
    product = jax.jit(jnp.matmul)
    product_work = 2 * config.matrix**3
    limit = Job(lambda: product(matrix, matrix).block_until_ready(), product_work)
    for job in (*jobs.values(), limit):
        job.call()
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    limits: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(config.rounds):
        print(f"round {number + 1}/{config.rounds}", end="\r", flush=True)
        for name, job in jobs.items():
            before = rate(limit)
            rates[name].append(rate(job))
            limits[name].append((before + rate(limit)) / 2)
    rows = []
    for name, job in jobs.items():
        speed = np.array(rates[name])
        top = np.array(limits[name])
        seconds = float(np.median(job.work / speed))
        row = {
            "what": name,
            "seconds": seconds,
            "seconds of matmul": float(np.median(seconds * top)) / product_work,
            "GFLOP/s": float(np.median(speed)) / 1e9,
            "share of matmul": float(np.median(speed / top)),
        }
        rows.append(row)
    return rows


def table(title: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Print some columns of the rows; a value that a row lacks is left out."""
    show(title, columns, [[row.get(name) for name in columns] for row in rows])


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
    table("rates on the shipped network", columns, rows)
    tile = default_tile()
    parts = measure(config, account(config, model, tile))
    for row in parts:
        row["us per image"] = row["seconds"] / config.steps / tile * 1e6
    columns = ["what", "us per image", "GFLOP/s", "share of matmul"]
    table(f"one image-step, tile {tile}, operations alone", columns, parts)
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
    drawn = Figure(figsize=(10, 4), layout="constrained")
    left, right = drawn.subplots(1, 2)
    names = [row["what"] for row in rows]
    colours = [BLUE if "tile" in name else FAINT for name in names]
    left.barh(names, [row["share of matmul"] for row in rows], color=colours)
    left.axvline(1, color=INK, linewidth=0.8)
    left.set_xlabel("share of a matrix product's rate")
    parts_names = [row["what"] for row in parts]
    right.barh(parts_names, [row["us per image"] for row in parts], color=BLUE)
    right.set_xlabel("µs per image and step, each alone")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
