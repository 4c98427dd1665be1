"""The command line: parse, call, print. Whatever is wrong with the input is one short message and exit code 2."""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.ascent import SILENT, STATUS, Ascent, ascend, check_plan
from oipjax.atlas import Study
from oipjax.bounds import bounds as prove
from oipjax.console import DownloadBar, progress, stderr
from oipjax.images import Fluctuation, Fluctuations, space_for
from oipjax.methods import METHODS
from oipjax.model import flatten
from oipjax.objectives import Map
from oipjax.survey import checked_index, survey

OUT = Path("oipjax-out")
Formats = Literal["png", "pdf", "svg"]


def atlas(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    maps: str = "all",
    draws: int = 4096,
    keep: int = 4,
    steps: int = 100,
    screen: int | None = None,
    finish: int = 1,
    keep_images: int | None = None,
    method: Literal["momentum", "classic"] = "momentum",
    space: Literal["standardised", "box"] = "standardised",
    recipe: tuple[str, ...] = (),
    wake: int = 4,
    search: int = 16,
    bounds: Literal["none", "cheap", "tight"] = "cheap",
    criterion: float = 2e-4,
    stop: bool = False,
    seed: int = 0,
    tile: int | None = None,
    format: tuple[Formats, ...] = ("png",),
    out: Path | None = None,
    overwrite: bool = False,
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Find the input patterns of all maps of a layer: survey, ascent, and a verdict for each map.

    Example: oipjax atlas --layer conv3 --maps 0,5,120 --out patterns

    Writes manifest.json, maps.csv, oips.npz and atlas.png. Interrupted, it goes on where it stopped when it is called
    again; finished, it says where the record lies.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps. See 'oipjax layers'.
        maps: which maps: all, or indices and ranges such as 0,5,120-127.
        draws: random starts that the survey feeds through the network.
        keep: best starts, and so ascents and patterns, per map.
        steps: steps of each ascent that is climbed to its end.
        screen: steps of a short ascent from every start before that, by default a quarter of --steps; 0: all starts
            are climbed to their end at once.
        finish: how many of each map's short ascents are climbed on, the best first.
        keep_images: keep the images of so many of each map's patterns; scores and traces are kept of all.
        method: momentum (default), or classic: the reference rule, best with --steps 600.
        space: standardised images (mean 0, std 1), or the box of valid pixels.
        recipe: mixtures of random fields to start from, as size:weight,... and ~blur, e.g. 3:0.2,7:0.2~1.
        wake: further starts for each map that stays silent.
        search: for maps neither found nor proved dead: as many starts from real digits, and four times as many random.
        bounds: how hard to prove upper limits: none, cheap (seconds), or tight (minutes; box only).
        criterion: relative change of the score per step below which a run counts as converged.
        stop: end each run once it has converged.
        seed: the same seed gives the same patterns.
        tile: batch size of the compiled programs; part of what decides the last bits.
        format: of the picture, one or more.
        out: folder of the record; by default oipjax-out/<model>-<layer>.
        overwrite: replace another run's record in that folder.
        coordinator: host:port of process 0, if several processes make the record together in a folder that all of them
            see; 'auto' finds it, and the next two, in a cluster's environment (Slurm, Open MPI, Kubernetes).
        processes: how many there are.
        process: the number of this one, from 0.
    """
    begin = time.perf_counter()
    number, count = _join(coordinator, processes, process)
    model = oipjax.load(checkpoint)
    key = _key(seed)
    study = Study(
        key,
        model,
        layer,
        maps=_indices(maps, model.layer(layer or model.default_layer).maps),
        space=space_for(model, space, _recipes(recipe)),
        draws=draws,
        keep=keep,
        method=METHODS[method](),
        steps=steps,
        wake=wake,
        search=search,
        exemplars=_exemplars(model),
        bounds=bounds,
        criterion=criterion,
        stop=stop,
        tile=tile,
    )
    folder = out or OUT / f"{model.name}-{study.layer}"
    # Drawing takes long to import; meanwhile the cores compute.
    threading.Thread(target=importlib.import_module, args=("oipjax.plots",), daemon=True).start()
    with progress() as report:
        record = records.make(folder, study, overwrite=overwrite, progress=report, process=(number, count))
    if number:
        return
    counts = record.manifest["counts"]
    pictures = [folder / f"atlas.{ending}" for ending in format]
    for picture in pictures:
        if record.fresh or not picture.exists():
            _save_atlas(record, picture)
    verdict = f"found {counts['found']} of {counts['maps']} maps of {study.layer}"
    if counts["dead"]:
        verdict += f", {counts['dead']} proved dead"
    if counts["unresolved"]:
        verdict += f", {counts['unresolved']} unresolved"
    took = f"in {time.perf_counter() - begin:.1f} s" if record.fresh else "(finished before; nothing to do)"
    print(f"{verdict} {took}: {pictures[0]}")


def oip(
    *,
    map: int,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    draws: int = 4096,
    steps: int = 600,
    reports: int = 6,
    method: Literal["momentum", "classic"] = "classic",
    space: Literal["standardised", "box"] = "standardised",
    recipe: tuple[str, ...] = (),
    start: int | None = None,
    criterion: float = 2e-4,
    stop: bool = False,
    seed: int = 0,
    tile: int | None = None,
    format: tuple[Formats, ...] = ("png",),
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Watch the pattern of one map evolve out of a random start.

    Example: oipjax oip --map 120

    Prints a table of step, score and change; draws the images at these steps, plain and contrast-enhanced, and the
    curve.

    Args:
        map: index of the map, from 0.
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps.
        draws: random starts to choose the start from: the one that the map reacts to most.
        steps: steps of the ascent.
        reports: recorded steps between the first and the last, doubling.
        method: classic: the reference rule; or momentum: finds more in fewer steps, try --steps 100.
        space: standardised images (mean 0, std 1), or the box of valid pixels.
        recipe: mixtures of random fields to start from, as size:weight,... and ~blur, e.g. 3:0.2,7:0.2~1.
        start: number of the survey's start to use instead of the best one.
        criterion: relative change of the score per step below which the run counts as converged.
        stop: end the run once it has converged.
        seed: the same seed gives the same pattern.
        tile: batch size of the compiled program.
        format: of the picture, one or more.
        out: folder; by default oipjax-out/<model>-<layer>-map<index>.
        overwrite: replace another run's files in that folder.
    """
    model, key = oipjax.load(checkpoint), _key(seed)
    layer = model.layer(layer or model.default_layer).name
    Map(layer).check(model, np.array([map]))
    check_plan(steps, reports, criterion)
    if start is not None:
        checked_index([start])
    chosen = space_for(model, space, _recipes(recipe))
    folder = out or OUT / f"{model.name}-{layer}-map{map}"
    options = {"draws": draws, "steps": steps, "reports": reports, "start": start, "criterion": criterion, "stop": stop}
    config = records.describe_run(
        "oip", model, key, chosen, METHODS[method](), layer=layer, map=map, tile=tile, **options
    )
    names = [f"oip.{ending}" for ending in format]
    if records.is_finished(folder, config, overwrite=overwrite):
        run, start = records.read_run(folder), int(records.read_manifest(folder)["start"])
        for name in names:
            if not (folder / name).exists():
                records.save_picture(folder / name, _oip_figure(config, run, start))
        print(f"finished before; nothing to do: {folder / names[0]}")
        return
    with progress() as report:
        if start is None:
            found = survey(
                key, model, layer, space=chosen, draws=draws, keep=1, tile=tile,
                progress=lambda done, total: report("survey", done, total),
            )  # fmt: skip
            start = int(found.start_index[map, 0])
        run = ascend(
            key, model, Map(layer), np.array([map]), np.array([start]), space=chosen, method=METHODS[method](),
            steps=steps, reports=reports, criterion=criterion, stop=stop, record_images=True, tile=tile,
            progress=lambda done, total: report("ascent", done, total),
        )  # fmt: skip
    status = int(run.status[0])
    table = Table("step", "score", "change per step", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for number, score, change in zip(run.trace_steps, run.trace[0], run.changes[0], strict=True):
        table.add_row(str(number), f"{score:.4f}", f"{change:+.3g}")
    Console(highlight=False).print(table)
    records.write_run(folder, config, run, {name: _oip_figure(config, run, start) for name in names}, start=start)
    print(f"map {map} of {layer}: {STATUS[status]}; best score {run.scores[0]:.4f}: {folder / names[0]}")
    if status == SILENT:
        print("try --method momentum, which climbs the pre-activation first, or another --seed, --recipe or --draws")


def bounds(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    maps: str = "all",
    space: Literal["standardised", "box"] = "standardised",
    level: Literal["cheap", "tight"] = "cheap",
) -> None:
    """Print what is proved of the maps of a layer: how high they can come, and which are dead.

    Example: oipjax bounds --layer conv3 --space box --level tight

    The bound of a score (mean over the map) and of every node, before the nonlinearity, hold for all images of the
    space; a map whose node bound is not above the floor is dead.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps.
        maps: which maps: all, or indices and ranges such as 0,5,120-127.
        space: standardised images (mean 0, std 1), or the box of valid pixels.
        level: cheap (seconds), or tight (minutes).
    """
    model, begin = oipjax.load(checkpoint), time.perf_counter()
    name = model.layer(layer or model.default_layer).name
    chosen = _indices(maps, model.layer(name).maps)
    if chosen is not None:
        Map(name).check(model, np.array(chosen))
    with progress() as report:
        proved = prove(model, name, space_for(model, space).domain, level=level, progress=report)
    table = Table("map", "score at most", "node at most", "by", "", box=None, header_style="bold")
    for column in table.columns[:3]:
        column.justify = "right"
    asked = range(len(proved.score)) if chosen is None else chosen
    for k in asked:
        numbers = (f"{value:.5g}" for value in (proved.score[k], proved.node[k]))
        table.add_row(str(k), *numbers, str(proved.method[k]), "dead" if proved.dead[k] else "")
    Console(highlight=False).print(table)
    dead = int(sum(proved.dead[k] for k in asked))
    took = f"in {time.perf_counter() - begin:.1f} s"
    print(f"{dead} of {len(asked)} maps of {name} proved dead over {space} images {took}")


def layers(*, checkpoint: str = "mnist-cnn") -> None:
    """List the layers of a network, their maps and nodes.

    Example: oipjax layers --checkpoint mnist-cnn

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
    """
    model = oipjax.load(checkpoint)
    parameters = flatten(model.params)
    table = Table("layer", "nodes of a map", "maps", "values", "parameters", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in model.layers:
        facts = model.layer(name)
        owned = sum(a.size for path, a in parameters.items() if path.startswith(f"{name.removesuffix('_pre')}/"))
        shown = "" if facts.pre or not owned else f"{owned:,}"
        values = "from the floor " + f"{facts.floor:g} up" if facts.floor is not None else "any"
        space = " x ".join(map(str, facts.shape[:-1])) or "1"
        table.add_row(name, space, str(facts.maps), values, shown)
    Console(highlight=False).print(table)
    low, high = model.input_box
    box = ", ".join(f"{a:.3f} to {b:.3f}" for a, b in zip(low, high, strict=True))
    total = sum(a.size for a in parameters.values())
    print(f"{model.name}: images {' x '.join(map(str, model.input_shape))}, inputs {box}; {total:,} parameters")


def train(
    *,
    data: str = "",
    out: Path = OUT / "train" / "mnist-cnn",
    name: str = "mnist-cnn",
    epochs: int = 12,
    batch: int = 64,
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam",
    learning_rate: float = 1e-3,
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] = "cosine",
    momentum: float = 0.9,
    l2: float = 3e-4,
    validation: int | None = None,
    filters: tuple[int, ...] = (32, 64, 128),
    kernel: int = 3,
    pools: tuple[int, ...] = (2, 2, 1),
    dense: tuple[int, ...] = (100,),
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] = "relu",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a CNN on MNIST and write a checkpoint, with curves and the confusion matrix as pictures.

    Example: oipjax train --epochs 12 --out networks/mine

    Args:
        data: folder with the four official MNIST files; else the environment variable OIPJAX_DATA; else they are
            downloaded. 'sample': the 1,000 digits that ship with oipjax, for a quick try.
        out: checkpoint folder to write.
        name: of the network.
        epochs: passes through the training images.
        batch: images per step.
        optimizer: of optax.
        learning_rate: at the start.
        schedule: of the learning rate.
        momentum: of sgd and rmsprop.
        l2: times the sum of squares of all kernels is added to the loss.
        validation: training images held out to choose the best epoch; by default a twelfth of them.
        filters: maps of each convolution.
        kernel: side of the kernels.
        pools: side of the max-pool after each convolution, 1 for none.
        dense: nodes of each hidden dense layer.
        activation: after every hidden layer.
        seed: of the initial weights and the order of images.
        overwrite: replace the checkpoint in that folder.
    """
    from oipjax import data as datasets
    from oipjax import plots, training
    from oipjax.networks import checkpoint, cnn

    checkpoint.check_free(out, overwrite=overwrite)
    begin, key = time.perf_counter(), _key(seed)
    with progress() as report:
        bar: Any = DownloadBar(report)
        source = datasets.sample_dataset() if data == "sample" else datasets.load(folder=data or None, progress=bar)
        held_out = len(source.train.images) // 12 if validation is None else validation
        shape: Any = source.train.images.shape[1:]
        network = cnn.CNNConfig(shape, filters, kernel, pools, dense, len(source.classes), activation)
        config = training.TrainConfig(
            network, optimizer, learning_rate, schedule, momentum, l2, epochs, batch, held_out, seed
        )

        def tell(epoch: training.Epoch) -> None:
            report("epochs", epoch.epoch, epochs)
            stderr.print(
                f"epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  accuracy {epoch.train_accuracy:.4f}  "
                f"held out {epoch.validation_accuracy:.4f}"
            )

        report("epochs", 0, epochs)
        trained = training.train(key, config, source, name=name, progress=tell)
    # The time is told, not stored: the same call writes the same file.
    facts = {
        "command": "oipjax train",
        "data": source.name,
        "config": asdict(config),
        "history": [epoch._asdict() for epoch in trained.history],
        "best_epoch": trained.best_epoch,
        "test_accuracy": trained.test_accuracy,
        "test_images": len(source.test.images),
        "confusion": trained.confusion.tolist(),
        **records.surroundings(),
    }
    checkpoint.save(out, trained.model, facts, overwrite=overwrite)
    accuracy = f"{100 * trained.test_accuracy:.2f} % of {len(source.test.images):,} test images"
    title = f"{name} on {source.name}: {accuracy}"
    plots.history_figure(trained.history, trained.best_epoch, title).savefig(out / "curves.png", dpi=150)
    plots.confusion_figure(trained.confusion, source.classes, title).savefig(out / "confusion.png", dpi=150)
    print(f"{accuracy} right, epoch {trained.best_epoch} kept, in {time.perf_counter() - begin:.0f} s: {out}")


# --- helpers ----------------------------------------------------------------------------------------------------------


def _exemplars(model: oipjax.Model) -> np.ndarray | None:
    """The digits that ship with oipjax as the network takes them; None if they do not fit."""
    from oipjax import data

    images = data.sample().images
    return model.to_input(images) if images.shape[1:] == model.input_shape else None


def _save_atlas(record: records.Record, picture: Path) -> None:
    from oipjax import plots

    config = record.manifest["config"]
    method = config["method"]["name"].lower()
    caption = (
        f"best of {config['keep']} ascents each, {method}, {config['steps']} steps, from {config['draws']:,} random "
        f"starts, {record.manifest['image_space'].lower()} images"
    )
    records.save_picture(picture, plots.atlas_figure(record.atlas, caption))


def _oip_figure(config: dict[str, Any], run: Ascent, start: int) -> Any:
    from oipjax import plots

    note = (
        f"start {start}, {config['method']['name'].lower()}, {config['steps']} steps, "
        f"seed {config['key']['data'][-1]}; "
        f"best score {run.scores[0]:.4f}; {STATUS[int(run.status[0])]}"
    )
    title = f"{config['model']} \N{MIDDLE DOT} {config['layer']} \N{MIDDLE DOT} map {config['map']}"
    return plots.oip_figure(title, run.trace_steps.tolist(), run.trace_images[0], run.trace[0], run.changes[0], note)


def _join(coordinator: str, processes: int | None, process: int | None) -> tuple[int, int]:
    """This process's number, and how many there are, once all have met."""
    if not coordinator:
        if processes is not None or process is not None:
            raise ValueError("--processes and --process need --coordinator host:port, where process 0 can be reached")
        return 0, 1
    given: dict[str, Any] = {"num_processes": processes, "process_id": process}
    if coordinator != "auto":
        if processes is None or process is None or not 0 <= process < processes:
            raise ValueError("--coordinator needs --processes N and --process, a number from 0 to N - 1")
        given["coordinator_address"] = coordinator
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot join the other processes at {coordinator}: {error}") from None
    return jax.process_index(), jax.process_count()


def _key(seed: int) -> jax.Array:
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, got {seed}")
    return jax.random.key(np.uint32(seed))


def _indices(text: str, count: int) -> tuple[int, ...] | None:
    """``all``, or ``0,5,120-127``; of a range no more than ``count`` numbers and one that is too large."""
    if text.strip() == "all":
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--maps takes all, or indices and ranges such as 0,5,120-127, got {text!r}")
        begin = min(int(first), 2**31 - 1)
        end = min(int(last or first), max(count, begin))
        numbers += range(begin, end + 1)
    if not numbers:
        raise ValueError(f"--maps {text!r} names no map")
    return tuple(dict.fromkeys(numbers))


def _recipes(texts: tuple[str, ...]) -> Fluctuations | None:
    return Fluctuations(tuple(Fluctuation.parse(text) for text in texts)) if texts else None


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs; small ones too, which JAX skips unless told otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "oipjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


COMMANDS: dict[str, Callable[..., None]] = {
    "atlas": atlas,
    "oip": oip,
    "bounds": bounds,
    "layers": layers,
    "train": train,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for bad input."""
    if arguments is None:
        arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        print(f"oipjax {oipjax.__version__}")
        return 0
    _use_compilation_cache()
    description = (
        "Find the input patterns that trigger the maps of a trained CNN most.\n\nExample: oipjax atlas --maps 0,5,120"
    )
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="oipjax", description=description, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
        )
    except ValueError as error:
        print(f"oipjax: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"oipjax: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("oipjax: interrupted; what was finished is kept, and the same call goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
