"""Which of a device's limits binds the ascent: its products, or its memory?

Question: how many image-steps per second does the shipped network's ascent compute on one device,
in full float32, in TF32 and in bf16, and how many would the device's rate of products and its
memory allow? Where does the time of a step go, kernel by kernel? How long does the whole job take,
all 128 maps from 4,096 starts, with proofs?
Expected: on an H200 more than a million image-steps per second. Neither limit is reached, since a
step is many kernels. The whole job takes less than 2 s once its programs are compiled. (It comes
last, so its first call finds some of them.) A plain program, ``jit(vmap(grad))`` of ``lax``, is
slower.
Cost: about 3 minutes of one GPU.
Command: python -m experiments.benchmarks.roofline

An image-step counts as 12.4 MFLOP, the work of a plain computation of all maps, whatever is
skipped. The memory traffic is the bytes that the compiled step reads and writes by XLA's own
account. It counts the inputs and outputs of every kernel.
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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.benchmarks import throughput
from experiments.common import command, save
from oipjax.cli.atlas import exemplars
from oipjax.plots import BLUE, FAINT, INACTIVE, INK
from oipjax.runtime import PRECISIONS, cast, default_tile, products
from oipjax.search import Momentum
from oipjax.search import step as search_step
from oipjax.spaces import space_for

RESULTS = Path(__file__).parent / "results" / "gpu"
LAYER = throughput.LAYER
WORK = 2 * throughput.FORWARD
"""FLOP of one image-step."""
KIND_PATTERNS = {
    "library's convolutions": "fft|cf32|prop|grad|conv|nchw",
    "products of matrices": "gemm|dot|cublas",
    "copies": "memcpy|memset|copy",
}
"""Kinds of kernels, and a pattern of their names; the first that matches counts."""
OTHER_KIND = "masks, pools and sums"
KINDS = (*KIND_PATTERNS, OTHER_KIND)
PRECISION_COLOURS = (BLUE, INACTIVE, INK)
KIND_COLOURS = (BLUE, FAINT, INACTIVE, INK)

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of what is measured.

    Attributes:
        rounds: measurements of everything.
        tiles: batch sizes of the ascent.
        runs: of each ascent.
        steps: of each run.
        matrix: side of the matrices whose product gives the limit by products.
        vector: length of the vector whose copy gives the limit by memory.
        profiled: steps of the ascent whose kernels are timed.
        job: the precisions.
        draws: of the survey of the whole job.
        survey: draws of a survey that is timed alone.
        seed: of the key.
    """

    rounds: int = 5
    tiles: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    runs: int = 16384
    steps: int = 100
    matrix: int = 8192
    vector: int = 2**30
    profiled: int = 20
    job: tuple[str, ...] = tuple(PRECISIONS)
    draws: int = 4096
    survey: int = 2**20
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
    rates = {}
    for precision in PRECISIONS:
        factor = cast(matrix, precision)
        with products(precision):
            product = jax.jit(jnp.matmul).lower(factor, factor).compile()
        spent = seconds(config, functools.partial(product, factor, factor))
        rates[precision] = 2 * config.matrix**3 / spent
    vector = jnp.ones(config.vector)
    copy = jax.jit(lambda x: x + 1)
    rates["memory"] = 2 * vector.nbytes / seconds(config, functools.partial(copy, vector))
    return rates


def problem_of(model: oipjax.Model, precision: str) -> search_step.Problem:
    """The ascent of a layer's maps, with all defaults."""
    objective = oipjax.Map(LAYER)
    return search_step.Problem(
        network=model.network,
        objective=objective,
        pre_activation=objective.pre_activation(model),
        space=space_for(model),
        method=Momentum(),
        criterion=2e-4,
        record_images=False,
        precision=precision,
    )


def bytes_of(model: oipjax.Model, precision: str, tile: int) -> float:
    """Bytes that one step reads and writes for one image, all kernels together."""
    problem = problem_of(model, precision)
    z = jnp.ones((tile, *model.input_shape))
    states = jax.vmap(functools.partial(search_step.begin, problem))(z)
    targets = np.zeros(tile, np.int32)

    def step(params, targets, states):
        def step_of_one(target, state):
            return search_step.step(problem, params, target, 100, state)

        return jax.vmap(step_of_one)(targets, states)

    with products():
        compiled = jax.jit(step).lower(model.params, targets, states).compile()
    account = compiled.cost_analysis()
    if isinstance(account, list):
        account = account[0]
    if account is None:
        return float("nan")
    return float(account.get("bytes accessed", np.nan)) / tile


def kernels(config: Config, model: oipjax.Model, precision: str, tile: int) -> list[Row]:
    """Microseconds for each image-step of a profiled ascent, kernel by kernel.

    Returns:
        A row for each kernel, the slowest first; no rows where there is no profile.
    """
    key = jax.random.key(config.seed)
    starts = np.arange(tile)
    targets = starts % model.layer(LAYER).maps
    options = {"steps": config.profiled, "precision": precision, "tile": tile}

    def run() -> None:
        oipjax.ascend(key, model, oipjax.Map(LAYER), targets, starts, **options)

    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        spent = _microseconds_by_kernel(Path(folder))
    image_steps = config.profiled * tile
    rows = []
    for name, microseconds in sorted(spent.items(), key=lambda item: -item[1]):
        row = {"kernel": name, "kind": kind_of(name), "us": microseconds / image_steps}
        rows.append(row)
    return rows


def _microseconds_by_kernel(folder: Path) -> dict[str, float]:
    """Time of each kernel on a GPU, from the profile in a folder."""
    spent: dict[str, float] = {}
    files = list(folder.rglob("*.xplane.pb"))
    if not files:
        return spent
    for plane in jax.profiler.ProfileData.from_file(str(files[0])).planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" not in line.name:
                continue
            for event in line.events:
                name = re.sub(r"^void ", "", event.name)[:60]
                spent[name] = spent.get(name, 0.0) + event.duration_ns / 1e3
    return spent


def kind_of(kernel: str) -> str:
    """One of `KINDS`, by a kernel's name."""
    for kind, pattern in KIND_PATTERNS.items():
        if re.search(pattern, kernel.lower()):
            return kind
    return OTHER_KIND


def rates(config: Config, model: oipjax.Model) -> list[Row]:
    """Image-steps per second: the ascent by precision and tile, and a plain program."""
    key = jax.random.key(config.seed)
    starts = np.arange(config.runs)
    targets = starts % model.layer(LAYER).maps
    objective = oipjax.Map(LAYER)
    image_steps = config.runs * config.steps

    def survey() -> Any:
        return oipjax.survey(key, model, LAYER, draws=config.survey).scores

    rate = config.survey / seconds(config, survey)
    rows = [_rate_row("survey", "float32", default_tile(), rate)]
    for precision in config.job:
        for tile in config.tiles:
            options = {"steps": config.steps, "precision": precision, "tile": tile}
            call = functools.partial(
                oipjax.ascend, key, model, objective, targets, starts, **options
            )
            rate = image_steps / seconds(config, call)
            rows.append(_rate_row("ascent", precision, tile, rate))
        plan = throughput.Config(runs=config.runs, steps=config.steps, seed=config.seed)
        with products(precision):
            plain = throughput.plain_jax(plan, model, targets, precision)
            rate = image_steps / seconds(config, plain)
        rows.append(_rate_row("plain JAX", precision, config.runs, rate))
    return rows


def _rate_row(what: str, precision: str, tile: int, rate: float) -> Row:
    return {"what": what, "precision": precision, "tile": tile, "image-steps/s": rate}


def _of_precision(rows: list[Row], what: str, precision: str) -> list[Row]:
    """The rows of one program in one precision."""
    return [row for row in rows if row["what"] == what and row["precision"] == precision]


def job(config: Config, model: oipjax.Model, precision: str) -> Row:
    """The whole atlas in this process: the first call, the median of further ones, the scores."""
    options = {"draws": config.draws, "precision": precision}

    def run() -> oipjax.Atlas:
        key = jax.random.key(config.seed)
        return oipjax.atlas(key, model, LAYER, exemplars=exemplars(model), **options)

    begin = time.perf_counter()
    atlas = run()
    first = time.perf_counter() - begin
    again = seconds(config, lambda: run().scores)
    best_scores = atlas.scores[:, 0]
    with products():
        activations = jax.jit(model.apply)(model.params, atlas.images[:, 0])
    means = np.asarray(activations[LAYER]).mean((1, 2))
    exact_scores = means[np.arange(len(atlas.maps)), atlas.maps]
    differences = np.abs(exact_scores - best_scores) / np.maximum(best_scores, 1e-9)
    return {
        "precision": precision,
        "first call, s": first,
        "warm, s": again,
        **atlas.counts,
        "median score": float(np.median(best_scores)),
        "scores off by at most": float(differences.max()),
    }


def main(config: Config = Config(), results: Path = RESULTS) -> list[Row]:
    """Run, print, write."""
    model = oipjax.load()
    limit = limits(config)
    rows = rates(config, model)
    traffic = {}
    for precision in config.job:
        ascents = _of_precision(rows, "ascent", precision)
        best = max(ascents, key=lambda row: row["image-steps/s"])
        traffic[precision] = bytes_of(model, precision, best["tile"])
    add_shares(rows, limit, traffic)
    columns = ["what", "precision", "tile", "image-steps/s", "share of products", "share of memory"]
    throughput.table("rates on one device", columns, rows)
    jobs = [job(config, model, precision) for precision in config.job]
    throughput.table("the whole job", list(jobs[0]), jobs)
    tile = min(4096, max(config.tiles))
    profiles = {name: kernels(config, model, name, tile) for name in config.job}
    if all(profiles.values()):
        for precision, profile in profiles.items():
            title = f"one image-step, {precision}"
            throughput.table(title, ["kernel", "kind", "us"], profile[:12])
    content = {
        "config": vars(config),
        "flop_per_image_step": WORK,
        "bytes_per_image_step": traffic,
        "limits": limit,
        "rows": rows,
        "jobs": jobs,
        "kernels": profiles,
    }
    save(results, "roofline", content, figure(rows, limit, traffic, profiles))
    return rows


def add_shares(rows: list[Row], limit: dict[str, float], traffic: dict[str, float]) -> None:
    """Add to each row its shares of the limits.

    Args:
        rows: from `rates`.
        limit: from `limits`.
        traffic: bytes per image-step by precision; NaN where XLA gives no account.
    """
    for row in rows:
        precision = row["precision"]
        rate = row["image-steps/s"]
        work = throughput.FORWARD if row["what"] == "survey" else WORK
        row["share of products"] = rate * work / limit[precision]
        if row["what"] == "ascent" and np.isfinite(traffic[precision]):
            row["share of memory"] = rate * traffic[precision] / limit["memory"]


def figure(
    rows: list[Row],
    limit: dict[str, float],
    traffic: dict[str, float],
    profiles: dict[str, list[Row]],
) -> Figure:
    """Rates by tile, the best one below its limits, and the kernels that a step's time goes to."""
    drawn = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = drawn.subplots(1, 3, width_ratios=(1, 1.15, 1.15))
    precisions = list(profiles)
    for place, precision in enumerate(precisions):
        colour = PRECISION_COLOURS[place]
        ascents = _of_precision(rows, "ascent", precision)
        (plain,) = _of_precision(rows, "plain JAX", precision)
        _draw_rates(left, precision, colour, ascents)
        levels = {
            "plain JAX": plain["image-steps/s"],
            "ascent": max(row["image-steps/s"] for row in ascents),
            "limit by memory": limit["memory"] / traffic[precision],
            "limit by products": limit[precision] / WORK,
        }
        _draw_levels(middle, place, colour, levels)
        _draw_kinds(right, place, profiles[precision])
    left.set_xscale("log", base=2)
    left.set_ylim(bottom=0)
    left.margins(x=0.2)
    left.set(xlabel="tile", ylabel="million image-steps per second")
    middle.set_xscale("log")
    middle.xaxis.set_major_formatter("{x:g}")
    middle.set_xlabel("million image-steps per second")
    right.set_xlabel("ns per image and step")
    for axes in (middle, right):
        axes.set_yticks(range(len(precisions)), precisions)
        axes.set_ylim(len(precisions) - 0.5, -0.5)
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _draw_rates(axes: Axes, precision: str, colour: str, ascents: list[Row]) -> None:
    """The rates of one precision by tile."""
    tiles = [row["tile"] for row in ascents]
    millions = [row["image-steps/s"] / 1e6 for row in ascents]
    axes.plot(tiles, millions, "o-", color=colour)
    end = (tiles[-1], millions[-1])
    axes.annotate(
        precision,
        end,
        (6, 0),
        textcoords="offset points",
        va="center",
        color=colour,
    )


def _draw_levels(axes: Axes, place: int, colour: str, levels: dict[str, float]) -> None:
    """A mark for each rate and limit of one precision, in image-steps per second."""
    styles: dict[str, dict[str, Any]] = {
        "plain JAX": {"marker": "o", "markerfacecolor": "none"},
        "ascent": {"marker": "o"},
        "limit by memory": {"marker": "|", "markersize": 14},
        "limit by products": {"marker": "D"},
    }
    for name, level in levels.items():
        style = {**styles[name], "color": colour, "linestyle": "none"}
        label = name if place == 0 else None
        axes.plot([level / 1e6], [place], label=label, **style)


def _draw_kinds(axes: Axes, place: int, profile: list[Row]) -> None:
    """A bar of the time of one precision, by kinds of kernels."""
    left = 0.0
    for kind, colour in zip(KINDS, KIND_COLOURS, strict=True):
        nanoseconds = 1e3 * sum(row["us"] for row in profile if row["kind"] == kind)
        label = kind if place == 0 else None
        axes.barh(place, nanoseconds, left=left, color=colour, label=label)
        left += nanoseconds


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
