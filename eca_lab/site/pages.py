"""The notebooks as pages that need neither a kernel nor a network, with explorers that slide.

``python -m eca_lab.site`` runs each notebook down to its last explorer, and records what that one
tells. All else stands in the committed notebook. The first page shows the first of the explorers.
Formulas become MathML; the pages fetch nothing.
"""

import copy
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from IPython.display import display
from jinja2 import Template
from math_core import LatexToMathML
from nbclient import execute
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from eca_lab.explorers import alone
from eca_lab.explorers.explorer import Explorer

WIDGET, TOLD = "application/vnd.jupyter.widget-view+json", "text/x-eca-lab"
RECORD = "from eca_lab.site.pages import record\nrecord(Out[max(Out)])"
mathml = LatexToMathML().convert_with_local_state


def record(explorer: object) -> None:
    """Display what a page without a kernel reads of an explorer, see `alone.told`."""
    if not isinstance(explorer, Explorer):
        return  # its picture is shown
    explorer.close()  # or every change would be sent to a page that is not there
    display({TOLD: alone.told(explorer)}, raw=True)


def run(notebook: NotebookNode, folder: Path) -> str | None:
    """Run a notebook down to its last explorer; return what that one told, None without one."""
    widgets = [number for number, cell in enumerate(notebook.cells) if _outputs(cell, WIDGET)]
    if not widgets:
        return None
    cells = [*copy.deepcopy(notebook.cells[: widgets[-1] + 1]), nbformat.v4.new_code_cell(RECORD)]
    sheet, silent = nbformat.v4.new_notebook(cells=cells), ["--log-level=ERROR"]
    execute(sheet, str(folder), store_widget_state=False, extra_arguments=silent)
    return next((output.data[TOLD] for output in _outputs(cells[-1], TOLD)), None)


def _outputs(cell: NotebookNode, kind: str) -> list[NotebookNode]:
    return [output for output in cell.get("outputs", []) if kind in output.get("data", {})]


class _Renderer(IPythonRenderer):
    def __init__(self, up: str) -> None:
        super().__init__(escape=False)
        self.up = up

    def inline_math(self, body: str) -> str:
        return mathml(body, displaystyle=False)

    def block_math(self, body: str) -> str:
        return f'<span class="scroll">{mathml(body, displaystyle=True)}</span>'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        text = re.sub(r"^(\w+)\.ipynb$", r"\1", text)
        return super().link(text, self._page(url), title)

    def _page(self, url: str) -> str:
        if re.match(r"\w+:|#", url):
            return url
        path, mark, place = url.removeprefix(self.up).partition("#")
        notebook, page = path.removesuffix(".ipynb"), Path(path)
        if notebook == path:
            return f"{_page_of(page).as_posix()}{mark}{place}"
        return f"{notebook}.html{mark}{place}"


def _page_of(path: Path) -> Path:
    """Where the page of a local file, or of a folder, stands."""
    return path.with_name(f"{path.name}.html") if path.suffix else path / "index.html"


def markdown(source: str, up: str = "") -> str:
    """HTML of a text in Markdown: formulas as MathML, tables that scroll, links to pages.

    up is what links begin with that lead to where the page stands.
    """
    text = MarkdownWithMath(renderer=_Renderer(up)).render(source)
    return re.sub("<table>.*?</table>", r'<div class="scroll">\g<0></div>', text, flags=re.S)


def _fold(code: Tag) -> None:
    """Fold the code of a cell, a bs4 element, behind its first line.

    A class is open: where a text has one, it speaks of it.
    """
    first = escape(code.get_text().strip().partition("\n")[0])
    kind = "details open" if first.startswith("class ") else "details"
    text = f'<{kind} class="code"><summary><code>{first}</code></summary></details>'
    details = BeautifulSoup(text, "html.parser").details
    assert details is not None  # it was just written
    details.append(code.replace_with(details))


def convert(notebook: NotebookNode, told: str | None) -> dict[str, Any]:
    """What the template is told of a notebook; its explorer, if it told, has the last place."""
    notebook, picture, place, explorer = copy.deepcopy(notebook), "", None, ""
    for output in (output for cell in notebook.cells for output in _outputs(cell, "image/png")):
        live = output.data.pop(WIDGET, None)
        alt = output.data["text/plain"] if live else "Figure drawn by the code above"
        output.metadata.setdefault("image/png", {})["alt"] = alt
        if live or not picture:
            picture = "data:image/png;base64," + output.data["image/png"].replace("\n", "")
        place = output if live else place
    if told:
        image = f'<img alt="{escape(place.data["text/plain"])}" src="{picture}">'
        explorer = f'<div class="explorer">{image}</div>'
        place.data = {"text/html": explorer}
    html = HTMLExporter(template_name="basic")
    html.exclude_input_prompt = html.exclude_output_prompt = True
    html.register_filter("markdown2html", partial(markdown, up="../"))
    text = BeautifulSoup(html.from_notebook_node(notebook)[0], "html.parser")
    for code in text.select(".input"):
        _fold(code)
    title, *heads = _heads(text)
    found, sentence = text.select_one("blockquote p"), text.select_one(":not(blockquote) > p")
    return {
        "title": title[1],
        "heads": heads,
        "body": str(text),
        "told": told,
        "explorer": explorer,
        "picture": picture,
        "sentence": sentence.get_text().split(". ")[0].rstrip("."),
        "found": found.decode_contents() if found else "",
    }


def _heads(text: BeautifulSoup) -> list[tuple[str, str]]:
    return [(str(head["id"]), head.get_text().strip("¶")) for head in text(["h1", "h2"])]


def document(path: Path, name: Path) -> dict[str, Any]:
    """What the template is told of a file that a page names, or of a folder: a list of its files.

    path is where it is, name where it stands beside the notebooks' pages. A text in Markdown has
    a title.
    """
    if path.is_dir():
        files = [_page_of(Path(each.name)).name for each in sorted(path.iterdir())]
        links = (f'<li><a href="{each}">{each.removesuffix(".html")}</a></li>' for each in files)
        body = f"<ul>{''.join(links)}</ul>"
    else:
        written = path.read_text(encoding="utf-8")
        body = markdown(written) if path.suffix == ".md" else f"<pre>{escape(written)}</pre>"
    body = f'<div class="text_cell rendered_html">{body}</div>'
    title, heads = str(name), _heads(BeautifulSoup(body, "html.parser"))
    if path.suffix == ".md":
        (_, title), *heads = heads
    else:
        body = f"<h1>{name}</h1>{body}"
    return {"title": title, "heads": heads, "body": body}


def build(paths: Iterable[Path], out: Path) -> None:
    """Write a page for each notebook and for each local file that one names, and an index."""
    styles = {"light": HtmlFormatter(), "dark": HtmlFormatter(style="github-dark")}
    given = {**styles, "css": Explorer._css}
    template, pages, root = (
        alone.TEMPLATES.get_template("site/page.html", globals=given),
        [],
        Path(),
    )
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        print(path, flush=True)
        notebook, root = nbformat.read(path, as_version=4), path.parents[1]
        pages.append({"name": path.stem, **convert(notebook, run(notebook, path.parent))})
        shutil.copy(path, out)
    first = next((page for page in pages if page["told"]), None)  # which the index shows, too
    for number, name in enumerate([*(page["name"] for page in pages), "index"]):
        page = dict(enumerate(pages)).get(number)
        text = template.render(pages=pages, number=number, page=page, alive=page or first)
        (out / f"{name}.html").write_text(text, encoding="utf-8")
    named = [name for page in pages for name in _named(page["body"], Path())]
    _write_documents(template, named, root, out)


def _write_documents(template: Template, names: Iterable[Path], root: Path, out: Path) -> None:
    """Write the pages of files and folders, and of what these name in turn; copy the files."""
    left, written = list(names), set()
    while left:
        name = left.pop()
        if name in written:
            continue
        written.add(name)
        given, page, file = root / name, document(root / name, name), out / _page_of(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * len(file.relative_to(out).parents[1:])
        file.write_text(template.render(page=page, alive=page, up=up), encoding="utf-8")
        left += _named(page["body"], name if given.is_dir() else name.parent)
        if given.is_file():
            shutil.copy(given, file.parent)


def _named(body: str, folder: Path) -> Iterator[Path]:
    """The files and folders whose pages a page in this folder links to."""
    for link in re.findall(r'href="([^"#:]+\.html)[^"]*"', body):
        path = Path(os.path.normpath(folder / link))
        if path.parts[0] == "data":
            yield path.parent if path.name == "index.html" else path.with_suffix("")
