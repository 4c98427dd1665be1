"""Does it stay flat? Time and peak memory against draws, runs, maps, steps, and devices.

Question: from thousands to a million draws, to a hundred thousand runs, from few maps or steps to
many: does the time grow in proportion, and the memory hardly at all? What does it cost to hand
tiles to several devices?
Expected: a survey keeps numbers only, so its memory is constant. An ascent keeps one image and a
few numbers of each run, 3.3 kB; the atlas with ``keep_images`` not even that. Time per draw, run,
map and step is constant within a tenth. Devices that share the same cores gain nothing and cost
little: a copy of each program.
Cost: about 18 minutes of two cores. Each measurement has a process of its own, in which small jobs
are done up to four times. All sizes are measured in turn, round after round. Times are medians. The
time of one unit is given as a multiple of that in the smallest job of the same round.
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
LAYER = "conv3"
MAPS = 128


@dataclass(frozen=True)
class Config:
    """Sizes of each job; runs are short unless their length is measured.

    Attributes:
        draws: of a survey.
        runs: of an ascent.
        atlas: runs of an atlas of all maps that keeps few images.
        maps: of an atlas with ``each`` runs for one.
        steps: of an ascent of ``some`` runs.
        devices: numbers of devices that the host is cut into, for ``some`` runs of 64 steps.
        short: steps of all other runs.
        each: runs of one map.
        some: runs of an ascent whose steps or devices vary.
        keep_images: of each map.
        rounds: measurements of each job.
    """

    draws: tuple[int, ...] = (62_500, 250_000, 1_000_000)
    runs: tuple[int, ...] = (6_250, 25_000, 100_000)
    atlas: tuple[int, ...] = (6_400, 25_600, 102_400)
    maps: tuple[int, ...] = (8, 32, 128)
    steps: tuple[int, ...] = (16, 64, 256)
    devices: tuple[int, ...] = (1, 2, 4, 8)
    short: int = 4
    each: int = 256
    some: int = 1024
    keep_images: int = 1
    rounds: int = 3

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The sizes of each job, by its name."""
        return {
            "survey": self.draws,
            "ascent": self.runs,
            "atlas": self.atlas,
            "maps": self.maps,
            "steps": self.steps,
            "devices": self.devices,
        }


SMOKE = Config((64,), (16,), (), (2,), (2,), (2,), short=2, each=4, some=16, rounds=1)
UNITS = {
    "survey": "draws",
    "ascent": "runs",
    "atlas": "runs",
    "maps": "maps",
    "steps": "steps",
    "devices": "devices",
}
"""The unit of each job's size."""
PER_UNIT = "time each, to the first"
COLUMNS = ("what", "size", "of", "seconds", "us each", PER_UNIT, "peak MiB")


class Jobs:
    """The jobs of one process, by name; each takes its size.

    Args:
        config: of the benchmark.
    """

    def __init__(self, config: Config):
        self.config = config
        self.model = oipjax.load()
        self.key = jax.random.key(0)

    @property
    def by_name(self) -> dict[str, Callable[[int], None]]:
        """All jobs."""
        config = self.config
        return {
            "survey": self._survey,
            "ascent": lambda size: self._climb(size, config.short),
            "atlas": lambda size: self._atlas(MAPS, max(size // MAPS, 2)),
            "maps": lambda size: self._atlas(size, config.each),
            "steps": lambda size: self._climb(config.some, size),
            "devices": lambda _: self._climb(config.some, 64),
        }

    def _survey(self, draws: int) -> None:
        oipjax.survey(self.key, self.model, LAYER, draws=draws)

    def _climb(self, runs: int, steps: int) -> None:
        starts = np.arange(runs)
        objective = oipjax.Map(LAYER)
        oipjax.ascend(self.key, self.model, objective, starts % MAPS, starts, steps=steps)

    def _atlas(self, maps: int, keep: int) -> None:
        oipjax.atlas(
            self.key,
            self.model,
            LAYER,
            maps=range(maps),
            draws=max(keep, 64),
            keep=keep,
            keep_images=self.config.keep_images,
            screen=self.config.short,
            steps=self.config.short,
            restarts=0,
            search=0,
            bounds="none",
        )


def child(kind: str, size: int, repeat: int, config: Config, answer: Any) -> None:
    """Measure one job after a small one: seconds, and the peak of the whole process in MiB."""
    if kind == "devices":
        jax.config.update("jax_num_cpu_devices", size)
    job = Jobs(config).by_name[kind]
    job(min(size, 64))
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        job(size)
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.put((float(np.median(seconds)), peak))


def measured(kind: str, size: int, repeat: int, config: Config) -> tuple[float, float]:
    """`child`, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=child, args=(kind, size, repeat, config, answer))
    process.start()
    seconds_and_peak = answer.get()
    process.join()
    return seconds_and_peak


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    answers: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(config.rounds):
        for kind, sizes in config.sizes.items():
            for size in sizes:
                place = f"round {number + 1}/{config.rounds}"
                print(f"{place}: {kind}, {size:,} {UNITS[kind]}", flush=True)
                repeat = 4 if kind == "devices" else min(4, max(sizes) // size)
                answer = measured(kind, size, repeat, config)
                answers.setdefault((kind, size), []).append(answer)
    rows = [row(config, answers, kind, size) for kind, size in answers]
    cells = [[values[name] for name in COLUMNS] for values in rows]
    title = (
        f"runs of {config.short} steps; maps with {config.each} runs each; "
        f"others {config.some} runs"
    )
    show(title, COLUMNS, cells)
    save(results, "scaling", {"config": vars(config), "rows": rows}, figure(rows))
    return rows


def row(config: Config, answers: dict, kind: str, size: int) -> dict[str, Any]:
    """A row of the table, from the answers of all rounds."""
    seconds, peaks = np.array(answers[kind, size]).T
    smallest = min(config.sizes[kind])
    smallest_seconds = np.array(answers[kind, smallest])[:, 0]
    # All devices together do the same work.
    units = 1 if kind == "devices" else size
    smallest_units = 1 if kind == "devices" else smallest
    ratios = (seconds / units) / (smallest_seconds / smallest_units)
    return {
        "what": kind,
        "size": size,
        "of": UNITS[kind],
        "seconds": float(np.median(seconds)),
        "us each": float(np.median(seconds)) / units * 1e6,
        "peak MiB": float(peaks.max()),
        PER_UNIT: float(np.median(ratios)),
        "all seconds": seconds.tolist(),
    }


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Time, time of one unit, and memory, against size."""
    drawn = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    panels = {"seconds": left, PER_UNIT: middle, "peak MiB": right}
    colours = (BLUE, INK, INACTIVE, BLUE, INK, INACTIVE)
    for number, (kind, unit) in enumerate(UNITS.items()):
        own = [values for values in rows if values["what"] == kind]
        sizes = [values["size"] for values in own]
        style = {
            "label": kind if kind == unit else f"{kind}: {unit}",
            "color": colours[number],
            "marker": "osDv^P"[number],
            "markersize": 5,
            "linestyle": "-" if number < 3 else "--",
        }
        for name, axes in panels.items():
            axes.plot(sizes, [values[name] for values in own], **style)
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    left.set_ylabel("seconds")
    middle.set_ylabel("time of each, to that in the smallest job")
    right.set_ylabel("peak memory of the process, MiB")
    middle.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    for axes in panels.values():
        axes.set_xscale("log")
        axes.set_xlabel("size")
        axes.spines[["top", "right"]].set_visible(False)
    middle.legend(frameon=False, ncols=2, loc="lower right", fontsize=8)
    return drawn


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
