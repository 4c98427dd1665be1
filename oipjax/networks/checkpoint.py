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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from oipjax.model import Model, Params
from oipjax.networks import autoencoder, cnn
from oipjax.networks.autoencoder import Autoencoder, AutoencoderConfig
from oipjax.networks.cnn import CNNConfig
from oipjax.pytrees import check_finite, fingerprint, flatten, leaves

SCHEMA = 1
FILE = "checkpoint.json"
STATE = "training.npz"
"""State of a training that is not yet finished, where its checkpoint will be."""
OURS = (FILE, "params", "curves.png", "confusion.png", "reconstructions.png", STATE)
"""Names of the files and folders that a checkpoint folder may hold."""
DEFAULT = "mnist-cnn"
"""The network that the package ships with."""


class Contents(NamedTuple):
    """What ``checkpoint.json`` says of a network.

    Attributes:
        name: of the network.
        architecture: its type, one of `ARCHITECTURES`.
        config: of the architecture, by field.
        mean, std: the normalisation of its input.
        classes: names of its classes.
        sha256: of all parameters.
        files: sha256 of each file by its path in the folder.
    """

    name: str
    architecture: str
    config: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    sha256: str
    files: dict[str, str]


@dataclass(frozen=True)
class Architecture:
    """A kind of network that can be written down.

    Attributes:
        config: class of its configuration.
        shapes: of the configuration: shapes and dtypes of the parameters.
        build: of the contents of a checkpoint and the parameters: the network.
    """

    config: type
    shapes: Callable[[Any], Params]
    build: Callable[[Contents, Params], Model | Autoencoder]


def _build_cnn(contents: Contents, params: Params) -> Model:
    return cnn.model(
        params,
        contents.config,
        name=contents.name,
        mean=contents.mean,
        std=contents.std,
        classes=contents.classes,
    )


def _build_autoencoder(contents: Contents, params: Params) -> Autoencoder:
    return Autoencoder(
        config=contents.config,
        params=params,
        mean=contents.mean,
        std=contents.std,
        name=contents.name,
    )


ARCHITECTURES = {
    "CNN": Architecture(CNNConfig, cnn.shapes, _build_cnn),
    "Autoencoder": Architecture(AutoencoderConfig, autoencoder.shapes, _build_autoencoder),
}
"""The networks of our own, by their type in ``checkpoint.json``."""


def shipped() -> dict[str, Path]:
    """Folders of the checkpoints that came with the package, by name.

    They are in the package (a wheel), or beside it (a clone).
    """
    package = Path(__file__).resolve().parents[1]
    folders = {}
    for parent in (package.parent / "checkpoints", package / "checkpoints"):
        for file in sorted(parent.glob(f"*/{FILE}")):
            folders[file.parent.name] = file.parent
    return folders


def load(path: str | Path = DEFAULT) -> Model:
    """Read a trained network.

    Args:
        path: a checkpoint folder, or the name of one that ships with oipjax.

    Returns:
        The `Model`; that of an autoencoder has the layers of its encoder, and the image that it
        reconstructs.

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
        latent: the expected number of latent numbers, if it matters.

    Raises:
        ValueError: as in `load`; or the network is no autoencoder, or has another number of latent
            numbers.
    """
    network = _load(path)
    if not isinstance(network, Autoencoder):
        raise ValueError(
            f"{path}: {network.name} is no autoencoder; train one by "
            "oipjax train --network autoencoder"
        )
    if latent is not None and latent != network.config.latent:
        raise ValueError(
            f"{path}: {network.name} has {network.config.latent} latent numbers, expected {latent}"
        )
    return network


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
    contents = _described(network, facts)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    new.mkdir(parents=True)
    _store(new / "params", jax.tree.map(np.asarray, network.params))
    # Orbax notes here where it wrote to, a path of this machine; it reads the checkpoint without
    # it.
    (new / "params" / "commit_success.txt").unlink(missing_ok=True)
    contents["files"] = _sums(new)
    contents["sha256"] = digest(contents)
    (new / FILE).write_text(json.dumps(contents, indent=1) + "\n")
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def digest(facts: dict[str, Any]) -> str:
    """The sha256 of the content of ``checkpoint.json``, without this digest itself.

    It is that of the content as sorted JSON without spaces.
    """
    content = {name: value for name, value in facts.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise a ValueError if writing a checkpoint to ``folder`` would lose something, or fail."""
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
        listed = ", ".join(others[:3])
        raise ValueError(f"{folder}: holds other things ({listed}); choose another place")
    if (folder / FILE).is_file() and not overwrite:
        raise ValueError(f"{folder}: holds a checkpoint already; --overwrite replaces it")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(
            f"{folder}: cannot be written ({above} is not a folder that may be written to)"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of ``checkpoint.json``.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        facts = json.loads((folder / FILE).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / FILE}: cannot be read ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{folder / FILE}: damaged (expected an object)")
    return facts


def _load(path: str | Path) -> Model | Autoencoder:
    folder = _folder_of(path)
    contents = _read_contents(folder)
    _check_files(folder, contents.files)
    params = _restore(folder / "params")
    architecture = ARCHITECTURES[contents.architecture]
    _check_shapes(folder, architecture.shapes(contents.config), params)
    if fingerprint(params) != contents.sha256:
        raise ValueError(
            f"{folder}: damaged: the sha256 of the parameters is not the one in {FILE}"
        )
    check_finite(params, str(folder))
    return architecture.build(contents, jax.device_put(params))


def _folder_of(path: str | Path) -> Path:
    """The folder of a checkpoint, given by its path or name."""
    folder = Path(path)
    available = shipped()
    if not folder.exists() and str(path) in available:
        folder = available[str(path)]
    if not (folder / FILE).is_file():
        names = ", ".join(available) if available else "none"
        raise ValueError(
            f"{path}: no checkpoint there (a folder with {FILE}); oipjax ships with {names}"
        )
    return folder


def _read_contents(folder: Path) -> Contents:
    """``checkpoint.json``, checked."""
    facts = read_facts(folder)
    if facts.get("schema") != SCHEMA:
        raise ValueError(
            f"{folder / FILE}: schema {facts.get('schema')}; this version reads {SCHEMA}"
        )
    if facts.get("sha256") != digest(facts):
        raise ValueError(f"{folder / FILE}: damaged: its content is not what it was written with")
    try:
        kind = str(facts["architecture"]["type"])
        if kind in ARCHITECTURES:
            return _parsed(facts, kind)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / FILE}: damaged ({type(error).__name__}: {error})") from None
    raise ValueError(
        f"{folder / FILE}: an architecture of type {kind!r}; "
        f"this version reads {', '.join(ARCHITECTURES)}"
    )


def _parsed(facts: dict[str, Any], kind: str) -> Contents:
    """The content of ``checkpoint.json`` with the types that it should have."""
    fields = {}
    for name, value in facts["architecture"]["config"].items():
        fields[name] = _tuples(value)
    files = {}
    for file, file_digest in facts["files"].items():
        files[str(file)] = str(file_digest)
    normalisation = facts["normalisation"]
    return Contents(
        name=str(facts["name"]),
        architecture=kind,
        config=ARCHITECTURES[kind].config(**fields),
        mean=tuple(map(float, normalisation["mean"])),
        std=tuple(map(float, normalisation["std"])),
        classes=tuple(map(str, facts["classes"])),
        sha256=str(facts["parameters"]["sha256"]),
        files=files,
    )


def _described(network: Model | Autoencoder, facts: dict[str, Any]) -> dict[str, Any]:
    """The content of ``checkpoint.json``, without sums of files."""
    if isinstance(network, Autoencoder):
        config = network.config
        classes = ()
    elif isinstance(network.apply, cnn.CNNApply):
        config = network.apply.config
        classes = network.classes
    else:
        raise ValueError(
            f"{network.name}: only oipjax's own networks can be saved, got {network.apply!r}"
        )
    kinds = [name for name, kind in ARCHITECTURES.items() if isinstance(config, kind.config)]
    parameters = flatten(network.params)
    shapes = {path: list(leaf.shape) for path, leaf in sorted(parameters.items())}
    return {
        "schema": SCHEMA,
        "name": network.name,
        "architecture": {"type": kinds[0], "config": asdict(config)},
        "normalisation": {"mean": list(network.mean), "std": list(network.std)},
        "classes": list(classes),
        "parameters": {
            "sha256": fingerprint(network.params),
            "count": sum(leaf.size for leaf in parameters.values()),
            "shapes": shapes,
        },
        "training": facts,
    }


def _check_shapes(folder: Path, expected: Params, params: Params) -> None:
    """Raise a ValueError that names parameters of another shape or type than expected."""
    expected_types = _types(expected)
    given_types = _types(params)
    differences = []
    for path in sorted(expected_types | given_types):
        expected_type = expected_types.get(path)
        given_type = given_types.get(path)
        if given_type != expected_type:
            differences.append(f"{path} is {given_type}, expected {expected_type}")
    if differences:
        listed = "; ".join(differences[:3])
        raise ValueError(f"{folder}: the parameters do not fit the architecture: {listed}")


def _types(params: Params) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each parameter by its path."""
    return {path: (leaf.shape, leaf.dtype) for path, leaf in leaves(params).items()}


def _sums(folder: Path) -> dict[str, str]:
    """The sha256 of each file of the parameters, by its path in the folder."""
    sums = {}
    for file in sorted((folder / "params").rglob("*")):
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            sums[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return sums


def _check_files(folder: Path, files: dict[str, str]) -> None:
    """Raise a ValueError that names a file which is missing or has another sha256."""
    for name, expected in files.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{folder / name}: missing or damaged ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != expected:
            raise ValueError(f"{folder / name}: damaged: its sha256 is not the one in {FILE}")


def _orbax():
    """Orbax, imported when it is used, without its log."""
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
            arguments = ocp.args.PyTreeRestore(restore_args=types)
            return checkpointer.restore(path.resolve(), args=arguments)
    except Exception as error:  # noqa: BLE001  (Orbax and TensorStore raise a dozen types for damaged files)
        lines = str(error).strip().splitlines()
        reason = lines[0][:120] if lines else ""
        raise ValueError(f"{path}: missing or damaged ({type(error).__name__}: {reason})") from None


def _tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples, as a configuration has them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
