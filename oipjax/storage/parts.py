"""Parts of a run on disk: each written atomically, checked when read, and shared among processes.

A part is a name and a function that computes it. Every process asks for the same parts in the same
order. The place of a part in that order says which process computes it; the others wait until its
file is there. The processes communicate in no other way, so any shared folder will do.

A run that was interrupted goes on with the parts it has. Each part's file names the plan it belongs
to; a part of another plan counts as absent.
"""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from oipjax.storage.files import Arrays, load_npz, npz, write_file

PARTS = "parts"
"""Name of the folder of the parts."""
PLAN = "plan.json"
"""Name of the file, among the parts, that says what is being made."""
PLAN_DIGEST = "plan_sha256"
"""Name of the array in a part's file that holds the digest of its plan."""
POLL = 0.05
"""Seconds between two looks for a part of another process."""

Compute = Callable[[], Arrays]
PartStore = Callable[[str, Compute], Arrays]
"""``store(name, compute)``: the part of that name, computed unless it is there."""


class FinishedElsewhere(Exception):
    """Another process finished the record; there is nothing left to do."""


class Store:
    """A `PartStore` in a folder that several processes may share; see `shared_store`."""

    def __init__(
        self,
        folder: Path,
        plan: str,
        number: int,
        processes: int,
        is_finished: Callable[[], bool],
    ):
        self.folder = folder
        self.plan = plan
        self.number = number
        self.processes = processes
        self.is_finished = is_finished
        self.turn = 0

    def __call__(self, name: str, compute: Compute) -> Arrays:
        """The arrays of a part: read if they are there, else computed or waited for."""
        file = self.folder / f"{name}.npz"
        is_mine = self.turn % self.processes == self.number
        self.turn += 1
        # A part that cannot be read is absent: it is computed again.
        with contextlib.suppress(ValueError):
            return self._read(file)
        if not is_mine:
            return self._wait(file)
        arrays = compute()
        plan = {PLAN_DIGEST: np.array(self.plan)}
        write_file(file, npz({**arrays, **plan}))
        return arrays

    def leave(self) -> None:
        """Say that this process has read all it needs, and wait for the others.

        The first process waits until all others have left. Each of the others waits until the
        record is finished.

        Raises:
            FinishedElsewhere: in all processes but the first.
        """
        if self.processes == 1:
            return
        if self.number == 0:
            others = [self._left(number) for number in range(1, self.processes)]
            while not all(file.exists() for file in others):
                time.sleep(POLL)
            return
        mine = self._left(self.number)
        while not self.is_finished():
            # The first process may have begun later than this one, and cleared the folder.
            with contextlib.suppress(FileNotFoundError):
                mine.touch()
            time.sleep(POLL)
        mine.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        raise FinishedElsewhere

    def _read(self, file: Path) -> Arrays:
        arrays = load_npz(file)
        if str(arrays.pop(PLAN_DIGEST, "")) != self.plan:
            raise ValueError(f"{file}: belongs to another plan")
        return arrays

    def _wait(self, file: Path) -> Arrays:
        while not self.is_finished():
            if file.exists():
                with contextlib.suppress(ValueError):
                    return self._read(file)
            time.sleep(POLL)
        raise FinishedElsewhere

    def _left(self, number: int) -> Path:
        return self.folder / f"left-{number}.tmp"


def shared_store(
    folder: Path,
    plan: str,
    number: int,
    processes: int,
    is_finished: Callable[[], bool],
) -> Store:
    """The store of process ``number`` of so many.

    Args:
        folder: of the parts.
        plan: digest of the plan that the parts belong to, see `plan_digest`.
        number: of this process, from 0.
        processes: how many there are.
        is_finished: says whether the record is finished, so that nobody need wait.

    Raises:
        ValueError: there is no process of that number.
    """
    if not 0 <= number < processes:
        raise ValueError(f"processes are numbered from 0 to {processes - 1}, got {number}")
    leftovers = folder.glob("left-*.tmp") if number == 0 else [folder / f"left-{number}.tmp"]
    for file in leftovers:
        file.unlink(missing_ok=True)
    return Store(folder, plan, number, processes, is_finished)


def remove_parts(parts: Path, *, keep_plan: bool = False) -> None:
    """Remove all parts, the plan last, and the folder unless somebody else keeps files there."""
    for file in parts.glob("*"):
        if file.suffix in (".npz", ".tmp"):
            file.unlink(missing_ok=True)
    if keep_plan:
        return
    (parts / PLAN).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        parts.rmdir()


def phase_of(name: str) -> str:
    """The phase that a part belongs to: its name without the number and ``-on``.

    >>> phase_of("best-images-1-on-00003")
    'best-images-1'
    """
    return re.sub(r"(-on)?(-\d{5})?$", "", name)


class Clock:
    """Seconds spent computing, by phase, and whether any part was there already."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.resumed = False

    def around(self, store: PartStore) -> PartStore:
        """``store``, timed: the time of computing parts counts, that of reading them does not."""

        def timed(name: str, compute: Compute) -> Arrays:
            was_computed = False

            def measured() -> Arrays:
                nonlocal was_computed
                was_computed = True
                begin = time.perf_counter()
                try:
                    return compute()
                finally:
                    self._add(phase_of(name), time.perf_counter() - begin)

            part = store(name, measured)
            self.resumed |= not was_computed
            return part

        return timed

    def _add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
