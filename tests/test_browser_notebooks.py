"""Notebooks as a reader meets them: opened in JupyterLab in a browser, one beside the other."""

import shutil
from pathlib import Path

import nbformat
import pytest
from in_browser import (
    NOTEBOOK,
    NOTEBOOKS,
    ROOT,
    WIDGET,
    check_outputs,
    finish_notebook,
    needs_browser,
    new_page,
    outputs,
    save,
    shown,
    start_notebook,
    told,
)
from nbformat.sign import NotebookNotary

pytestmark = needs_browser

# Those that are saved with their explorers.
SAVED = [
    Path("notebooks") / f"{name}-saved.ipynb" for name in ("01_kernel_size", "03_kernel_sweep")
]


@pytest.fixture(scope="module")
def window(lab, browser):
    """A page of JupyterLab with the list of notebooks; what goes wrong in it."""
    for path in SAVED:
        shutil.copy(ROOT / str(path).replace("-saved", ""), lab.folder / path)
        notebook = nbformat.read(lab.folder / path, as_version=4)
        NotebookNotary(data_dir=lab.environment["JUPYTER_DATA_DIR"]).sign(notebook)
    page, wrong = new_page(browser), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(lab.url(NOTEBOOK.parent))
    page.locator(".jp-DirListing-item").first.wait_for(timeout=60_000)
    yield page, wrong
    page.context.close()


def open_notebook(page, path):
    """Open one from the list of files, or show it where it is open."""
    page.locator(".jp-DirListing-item", has_text=path.name).dblclick()
    # The status bar follows after the tab, and says until then how the other kernel does.
    page.locator(f"#jp-main-statusbar [title='Change kernel for {path.name}']").wait_for()


# Cells need the kernel, which is busy starting: the explorers need none.
@pytest.mark.parametrize(
    ("path", "label", "before", "after"),
    [
        (SAVED[0], "channels C", "channels=256, gamma=2", "channels=267, gamma=2"),
        (SAVED[1], "margin ±", "margin=0.2)", "margin=0.22)"),
    ],
)
def test_explorers_slide_as_soon_as_a_trusted_notebook_is_opened(
    window, path, label, before, after
):
    from playwright.sync_api import expect

    page, wrong = window
    open_notebook(page, path)
    explorer = shown(page).locator(".eca-lab")
    slider = explorer.get_by_label(label, exact=True).and_(explorer.locator("[type=range]"))
    slider.wait_for(timeout=60_000)
    assert before in told(explorer).text_content()
    slider.press("ArrowRight")
    expect(told(explorer)).to_contain_text(after)
    expect(explorer.locator(".bad").first).to_be_empty()
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
        assert len(views) == (path.name[:2] != "00")
    assert wrong == []
