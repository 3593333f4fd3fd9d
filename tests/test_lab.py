"""`python -m eca_lab lab`, without a JupyterLab: tests/test_browser_notebooks.py runs one."""

import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from jupyterlab.labapp import LabApp
from nbformat.sign import NotebookNotary

from eca_lab import lab
from eca_lab.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """The arguments that JupyterLab was run with, call by call."""
    calls = []
    monkeypatch.setattr(LabApp, "launch_instance", calls.append)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "elsewhere")
    return calls


def test_jupyterlab_is_run_on_the_first_notebook(launched):
    assert main(["lab", "--", "--no-browser", "--port", "9000"]) == 0
    assert main(["lab", "--"]) == 0
    assert main(["lab"]) == 0
    arguments, *plain = launched
    assert arguments[-3:] == ["--no-browser", "--port", "9000"]
    assert plain == [arguments[:-3]] * 2
    assert (ROOT / "notebooks" / "00_start_here.ipynb").is_file()
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in arguments
    assert f"--ServerApp.root_dir={ROOT}" in arguments
    assert os.environ["JUPYTER_CONFIG_PATH"] == str(ROOT / "jupyter")


def test_it_answers_this_machine_alone_and_asks_for_the_token(launched):
    lab.start()
    (arguments,) = launched
    assert "--ServerApp.ip=127.0.0.1" in arguments
    assert not [argument for argument in arguments if "token" in argument or "password" in argument]


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_may(launched, monkeypatch, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    lab.start()
    assert ("--allow-root" in launched[0]) == allowed


def test_saved_explorers_are_trusted_and_nothing_else(launched, tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    lab.start(root=tmp_path)
    notary = NotebookNotary()
    for path in tmp_path.glob("notebooks/*.ipynb"):
        name = path.relative_to(tmp_path).as_posix()
        notebook = nbformat.read(path, as_version=4)
        assert notary.check_signature(notebook) == (name in lab.ALIVE)
        assert ("widgets" in notebook["metadata"]) == (name in lab.ALIVE)


def test_without_notebooks(launched, tmp_path):
    accepted = r"accepted is the working directory or one above it, in a checkout of ECA Lab"
    with pytest.raises(FileNotFoundError, match=f"no notebooks/00_start.* in .*; {accepted}"):
        lab.start(root=tmp_path)
    assert not launched


def test_without_jupyterlab(launched, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    assert main(["lab"]) == 2
    assert 'no JupyterLab here; install it with: pip install -e ".[notebooks]"' in (
        capsys.readouterr().err
    )


def test_options_for_jupyterlab_stand_behind_two_dashes(launched, capsys):
    with pytest.raises(SystemExit):
        main(["lab", "--no-browser"])
    assert "unrecognized arguments: --no-browser" in capsys.readouterr().err
    assert not launched


def test_node_takes_jupyterlabs_own_script_for_what_it_is():
    # It is CommonJS, beneath the checkout in .venv. Were all of the checkout said to be ES modules,
    # JupyterLab would start with a page of its text as an error. These two folders say it.
    def kind(folder):
        return json.loads((ROOT / folder / "package.json").read_text(encoding="utf-8")).get("type")

    assert [kind(folder) for folder in (".", "eca_lab", "tests")] == [None, "module", "module"]
