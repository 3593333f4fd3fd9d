"""Panels as a reader meets them: a real JupyterLab in a real browser, moved by keyboard and mouse.

The helpers are used by benchmarks/explorer_latency.py too.
"""

import functools
import itertools
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

import numpy as np
import pytest

from eca_lab.kernel_size import adaptive_kernel_size

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
        reason="found no chromium, chromium-browser, google-chrome",
    ),
]

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


class Lab:
    """A running JupyterLab: the folder that it serves, its address and its token."""

    def __init__(self, folder, address, token):
        self.folder, self.address, self.token = folder, address, token

    def url(self, path):
        return f"{self.address}lab/workspaces/{path.stem}/tree/{path.as_posix()}?token={self.token}"

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


@contextmanager
def jupyterlab(directory):
    """Run a JupyterLab over copies of notebook 01 and the data, and yield it as a `Lab`.

    The server runs on this machine's own address only, asks for its token, and keeps its settings,
    workspaces and signatures in `directory`, so that neither the reader's JupyterLab nor the
    repository's notebook (which JupyterLab saves by itself) is touched.
    """
    served = directory / "served"
    (served / NOTEBOOK).parent.mkdir(parents=True)
    for data in ("checkpoints", "paper", "results"):
        shutil.copytree(ROOT / "data" / data, served / "data" / data)
    notebook = json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))
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
            yield Lab(served, address, token)
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser):
    page = new_page(browser)
    yield page
    page.context.close()


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
    """The slider of C of the explorer of the kernel size."""
    return page.locator(".eca-lab").get_by_label("channels C", exact=True)


def told(page):
    """The line of Python that gives the state of the explorer of the kernel size."""
    return page.locator(".eca-lab .state code")


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


GRID = """async ([text, given, samples]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {numbers, psi, row, runs} = await import(URL.createObjectURL(blob));
    const {gamma, b} = given.stops, result = {k: [], intervals: [], shown: [], rows: []};
    for (const ties of ["up", "down"]) for (const g of gamma) for (const o of b) {
        result.k.push(samples.map(C => psi(C, g, o, ties)));
        result.intervals.push(runs(g, o, ties).map(run => [run.first, run.last, run.k]));
    }
    for (const network of Object.keys(given.networks))
        result.shown.push(numbers({channels: 129, gamma: 2.5, b: -1, ties: "up", network}, given));
    for (const [C, k] of [[1, 1], [4, 7], [31, 3], [256, 5]])
        result.rows.push(Array.from({length: C}, (_, i) => row(i + 1, C, k)));
    return result;
}"""


def test_the_page_computes_what_python_computes(page):
    from eca_lab.explorers import KernelSizeExplorer
    from eca_lab.kernel_size import TIES, released_kernel_sizes, stage_channels

    panel = KernelSizeExplorer()
    around = {2**n + d for n in range(14) for d in (-1, 0, 1)} & set(range(1, 8193))
    samples = sorted({*panel.CHANNEL_STOPS, *around})
    result = page.evaluate(GRID, [panel._esm, panel.given, samples])
    grid = itertools.product(TIES, panel.GAMMA_STOPS, panel.B_STOPS)
    for (ties, gamma, b), ks, intervals in zip(grid, result["k"], result["intervals"], strict=True):
        psi = functools.partial(adaptive_kernel_size, gamma=gamma, b=b, ties=ties)
        assert ks == [psi(C) for C in samples], (gamma, b, ties)
        # psi falls, if at all, down to C = 2^-b, and then never again: the ends tell the whole run.
        assert intervals[0][0] == 1
        for first, last, k in intervals:
            assert psi(first) == psi(last) == k != psi(last + 1)
        assert [run[0] for run in intervals[1:]] == [run[1] + 1 for run in intervals[:-1]]
    for network, shown in zip(panel.given["networks"], result["shown"], strict=True):
        assert (shown["k"], shown["se"]) == (adaptive_kernel_size(129, 2.5, -1), 129**2 / 8)
        widths = stage_channels(network)
        formula = [adaptive_kernel_size(C, 2.5, -1) for C in widths]
        released = released_kernel_sizes(network)
        assert shown["stages"] == [list(s) for s in zip(widths, formula, released, strict=True)]
    for (C, k), rows in zip([(1, 1), (4, 7), (31, 3), (256, 5)], result["rows"], strict=True):
        band = sum(w * np.eye(C, k=w - (k + 1) // 2, dtype=int) for w in range(1, k + 1))
        for entries, (first, last, weight) in zip(band, rows, strict=True):
            assert np.flatnonzero(entries).tolist() == list(range(first - 1, last))
            assert entries[first - 1] == weight


def test_notebook_runs_and_its_explorer_follows_keyboard_and_mouse(lab, page):
    from playwright.sync_api import expect

    from eca_lab.explorers import KernelSizeExplorer

    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    original = (ROOT / NOTEBOOK).read_bytes()
    run_notebook(page, lab.url(NOTEBOOK))
    cells = save(page, lab.folder / NOTEBOOK)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))

    explorer = page.locator(".eca-lab")
    shown = explorer.locator("[role=status]")
    box = explorer.get_by_label("channels C, any value")
    expect(box).to_have_value("256")

    # Seventeen stops down from 256 lead across 128, where k changes.
    channels_slider(page).focus()
    stops = KernelSizeExplorer.CHANNEL_STOPS
    start = stops.index(256)
    for channels in reversed(stops[start - 17 : start]):
        page.keyboard.press("ArrowLeft")
        expect(told(page)).to_have_text(f"KernelSizeExplorer(channels={channels}, gamma=2, b=1)")
        expect(shown).to_have_text(re.compile(rf"k = {adaptive_kernel_size(channels)}$"))
    assert channels == 123
    # Every control by its keys to both ends.
    for label, values in (("channels C", stops), ("slope γ", (0.5, 4)), ("offset b", (-4, 4))):
        explorer.get_by_label(label, exact=True).focus()
        for key, value in (("Home", values[0]), ("End", values[-1])):
            page.keyboard.press(key)
            expect(explorer.get_by_label(f"{label}, any value")).to_have_value(str(value))
    explorer.get_by_label("ties go").focus()
    page.keyboard.press("ArrowDown")
    expect(told(page)).to_contain_text("gamma=4, b=4, ties='down'")
    explorer.get_by_label("network").focus()
    page.keyboard.press("End")
    expect(explorer.locator("caption")).to_have_text("Stages of MobileNetV2")
    explorer.get_by_role("button", name="C = 320").press("Enter")
    expect(told(page)).to_contain_text("channels=320, ")
    explorer.get_by_role("button", name="Reset").press("Enter")
    expect(told(page)).to_have_text("KernelSizeExplorer(channels=256, gamma=2, b=1)")
    explorer.get_by_role("slider", name="row of the matrix").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(explorer.locator(".told")).to_have_text(
        "Channel 3 hears channels 1 to 5, by w₁ to w₅ of 5."
    )

    # The box takes any channels up to 8192, and says why not where it is given something else.
    for wrong in ("0", "64.5", "8193"):
        box.fill(wrong)
        box.press("Enter")
        why = f"channels={wrong}: accepted is an integer from 1 to 8192"
        expect(explorer.get_by_role("alert").first).to_have_text(why)
        expect(told(page)).to_contain_text("channels=256,")
    box.fill("2048")
    box.press("Enter")
    expect(shown).to_have_text("A tie: 6 is midway between 5 and 7; ties go up: k = 7")
    expect(explorer.get_by_role("alert").first).to_be_empty()

    def pull(mark, right, up):
        place = mark.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + right, y - up, steps=5)
        page.mouse.up()

    explorer.get_by_role("button", name="Reset").click()
    chart = explorer.locator(".chart")
    chart.scroll_into_view_if_needed()
    # 26 pixels are one k: the line at 2^12 goes from 6.5 to 7.5, so gamma from 2 to 13 / 7.5.
    pull(chart.locator(".handle", has_text="γ"), 0, 26)
    expect(told(page)).to_contain_text("gamma=1.7, b=1")
    pull(chart.locator(".handle", has_text="b"), 0, -26)
    expect(told(page)).to_contain_text("gamma=1.7, b=-0.5")
    pull(chart.locator(".point"), -100, 0)
    expect(told(page)).not_to_contain_text("channels=256,")
    pull(chart.locator(".formula").nth(1), 0, 0)
    expect(told(page)).to_contain_text("channels=512,")
    expect(chart.locator(".tip")).to_contain_text("Stage 2: C = 512, k = 5 by Equation 12, as")

    expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    for width in (1280, 700):
        page.set_viewport_size({"width": width, "height": 1000})
        places = [explorer.locator(each) for each in (".picture", ".controls", ".readout")]
        picture, controls, readout = (each.bounding_box() for each in places)
        assert picture["y"] <= controls["y"] < readout["y"]
        beside = picture["x"] + picture["width"] <= controls["x"]
        assert beside or controls["y"] - (picture["y"] + picture["height"]) < 20
    assert errors == []
    assert (ROOT / NOTEBOOK).read_bytes() == original


def test_the_panel_of_the_study_follows_its_controls(lab, page):
    from playwright.sync_api import expect

    cells = [
        "from eca_lab import explorers, results",
        "explorers.StudyExplorer(results.load_results('../data/results/cifar10-tiny'))",
    ]
    run_notebook(page, lab.notebook("study", cells))
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
    expect(
        page.get_by_text("margin=99.0: accepted is a finite number from 0.01 to 5")
    ).to_be_visible()
    expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


def test_the_panel_of_the_weights_follows_its_controls(lab, page):
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
    run_notebook(page, lab.notebook("weights", cells))
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
    expect(page.get_by_text("image=200: accepted is an integer from 0 to 199")).to_be_visible()
    expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


def test_the_panel_of_the_reduction_follows_its_controls(lab, page):
    from playwright.sync_api import expect

    cells = [
        "import torch\nfrom eca_lab import attention, explorers",
        "torch.manual_seed(0)\n"
        "layer = {arm: attention.make_attention(arm, 128) for arm in ('se', 'eca')}",
        "explorers.ReductionExplorer(trained={'one': layer})",
    ]
    run_notebook(page, lab.notebook("reduction", cells))
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
    expect(page.get_by_text("groups=3: accepted are 1, 2, 4, 8, 16, 32, 64")).to_be_visible()
    expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)


def test_names_run_nothing_in_the_page(lab, page):
    from playwright.sync_api import expect

    cells = [
        "from eca_lab import checkpoints, data, explorers\nfrom dataclasses import replace",
        "name = '<img src=x onerror=alert(1)>'\n"
        "path = checkpoints.find_checkpoint('../data/checkpoints', 'eca', 0)\n"
        "networks = {name: checkpoints.load_checkpoint(path)[0]}\n"
        "shapes = data.load_dataset('shapes')\n"
        "shapes = replace(shapes, classes=(name, *shapes.classes[1:]))",
        "panel = explorers.ChannelWeightExplorer(networks, shapes)\npanel",
        "panel._try(first_class='<img src=y onerror=alert(2)>')",
    ]
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    run_notebook(page, lab.notebook("names", cells))
    expect(readout(page)).to_contain_text("of class <img src=x onerror=alert(1)>.")
    status = page.get_by_text("first_class='<img src=y onerror=alert(2)>': accepted are <img src=x")
    expect(status).to_be_visible()
    network = page.locator(".widget-dropdown", has_text="network").locator("option")
    expect(network).to_have_text(["<img src=x onerror=alert(1)>".replace(" ", "\xa0")])
    expect(page.locator(".jp-OutputArea img:not(.widget-image)")).to_have_count(0)
    assert dialogs == []


def save(page, path):
    """Save the notebook in JupyterLab, and return the code cells that it wrote."""
    choose(page, "File", "Save Notebook")
    page.wait_for_function("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_explorer_slides_on_a_page_without_kernel_and_network(browser, tmp_path):
    from playwright.sync_api import expect

    from eca_lab import site
    from eca_lab.explorers import KernelSizeExplorer

    site.build([ROOT / NOTEBOOK], tmp_path)
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 1000})
    page, told_wrong, fetched = context.new_page(), [], []
    page.on("console", lambda message: told_wrong.append(message.text))
    page.on("pageerror", lambda error: told_wrong.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url.split(":")[0]))
    address = (tmp_path / NOTEBOOK.with_suffix(".html").name).as_uri()
    page.goto(address)
    expect(told(page)).to_have_text("KernelSizeExplorer(channels=256, gamma=2, b=1)")
    status = page.locator(".eca-lab [role=status]")
    channels_slider(page).focus()
    stops = KernelSizeExplorer.CHANNEL_STOPS
    start = stops.index(256)
    for channels in [*reversed(stops[start - 17 : start]), 1, 8192]:
        page.keyboard.press({1: "Home", 8192: "End"}.get(channels, "ArrowLeft"))
        expect(told(page)).to_contain_text(f"channels={channels}, ")
        expect(status).to_have_text(re.compile(rf"k = {adaptive_kernel_size(channels)}$"))
    page.wait_for_url(f"{address}#channels=8192&gamma=2&b=1")
    expect(page.get_by_role("button", name="Copy link")).to_be_visible()

    # A link: what is not accepted is left out, and the address says what is shown.
    for said, shown in (
        ("channels=128&ties=down", "channels=128, gamma=2, b=1, ties='down'"),
        (
            "gamma=9&channels=64.5&b=x&ties=1&network=resnet18&a=1",
            "gamma=2, b=1, network='resnet18'",
        ),
    ):
        page.goto("about:blank")
        page.goto(f"{address}#{said}")
        expect(told(page)).to_contain_text(shown)
    page.wait_for_url(f"{address}#channels=256&gamma=2&b=1&network=resnet18")
    assert told_wrong == []
    assert set(fetched) <= {"file", "blob", "data", "about"}
    context.close()
