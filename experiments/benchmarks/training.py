"""How fast is our training beside torch and tf.keras?

Question: the same network from the same weights, trained on MNIST by Adam (1e-3, batches of 64, no
    weight decay) on the
same cores: how long does an epoch take in oipjax, in a plain torch loop and in tf.keras, and how
long does it take to classify 99 % of the test images rightly?
Expected: an epoch of oipjax takes two thirds of the time of the fastest peer's (we wanted half, see
experiments/README.md), and as many epochs are needed, since all compute the same; only the order of
the images differs. Cost: about half an hour of two cores, more where the environments of
``peers.py`` are yet to be made. Command: OIPJAX_DATA=folder python -m
experiments.benchmarks.training

oipjax trains in this process, its epoch as `oipjax.training.train_classifier` compiles it; each peer in a
process and environment of its own, as in ``peers.py``. First all variants of a peer are tried on a
few images, and the fastest one counts: torch in both memory layouts, Adam fused or not, images
gathered batch by batch or shuffled at once; ``model.fit`` from arrays and from a data set, and a
loop in one ``tf.function``, with XLA and without. ``compile`` is what the first epoch takes longer
than the next, in a fresh process for the peers.

Then come the rounds, each from other weights, which are the same for all: everyone trains the first
epoch in turn, then the second, until all have reached the target or ``epochs`` are over. Tests
after the epochs are not timed. Ratios, a peer's time over oipjax's, are medians over all epochs of
all rounds; those of the time to the target, over the rounds in which both reached it.
"""

import contextlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

import oipjax
from experiments.benchmarks import peers
from experiments.benchmarks.common import ENVIRONMENTS, Contender, Process, exported
from experiments.common import command, save, show
from oipjax import training
from oipjax.cli.options import use_cores
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.networks import cnn
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

RESULTS = Path(__file__).parent / "results"
OWN = "oipjax"
CONTENDERS = (
    Contender(
        "torch",
        "train_torch.py",
        "torch",
        tuple(
            f"{layout}, {adam}, {source}"
            for layout in ("contiguous", "channels last")
            for adam in ("plain", "fused")
            for source in ("by batch", "at once")
        ),
    ),
    Contender(
        "tf.keras",
        "train_keras.py",
        "tf-keras-vis",
        tuple(
            f"{way}, {compiler}"
            for way in ("fit, arrays", "fit, dataset", "loop, tensors")
            for compiler in ("XLA", "no XLA")
        ),
    ),
)
COLOURS = {OWN: BLUE, "torch": INACTIVE, "tf.keras": FAINT}


@dataclass(frozen=True)
class Config:
    """What is compared, and how long."""

    contenders: tuple[str, ...] = tuple(contender.name for contender in CONTENDERS)
    """Which peers; oipjax always runs."""
    rounds: int = 5
    """Trainings of each."""
    epochs: int = 4
    """At most, of one training."""
    target: float = 0.99
    """Share of test images to be classified rightly."""
    images: int = 60_000
    """To train with, from the first on."""
    trial: int = 6_400
    """Images to try the variants with."""
    batch: int = 64
    """Images of one step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    sample: bool = False
    """Take the digits that travel with the package: enough to see it run."""
    environments: Path = peers.Config.environments
    """Where the environments of the peers are, or are made."""


SMOKE = replace(Config(), contenders=(), rounds=1, epochs=1, images=128, trial=64, sample=True)


class Own:
    """Oipjax, asked as a `Process` is."""

    def __init__(self, config: Config, digits: Dataset, model: oipjax.Model, starts: list[Any]):
        self.plan = training.ClassifierTrainConfig(
            learning_rate=config.learning_rate,
            schedule="constant",
            l2=0.0,
            batch=config.batch,
            validation=0,
        )
        self.digits, self.model, self.starts = digits, model, starts
        self.given = tuple(jnp.asarray(part) for part in digits.train)
        self.facts = {"versions": {"oipjax": oipjax.__version__, "jax": jax.__version__}}
        self.state: Any = None

    def ask(
        self, setting: str, targets: np.ndarray, steps: int, *, seed: int = 0
    ) -> tuple[float, np.ndarray]:
        """One epoch, the one of number ``steps``: its seconds, and ``[[seconds, test accuracy]]``."""
        del setting
        if steps == 1:
            params = jax.tree.map(
                jnp.array, self.starts[seed]
            )  # a copy: an epoch takes the state for itself
            self.state = training.State(params, training.optimizer(self.plan, 1).init(params))
        count, model = int(targets[0]), self.model
        given = tuple(part[:count] for part in self.given)
        key = jax.random.fold_in(jax.random.key(seed), steps)
        jax.block_until_ready((given, self.state))
        begin = time.perf_counter()
        state, *means = training.run_epoch(
            self.plan, 1, model.apply, (model.mean, model.std), self.state, key, *given
        )
        self.state = jax.block_until_ready((state, means))[0]
        seconds = time.perf_counter() - begin
        confusion, _ = training.evaluate_classifier(model, self.state.params, self.digits.test)
        return seconds, np.array([[seconds, np.trace(confusion) / confusion.sum()]])

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class Entry:
    """A contender at work, and what was measured of it."""

    name: str
    setting: str
    process: Process | Own
    compiling: float
    epochs: list[list[tuple[float, float]]]
    """Seconds and test accuracy of each epoch of each round."""

    def run(self, images: int, number: int, turn: int) -> None:
        """Train one epoch of a round, the first of number 1."""
        if number == 1:
            self.epochs.append([])
        seconds, right = epoch(self.process, self.setting, images, number, turn)
        self.epochs[-1].append((seconds, right))
        print(
            f"round {turn}, epoch {number}: {self.name}: {seconds:.2f} s, {right:.2%} right",
            flush=True,
        )

    def to(self, target: float) -> list[tuple[float, int] | None]:
        """Seconds and epochs of training until the target is reached; None in rounds in which it was not."""
        out = []
        for line in self.epochs:
            first = next(
                (number for number, (_, right) in enumerate(line, 1) if right >= target), None
            )
            out.append(first and (sum(seconds for seconds, _ in line[:first]), first))
        return out

    @property
    def seconds(self) -> np.ndarray:
        """Of all epochs."""
        return np.array([seconds for line in self.epochs for seconds, _ in line])


def epoch(
    process: Process | Own, setting: str, images: int, number: int, turn: int
) -> tuple[float, float]:
    """Seconds and test accuracy of one epoch."""
    ((seconds, right),) = process.ask(setting, np.array([images]), number, seed=turn)[1]
    return float(seconds), float(right)


def initial(config: Config, digits: Dataset) -> tuple[oipjax.Model, list[Any]]:
    """The network, and the weights that each round starts from; the first ones are for what comes before."""
    network = cnn.CNNConfig()
    starts = [
        jax.tree.map(np.asarray, cnn.init(jax.random.key(turn), network))
        for turn in range(config.rounds + 1)
    ]
    pixels = digits.train.images.astype(np.float32) / 255
    mean, std = (round(float(value), 4) for value in (pixels.mean(), pixels.std()))
    return cnn.model(
        jax.tree.map(jnp.asarray, starts[0]), network, mean=(mean,), std=(std,)
    ), starts


def write(folder: Path, config: Config, digits: Dataset, starts: list[Any]) -> None:
    """What the scripts need beside the network: digits, the plan, and the weights that each round starts from."""
    arrays = {
        f"{name}_{part}": array
        for name in ("train", "test")
        for part, array in getattr(digits, name)._asdict().items()
    }
    np.savez(folder / "training.npz", batch=config.batch, rate=config.learning_rate, **arrays)
    for number, params in enumerate(starts):
        flat = {
            f"{layer}_{name}": value
            for layer, both in params.items()
            for name, value in both.items()
        }
        np.savez(folder / f"start{number}.npz", **flat)


def fastest(process: Process, contender: Contender, images: int) -> list[dict[str, Any]]:
    """A line for each variant that was tried, the fastest first."""
    tried = []
    for setting in contender.variants:
        _, *later = (epoch(process, setting, images, number, 0)[0] for number in (1, 2, 3))
        tried.append(
            {"contender": contender.name, "setting": setting, "images/s": images / min(later)}
        )
        print(f"{contender.name}: {setting}: {tried[-1]['images/s']:.0f} images/s", flush=True)
    return sorted(tried, key=lambda row: -row["images/s"])


def ready(name: str, setting: str, process: Process | Own, config: Config) -> Entry:
    """An entry that waits for its rounds, with everything compiled."""
    first, second = (epoch(process, setting, config.trial, number, 0)[0] for number in (1, 2))
    epoch(process, setting, config.images, 1, 0)
    return Entry(name, setting, process, max(first - second, 0.0), [])


def compete(
    config: Config, digits: Dataset
) -> tuple[list[Entry], list[dict[str, Any]], list[dict[str, Any]]]:
    """All entries with their rounds, what was tried, and a line for each contender's environment."""
    model, starts = initial(config, digits)
    own = Own(config, digits, model, starts)
    entries = [ready(OWN, "", own, config)]
    tried, installed = [], [{"contender": OWN, **own.facts}]
    with exported(model) as folder, contextlib.ExitStack() as stack:
        for contender in (
            contender for contender in CONTENDERS if contender.name in config.contenders
        ):
            place = folder / contender.name
            place.mkdir()
            shutil.copy(folder / "network.npz", place)
            write(place, config, digits, starts)
            row = {
                "contender": contender.name,
                "install": ENVIRONMENTS[contender.environment].installs,
            }
            try:
                process = Process(contender, place, config.environments)
                with contextlib.closing(process):
                    tried += (some := fastest(process, contender, config.trial))
                process = Process(contender, place, config.environments)
                stack.callback(process.close)
                entries.append(ready(contender.name, some[0]["setting"], process, config))
            except (RuntimeError, OSError) as error:
                installed.append({**row, "failed": str(error)})
                print(f"{contender.name}: {error}", flush=True)
                continue
            installed.append({**row, **process.facts})
        for turn in range(1, config.rounds + 1):
            for number in range(1, config.epochs + 1):
                for made in entries:
                    made.run(config.images, number, turn)
                if all(made.to(config.target)[-1] for made in entries):
                    break
    return entries, tried, installed


def table(entries: list[Entry], config: Config) -> list[dict[str, Any]]:
    """A line for each contender; ratios are its time over oipjax's, in the same round and epoch."""
    own, count = entries[0], config.images // config.batch * config.batch
    reached = {made.name: made.to(config.target) for made in entries}
    rows = []
    for made in entries:
        mine, theirs = reached[own.name], reached[made.name]
        both = [other[0] / one[0] for one, other in zip(mine, theirs, strict=True) if one and other]
        there = [one for one in theirs if one]
        ratios = made.seconds / own.seconds
        rows.append({
            "contender": made.name,
            "setting": made.setting,
            "compile, s": made.compiling,
            "s/epoch": float(np.median(made.seconds)),
            "images/s": round(count / float(np.median(made.seconds))),
            "ratio": float(np.median(ratios)),
            "s to target": float(np.median([seconds for seconds, _ in there])) if there else None,
            "epochs": float(np.median([number for _, number in there])) if there else None,
            "reached": f"{len(there)} of {config.rounds}",
            "ratio to target": float(np.median(both)) if both else None,
            "accuracy": float(np.median([line[-1][1] for line in made.epochs])),
            "all ratios": ratios.tolist(),
            "all ratios to target": both,
            "rounds": made.epochs,
        })  # fmt: skip
    return rows


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[dict[str, Any]]:
    """Run, print, write."""
    digits = digits or read(config)
    config = replace(config, images=min(config.images, len(digits.train.images)))
    config = replace(config, trial=min(config.trial, config.images))
    if config.trial < config.batch:
        raise ValueError(
            f"images and trial must be at least one batch of {config.batch}, got {config.trial}"
        )
    entries, tried, installed = compete(config, digits)
    rows = table(entries, config)
    columns = [
        name for name in rows[0] if name not in ("all ratios", "all ratios to target", "rounds")
    ]
    title = f"training on {config.images:,} digits, target {config.target:.0%}"
    show(title, columns, [[row[name] for name in columns] for row in rows])
    failed = [row for row in installed if "failed" in row]
    if failed:
        show(
            "not compared",
            ["contender", "why"],
            [[row["contender"], row["failed"]] for row in failed],
        )
    settings = {name: value for name, value in vars(config).items() if name != "environments"}
    content = {"config": settings, "rows": rows, "tried": tried, "installed": installed}
    save(results, "training", content, figure(rows, config))
    return rows


def read(config: Config) -> Dataset:
    """The digits to train with.

    Raises:
        ValueError: MNIST is not there and cannot be downloaded.
    """
    return data.sample_dataset() if config.sample else data.load()


def figure(rows: list[dict[str, Any]], config: Config) -> Figure:
    """Seconds per epoch, and errors against the time spent training."""
    drawn = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.4))
    names, values = [row["contender"] for row in rows], [row["s/epoch"] for row in rows]
    left.barh(names, values, color=[COLOURS[name] for name in names])
    for place, row in enumerate(rows):
        left.annotate(
            f" {row['s/epoch']:.3g} (x {row['ratio']:.2f})", (values[place], place), va="center"
        )
    left.invert_yaxis()
    left.margins(x=0.35)
    left.set_xlabel("seconds per epoch")
    for row in rows:
        for number, line in enumerate(row["rounds"]):
            seconds, shares = np.array(line).T
            label = None if number else row["contender"]
            style = {
                "color": COLOURS[row["contender"]],
                "marker": "o",
                "markersize": 3,
                "linewidth": 1,
                "label": label,
            }
            right.plot(np.cumsum(seconds), 1 - shares, **style)
    right.axhline(1 - config.target, color=INK, linewidth=0.8, linestyle="--")
    right.yaxis.set_major_locator(MultipleLocator(0.005))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" %"))
    right.set_xlim(left=0)
    right.set_ylim(bottom=0)
    right.set(xlabel="seconds of training", ylabel="test images classified wrongly")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # what compiling takes is measured
    use_cores()
    command(main, Config, __doc__, RESULTS, digits=True)
