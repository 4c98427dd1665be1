"""A run on disk: written in parts, each atomically, resumable, and with its provenance.

While a run goes on, its folder holds ``parts/``; when it ends, the parts become ``oips.npz``,
``maps.csv`` and, last of all, ``manifest.json``, which marks the record as finished. Everything
loads with plain numpy and json.
"""

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from oipjax.model import Model
from oipjax.pytrees import fingerprint
from oipjax.search import STATUS, Ascent
from oipjax.storage import (
    PARTS,
    PLAN,
    Clock,
    Finished,
    differences,
    exclusive,
    load_npz,
    npz,
    refuse_other,
    remove_parts,
    shared_store,
    surroundings,
    write_file,
)
from oipjax.study import MAP_STATUS, STATUS_NAMES, Atlas, Progress, Study

SCHEMA = 2
MANIFEST, ARRAYS, TABLE = "manifest.json", "oips.npz", "maps.csv"
ARRAY_NAMES = (
    "maps", "status", "run_status", "images", "scores", "responses", "start_index", "start_scores", "trace",
    "trace_steps", "bound", "node_bound",
)  # fmt: skip
COLUMNS = (
    "map", "status", "best", "median", "start_best", "responded_fraction", "bound", "achieved", "node_bound",
    "draws_seen", "gradient_evaluations", "found_by", "bound_by",
)  # fmt: skip
_BEGUN = rf"{re.escape(PLAN)}\.\w+\.tmp|lock\.tmp|left-\d+\.tmp"  # files of a process that has not written its plan
OTHERS = (
    "oip.npz", "oip.csv", "activations.npz", "activations.csv",
    *(f"{name}.{ending}" for name in ("atlas", "oip", "activations") for ending in ("png", "pdf", "svg")),
)  # fmt: skip


class Record(NamedTuple):
    """A finished record: where it lies, its atlas and its manifest; ``fresh`` if it was made just now."""

    folder: Path
    atlas: Atlas
    manifest: dict[str, Any]
    fresh: bool


def describe(study: Study) -> dict[str, Any]:
    """All that decides what a study finds, as plain JSON."""
    own = (
        "layer",
        "maps",
        "draws",
        "keep",
        "steps",
        "screen",
        "finish",
        "restarts",
        "search",
        "criterion",
        "stop",
        "keep_images",
        "tile",
        "bounds",
    )
    options = {name: getattr(study, name) for name in own}
    if study.precision != "float32":
        options["precision"] = (
            study.precision
        )  # only then: older records say nothing, and are what is asked for
    options["exemplars_sha256"] = (
        None if study.exemplars is None else fingerprint({"images": study.exemplars})
    )
    return describe_run("atlas", study.model, study.key, study.space, study.method, **options)


def describe_run(
    command: str, model: Model, key: Array, space: Any, method: Any, **options: Any
) -> dict[str, Any]:
    """All that decides what a command finds, as plain JSON.

    Args:
        command: its name.
        model: the network; its parameters go in as their sha256.
        key: the root key.
        space: the image space, a frozen dataclass.
        method: how to climb, a frozen dataclass.
        **options: anything JSON can hold.
    """
    described = {
        "command": command,
        "model": model.name,
        "parameters_sha256": fingerprint(model.params),
        "key": {
            "implementation": str(jax.random.key_impl(key)),
            "data": np.asarray(jax.random.key_data(key)).tolist(),
        },
        "space": {"name": type(space).__name__, **asdict(space)},
        "method": {"name": type(method).__name__, **asdict(method)},
        **options,
    }
    return json.loads(json.dumps(described))


def headline(config: dict[str, Any]) -> dict[str, Any]:
    """What a person looks for first in a manifest; all of it follows from the configuration."""
    words = config["key"]["data"]
    return {
        "command": config["command"],
        "model": {"name": config["model"], "parameters_sha256": config["parameters_sha256"]},
        "layer": config["layer"],
        "image_space": config["space"]["name"],
        "seed": (words[0] << 32) + words[1]
        if config["key"]["implementation"] == "threefry2x32"
        else None,
        "tile": config["tile"],
    }


def make(
    folder: Path,
    study: Study,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    process: tuple[int, int] = (0, 1),
) -> Record:
    """Make the record of a study, go on with it if it was interrupted, or say where it lies if it is there.

    Args:
        folder: of the record.
        study: what to do.
        overwrite: replace what another study left there.
        progress: called with (phase, done, in all).
        process: ``(number, of how many)``: this process among those that make the record together.
            All of them see the folder; each computes its share of the parts, and the first puts
            them together.

    Raises:
        ValueError: the folder holds a record of something else, or things that are no record, or
            another process is at work there.
    """
    config = describe(study)
    plan = {"config": config, **surroundings()}
    number, processes = process
    if is_finished(folder, config, overwrite=overwrite and number == 0):
        return Record(folder, *read(folder), fresh=False)
    parts = folder / PARTS
    if (parts / PLAN).exists():
        refuse_other(folder, _read_json(parts / PLAN), plan)
    else:
        parts.mkdir(parents=True, exist_ok=True)
        write_file(parts / PLAN, json.dumps(plan, indent=1).encode())
    with exclusive(parts) if processes == 1 else contextlib.nullcontext():
        started, clock = datetime.now(UTC), Clock()
        store = shared_store(parts, number, processes, lambda: (folder / MANIFEST).exists())
        try:
            atlas = study.run(store=clock.around(store), progress=progress)
            store.leave()
        except Finished:
            return Record(folder, *read(folder), fresh=True)
        manifest = {
            "schema": SCHEMA,
            "created": started.isoformat(timespec="seconds"),
            **headline(config),
            **plan,
            "precision": config.get("precision", "float32"),
            "counts": atlas.counts,
            "processes": processes,
            "timing_s": {name: round(seconds, 3) for name, seconds in clock.seconds.items()},
            "resumed": clock.resumed,
            "map_status": {str(code): text for code, text in MAP_STATUS.items()},
            "run_status": {str(code): text for code, text in STATUS.items()},
        }
        write(folder, atlas, manifest)
        remove_parts(parts)
    return Record(folder, atlas, manifest, fresh=True)


def write(folder: Path, atlas: Atlas, manifest: dict[str, Any]) -> None:
    """Write ``oips.npz``, ``maps.csv`` and, last, ``manifest.json``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / ARRAYS, npz({name: getattr(atlas, name) for name in ARRAY_NAMES}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(atlas))
    write_file(folder / TABLE, text.getvalue().encode())
    write_file(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def rows(atlas: Atlas) -> Iterator[tuple]:
    """The lines of ``maps.csv``, in the order of `COLUMNS`; floats to 9 digits, so that float32 survives."""
    for k, number in enumerate(atlas.maps):
        numbers = (
            atlas.scores[k, 0],
            np.median(atlas.scores[k]),
            atlas.start_scores[k].max(),
            atlas.responded_fraction[k],
            atlas.bound[k],
            atlas.achieved[k],
            atlas.node_bound[k],
        )
        yield (
            int(number),
            STATUS_NAMES[int(atlas.status[k])],
            *(f"{float(value):.9g}" for value in numbers),
            int(atlas.draws_seen[k]),
            int(atlas.gradient_evaluations[k]),
            str(atlas.found_by[k]),
            str(atlas.bound_by[k]),
        )


def read(folder: Path) -> tuple[Atlas, dict[str, Any]]:
    """A finished record.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    manifest = read_manifest(folder)
    try:
        arrays = load_npz(folder / ARRAYS)
        arrays = {name: arrays[name] for name in ARRAY_NAMES}
        with (folder / TABLE).open(newline="") as file:
            table = list(csv.DictReader(file))
        if [int(row["map"]) for row in table] != arrays["maps"].tolist():
            raise ValueError(f"{TABLE} and {ARRAYS} are about different maps")
        extra = {
            "responded_fraction": np.array([float(row["responded_fraction"]) for row in table]),
            "draws_seen": np.array([int(row["draws_seen"]) for row in table]),
            "gradient_evaluations": np.array([int(row["gradient_evaluations"]) for row in table]),
            "found_by": np.array([row["found_by"] for row in table]),
            "bound_by": np.array([row["bound_by"] for row in table]),
        }
        config = manifest["config"]
        return Atlas(model=config["model"], layer=config["layer"], **arrays, **extra), manifest
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{folder}: the record is damaged ({type(error).__name__}: {error})"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a finished record; a ValueError if there is none."""
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise ValueError(
            f"{folder / MANIFEST}: schema {manifest.get('schema')}; this version reads {SCHEMA}"
        )
    return manifest


def is_finished(folder: Path, config: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether a finished record of ``config`` lies in ``folder``; it is taken away if ``overwrite``.

    Raises:
        ValueError: the folder holds a record of something else, or things that are no record.
    """
    _check_place(folder)
    plan = folder / PARTS / PLAN
    if overwrite:
        # What an interrupted run of the very same plan has done is not thrown away by calling it
        # again.
        keep = False
        with contextlib.suppress(ValueError):
            keep = plan.exists() and not differences(
                _read_json(plan), {"config": config, **surroundings()}
            )
        _remove(folder, parts=not keep)
    if plan.exists():
        refuse_other(folder, _read_json(plan).get("config", {}), config)
    if not (folder / MANIFEST).exists():
        return False
    refuse_other(folder, read_manifest(folder).get("config", {}), config)
    return True


def write_run(
    folder: Path, config: dict[str, Any], run: Ascent, pictures: dict[str, Any], **facts: Any
) -> None:
    """Write one ascent: ``oip.npz``, the pictures, ``oip.csv`` (step, score, change) and, last, the manifest.

    Args:
        folder: is made if need be.
        config: of `describe_run`.
        run: with one run in it.
        pictures: matplotlib figures by file name.
        **facts: into the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "oip.npz", npz(run._asdict()))
    table = zip(run.trace_steps, run.trace[0], run.changes[0], strict=True)
    lines = [f"{step},{float(score):.9g},{float(change):.9g}" for step, score, change in table]
    write_file(folder / "oip.csv", "\n".join(["step,score,change", *lines, ""]).encode())
    for name, figure in pictures.items():
        save_picture(folder / name, figure)
    manifest = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **headline(config),
        "config": config,
        **surroundings(),
        "precision": "float32",
        "best_score": float(run.scores[0]),
        "status": STATUS[int(run.status[0])],
        **facts,
    }
    write_file(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def read_run(folder: Path) -> Ascent:
    """The ascent that `write_run` wrote; a ValueError if it is damaged."""
    arrays = load_npz(folder / "oip.npz")
    if set(arrays) != set(Ascent._fields):
        raise ValueError(f"{folder / 'oip.npz'}: damaged: expected {', '.join(Ascent._fields)}")
    return Ascent(**arrays)


def save_picture(file: Path, figure: Any) -> None:
    """Save a matplotlib figure atomically, in the format of the file's ending."""
    buffer = io.BytesIO()
    kind = file.suffix[1:]
    # Little is gained by compressing harder, and it would take as long as drawing all texts.
    figure.savefig(
        buffer,
        format=kind,
        dpi=200,
        **({"pil_kwargs": {"compress_level": 1}} if kind == "png" else {}),
    )
    write_file(file, buffer.getvalue())


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; --out wants a folder")
    if folder.is_dir():
        inside = sorted(item.name for item in folder.iterdir())
        if inside == [PARTS] and all(
            re.fullmatch(_BEGUN, file.name) for file in (folder / PARTS).glob("*")
        ):
            return  # begun by a process that was interrupted, or by another one now, and the plan is not yet written
        if inside and not any(map(_is_ours, (folder / MANIFEST, folder / PARTS / PLAN))):
            raise ValueError(
                f"{folder}: is no record and not empty ({', '.join(inside[:3])}); choose another --out"
            )


def _is_ours(file: Path) -> bool:
    """Whether a manifest or plan was written by oipjax, as far as can be told; a damaged one counts."""
    if not file.is_file():
        return False
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return b'"parameters_sha256"' in file.read_bytes()
    return isinstance(content, dict) and isinstance(content.get("config"), dict)


def _remove(folder: Path, *, parts: bool) -> None:
    """Take away what a record consists of, and nothing else; the mark of completeness first."""
    for name in (MANIFEST, ARRAYS, TABLE, *OTHERS):
        (folder / name).unlink(missing_ok=True)
    if parts:
        remove_parts(folder / PARTS)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: damaged (expected an object)")
    return content
