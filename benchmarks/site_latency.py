"""How long the sliders of the site take to their next picture, on a computer as slow as you say.

    python benchmarks/site_latency.py [--slower 4] [--presses 60] [SITE]

SITE is a folder that `python -m eca_lab.site` wrote (default: site). Opens the page of each of its
notebooks in headless Chromium, its processor throttled by Chromium's own emulation, and presses
arrow keys on the sliders above the picture, one every 150 ms or so. Prints the median and the 95th
percentile in milliseconds, from the time stamp of the event to the first task after the frame in
which its picture was drawn; first those of a page that holds a slider and a number, and nothing
else: less than that no page can take.
"""

import argparse
import random
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from in_browser import chromium, new_page

# The task after the frame that the event asked for: what a frame paints is done before.
WATCH = """
() => {
    window.latency = [];
    addEventListener("keydown", ({timeStamp}) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => window.latency.push(performance.now() - timeStamp);
        channel.port2.postMessage(0);
    }), true);
}
"""


EMPTY = """
<div class="explorer"><div class="eca-lab"><div class="main">
<input type="range" aria-valuetext="a number"><output></output></div></div></div>
<script>
const [slider, output] = document.querySelectorAll("input, output");
slider.oninput = () => requestAnimationFrame(() => { output.textContent = slider.value; });
</script>
"""


def press(page, slider, presses):
    """Milliseconds to the next picture, of each press of an arrow key on the slider."""
    slider.scroll_into_view_if_needed()
    slider.focus()
    page.wait_for_timeout(1000)
    page.evaluate("window.latency = []")
    for number in range(presses):
        page.keyboard.press("ArrowLeft" if number % 4 < 2 else "ArrowRight")
        # A reader's keys do not wait for the beginning of a frame.
        page.wait_for_timeout(random.uniform(130, 170))
    return page.evaluate("window.latency")


def report(page, name, slower, presses):
    """Print a line for each slider of the page."""
    page.evaluate(WATCH)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    for slider in page.locator(".explorer .eca-lab .main input[type=range]").all():
        label = slider.get_attribute("aria-valuetext").partition(" = ")[0]
        times = press(page, slider, presses)
        median, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(
            f"{name:20} {label:14} median {median:5.1f} ms, 95th percentile {high:5.1f}, "
            f"n = {len(times)}",
            flush=True,
        )


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", nargs="?", type=Path, default=Path("site"))
    parser.add_argument("--slower", type=float, default=4, help="times (default: 4)")
    parser.add_argument("--presses", type=int, default=60)
    options = parser.parse_args()
    with chromium() as browser:
        page = new_page(browser)
        page.set_content(EMPTY)
        report(page, "an empty page", options.slower, options.presses)
        page.context.close()
        for path in sorted(options.site.glob("0*.html")):
            page = new_page(browser)
            page.goto(path.resolve().as_uri())
            report(page, path.stem, options.slower, options.presses)
            page.context.close()


if __name__ == "__main__":
    main()
