"""What is imported is declared in pyproject.toml, in an extra that its importer installs."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def sources(folder):
    """The Python in a folder: of its modules and of the code cells of its notebooks."""
    for path in sorted(Path(ROOT, folder).rglob("*.py")):
        yield path.read_text()
    for path in sorted(Path(ROOT, folder).glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                yield "".join(cell["source"])


def imported(folder):
    """Top-level names of what a folder imports from other distributions."""
    found = set()
    for source in sources(folder):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    own = {path.stem for room in ("benchmarks", "tests") for path in Path(ROOT, room).glob("*.py")}
    return found - own - {"eca_lab"} - sys.stdlib_module_names


def names(requirements):
    return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("eca_lab", ("notebooks", "ray")),
        ("notebooks", ("notebooks",)),
        ("tests", ("notebooks", "ray", "test")),
        ("benchmarks", ("notebooks", "ray", "test")),
    ],
)
def test_what_is_imported_is_declared(folder, extras):
    declared = names(PROJECT["dependencies"])
    for extra in extras:
        declared |= names(EXTRAS[extra])
    distributions = packages_distributions()
    lacking = {
        name
        for name in imported(folder)
        if declared.isdisjoint(names(distributions.get(name, [name])))
    }
    assert not lacking
