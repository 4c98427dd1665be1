"""How long does the command take, from the shell's prompt to the picture?

Question: seconds of ``oipjax atlas`` as a whole process, with interpreter, imports, compiling,
proofs and picture: cold, without any compiled program, and warm, with those of the run before. How
long do its phases take?
Expected: 11 to 15 s cold, 5.5 to 8 s warm, a third of it computing; imports and tracing take the
rest.
Cost: about 3 minutes of two cores.
Command: python -m experiments.benchmarks.startup
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common import command, save, show
from oipjax.plots import BLUE, FAINT

RESULTS = Path(__file__).parent / "results"
PROGRAM = (sys.executable, "-m", "oipjax.cli", "atlas")


@dataclass(frozen=True)
class Config:
    """How often the command runs, and its options.

    Attributes:
        rounds: cold runs, each in a cache of its own.
        warm: warm runs after each cold one.
        options: further options of ``oipjax atlas``.
    """

    rounds: int = 5
    warm: int = 2
    options: tuple[str, ...] = ()

    def __post_init__(self):
        if min(self.rounds, self.warm) < 1:
            raise ValueError(
                f"expected one cold and one warm run at least, got {self.rounds} and {self.warm}"
            )


SMALL = ("--layer", "conv1", "--maps", "0", "--draws", "32", "--steps", "8")
SMOKE = Config(rounds=1, warm=1, options=SMALL)


def timed(options: tuple[str, ...], folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of one process, and its manifest; compiled programs are kept in ``folder``."""
    record = folder / "record"
    environment = dict(os.environ)
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["XDG_CACHE_HOME"] = str(folder)
    call = [*PROGRAM, *options, "--out", str(record), "--overwrite"]
    begin = time.perf_counter()
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise ValueError(f"oipjax atlas failed: {done.stderr.strip()}")
    return seconds, json.loads((record / "manifest.json").read_text())


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    runs: dict[str, list[float]] = {"cold": [], "warm": []}
    phases: dict[str, list[float]] = {}
    counts = {}
    for number in range(config.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", *["warm"] * config.warm):
                seconds, manifest = timed(config.options, Path(folder))
                print(f"round {number + 1}: {kind}, {seconds:.1f} s", flush=True)
                runs[kind].append(seconds)
                counts = manifest["counts"]
                if kind == "warm":
                    for phase, duration in manifest["timing_s"].items():
                        phases.setdefault(phase, []).append(duration)
    rows = [summary(kind, durations) for kind, durations in runs.items()]
    median = {phase: float(np.median(durations)) for phase, durations in phases.items()}
    cells = [list(row.values()) for row in rows]
    show(f"oipjax atlas, whole process ({counts})", list(rows[0]), cells)
    show("phases of a warm run, s", list(median), [list(median.values())])
    content = {
        "config": asdict(config),
        "rows": rows,
        "seconds": runs,
        "phases": median,
        "counts": counts,
    }
    save(results, "startup", content, figure(runs))
    return rows


def summary(kind: str, durations: list[float]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "run": kind,
        "runs": len(durations),
        "median s": float(np.median(durations)),
        "least": min(durations),
        "most": max(durations),
    }


def figure(runs: dict[str, list[float]]) -> Figure:
    """A bar for each median, and a point for each run."""
    drawn = Figure(figsize=(6, 1.8), layout="constrained")
    axes = drawn.subplots()
    points = {"color": "black", "markersize": 4, "markerfacecolor": "white"}
    for height, (kind, durations) in enumerate(reversed(runs.items())):
        colour = BLUE if kind == "warm" else FAINT
        axes.barh(height, float(np.median(durations)), color=colour, height=0.6)
        axes.plot(durations, [height] * len(durations), "o", **points)
    axes.set_yticks(range(len(runs)), list(reversed(runs)))
    axes.set_xlabel("seconds of the whole process: each run, and the median")
    axes.set_xlim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
