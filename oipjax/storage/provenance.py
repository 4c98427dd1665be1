"""What the bits of a run depend on next to its configuration, and what to say when two runs differ."""

import contextlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def surroundings() -> dict[str, Any]:
    """What else rounding depends on: versions, device, and JAX's setting of the precision of products."""
    device = jax.devices()[0]
    names = ("oipjax", "jax", "jaxlib", "numpy", "flax", "optax")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        "precision": getattr(jax.config, "jax_default_matmul_precision", None) or "default",
    }


def differences(there: Any, asked: Any, name: str = "") -> list[str]:
    """What differs between two configurations, a line each."""
    if isinstance(there, dict) and isinstance(asked, dict):
        lines = []
        for key in {**there, **asked}:
            inner = f"{name}.{key}" if name else str(key)
            lines += differences(there.get(key), asked.get(key), inner)
        return lines
    return [] if there == asked else [f"{name}: {_short(there)} there, {_short(asked)} asked for"]


def refuse_other(folder: Path, there: dict, asked: dict) -> None:
    """Raise a ValueError that shows the differences, if what is in ``folder`` is not what is asked for."""
    lines = differences(there, asked)
    if lines:
        shown = "\n  ".join(lines[:8] + [f"... and {len(lines) - 8} more"] * (len(lines) > 8))
        raise ValueError(
            f"{folder}: holds another run; --overwrite replaces it, or choose another --out\n  {shown}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
