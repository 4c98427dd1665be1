"""Does it stay flat? Time and peak memory of surveys and ascents against how much is asked for.

Question: from thousands to a million draws, and to a hundred thousand runs, does the time grow in proportion and the
memory hardly at all?
Expected: a survey keeps numbers only, so its memory is constant; an ascent keeps one image and a few numbers per run,
3.3 kB; the atlas with ``keep_images`` not even that. Time per draw and per run is constant within a tenth.
Cost: about 12 minutes of two cores. Each measurement has a process of its own, in which small jobs are done up to four
times; all sizes are measured in turn, round after round. Times are medians, and so is the time of one, as a multiple of
that in the smallest job of the same round.
Command: python -m experiments.benchmarks.scaling
"""

import multiprocessing
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import oipjax
from experiments.common import command, save, show
from oipjax.plots import BLUE, INK

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """Numbers of draws and of runs; each run has few ``steps``, since time is linear in them by construction."""

    draws: tuple[int, ...] = (62_500, 250_000, 1_000_000)
    runs: tuple[int, ...] = (6_250, 25_000, 100_000)
    atlas: tuple[int, ...] = (6_400, 25_600, 102_400)
    steps: int = 4
    keep_images: int = 1
    rounds: int = 3


SMOKE = Config((64,), (16,), (), 2, rounds=1)


def child(kind: str, size: int, repeat: int, config: Config, answer: Any) -> None:
    """Measure one job, warmed up by a small one: seconds, and the peak of the whole process in MiB."""
    model, key = oipjax.load(), jax.random.key(0)

    def job(size: int) -> None:
        if kind == "survey":
            oipjax.survey(key, model, "conv3", draws=size)
        elif kind == "ascent":
            targets = np.arange(size) % 128
            oipjax.ascend(key, model, oipjax.Map("conv3"), targets, np.arange(size), steps=config.steps)
        else:
            keep, images = size // 128, config.keep_images
            options = {"screen": config.steps, "steps": config.steps, "wake": 0, "search": 0, "bounds": "none"}
            oipjax.atlas(key, model, "conv3", draws=max(keep, 64), keep=keep, keep_images=images, **options)

    job(128 * 2 if kind == "atlas" else 64)
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        job(size)
        seconds.append(time.perf_counter() - begin)
    answer.put((float(np.median(seconds)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


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
    kinds = {"survey": config.draws, "ascent": config.runs, "atlas": config.atlas}
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(config.rounds):
        for kind, sizes in kinds.items():
            for size in sizes:
                print(f"round {number + 1}/{config.rounds}: {kind} of {size:,}", flush=True)
                repeat = min(4, max(sizes) // size)
                seen.setdefault((kind, size), []).append(measured(kind, size, repeat, config))
    rows: list[dict[str, Any]] = []
    for (kind, size), answers in seen.items():
        seconds, peaks = np.array(answers).T
        least = min(kinds[kind])
        smallest = np.array(seen[kind, least])[:, 0] / least
        rows.append({
            "what": kind, "size": size, "seconds": float(np.median(seconds)),
            "us each": float(np.median(seconds)) / size * 1e6, "peak MiB": float(peaks.max()),
            "time each, to the first": float(np.median(seconds / size / smallest)),
            "all seconds": seconds.tolist(),
        })  # fmt: skip
    columns = ["what", "size", "seconds", "us each", "time each, to the first", "peak MiB"]
    title = (
        f"draws of a survey; runs of {config.steps} steps; runs of an atlas that keeps {config.keep_images} image a map"
    )
    show(title, columns, [[row[name] for name in columns] for row in rows])
    save(results, "scaling", {"config": vars(config), "rows": rows}, figure(rows))
    return rows


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Time and memory against size."""
    shape = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = shape.subplots(1, 2)
    for kind, mark in (("survey", "o"), ("ascent", "s"), ("atlas", "^")):
        some = [row for row in rows if row["what"] == kind]
        sizes = [row["size"] for row in some]
        colour = BLUE if kind == "survey" else INK
        left.loglog(sizes, [row["seconds"] for row in some], marker=mark, color=colour, label=kind)
        right.semilogx(sizes, [row["peak MiB"] for row in some], marker=mark, color=colour, label=kind)
    left.set_ylabel("seconds")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    right.set_ylabel("peak memory of the process, MiB")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("draws, or runs")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return shape


if __name__ == "__main__":
    command(main, Config, __doc__)
