"""The house: what lies at the top level, and imports that run one way only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "oipjax"
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "oipjax",
    "experiments",
    "tests",
    "checkpoints",
}
ORDER = (
    ("model", "ops", "keys", "tiles"),
    ("objectives", "images", "decoder", "transforms", "methods"),
    ("survey", "climb", "activations", "textures"),
    ("ascent", "bounds"),
    ("tried", "verdict"),
    ("roads",),
    ("atlas", "dream", "latent", "fragments", "optima", "matching", "trust"),
    ("parts", "provenance"),
    ("state",),
    ("records",),
    ("plots", "activation_plots", "report"),
    ("console",),
    ("commands",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
OUTSIDE_ALLOWED = {
    "networks": {"networks", "model", "ops"},
    "training_config": {"networks", "model"},
    "training": {"training_config", "networks", "data", "model", "ops", "keys", "tiles", "provenance", "state"},
    "autoencoding": {"training", "training_config", "networks", "data", "model", "keys", "state", "corruptions"},
    "corruptions": set(),
    "quality": {"corruptions"},
    "quantisation": set(),
    "linear": set(),
    "data": set(),
    "pictures": {"data", "keys"},
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(path: Path) -> list[tuple[str, int]]:
    """Modules a file imports, with the depth of nesting: 0 for imports at the top level."""
    found = []
    tree = ast.parse((PACKAGE / path).read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        depth = 0 if id(node) in top else 1
        if isinstance(node, ast.Import):
            found += [(alias.name, depth) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            found.append((node.module, depth))
            if node.module in ("oipjax", "oipjax.networks"):
                found += [(f"{node.module}.{alias.name}", depth) for alias in node.names]
    return found


def test_top_level_is_what_a_newcomer_expects():
    ignored = {"oipjax-out"}
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - ignored
    assert names <= TOP, f"unexpected at the top level: {names - TOP}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path: Path):
    module = path.parts[0].removesuffix(".py")
    for name, _ in imported(path):
        if not name.startswith("oipjax.") or name.count(".") > 2:
            continue
        other = name.split(".")[1]
        if not (PACKAGE / other).is_dir() and not (PACKAGE / f"{other}.py").exists():
            continue
        if module in OUTSIDE_ALLOWED:
            assert other in OUTSIDE_ALLOWED[module], f"{path} must not import {other}"
        elif module not in ("cli", "commands"):
            assert other in LEVEL, f"{path} must not import {other}"
            assert LEVEL[other] <= LEVEL[module], f"{path} must not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_heavy_libraries_stay_in_their_rooms(path: Path):
    module = path.parts[0].removesuffix(".py")
    roots = {name.split(".")[0] for name, _ in imported(path)}
    if module not in ("networks", "training"):
        assert "flax" not in roots
    if module != "training" and path != Path("networks/checkpoint.py"):
        assert "orbax" not in roots
    if module not in ("plots", "activation_plots", "report"):
        assert "matplotlib" not in roots
    if module not in ("cli", "commands", "console"):
        assert not roots & {"rich", "tyro"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_command_line_prints_and_configures(path: Path):
    if path.parts[0] in ("cli.py", "commands"):
        return
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "input"), f"{path} prints"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            assert ast.unparse(node.func.value) != "jax.config", f"{path} changes jax.config"
        assert not isinstance(node, ast.Assert), f"{path}: asserts are gone under -O; raise instead"
