"""Which of a device's limits binds the ascent: its products, or its memory?

Question: image-steps per second of the shipped network's ascent on one device, in full float32, in
    TF32 and in bf16,
beside what the device's rate of products and its memory would allow; where the time of a step goes,
kernel by kernel; and how long the whole job takes, all 128 maps from 4,096 starts, with proofs.
Expected: on an H200 more than a million image-steps per second; neither limit is reached, since a
    step is many kernels;
the whole job in under 2 s once its programs are compiled (it comes last, so its first call finds
some of them). A plain program, ``jit(vmap(grad))`` of ``lax``, is slower.
An image-step counts as 12.4 MFLOP, what a plain computation of all maps takes, whatever is skipped.
Memory: bytes that the compiled step reads and writes by XLA's own account, every kernel's inputs
    and outputs counted.
Cost: about 3 minutes of one GPU.
Command: python -m experiments.benchmarks.roofline
"""

import functools
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.benchmarks import throughput
from experiments.common import command, save, show
from oipjax.cli.atlas import exemplars
from oipjax.plots import BLUE, FAINT, INACTIVE, INK
from oipjax.runtime import PRECISIONS, cast, default_tile, products
from oipjax.search import Momentum
from oipjax.search import step as climb
from oipjax.spaces import space_for

RESULTS = Path(__file__).parent / "results" / "gpu"
LAYER = throughput.LAYER
WORK = 2 * throughput.FORWARD


@dataclass(frozen=True)
class Config:
    """``rounds`` of everything; ascents of ``runs`` by ``steps`` in tiles; a matrix and a vector for the limits."""

    rounds: int = 5
    tiles: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    runs: int = 16384
    steps: int = 100
    matrix: int = 8192
    vector: int = 2**30
    profiled: int = 20
    """Steps of the ascent whose kernels are timed."""
    job: tuple[str, ...] = tuple(PRECISIONS)
    draws: int = 4096
    survey: int = 2**20
    """Draws of a survey that is timed alone."""
    seed: int = 0


KINDS = ("library's convolutions", "products of matrices", "copies", "masks, pools and sums")
"""Of kernels."""
SMOKE = Config(1, (16,), 16, 2, 64, 2**12, 2, ("float32",), 16, 64)


def seconds(config: Config, call: Callable[[], Any]) -> float:
    """Median time of a call, after one that is not timed."""
    jax.block_until_ready(call())
    times = []
    for _ in range(config.rounds):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def limits(config: Config) -> dict[str, float]:
    """FLOP/s of a large product for each precision, and bytes/s of a large copy."""
    matrix = jax.random.normal(jax.random.key(0), (config.matrix, config.matrix))
    found = {}
    for precision in PRECISIONS:
        short = cast(matrix, precision)
        with products(precision):
            product = jax.jit(jnp.matmul).lower(short, short).compile()
        found[precision] = (
            2 * config.matrix**3 / seconds(config, functools.partial(product, short, short))
        )
    vector = jnp.ones(config.vector)
    found["memory"] = (
        2 * vector.nbytes / seconds(config, functools.partial(jax.jit(lambda x: x + 1), vector))
    )
    return found


def problem_of(model: oipjax.Model, precision: str) -> climb.Problem:
    """The ascent of a layer's maps, with all defaults."""
    objective = oipjax.Map(LAYER)
    pre_activation, space = objective.pre_activation(model), space_for(model)
    return climb.Problem(
        model.apply, objective, pre_activation, space, Momentum(), 2e-4, False, precision
    )


def bytes_of(model: oipjax.Model, precision: str, tile: int) -> float:
    """Bytes that one step reads and writes for one image, all kernels together."""
    problem = problem_of(model, precision)
    z = jnp.ones((tile, *model.input_shape))
    state = jax.vmap(functools.partial(climb.begin, problem))(z)

    def step(params, targets, state):
        return jax.vmap(lambda target, one: climb.step(problem, params, target, 100, one))(
            targets, state
        )

    with products():
        compiled = jax.jit(step).lower(model.params, np.zeros(tile, np.int32), state).compile()
    account = compiled.cost_analysis()
    account = account[0] if isinstance(account, list) else account
    return float((account or {}).get("bytes accessed", np.nan)) / tile


def kernels(config: Config, model: oipjax.Model, precision: str, tile: int) -> list[dict[str, Any]]:
    """Microseconds for each image-step of a profiled ascent, kernel by kernel; empty where there is no profile."""
    key, index = jax.random.key(config.seed), np.arange(tile)

    def run() -> None:
        targets = index % model.layer(LAYER).maps
        oipjax.ascend(
            key,
            model,
            oipjax.Map(LAYER),
            targets,
            index,
            steps=config.profiled,
            precision=precision,
            tile=tile,
        )

    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        files = list(Path(folder).rglob("*.xplane.pb"))
        planes = jax.profiler.ProfileData.from_file(str(files[0])).planes if files else ()
        spent: dict[str, float] = {}
        for line in (
            line
            for plane in planes
            if "GPU" in plane.name
            for line in plane.lines
            if "Stream" in line.name
        ):
            for event in line.events:
                name = re.sub(r"^void ", "", event.name)[:60]
                spent[name] = spent.get(name, 0.0) + event.duration_ns / 1e3
    steps = config.profiled * tile
    ranked = sorted(spent.items(), key=lambda item: -item[1])
    return [{"kernel": name, "kind": kind_of(name), "us": us / steps} for name, us in ranked]


def kind_of(kernel: str) -> str:
    """One of `KINDS`, by a kernel's name."""
    patterns = ("fft|cf32|prop|grad|conv|nchw", "gemm|dot|cublas", "memcpy|memset|copy")
    kinds = (
        kind
        for kind, pattern in zip(KINDS, patterns, strict=False)
        if re.search(pattern, kernel.lower())
    )
    return next(kinds, KINDS[-1])


def rates(config: Config, model: oipjax.Model) -> list[dict[str, Any]]:
    """Image-steps per second: the ascent by precision and tile, and a plain program."""
    key, index = jax.random.key(config.seed), np.arange(config.runs)
    targets = index % model.layer(LAYER).maps
    spent = seconds(config, lambda: oipjax.survey(key, model, LAYER, draws=config.survey).scores)
    rate = config.survey / spent
    rows = [
        {"what": "survey", "precision": "float32", "tile": default_tile(), "image-steps/s": rate}
    ]
    for precision in config.job:
        for tile in config.tiles:
            call = functools.partial(
                oipjax.ascend, key, model, oipjax.Map(LAYER), targets, index, steps=config.steps, precision=precision,
                tile=tile,
            )  # fmt: skip
            rate = config.runs * config.steps / seconds(config, call)
            rows.append(
                {"what": "ascent", "precision": precision, "tile": tile, "image-steps/s": rate}
            )
        plan = throughput.Config(runs=config.runs, steps=config.steps, seed=config.seed)
        with products(precision):
            spent = seconds(config, throughput.plain_jax(plan, model, targets, precision))
        rate = config.runs * config.steps / spent
        rows.append(
            {
                "what": "plain JAX",
                "precision": precision,
                "tile": config.runs,
                "image-steps/s": rate,
            }
        )
    return rows


def job(config: Config, model: oipjax.Model, precision: str) -> dict[str, Any]:
    """The whole atlas in this process: first call, and median of further ones."""

    def run() -> oipjax.Atlas:
        return oipjax.atlas(
            jax.random.key(config.seed), model, LAYER, draws=config.draws, exemplars=exemplars(model),
            precision=precision,
        )  # fmt: skip

    begin = time.perf_counter()
    atlas = run()
    first, again = time.perf_counter() - begin, seconds(config, lambda: run().scores)
    with products():
        there = np.asarray(jax.jit(model.apply)(model.params, atlas.images[:, 0])[LAYER]).mean(
            (1, 2)
        )
    scores = there[np.arange(len(atlas.maps)), atlas.maps]
    off = np.abs(scores - atlas.scores[:, 0]) / np.maximum(atlas.scores[:, 0], 1e-9)
    return {
        "precision": precision, "first call, s": first, "warm, s": again, **atlas.counts,
        "median score": float(np.median(atlas.scores[:, 0])), "scores off by at most": float(off.max()),
    }  # fmt: skip


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    model = oipjax.load()
    top = limits(config)
    rows = rates(config, model)
    climbs = [row for row in rows if row["what"] == "ascent"]
    best = {
        name: max((r for r in climbs if r["precision"] == name), key=_rate)["tile"]
        for name in config.job
    }
    moved = {name: bytes_of(model, name, best[name]) for name in config.job}
    for row in rows:
        name = row["precision"]
        work = throughput.FORWARD if row["what"] == "survey" else WORK
        row["share of products"] = row["image-steps/s"] * work / top[name]
        if row["what"] == "ascent" and np.isfinite(moved[name]):
            row["share of memory"] = row["image-steps/s"] * moved[name] / top["memory"]
    columns = ["what", "precision", "tile", "image-steps/s", "share of products", "share of memory"]
    show("rates on one device", columns, [[row.get(name) for name in columns] for row in rows])
    jobs = [job(config, model, name) for name in config.job]
    show("the whole job", list(jobs[0]), [list(row.values()) for row in jobs])
    profiles = {
        name: kernels(config, model, name, min(4096, max(config.tiles))) for name in config.job
    }
    for name, profile in profiles.items() if all(profiles.values()) else ():
        show(
            f"one image-step, {name}",
            ["kernel", "kind", "us"],
            [list(row.values()) for row in profile[:12]],
        )
    content = {
        "config": vars(config), "flop_per_image_step": WORK, "bytes_per_image_step": moved, "limits": top, "rows": rows,
        "jobs": jobs, "kernels": profiles,
    }  # fmt: skip
    save(results, "roofline", content, figure(rows, top, moved, profiles))
    return rows


def _rate(row: dict[str, Any]) -> float:
    return row["image-steps/s"]


def figure(rows, top, moved, profiles) -> Figure:
    """Rates by tile, the best one below its limits, and what a step's time is spent on."""
    shape = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = shape.subplots(1, 3, width_ratios=(1, 1.15, 1.15))
    colours = dict(zip(profiles, (BLUE, INACTIVE, INK), strict=False))
    for place, (name, colour) in enumerate(colours.items()):
        mine = [row for row in rows if row["precision"] == name and row["what"] == "ascent"]
        rates = [row["image-steps/s"] / 1e6 for row in mine]
        left.plot([row["tile"] for row in mine], rates, "o-", color=colour)
        left.annotate(
            name,
            (mine[-1]["tile"], rates[-1]),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        plain = next(row for row in rows if row["precision"] == name and row["what"] == "plain JAX")
        levels = {
            "plain JAX": (plain["image-steps/s"], {"marker": "o", "markerfacecolor": "none"}),
            "ascent": (max(rates) * 1e6, {"marker": "o"}),
            "limit by memory": (top["memory"] / moved[name], {"marker": "|", "markersize": 14}),
            "limit by products": (top[name] / WORK, {"marker": "D"}),
        }
        for text, (level, style) in levels.items():
            label = None if place else text
            middle.plot(
                [level / 1e6], [place], color=colour, linestyle="none", label=label, **style
            )
        start = 0.0
        for kind, shade in zip(KINDS, (BLUE, FAINT, INACTIVE, INK), strict=True):
            us = sum(row["us"] for row in profiles[name] if row["kind"] == kind)
            right.barh(place, us * 1e3, left=start, color=shade, label=None if place else kind)
            start += us * 1e3
    left.set_xscale("log", base=2)
    left.set_ylim(bottom=0)
    left.margins(x=0.2)
    left.set(xlabel="tile", ylabel="million image-steps per second")
    middle.set_xscale("log")
    middle.xaxis.set_major_formatter("{x:g}")
    middle.set_xlabel("million image-steps per second")
    right.set_xlabel("ns per image and step")
    for axes in (middle, right):
        axes.set_yticks(range(len(colours)), list(colours))
        axes.set_ylim(len(colours) - 0.5, -0.5)
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return shape


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
