"""The manifest of a record: its configuration, how it was made, and the schema of its files."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from oipjax.model import Model
from oipjax.pytrees import fingerprint
from oipjax.storage import MATMUL_PRECISION, matmul_precision, write_file
from oipjax.study import Study

SCHEMA = 3
"""The schema that records are written in."""
READABLE = (2, 3)
"""The schemas that records are read in."""
MANIFEST = "manifest.json"

NAMES_OF_SCHEMA_2 = {
    "reactions": "responses",
    "reacted_fraction": "responded_fraction",
    "waking": "pre-activation",
    "band": "strips",
}
"""Names of arrays, columns and origins in schema 2, and what they are called now."""


def current_name(name: str) -> str:
    """What an array, a column or an origin of a record of any schema is called now."""
    return NAMES_OF_SCHEMA_2.get(name, name)


def describe(study: Study) -> dict[str, Any]:
    """All that decides what a study finds, as plain JSON.

    These are the fields of its `AtlasConfig` and `AscentConfig`, side by side, and what
    `describe_run` adds. Of the exemplars it is their sha256.
    """
    options = {**vars(study.config), **vars(study.ascent)}
    for name in ("ascent", "space", "method"):
        del options[name]
    exemplars = options.pop("exemplars")
    digest = None if exemplars is None else fingerprint({"images": exemplars})
    return describe_run(
        "atlas",
        study.model,
        study.key,
        study.space,
        study.ascent.method,
        layer=study.layer,
        exemplars_sha256=digest,
        **options,
    )


def describe_run(
    command: str, model: Model, key: Array, space: Any, method: Any, **options: Any
) -> dict[str, Any]:
    """All that decides what a command finds, as plain JSON.

    Args:
        command: its name.
        model: the network; the sha256 of its parameters and its identity go in.
        key: the root key.
        space: the image space, a frozen dataclass.
        method: how to climb, a frozen dataclass.
        **options: anything JSON can hold.
    """
    described = {
        "command": command,
        "model": model.name,
        "parameters_sha256": fingerprint(model.params),
        "model_identity": model.identity,
        MATMUL_PRECISION: matmul_precision(),
        "key": {
            "implementation": str(jax.random.key_impl(key)),
            "data": np.asarray(jax.random.key_data(key)).tolist(),
        },
        "space": {"name": type(space).__name__, **asdict(space)},
        "method": {"name": type(method).__name__, **asdict(method)},
        **options,
    }
    return json.loads(json.dumps(described))


def headline(config: dict[str, Any]) -> dict[str, Any]:
    """What a person looks for first in a manifest; all of it follows from the configuration."""
    return {
        "command": config["command"],
        "model": {
            "name": config["model"],
            "parameters_sha256": config["parameters_sha256"],
            "identity": config["model_identity"],
        },
        "layer": config["layer"],
        "image_space": config["space"]["name"],
        "seed": _seed(config["key"]),
        "tile": config["tile"],
    }


def _seed(key: dict[str, Any]) -> int | None:
    """The seed of a key that ``jax.random.key(seed)`` made; None for other kinds of keys."""
    if key["implementation"] != "threefry2x32":
        return None
    high, low = key["data"]
    return (high << 32) + low


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json``, which marks a record as finished, atomically."""
    text = json.dumps(manifest, indent=1) + "\n"
    write_file(folder / MANIFEST, text.encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json`` of a finished record.

    Raises:
        ValueError: there is none, it is damaged, or of a schema that this version cannot read.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{file}: damaged (expected an object)")
    schema = manifest.get("schema")
    if schema not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise ValueError(f"{file}: schema {schema}; this version reads {readable}")
    return manifest
