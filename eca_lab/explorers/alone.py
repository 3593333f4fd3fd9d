"""An explorer as a page that lives without a kernel, and fetches nothing."""

import base64
import json
import os
import re
from pathlib import Path

from ipywidgets import DOMWidget
from jinja2 import Environment, PackageLoader

from eca_lab.explorers.explorer import Explorer
from eca_lab.files import written_whole

# Of this page and of those of the site: a template is named by its path in the package.
TEMPLATES = Environment(loader=PackageLoader("eca_lab", "."), autoescape=True)


def told(explorer: Explorer) -> str:
    """What alone.js reads, as JSON in which nothing ends an element: an explorer's traits, and its
    answers to `_recorded()`, unless it tells how to answer every state.
    """
    more = explorer._alone()
    names = {name for name in explorer.keys if name[0] != "_"} - set(DOMWidget.class_trait_names())
    answers = {} if more else _answers(explorer)
    traits = {name: getattr(explorer, name) for name in names}
    traits["given"] = {**explorer.given, **more}
    if more:
        traits |= {"answer": {}, **traits["given"]["initial"]}
    page = {"module": explorer._esm, "names": explorer.STATE, "traits": traits}
    page["answers"] = list(answers.values())
    blobs: dict[bytes, int] = {}  # many states share a matrix: each is written once
    text = json.dumps(page, default=lambda raw: {"blob": blobs.setdefault(bytes(raw), len(blobs))})
    text = f"[{json.dumps([base64.b64encode(data).decode() for data in blobs])}, {text}]"
    return text.replace("<", "\\u003c")


def _answers(explorer: Explorer) -> dict[str, dict]:
    """The explorer's answers to `_recorded()`, by what it was asked; its state is as it was."""
    first, answers = explorer._state(), {}
    for changes in [*explorer._recorded(), {}]:
        with explorer.hold_trait_notifications():
            for name, value in {**first, **changes}.items():
                setattr(explorer, name, value)
        answers[json.dumps(explorer.answer.get("asked"))] = explorer.answer
    return answers


def save(explorer: Explorer, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """As `Explorer.save`."""
    file = Path(path)
    if file.is_dir() or not file.name:
        raise ValueError(f"path={os.fspath(path)!r}: it is a folder; accepted is a file in one")
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f"path={os.fspath(path)!r}: there is no folder {str(file.parent)!r}; accepted is a "
            "file in one that is there"
        )
    kind = explorer.given["kind"]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).capitalize()
    text = page(explorer, title=title or explorer.given.get("title", words))
    with written_whole(file) as stream:
        stream.write(text.encode())
    return file


def page(explorer: Explorer, *, title: str, body: str = "") -> str:
    """HTML of a page with an explorer, and below it a body that is HTML already."""
    return TEMPLATES.get_template("explorers/alone.html").render(
        title=title,
        body=body,
        code=repr(explorer),
        css=explorer._css,
        told=told(explorer),
    )
