"""Notebooks as pages. tests/test_browser.py slides what is on them."""

import json
from types import SimpleNamespace

import math_core
import nbformat
import pytest
from bs4 import BeautifulSoup

from eca_lab import site
from eca_lab.explorers import KernelSizeExplorer
from eca_lab.explorers.explorer import Explorer


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
    return output(**{"image/png": PNG, "text/plain": 'Panel("<")', site.WIDGET: widget})


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr(site, "display", lambda data, raw: shown.append(data[site.TOLD]))
    return shown


def test_formulas_become_mathml():
    text = site.markdown("So $|t|_{odd}$, `$x$`, and\n\n$$C = 2^{\\gamma k - b}$$")
    assert text.count("<math") == 2
    assert text.count('<math display="block">') == 1
    assert "<mi>γ</mi>" in text
    assert "<code>$x$</code>" in text
    with pytest.raises(math_core.LatexError):
        site.markdown("$\\unknown$")


def test_links_lead_to_pages_and_copies():
    links = (
        "[01_kernel_size.ipynb](01_kernel_size.ipynb#why) [r](../data/README.md) [p](https://a.b)"
    )
    text = site.markdown(links)
    assert '<a href="01_kernel_size.html#why">01_kernel_size</a>' in text
    assert '<a href="data/README.md">r</a>' in text
    assert '<a href="https://a.b">p</a>' in text


def test_convert_shows_the_picture_of_an_explorer_that_told_nothing():
    page = site.convert(notebook(explorer_output()), None)
    assert "explorer" not in page["body"]
    assert f"data:image/png;base64,{PNG}" in page["body"]
    assert (page["title"], page["sentence"], page["told"]) == ("A < B & C", "It is so", None)
    assert page["heads"] == [("Why", "Why")]


def test_convert_gives_an_explorer_its_place_and_leaves_the_notebook_alone():
    given = notebook(output(**{"image/png": "AAAA", "text/plain": "Figure"}), explorer_output())
    page = site.convert(given, "{}")
    (place,) = BeautifulSoup(page["body"], "html.parser").select(".explorer")
    assert place.img["alt"] == 'Panel("<")'
    assert page["picture"].endswith(PNG)
    assert site.WIDGET in given.cells[1].outputs[1].data


def test_record_tells_the_state_and_ends_no_element(displayed):
    explorer = KernelSizeExplorer(channels=64)
    site.record(explorer)
    assert "<" not in displayed[0]
    _, told = json.loads(displayed[0])
    assert told["module"] == explorer._esm
    assert {name: told["traits"][name] for name in told["names"]} == explorer._state()
    assert set(told["traits"]) == {*told["names"], "given", "answer"}


def test_record_keeps_each_answer_once(displayed):
    site.record(Squares(3))
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
    site.record(SimpleNamespace())
    assert displayed == []
