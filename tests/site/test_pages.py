"""Notebooks as pages. tests/test_browser.py slides what is on them."""

import json
from types import SimpleNamespace

import math_core
import nbformat
import pytest
from bs4 import BeautifulSoup

from eca_lab.explorers import KernelSizeExplorer
from eca_lab.explorers.explorer import Explorer
from eca_lab.site import pages


class Squares(Explorer):
    """A number, whose square only the kernel knows."""

    STATE = ASKED = ("number",)

    def __init__(self, number):
        super().__init__((number,))

    def _checked(self, state):
        return state

    def _answer(self):
        return {"square": bytes([self.number**2])}

    def _recorded(self):
        return [{"number": 1}, {"number": 2}, {"number": 2}, {}]


PNG = "iVBORw0KGgo="


def notebook(*outputs):
    cells = [
        nbformat.v4.new_markdown_cell("# A < B & C\n\nIt is *so*. More of it.\n\n## Why"),
        nbformat.v4.new_code_cell("panel", outputs=list(outputs)),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def output(**data):
    return nbformat.v4.new_output("execute_result", data=data, execution_count=1)


def explorer_output():
    widget = {"model_id": "1", "version_major": 2, "version_minor": 0}
    return output(**{"image/png": PNG, "text/plain": 'Panel("<")', pages.WIDGET: widget})


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(pages, "display", lambda data, raw: shown.append(data[pages.TOLD]))
    return shown


def test_formulas_become_mathml():
    text = pages.markdown("So $|t|_{odd}$, `$x$`, and\n\n$$C = 2^{\\gamma k - b}$$")
    assert text.count("<math") == 2
    assert text.count('<math display="block">') == 1
    assert "<mi>γ</mi>" in text
    assert "<code>$x$</code>" in text
    with pytest.raises(math_core.LatexError):
        pages.markdown("$\\unknown$")


def test_links_lead_to_pages():
    links = {
        "[01_kernel_size.ipynb](01_kernel_size.ipynb#why)": (
            '<a href="01_kernel_size.html#why">01_kernel_size</a>'
        ),
        "[r](../data/README.md#how)": '<a href="data/README.md.html#how">r</a>',
        "[t](../data/studies/ladder.toml)": '<a href="data/studies/ladder.toml.html">t</a>',
        "[f](../data/studies)": '<a href="data/studies/index.html">f</a>',
        "[p](https://a.b/c.md)": '<a href="https://a.b/c.md">p</a>',
        "[h](#here)": '<a href="#here">h</a>',
    }
    text = pages.markdown(" ".join(links), up="../")
    for link in links.values():
        assert link in text
    assert '<a href="../studies/a.toml.html">a</a>' in pages.markdown("[a](../studies/a.toml)")


def test_what_a_page_names_becomes_a_page(tmp_path, capsys):
    studies, results = tmp_path / "data" / "studies", tmp_path / "data" / "results"
    for folder in (studies, results, tmp_path / "notebooks"):
        folder.mkdir(parents=True)
    (studies / "one.toml").write_text("a = '<b>'")
    (results / "README.md").write_text("# Results\n\n## How\n\n[one](../studies/one.toml)")
    named = notebook()
    named.cells[0].source += "\n\n[r](../data/results/README.md) and [s](../data/studies)"
    nbformat.write(named, tmp_path / "notebooks" / "00_first.ipynb")
    out = tmp_path / "out"
    pages.build([tmp_path / "notebooks" / "00_first.ipynb"], out)

    seen, left = set(), [out / "index.html"]
    while left:  # as a reader follows them
        page = left.pop()
        if page in seen:
            continue
        seen.add(page)
        text = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        assert text.title.string.endswith("ECA Lab")
        links = [link["href"].partition("#")[0] for link in text("a", href=True)]
        there = [(page.parent / link).resolve() for link in links if link and ":" not in link]
        assert all(path.is_file() for path in there), there
        left += [path for path in there if path.suffix != ".ipynb"]
    assert {str(page.relative_to(out)) for page in seen} == {
        "index.html",
        "00_first.html",
        "data/results/README.md.html",
        "data/studies/index.html",
        "data/studies/one.toml.html",
    }
    toml = (out / "data/studies/one.toml.html").read_text(encoding="utf-8")
    assert "<pre>a = &#x27;&lt;b&gt;&#x27;</pre>" in toml
    assert (out / "data/studies/one.toml").read_text() == "a = '<b>'"


def test_code_is_folded_behind_its_first_line():
    given = notebook(output(**{"text/plain": "1"}))
    given.cells.append(nbformat.v4.new_code_cell("class A:\n    b = 1 < 2"))
    page = BeautifulSoup(pages.convert(given, None)["body"], "html.parser")
    folded, shown = page.select("details.code")
    assert folded.summary.get_text() == "panel"
    assert (folded.has_attr("open"), shown.has_attr("open")) == (False, True)
    assert shown.summary.get_text() == "class A:"
    assert shown.select_one(".input_area").get_text().strip() == "class A:\n    b = 1 < 2"
    (result,) = page.select(".output_text")
    assert not result.find_parent("details")


def test_figures_keep_their_size_in_the_page():
    figure = output(**{"image/png": PNG, "text/plain": "Figure"})
    figure.metadata["image/png"] = {"width": 720, "height": 360}
    (image,) = BeautifulSoup(pages.convert(notebook(figure), None)["body"], "html.parser")("img")
    assert (image["width"], image["height"], image["alt"]) == (
        "720",
        "360",
        "Figure drawn by the code above",
    )


def test_convert_shows_the_picture_of_an_explorer_that_told_nothing():
    page = pages.convert(notebook(explorer_output()), None)
    assert "explorer" not in page["body"]
    assert f"data:image/png;base64,{PNG}" in page["body"]
    assert (page["title"], page["sentence"], page["told"]) == ("A < B & C", "It is so", None)
    assert page["heads"] == [("Why", "Why")]


def test_convert_gives_an_explorer_its_place_and_leaves_the_notebook_alone():
    given = notebook(output(**{"image/png": "AAAA", "text/plain": "Figure"}), explorer_output())
    page = pages.convert(given, "{}")
    (place,) = BeautifulSoup(page["body"], "html.parser").select(".explorer")
    assert place.img["alt"] == 'Panel("<")'
    assert page["picture"].endswith(PNG)
    assert pages.WIDGET in given.cells[1].outputs[1].data


def test_the_first_page_shows_the_first_explorer_and_what_was_found(tmp_path, monkeypatch):
    names = ("00_none", "01_first", "02_second")
    made = [notebook(), notebook(explorer_output()), notebook(explorer_output())]
    made[1].cells[0].source = "# A\n\n> **Found:** 1 < 2.\n\nIt is *this*. More."
    (tmp_path / "notebooks").mkdir()
    paths = [tmp_path / "notebooks" / f"{name}.ipynb" for name in names]
    for path, each in zip(paths, made, strict=True):
        nbformat.write(each, path)
    tells = {"00_none": None, "01_first": '["first"]', "02_second": '["second"]'}
    told = iter(tells.values())
    monkeypatch.setattr(pages, "run", lambda *_: next(told))
    pages.build(paths, tmp_path / "out")

    def read(name):
        text = (tmp_path / "out" / f"{name}.html").read_text(encoding="utf-8")
        return BeautifulSoup(text, "html.parser")

    assert read("00_none").select("#told, .explorer") == []
    for name, shown in {**tells, "index": '["first"]'}.items():
        if shown:
            assert read(name).select_one("#told").string == shown
            assert read(name).select_one(".explorer").img["alt"] == 'Panel("<")'
    index = read("index")
    assert index.select_one("main > .explorer").find_previous("p").get_text() == "It is this."
    cards = [[p.get_text() for p in card("p")] for card in index.select(".cards li")]
    assert cards == [["It is so."], ["It is this.", "Found: 1 < 2."], ["It is so."]]


def test_record_tells_the_state_and_ends_no_element(displayed):
    explorer = KernelSizeExplorer(channels=64)
    pages.record(explorer)
    assert "<" not in displayed[0]
    _, told = json.loads(displayed[0])
    assert told["module"] == explorer._esm
    assert {name: told["traits"][name] for name in told["names"]} == explorer._state()
    assert set(told["traits"]) == {*told["names"], "given", "answer"}


def test_record_keeps_each_answer_once(displayed):
    pages.record(Squares(3))
    blobs, told = json.loads(displayed[0])
    assert len(blobs) == 3
    assert [(each["asked"], blobs[each["square"]["blob"]]) for each in told["answers"]] == [
        ({"number": 1}, "AQ=="),
        ({"number": 2}, "BA=="),
        ({"number": 3}, "CQ=="),
    ]
    assert told["traits"]["number"] == 3
    assert told["traits"]["answer"]["asked"] == {"number": 3}


def test_what_is_no_explorer_tells_nothing(displayed):
    pages.record(SimpleNamespace())
    assert displayed == []
