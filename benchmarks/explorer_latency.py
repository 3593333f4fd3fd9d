"""How long a reader waits for the kernel-size panel: key press to new read-out and new picture.

    python benchmarks/explorer_latency.py

Measured with JupyterLab 4.6 and headless Chromium on two shared CPU cores: Python median 14 to 23
ms (n = 159), browser median 70 to 75 ms (n = 60), depending on what else runs. Some 40 ms of that
pass whatever the panel does: Jupyter's server leaves Nagle's algorithm on, which holds a small
message back until the browser has acknowledged the one before.

Opens notebook 01 in JupyterLab and Chromium as tests/test_browser.py does, moves the slider of C by
arrow keys, one press after the other, and prints the median and the 90th percentile in
milliseconds. A press ends when the page has both the new text and the decoded picture. Prints also
the time that Python alone takes from setting an attribute to having the PNG.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_browser import (
    NOTEBOOK,
    channels_slider,
    chromium,
    jupyterlab,
    new_page,
    readout,
    run_notebook,
)

from eca_lab.explorers import KernelSizeExplorer

PRESSES = 60

# Notes when a key goes down, when the read-out changes, and when the new picture has been loaded.
WATCH = """
readout => {
    const latency = window.latency = [];
    let pressed, waiting;
    const arrived = () => {
        waiting -= 1;
        if (waiting === 0) latency.push(performance.now() - pressed);
    };
    document.addEventListener("keydown", event => {
        pressed = event.timeStamp;
        waiting = 2;
    }, true);
    new MutationObserver(arrived).observe(readout, {childList: true});
    document.querySelector("img.widget-image").addEventListener("load", arrived);
}
"""


def browser_latency(presses=PRESSES):
    """Milliseconds from key press to new read-out and picture, one number per press."""
    with (
        tempfile.TemporaryDirectory() as directory,
        jupyterlab(Path(directory)) as lab,
        chromium() as browser,
    ):
        page = new_page(browser)
        run_notebook(page, lab.url(NOTEBOOK))
        readout(page).evaluate(WATCH)
        channels_slider(page).focus()
        for press in range(presses):
            page.keyboard.press("ArrowRight" if press < presses // 2 else "ArrowLeft")
            page.wait_for_function(f"window.latency.length === {press + 1}")
        return page.evaluate("window.latency")


def python_latency():
    """Milliseconds from setting `channels` to having the PNG, for every stop of the slider."""
    panel = KernelSizeExplorer()
    times = []
    for channels in panel.CHANNEL_STOPS:
        start = time.perf_counter()
        panel.channels = channels
        times.append(1000 * (time.perf_counter() - start))
    return times


def report(name, times):
    """Print the median and the 90th percentile of some milliseconds."""
    median, ninetieth = statistics.median(times), statistics.quantiles(times, n=10)[-1]
    print(f"{name}: median {median:.0f} ms, 90th percentile {ninetieth:.0f} ms, n = {len(times)}")


if __name__ == "__main__":
    report("Python, attribute to PNG", python_latency())
    report("browser, key press to read-out and picture", browser_latency())
