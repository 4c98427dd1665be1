"""Files that are whole or absent, resumable and locked."""

from oipjax.storage.parts import (
    PARTS,
    PLAN,
    Clock,
    Finished,
    exclusive,
    load_npz,
    npz,
    remove_parts,
    shared_store,
    write_file,
)
from oipjax.storage.provenance import differences, refuse_other, surroundings
from oipjax.storage.resume import StateFile

__all__ = [
    "PARTS",
    "PLAN",
    "Clock",
    "Finished",
    "StateFile",
    "differences",
    "exclusive",
    "load_npz",
    "npz",
    "refuse_other",
    "remove_parts",
    "shared_store",
    "surroundings",
    "write_file",
]
