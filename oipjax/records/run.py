"""The record of one ascent: ``oip.npz``, ``oip.csv``, pictures, and ``manifest.json``."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oipjax.records.folder import RUN_ARRAYS, RUN_TABLE, has_record, state_of
from oipjax.records.manifest import SCHEMA, current_name, headline, now, write_manifest
from oipjax.search import STATUS, Ascent
from oipjax.storage import csv_bytes, exclusive, load_npz, npz, surroundings, write_file

RUN_COLUMNS = ("step", "score", "change")
"""The columns of ``oip.csv``."""


def write_run(
    folder: Path, config: dict[str, Any], run: Ascent, pictures: dict[str, Any], **facts: Any
) -> None:
    """Write one ascent: its arrays, its table, the pictures and, last, the manifest.

    Args:
        folder: is made if need be.
        config: of `describe_run`.
        run: with one run in it.
        pictures: matplotlib figures by file name.
        **facts: into the manifest.

    Raises:
        ValueError: the folder holds a record of something else, or another process is at work
            there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema": SCHEMA,
        "created": now(),
        **headline(config),
        "config": config,
        **surroundings(),
        "precision": config.get("precision", "float32"),
        "best_score": float(run.scores[0]),
        "status": STATUS[int(run.status[0])],
        **facts,
    }
    with exclusive(folder):
        has_record(folder, state_of(folder), config)
        write_file(folder / RUN_ARRAYS, npz(run._asdict()))
        write_file(folder / RUN_TABLE, csv_bytes(RUN_COLUMNS, _rows(run)))
        for name, figure in pictures.items():
            save_picture(folder / name, figure)
        write_manifest(folder, manifest)


def _rows(run: Ascent) -> Iterator[tuple]:
    """The lines of ``oip.csv``, in the order of `RUN_COLUMNS`."""
    for step, score, change in zip(run.trace_steps, run.trace[0], run.changes[0], strict=True):
        yield int(step), f"{float(score):.9g}", f"{float(change):.9g}"


def read_run(folder: Path) -> Ascent:
    """Read the ascent that `write_run` wrote, in this schema or in schema 2.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    file = folder / RUN_ARRAYS
    arrays = {current_name(name): array for name, array in load_npz(file).items()}
    if set(arrays) != set(Ascent._fields):
        expected = ", ".join(Ascent._fields)
        raise ValueError(f"{file}: damaged: expected {expected}")
    return Ascent(**arrays)


def save_picture(file: Path, figure: Any) -> None:
    """Save a matplotlib figure atomically, in the format of the file's ending."""
    buffer = io.BytesIO()
    kind = file.suffix[1:]
    # Little is gained by compressing harder, and it would take as long as drawing all texts.
    options = {"pil_kwargs": {"compress_level": 1}} if kind == "png" else {}
    figure.savefig(buffer, format=kind, dpi=200, **options)
    write_file(file, buffer.getvalue())
