"""What the bits of a run depend on next to its configuration, and how two runs differ."""

import contextlib
import functools
import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import jax

PACKAGES = ("oipjax", "jax", "jaxlib", "numpy", "flax", "optax")
PROVENANCE = ("commit",)
"""Facts that a file names and that no run is refused for."""
MATMUL_PRECISION = "jax_default_matmul_precision"
UNKNOWN = "unknown"
MOST_DIFFERENCES = 8
MOST_CHARACTERS = 60


def surroundings() -> dict[str, Any]:
    """What rounding depends on, next to a configuration, and the commit of the package.

    The keys are ``versions``, ``device``, ``jax_default_matmul_precision`` and ``commit``.
    """
    device = jax.devices()[0]
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        MATMUL_PRECISION: matmul_precision(),
        "commit": commit(),
    }


def matmul_precision() -> str:
    """JAX's setting ``jax_default_matmul_precision``; ``default`` if it is not set."""
    setting = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]  # noqa: TID251  (it is only read)
    return "default" if setting is None else str(setting)


@functools.cache
def commit() -> str:
    """The git commit that the package runs from, with ``-dirty`` if tracked files were changed.

    ``unknown`` if the package does not run from a checkout of its own, or git is not there.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return UNKNOWN
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *describe],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return answer.stdout.strip()


def plan_digest(plan: dict[str, Any]) -> str:
    """The sha256 of a plan, plain JSON; two plans share it if they have no `differences`."""
    facts = {name: value for name, value in plan.items() if name not in PROVENANCE}
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What differs between two plans, a line each; facts of `PROVENANCE` are not compared."""
    lines = []
    for name in {**found, **expected}:
        if name not in PROVENANCE:
            lines += _compare(found.get(name), expected.get(name), str(name))
    return lines


def refuse_other(folder: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise a ValueError that shows the differences between two plans, if there are any.

    Args:
        folder: where the first plan lies.
        found: the plan in the folder.
        expected: the plan of this run.
    """
    lines = differences(found, expected)
    if lines:
        refuse(folder, "holds another run", lines)


def refuse(folder: Path, reason: str, lines: list[str]) -> NoReturn:
    """Raise a ValueError: what a folder holds, what to do, and what differs."""
    shown = lines[:MOST_DIFFERENCES]
    hidden = len(lines) - len(shown)
    if hidden:
        shown = [*shown, f"... and {hidden} more"]
    advice = "--overwrite replaces it, or choose another --out"
    raise ValueError("\n  ".join([f"{folder}: {reason}; {advice}", *shown]))


def _compare(found: Any, expected: Any, name: str) -> list[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        lines = []
        for key in {**found, **expected}:
            lines += _compare(found.get(key), expected.get(key), f"{name}.{key}")
        return lines
    if found == expected:
        return []
    return [f"{name}: {_short(found)} there, {_short(expected)} asked for"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - 3] + "..."
