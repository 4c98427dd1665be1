"""Which of a device's limits binds the ascent: its products, or its memory?

Question: image-steps per second of the shipped network's ascent on one device, in full float32 and in TF32, beside what
the device's rate of products and its memory would allow; where the time of a step goes, kernel by kernel; and how long
the whole job takes, all 128 maps from 4,096 starts, with proofs.
Expected: on an H200 a million image-steps per second; neither limit is reached, since a step is many kernels;
the whole job in under 2 s once its programs are compiled. A plain program, ``jit(vmap(grad))`` of ``lax``, is slower.
An image-step counts as 12.4 MFLOP, what a plain computation of all maps takes, whatever is skipped. Memory: bytes that
the compiled step reads and writes by XLA's own account, every kernel's inputs and outputs counted.
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
from oipjax import climb
from oipjax.commands.atlas import exemplars
from oipjax.images import space_for
from oipjax.methods import Momentum
from oipjax.objectives import Waking
from oipjax.plots import BLUE, FAINT, INK, SILENT
from oipjax.tiles import PRECISIONS, default_tile, products

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
    job: tuple[str, ...] = ("float32", "tf32")
    draws: int = 4096
    survey: int = 2**20
    """Draws of a survey that is timed alone."""
    seed: int = 0


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
        with products(precision):
            product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
        found[precision] = 2 * config.matrix**3 / seconds(config, functools.partial(product, matrix, matrix))
    vector = jnp.ones(config.vector)
    found["memory"] = 2 * vector.nbytes / seconds(config, functools.partial(jax.jit(lambda x: x + 1), vector))
    return found


def problem_of(model: oipjax.Model, precision: str) -> climb.Problem:
    """The ascent of a layer's maps, with all defaults."""
    objective = oipjax.Map(LAYER)
    waking, space = Waking.of(objective, model), space_for(model)
    return climb.Problem(model.apply, objective, waking, space, Momentum(), 2e-4, False, precision)


def bytes_of(model: oipjax.Model, precision: str, tile: int) -> float:
    """Bytes that one step reads and writes for one image, all kernels together."""
    problem = problem_of(model, precision)
    z = jnp.ones((tile, *model.input_shape))
    state = jax.vmap(functools.partial(climb.begin, problem))(z)

    def step(params, targets, state):
        return jax.vmap(lambda target, one: climb.step(problem, params, target, 100, one))(targets, state)

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
            key, model, oipjax.Map(LAYER), targets, index, steps=config.profiled, precision=precision, tile=tile
        )

    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        files = list(Path(folder).rglob("*.xplane.pb"))
        planes = jax.profiler.ProfileData.from_file(str(files[0])).planes if files else ()
        spent: dict[str, float] = {}
        for line in (line for plane in planes if "GPU" in plane.name for line in plane.lines if "Stream" in line.name):
            for event in line.events:
                name = re.sub(r"^void ", "", event.name)[:60]
                spent[name] = spent.get(name, 0.0) + event.duration_ns / 1e3
    steps = config.profiled * tile
    rows = [{"kernel": name, "us": us / steps} for name, us in sorted(spent.items(), key=lambda item: -item[1])]
    head, rest = rows[:12], rows[12:]
    return head + ([{"kernel": "all others", "us": sum(row["us"] for row in rest)}] if rest else [])


def rates(config: Config, model: oipjax.Model) -> list[dict[str, Any]]:
    """Image-steps per second: the ascent by precision and tile, and a plain program."""
    key, index = jax.random.key(config.seed), np.arange(config.runs)
    targets = index % model.layer(LAYER).maps
    spent = seconds(config, lambda: oipjax.survey(key, model, LAYER, draws=config.survey).scores)
    rate = config.survey / spent
    rows = [{"what": "survey", "precision": "float32", "tile": default_tile(), "image-steps/s": rate}]
    for precision in config.job:
        for tile in config.tiles:
            call = functools.partial(
                oipjax.ascend, key, model, oipjax.Map(LAYER), targets, index, steps=config.steps, precision=precision,
                tile=tile,
            )  # fmt: skip
            rate = config.runs * config.steps / seconds(config, call)
            rows.append({"what": "ascent", "precision": precision, "tile": tile, "image-steps/s": rate})
        plan = throughput.Config(runs=config.runs, steps=config.steps, seed=config.seed)
        with products(precision):
            spent = seconds(config, throughput.plainly(plan, model, targets))
        rate = config.runs * config.steps / spent
        rows.append({"what": "plain JAX", "precision": precision, "tile": config.runs, "image-steps/s": rate})
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
        there = np.asarray(jax.jit(model.apply)(model.params, atlas.images[:, 0])[LAYER]).mean((1, 2))
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
    best = {name: max((r for r in climbs if r["precision"] == name), key=_rate)["tile"] for name in config.job}
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
    profiles = {name: kernels(config, model, name, min(4096, max(config.tiles))) for name in config.job}
    for name, profile in profiles.items() if all(profiles.values()) else ():
        show(f"one image-step, {name}", ["kernel", "us"], [list(row.values()) for row in profile])
    content = {
        "config": vars(config), "flop_per_image_step": WORK, "bytes_per_image_step": moved, "limits": top, "rows": rows,
        "jobs": jobs, "kernels": profiles,
    }  # fmt: skip
    save(results, "roofline", content, figure(rows, top, moved, profiles))
    return rows


def _rate(row: dict[str, Any]) -> float:
    return row["image-steps/s"]


def figure(rows, top, moved, profiles) -> Figure:
    """Rates by tile below their limits, and the kernels of a step."""
    shape = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = shape.subplots(1, 2, width_ratios=(1, 1.3))
    colours = dict(zip(profiles, (BLUE, SILENT), strict=False))
    end = min(row["tile"] for row in rows if row["what"] == "ascent")
    for name, colour in colours.items():
        mine = [row for row in rows if row["precision"] == name and row["what"] == "ascent"]
        left.plot([r["tile"] for r in mine], [r["image-steps/s"] for r in mine], "o-", color=colour, label=name)
        plain = next(row for row in rows if row["precision"] == name and row["what"] == "plain JAX")
        low = name != max(moved, key=lambda name: top["memory"] / moved[name])
        for level, style, text, below in (
            (plain["image-steps/s"], ":", "plain JAX", True),
            (top[name] / WORK, "--", "limit by products", False),
            (top["memory"] / moved[name], "-.", "limit by memory", low),
        ):
            if np.isfinite(level):
                left.axhline(level, color=colour, linestyle=style, linewidth=1)
                left.annotate(
                    f"{text}, {name}", (end, level), (0, -2 if below else 2), textcoords="offset points", ha="left",
                    va="top" if below else "bottom", fontsize=7, color=colour,
                )  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("tile")
    left.set_ylabel("image-steps per second")
    left.legend(title="ascent", fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    place, ticks = 0.0, []
    for name, profile in profiles.items():
        for row in profile:
            right.barh(place, row["us"] * 1e3, color=FAINT if row["kernel"] == "all others" else colours[name])
            ticks.append((place, row["kernel"][:44]))
            place += 1
        place += 1
    right.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks], fontsize=5.5, color=INK)
    right.invert_yaxis()
    right.set_xlabel("ns per image and step")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return shape


if __name__ == "__main__":
    command(main, Config, __doc__)
