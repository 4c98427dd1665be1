"""The house: the top level, packages with a public surface, and names that lead where they say."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import oipjax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "oipjax"
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "oipjax",
    "experiments",
    "tests",
    "checkpoints",
}
MADE = {"oipjax-out", "build", "dist"}
PACKAGES = []
for module in pkgutil.walk_packages(oipjax.__path__, "oipjax."):
    if module.ispkg and module.name != "oipjax.data.assets":
        PACKAGES.append(module.name)
FILES = sorted(PACKAGE.rglob("*.py"))


def test_top_level_is_what_a_newcomer_expects():
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert names - MADE <= TOP


def test_the_package_root_is_small():
    entries = {path for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 24
    modules = [path for path in entries if path.suffix == ".py"]
    assert len(modules) <= 6
    for path in modules:
        assert len(path.read_text().splitlines()) <= 300, path


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_a_sentence_and_a_public_surface(name: str):
    package = importlib.import_module(name)
    assert package.__doc__ is not None
    summary = package.__doc__.strip().splitlines()[0]
    assert summary.endswith(".")
    assert len(package.__all__) == len(set(package.__all__))
    for public in package.__all__:
        assert hasattr(package, public), f"{name} does not have {public}"


@pytest.mark.parametrize("name", ["oipjax", *PACKAGES])
def test_no_public_name_hides_a_module(name: str):
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name in package.__all__:
            value = getattr(package, module.name)
            assert value is importlib.import_module(f"{name}.{module.name}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_have_few_parameters(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len(given) <= 10, f"{node.name} takes {len(given)} parameters"


def test_every_public_name_is_there():
    for name in oipjax.__all__:
        assert getattr(oipjax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'atlass'"):
        oipjax.atlass  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, oipjax; "
        "oipjax.__version__; "
        "heavy = {'jax', 'numpy', 'flax', 'matplotlib'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
