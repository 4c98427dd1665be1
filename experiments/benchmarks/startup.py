"""How long does the command take, from the shell's prompt to the picture?

Question: seconds of ``oipjax atlas`` as a whole process, interpreter, imports, compiling, proofs
    and picture included:
cold, without any compiled program, and warm, with those of the run before; and how long its phases
say they took. Expected: 11 to 15 s cold, 5.5 to 8 s warm, of which computing is a third: the rest
is imports and tracing. Cost: about 3 minutes of two cores.
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


@dataclass(frozen=True)
class Config:
    """How often, and the command's options."""

    rounds: int = 5
    """Cold runs, each in a cache of its own."""
    warm: int = 2
    """Warm runs after each cold one."""
    options: tuple[str, ...] = ()
    """Further options of ``oipjax atlas``."""

    def __post_init__(self):
        if min(self.rounds, self.warm) < 1:
            raise ValueError(
                f"expected one cold and one warm run at least, got {self.rounds} and {self.warm}"
            )


SMOKE = Config(
    rounds=1, warm=1, options=("--layer", "conv1", "--maps", "0", "--draws", "32", "--steps", "8")
)


def timed(options: tuple[str, ...], folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of one process, and its manifest; programs are kept in ``folder``."""
    call = [
        sys.executable,
        "-c",
        "import sys; from oipjax.cli.main import run; sys.exit(run())",
        "atlas",
        *options,
    ]
    out = folder / "record"
    known = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    begin = time.perf_counter()
    done = subprocess.run(
        [*call, "--out", str(out), "--overwrite"], env=known | {"XDG_CACHE_HOME": str(folder)}, capture_output=True,
        text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise ValueError(f"oipjax atlas failed: {done.stderr.strip()}")
    return seconds, json.loads((out / "manifest.json").read_text())


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    runs: dict[str, list[float]] = {"cold": [], "warm": []}
    phases: dict[str, list[float]] = {}
    counts = {}
    for number in range(config.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", *["warm"] * config.warm):
                seconds, manifest = timed(config.options, Path(folder))
                runs[kind].append(seconds)
                counts = manifest["counts"]
                print(f"round {number + 1}: {kind}, {seconds:.1f} s", flush=True)
                for phase, took in manifest["timing_s"].items() if kind == "warm" else ():
                    phases.setdefault(phase, []).append(took)
    rows = [
        {
            "run": kind,
            "runs": len(each),
            "median s": float(np.median(each)),
            "least": min(each),
            "most": max(each),
        }
        for kind, each in runs.items()
    ]
    median = {phase: float(np.median(each)) for phase, each in phases.items()}
    show(
        f"oipjax atlas, whole process ({counts})",
        list(rows[0]),
        [list(row.values()) for row in rows],
    )
    show("phases of a warm run, s", list(median), [list(median.values())])
    facts = {
        "config": asdict(config),
        "rows": rows,
        "seconds": runs,
        "phases": median,
        "counts": counts,
    }
    save(results, "startup", facts, figure(runs))
    return rows


def figure(runs: dict[str, list[float]]) -> Figure:
    """Every run."""
    drawn = Figure(figsize=(6, 1.8), layout="constrained")
    axes = drawn.subplots()
    for height, (kind, each) in enumerate(reversed(runs.items())):
        axes.barh(
            height, float(np.median(each)), color=BLUE if kind == "warm" else FAINT, height=0.6
        )
        axes.plot(
            each, [height] * len(each), "o", color="black", markersize=4, markerfacecolor="white"
        )
    axes.set_yticks(range(len(runs)), list(reversed(runs)))
    axes.set(xlabel="seconds of the whole process: each run, and the median", xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
