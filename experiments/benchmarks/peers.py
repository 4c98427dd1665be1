"""How does oipjax compare with the libraries that exist?

Question: the same trained network on the same cores, turn by turn. How many image-steps per second
do torch-lucent, tf-keras-vis, xplique, naive JAX and a plain torch loop of the classic rule
compute? How long does the whole job take (all 128 maps), how high do the images score, and how many
maps stay at zero?
Expected: oipjax computes at least 1.3 times the image-steps per second of the fastest peer at its
best batched setting. Its whole job (best of 4 from 4,096 starts) takes a small part of any peer's
time, with better scores and fewer maps at zero.
Cost: about half an hour of two cores. The first time, the environments take 6 GB of disk and a few
minutes more.
Command: python -m experiments.benchmarks.peers

Each contender is a process of its own (``peer/run_*.py``) in an environment of its own. The
environment is made from `common.ENVIRONMENTS` unless it exists. First the variants of a contender
are tried on all maps. *best* is the fastest of those within 1 % of the highest median score;
*fastest* is another one if it computes a tenth more. For these, a few batch sizes are tried. Then
come the rounds: in each, every contender runs once, from a fresh random start per map. So several
rounds are also the best of several starts. *documented* is the library as its documentation shows
it, one map after another, for a few maps; its time for all maps is extrapolated. All images are
scored here, by oipjax's own network. Ratios are medians over the rounds.

All peers bound the pixels, so oipjax runs in the box beside them, and on standardised images beside
the classic rule. ``steady`` leaves out the time of a call before its first step (tracing, building,
allocating), which a call of one step measures. The other column counts it too, also where a library
traces again in every call.
"""

import contextlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import oipjax
from experiments.benchmarks.common import ALL, ENVIRONMENTS, Contender, Process, exported
from experiments.benchmarks.comparison import (
    DEFAULT_JOB,
    DOCUMENTED,
    OWN,
    SHORT_JOB,
    SPACES,
    Entry,
    Judge,
    job_rows,
    plot,
    quality,
    rate_rows,
    show_failures,
    show_rows,
)
from experiments.common import command, save

RESULTS = Path(__file__).parent / "results"
EQUAL_SCORE = 0.99
"""A share of the highest median score from which scores count as equal."""
FASTER = 1.1
"""How many times as fast as the best variant another one has to be to be measured too."""

XPLIQUE = Contender(
    name="xplique",
    script="run_xplique.py",
    environment="xplique",
    variants=(
        "pixel, conv3_pre, 0.05",
        "pixel, conv3_pre, 0.3",
        "fft, conv3_pre, 0.05",
        "pixel, conv3, 0.05",
        "pixel, conv3, 0.05, warm-up",
    ),
)
LUCENT = Contender(
    name="torch-lucent",
    script="run_lucent.py",
    environment="torch",
    variants=(
        "pixel, conv3pre, 0.05",
        "pixel, conv3pre, 0.3",
        "pixel, conv3pre, 0.3, channels last",
        "fft, conv3pre, 0.05",
        "pixel, conv3, 0.05",
    ),
)
TF_KERAS_VIS = Contender(
    name="tf-keras-vis",
    script="run_tf_keras_vis.py",
    environment="tf-keras-vis",
    variants=(
        "RMSprop, 5.0, linear",
        "Adam, 5.0, linear",
        "Adam, 20.0, linear",
        "RMSprop, 5.0, relu",
    ),
)
NAIVE_JAX = Contender(
    name="naive JAX",
    script="run_jax.py",
    environment="",
    variants=("conv3_pre, 0.05", "conv3_pre, 0.3", "conv3, 0.05"),
)
CLASSIC = Contender(
    name="torch, classic",
    script="run_torch.py",
    environment="torch",
    variants=("contiguous", "channels last"),
    space="standardised",
    classic=True,
)
CONTENDERS = (XPLIQUE, LUCENT, TF_KERAS_VIS, NAIVE_JAX, CLASSIC)
ALONE = "bounds=none, restarts=0, search=0"


def _space_of(setting: str) -> str:
    """The image space that a setting of oipjax names."""
    return setting.split(", ")[1]


@dataclass(frozen=True)
class Config:
    """The contenders, and how much each of them does.

    Attributes:
        contenders: which peers; oipjax always runs.
        rounds: each is one random start per map for the peers; the best of all is scored too.
        maps: how many maps, from the first on.
        steps: of every peer, and of oipjax where its rate is compared.
        classic_steps: of the classic rule.
        documented: maps per round that a peer climbs one by one.
        batches: batch sizes to try.
        trial: steps to try them with.
        jobs: whole jobs of oipjax, a name and a setting each. Peers are compared with the first one
            of their space.
        environments: where the environments are, or are made.
    """

    contenders: tuple[str, ...] = tuple(contender.name for contender in CONTENDERS)
    rounds: int = 4
    maps: int = 128
    steps: int = 256
    classic_steps: int = 600
    documented: int = 4
    batches: tuple[int, ...] = (16, 32, 64, 128)
    trial: int = 16
    jobs: tuple[tuple[str, str], ...] = (
        (DEFAULT_JOB, "atlas, box"),
        ("no bounds", "atlas, box, bounds=none"),
        (SHORT_JOB, f"atlas, box, {ALONE}"),
        ("the same, 30 steps", f"atlas, box, {ALONE}, steps=30"),
        (DEFAULT_JOB, "atlas, standardised"),
        (SHORT_JOB, f"atlas, standardised, {ALONE}"),
    )
    environments: Path = Path.home() / ".cache" / "oipjax" / "peers"

    def __post_init__(self):
        spaces = {_space_of(setting) for _, setting in self.jobs}
        for contender in self.peers:
            if contender.space not in spaces:
                raise ValueError(
                    f"{contender.name} makes {contender.space} images, "
                    "of which there is no job to compare"
                )

    @property
    def peers(self) -> list[Contender]:
        """The peers that take part."""
        return [contender for contender in CONTENDERS if contender.name in self.contenders]

    @property
    def targets(self) -> np.ndarray:
        """All maps that are climbed."""
        return np.arange(self.maps)

    def steps_of(self, contender: Contender) -> int:
        """How many steps a contender makes."""
        return self.classic_steps if contender.classic else self.steps


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


class Choice(NamedTuple):
    """A setting of a contender that will be measured.

    Attributes:
        how: ``best`` or ``fastest``.
        setting: one of the contender's variants.
        batch: the batch size at which it takes the least time.
    """

    how: str
    setting: str
    batch: int


class Prepared(NamedTuple):
    """A contender that is ready for the rounds.

    Attributes:
        process: in which everything is compiled.
        entries: still without rounds.
        tried: a row for each variant and each batch size that was tried.
    """

    process: Process
    entries: list[Entry]
    tried: list[dict[str, Any]]


@dataclass
class Competition:
    """All that was measured.

    Attributes:
        entries: with their rounds.
        tried: a row for each variant and each batch size that was tried.
        installed: a row for the environment of each contender.
        processes: of the contenders, by name.
    """

    entries: list[Entry] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    installed: list[dict[str, Any]] = field(default_factory=list)
    processes: dict[str, Process] = field(default_factory=dict)


def choose(
    process: Process, judge: Judge, contender: Contender, config: Config
) -> tuple[list[Choice], list[dict[str, Any]]]:
    """The settings to measure, and a row for each variant and each batch size that was tried."""
    tried = []
    for setting in contender.variants:
        row = try_variant(process, judge, contender, setting, config)
        tried.append(row)
        print(f"{contender.name}: {setting}: {row['steady']:.0f} image-steps/s", flush=True)
    choices = []
    for how, setting in _best_and_fastest(tried).items():
        seconds = estimated_seconds(process, contender, setting, config)
        for batch, estimate in seconds.items():
            row = {
                "contender": contender.name,
                "setting": setting,
                "batch": batch,
                "estimated s": estimate,
            }
            tried.append(row)
        batch = min(seconds, key=lambda batch: seconds[batch])
        choices.append(Choice(how=how, setting=setting, batch=batch))
    return choices, tried


def try_variant(
    process: Process, judge: Judge, contender: Contender, setting: str, config: Config
) -> dict[str, Any]:
    """The scores and the rate of one setting on all maps, at the largest batch size."""
    batch = max(config.batches)
    trial = Entry(contender, "trial", setting, batch, config.steps_of(contender))
    process.ask(setting, config.targets, 1, batch)
    trial.run(process, judge, config.targets, 0)
    return {
        "contender": contender.name,
        "setting": setting,
        "batch": batch,
        **quality(trial.rounds[0].scores),
        "steady": float(trial.rates(steady=True)[0]),
    }


def _best_and_fastest(tried: list[dict[str, Any]]) -> dict[str, str]:
    """The settings to measure, by ``best`` and, where it is another one, ``fastest``."""
    fastest = max(tried, key=_steady)
    highest = max(row["median score"] for row in tried)
    good = [row for row in tried if row["median score"] >= EQUAL_SCORE * highest]
    best = max(good, key=_steady)
    settings = {"best": best["setting"]}
    if fastest["steady"] > FASTER * best["steady"]:
        settings["fastest"] = fastest["setting"]
    return settings


def _steady(row: dict[str, Any]) -> float:
    return row["steady"]


def estimated_seconds(
    process: Process, contender: Contender, setting: str, config: Config
) -> dict[int, float]:
    """Seconds for all maps by batch size, estimated from a few steps."""
    steps = config.steps_of(contender)
    estimates = {}
    for batch in config.batches:
        process.ask(setting, config.targets, 1, batch)
        one_step, _ = process.ask(setting, config.targets, 1, batch)
        trial, _ = process.ask(setting, config.targets, config.trial, batch)
        further = max(trial - one_step, 0)
        estimates[batch] = one_step + further * (steps - 1) / max(config.trial - 1, 1)
    return estimates


def prepare_own(folder: Path, config: Config) -> Prepared:
    """The process of oipjax; each job is done once in a fresh process too, for its cold time."""
    jobs = []
    for how, setting in config.jobs:
        process = Process(OWN, folder, config.environments)
        seconds, _ = process.ask(setting, config.targets, config.steps)
        job = _own_entry(how, setting, config)
        job.cold = process.start + seconds
        jobs.append(job)
        process.close()
    process = Process(OWN, folder, config.environments)
    spaces = {job.contender.space for job in jobs}
    ascents = []
    for space in SPACES:
        if space in spaces:
            setting = f"ascend, {space}"
            ascents.append(_own_entry(setting, setting, config))
    for entry in ascents:
        process.ask(entry.setting, config.targets, 1)
    entries = [*ascents, *jobs]
    for entry in entries:
        process.ask(entry.setting, config.targets, config.steps)
    return Prepared(process=process, entries=entries, tried=[])


def _own_entry(how: str, setting: str, config: Config) -> Entry:
    contender = replace(OWN, space=_space_of(setting))
    return Entry(contender, how, setting, ALL, config.steps)


def prepare(contender: Contender, folder: Path, judge: Judge, config: Config) -> Prepared:
    """The process of a peer, in its best settings."""
    process = Process(contender, folder, config.environments)
    with contextlib.closing(process):
        choices, tried = choose(process, judge, contender, config)
    process = Process(contender, folder, config.environments)
    steps = config.steps_of(contender)
    entries = []
    for choice in choices:
        entry = Entry(contender, choice.how, choice.setting, choice.batch, steps)
        if not entries:
            seconds, _ = process.ask(entry.setting, config.targets, steps, entry.batch)
            entry.cold = seconds + process.start
        process.ask(entry.setting, config.targets, 1, entry.batch)
        entries.append(entry)
    process.ask(DOCUMENTED, config.targets[:1], 1)
    process.ask(DOCUMENTED, config.targets[:1], steps)
    entries.append(Entry(contender, DOCUMENTED, DOCUMENTED, 1, steps))
    return Prepared(process=process, entries=entries, tried=tried)


def documented_maps(config: Config, turn: int) -> np.ndarray:
    """The maps that are climbed one by one in a round: others in each, spread over all."""
    count = min(config.rounds * config.documented, config.maps)
    spread = np.linspace(0, config.maps - 1, count).round().astype(int)
    return spread[turn :: config.rounds]


def compete(config: Config) -> Competition:
    """Start all contenders, and let them run in turn."""
    model = oipjax.load()
    judge = Judge(model)
    competition = Competition()
    with exported(model) as network, contextlib.ExitStack() as stack:
        for contender in (OWN, *config.peers):
            folder = network / contender.script.removesuffix(".py")
            folder.mkdir()
            shutil.copy(network / "network.npz", folder)
            admit(competition, contender, folder, judge, config)
            if contender.name in competition.processes:
                stack.callback(competition.processes[contender.name].close)
        for turn in range(config.rounds):
            for entry in competition.entries:
                name = entry.contender.name
                targets = documented_maps(config, turn) if entry.is_documented else config.targets
                entry.run(competition.processes[name], judge, targets, 1 + turn)
                seconds = entry.rounds[-1].seconds
                print(f"round {turn + 1}: {name}, {entry.how}: {seconds:.2f} s", flush=True)
    return competition


def admit(
    competition: Competition, contender: Contender, folder: Path, judge: Judge, config: Config
) -> None:
    """Prepare a contender and add it; a peer that fails is noted and left out."""
    environment = ENVIRONMENTS.get(contender.environment)
    row = {
        "contender": contender.name,
        "install": () if environment is None else environment.installs,
        "remark": "this environment" if environment is None else environment.remark,
    }
    is_own = contender.name == OWN.name
    try:
        if is_own:
            prepared = prepare_own(folder, config)
        else:
            prepared = prepare(contender, folder, judge, config)
    except (RuntimeError, OSError) as error:
        if is_own:
            raise
        competition.installed.append({**row, "failed": str(error)})
        print(f"{contender.name}: {error}", flush=True)
        return
    process = prepared.process
    competition.processes[contender.name] = process
    competition.entries += prepared.entries
    competition.tried += prepared.tried
    competition.installed.append({**row, "start s": process.start, **process.facts})


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    competition = compete(config)
    rates = rate_rows(competition.entries)
    jobs = job_rows(competition.entries, config.maps)
    show_rows("ascent alone", rates, hidden=("ratios",))
    show_rows("the whole job, all maps", jobs, hidden=("rounds",))
    show_failures(competition.installed)
    settings = dict(vars(config))
    del settings["environments"]
    content = {
        "config": settings,
        "rates": rates,
        "jobs": jobs,
        "tried": competition.tried,
        "installed": competition.installed,
    }
    save(results, "peers", content, plot(rates, jobs))
    return jobs


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
