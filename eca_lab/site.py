"""The notebooks as pages that need neither a kernel nor a network, with explorers that slide.

``python -m eca_lab.site`` runs each notebook down to its last explorer, and records what that one
tells. All else stands in the committed notebook. Formulas become MathML; the pages fetch nothing.
"""

import argparse
import base64
import copy
import json
import re
import shutil
from functools import partial
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from IPython.display import display
from ipywidgets import DOMWidget
from jinja2 import Environment, PackageLoader
from math_core import LatexToMathML
from nbclient import execute
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from eca_lab.explorers.explorer import Explorer

WIDGET, TOLD = "application/vnd.jupyter.widget-view+json", "text/x-eca-lab"
RECORD = "from eca_lab.site import record\nrecord(Out[max(Out)])"
mathml = LatexToMathML().convert_with_local_state


def record(explorer):
    """Display, as JSON for page.js, an explorer's traits and its answers to `_recorded()`."""
    if not isinstance(explorer, Explorer):
        return  # its picture is shown
    explorer.close()  # or every change would be sent to a page that is not there
    first, answers = explorer._state(), {}
    for changes in [*explorer._recorded(), {}]:
        with explorer.hold_trait_notifications():
            for name, value in {**first, **changes}.items():
                setattr(explorer, name, value)
        answers[json.dumps(explorer.answer.get("asked"))] = explorer.answer
    names = {name for name in explorer.keys if name[0] != "_"} - set(DOMWidget.class_trait_names())
    traits = {name: getattr(explorer, name) for name in names}
    told = {"module": explorer._esm, "names": explorer.STATE, "traits": traits}
    told["answers"] = list(answers.values())
    blobs = {}  # many states share a matrix: each is written once
    text = json.dumps(told, default=lambda raw: {"blob": blobs.setdefault(bytes(raw), len(blobs))})
    text = f"[{json.dumps([base64.b64encode(data).decode() for data in blobs])}, {text}]"
    display({TOLD: text.replace("<", "\\u003c")}, raw=True)  # nothing in it ends an element


def run(notebook, folder):
    """Run a notebook down to its last explorer; return what that one told, None without one."""
    widgets = [number for number, cell in enumerate(notebook.cells) if _outputs(cell, WIDGET)]
    if not widgets:
        return None
    cells = [*copy.deepcopy(notebook.cells[: widgets[-1] + 1]), nbformat.v4.new_code_cell(RECORD)]
    sheet, silent = nbformat.v4.new_notebook(cells=cells), ["--log-level=ERROR"]
    execute(sheet, str(folder), store_widget_state=False, extra_arguments=silent)
    return next((output.data[TOLD] for output in _outputs(cells[-1], TOLD)), None)


def _outputs(cell, kind):
    return [output for output in cell.get("outputs", []) if kind in output.get("data", {})]


class _Renderer(IPythonRenderer):
    def inline_math(self, body):
        return mathml(body, displaystyle=False)

    def block_math(self, body):
        return f'<span class="scroll">{mathml(body, displaystyle=True)}</span>'

    def link(self, text, url, title=None):
        page = re.compile(r"^(\w+)\.ipynb\b")
        url = page.sub(r"\1.html", url).removeprefix("../")
        return super().link(page.sub(r"\1", text), url, title)


def markdown(source):
    """HTML of a text in Markdown: formulas as MathML, tables that scroll, links to pages."""
    text = MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)
    return re.sub("<table>.*?</table>", r'<div class="scroll">\g<0></div>', text, flags=re.S)


def convert(notebook, told):
    """What the template is told of a notebook; its explorer, if it told, has the last place."""
    notebook, picture, place = copy.deepcopy(notebook), "", None
    for output in (output for cell in notebook.cells for output in _outputs(cell, "image/png")):
        live = output.data.pop(WIDGET, None)
        alt = output.data["text/plain"] if live else "Figure drawn by the code above"
        output.metadata["image/png"] = {"alt": alt}
        if live or not picture:
            picture = "data:image/png;base64," + output.data["image/png"].replace("\n", "")
        place = output if live else place
    if told:
        image = f'<img alt="{escape(place.data["text/plain"])}" src="{picture}">'
        place.data = {"text/html": f'<div class="explorer">{image}</div>'}
    html = HTMLExporter(template_name="basic")
    html.exclude_input_prompt = html.exclude_output_prompt = True
    html.register_filter("markdown2html", markdown)
    body = html.from_notebook_node(notebook)[0]
    text = BeautifulSoup(body, "html.parser")
    title, *heads = ((head["id"], head.get_text().strip("¶")) for head in text(["h1", "h2"]))
    sentence = text.p.get_text().split(". ")[0].rstrip(".")
    told = {"body": body, "told": told, "picture": picture, "sentence": sentence}
    return {"title": title[1], "heads": heads, **told}


def build(paths, out):
    """Write a page for each notebook, an index, and copies of all local files that they name."""
    jinja = Environment(loader=PackageLoader("eca_lab", "explorers"), autoescape=True)
    jinja.globals |= {"light": HtmlFormatter(), "dark": HtmlFormatter(style="github-dark")}
    jinja.globals["css"] = Explorer._css
    pages = []
    for path in paths:
        print(path, flush=True)
        notebook = nbformat.read(path, as_version=4)
        pages.append({"name": path.stem, **convert(notebook, run(notebook, path.parent))})
        named = re.findall(r'href="(data/[^"#]+)"', pages[-1]["body"])
        for given, name in [(path, path.name), *((path.parents[1] / name, name) for name in named)]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            take = partial(shutil.copytree, dirs_exist_ok=True) if given.is_dir() else shutil.copy
            take(given, out / name)
    for number, name in enumerate([*(page["name"] for page in pages), "index"]):
        text = jinja.get_template("page.html").render(pages=pages, number=number)
        (out / f"{name}.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m eca_lab.site", description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--out", type=Path, default=Path("site"), help="a folder (default: site)")
    options = parser.parse_args()
    build(options.notebooks or sorted(Path("notebooks").glob("*.ipynb")), options.out)
