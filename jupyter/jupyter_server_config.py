"""What `make lab` sets of the Jupyter server: a saved notebook keeps the explorers that it shows.

JupyterLab saves the state of the widgets that are connected to a kernel, and drops that of all
others. Where a notebook is opened again and saved before its cells have run, nothing would be
left to show at the next visit: "Error displaying widget: model not found".
"""

import json
import re
from pathlib import Path

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def keep_widgets(model, path, contents_manager, **_):
    """Add to a notebook that is saved what the file has of widgets that its outputs show."""
    file = Path(contents_manager._get_os_path(path))
    if model["type"] != "notebook" or not model.get("content") or not file.is_file():
        return
    before = _states(json.loads(file.read_text(encoding="utf-8")))
    states = _states(model["content"])
    wanted = _shown(model["content"])
    while wanted:
        name = wanted.pop()
        if name in before and name not in states:
            states[name] = before[name]
            wanted += re.findall(r"IPY_MODEL_(\w+)", json.dumps(before[name]))
    if states:
        widgets = model["content"]["metadata"].setdefault("widgets", {})
        version = {"version_major": 2, "version_minor": 0}
        widgets.setdefault(STATE, version)["state"] = states


def _states(notebook):
    return notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})


def _shown(notebook):
    """The models that outputs show."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    views = [output["data"][VIEW] for output in outputs if VIEW in output.get("data", {})]
    return [view["model_id"] for view in views]


get_config().ContentsManager.pre_save_hook = keep_widgets  # noqa: F821 - which Jupyter gives
