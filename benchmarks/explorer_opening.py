"""How long it takes from opening a notebook until its explorer can be moved.

    python benchmarks/explorer_opening.py

Opens each notebook in a JupyterLab of its own and headless Chromium, as tests/in_browser.py does,
in up to four ways: saved with its explorer and trusted, as the first notebook of all and again; and
without outputs, so that its cells are run, as the first of all, and from the list of files beside
notebook 00, as after `make lab`. Prints the seconds to the first slider in the page.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from in_browser import (
    NOTEBOOKS,
    SAVED,
    chromium,
    jupyterlab,
    new_page,
    open_notebook,
    shown,
    start_notebook,
    wait_for_kernel,
)


@contextmanager
def fresh_jupyterlab():
    """A JupyterLab that has opened nothing yet."""
    with tempfile.TemporaryDirectory() as directory, jupyterlab(Path(directory)) as lab:
        yield lab


def report(path, way, page, start):
    """Wait for a slider, and print how many seconds after the start it was there."""
    shown(page).locator(".eca-lab input[type=range]").first.wait_for(timeout=90_000)
    print(f"{path.stem:20} {way:28} {time.perf_counter() - start:5.1f} s", flush=True)


def main():
    """Measure, and print."""
    start, *others = NOTEBOOKS
    with chromium() as browser:
        for path in others:
            if path in SAVED:
                with fresh_jupyterlab() as lab:
                    saved = lab.trusted(path)
                    for way in ("saved, first of all", "saved, again"):
                        page, begin = new_page(browser), time.perf_counter()
                        page.goto(lab.url(saved))
                        report(path, way, page, begin)
                        page.context.close()
            with fresh_jupyterlab() as lab:
                page, begin = new_page(browser), time.perf_counter()
                page.goto(lab.url(path))
                start_notebook(page)
                report(path, "by its cells, first of all", page, begin)
                page.context.close()
            with fresh_jupyterlab() as lab:
                page = new_page(browser)
                page.goto(lab.url(start))
                wait_for_kernel(page)
                page.wait_for_timeout(2000)
                begin = time.perf_counter()
                open_notebook(page, path)
                start_notebook(page)
                report(path, "by its cells, beside 00", page, begin)
                page.context.close()


if __name__ == "__main__":
    main()
