"""Does it stay flat? Time and peak memory against draws, runs, maps, steps, and devices.

Question: from thousands to a million draws, to a hundred thousand runs, from few maps or steps to
    many: does the time
grow in proportion and the memory hardly at all? What does it cost to hand tiles to several devices?
Expected: a survey keeps numbers only, so its memory is constant; an ascent keeps one image and a
    few numbers per run,
3.3 kB; the atlas with ``keep_images`` not even that. Time per draw, run, map and step is constant
within a tenth. Devices that share the same cores gain nothing and cost little: a copy of each
program. Cost: about 18 minutes of two cores. Each measurement has a process of its own, in which
small jobs are done up to four times; all sizes are measured in turn, round after round. Times are
medians, and so is the time of one, as a multiple of that in the smallest job of the same round.
Command: python -m experiments.benchmarks.scaling
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import oipjax
from experiments.common import command, save, show
from oipjax.plots import BLUE, INACTIVE, INK

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """Sizes of each job; runs are short unless it is their length that is measured."""

    draws: tuple[int, ...] = (62_500, 250_000, 1_000_000)
    """Of a survey."""
    runs: tuple[int, ...] = (6_250, 25_000, 100_000)
    """Of an ascent."""
    atlas: tuple[int, ...] = (6_400, 25_600, 102_400)
    """Runs of an atlas of all maps that keeps few images."""
    maps: tuple[int, ...] = (8, 32, 128)
    """Of an atlas with ``each`` runs for one."""
    steps: tuple[int, ...] = (16, 64, 256)
    """Of an ascent of ``some`` runs."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Into which the host is cut, for an ascent of ``some`` runs and 64 steps."""
    short: int = 4
    """Steps of all other runs."""
    each: int = 256
    some: int = 1024
    keep_images: int = 1
    rounds: int = 3


SMOKE = Config((64,), (16,), (), (2,), (2,), (2,), short=2, each=4, some=16, rounds=1)
UNITS = {
    "survey": "draws", "ascent": "runs", "atlas": "runs", "maps": "maps", "steps": "steps", "devices": "devices",
}  # fmt: skip
"""Of what each job's size counts; the fields of `Config` in their order."""


def child(kind: str, size: int, repeat: int, config: Config, answer: Any) -> None:
    """Measure one job, warmed up by a small one: seconds, and the peak of the whole process in MiB."""
    if kind == "devices":
        jax.config.update("jax_num_cpu_devices", size)
    model, key = oipjax.load(), jax.random.key(0)

    def survey(draws: int) -> None:
        oipjax.survey(key, model, "conv3", draws=draws)

    def climb(runs: int, steps: int) -> None:
        oipjax.ascend(
            key, model, oipjax.Map("conv3"), np.arange(runs) % 128, np.arange(runs), steps=steps
        )

    def atlas(maps: int, keep: int) -> None:
        short = {
            "screen": config.short,
            "steps": config.short,
            "restarts": 0,
            "search": 0,
            "bounds": "none",
        }
        few = {"draws": max(keep, 64), "keep": keep, "keep_images": config.keep_images}
        oipjax.atlas(key, model, "conv3", maps=range(maps), **few, **short)

    jobs: dict[str, Callable[[int], None]] = {
        "survey": survey,
        "ascent": lambda size: climb(size, config.short),
        "atlas": lambda size: atlas(128, max(size // 128, 2)),
        "maps": lambda size: atlas(size, config.each),
        "steps": lambda size: climb(config.some, size),
        "devices": lambda _: climb(config.some, 64),
    }
    jobs[kind](min(size, 64))
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        jobs[kind](size)
        seconds.append(time.perf_counter() - begin)
    answer.put(
        (float(np.median(seconds)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    )


def measured(kind: str, size: int, repeat: int, config: Config) -> tuple[float, float]:
    """`child`, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=child, args=(kind, size, repeat, config, answer))
    process.start()
    out = answer.get()
    process.join()
    return out


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    fields = config.draws, config.runs, config.atlas, config.maps, config.steps, config.devices
    kinds = dict(zip(UNITS, fields, strict=True))
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(config.rounds):
        for kind, sizes in kinds.items():
            for size in sizes:
                print(
                    f"round {number + 1}/{config.rounds}: {kind}, {size:,} {UNITS[kind]}",
                    flush=True,
                )
                repeat = 4 if kind == "devices" else min(4, max(sizes) // size)
                seen.setdefault((kind, size), []).append(measured(kind, size, repeat, config))
    rows: list[dict[str, Any]] = []
    for (kind, size), answers in seen.items():
        seconds, peaks = np.array(answers).T
        least = min(kinds[kind])
        units, least_units = (1, 1) if kind == "devices" else (size, least)
        smallest = np.array(seen[kind, least])[:, 0] / least_units
        rows.append({
            "what": kind, "size": size, "of": UNITS[kind], "seconds": float(np.median(seconds)),
            "us each": float(np.median(seconds)) / units * 1e6, "peak MiB": float(peaks.max()),
            "time each, to the first": float(np.median(seconds / units / smallest)),
            "all seconds": seconds.tolist(),
        })  # fmt: skip
    columns = ["what", "size", "of", "seconds", "us each", "time each, to the first", "peak MiB"]
    title = f"runs of {config.short} steps; maps with {config.each} runs each; others {config.some} runs"
    show(title, columns, [[row[name] for name in columns] for row in rows])
    save(results, "scaling", {"config": vars(config), "rows": rows}, figure(rows))
    return rows


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Time, time of one, and memory, against size."""
    shape = Figure(figsize=(12, 3.6), layout="constrained")
    panels = shape.subplots(1, 3)
    colours = dict(zip(UNITS, (BLUE, INK, INACTIVE, BLUE, INK, INACTIVE), strict=True))
    for number, (kind, unit) in enumerate(UNITS.items()):
        some = [row for row in rows if row["what"] == kind]
        style = {
            "color": colours[kind],
            "marker": "osDv^P"[number],
            "linestyle": "-" if number < 3 else "--",
        }
        label = kind if kind == unit else f"{kind}: {unit}"
        for axes, name in zip(
            panels, ("seconds", "time each, to the first", "peak MiB"), strict=True
        ):
            axes.plot(
                [row["size"] for row in some],
                [row[name] for row in some],
                label=label,
                markersize=5,
                **style,
            )
    left, middle, right = panels
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    left.set_ylabel("seconds")
    middle.set_ylabel("time of each, to that in the smallest job")
    right.set_ylabel("peak memory of the process, MiB")
    for axes in (middle, right):
        axes.set_ylim(bottom=0)
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xlabel("how many")
        axes.spines[["top", "right"]].set_visible(False)
    middle.legend(frameon=False, ncols=2, loc="lower right", fontsize=8)
    return shape


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
