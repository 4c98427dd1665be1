"""Files that are there as a whole or not at all, and that are checked when they are read."""

import csv
import io
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oipjax.pytrees import fingerprint

DIGEST = "sha256"
"""Name of the array that holds the `fingerprint` of all others in a file."""

Arrays = dict[str, np.ndarray]


def write_file(file: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def load_npz(file: Path) -> Arrays:
    """Read arrays that `npz` wrote.

    Raises:
        ValueError: the file cannot be read, or its arrays are not those that were written.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001  (numpy and zipfile raise half a dozen types for damaged files)
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}: {error})") from None
    if str(arrays.pop(DIGEST, "")) != fingerprint(arrays):
        raise ValueError(f"{file}: damaged: its arrays are not those it was written with")
    return arrays


def npz(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an .npz file, with their fingerprint."""
    buffer = io.BytesIO()
    digest = np.array(fingerprint(arrays))
    np.savez(buffer, **arrays, **{DIGEST: digest})  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as the bytes of a .csv file; cells with commas or quotes are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
