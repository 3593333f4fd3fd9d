"""A JupyterLab and a headless Chromium, and what one does in them with notebooks.

benchmarks/explorer_latency.py uses it, too.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from eca_lab.lab import ALIVE, settings

WIDGET = "application/vnd.jupyter.widget-view+json"
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.relative_to(ROOT) for path in ROOT.glob("notebooks/*.ipynb"))
NOTEBOOK = NOTEBOOKS[1]  # of the kernel size, which is the fastest
SAVED = [Path(name) for name in ALIVE]  # those whose explorers are saved with them
_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"found no {', '.join(_NAMES)}"),
]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Lab:
    """A running JupyterLab: the folder that it serves, its environment and its address."""

    def __init__(self, folder, environment, address):
        self.folder, self.environment, self.address = folder, environment, address

    def url(self, path):
        token = self.environment["JUPYTER_TOKEN"]
        return f"{self.address}lab/workspaces/{path.stem}/tree/{path.as_posix()}?token={token}"

    def notebook(self, name, cells):
        """Write a notebook of these cells of code, and return its URL."""
        path = NOTEBOOK.with_name(f"{name}.ipynb")
        written = json.loads((self.folder / NOTEBOOK).read_text(encoding="utf-8"))
        written["cells"] = [
            {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source}
            | {"execution_count": None, "outputs": []}
            for number, source in enumerate(cells)
        ]
        (self.folder / path).write_text(json.dumps(written), encoding="utf-8")
        return self.url(path)

    def trusted(self, path):
        """Serve a copy of a notebook with all that is saved in it, signed; return its path."""
        import nbformat
        from nbformat.sign import NotebookNotary

        copy = path.with_stem(f"{path.stem}-saved")
        shutil.copy(ROOT / path, self.folder / copy)
        notary = NotebookNotary(data_dir=self.environment["JUPYTER_DATA_DIR"])
        notary.sign(nbformat.read(self.folder / copy, as_version=4))
        return copy


@contextmanager
def jupyterlab(directory):
    """Run a JupyterLab over copies of the notebooks and the data, and yield it as a `Lab`.

    The server runs on this machine's own address only, asks for its token, and keeps its settings,
    workspaces and signatures in `directory`, so that neither the reader's JupyterLab nor the
    repository's notebooks (which JupyterLab saves by itself) are touched.
    """
    served = directory / "served"
    (served / NOTEBOOK).parent.mkdir(parents=True)
    for data in ("checkpoints", "paper", "recordings", "results"):
        shutil.copytree(ROOT / "data" / data, served / "data" / data)
    for path in NOTEBOOKS:
        notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell.update(execution_count=None, outputs=[])
        (served / path).write_text(json.dumps(notebook), encoding="utf-8")

    # Without the first, JupyterLab asks its new user whether to fetch news, and looks for updates;
    # it would take the cells out of the page that are out of sight, and save while a test reads.
    for plugin, setting in (
        ("apputils-extension/notification", {"fetchNews": "false"}),
        ("notebook-extension/tracker", {"windowingMode": "none"}),
        ("docmanager-extension/plugin", {"autosave": False}),
    ):
        path = directory / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting), encoding="utf-8")

    environment = {**os.environ, "JUPYTER_TOKEN": secrets.token_hex(16), **settings(ROOT)}
    environment["IPYTHONDIR"] = str(directory / "ipython")
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(directory / name.lower())
    for name in ("SETTINGS", "WORKSPACES"):
        environment[f"JUPYTERLAB_{name}_DIR"] = str(directory / name.lower())
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={served}"),
        "--LanguageServerManager.autodetect=False",  # by `npm prefix`: seconds, for nothing
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]
    with open(directory / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            address = _wait_for_server(server, directory)
            yield Lab(served, environment, address)
        finally:
            server.terminate()  # shuts down the kernels, too
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for_server(server, directory, timeout=40):
    # The server writes the port that it found free into its runtime directory.
    record = directory / "runtime" / f"jpserver-{server.pid}.json"
    no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and server.poll() is None:
        try:
            address = json.loads(record.read_text(encoding="utf-8"))["url"]
            with no_proxy.open(f"{address}api", timeout=5):
                return address
        except (OSError, ValueError):
            time.sleep(0.1)
    raise RuntimeError("no JupyterLab:\n" + (directory / "server.log").read_text(encoding="utf-8"))


@contextmanager
def chromium():
    """Run a headless Chromium, and yield it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser, width=1280, height=1000):
    """A page that shares nothing with others."""
    return browser.new_context(viewport={"width": width, "height": height}).new_page()


def open_notebook(page, path):
    """Open one from the list of files, or show it where it is open."""
    page.locator(".jp-DirListing-item", has_text=path.name).dblclick()
    # The status bar follows after the tab, and says until then how the other kernel does.
    page.locator(f"#jp-main-statusbar [title='Change kernel for {path.name}']").wait_for()


def start_notebook(page):
    """Run all cells of the notebook that is shown, through the menu, as soon as it has a kernel."""
    wait_for_kernel(page)
    choose(page, "Run", "Run All Cells")


def shut_kernel_down(page):
    """Shut the kernel of the notebook that is shown down, through the menu."""
    choose(page, "Kernel", "Shut Down Kernel")
    page.locator("#jp-main-statusbar").get_by_text("No Kernel").wait_for()


def finish_notebook(page):
    """Wait until all cells of the notebook that is shown have run."""
    from playwright.sync_api import expect

    prompts = shown(page).locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.first).to_have_text("[1]:", timeout=90_000)
    expect(prompts.filter(has_text="[*]")).to_have_count(0, timeout=300_000)
    wait_for_kernel(page)


def wait_for_kernel(page):
    """Wait until the kernel of the notebook that is shown is there, and idle."""
    # Until it is there, the status bar says "No Kernel | Initializing".
    status = page.locator("#jp-main-statusbar")
    status.get_by_text(re.compile(r"Python 3 .*\| Idle")).wait_for(timeout=90_000)


def run_notebook(page, address):
    """Open the notebook, run all its cells through the menu, and wait until they have run."""
    page.goto(address)
    start_notebook(page)
    finish_notebook(page)


def shown(page):
    """The notebook that is shown, where several are open."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")


def choose(page, menu, item):
    """Choose an item of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()


def save(page, path):
    """Save the notebook in JupyterLab, and return the code cells that it wrote."""

    def saved(response):
        return response.request.method == "PUT" and path.name in response.url

    # The answer of the server says that the file is whole; the tab's mark of changes does not.
    with page.expect_response(saved):
        choose(page, "File", "Save Notebook")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs(cells):
    return [output for cell in cells for output in cell["outputs"]]


def check_outputs(cells):
    """Raise unless all these cells ran, in order, without an error or a warning."""
    wrong = [
        output
        for output in outputs(cells)
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert not wrong, wrong[0]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), counts


def channels_slider(page):
    """The slider of C of the explorer of the kernel size."""
    return page.locator(".eca-lab").get_by_label("channels C", exact=True)


def told(where):
    """The line of Python that gives the state of the one explorer there."""
    return where.locator(".state code")
