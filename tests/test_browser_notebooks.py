"""Notebooks as a reader meets them: in JupyterLab, one beside the other, and as a page alone."""

import json
import re

import pytest
from in_browser import (
    NOTEBOOK,
    NOTEBOOKS,
    ROOT,
    SAVED,
    WIDGET,
    check_outputs,
    finish_notebook,
    needs_browser,
    new_page,
    open_notebook,
    outputs,
    save,
    shown,
    start_notebook,
    told,
)
from in_page import ExplorerInPage
from playwright.sync_api import expect

from eca_lab.attention.kernel_size import adaptive_kernel_size

pytestmark = needs_browser


@pytest.fixture(scope="module")
def window(lab, browser):
    """A page of JupyterLab with the list of notebooks; what goes wrong in it."""
    for path in SAVED:
        lab.trusted(path)
    page, wrong = new_page(browser), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(lab.url(NOTEBOOK.parent))
    page.locator(".jp-DirListing-item").first.wait_for(timeout=60_000)
    yield page, wrong
    page.context.close()


# Cells need the kernel, which is busy starting: the explorers need none.
@pytest.mark.parametrize(
    ("path", "label", "before", "after"),
    [
        (SAVED[0], "channel", "(kernel=(-0.5, 1.5, -0.5))", "1.5, -0.5), channel=8)"),
        (SAVED[1], "channels C", "channels=256, gamma=2", "channels=267, gamma=2"),
        (SAVED[2], "margin ±", "margin=0.2)", "margin=0.22)"),
    ],
)
def test_explorers_slide_as_soon_as_a_trusted_notebook_is_opened(
    lab, window, path, label, before, after
):
    page, wrong = window
    copy = path.with_stem(f"{path.stem}-saved")
    open_notebook(page, copy)
    explorer = shown(page).locator(".eca-lab")
    slider = explorer.get_by_label(label, exact=True).and_(explorer.locator("[type=range]"))
    slider.wait_for(timeout=60_000)
    assert before in told(explorer).text_content()
    slider.press("ArrowRight")
    expect(told(explorer)).to_contain_text(after)
    expect(explorer.locator(".bad").first).to_be_empty()
    # And it is still there when the notebook is saved, although no cell has run.
    save(page, lab.folder / copy)
    widgets = json.loads((lab.folder / copy).read_text(encoding="utf-8"))["metadata"]["widgets"]
    ((_, kept),) = widgets.items()
    kept = [each["state"] for each in kept["state"].values()]
    assert sum("_esm" in each for each in kept) == 1
    assert wrong == []


def test_every_other_notebook_runs_and_shows_its_explorer(lab, window):
    page, wrong = window
    others = [path for path in NOTEBOOKS if path != NOTEBOOK]
    for path in others[::-1]:  # the last takes longest
        open_notebook(page, path)
        start_notebook(page)
    for path in others:
        open_notebook(page, path)
        finish_notebook(page)
        cells = save(page, lab.folder / path)
        check_outputs(cells)
        views = [each for each in outputs(cells) if WIDGET in each.get("data", {})]
        for view in views:
            kind = "".join(view["data"]["text/plain"]).partition("(")[0]
            assert told(shown(page)).inner_text().startswith(f"{kind}(")
        assert len(views) == 1
    assert wrong == []


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the page of a notebook."""
    from eca_lab.site import pages

    folder = tmp_path_factory.mktemp("site")
    pages.build([ROOT / NOTEBOOK], folder)
    return (folder / NOTEBOOK.with_suffix(".html").name).as_uri()


# What is cut off or has to be scrolled to, but for tables, formulas and code on a screen.
HIDDEN = """() => [...document.querySelectorAll("body *")].filter(each => {
    const style = getComputedStyle(each), wide = each.scrollWidth > each.clientWidth + 1;
    const scrolls = style.overflowX === "auto" || style.overflowX === "scroll";
    const meant = matchMedia("screen").matches && each.matches(".scroll, .output_html, pre");
    return each.clientWidth && wide && scrolls && !meant;
}).map(each => each.outerHTML.slice(0, 100))"""


def test_a_page_fits_wide_and_narrow_windows(page, address):
    page.goto(address)
    for width in (1400, 760, 390):
        page.set_viewport_size({"width": width, "height": 900})
        told(page).wait_for()
        expect(page.locator(".beside")).to_be_visible(visible=width == 1400)
        expect(page.get_by_text("On this page")).to_be_visible(visible=width < 1400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(HIDDEN) == []


def test_a_page_folds_its_code(page, address):
    page.goto(address)
    code = page.locator("details.code .input_area")
    expect(code.first).to_be_hidden()
    page.get_by_role("button", name="Show all code").click()
    expect(code.first).to_be_visible()
    page.get_by_role("button", name="Fold all code").click()
    expect(code.first).to_be_hidden()


def test_a_page_fits_on_paper(page, address):
    page.goto(address)
    told(page).wait_for()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 960})  # A4
    assert page.evaluate(HIDDEN) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    for each in (page.locator("nav").first, page.locator(".main"), page.locator(".beside")):
        expect(each).to_be_hidden()
    expect(page.locator(".headline")).to_be_visible()
    expect(page.locator(".staircase")).to_be_visible()
    # No page is left empty because what follows does not fit into the rest of it.
    tall = page.evaluate("""() => [...document.querySelectorAll("body *")].filter(each =>
        getComputedStyle(each).breakInside === "avoid").map(each => each.offsetHeight ?? 0)""")
    assert max(tall) < 600


@pytest.fixture
def offline(browser):
    """A page without a network, which says nothing to its console and fetches nothing."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 1000})
    page, told_wrong, fetched = context.new_page(), [], []
    page.on("console", lambda message: told_wrong.append(message.text))
    page.on("pageerror", lambda error: told_wrong.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url.split(":")[0]))
    yield page
    assert told_wrong == []
    assert set(fetched) <= {"file", "blob", "data", "about"}
    context.close()


def test_the_explorer_slides_on_a_page_without_kernel_and_network(offline, address):
    from eca_lab.explorers import KernelSizeExplorer

    offline.goto(address)
    explorer = ExplorerInPage(offline)
    expect(explorer.state).to_have_text("KernelSizeExplorer(channels=256, gamma=2, b=1)")
    explorer.slider("channels C").focus()
    stops = KernelSizeExplorer.CHANNEL_STOPS
    start = stops.index(256)
    for channels in [*reversed(stops[start - 17 : start]), 1, 8192]:
        explorer.press({1: "Home", 8192: "End"}.get(channels, "ArrowLeft"))
        expect(explorer.state).to_contain_text(f"channels={channels}, ")
        k = re.compile(rf"k = {adaptive_kernel_size(channels)}$")
        expect(explorer.shown("[role=status]")).to_have_text(k)
        if channels == 1:  # too few for a hidden unit of SE
            expect(explorer.root).to_contain_text("SE with r = 16 needs 16 channels.")
            expect(explorer.shown(".parameters circle.se")).to_have_attribute("r", "0")
    expect(explorer.root).to_contain_text("SE with r = 16 has 2C⌊C/r⌋ = 8,388,608.")
    offline.wait_for_url(f"{address}#channels=8192&gamma=2&b=1")
    expect(offline.get_by_role("button", name="Copy link")).to_be_visible()


def test_the_first_page_shows_an_explorer_that_slides(offline, address):
    index = f"{address.rpartition('/')[0]}/index.html"
    offline.goto(index)
    explorer = ExplorerInPage(offline)
    explorer.press("Home", on=explorer.slider("channels C"))
    expect(explorer.state).to_contain_text("channels=1, ")
    offline.wait_for_url(f"{index}#channels=1&gamma=2&b=1")


def test_a_link_opens_a_state_and_leaves_out_what_is_not_accepted(offline, address):
    for said, state in (
        ("channels=128&ties=down", "channels=128, gamma=2, b=1, ties='down'"),
        ("gamma=30&b=1e20&network=resnet18", "channels=256, gamma=2, b=1, network='resnet18'"),
        ("gamma=-30&b=-60&network=resnet18", "channels=256, gamma=2, b=1, network='resnet18'"),
        (
            "gamma=9&channels=64.5&b=x&ties=1&network=resnet18&a=1",
            "gamma=2, b=1, network='resnet18'",
        ),
    ):
        offline.goto("about:blank")
        offline.goto(f"{address}#{said}")
        expect(told(offline)).to_contain_text(state)
    # And the address says what is shown.
    offline.wait_for_url(f"{address}#channels=256&gamma=2&b=1&network=resnet18")
