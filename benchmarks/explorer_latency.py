"""How long a reader waits for an explorer drawn in the page: from hand to painted picture.

    python benchmarks/explorer_latency.py

Opens notebook 01 in JupyterLab and headless Chromium as tests/test_browser.py does. Presses arrow
keys on the slider of C, one after the other, and drags the point along the staircase. Prints the
median and the 95th percentile in milliseconds, from the time stamp of the event to the first task
after the frame in which its picture was drawn, and how long after a drag's release its last state
was on the screen.
"""

import random
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
    run_notebook,
    told,
)

PRESSES = 120
MOVES = 60

# Notes how long it takes from an event to the task after the frame that paints what it changed.
WATCH = """
code => {
    let since = null;
    const latency = window.latency = [];
    for (const name of ["keydown", "pointermove", "pointerup"])
        addEventListener(name, event => {
            if (name !== "pointermove" || event.buttons) since ??= event.timeStamp;
            if (name === "pointerup") window.released = event.timeStamp;
        }, true);
    new MutationObserver(() => {
        const channel = new MessageChannel();
        const pressed = since;
        since = null;
        channel.port1.onmessage = () => {
            window.last = performance.now();
            if (pressed !== null) latency.push(window.last - pressed);
        };
        channel.port2.postMessage(0);
    }).observe(code, {childList: true, characterData: true, subtree: true});
}
"""


def measure(presses=PRESSES, moves=MOVES):
    """Milliseconds of key presses, of moves of a drag, and from its release to the last state."""
    with (
        tempfile.TemporaryDirectory() as directory,
        jupyterlab(Path(directory)) as lab,
        chromium() as browser,
    ):
        page = new_page(browser)
        run_notebook(page, lab.url(NOTEBOOK))
        told(page).evaluate(WATCH)
        channels_slider(page).focus()
        for press in range(presses):
            page.keyboard.press("ArrowRight" if press < presses // 2 else "ArrowLeft")
            page.wait_for_function(f"window.latency.length === {press + 1}", polling=5)
            # A reader's keys do not wait for the beginning of a frame, as polling may.
            time.sleep(random.uniform(0.02, 0.05))
        keys = page.evaluate("window.latency.splice(0)")
        point = page.locator(".eca-lab .chart .point")
        point.scroll_into_view_if_needed()
        place = point.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 200, y, steps=moves)
        page.mouse.up()
        page.wait_for_timeout(500)
        return keys, *page.evaluate("[window.latency, window.last - window.released]")


def report(name, times):
    """Print the median and the 95th percentile of some milliseconds."""
    median, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    print(f"{name}: median {median:.1f} ms, 95th percentile {high:.1f} ms, n = {len(times)}")


if __name__ == "__main__":
    keys, moves, backlog = measure()
    report("key press to painted picture", keys)
    report("move of a drag to painted picture", moves)
    print(f"release to last state: {max(backlog, 0):.1f} ms")
