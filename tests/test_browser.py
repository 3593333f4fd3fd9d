"""Panels as a reader meets them: a real JupyterLab in a real browser, moved by keyboard and mouse.

The helpers are used by benchmarks/explorer_latency.py too.
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

from eca_lab.kernel_size import adaptive_kernel_size

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = Path("notebooks/01_kernel_size.ipynb")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def jupyterlab(directory, cells=None):
    """Run a JupyterLab over copies of the notebook and its data, and yield the notebook's address.

    The notebook is 01, or one of other cells of code, if these are given.

    The server runs on this machine's own address only, asks for its token, and keeps its settings,
    workspaces and signatures in `directory`, so that neither the reader's JupyterLab nor the
    repository's notebook (which JupyterLab saves by itself) is touched.
    """
    served = directory / "served"
    (served / NOTEBOOK).parent.mkdir(parents=True)
    for data in ("checkpoints", "paper", "results"):
        shutil.copytree(ROOT / "data" / data, served / "data" / data)
    notebook = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))
    if cells is not None:
        notebook["cells"] = [
            {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source}
            for number, source in enumerate(cells)
        ]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(execution_count=None, outputs=[])
    (served / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")

    # Without this, JupyterLab asks its new user whether to fetch news, and looks for updates.
    settings = directory / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')

    token = secrets.token_hex(16)
    environment = {**os.environ, "JUPYTER_TOKEN": token}
    environment["IPYTHONDIR"] = str(directory / "ipython")
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(directory / name.lower())
    for name in ("SETTINGS", "WORKSPACES"):
        environment[f"JUPYTERLAB_{name}_DIR"] = str(directory / name.lower())
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={served}"),
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]
    with open(directory / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            address = _wait_for_server(server, directory)
            yield f"{address}lab/tree/{NOTEBOOK.as_posix()}?token={token}"
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
def chromium_page(width=1280, height=1000):
    """Yield a page of a new headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def run_notebook(page, address):
    """Open the notebook, run all its cells through the menu, and wait until they have run."""
    from playwright.sync_api import expect

    page.goto(address)
    # Until a kernel is there, the status bar says "No Kernel | Initializing".
    idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"Python 3 .*\| Idle"))
    idle.wait_for(timeout=30_000)
    choose(page, "Run", "Run All Cells")
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.first).to_have_text("[1]:", timeout=30_000)
    expect(prompts.filter(has_text="[*]")).to_have_count(0, timeout=30_000)
    idle.wait_for(timeout=30_000)


def choose(page, menu, item):
    """Choose an item of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$")).click()


def channels_slider(page):
    """The handle of the panel's first slider, which takes the arrow keys when focused."""
    return page.locator(".widget-slider [role=slider]").first


def handle(page, description):
    """The handle of the slider of a description."""
    slider = page.locator(".widget-slider", has=page.get_by_text(description, exact=True))
    return slider.locator("[role=slider]")


def readout(page):
    """The panel's read-out."""
    return page.locator(".widget-html-content").filter(has_text="This state")


def picture(page):
    """The panel's picture, and the bytes that the page has of it."""
    image = page.locator("img.widget-image")
    fetched = image.evaluate(
        "async image => Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer()))"
    )
    return image.get_attribute("src"), bytes(fetched)


def wait_for_next_picture(page, source):
    """Wait until the panel shows a picture other than that of the address `source`."""
    page.wait_for_function(
        """source => {
            const image = document.querySelector("img.widget-image");
            return image.src !== source && image.complete && image.naturalWidth > 0;
        }""",
        arg=source,
    )


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="found no chromium, chromium-browser, google-chrome")
def test_notebook_runs_and_the_panel_follows_the_keyboard(tmp_path):
    from playwright.sync_api import expect

    from eca_lab.explorers import KernelSizeExplorer

    original = (ROOT / NOTEBOOK).read_bytes()
    with jupyterlab(tmp_path) as address, chromium_page() as page:
        run_notebook(page, address)
        cells = save(page, tmp_path / "served" / NOTEBOOK)
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))

        box = page.locator(".widget-text input[type=number]").first
        expect(box).to_have_value("256")
        first_picture = picture(page)[1]

        # Seventeen stops down from 256 lead across 128, where k changes.
        channels_slider(page).focus()
        stops = KernelSizeExplorer.CHANNEL_STOPS
        start = stops.index(256)
        for channels in reversed(stops[start - 17 : start]):
            source = picture(page)[0]
            page.keyboard.press("ArrowLeft")
            expect(box).to_have_value(str(channels))
            expect(readout(page)).to_contain_text(f"log2 {channels} ")
            k = adaptive_kernel_size(channels)
            expect(readout(page)).to_contain_text(re.compile(rf"(Nearest|tie).*: k = {k}(?!\d)"))
            wait_for_next_picture(page, source)
        assert (channels, k) == (123, 3)
        source, last_picture = picture(page)
        assert first_picture.startswith(b"\x89PNG")
        assert last_picture.startswith(b"\x89PNG")
        assert last_picture != first_picture

        # The box takes any channels up to 8192, and says so where it is given something else.
        box.fill("0")
        box.press("Enter")
        expect(page.get_by_text("channels=0: accepted is a positive integer")).to_be_visible()
        box.fill("2048")
        box.press("Enter")
        expect(readout(page)).to_contain_text("log2 2048 ")
        expect(page.get_by_text("channels=0")).to_have_count(0)
        wait_for_next_picture(page, source)
        expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    assert (ROOT / NOTEBOOK).read_bytes() == original


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="found no chromium, chromium-browser, google-chrome")
def test_the_panel_of_the_study_follows_its_controls(tmp_path):
    from playwright.sync_api import expect

    cells = [
        "from eca_lab import explorers, results",
        "explorers.StudyExplorer(results.load_results('../data/results/cifar10-tiny'))",
    ]
    with jupyterlab(tmp_path, cells) as address, chromium_page() as page:
        run_notebook(page, address)
        table = page.locator(".widget-html-content table")
        expect(table.locator("tr")).to_have_count(6)  # a head and five arms
        expect(table).not_to_contain_text("equivalent")

        baseline = page.locator(".widget-dropdown", has_text="baseline").locator("select")
        source = picture(page)[0]
        baseline.select_option("se")
        expect(page.get_by_text("Other arms against se")).to_be_visible()
        expect(table.locator("th", has_text=re.compile("^eca$"))).to_have_count(1)
        wait_for_next_picture(page, source)

        margin = page.locator(".widget-text input[type=number]")
        margin.fill("3")
        margin.press("Enter")
        expect(table).to_contain_text("equivalent")
        margin.fill("99")
        margin.press("Enter")
        expect(page.get_by_text("margin=99.0: accepted are 0.01 to 5")).to_be_visible()
        expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="found no chromium, chromium-browser, google-chrome")
def test_the_panel_of_the_weights_follows_its_controls(tmp_path):
    from playwright.sync_api import expect

    cells = [
        "from eca_lab import checkpoints, data, explorers",
        "find = checkpoints.find_checkpoint\n"
        "paths = {arm: find('../data/checkpoints', arm, seed=0) for arm in ('eca', 'se')}\n"
        "networks = {arm: checkpoints.load_checkpoint(path)[0] for arm, path in paths.items()}",
        "explorers.ChannelWeightExplorer(\n"
        "    networks, data.load_dataset('shapes'), layer='layer1.attention', channel=3\n"
        ")",
    ]
    with jupyterlab(tmp_path, cells) as address, chromium_page() as page:
        run_notebook(page, address)
        expect(readout(page)).to_contain_text(re.compile(r"Channel 3: weight 0\.\d+ × 1 ="))

        source = picture(page)[0]
        page.get_by_role("button", name="channel off").click()
        expect(readout(page)).to_contain_text("× 0 = 0.000")
        wait_for_next_picture(page, source)
        handle(page, "factor").press("ArrowRight")
        expect(readout(page)).to_contain_text("× 0.1 = ")

        # A last layer of 256 channels, and back to one of 16.
        layer = page.locator(".widget-dropdown", has_text="layer").locator("select")
        layer.select_option("layer3.1.attention")
        expect(readout(page)).to_contain_text("layer='layer3.1.attention'")
        # (Home and End of the slider would go by its first range: noUiSlider keeps it.)
        channel = page.locator(".widget-text input[type=number]").nth(1)
        channel.fill("254")
        channel.press("Enter")
        expect(readout(page)).to_contain_text("Channel 254: ")
        handle(page, "channel").press("ArrowRight")
        expect(readout(page)).to_contain_text("Channel 255: ")
        layer.select_option("layer1.attention")
        expect(page.get_by_text("Lowered to fit 16 channels: channel to 15")).to_be_visible()

        source = picture(page)[0]
        page.locator(".widget-dropdown", has_text="network").locator("select").select_option("se")
        expect(readout(page)).to_contain_text("network='se'")
        wait_for_next_picture(page, source)
        image = page.locator(".widget-text input[type=number]").first
        image.fill("200")
        image.press("Enter")
        expect(page.get_by_text("image=200: accepted here are 0 to 199")).to_be_visible()
        expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="found no chromium, chromium-browser, google-chrome")
def test_the_panel_of_the_reduction_follows_its_controls(tmp_path):
    from playwright.sync_api import expect

    cells = [
        "import torch\nfrom eca_lab import attention, explorers",
        "torch.manual_seed(0)\n"
        "layer = {arm: attention.make_attention(arm, 128) for arm in ('se', 'eca')}",
        "explorers.ReductionExplorer(trained={'one': layer})",
    ]
    with jupyterlab(tmp_path, cells) as address, chromium_page() as page:
        run_notebook(page, address)
        expect(readout(page)).to_contain_text("C // r = 64 // 16 = 4 hidden units")

        source = picture(page)[0]
        handle(page, "reduction r").press("ArrowLeft")
        expect(readout(page)).to_contain_text("64 // 8 = 8 hidden units")
        wait_for_next_picture(page, source)
        handle(page, "kernel k").press("ArrowRight")
        expect(readout(page)).to_contain_text("k = 5 parameters")
        handle(page, "channels C").press("Home")
        expect(page.get_by_text("Lowered to fit C = 8: groups to 8")).to_be_visible()
        source = picture(page)[0]
        page.get_by_role("button", name="Draw again").click()
        expect(readout(page)).to_contain_text("seed=1")
        wait_for_next_picture(page, source)

        weights = page.locator(".widget-dropdown", has_text="weights").locator("select")
        weights.select_option("trained, one")
        expect(readout(page)).to_contain_text("128 // 16 = 8 hidden units")
        page.get_by_role("button", name="Reset").click()
        expect(readout(page)).to_contain_text("ReductionExplorer(channels=64, reduction=16")
        groups = page.locator(".widget-text input[type=number]").nth(3)
        groups.fill("3")
        groups.press("Enter")
        expect(page.get_by_text("groups=3: accepted are divisors of channels=64")).to_be_visible()
        expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


def save(page, path):
    """Save the notebook in JupyterLab, and return the code cells that it wrote."""
    choose(page, "File", "Save Notebook")
    page.wait_for_function("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]
