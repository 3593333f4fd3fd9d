"""The wheel and the sdist: whole, and at work outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What is made from the checkout, and is no part of it.
MADE = shutil.ignore_patterns(
    *(".git", ".venv*", ".*cache", ".hypothesis", ".ipynb_checkpoints", "node_modules"),
    *("__pycache__", "*.egg-info", "cache", "demo", "mine*", "site-packages", ".*.lock", ".*.tmp"),
)
NAME = f"eca_lab-{version('eca-lab')}"
SWEEP = (
    "sweep --data shapes --classes 2 --size 8 --per-class 8 --epochs 1 --batch-size 4 --seeds 1 "
    "--device cpu --arms eca --out results"
)
EXPLORE = """
import eca_lab
from eca_lab.explorers import KernelSizeExplorer
from eca_lab.site import pages
print(eca_lab.__file__, eca_lab.adaptive_kernel_size(KernelSizeExplorer(channels=64).channels))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, in which nothing was built before."""
    path = tmp_path_factory.mktemp("copied") / "checkout"
    shutil.copytree(ROOT, path, ignore=MADE, symlinks=True)
    shutil.rmtree(path / "site", ignore_errors=True)  # of `make site`; eca_lab has one, too
    return path


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """The folder of an sdist and of the wheel that was built from it."""
    out = tmp_path_factory.mktemp("built")
    # What builds is in the environment of the tests: nothing is downloaded.
    done = run("-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder into which the wheel was installed, without what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile")
    done = run(*pip, "--target", folder, built / f"{NAME}-py3-none-any.whl", cwd=built)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """The folder of the unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / NAME


def run(*arguments, cwd, path=""):
    """Run Python in a folder, with another in front of what it imports from."""
    environment = {**os.environ, "PYTHONPATH": str(path), "TQDM_DISABLE": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def files(folder):
    """What lies in a folder and was not made by building."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("eca_lab.egg-info/")}


def test_the_wheel_is_the_package_and_nothing_else(checkout, built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as archive:
        found = set(archive.namelist())
    package = {name for name in files(checkout) if name.startswith("eca_lab/")}
    assert {"eca_lab/py.typed", "eca_lab/explorers/kit.js", "eca_lab/site/page.html"} <= package
    assert {name for name in found if not name.startswith(f"{NAME}.dist-info/")} == package
    assert f"{NAME}.dist-info/licenses/LICENSE" in found


def test_the_sdist_is_the_checkout(checkout, unpacked):
    folders = ("benchmarks/", "data/", "eca_lab/", "jupyter/", "notebooks/", "tests/")
    wanted = {name for name in files(checkout) if name.startswith(folders)}
    assert {"tests/test_wheel.py", "data/studies/why.toml"} <= wanted
    found = files(unpacked)
    assert {name for name in found if name.startswith(folders)} == wanted
    assert {"LICENSE", "Makefile", "README.md", "constraints.txt", ".ci/run"} <= found


def test_the_installed_package_works_elsewhere(installed, tmp_path):
    done = run("-c", EXPLORE, cwd=tmp_path, path=installed)
    assert done.stdout.split() == [f"{installed / 'eca_lab' / '__init__.py'}", "3"]
    done = run("-m", "eca_lab", *SWEEP.split(), cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("results/*.json"))) == 1
    if os.name == "posix":  # a script, and no program, as on Windows
        script = installed / "bin" / "eca-lab"
        done = run(script, "results", "results", cwd=tmp_path, path=installed)
        assert "eca" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "lacking"),
    [
        ("compare --study why", f"no study is declared in {Path('{}', 'data', 'studies')}; "),
        ("lab", "no notebooks/00_start_here.ipynb in {}; "),
    ],
)
def test_what_the_package_lacks_is_said(installed, tmp_path, command, lacking):
    done = run("-m", "eca_lab", *command.split(), cwd=tmp_path, path=installed)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert lacking.format(tmp_path.resolve()) in line
    assert "accepted is the working directory or one above it, in a checkout of ECA Lab" in line


def test_the_installed_package_finds_a_checkout_around_it(installed, unpacked):
    # As from a notebook, where the package was not installed with -e.
    code = "import eca_lab; from eca_lab.evidence import studies; print(eca_lab.__file__)"
    code += "; print(studies.load_study('why').results)"
    done = run("-c", code, cwd=unpacked / "notebooks", path=installed)
    where, results = done.stdout.splitlines()
    assert Path(where) == installed / "eca_lab" / "__init__.py"
    assert Path(results).parent == unpacked.resolve() / "data" / "results"


def test_tests_run_from_the_sdist(unpacked):
    tests = ("tests/attention/test_spec.py", "tests/test_jupyter_config.py")
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:nbval", "-p", "no:xdist")
    done = run("-m", "pytest", *options, *tests, cwd=unpacked, path=unpacked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_version_is_told_alike():
    told = {"CITATION.cff": r"^version: (.+)$", "CHANGELOG.md": r"^## (\d\S+)$"}
    for name, line in told.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.search(line, text, re.M)[1] == version("eca-lab")
