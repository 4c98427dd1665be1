"""Parts of a run on disk: each written atomically, checked when read, and shared among processes.

A part is a name and what it takes to compute it. Every process asks for the same parts in the same
order; which one computes a part follows from its place in that order, and the others wait until its
file is there. There is no other communication, so any shared folder will do, and a run that was
interrupted goes on with the parts it has.
"""

import contextlib
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from oipjax.pytrees import fingerprint

DIGEST = "sha256"
"""Name of the array that holds the `fingerprint` of all others in a file."""
PARTS, PLAN = "parts", "plan.json"
_LOCK = "lock"
_POLL = 0.05  # seconds between two looks for a part of another process

Arrays = dict[str, np.ndarray]


class Finished(Exception):
    """The record was finished by another process; there is nothing left to do."""


class Store:
    """``store(name, compute)``: the part of that name, read if it is there, else computed or waited for."""

    def __init__(self, folder: Path, number: int, processes: int, finished: Callable[[], bool]):
        self.folder, self.number, self.processes, self.finished, self.turn = (
            folder,
            number,
            processes,
            finished,
            0,
        )

    def __call__(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part."""
        file, mine = self.folder / f"{name}.npz", self.turn % self.processes == self.number
        self.turn += 1
        # A part that cannot be read is a part that is not there: it is computed again.
        with contextlib.suppress(ValueError):
            return load_npz(file)
        if not mine:
            return self._wait(file)
        arrays = compute()
        write_file(file, npz(arrays))
        return arrays

    def leave(self) -> None:
        """Say that this process has read all it needs. The first one waits for all others; these are `Finished`."""
        if self.processes == 1:
            return
        write_file(self._left(self.number), b"")
        if self.number:
            while not self.finished():
                time.sleep(_POLL)
            raise Finished
        while not all(self._left(number).exists() for number in range(self.processes)):
            time.sleep(_POLL)

    def _left(self, number: int) -> Path:
        return self.folder / f"left-{number}.tmp"

    def _wait(self, file: Path) -> Arrays:
        while not self.finished():
            if file.exists():
                with contextlib.suppress(ValueError):
                    return load_npz(file)
            time.sleep(_POLL)
        raise Finished


def shared_store(folder: Path, number: int, processes: int, finished: Callable[[], bool]) -> Store:
    """The store of process ``number`` of so many.

    Args:
        folder: of the parts.
        number: of this process, from 0.
        processes: how many there are.
        finished: whether the record is finished, so that nobody need wait.

    Raises:
        ValueError: there is no process of that number.
    """
    if not 0 <= number < processes:
        raise ValueError(f"processes are numbered from 0 to {processes - 1}, got {number}")
    (folder / f"left-{number}.tmp").unlink(missing_ok=True)
    return Store(folder, number, processes, finished)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, where the system can; a ValueError if one is there."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    with (folder / f"{_LOCK}.tmp").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder.parent}: another process is making this record; choose another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def remove_parts(parts: Path) -> None:
    """Take away all parts, and the folder unless somebody else keeps things there."""
    for file in parts.glob("*"):
        if file.name == PLAN or file.suffix in (".npz", ".tmp"):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        parts.rmdir()


class Clock:
    """Seconds spent computing, by phase, and whether any part was there already."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.resumed = False

    def around(self, store: Callable) -> Callable:
        """``store``, timed; the time of waiting for others counts, that of reading does not."""

        def timed(name: str, compute: Callable):
            def measured():
                begin = time.perf_counter()
                try:
                    return compute()
                finally:
                    phase = name.partition("-")[0]
                    self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begin
                    computed.append(name)

            computed: list[str] = []
            part = store(name, measured)
            self.resumed |= not computed
            return part

        return timed


def write_file(file: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def load_npz(file: Path) -> Arrays:
    """Arrays as `npz` wrote them; a ValueError if anything about them is not as it was."""
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
    np.savez(buffer, **arrays, **{DIGEST: np.array(fingerprint(arrays))})  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()
