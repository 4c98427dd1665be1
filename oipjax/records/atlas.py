"""The record of an atlas: made in parts, each atomically, resumable, and read again.

Everything loads with plain numpy and json.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oipjax.records.folder import ARRAYS, TABLE, begin, join, refuse_foreign
from oipjax.records.manifest import (
    MANIFEST,
    SCHEMA,
    current_name,
    describe,
    headline,
    now,
    read_manifest,
    write_manifest,
)
from oipjax.search import STATUS
from oipjax.storage import (
    PARTS,
    Clock,
    FinishedElsewhere,
    csv_bytes,
    exclusive,
    load_npz,
    npz,
    plan_digest,
    remove_parts,
    shared_store,
    surroundings,
    write_file,
)
from oipjax.study import MAP_STATUS, STATUS_NAMES, Atlas, Progress, Study, run_study

ARRAY_NAMES = (
    "maps",
    "status",
    "run_status",
    "images",
    "scores",
    "responses",
    "start_index",
    "start_scores",
    "trace",
    "trace_steps",
    "bound",
    "node_bound",
)
"""The arrays of ``oips.npz``."""
COLUMNS = (
    "map",
    "status",
    "best",
    "median",
    "start_best",
    "responded_fraction",
    "bound",
    "achieved",
    "node_bound",
    "draws_seen",
    "gradient_evaluations",
    "found_by",
    "bound_by",
)
"""The columns of ``maps.csv``."""
COLUMN_TYPES = {
    "responded_fraction": float,
    "draws_seen": int,
    "gradient_evaluations": int,
    "found_by": current_name,
    "bound_by": str,
}
"""The columns that an atlas is read from, and how a cell is read."""


class Record(NamedTuple):
    """A finished record.

    Attributes:
        folder: where it lies.
        atlas: what was found.
        manifest: how it was made.
        fresh: whether it was made just now.
    """

    folder: Path
    atlas: Atlas
    manifest: dict[str, Any]
    fresh: bool


def make(
    folder: Path,
    study: Study,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    process: tuple[int, int] = (0, 1),
) -> Record:
    """Make the record of a study, or go on with an interrupted one, or read a finished one.

    Args:
        folder: of the record.
        study: what to do.
        overwrite: replace what another study left there.
        progress: called with (phase, done, in all).
        process: ``(number, of how many)``: this process among those that make the record together.
            All of them see the folder; each computes its share of the parts, and the first puts
            them together. The first holds the folder's lock for all of them.

    Raises:
        ValueError: the folder holds a record of something else, or things that are no record, or
            another process is at work there.
    """
    plan = {"schema": SCHEMA, "config": describe(study), **surroundings()}
    refuse_foreign(folder)
    if process[0]:
        if join(folder, plan, overwrite=overwrite):
            return Record(folder, *read(folder), fresh=False)
        return _make(folder, study, plan, progress, process)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        if begin(folder, plan, overwrite=overwrite):
            return Record(folder, *read(folder), fresh=False)
        return _make(folder, study, plan, progress, process)


def _make(
    folder: Path,
    study: Study,
    plan: dict[str, Any],
    progress: Progress | None,
    process: tuple[int, int],
) -> Record:
    """Compute the parts of a study in a folder that is ready, and put them together."""
    number, processes = process
    created = now()
    clock = Clock()
    parts = folder / PARTS
    is_finished = (folder / MANIFEST).exists
    store = shared_store(parts, plan_digest(plan), number, processes, is_finished)
    try:
        atlas = run_study(study, store=clock.around(store), progress=progress)
        store.leave()
    except FinishedElsewhere:
        return Record(folder, *read(folder), fresh=True)
    facts = {
        "counts": atlas.counts,
        "processes": processes,
        "timing_s": {phase: round(seconds, 3) for phase, seconds in clock.seconds.items()},
        "resumed": clock.resumed,
    }
    manifest = _manifest(plan, created, facts)
    write(folder, atlas, manifest)
    remove_parts(parts)
    return Record(folder, atlas, manifest, fresh=True)


def _manifest(plan: dict[str, Any], created: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The manifest of an atlas."""
    config = plan["config"]
    return {
        "schema": SCHEMA,
        "created": created,
        **headline(config),
        **plan,
        "precision": config["precision"],
        **facts,
        "map_status": {str(code): text for code, text in MAP_STATUS.items()},
        "run_status": {str(code): text for code, text in STATUS.items()},
    }


def write(folder: Path, atlas: Atlas, manifest: dict[str, Any]) -> None:
    """Write ``oips.npz``, ``maps.csv`` and, last, ``manifest.json``, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    values = vars(atlas)
    arrays = {name: values[name] for name in ARRAY_NAMES}
    write_file(folder / ARRAYS, npz(arrays))
    write_file(folder / TABLE, csv_bytes(COLUMNS, rows(atlas)))
    write_manifest(folder, manifest)


def rows(atlas: Atlas) -> Iterator[tuple]:
    """The lines of ``maps.csv``, in the order of `COLUMNS`.

    Floats have 9 digits, so that float32 survives.
    """
    for k, number in enumerate(atlas.maps):
        scores = atlas.scores[k]
        floats = (
            scores[0],
            np.median(scores),
            atlas.start_scores[k].max(),
            atlas.responded_fraction[k],
            atlas.bound[k],
            atlas.achieved[k],
            atlas.node_bound[k],
        )
        yield (
            int(number),
            STATUS_NAMES[int(atlas.status[k])],
            *(f"{float(value):.9g}" for value in floats),
            int(atlas.draws_seen[k]),
            int(atlas.gradient_evaluations[k]),
            str(atlas.found_by[k]),
            str(atlas.bound_by[k]),
        )


def read(folder: Path) -> tuple[Atlas, dict[str, Any]]:
    """Read a finished record, of this schema or of schema 2, as atlas and manifest.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    manifest = read_manifest(folder)
    try:
        arrays = _read_arrays(folder / ARRAYS)
        table = _read_table(folder / TABLE)
        if [int(row["map"]) for row in table] != arrays["maps"].tolist():
            raise ValueError(f"{TABLE} and {ARRAYS} are about different maps")
        columns = {}
        for name, read_cell in COLUMN_TYPES.items():
            columns[name] = np.array([read_cell(row[name]) for row in table])
        config = manifest["config"]
        atlas = Atlas(model=config["model"], layer=config["layer"], **arrays, **columns)
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: the record is damaged ({reason})") from None
    return atlas, manifest


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    arrays = {current_name(name): array for name, array in load_npz(file).items()}
    return {name: arrays[name] for name in ARRAY_NAMES}


def _read_table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        header, *lines = csv.reader(stream)
    names = [current_name(name) for name in header]
    return [dict(zip(names, line, strict=True)) for line in lines]
