"""One process at a time in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
"""Name of the lock file. It stays in the folder: without it two processes could hold two locks."""
PATIENCE = 2.0
"""Seconds to wait for another process, which may only be reading."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs.

    Where no lock can be had, because the folder is read-only or the file system has no locks, the
    block runs without one.

    Args:
        folder: must exist.

    Raises:
        ValueError: another process is at work in the folder.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(
            f"{folder}: another process is at work in this folder; wait for its end, or choose "
            "another --out"
        ) from None
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
