"""A finished study on disk."""

from oipjax.records.atlas import (
    ARRAY_NAMES,
    COLUMNS,
    MANIFEST,
    SCHEMA,
    Record,
    describe,
    describe_run,
    is_finished,
    make,
    read,
    read_manifest,
    read_run,
    save_picture,
    write_run,
)

__all__ = [
    "ARRAY_NAMES",
    "COLUMNS",
    "MANIFEST",
    "SCHEMA",
    "Record",
    "describe",
    "describe_run",
    "is_finished",
    "make",
    "read",
    "read_manifest",
    "read_run",
    "save_picture",
    "write_run",
]
