"""How do we compare with what there is?

Question: the same trained network, the same cores, turn by turn: how many image-steps per second do
    torch-lucent,
tf-keras-vis, xplique, naive JAX and a plain torch loop of the classic rule compute, how long does
the whole job take (all 128 maps), how high do the images score, and how many maps stay at zero?
Expected: oipjax computes at least 1.3 times the image-steps per second of the fastest peer at its
    best batched
setting; its whole job (best of 4 from 4,096 starts) takes a small part of any peer's time, with
better scores and fewer maps at zero.
Cost: about half an hour of two cores, and the first time 6 GB of disk and a few minutes for the
    environments.
Command: python -m experiments.benchmarks.peers

Each contender is a process of its own (``peer/run_*.py``) in an environment of its own, made from
`common.ENVIRONMENTS` unless it is there. First its variants are tried on all maps: *best* is the
fastest of those within 1 % of the highest median score, *fastest* another one if it computes a
tenth more; then a few batch sizes. Then come the rounds: in each, every contender runs once, from a
fresh random start per map, so that several rounds are also the best of several starts. *documented*
is the library as its documentation shows it, one map after another, for a few maps; its time for
all is extrapolated. All images are scored here, by oipjax's own network. Ratios are medians over
the rounds.

Pixels are bounded by all peers, so oipjax runs in the box beside them, and on standardised images
beside the classic rule. ``steady`` leaves out what a call costs before its first step (tracing,
building, allocating), measured by a call of one step; what a library traces again in every call
counts in the other column.
"""

import contextlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.benchmarks.common import ENVIRONMENTS, LAYER, Contender, Process, exported
from experiments.common import command, save, show

RESULTS = Path(__file__).parent / "results"
EQUAL, DISTINCT = 0.99, 1.1


CONTENDERS = (
    Contender(
        "xplique",
        "run_xplique.py",
        "xplique",
        (
            "pixel, conv3_pre, 0.05",
            "pixel, conv3_pre, 0.3",
            "fft, conv3_pre, 0.05",
            "pixel, conv3, 0.05",
            "pixel, conv3, 0.05, warm-up",
        ),
    ),
    Contender(
        "torch-lucent",
        "run_lucent.py",
        "torch",
        (
            "pixel, conv3pre, 0.05",
            "pixel, conv3pre, 0.3",
            "pixel, conv3pre, 0.3, channels last",
            "fft, conv3pre, 0.05",
            "pixel, conv3, 0.05",
        ),
    ),
    Contender(
        "tf-keras-vis",
        "run_tf_keras_vis.py",
        "tf-keras-vis",
        ("RMSprop, 5.0, linear", "Adam, 5.0, linear", "Adam, 20.0, linear", "RMSprop, 5.0, relu"),
    ),
    Contender("naive JAX", "run_jax.py", "", ("conv3_pre, 0.05", "conv3_pre, 0.3", "conv3, 0.05")),
    Contender(
        "torch, classic",
        "run_torch.py",
        "torch",
        ("contiguous", "channels last"),
        "standardised",
        True,
    ),
)
OWN = Contender("oipjax", "run_oipjax.py", "", ())
SPACES = ("box", "standardised")
DEFAULT_JOB, SHORT_JOB = "default", "survey and ascent"
ALONE = "bounds=none, restarts=0, search=0"


@dataclass(frozen=True)
class Config:
    """What is compared, and how long."""

    contenders: tuple[str, ...] = tuple(contender.name for contender in CONTENDERS)
    """Which peers; oipjax always runs."""
    rounds: int = 4
    """Each is one random start per map for the peers; the best of all is scored too."""
    maps: int = 128
    """How many maps, from the first on."""
    steps: int = 256
    """Of every peer, and of oipjax where its rate is compared."""
    classic_steps: int = 600
    """Of the classic rule."""
    documented: int = 4
    """Maps per round that a peer climbs one by one."""
    batches: tuple[int, ...] = (16, 32, 64, 128)
    """Batch sizes to try."""
    trial: int = 16
    """Steps to try them with."""
    jobs: tuple[tuple[str, str], ...] = (
        (DEFAULT_JOB, "atlas, box"),
        ("no bounds", "atlas, box, bounds=none"),
        (SHORT_JOB, f"atlas, box, {ALONE}"),
        ("the same, 30 steps", f"atlas, box, {ALONE}, steps=30"),
        (DEFAULT_JOB, "atlas, standardised"),
        (SHORT_JOB, f"atlas, standardised, {ALONE}"),
    )
    """Whole jobs of oipjax, a name and a setting each; the first of its space is what peers are compared with."""
    environments: Path = Path.home() / ".cache" / "oipjax" / "peers"
    """Where the environments are, or are made."""

    def __post_init__(self):
        mine = {setting.split(", ")[1] for _, setting in self.jobs}
        for contender in (one for one in CONTENDERS if one.name in self.contenders):
            if contender.space not in mine:
                raise ValueError(
                    f"{contender.name} makes {contender.space} images, of which there is no job to compare"
                )


SMOKE = replace(
    Config(),
    contenders=("naive JAX",),
    rounds=1,
    maps=4,
    steps=3,
    documented=1,
    batches=(4,),
    trial=2,
    jobs=((SHORT_JOB, f"atlas, box, {ALONE}, steps=3, draws=64, keep=2"),),
)


# --- what is measured
# -------------------------------------------------------------------------------------------------


class Judge:
    """Scores images with oipjax's network, whoever made them."""

    def __init__(self, model: oipjax.Model):
        self.model = model
        self.domains = {name: oipjax.space_for(model, name).domain for name in SPACES}

    def __call__(self, images: np.ndarray, targets: np.ndarray, space: str) -> np.ndarray:
        """Scores ``[n]``; 0 for what is no image of the space."""
        valid = self.domains[space].contains(images)
        inputs = jnp.asarray(np.where(valid[:, None, None, None], images, 0))
        maps = np.asarray(self.model.apply(self.model.params, inputs)[LAYER])
        return np.where(valid, maps.mean((1, 2))[np.arange(len(targets)), targets], 0.0)


@dataclass
class Entry:
    """One row to be: a contender in one of its settings, and what was measured of it, round by round."""

    contender: Contender
    how: str
    setting: str
    batch: int
    steps: int
    cold: float | None
    seconds: list[float]
    overheads: list[float]
    maps: list[np.ndarray]
    scores: list[np.ndarray]

    @property
    def is_job(self) -> bool:
        """Whether it is a whole job of oipjax."""
        return self.setting.startswith("atlas")

    def rates(self, steady: bool) -> np.ndarray:
        """Image-steps per second in each round."""
        spent, count = np.array(self.seconds), np.array([len(maps) for maps in self.maps])
        more = spent - np.array(self.overheads)
        if not steady or (more <= 0).any():
            return count * self.steps / spent
        return count * (self.steps - 1) / more

    def run(self, process: Process, judge: Judge, targets: np.ndarray, seed: int) -> None:
        """One round."""
        if not self.is_job:
            self.overheads.append(process.ask(self.setting, targets, 1, self.batch, seed)[0])
        seconds, images = process.ask(self.setting, targets, self.steps, self.batch, seed)
        self.seconds.append(seconds)
        self.maps.append(targets)
        self.scores.append(judge(images, targets, self.contender.space))


def entry(
    contender: Contender, how: str, setting: str, batch: int, steps: int, cold: float | None = None
) -> Entry:
    """An entry that waits for its rounds."""
    return Entry(contender, how, setting, batch, steps, cold, [], [], [], [])


def steps_of(contender: Contender, config: Config) -> int:
    """How many steps it takes."""
    return config.classic_steps if contender.classic else config.steps


def try_variants(
    process: Process, judge: Judge, contender: Contender, config: Config
) -> tuple[dict[str, tuple[str, int]], list[dict[str, Any]]]:
    """``{"best": (setting, batch), "fastest": ...}``, and a line for each variant and batch size that was tried."""
    targets, steps, tried = np.arange(config.maps), steps_of(contender, config), []
    for setting in contender.variants:
        trial = entry(contender, "trial", setting, max(config.batches), steps)
        process.ask(setting, targets, 1, trial.batch)
        trial.run(process, judge, targets, 0)
        tried.append({"contender": contender.name, "setting": setting, "batch": trial.batch, **quality(trial.scores[0]),
                      "steady": float(trial.rates(True)[0])})  # fmt: skip
        print(f"{contender.name}: {setting}: {tried[-1]['steady']:.0f} image-steps/s", flush=True)
    fast = max(tried, key=lambda row: row["steady"])
    good = EQUAL * max(row["median score"] for row in tried)
    best = max((row for row in tried if row["median score"] >= good), key=lambda row: row["steady"])
    chosen = {"best": best["setting"]}
    if fast["steady"] > DISTINCT * best["steady"]:
        chosen["fastest"] = fast["setting"]
    settings = {}
    for how, setting in chosen.items():
        seconds = {}
        for batch in config.batches:
            process.ask(setting, targets, 1, batch)
            once, _ = process.ask(setting, targets, 1, batch)
            more = max(process.ask(setting, targets, config.trial, batch)[0] - once, 0)
            seconds[batch] = once + more * (steps - 1) / max(config.trial - 1, 1)
            tried.append({"contender": contender.name, "setting": setting, "batch": batch,
                          "estimated s": seconds[batch]})  # fmt: skip
        settings[how] = setting, min(seconds, key=lambda batch: seconds[batch])
    return settings, tried


def quality(scores: np.ndarray) -> dict[str, Any]:
    """What the scores of some maps come to."""
    return {
        "median score": float(np.median(scores)), "at zero": int(np.sum(scores <= 0)), "of": len(scores)
    }  # fmt: skip


def prepare_own(folder: Path, config: Config) -> tuple[Process, list[Entry]]:
    """Our own process, with everything compiled, and its rows; each job was done once in a fresh process, too."""
    targets, jobs = np.arange(config.maps), []
    for label, setting in config.jobs:
        process = Process(OWN, folder, config.environments)
        cold = process.start + process.ask(setting, targets, config.steps)[0]
        jobs.append(entry(_in_space(setting), label, setting, 1 << 30, config.steps, cold))
        process.close()
    process, spaces = (
        Process(OWN, folder, config.environments),
        {job.contender.space for job in jobs},
    )
    alone = [f"ascend, {space}" for space in SPACES if space in spaces]
    ascents = [
        entry(_in_space(setting), setting, setting, 1 << 30, config.steps) for setting in alone
    ]
    for made in ascents:
        process.ask(made.setting, targets, 1)
    for made in (*ascents, *jobs):
        process.ask(made.setting, targets, config.steps)
    return process, [*ascents, *jobs]


def _in_space(setting: str) -> Contender:
    return replace(OWN, space=setting.split(", ")[1])


def prepare(
    contender: Contender, folder: Path, judge: Judge, config: Config
) -> tuple[Process, list[Entry], list[dict[str, Any]]]:
    """A contender at work, the rows it will fill, and what was tried to find its best setting."""
    targets = np.arange(config.maps)
    if contender is OWN:
        process, entries = prepare_own(folder, config)
        return process, entries, []
    process = Process(contender, folder, config.environments)
    try:
        settings, tried = try_variants(process, judge, contender, config)
    finally:
        process.close()
    process, steps, entries = (
        Process(contender, folder, config.environments),
        steps_of(contender, config),
        [],
    )
    for number, (how, (setting, batch)) in enumerate(settings.items()):
        cold = (
            process.ask(setting, targets, steps, batch)[0] + process.start if number == 0 else None
        )
        process.ask(setting, targets, 1, batch)
        entries.append(entry(contender, how, setting, batch, steps, cold))
    process.ask("documented", targets[:1], 1)
    process.ask("documented", targets[:1], steps)
    return process, [*entries, entry(contender, "documented", "documented", 1, steps)], tried


def documented_maps(config: Config, turn: int) -> np.ndarray:
    """The maps that are climbed one by one in a round: others in each, spread over all."""
    count = min(config.rounds * config.documented, config.maps)
    return np.linspace(0, config.maps - 1, count).round().astype(int)[turn :: config.rounds]


def compete(config: Config) -> tuple[list[Entry], list[dict[str, Any]], list[dict[str, Any]]]:
    """All entries with their rounds, what was tried, and a line for each contender's environment."""
    model = oipjax.load()
    judge, chosen = Judge(model), [OWN, *(c for c in CONTENDERS if c.name in config.contenders)]
    processes: dict[str, Process] = {}
    entries: list[Entry] = []
    tried, installed = [], []
    with exported(model) as folder, contextlib.ExitStack() as stack:
        for contender in chosen:
            own = folder / contender.script.removesuffix(".py")
            own.mkdir()
            shutil.copy(folder / "network.npz", own)
            facts = ENVIRONMENTS.get(contender.environment)
            row = {"contender": contender.name, "install": facts.installs if facts else (), "remark":
                   facts.remark if facts else "this environment"}  # fmt: skip
            try:
                process, some, lines = prepare(contender, own, judge, config)
            except (RuntimeError, OSError) as error:
                if contender is OWN:
                    raise
                installed.append({**row, "failed": str(error)})
                print(f"{contender.name}: {error}", flush=True)
                continue
            stack.callback(process.close)
            processes[contender.name] = process
            entries += some
            tried += lines
            installed.append({**row, "start s": process.start, **process.facts})
        for turn in range(config.rounds):
            for made in entries:
                targets = (
                    documented_maps(config, turn)
                    if made.how == "documented"
                    else np.arange(config.maps)
                )
                made.run(processes[made.contender.name], judge, targets, 1 + turn)
                print(
                    f"round {turn + 1}: {made.contender.name}, {made.how}: {made.seconds[-1]:.2f} s",
                    flush=True,
                )
    return entries, tried, installed


# --- what is told
# -----------------------------------------------------------------------------------------------------


def rate_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """Image-steps per second; and by how much oipjax computes more, in the same space and round."""
    own = {e.contender.space: e for e in entries if e.contender.name == OWN.name and not e.is_job}
    rows = []
    for some in (e for e in entries if not e.is_job):
        ratios = own[some.contender.space].rates(True) / some.rates(True)
        rows.append({
            "contender": some.contender.name,
            "how": some.how,
            "setting": "" if some.setting == some.how else some.setting,
            "batch": some.batch if some.batch < 1 << 30 else None,
            "steps": some.steps,
            "image-steps/s": round(float(np.median(some.rates(False)))),
            "steady": round(float(np.median(some.rates(True)))),
            "before first step, s": float(np.median(some.overheads)),
            "oipjax is times": float(np.median(ratios)),
            "ratios": ratios.tolist(),
        })  # fmt: skip
    return rows


def job_rows(entries: list[Entry], config: Config) -> list[dict[str, Any]]:
    """All maps: seconds, as multiples of two of oipjax's own jobs in the same round, and what the images are worth."""
    jobs = [e for e in entries if e.is_job]
    rows = []
    for some in sorted(entries, key=lambda e: e.contender.space):
        if some.contender.name == OWN.name and not some.is_job:
            continue
        of_space = {job.how: job for job in jobs if job.contender.space == some.contender.space}
        reference = next(iter(of_space.values()), None)
        factor = config.maps / len(some.maps[0]) if some.how == "documented" else 1.0
        several = some.how in ("best", "fastest") and config.rounds > 1
        for starts in (1, config.rounds) if several else (1,):
            seconds = starts * factor * np.array(some.seconds)
            if some.how == "documented":
                maps, scores = np.concatenate(some.maps), np.concatenate(some.scores)
            else:
                maps, scores = (
                    some.maps[0],
                    some.scores[0] if starts == 1 else np.max(some.scores, axis=0),
                )
            rows.append({
                "contender": some.contender.name,
                "how": some.how,
                "space": some.contender.space,
                "starts": "survey" if some.is_job else starts,
                "extrapolated from maps": len(some.maps[0]) if factor > 1 else None,
                "seconds": float(np.median(seconds)),
                "rounds": seconds.tolist(),
                "cold": some.cold if starts == 1 else None,
                **{f"/ {how}": _median_ratio(seconds, of_space.get(how)) for how in (DEFAULT_JOB, SHORT_JOB)},
                **quality(scores),
                "of oipjax's score": share(scores, maps, reference),
            })  # fmt: skip
    return rows


def _median_ratio(seconds: np.ndarray, job: Entry | None) -> float | None:
    return None if job is None else float(np.median(seconds / job.seconds))


def share(scores: np.ndarray, maps: np.ndarray, reference: Entry | None) -> float | None:
    """Score over that of oipjax's default job, median over the maps that it found."""
    if reference is None:
        return None
    found = reference.scores[0][maps]
    return float(np.median(scores[found > 0] / found[found > 0])) if (found > 0).any() else None


def plot(rates: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> Figure:
    """Rates; and of the whole job the seconds, the scores, and the share of maps left at zero."""
    jobs = [
        row
        for space in reversed(SPACES)
        for row in _falling(jobs, "seconds")
        if row["space"] == space
    ]
    figure = Figure(figsize=(14.0, 1.6 + 0.24 * len(jobs)), layout="constrained")
    left, *panels = figure.subplots(1, 4, width_ratios=(1.2, 1, 1, 0.8))
    rates = _falling(rates, "steady")[::-1]
    _bars(left, rates, [row["steady"] for row in rates], [str(row["steady"]) for row in rates])
    left.set_yticks(range(len(rates)), [f"{row['contender']}, {row['how']}" for row in rates])
    left.set(title="Ascent alone", xlabel="image-steps per second")
    left.locator_params(axis="x", nbins=4)
    worth, zero = ([row[name] for row in jobs] for name in ("of oipjax's score", "at zero"))
    _bars(
        panels[0], jobs, [row["seconds"] for row in jobs], [f"{row['seconds']:.3g}" for row in jobs]
    )
    panels[0].set_xscale("log")
    panels[0].set(title="The whole job", xlabel="seconds, all maps")
    _bars(
        panels[1],
        jobs,
        [part or 0 for part in worth],
        ["" if part is None else f"{part:.2f}" for part in worth],
    )
    panels[1].set(xlabel="score / oipjax's, median map")
    shares = [count / row["of"] for count, row in zip(zero, jobs, strict=True)]
    _bars(
        panels[2],
        jobs,
        shares,
        [f"{count} of {row['of']}" for count, row in zip(zero, jobs, strict=True)],
    )
    panels[2].set(xlabel="share of maps at zero")
    panels[0].set_yticks(range(len(jobs)), [_label(row) for row in jobs])
    for axes in panels[1:]:
        axes.set_yticks([])
    return figure


def _falling(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row[name])


def _label(row: dict[str, Any]) -> str:
    starts = (
        f", best of {row['starts']}"
        if row["how"] in ("best", "fastest") and row["starts"] > 1
        else ""
    )
    return f"{row['contender']}, {row['how']}{starts} ({row['space']})"


def _bars(axes: Any, rows: list[dict[str, Any]], values: list[float], texts: list[str]) -> None:
    axes.barh(
        range(len(rows)),
        values,
        color=["#0072B2" if row["contender"] == OWN.name else "#B8B8B8" for row in rows],
    )
    for place, (value, text) in enumerate(zip(values, texts, strict=True)):
        axes.annotate(f" {text}", (value, place), va="center", fontsize=8)
    axes.margins(x=0.3, y=0.01)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    entries, tried, installed = compete(config)
    rates, jobs = rate_rows(entries), job_rows(entries, config)
    columns = [name for name in rates[0] if name != "ratios"]
    show("ascent alone", columns, [[row[name] for name in columns] for row in rates])
    columns = [name for name in jobs[0] if name != "rounds"]
    show("the whole job, all maps", columns, [[row[name] for name in columns] for row in jobs])
    failed = [row for row in installed if "failed" in row]
    if failed:
        show(
            "not compared",
            ["contender", "why"],
            [[row["contender"], row["failed"]] for row in failed],
        )
    settings = {name: value for name, value in vars(config).items() if name != "environments"}
    content = {"config": settings, "rates": rates, "jobs": jobs,
               "tried": tried, "installed": installed}  # fmt: skip
    save(results, "peers", content, plot(rates, jobs))
    return jobs


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
