"""Files that are whole or absent, resumable and locked."""

from oipjax.storage.files import csv_bytes, load_npz, npz, write_file
from oipjax.storage.locks import LOCK, exclusive
from oipjax.storage.parts import (
    PARTS,
    PLAN,
    POLL,
    Clock,
    FinishedElsewhere,
    remove_parts,
    shared_store,
)
from oipjax.storage.provenance import (
    MATMUL_PRECISION,
    differences,
    matmul_precision,
    plan_digest,
    refuse,
    refuse_other,
    surroundings,
)
from oipjax.storage.resume import StateFile

__all__ = [
    "LOCK",
    "MATMUL_PRECISION",
    "PARTS",
    "PLAN",
    "POLL",
    "Clock",
    "FinishedElsewhere",
    "StateFile",
    "csv_bytes",
    "differences",
    "exclusive",
    "load_npz",
    "matmul_precision",
    "npz",
    "plan_digest",
    "refuse",
    "refuse_other",
    "remove_parts",
    "shared_store",
    "surroundings",
    "write_file",
]
