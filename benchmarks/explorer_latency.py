"""How long a reader waits for a picture: our explorers, interact, and ipympl, in one run.

    python benchmarks/explorer_latency.py

Opens each in JupyterLab and headless Chromium as tests/in_browser.py does, presses arrow keys one
after the other, and drags. Prints the median and the 95th percentile in milliseconds, from the time
stamp of the event to the first task after the frame in which its picture was drawn: of what the
page draws by itself, and of what it asks the kernel. Then how long after a drag's release the last
state was on the screen, and by how much page and kernel have grown after 1,000 moves.

ipympl is no dependency of the lab: without it that row is left out.
"""

import importlib.util
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from in_browser import chromium, jupyterlab, new_page, run_notebook

PRESSES = 100
MOVES = 60
MANY = 1000

FIGURE = """\
import numpy as np
from matplotlib import pyplot as plt
from eca_lab.attention.kernel_size import adaptive_kernel_size
def draw(ax, C=256):
    ax.clear()
    ax.step(range(1, 513), [adaptive_kernel_size(c) for c in range(1, 513)])
    ax.plot(C, adaptive_kernel_size(C), 'o')
    ax.set(title=f'k = {adaptive_kernel_size(C)}', xlabel='channels C', ylabel='kernel size k')
"""
TRAINED = """\
from eca_lab import data
from eca_lab.networks import checkpoints
def network(arm):
    path = checkpoints.find_checkpoint('../data/checkpoints', arm, seed=0)
    return checkpoints.load_checkpoint(path)[0]
trained, shapes = {arm: network(arm) for arm in ('eca', 'se')}, data.load_dataset('shapes')
"""
RECORDED = (
    "from eca_lab import results\nrecorded = results.load_results('../data/results/cifar10-tiny')"
)
EXPLORERS = "from eca_lab import explorers"
# name -> cells, label of the slider that is pressed, what is dragged, whether it asks the kernel
OURS = {
    "module": (
        [EXPLORERS, "explorers.ModuleExplorer()"],
        *("channel", ".box .grip", False),
    ),
    "kernel size": (
        [EXPLORERS, "explorers.KernelSizeExplorer()"],
        *("channels C", ".chart .point", False),
    ),
    "channel weights": (
        [EXPLORERS, TRAINED, "explorers.ChannelWeightExplorer(trained, shapes)"],
        *("factor", ".heat", True),
    ),
    "reduction": (
        [EXPLORERS, "explorers.ReductionExplorer()"],
        *("reduction r", ".maps canvas", True),
    ),
    "study": (
        [EXPLORERS, RECORDED, "explorers.StudyExplorer(recorded)"],
        *("margin ±", ".plot circle.edge", False),
    ),
}
OTHERS = {
    "interact, figure inline": [
        "import ipywidgets\n" + FIGURE,
        "ipywidgets.interact(lambda C: draw(plt.figure(figsize=(7, 3)).add_subplot(), C) or "
        "plt.show(), C=ipywidgets.IntSlider(256, 1, 512));",
    ],
    "ipympl, draw_idle": [
        "%matplotlib widget\nimport ipywidgets\n" + FIGURE,
        "figure, ax = plt.subplots(figsize=(7, 3))\ndraw(ax)\n"
        "slider = ipywidgets.IntSlider(256, 1, 512)\n"
        "slider.observe(lambda c: (draw(ax, c.new), figure.canvas.draw_idle()), 'value')\n"
        "slider",
    ],
}

# Notes how long it takes from an event to the task after the frame that paints what it changed:
# latency.page by the line that tells the state, latency.kernel by the end of waiting for an answer;
# elsewhere by a new picture.
WATCH = """
() => {
    const since = {page: null, kernel: null}, asked = new Map();
    const latency = window.latency = {page: [], kernel: [], drag: []};
    window.waited = 0;
    for (const name of ["keydown", "pointermove", "pointerup"])
        addEventListener(name, event => {
            if (name !== "pointermove" || event.buttons)
                for (const who in since) since[who] ??= event.timeStamp;
            if (name === "pointerup") window.released = event.timeStamp;
        }, true);
    const painted = (who, from = since[who]) => {
        const channel = new MessageChannel();
        since[who] = null;
        channel.port1.onmessage = () => {
            window.last = performance.now();
            if (from !== null) latency[who].push(window.last - from);
        };
        channel.port2.postMessage(0);
    };
    const watch = (node, options, act) => new MutationObserver(act).observe(node, options);
    const text = {childList: true, characterData: true, subtree: true};
    const root = document.querySelector(".eca-lab");
    if (root) {
        const line = root.querySelector(".state code");
        const shown = () => /channel=(\\d+)/.exec(line.textContent)?.[1];
        watch(line, text, () => since.page && asked.set(shown(), since.page));
        for (const told of root.querySelectorAll(".state code, .readout, .hint"))
            watch(told, text, () => painted("page"));
        const caption = root.querySelectorAll(".maps > div > div")[1];
        if (caption)
            watch(caption, text, () => {
                const channel = /\\d+/.exec(caption.textContent)[0];
                if (asked.has(channel)) painted("drag", asked.get(channel));
                asked.delete(channel);
            });
        let waiting = false;
        watch(root, {attributes: true, attributeFilter: ["class"]}, () => {
            const now = root.classList.contains("waiting");
            if (waiting && !now) painted("kernel");
            waiting = now;
        });
        return;
    }
    const drawn = () => requestAnimationFrame(() => painted("kernel"));
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (...how) {
        drawn();
        return draw.apply(this, how);
    };
    document.addEventListener("load", event => event.target.tagName === "IMG" && drawn(), true);
}
"""


def press(page, slider, presses, counted):
    """Press arrow keys, waiting for each picture; the latencies of `counted`, page or kernel."""
    slider.focus()
    for number in range(presses):
        before = page.evaluate(f"window.latency.{counted}.length")
        page.keyboard.press("ArrowLeft" if number % 4 < 2 else "ArrowRight")
        page.wait_for_function(f"window.latency.{counted}.length > {before}", polling=5)
        # A reader's keys do not wait for the beginning of a frame, as polling may.
        time.sleep(random.uniform(0.02, 0.05))
    return page.evaluate("Object.values(window.latency).map(each => each.splice(0))")


def drag(page, mark, moves):
    """Drag a mark to and fro aslant; the latencies, and from the release to the last state."""
    mark.scroll_into_view_if_needed()
    place = mark.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for number in range(moves):
        away = abs(60 - number * 240 / moves % 120) - 60
        page.mouse.move(x + away, y + away)  # to another row of a matrix, too
    page.mouse.up()
    page.wait_for_timeout(500)
    backlog = page.evaluate("window.last - window.released")
    return *page.evaluate("Object.values(window.latency).map(each => each.splice(0))"), backlog


def used(page):
    """MB of the page's heap without its garbage, and of the kernels."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    heap = devtools.send("Runtime.getHeapUsage")["usedSize"]
    family = psutil.Process().children(recursive=True)
    kernels = [each for each in family if any("ipykernel" in word for word in each.cmdline())]
    return heap / 1e6, sum(each.memory_info().rss for each in kernels) / 1e6


def report(name, times):
    """Print the median and the 95th percentile of some milliseconds."""
    if len(times) > 1:
        median, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(f"{name:42} median {median:6.1f} ms, 95th percentile {high:6.1f}, n = {len(times)}")


def main():
    """Measure, and print."""
    with (
        tempfile.TemporaryDirectory() as directory,
        jupyterlab(Path(directory)) as lab,
        chromium() as browser,
    ):
        for number, (name, (cells, label, mark, asks)) in enumerate(OURS.items()):
            page = new_page(browser)
            run_notebook(page, lab.notebook(f"ours-{number}", cells))
            page.evaluate(WATCH)
            slider = page.locator(".eca-lab").get_by_label(label, exact=True)
            report(f"{name}, key, page", press(page, slider, PRESSES, "page")[0])
            if asks:
                page.wait_for_timeout(1000)
                report(f"{name}, key, kernel", press(page, slider, PRESSES, "kernel")[1])
            in_page, _, in_kernel, backlog = drag(page, page.locator(mark).first, MOVES)
            report(f"{name}, drag, page", in_page)
            report(f"{name}, drag, kernel", in_kernel)
            before = used(page)
            drag(page, page.locator(mark).first, MANY)
            heap, kernel = (after - early for after, early in zip(used(page), before, strict=True))
            print(
                f"{name}: release to last state {max(backlog, 0):.1f} ms; after {MANY} moves the "
                f"page has grown by {heap:.1f} MB, the kernel by {kernel:.1f}"
            )
            page.context.close()
        for number, (name, cells) in enumerate(OTHERS.items()):
            if "ipympl" in name and not importlib.util.find_spec("ipympl"):
                print("no ipympl here: left out")
                continue
            page = new_page(browser)
            run_notebook(page, lab.notebook(f"other-{number}", cells))
            page.evaluate(WATCH)
            report(f"{name}, key", press(page, page.locator("[role=slider]"), PRESSES, "kernel")[1])
            page.context.close()


if __name__ == "__main__":
    main()
