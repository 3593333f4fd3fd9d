"""The settings that `make lab` gives Jupyter. tests/test_browser.py opens notebooks again."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config.loader import PyFileConfigLoader

JUPYTER = Path(__file__).parents[1] / "jupyter"
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


@pytest.fixture
def save(tmp_path):
    """A function that saves a notebook as the server does, and gives the states of its widgets."""
    config = PyFileConfigLoader("jupyter_server_config.py", str(JUPYTER)).load_config()
    manager = SimpleNamespace(_get_os_path=lambda path: str(tmp_path / path))

    def save(content, name="a.ipynb", kind="notebook"):
        model = {"type": kind, "content": content}
        hook = config.ContentsManager.pre_save_hook
        hook(model=model, path=name, contents_manager=manager)
        (tmp_path / name).write_text(json.dumps(model["content"]), encoding="utf-8")
        if kind == "notebook":
            return content["metadata"].get("widgets", {}).get(STATE, {}).get("state")

    return save


def notebook(shown, states=None):
    """A notebook with outputs that show these models, saved with these states."""
    outputs = [{"output_type": "display_data", "data": {VIEW: {"model_id": m}}} for m in shown]
    outputs.append({"output_type": "stream", "text": ""})
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]
    widgets = {} if states is None else {"widgets": {STATE: {"state": dict(states)}}}
    return {"cells": cells, "metadata": widgets}


EXPLORER = {"state": {"k": 3, "layout": "IPY_MODEL_b1"}}
STATES = {"a1": EXPLORER, "b1": {"state": {"width": None}}, "c1": {"state": {}}}


def test_widgets_that_are_shown_are_kept_with_what_they_refer_to(save):
    assert save(notebook(["a1"], STATES)) == STATES
    for left in ({}, None):  # as JupyterLab saves without a kernel
        assert save(notebook(["a1"], left)) == {"a1": EXPLORER, "b1": STATES["b1"]}
    assert save(notebook([], {})) == {}


def test_what_jupyterlab_saves_counts(save):
    save(notebook(["a1"], STATES))
    newer = {"a1": {"state": {"k": 5}}, "d1": {"state": {}}}
    assert save(notebook(["a1", "d1"], newer)) == newer
    # A cell that ran again shows another model, and the old one goes.
    assert save(notebook(["d1"], {"d1": {"state": {}}})) == {"d1": {"state": {}}}


def test_new_notebooks_and_other_files_are_saved_as_they_are(save):
    assert save(notebook(["a1"])) is None
    save("print(1)", "a.py", "file")
    save(None, "folder.txt", "directory")


def test_jupyterlab_saves_the_state_of_widgets():
    path = JUPYTER / "labconfig" / "default_setting_overrides.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    assert settings == {"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True}}
