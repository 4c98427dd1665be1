"""A finished study on disk."""

from oipjax.records.atlas import ARRAY_NAMES, COLUMNS, Record, make, read
from oipjax.records.folder import (
    Begun,
    Damaged,
    Empty,
    Finished,
    Foreign,
    is_finished,
    state_of,
)
from oipjax.records.manifest import (
    MANIFEST,
    SCHEMA,
    describe,
    describe_run,
    read_manifest,
    write_manifest,
)
from oipjax.records.run import read_run, save_picture, write_run

__all__ = [
    "ARRAY_NAMES",
    "COLUMNS",
    "MANIFEST",
    "SCHEMA",
    "Begun",
    "Damaged",
    "Empty",
    "Finished",
    "Foreign",
    "Record",
    "describe",
    "describe_run",
    "is_finished",
    "make",
    "read",
    "read_manifest",
    "read_run",
    "save_picture",
    "state_of",
    "write_manifest",
    "write_run",
]
