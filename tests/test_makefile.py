"""Which Python makes .venv, and when it is made anew: on pythons that are scripts of a shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None or os.name != "posix", reason="found no make")

FIT = f'exec {sys.executable} "$@"'
# As Python 3.9 would be asked and answer.
OLD = '[ "$1" = --version ] && echo Python 3.9.18 && exit; exit 1'
# Another than that of the tests, and fit as well.
OTHER = f'case "$2" in *print*) echo another;; *) {FIT};; esac'
MADE_ANEW = "-m venv --clear .venv"


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, and with what the stamps in .venv depend on."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    return tmp_path


def python(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def installed(checkout, script):
    """A .venv with a Python that was installed into by now."""
    python(checkout / ".venv" / "bin" / "python", script)
    for name in ("pyvenv.cfg", ".reader", ".installed"):
        (checkout / ".venv" / name).touch()


def make(checkout, *arguments):
    """What make would do, where only the pythons in bin are found."""
    bare = {"PATH": str(checkout / "bin")}
    command = [MAKE, "--dry-run", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=bare, capture_output=True, text=True, check=False
    )


def test_a_reader_gets_what_the_notebooks_need(checkout):
    python(checkout / "bin" / "python3", FIT)
    reader, developer = make(checkout, "lab").stdout, make(checkout, "lint").stdout
    assert f"python3 {MADE_ANEW}" in reader
    assert '".[notebooks]"' in reader
    assert "test]" not in reader
    assert "python -m eca_lab lab" in reader
    assert '".[notebooks,test]"' in developer


def test_the_first_python_that_is_fit_is_taken(checkout):
    for name, script in (("python3.11", OLD), ("python3.13", FIT), ("python3", OLD)):
        python(checkout / "bin" / name, script)
    assert f"\npython3.13 {MADE_ANEW}" in make(checkout, "lab").stdout


@pytest.mark.parametrize(("script", "anew"), [(FIT, False), (OLD, True), ("exit 127", True)])
def test_a_venv_of_an_unfit_python_is_made_anew(checkout, script, anew):
    python(checkout / "bin" / "python3", FIT)
    installed(checkout, script)
    told = make(checkout, "lab").stdout
    assert (MADE_ANEW in told) == (".[notebooks]" in told) == anew


@pytest.mark.parametrize(("script", "anew"), [(FIT, False), (OTHER, True)])
def test_a_venv_of_another_python_than_is_named_is_made_anew(checkout, script, anew):
    python(checkout / "bin" / "mine", script)
    installed(checkout, FIT)
    assert (f"\nmine {MADE_ANEW}" in make(checkout, "lab", "PYTHON=mine").stdout) == anew


@pytest.mark.parametrize("named", [[], ["PYTHON=python3"]])
def test_without_a_fit_python_it_is_said_what_was_found(checkout, named):
    python(checkout / "bin" / "python3", OLD)
    installed(checkout, OLD)
    bare = {"PATH": str(checkout / "bin")}
    done = subprocess.run(
        [MAKE, "lab", *named], cwd=checkout, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs Python 3.11 or newer, with venv. Found:" in done.stdout
    assert "    python3: Python 3.9.18\n" in done.stdout
    assert ("    python3.11: none that runs\n" in done.stdout) == (not named)
    assert "Name another: make lab PYTHON=/path/to/python3.12" in done.stdout
    assert (checkout / ".venv" / "pyvenv.cfg").is_file()
