"""How fast is oipjax's training beside torch and tf.keras?

Question: the same network from the same weights, trained on MNIST by Adam (1e-3, batches of 64, no
weight decay) on the same cores. How long does an epoch take in oipjax, in a plain torch loop and in
tf.keras, and how long does it take to classify 99 % of the test images rightly?
Expected: an epoch of oipjax takes two thirds of the time of the fastest peer's. (The aim was half,
see experiments/README.md.) As many epochs are needed, since all compute the same; only the order of
the images differs.
Cost: about half an hour of two cores, more where the environments of ``peers.py`` must be made
first.
Command: OIPJAX_DATA=folder python -m experiments.benchmarks.training

oipjax trains in this process, and `oipjax.training.run_epoch` is one epoch of it. Each peer trains
in a process and environment of its own, as in ``peers.py``. First all variants of a peer are tried
on a few images, and the fastest one counts. For torch these are both memory layouts, Adam fused or
not, and images gathered batch by batch or shuffled at once. For tf.keras these are ``model.fit``
from arrays and from a data set, and a loop in one ``tf.function``, with XLA and without.
``compile`` is the time of the first epoch less that of the second, in a fresh process for the
peers.

Then come the rounds, each from other weights, which are the same for all contenders. In turn,
everyone trains the first epoch, then the second, until all have reached the target or ``epochs``
are over. Tests after the epochs are not timed. Ratios are a peer's time over oipjax's, medians over
all epochs of all rounds. Those of the time to the target are medians over the rounds in which both
reached it.
"""

import contextlib
import itertools
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

import oipjax
from experiments.benchmarks import peers
from experiments.benchmarks.common import ENVIRONMENTS, Contender, Process, exported
from experiments.benchmarks.comparison import show_failures, show_rows
from experiments.common import command, save
from oipjax import training
from oipjax.cli.options import use_cores
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.networks import cnn
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

RESULTS = Path(__file__).parent / "results"
OWN = "oipjax"


def _variants(*choices: tuple[str, ...]) -> tuple[str, ...]:
    """All combinations of one of each choice."""
    return tuple(", ".join(combination) for combination in itertools.product(*choices))


TORCH = Contender(
    name="torch",
    script="train_torch.py",
    environment="torch",
    variants=_variants(
        ("contiguous", "channels last"),
        ("plain", "fused"),
        ("by batch", "at once"),
    ),
)
KERAS = Contender(
    name="tf.keras",
    script="train_keras.py",
    environment="tf-keras-vis",
    variants=_variants(
        ("fit, arrays", "fit, dataset", "loop, tensors"),
        ("XLA", "no XLA"),
    ),
)
CONTENDERS = (TORCH, KERAS)
COLOURS = {OWN: BLUE, "torch": INACTIVE, "tf.keras": FAINT}
HIDDEN_COLUMNS = ("all ratios", "all ratios to target", "rounds")

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """The contenders, and how much each of them trains.

    Attributes:
        contenders: which peers; oipjax always runs.
        rounds: trainings of each.
        epochs: at most, of one training.
        target: share of test images to be classified rightly.
        images: to train with, from the first on.
        trial: images to try the variants with.
        batch: images of one step.
        learning_rate: of Adam.
        sample: take the digits that ship with the package, which are enough to see it run.
        environments: where the environments of the peers are, or are made.
    """

    contenders: tuple[str, ...] = tuple(contender.name for contender in CONTENDERS)
    rounds: int = 5
    epochs: int = 4
    target: float = 0.99
    images: int = 60_000
    trial: int = 6_400
    batch: int = 64
    learning_rate: float = 1e-3
    sample: bool = False
    environments: Path = peers.Config.environments


SMOKE = replace(Config(), contenders=(), rounds=1, epochs=1, images=128, trial=64, sample=True)


class Own:
    """Training in oipjax, with the methods of a `Process`.

    Args:
        config: of the benchmark.
        digits: to train and test with.
        model: the network.
        starts: the weights that each round starts from.
    """

    def __init__(self, config: Config, digits: Dataset, model: oipjax.Model, starts: list[Any]):
        self.plan = training.ClassifierTrainConfig(
            learning_rate=config.learning_rate,
            schedule="constant",
            l2=0.0,
            batch=config.batch,
            validation=0,
        )
        self.digits = digits
        self.model = model
        self.starts = starts
        self.images = jnp.asarray(digits.train.images)
        self.labels = jnp.asarray(digits.train.labels)
        self.facts = {"versions": {"oipjax": oipjax.__version__, "jax": jax.__version__}}
        self.state: Any = None

    def ask(
        self, setting: str, targets: np.ndarray, steps: int, *, seed: int = 0
    ) -> tuple[float, np.ndarray]:
        """Train one epoch.

        Args:
            setting: not used.
            targets: ``[1]``, the number of images.
            steps: number of the epoch; 1 starts anew.
            seed: number of the round.

        Returns:
            Its seconds, and ``[[seconds, test accuracy]]``.
        """
        del setting
        if steps == 1:
            # An epoch takes the state for itself, so it gets a copy.
            params = jax.tree.map(jnp.array, self.starts[seed])
            optimizer = training.optimizer(self.plan, 1).init(params)
            self.state = training.State(params, optimizer)
        model = self.model
        normalisation = (model.mean, model.std)
        images = self.images[: int(targets[0])]
        labels = self.labels[: int(targets[0])]
        key = jax.random.fold_in(jax.random.key(seed), steps)
        jax.block_until_ready((images, labels, self.state))
        begin = time.perf_counter()
        trained = training.run_epoch(
            self.plan, 1, model.apply, normalisation, self.state, key, images, labels
        )
        self.state, *_ = jax.block_until_ready(trained)
        seconds = time.perf_counter() - begin
        confusion, _ = training.evaluate_classifier(model, self.state.params, self.digits.test)
        accuracy = np.trace(confusion) / confusion.sum()
        return seconds, np.array([[seconds, accuracy]])

    def close(self) -> None:
        """Nothing to end."""


class Epoch(NamedTuple):
    """One epoch of training; it is written as a pair.

    Attributes:
        seconds: of training.
        accuracy: share of the test images that are classified rightly after it.
    """

    seconds: float
    accuracy: float


class Reached(NamedTuple):
    """A training that reached the target.

    Attributes:
        seconds: of training until then.
        epochs: until then.
    """

    seconds: float
    epochs: int


@dataclass
class Entry:
    """A contender that is ready for the rounds, and its measurements.

    Attributes:
        name: of the contender.
        setting: as it reads it.
        process: that trains.
        compiling: seconds by which its first epoch was longer than its second.
        rounds: the epochs of each round.
    """

    name: str
    setting: str
    process: Process | Own
    compiling: float
    rounds: list[list[Epoch]] = field(default_factory=list)

    def run(self, images: int, number: int, turn: int) -> None:
        """Train epoch ``number`` of a round; number 1 begins the round."""
        if number == 1:
            self.rounds.append([])
        epoch = train(self.process, self.setting, images, number, turn)
        self.rounds[-1].append(epoch)
        result = f"{epoch.seconds:.2f} s, {epoch.accuracy:.2%} right"
        print(f"round {turn}, epoch {number}: {self.name}: {result}", flush=True)

    def to(self, target: float) -> list[Reached | None]:
        """The training of each round until the target is reached; None where it was not."""
        return [_until(epochs, target) for epochs in self.rounds]

    @property
    def seconds(self) -> np.ndarray:
        """Of all epochs of all rounds."""
        epochs = itertools.chain.from_iterable(self.rounds)
        return np.array([epoch.seconds for epoch in epochs])


def _until(epochs: list[Epoch], target: float) -> Reached | None:
    seconds = 0.0
    for number, epoch in enumerate(epochs, 1):
        seconds += epoch.seconds
        if epoch.accuracy >= target:
            return Reached(seconds=seconds, epochs=number)
    return None


def train(process: Process | Own, setting: str, images: int, number: int, turn: int) -> Epoch:
    """Train epoch ``number`` of a round."""
    _, answer = process.ask(setting, np.array([images]), number, seed=turn)
    ((seconds, accuracy),) = answer
    return Epoch(seconds=float(seconds), accuracy=float(accuracy))


def initial(config: Config, digits: Dataset) -> tuple[oipjax.Model, list[Any]]:
    """The network, and weights for each round; the first ones are for the trials before."""
    network = cnn.CNNConfig()
    starts = []
    for turn in range(config.rounds + 1):
        params = cnn.init(jax.random.key(turn), network)
        starts.append(jax.tree.map(np.asarray, params))
    pixels = digits.train.images.astype(np.float32) / 255
    mean = round(float(pixels.mean()), 4)
    std = round(float(pixels.std()), 4)
    params = jax.tree.map(jnp.asarray, starts[0])
    return cnn.model(params, network, mean=(mean,), std=(std,)), starts


def write(folder: Path, config: Config, digits: Dataset, starts: list[Any]) -> None:
    """Write the digits, the plan, and the weights that each round starts from, for a script."""
    np.savez(
        folder / "training.npz",
        batch=config.batch,
        rate=config.learning_rate,
        train_images=digits.train.images,
        train_labels=digits.train.labels,
        test_images=digits.test.images,
        test_labels=digits.test.labels,
    )
    for number, params in enumerate(starts):
        arrays = {}
        for layer, parameters in params.items():
            for name, value in parameters.items():
                arrays[f"{layer}_{name}"] = value
        np.savez(folder / f"start{number}.npz", **arrays)


def try_variants(process: Process, contender: Contender, images: int) -> list[Row]:
    """A row for each variant that was tried, the fastest first."""
    tried = []
    for setting in contender.variants:
        epochs = [train(process, setting, images, number, 0) for number in (1, 2, 3)]
        fastest = min(epoch.seconds for epoch in epochs[1:])
        rate = images / fastest
        row = {"contender": contender.name, "setting": setting, "images/s": rate}
        tried.append(row)
        print(f"{contender.name}: {setting}: {rate:.0f} images/s", flush=True)
    return sorted(tried, key=lambda row: -row["images/s"])


def ready(name: str, setting: str, process: Process | Own, config: Config) -> Entry:
    """An entry without rounds, with everything compiled."""
    first = train(process, setting, config.trial, 1, 0)
    second = train(process, setting, config.trial, 2, 0)
    train(process, setting, config.images, 1, 0)
    compiling = max(first.seconds - second.seconds, 0.0)
    return Entry(name=name, setting=setting, process=process, compiling=compiling)


@dataclass
class Competition:
    """All that was measured.

    Attributes:
        entries: with their rounds; oipjax is the first.
        tried: a row for each variant that was tried.
        installed: a row for the environment of each contender.
    """

    entries: list[Entry] = field(default_factory=list)
    tried: list[Row] = field(default_factory=list)
    installed: list[Row] = field(default_factory=list)


def compete(config: Config, digits: Dataset) -> Competition:
    """Start all contenders, and let them train in turn."""
    model, starts = initial(config, digits)
    competition = Competition()
    own = Own(config, digits, model, starts)
    competition.entries.append(ready(OWN, "", own, config))
    competition.installed.append({"contender": OWN, **own.facts})
    with exported(model) as network, contextlib.ExitStack() as stack:
        for contender in CONTENDERS:
            if contender.name not in config.contenders:
                continue
            folder = network / contender.name
            folder.mkdir()
            shutil.copy(network / "network.npz", folder)
            write(folder, config, digits, starts)
            admit(competition, contender, folder, config, stack)
        for turn in range(1, config.rounds + 1):
            run_round(competition.entries, config, turn)
    return competition


def admit(
    competition: Competition,
    contender: Contender,
    folder: Path,
    config: Config,
    stack: contextlib.ExitStack,
) -> None:
    """Prepare a peer and add it; a peer that fails is noted and left out.

    Args:
        competition: to add it to.
        contender: the peer.
        folder: with the files that its script reads.
        config: of the benchmark.
        stack: closes its process in the end.
    """
    installs = ENVIRONMENTS[contender.environment].installs
    row = {"contender": contender.name, "install": installs}
    try:
        process = Process(contender, folder, config.environments)
        with contextlib.closing(process):
            tried = try_variants(process, contender, config.trial)
        competition.tried += tried
        process = Process(contender, folder, config.environments)
        stack.callback(process.close)
        entry = ready(contender.name, tried[0]["setting"], process, config)
    except (RuntimeError, OSError) as error:
        competition.installed.append({**row, "failed": str(error)})
        print(f"{contender.name}: {error}", flush=True)
        return
    competition.entries.append(entry)
    competition.installed.append({**row, **process.facts})


def run_round(entries: list[Entry], config: Config, turn: int) -> None:
    """Train all contenders, epoch by epoch, until all have reached the target."""
    for number in range(1, config.epochs + 1):
        for entry in entries:
            entry.run(config.images, number, turn)
        if all(entry.to(config.target)[-1] is not None for entry in entries):
            return


def table(entries: list[Entry], config: Config) -> list[Row]:
    """A row for each contender; ratios are its time over oipjax's, in the same round and epoch."""
    own = entries[0]
    return [_row(entry, own, config) for entry in entries]


def _row(entry: Entry, own: Entry, config: Config) -> Row:
    images = config.images // config.batch * config.batch
    seconds = float(np.median(entry.seconds))
    ratios = entry.seconds / own.seconds
    rounds = entry.to(config.target)
    reached = [success for success in rounds if success is not None]
    ratios_to_target = []
    for own_success, success in zip(own.to(config.target), rounds, strict=True):
        if own_success is not None and success is not None:
            ratios_to_target.append(success.seconds / own_success.seconds)
    last_accuracies = [epochs[-1].accuracy for epochs in entry.rounds]
    return {
        "contender": entry.name,
        "setting": entry.setting,
        "compile, s": entry.compiling,
        "s/epoch": seconds,
        "images/s": round(images / seconds),
        "ratio": float(np.median(ratios)),
        "s to target": _median([success.seconds for success in reached]),
        "epochs": _median([success.epochs for success in reached]),
        "reached": f"{len(reached)} of {config.rounds}",
        "ratio to target": _median(ratios_to_target),
        "accuracy": float(np.median(last_accuracies)),
        "all ratios": ratios.tolist(),
        "all ratios to target": ratios_to_target,
        "rounds": entry.rounds,
    }


def _median(values: list[Any]) -> float | None:
    return float(np.median(values)) if values else None


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> list[Row]:
    """Run, print, write.

    Raises:
        ValueError: there are fewer images than one batch, or MNIST cannot be read or downloaded.
    """
    if digits is None:
        digits = data.sample_dataset() if config.sample else data.load()
    images = min(config.images, len(digits.train.images))
    config = replace(config, images=images, trial=min(config.trial, images))
    if config.trial < config.batch:
        raise ValueError(
            f"images and trial must be at least one batch of {config.batch}, got {config.trial}"
        )
    competition = compete(config, digits)
    rows = table(competition.entries, config)
    title = f"training on {config.images:,} digits, target {config.target:.0%}"
    show_rows(title, rows, hidden=HIDDEN_COLUMNS)
    show_failures(competition.installed)
    settings = dict(vars(config))
    del settings["environments"]
    content = {
        "config": settings,
        "rows": rows,
        "tried": competition.tried,
        "installed": competition.installed,
    }
    save(results, "training", content, figure(rows, config.target))
    return rows


def figure(rows: list[Row], target: float) -> Figure:
    """Seconds per epoch, and errors against the time spent training."""
    drawn = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.4))
    _draw_seconds(left, rows)
    _draw_errors(right, rows, target)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _draw_seconds(axes: Axes, rows: list[Row]) -> None:
    """A bar of each contender's seconds per epoch."""
    names = [row["contender"] for row in rows]
    seconds = [row["s/epoch"] for row in rows]
    axes.barh(names, seconds, color=[COLOURS[name] for name in names])
    for place, row in enumerate(rows):
        text = f" {row['s/epoch']:.3g} (x {row['ratio']:.2f})"
        axes.annotate(text, (row["s/epoch"], place), va="center")
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.set_xlabel("seconds per epoch")


def _draw_errors(axes: Axes, rows: list[Row], target: float) -> None:
    """A line for each round of each contender, and the target."""
    for row in rows:
        name = row["contender"]
        for number, epochs in enumerate(row["rounds"]):
            seconds, accuracies = np.array(epochs).T
            style: dict[str, Any] = {
                "color": COLOURS[name],
                "marker": "o",
                "markersize": 3,
                "linewidth": 1,
                "label": name if number == 0 else None,
            }
            axes.plot(np.cumsum(seconds), 1 - accuracies, **style)
    axes.axhline(1 - target, color=INK, linewidth=0.8, linestyle="--")
    axes.yaxis.set_major_locator(MultipleLocator(0.005))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" %"))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="seconds of training", ylabel="test images classified wrongly")
    axes.legend(frameon=False)


if __name__ == "__main__":
    # The time of compiling is measured.
    jax.config.update("jax_enable_compilation_cache", False)
    use_cores()
    command(main, Config, __doc__, RESULTS, digits=True)
