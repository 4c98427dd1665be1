"""The state of a record's folder, and what may be done to it.

While a run goes on, its folder holds ``parts/`` with the plan; when it ends, the parts become
``oips.npz``, ``maps.csv`` and, last of all, ``manifest.json``, which marks the record as finished.
"""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from oipjax.records.manifest import MANIFEST, SCHEMA
from oipjax.storage import (
    LOCK,
    PARTS,
    PLAN,
    POLL,
    differences,
    exclusive,
    refuse,
    remove_parts,
    write_file,
)

ARRAYS = "oips.npz"
TABLE = "maps.csv"
RUN_ARRAYS = "oip.npz"
RUN_TABLE = "oip.csv"
PICTURES = ("atlas", "oip", "activations")
FORMATS = ("png", "pdf", "svg")
RESULTS = (ARRAYS, TABLE, RUN_ARRAYS, RUN_TABLE, "activations.npz", "activations.csv")
"""What a record consists of, next to its manifest and its pictures."""
BEGINNINGS = rf"{re.escape(PLAN)}\.\w+\.tmp|left-\d+\.tmp"
"""Names of the files of a process that has not written its plan yet."""
MARK = b'"parameters_sha256"'
"""It is in every manifest and plan; a damaged file that holds it is one of ours."""
HASHES = ("parameters_sha256", "model_identity")


@dataclass(frozen=True)
class Empty:
    """There is no record, and room for one."""


@dataclass(frozen=True)
class Begun:
    """A run was begun; ``plan`` is what is being made."""

    plan: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished record."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class Damaged:
    """A record whose manifest or plan is damaged; ``reason`` says which."""

    reason: str


@dataclass(frozen=True)
class Foreign:
    """Something that is no record, which is left alone; ``reason`` is a sentence."""

    reason: str


State = Empty | Begun | Finished | Damaged | Foreign


def state_of(folder: Path) -> State:
    """What is in a folder."""
    if not folder.exists():
        return Empty()
    if not folder.is_dir():
        return Foreign("is a file; --out wants a folder")
    match _content(folder / MANIFEST), _content(folder / PARTS / PLAN):
        case Damaged() as damaged, _:
            return damaged
        case None, Damaged() as damaged:
            return damaged
        case dict() as manifest, _:
            return Finished(manifest)
        case None, dict() as plan:
            return Begun(plan)
    names = sorted(item.name for item in folder.iterdir() if item.name != LOCK)
    if not names or (names == [PARTS] and _holds_beginnings(folder / PARTS)):
        return Empty()
    few = ", ".join(names[:3])
    return Foreign(f"is no record and not empty ({few}); choose another --out")


def is_finished(folder: Path, config: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether a finished record of ``config`` lies in ``folder``; it is removed if ``overwrite``.

    Raises:
        ValueError: the folder holds a record of something else, or things that are no record, or
            another process is at work there.
    """
    refuse_foreign(folder)
    if overwrite and folder.exists():
        with exclusive(folder):
            _remove(folder)
        return False
    return has_record(folder, state_of(folder), config)


def has_record(folder: Path, state: State, config: dict[str, Any]) -> bool:
    """Whether a folder in some state holds the finished record of ``config``.

    False if it is empty, or the record was only begun.

    Raises:
        ValueError: it holds something else.
    """
    match state:
        case Finished(found) | Begun(found):
            _refuse_other(folder, found, {"schema": SCHEMA, "config": config})
        case Damaged(reason):
            refuse(folder, reason, [])
        case Foreign(reason):
            raise ValueError(f"{folder}: {reason}")
    return isinstance(state, Finished)


def begin(folder: Path, plan: dict[str, Any], *, overwrite: bool) -> bool:
    """Make a folder ready for a plan, to be called under the lock; True if its record is there.

    What an interrupted run of the very same plan has done is kept, even with ``overwrite``.

    Args:
        folder: must exist.
        plan: schema, configuration and surroundings of the run.
        overwrite: replace what another run left there.

    Raises:
        ValueError: the folder holds something else, and ``overwrite`` is not given.
    """
    state = state_of(folder)
    if overwrite and isinstance(state, Begun | Finished | Damaged):
        _replace(folder, state, plan)
        return False
    if has_record(folder, state, plan["config"]):
        return True
    if isinstance(state, Begun):
        _refuse_other(folder, state.plan, plan)
    else:
        _write_plan(folder, plan)
    return False


def join(folder: Path, plan: dict[str, Any], *, overwrite: bool) -> bool:
    """Wait until the first process has made the folder ready; True if the record is there already.

    Args:
        folder: of the record.
        plan: of this process; the first one has the same.
        overwrite: the first process replaces what another run left there.

    Raises:
        ValueError: the folder holds something else, and ``overwrite`` is not given.
    """
    while True:
        state = state_of(folder)
        if isinstance(state, Begun) and not differences(state.plan, plan):
            return False
        if isinstance(state, Foreign) or not overwrite:
            if has_record(folder, state, plan["config"]):
                return True
            if isinstance(state, Begun):
                _refuse_other(folder, state.plan, plan)
        time.sleep(POLL)


def refuse_foreign(folder: Path) -> None:
    """Raise a ValueError if a folder holds things that are no record."""
    state = state_of(folder)
    if isinstance(state, Foreign):
        raise ValueError(f"{folder}: {state.reason}")


def _content(file: Path) -> dict[str, Any] | Damaged | None:
    """A manifest or plan of ours; None if there is none."""
    if not file.is_file():
        return None
    content = file.read_bytes()
    try:
        facts = json.loads(content)
    except ValueError:
        return Damaged(f"{file.name} is damaged") if MARK in content else None
    is_ours = isinstance(facts, dict) and isinstance(facts.get("config"), dict)
    return facts if is_ours else None


def _holds_beginnings(parts: Path) -> bool:
    return all(re.fullmatch(BEGINNINGS, file.name) for file in parts.iterdir())


def _refuse_other(folder: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise a ValueError that says in which way a record or plan is another than expected.

    Args:
        folder: of the record.
        found: its manifest or plan.
        expected: facts that it should have.
    """
    if found.get("schema") != SCHEMA:
        _refuse_version(folder, found, expected["config"])
    surroundings = [name for name in expected if name != "config"]
    lines = differences(found["config"], expected["config"])
    lines += differences(
        {name: found.get(name) for name in surroundings},
        {name: expected[name] for name in surroundings},
    )
    if not lines:
        return
    reason = _other_network(found["config"], expected["config"])
    if reason:
        refuse(folder, reason, [line for line in lines if not line.startswith(HASHES)])
    refuse(folder, "holds another run", lines)


def _refuse_version(folder: Path, found: dict[str, Any], config: dict[str, Any]) -> NoReturn:
    """Raise a ValueError that says that another version of oipjax wrote a record or plan."""
    schema = found.get("schema")
    is_later = isinstance(schema, int) and schema > SCHEMA
    version = "a later" if is_later else "an earlier"
    refuse(
        folder,
        f"holds a record of {version} version of oipjax "
        f"(schema {schema}, this one writes {SCHEMA})",
        _common_differences(found["config"], config),
    )


def _common_differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What differs between configurations of two versions, in the options that both state."""
    stated = {name for name, value in found.items() if value is not None}
    common = [name for name in expected if name in stated]
    return differences(
        {name: found[name] for name in common},
        {name: expected[name] for name in common},
    )


def _other_network(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """A sentence for two networks of one name; empty if they are equal or have two names."""
    name = expected.get("model")
    if found.get("model") != name:
        return ""
    if found.get("parameters_sha256") != expected.get("parameters_sha256"):
        difference = "other parameters"
    elif found.get("model_identity") != expected.get("model_identity"):
        difference = (
            "the same parameters, but another program, input shape, normalisation or version of JAX"
        )
    else:
        return ""
    return f"holds the record of another network that is named {name} too ({difference})"


def _replace(folder: Path, state: Begun | Finished | Damaged, plan: dict[str, Any]) -> None:
    """Remove a record and write a plan; nothing is lost of a run of the same plan."""
    is_same_plan = isinstance(state, Begun) and not differences(state.plan, plan)
    if not is_same_plan:
        # The plan comes first: whenever this is interrupted, the folder is one of ours.
        _write_plan(folder, plan)
        remove_parts(folder / PARTS, keep_plan=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    _remove_results(folder)


def _remove(folder: Path) -> None:
    """Remove what a record consists of, and nothing else, under the lock."""
    refuse_foreign(folder)
    _remove_results(folder)
    remove_parts(folder / PARTS)
    (folder / MANIFEST).unlink(missing_ok=True)


def _remove_results(folder: Path) -> None:
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    for name in PICTURES:
        for ending in FORMATS:
            (folder / f"{name}.{ending}").unlink(missing_ok=True)


def _write_plan(folder: Path, plan: dict[str, Any]) -> None:
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    write_file(parts / PLAN, json.dumps(plan, indent=1).encode())
