"""A trained network on disk: Orbax for the parameters, ``checkpoint.json`` for everything else.

Orbax alone restores flipped bits and other shapes in silence, so the JSON holds a sha256 over all
parameters, and loading checks it together with every shape that the architecture wants. It also
holds the sha256 of each file that Orbax wrote, so that damage is named before anything tries to
read it.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from oipjax.model import Model, Params
from oipjax.networks import autoencoder, cnn
from oipjax.networks.autoencoder import Autoencoder, AutoencoderConfig
from oipjax.pytrees import check_finite, fingerprint, flatten, leaves

SCHEMA = 1
KINDS = {"CNN": cnn.CNNConfig, "Autoencoder": AutoencoderConfig}
FILE = "checkpoint.json"
STATE = "training.npz"
"""State of a training that is not yet finished, where its checkpoint will be."""
OURS = (FILE, "params", "curves.png", "confusion.png", "reconstructions.png", STATE)
DEFAULT = "mnist-cnn"
"""The network that the package ships with."""


def shipped() -> dict[str, Path]:
    """Folders of the checkpoints that came with the package, by name: in a wheel, or beside the package in a clone."""
    package = Path(__file__).resolve().parents[1]
    found = {}
    for folder in (package.parent / "checkpoints", package / "checkpoints"):
        found |= {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{FILE}"))}
    return found


def load(path: str | Path = DEFAULT) -> Model:
    """Read a trained network.

    Args:
        path: a checkpoint folder, or the name of one that ships with oipjax.

    Returns:
        The `Model`; that of an autoencoder has the layers of its encoder, and the image that it
        gives back.

    Raises:
        ValueError: there is no such checkpoint, it is damaged (unreadable, another shape, one
            flipped bit), or its parameters are not finite.
    """
    network = _load(path)
    return network.model if isinstance(network, Autoencoder) else network


def load_autoencoder(path: str | Path, *, latent: int | None = None) -> Autoencoder:
    """Read a trained autoencoder.

    Args:
        path: as in `load`.
        latent: how many latent numbers are expected, if it matters.

    Raises:
        ValueError: as in `load`; or the network is no autoencoder, or has another number of latent
            numbers.
    """
    network = _load(path)
    if not isinstance(network, Autoencoder):
        raise ValueError(
            f"{path}: {network.name} is no autoencoder; train one by oipjax train --network autoencoder"
        )
    if latent is not None and latent != network.config.latent:
        raise ValueError(
            f"{path}: {network.name} has {network.config.latent} latent numbers, expected {latent}"
        )
    return network


def _load(path: str | Path) -> Model | Autoencoder:
    folder = Path(path)
    if not folder.exists() and str(path) in shipped():
        folder = shipped()[str(path)]
    if not (folder / FILE).is_file():
        raise ValueError(
            f"{path}: no checkpoint there (a folder with {FILE}); oipjax ships with {', '.join(shipped()) or 'none'}"
        )
    facts = read_facts(folder)
    if facts.get("schema") != SCHEMA:
        raise ValueError(
            f"{folder / FILE}: schema {facts.get('schema')}; this version reads {SCHEMA}"
        )
    if facts.get("sha256") != digest(facts):
        raise ValueError(f"{folder / FILE}: damaged: its content is not what it was written with")
    try:
        architecture: dict[str, Any] = {
            name: _tuples(value) for name, value in facts["architecture"]["config"].items()
        }
        kind = str(facts["architecture"]["type"])
        config = KINDS[kind](**architecture) if kind in KINDS else None
        sha, name = str(facts["parameters"]["sha256"]), str(facts["name"])
        mean, std = (
            tuple(float(v) for v in facts["normalisation"][part]) for part in ("mean", "std")
        )
        classes = tuple(str(label) for label in facts["classes"])
        files = {str(file): str(digest) for file, digest in facts["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / FILE}: damaged ({type(error).__name__}: {error})") from None
    if config is None:
        raise ValueError(
            f"{folder / FILE}: an architecture of type {kind!r}; this version reads {', '.join(KINDS)}"
        )
    _check_files(folder, files)
    params = _restore(folder / "params")
    expected = (
        autoencoder.shapes(config) if isinstance(config, AutoencoderConfig) else cnn.shapes(config)
    )
    wanted, given = (
        {path: (a.shape, a.dtype) for path, a in leaves(tree).items()}
        for tree in (expected, params)
    )
    if wanted != given:
        wrong = sorted(path for path in wanted | given if wanted.get(path) != given.get(path))
        described = "; ".join(
            f"{path} is {given.get(path)}, expected {wanted.get(path)}" for path in wrong[:3]
        )
        raise ValueError(f"{folder}: the parameters do not fit the architecture: {described}")
    if fingerprint(params) != sha:
        raise ValueError(
            f"{folder}: damaged: the sha256 of the parameters is not the one in {FILE}"
        )
    check_finite(params, str(folder))
    params = jax.device_put(params)
    if isinstance(config, AutoencoderConfig):
        return Autoencoder(config, params, mean, std, name)
    return cnn.model(params, config, name=name, mean=mean, std=std, classes=classes)


def save(
    folder: str | Path,
    network: Model | Autoencoder,
    facts: dict[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a network as a checkpoint folder, whole or not at all.

    Args:
        folder: must not exist, or hold nothing, unless ``overwrite``.
        network: with ``networks.cnn`` as its architecture, or an autoencoder.
        facts: of the training, kept under ``"training"``.
        overwrite: replace a checkpoint that is there.

    Raises:
        ValueError: something is there that would be lost, or the model's architecture cannot be
            written down.
    """
    folder = Path(folder).resolve()
    check_free(folder, overwrite=overwrite)
    if isinstance(network, Autoencoder):
        config, classes = network.config, ()
    elif isinstance(network.apply, cnn.CNNApply):
        config, classes = network.apply.config, network.classes
    else:
        raise ValueError(
            f"{network.name}: only oipjax's own networks can be saved, got {network.apply!r}"
        )
    kind = next(name for name, made_of in KINDS.items() if isinstance(config, made_of))
    described = {
        "schema": SCHEMA,
        "name": network.name,
        "architecture": {"type": kind, "config": asdict(config)},
        "normalisation": {"mean": list(network.mean), "std": list(network.std)},
        "classes": list(classes),
        "parameters": {
            "sha256": fingerprint(network.params),
            "count": sum(leaf.size for leaf in flatten(network.params).values()),
            "shapes": {
                path: list(leaf.shape) for path, leaf in sorted(flatten(network.params).items())
            },
        },
        "training": facts,
    }
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    new.mkdir(parents=True)
    _store(new / "params", jax.tree.map(np.asarray, network.params))
    # Orbax notes here where it wrote to, a path of this machine; it reads the checkpoint without
    # it.
    (new / "params" / "commit_success.txt").unlink(missing_ok=True)
    described["files"] = {
        file.relative_to(new).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((new / "params").rglob("*"))
        if file.is_file()
    }
    described["sha256"] = digest(described)
    (new / FILE).write_text(json.dumps(described, indent=1) + "\n")
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def digest(facts: dict[str, Any]) -> str:
    """sha256 of the content of ``checkpoint.json``, without this digest itself, as sorted JSON without spaces."""
    content = {name: value for name, value in facts.items() if name != "sha256"}
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise a ValueError if a checkpoint could not be written to ``folder`` without losing something."""
    folder = folder.resolve()
    if folder == Path.cwd():
        raise ValueError(
            f"{folder}: is the current folder; give the checkpoint a folder of its own"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; a checkpoint is a folder")
    names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in OURS and not name.startswith(f"{STATE}.")]
    if others:
        raise ValueError(
            f"{folder}: holds other things ({', '.join(others[:3])}); choose another place"
        )
    if (folder / FILE).is_file() and not overwrite:
        raise ValueError(f"{folder}: holds a checkpoint already; --overwrite replaces it")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(
            f"{folder}: cannot be written ({above} is not a folder that may be written to)"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of ``checkpoint.json``."""
    try:
        facts = json.loads((folder / FILE).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / FILE}: cannot be read ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{folder / FILE}: damaged (expected an object)")
    return facts


def _check_files(folder: Path, files: dict[str, str]) -> None:
    for name, digest in files.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{folder / name}: missing or damaged ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{folder / name}: damaged: its sha256 is not the one in {FILE}")


def _orbax():
    logging.getLogger("absl").setLevel(logging.ERROR)
    import orbax.checkpoint as ocp

    return ocp


def _store(path: Path, params: Params) -> None:
    ocp = _orbax()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
        checkpointer.save(path.resolve(), args=ocp.args.PyTreeSave(params))


def _restore(path: Path) -> Params:
    ocp = _orbax()
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
            tree = checkpointer.metadata(path.resolve()).item_metadata.tree
            types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            return checkpointer.restore(
                path.resolve(), args=ocp.args.PyTreeRestore(restore_args=types)
            )
    except Exception as error:  # noqa: BLE001  (damage shows up as any of a dozen exception types of Orbax and TensorStore)
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{path}: missing or damaged ({type(error).__name__}: {first[:120]})"
        ) from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
