"""Explorers as a reader meets them: in JupyterLab in a browser, by hand and keys."""

import functools
import itertools
import re

import numpy as np
import pytest
from in_browser import (
    NOTEBOOK,
    ROOT,
    channels_slider,
    check_outputs,
    choose,
    finish_notebook,
    needs_browser,
    new_page,
    run_notebook,
    save,
    shut_kernel_down,
    told,
    wait_for_kernel,
)
from scipy.stats import t

from eca_lab.attention.kernel_size import adaptive_kernel_size

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=alert(1)>"
CELLS = {
    "imports": f"""\
import pandas as pd
import torch
from dataclasses import replace
from eca_lab import data, explorers
from eca_lab.attention import modules
from eca_lab.networks import checkpoints
from eca_lab.evidence import results
hostile = {HOSTILE!r}""",
    "study": """\
recorded = results.load_results('../data/results/cifar10-tiny')
other = recorded[recorded['arm'] != 'se'].assign(dataset=hostile, backbone='b')
recorded = pd.concat([recorded, other])
explorers.StudyExplorer(recorded)""",
    "weights": """\
find = checkpoints.find_checkpoint
paths = {arm: find('../data/checkpoints', arm, seed=0) for arm in ('eca', 'se')}
trained = {arm: checkpoints.load_checkpoint(path)[0] for arm, path in paths.items()}
shapes = data.load_dataset('shapes')
explorers.ChannelWeightExplorer(trained, shapes, layer='layer1.attention', channel=3)""",
    "reduction": """\
torch.manual_seed(0)
layer = {arm: attention.make_attention(arm, 128) for arm in ('se', 'eca')}
layers = {hostile: {**layer, 'y': torch.randn(128)}}
explorers.ReductionExplorer(trained=layers)""",
    "names": """\
named = replace(shapes, classes=(hostile, *shapes.classes[1:]))
explorers.ChannelWeightExplorer({hostile: trained['eca']}, named)""",
    "kernel size": "explorers.KernelSizeExplorer()",
}


@pytest.fixture(scope="module")
def everything(lab, browser):
    """A page with an explorer of each kind, and one of hostile names; what went wrong in it."""
    page, wrong = new_page(browser), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    run_notebook(page, lab.notebook("everything", list(CELLS.values())))
    yield page, wrong
    page.context.close()


@pytest.fixture
def find(everything):
    """A function that gives the explorer of a cell of CELLS, and its page."""
    page, wrong = everything
    page.set_viewport_size({"width": 1280, "height": 1000})

    def find(cell):
        explorer = page.locator(".jp-CodeCell").nth(list(CELLS).index(cell)).locator(".eca-lab")
        explorer.scroll_into_view_if_needed()
        return explorer, page

    yield find
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert wrong == []


# Of one moment, for while a page takes its new size things move.
PLACES = """root => [".headline", ".main", ".picture", ".controls", ".readout"].map(each =>
    root.querySelector(each).getBoundingClientRect().toJSON())"""
# Waits until all is drawn in a new size, of which the page hears in a frame, and draws in the next.
DRAWN = """() => new Promise(done => {
    const wait = frames => requestAnimationFrame(() => frames ? wait(frames - 1) : done());
    wait(4);
})"""
# What is cut off at the right of its explorer.
STICKING_OUT = """root => [...root.querySelectorAll("*")].filter(each =>
    each.getBoundingClientRect().right > root.getBoundingClientRect().right + 1
).map(each => each.outerHTML.slice(0, 200))"""


def check_places(page, explorer):
    """The picture stands beside or directly above the controls, where there is room and where not.

    The main sliders stand directly below the headline, above the picture where they are narrow.
    """
    for width in (1000, 720, 350):  # of windows of 1040, 760 and 390 pixels
        explorer.evaluate("(root, width) => { root.style.width = `${width}px`; }", width)
        page.evaluate(DRAWN)
        headline, main, picture, controls, readout = explorer.evaluate(PLACES)
        assert 0 <= main["top"] - headline["bottom"] < 20
        assert picture["top"] <= controls["top"] < readout["top"]
        beside = picture["right"] <= controls["left"]
        assert beside or controls["top"] - picture["bottom"] < 20
        assert width == 1000 or picture["top"] >= main["bottom"]
        assert explorer.evaluate(STICKING_OUT) == []
    explorer.evaluate("root => { root.style.width = ''; }")


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
    from eca_lab.attention.kernel_size import TIES, released_kernel_sizes, stage_channels
    from eca_lab.explorers import KernelSizeExplorer

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
        assert (shown["k"], shown["se"]) == (
            adaptive_kernel_size(129, gamma=2.5, b=-1),
            2 * 129 * 8,
        )
        widths = stage_channels(network)
        formula = [adaptive_kernel_size(C, gamma=2.5, b=-1) for C in widths]
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
    check_outputs(save(page, lab.folder / NOTEBOOK))

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
        # What was refused goes with any change, here one that sets the same state again.
        explorer.get_by_role("button", name="Reset").press("Enter")
        expect(box).to_have_value("256")
        expect(explorer.get_by_role("alert").first).to_be_empty()
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
    check_places(page, explorer)

    # The kernel keeps the state when the page is loaded again; a new kernel begins anew.
    line = told(page).inner_text()
    save(page, lab.folder / NOTEBOOK)
    page.reload()
    expect(told(page)).to_have_text(line, timeout=30_000)
    wait_for_kernel(page)
    choose(page, "Kernel", "Restart Kernel and Run All Cells…")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(told(page)).to_have_text(
        "KernelSizeExplorer(channels=256, gamma=2, b=1)", timeout=30_000
    )
    finish_notebook(page)
    channels_slider(page).focus()
    page.keyboard.press("ArrowRight")
    expect(told(page)).to_contain_text("channels=267,")
    assert errors == []
    assert (ROOT / NOTEBOOK).read_bytes() == original


VERDICTS = """async ([text, given, margins, few]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {compared, verdict, conclusions} = await import(URL.createObjectURL(blob));
    const found = [];
    for (const setting of given.settings)
        for (const [metric, baselines] of Object.entries(setting.compared))
            for (const [baseline, known] of Object.entries(baselines)) {
                if (known.why) { found.push(known.why); continue; }
                known.numbers = new DataView(new Uint8Array(known.numbers).buffer);
                const rows = compared(setting, metric, baseline);
                const others = rows.filter(({arm}) => arm !== baseline);
                const pairs = others.map(row => row.pairs.map(one => [one.seed, one.difference]));
                const judge = margin => others.map(row => verdict(row, margin, given.level));
                const verdicts = margins.map(judge);
                const said = few.map(margin =>
                    conclusions(known.said, rows, {baseline, margin}, given.level));
                found.push({arms: others.map(({arm}) => arm), pairs, verdicts, said});
            }
    return found;
}"""


def test_the_page_judges_a_study_as_python_does(page):
    import pandas as pd

    from eca_lab.evidence import report, results
    from eca_lab.explorers import StudyExplorer

    study = results.load_results(ROOT / "data/results/study")
    study = study[study["arm"].isin(study["arm"].unique()[::4])]
    tiny = results.load_results(ROOT / "data/results/cifar10-tiny")
    # Without a seed, on another device, means that end in a five, and never a pair.
    odd = tiny.assign(dataset="odd").drop(tiny.index[[0, 11]])
    odd.loc[odd["seed"] == 1, "device"] = "cuda"
    odd.loc[(odd["seed"] == 1) & (odd["arm"] == "eca"), "device"] = "cpu"
    odd["top1"] = odd["top1"].round() + odd["seed"].isin([2, 4]) * (odd["arm"] == "se") / 4
    alone = odd.assign(dataset="alone", device=odd["arm"])
    explorer = StudyExplorer(pd.concat([study, tiny, odd, alone]))

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return list(value) if isinstance(value, bytes) else value

    given = {**explorer.given, "settings": [plain(each) for each in explorer.given["settings"]]}
    margins, few = explorer.MARGIN_STOPS, [0.2, 0.625, 3]
    found = iter(page.evaluate(VERDICTS, [explorer._esm, given, margins, few]))
    for setting, metric in itertools.product(given["settings"], explorer.METRICS):
        for baseline in setting["arms"]:
            state = {"data": setting["data"], "backbone": setting["backbone"]}
            state |= {"metric": metric, "baseline": baseline}
            shown = next(found)
            if isinstance(shown, str):
                with pytest.raises(ValueError, match=re.escape(shown)):
                    explorer.set_state(state)
                continue
            explorer.set_state(state)
            made = explorer.comparison
            assert shown["arms"] == list(made.table.index)
            for arm, pairs in zip(shown["arms"], shown["pairs"], strict=True):
                expected = made.differences[arm].dropna()
                assert pairs == [list(each) for each in expected.items()]
            expected = [made.at(margin).table["verdict"].tolist() for margin in margins]
            assert shown["verdicts"] == expected
            expected = [report.conclusions(made.at(margin)) for margin in few]
            assert shown["said"] == expected
    assert next(found, None) is None


# The intervals of a class that are drawn, in the unit of the axis.
INTERVALS = """(root, name) => {
    const labels = [...root.querySelectorAll(".plot g text")].filter(text => text.textContent);
    const places = labels.map(text => [text.textContent.replace("−", "-"), text.getAttribute("x")]);
    const ticks = places.map(pair => pair.map(Number)).filter(([value]) => !isNaN(value));
    const [[a, x], [b, y]] = [ticks[0], ticks.at(-1)];
    const value = pixel => a + (pixel - x) * (b - a) / (y - x);
    const ends = path => path.getAttribute("d").match(/M(\\S+) \\S+H(\\S+)/).slice(1).map(Number);
    return [...root.querySelectorAll(name)].map(path => ends(path).map(value));
}"""


def test_the_explorer_of_the_study_follows_keyboard_and_mouse(find):
    from playwright.sync_api import expect

    from eca_lab.evidence import results, stats
    from eca_lab.explorers import StudyExplorer

    explorer, page = find("study")
    tiny = results.load_results(ROOT / "data/results/cifar10-tiny")
    margin = explorer.get_by_label("margin ±, any value")
    lines = explorer.get_by_role("row")

    def check(baseline="eca", metric="top1"):
        """The table shows what Python finds at the margin that the box shows."""
        expect(told(explorer)).to_contain_text(f"metric='{metric}', baseline='{baseline}'")
        made = stats.compare(tiny, baseline, metric=metric).at(float(margin.input_value()))
        for arm, row in made.table.iterrows():
            numbers = f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
            line = lines.filter(has=page.get_by_role("button", name=arm, exact=True))
            expect(line).to_contain_text(re.sub(r"-(?=\d)", "−", numbers))
            expect(line).to_contain_text(row["verdict"])
            p = "p<0.01" if row["p_holm"] < 0.01 else f"p {row['p_holm']:.2f}"
            expect(line).to_contain_text(f"{p}, n {row['n']}")
        # And so do the intervals in the picture, by its own axis.
        n, difference, sd = made.table[["n", "difference", "sd"]].to_numpy().T
        for name, confidence in ((".interval", 0.95), (".inner", 0.9)):
            ends = t.interval(confidence, n - 1, difference, sd / n**0.5)
            shown = np.array(explorer.evaluate(INTERVALS, name)).T
            np.testing.assert_allclose(shown, ends, atol=0.01)
        return made

    check()
    # Every control by its keys: the arms, the metric, the margin, the setting.
    for arm in ("none", "se", "eca(k=1)", "eca(k=3)"):
        explorer.get_by_role("button", name=arm, exact=True).press("Enter")
        check(arm)
    explorer.get_by_label("metric").press("ArrowDown")
    check("eca(k=3)", "top5")
    slider = explorer.get_by_label("margin ±", exact=True)
    for key, value in (("Home", 0.01), ("ArrowRight", 0.02), ("End", 5), ("ArrowLeft", 4.47)):
        slider.press(key)
        expect(margin).to_have_value(str(value))
        assert value in StudyExplorer.MARGIN_STOPS
        check("eca(k=3)", "top5")
    margin.fill("99")
    margin.press("Enter")
    why = "margin=99: accepted is a finite number from 0.01 to 5"
    expect(explorer.get_by_role("alert").first).to_have_text(why)
    explorer.get_by_role("button", name="se", exact=True).press("Enter")
    explorer.get_by_label("setting").press("End")  # whose trials have no se
    expect(told(explorer)).to_contain_text(f"data='{HOSTILE}, ")
    expect(told(explorer)).to_contain_text(
        "backbone='b', metric='top5', baseline='eca', margin=4.47"
    )
    explorer.get_by_role("button", name="Reset").press("Enter")
    check()
    dots = explorer.get_by_role("slider", name="trials")
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):  # seed 0, seed 1, and that of the next arm
        dots.press(key)
    trial = tiny[(tiny["arm"] == "se") & (tiny["seed"] == 1)].iloc[0]
    shown = f"se: {trial['top1']:.2f}, {trial['identity']}.json"
    expect(explorer.locator(".tip")).to_contain_text(shown)
    expect(dots).to_have_attribute(
        "aria-valuetext", re.compile(f"^seed 1: .*; {re.escape(shown)}; ")
    )
    expect(dots).to_have_attribute("aria-valuenow", "2")

    # And by the mouse: the margin's edge, a dot, a line.
    def middle(mark):
        place = mark.bounding_box()
        return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2

    explorer.locator(".forest").scroll_into_view_if_needed()
    x, y = middle(explorer.locator("circle.edge").last)
    page.mouse.move(x, y)
    page.mouse.down()
    wide = []
    for step in range(1, 9):
        page.mouse.move(x + 6 * step, y)
        expect(margin).not_to_have_value(str(wide[-1] if wide else 0.2))
        wide.append(float(margin.input_value()))
    page.mouse.up()
    assert wide == sorted(wide)
    assert (check().table["verdict"] == "equivalent").any()
    page.mouse.move(*middle(explorer.locator("circle.dot").first))
    expect(explorer.locator(".tip")).to_contain_text(f"none: {tiny['top1'].iloc[0]:.2f}")
    expect(explorer.locator(".tip")).to_contain_text("cpu: ")
    expect(explorer.locator("circle.lit")).to_have_count(5)  # that seed of all other arms
    lines.filter(has_text="se").first.locator("b").click()
    check("se")
    mean = tiny.loc[tiny["arm"] == "se", "top1"].mean()
    expect(lines.filter(has_text="baseline")).to_contain_text(f"semean {mean:.2f}")
    # Escape undoes the press on an arm, and the drag of an edge.
    place = explorer.locator(".plot").bounding_box()
    on_arm = place["x"] + 3, place["y"] + 60
    for x, y in (on_arm, middle(explorer.locator("circle.edge").last)):
        before = margin.input_value()
        page.mouse.move(x, y)
        page.mouse.down()
        if y < place["y"] + 30:
            page.mouse.move(x + 20, y, steps=3)
            expect(margin).not_to_have_value(before)
        page.keyboard.press("Escape")
        page.mouse.up()
        expect(margin).to_have_value(before)
        check("se")
    check_places(page, explorer)


DECODED = """async ([text, bytes, counts]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {decode} = await import(URL.createObjectURL(blob));
    const {C, at, means} = decode(new DataView(Uint8Array.from(bytes).buffer), counts);
    return [C, at(7, 2), means.map(row => [...row])];
}"""


def test_the_weights_follow_keyboard_and_mouse(find):
    from playwright.sync_api import expect

    from eca_lab import data
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.networks import checkpoints

    explorer, page = find("weights")
    path = functools.partial(checkpoints.find_checkpoint, ROOT / "data" / "checkpoints", seed=0)
    trained = {arm: checkpoints.load_checkpoint(path(arm))[0] for arm in ("eca", "se")}
    same = ChannelWeightExplorer(
        trained, data.load_dataset("shapes"), layer="layer1.attention", channel=3
    )
    answered = same.answer["weights"], same.given["counts"]
    C, weight, means = page.evaluate(DECODED, [same._esm, [*answered[0]], answered[1]])
    assert (C, weight) == (16, pytest.approx(same.weights[7, 2], abs=0.002))
    expected = same.weights.reshape(10, 20, 16).mean(1)
    np.testing.assert_allclose(means, expected, atol=0.002)

    def follows(**changes):
        """The page shows what Python computes of this state."""
        same.set_state(changes)
        shown = repr(same).removeprefix("ChannelWeightExplorer(")
        expect(told(explorer)).to_have_text(f"ChannelWeightExplorer({shown}")
        of_class = same._classes[same.image // 20]
        weight = same.answer["weight"]
        words = f"Image {same.image}, {of_class}, channel {same.channel}: weight {weight:.3f}"
        changed = f" × {same.factor:g} = {weight * same.factor:.3f}"
        expect(explorer.locator(".headline")).to_have_text(
            words + ("" if same.factor == 1 else changed)
        )
        expect(explorer.locator(":scope.waiting")).to_have_count(0)
        rows = zip(same.answer["plain"], same.answer["changed"], strict=True)
        chances = [f"{100 * new:.1f}%" if max(old, new) >= 0.005 else "" for old, new in rows]
        expect(explorer.locator(".chances .asks text")).to_have_text(chances)

    follows()
    row = functools.partial(explorer.get_by_label, exact=True)
    # Every control by its keys to both ends, and the heat map.
    for label, last in (("image", 199), ("channel", 15), ("factor", 4)):
        row(label).focus()
        for key, value in (("End", last), ("Home", 0), ("ArrowRight", 0.1 if last == 4 else 1)):
            page.keyboard.press(key)
            follows(**{label: value})
    explorer.get_by_role("button", name="Channel off").press("Enter")
    follows(factor=0)
    explorer.get_by_role("button", name="Original").press("Enter")
    follows(factor=1)
    heat = explorer.get_by_role("application")
    heat.focus()
    for key, changes in (
        *(("ArrowDown", {"image": 2}), ("PageDown", {"image": 22}), ("ArrowRight", {"channel": 2})),
        *(("Escape", {"image": 1, "channel": 1}), ("End", {"channel": 15}), ("Enter", {})),
    ):
        page.keyboard.press(key)
        follows(**changes)
    explorer.get_by_label("layer").focus()
    page.keyboard.press("End")
    follows(layer="layer3.1.attention")
    row("channel").focus()
    page.keyboard.press("End")
    follows(channel=255)
    explorer.get_by_label("layer").focus()
    page.keyboard.press("Home")
    follows(layer="layer1.attention", channel=15)
    explorer.get_by_label("network").focus()
    page.keyboard.press("ArrowDown")
    follows(network="se")

    # The heat map by the mouse: pointing shows a cell for a while, a click for good.
    heat.scroll_into_view_if_needed()
    place = heat.bounding_box()
    all_images = explorer.locator(".heat canvas").nth(1).bounding_box()

    def point(image, channel):
        x = all_images["x"] + (channel + 0.5) * all_images["width"] / 16
        page.mouse.move(x, all_images["y"] + (image + 0.5) * all_images["height"] / 200, steps=3)

    box = explorer.get_by_label("image, any value")
    box.fill("17")  # and not entered yet
    point(150, 4)
    follows(image=150, channel=4)
    expect(box).to_have_value("17")
    page.mouse.move(place["x"] + 100, place["y"] - 10)
    follows(image=1, channel=15)
    box.press("Enter")
    follows(image=17)
    expect(box).to_have_value("17")
    point(90, 6)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(place["x"] + 100, place["y"] - 10)
    follows(image=90, channel=6)
    knob = explorer.locator(".knob").bounding_box()
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 170 / 4, steps=20)  # 170 pixels are a factor of 4
    page.mouse.up()
    follows(factor=2)

    box.fill("200")
    box.press("Enter")
    why = page.get_by_text("image=200: accepted is an integer from 0 to 199")
    expect(why).to_be_visible()
    explorer.get_by_role("button", name="Reset").click()
    follows(**same.given["initial"])
    expect(why).to_have_count(0)
    check_places(page, explorer)


READ = """async ([text, written]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {numberOf} = await import(URL.createObjectURL(blob));
    return written.map(([text, integer]) => numberOf(text, integer));
}"""


def test_boxes_read_numbers_as_people_and_the_lab_write_them(page, monkeypatch):
    from playwright.sync_api import expect

    from eca_lab.explorers import KernelSizeExplorer

    made = KernelSizeExplorer()
    integers = {"1,000": 1000, "2,047": 2047, "1_000": 1000, "12,345,678": 12345678, "64": 64}
    integers |= {f"1{space}000": 1000 for space in "\u00a0\u2009\u202f "}
    integers |= {" 7 ": 7, "+7": 7, "-7": -7, "−7": -7, "−1,000": -1000}
    integers |= dict.fromkeys(("1,5", "1.5", "1.000", "1,00", "10,00", "1,0000", "1,000_000"))
    integers |= dict.fromkeys((",000", "", "0x10", "1e3", "seven", "1 2", "1,000.5"))
    numbers = {"0,5": 0.5, "0.5": 0.5, "−0.5": -0.5, "1,5": 1.5, "2": 2, ".5": 0.5}
    numbers |= dict.fromkeys(("", "1,2,3", "x"))
    for integer, read in ((True, integers), (False, numbers)):
        found = page.evaluate(READ, [made._esm, [[text, integer] for text in read]])
        assert [None if np.isnan(each) else each for each in found] == list(read.values())

    show_alone(page, monkeypatch, made)
    box = page.get_by_label("channels C, any value")
    for text, channels, said in (
        ("1,000", 1000, ""),
        ("2 047", 2047, ""),
        ("1,5", 2047, "channels='1,5': accepted is an integer from 1 to 8192"),
        ("9,000", 2047, "channels='9,000': accepted is an integer from 1 to 8192"),
        ("1_024", 1024, ""),
    ):
        box.fill(text)
        box.press("Enter")
        expect(told(page)).to_contain_text(f"channels={channels}, ")
        expect(page.get_by_role("alert").first).to_have_text(said)


def test_escape_takes_back_what_is_written_and_what_is_dragged(page, monkeypatch):
    from playwright.sync_api import expect

    from eca_lab.explorers import KernelSizeExplorer

    show_alone(page, monkeypatch, KernelSizeExplorer())
    box, why = page.get_by_label("channels C, any value"), page.get_by_role("alert").first
    for text, enter, said in (("77", False, ""), ("1,5", True, "channels='1,5': accepted")):
        box.fill(text)
        if enter:
            box.press("Enter")
        expect(why).to_contain_text(said)
        box.press("Escape")
        expect(box).to_have_value("256")
        expect(why).to_be_empty()
    box.blur()
    expect(told(page)).to_contain_text("channels=256, ")

    slider = channels_slider(page)
    for dragged in (page.locator(".chart .point"), slider):
        place = dragged.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 40, y, steps=3)
        expect(told(page)).not_to_contain_text("channels=256, ")
        page.keyboard.press("Escape")
        expect(told(page)).to_contain_text("channels=256, ")
        page.mouse.move(x + 60, y, steps=3)  # still held, and yet dragged no more
        page.mouse.up()
        expect(told(page)).to_contain_text("channels=256, ")
    slider.press("ArrowRight")
    expect(told(page)).not_to_contain_text("channels=256, ")


# An explorer over a model whose traits the test sets, as a kernel does.
MODEL = """async ([text, given, answer, state]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {default: explorer, bytes} = await import(URL.createObjectURL(blob));
    const raw = (_, value) => value?.base64 === undefined ? value : bytes(value.base64);
    const traits = {...state, given, answer: JSON.parse(answer, raw)}, heard = {};
    window.tell = (event, told) => heard[event].forEach(hear => hear(told));
    const model = {
        get: name => traits[name], save_changes() {}, off() {},
        set: (name, value) => { traits[name] = value; tell(`change:${name}`); },
        on: (event, hear) => (heard[event] ??= []).push(hear),
    };
    window.take = changes => Object.entries(changes).forEach(each => model.set(...each));
    const el = document.body.appendChild(document.createElement("div"));
    explorer.render({model, el});
}"""


def test_a_state_that_cannot_be_is_not_drawn_and_heals(page):
    from playwright.sync_api import expect

    from eca_lab.data import load_dataset
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.explorers.explorer import _as_text
    from eca_lab.networks.backbones import build_model

    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    made = ChannelWeightExplorer(
        {"eca": build_model("tiny", "eca", num_classes=10)}, load_dataset("shapes")
    )
    made.channel = 99
    told = _as_text(made.given), _as_text(made.answer), made._state()
    page.evaluate(MODEL, [made._esm, *told])
    explorer, heading = page.locator(".eca-lab"), page.locator(".headline")
    expect(heading).to_contain_text("Image 0, arrow, channel 99")
    # As while cells run: the layer arrives, which has 16 channels, and channel 99 still holds.
    page.evaluate("take({layer: 'layer1.attention'})")
    expect(explorer).to_have_class(re.compile("unfit"))
    expect(heading).to_contain_text("Image 0, arrow, channel 99")
    # The kernel refuses, and says what holds.
    refused = "channel=99: accepted is an integer from 0 to 15"
    page.evaluate("take({layer: 'layer3.1.attention', channel: 3})")
    page.evaluate("refused => tell('msg:custom', {refused})", refused)
    expect(explorer).not_to_have_class(re.compile("unfit"))
    expect(heading).to_contain_text("Image 0, arrow, channel 3")
    expect(page.get_by_text(refused)).to_be_visible()
    page.get_by_label("channel, any value").fill("5")
    page.get_by_label("channel, any value").press("Enter")
    expect(page.get_by_text(refused)).to_have_count(0)
    assert wrong == []


def test_trained_modules_beside_random_ones_are_told_apart(page, monkeypatch):
    import torch
    from playwright.sync_api import expect

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    sizes = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16, "seed": 0}
    monkeypatch.setattr(ReductionExplorer, "RECORDED", {n: (v,) for n, v in sizes.items()})
    layer = {"se": SE(64, 16), "eca": ECA(64, 3), "y": torch.randn(64)}
    made = ReductionExplorer(trained={"layer3": layer})
    show_alone(page, monkeypatch, made)
    choose = page.get_by_label("weights")
    names, all_random = ("SE", "SE-GC", "ECA"), ["random"] * 3
    for weights, kinds in (("random", all_random), ("layer3", ["trained", "random", "trained"])):
        choose.select_option(weights)
        row = page.get_by_role("row").filter(has_text="weights")
        expect(row.locator("td")).to_have_text(kinds)
        titles = [re.compile(f"^{n}\\s.*, {k}$") for n, k in zip(names, kinds, strict=True)]
        expect(page.locator(".map .title")).to_have_text(titles)


SETTLED = """async ([text, given, steps]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {settled, costs, hears} = await import(URL.createObjectURL(blob));
    const states = steps.map(([state, changes]) => settled(state, changes, given.layers));
    return {states, costs: states.map(costs), heard: hears(Int16Array.of(-3, 0, 1, 9, 0, 2))};
}"""


def show_alone(page, monkeypatch, made):
    """Show an explorer as a page of the site does, without a kernel."""
    from eca_lab.site import pages

    shown = []
    monkeypatch.setattr(pages, "display", lambda data, raw: shown.append(data[pages.TOLD]))
    pages.record(made)
    told = f'<script id="told" type="application/json">{shown[0]}</script>'
    page.set_content(f'<style>{made._css}</style>{told}<div class="explorer"></div>')
    alone = ROOT / "eca_lab" / "explorers" / "page.js"
    page.add_script_tag(content=alone.read_text(encoding="utf-8"), type="module")


def test_a_link_of_trained_weights_opens_them(page, monkeypatch):
    import torch
    from playwright.sync_api import expect

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    one = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16, "seed": 0}
    recorded = {name: (size,) for name, size in one.items()}
    monkeypatch.setattr(ReductionExplorer, "RECORDED", recorded)
    layer = {"se": SE(256, 16), "eca": ECA(256, 5), "y": torch.randn(256)}
    show_alone(page, monkeypatch, ReductionExplorer(trained={"layer3": layer}))
    for said, shown in (
        (
            "channels=256&kernel_size=5&weights=layer3",
            "channels=256, reduction=16, kernel_size=5, groups=16, weights='layer3')",
        ),
        ("channels=1000000000&seed=0", "channels=64, reduction=16, kernel_size=3"),
    ):
        page.evaluate("said => { location.hash = said; }", said)
        expect(told(page)).to_contain_text(shown)
        expect(page.get_by_text("This needs a kernel")).to_have_count(0)


def test_what_is_set_by_others_is_not_taken_back(page, monkeypatch):
    from playwright.sync_api import expect

    from eca_lab.data import load_dataset
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.networks.backbones import build_model

    made = ChannelWeightExplorer({"eca": build_model("tiny", "eca")}, load_dataset("shapes"))
    show_alone(page, monkeypatch, made)
    page.locator(".heat").hover(position={"x": 400, "y": 300})
    expect(told(page)).not_to_contain_text("layer3.1.attention')")  # but with image and channel
    page.evaluate("location.hash = 'layer=layer1.attention&channel=3'")
    expect(told(page)).to_contain_text("layer='layer1.attention', channel=3)")
    page.mouse.move(0, 0)
    page.locator(".headline").hover()
    expect(told(page)).to_contain_text("layer='layer1.attention', channel=3)")
    expect(page.locator(".headline")).to_contain_text("channel 3")


def test_of_an_image_that_was_not_recorded_only_what_is_known_is_shown(page, monkeypatch):
    from playwright.sync_api import expect

    from eca_lab.data import load_dataset
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.networks.backbones import build_model

    made = ChannelWeightExplorer({"eca": build_model("tiny", "eca")}, load_dataset("shapes"))
    show_alone(page, monkeypatch, made)
    heading, pictures = page.locator(".headline"), page.locator(".maps canvas")
    needs = page.get_by_text("This needs a kernel: open the notebook.")
    unknown = page.get_by_text(re.compile("^(Predicts|map 0 before|after, |probability)"))
    box = page.get_by_label("image, any value")
    for image in (0, 1, 0):
        box.fill(str(image))
        box.press("Enter")
        expect(heading).to_contain_text(f"Image {image}, ")
        expect(page.get_by_text(f"image {image}", exact=True)).to_be_visible()
        expect(pictures.first).to_be_visible()
        for each in [*unknown.all(), *pictures.all()[1:], page.locator(".chances")]:
            expect(each).to_be_visible(visible=image == 0)
        assert unknown.count() == 4
        expect(needs).to_have_count(image)


def test_of_sizes_that_were_not_recorded_only_what_is_known_is_shown(page, monkeypatch):
    from playwright.sync_api import expect

    from eca_lab.explorers import ReductionExplorer

    sizes = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16, "seed": 0}
    monkeypatch.setattr(ReductionExplorer, "RECORDED", {n: (v, 2 * v) for n, v in sizes.items()})
    monkeypatch.setattr(ReductionExplorer, "_recorded", lambda _: [{}])
    show_alone(page, monkeypatch, ReductionExplorer())
    box = page.get_by_label("channels C, any value")
    rows = page.get_by_role("row", include_hidden=True)
    parameters, rank = (rows.filter(has_text=re.compile(f"^{n}")) for n in ("parameters", "rank"))
    for channels in (64, 128, 64):
        box.fill(str(channels))
        box.press("Enter")
        expect(told(page)).to_contain_text(f"channels={channels}, ")
        expect(parameters).to_contain_text(f"{channels**2 // 8:,}")
        for each in (rank, page.locator(".maps"), page.locator(".spectrum")):
            expect(each).to_be_visible(visible=channels == 64)


def test_the_page_settles_a_state_as_python_does(page):
    import torch

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    class Unanswered(ReductionExplorer):
        def _answer(self):
            return {}

    layers = {str(C): {"se": SE(C, r), "eca": ECA(C, k)} for C, r, k in ((16, 4, 3), (64, 8, 5))}
    layers = {name: {**layer, "y": torch.ones(int(name))} for name, layer in layers.items()}
    explorer = Unanswered(trained=layers)
    wide = {"channels": 512, "reduction": 512, "kernel_size": 511, "groups": 512}
    starts = [explorer._state(), {**explorer._state(), **wide}]
    starts += [{**explorer._state(), **explorer._layers[name], "weights": name} for name in layers]
    steps, expected = [], []
    for start in starts:
        changes = [{"channels": C} for C in (*range(8, 33), 63, 64, 97, 500, 511, 512)]
        changes += [{"reduction": 4}, {"kernel_size": 7}, {"groups": 2}, {"seed": 99}]
        changes += explorer.PRESETS.values()
        changes += [{"weights": name} for name in ("random", *layers)]
        for change in changes:
            with explorer.hold_trait_notifications():
                for name, value in start.items():
                    setattr(explorer, name, value)
            # A preset of several sizes is one action of the page; alone they would lower others.
            for name, value in sorted(change.items(), key=lambda item: item[0] != "channels"):
                setattr(explorer, name, value)
            steps.append([start, change])
            expected.append(explorer._state())
    result = page.evaluate(SETTLED, [explorer._esm, explorer.given, steps])
    assert result["states"] == expected
    for state, costs in zip(expected, result["costs"], strict=True):
        C, units = state["channels"], state["channels"] // state["reduction"]
        width, k = C // state["groups"], state["kernel_size"]
        assert costs == {
            "hidden": units,
            "width": width,
            "parameters": [2 * C * units, C * width, k],
            "multiplyAdds": [2 * C * units, C * width, k * C],
        }
    assert result["heard"] == [4, [[4, 9], [1, -3], [6, 2]]]


def test_the_explorer_of_the_reduction_follows_keyboard_and_mouse(find):
    import torch
    from playwright.sync_api import expect

    from eca_lab.attention.modules import make_attention
    from eca_lab.explorers import ReductionExplorer

    explorer, page = find("reduction")
    torch.manual_seed(0)
    layer = {arm: make_attention(arm, 128) for arm in ("se", "eca")} | {"y": torch.randn(128)}
    mirror = ReductionExplorer(trained={HOSTILE: layer})
    cell = explorer.locator("table tr")

    def check(**changes):
        """The read-outs are those of an explorer here, after the same changes."""
        for trait, value in changes.items():
            setattr(mirror, trait, value)
        expect(told(explorer)).to_have_text(repr(mirror))
        expect(explorer).not_to_have_class(re.compile("waiting"))
        measures = mirror.table
        for row, shown in enumerate(
            [
                *(measures[each].map("{:,}".format) for each in ("parameters", "multiply_adds")),
                measures["rank"].astype(str),
                ["–" if np.isnan(x) else f"{x:.1f}" for x in measures["effective_rank"]],
            ]
        ):
            expect(cell.nth(row + 1).locator("td")).to_have_text(list(shown))

    check()
    for label, trait, values in (
        ("reduction r", "reduction", (1, 64)),
        ("kernel k", "kernel_size", (1, 63)),
        ("groups g", "groups", (1, 64)),
        ("seed", "seed", (0, 99)),
        ("channels C", "channels", (8, 512)),
    ):
        explorer.get_by_label(label, exact=True).focus()
        for key, value in zip(("Home", "End"), values, strict=True):
            page.keyboard.press(key)
            check(**{trait: value})
            if value == 8:
                lowered = "Lowered to fit C = 8: reduction to 8, kernel_size to 7, groups to 8"
                expect(explorer.get_by_role("status")).to_have_text(lowered)
    explorer.get_by_label("weights").focus()
    page.keyboard.press("End")
    check(weights=HOSTILE)
    explorer.get_by_role("button", name="no interaction").press("Enter")
    check(kernel_size=1)
    explorer.get_by_role("button", name="Reset").press("Enter")
    check(channels=64, reduction=16, kernel_size=3, groups=16, seed=0)
    explorer.get_by_role("button", name="Draw again").press("Enter")
    check(seed=1)
    for label, trait, wrong, right, why in (
        ("groups g", "groups", 3, 8, "one of 1, 2, 4, 8, 16, 32, 64"),
        ("kernel k", "kernel_size", 4, 61, "an odd integer"),
        ("reduction r", "reduction", 65, 63, "an integer from 1 to 64"),
    ):
        box = explorer.get_by_label(f"{label}, any value")
        message = explorer.get_by_text(f"{trait}={wrong}: accepted is {why}", exact=True)
        for value, shown in ((wrong, 1), (right, 0)):
            box.fill(str(value))
            box.press("Enter")
            expect(message).to_have_count(shown)
        check(**{trait: right})

    def hears(row):
        """What the page shall say of a row, counted from 1."""
        for answer, label in zip(mirror.answer["modules"], ("SE", "SE-GC", "ECA"), strict=True):
            matrix = np.frombuffer(answer["matrix"], np.int16).reshape(64, 64)[row - 1]
            strongest = np.argsort(-np.abs(matrix.astype(int)), kind="stable")[:3] + 1
            strongest = [str(j) for j in strongest if matrix[j - 1]]
            yield f"{label} hears {np.count_nonzero(matrix)} of 64", strongest

    def check_row(row):
        expect(rows).to_have_attribute("aria-valuenow", str(row))
        spoken = rows.get_attribute("aria-valuetext")
        assert spoken.startswith(f"Channel {row}: ")
        parts = spoken.split(": ")[1].split("; ")
        for part, (words, strongest) in zip(parts, hears(row), strict=True):
            first, *others = part.split("\n")
            assert first == words
            assert [other.split(" by ")[0] for other in others] == strongest

    rows = explorer.get_by_role("slider", name="row of the matrices")
    for number in range(3):
        canvas = rows.locator(".matrix canvas:first-child").nth(number)
        side = canvas.bounding_box()["height"]
        canvas.hover(position={"x": 40, "y": side * (10 + number + 0.5) / 64})
        check_row(11 + number)
    rows.focus()
    steps = (("ArrowDown", 14), ("ArrowUp", 13), ("End", 64), ("Home", 1))
    for key, row in (("Alt+ArrowDown", 13), *steps):  # with Alt an arrow is the browser's
        page.keyboard.press(key)
        check_row(row)

    check_places(page, explorer)


def test_a_finger_drags_and_copy_fills_the_clipboard(find):
    from playwright.sync_api import expect

    sizes, page = find("kernel size")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def touch(kind, *points):
        points = [{"x": x, "y": y} for x, y in points]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def middle(mark):
        place = mark.bounding_box()
        return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2

    def pull(mark, right):
        x, y = middle(mark)
        touch("touchStart", (x, y))
        for step in range(1, 9):
            touch("touchMove", (x + right * step / 8, y + step))
        touch("touchEnd")

    chart = sizes.locator(".chart")
    chart.scroll_into_view_if_needed()
    channels = sizes.get_by_label("channels C, any value")
    place = chart.bounding_box()
    start, beside = ((place["x"] + x, place["y"] + 40) for x in (150, 250))
    touch("touchStart", start)
    expect(channels).not_to_have_value("256")
    first = channels.input_value()
    touch("touchStart", start, beside)  # a second finger
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    expect(channels).to_have_value(first)
    touch("touchCancel")  # as where the page scrolls
    expect(channels).to_have_value("256")
    stages = [middle(chart.locator(".formula").nth(number))[0] for number in range(2)]
    channels.fill("300")
    for key, value in (("ArrowUp", "267"), ("ArrowDown", "256")):
        channels.press(key)
        expect(channels).to_have_value(value)
    channels.fill("300")  # and not entered before the point is pulled
    pull(chart.locator(".point"), stages[1] - stages[0])  # an octave
    expect(sizes.get_by_label("channels C, any value")).to_have_value("512")
    study, _ = find("study")
    study.get_by_role("button", name="Reset").click()
    study.locator(".forest").scroll_into_view_if_needed()
    place = study.locator(".plot").bounding_box()
    touch("touchStart", (place["x"] + 3, place["y"] + 60))  # on an arm
    touch("touchCancel")
    expect(told(study)).to_contain_text("baseline='eca'")
    grips = [middle(each)[0] for each in study.locator("circle.edge").all()]
    point = (grips[1] - grips[0] - 14) / 0.4  # the margin is 0.2, the grips stand 7 pixels beyond
    pull(study.locator("circle.edge").last, 0.3 * point)
    expect(study.get_by_label("margin ±, any value")).to_have_value("0.5")
    expect(told(study)).to_contain_text("baseline='eca', margin=0.5")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sizes.get_by_role("button", name="Copy").click()
    expect(sizes.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "KernelSizeExplorer(channels=512, gamma=2, b=1)"


def test_names_run_nothing_in_the_page(find):
    from playwright.sync_api import expect

    explorer, page = find("names")
    expect(explorer.locator(".headline")).to_contain_text(f"Image 0, {HOSTILE},")
    expect(explorer.locator(".heat text").filter(has_text="<img src=x …")).to_have_count(2)
    network = explorer.get_by_label("network").locator("option")
    expect(network).to_have_text([HOSTILE])
    expect(page.locator(".jp-OutputArea .eca-lab img")).to_have_count(0)


def test_explorers_are_there_when_the_notebook_is_opened_again(lab, everything):
    from playwright.sync_api import expect

    page, wrong = everything
    path = NOTEBOOK.with_name("everything.ipynb")
    before = told(page).all_inner_texts()
    for _ in range(2):  # the second time no cell has run
        save(page, lab.folder / path)
        shut_kernel_down(page)
        page.goto("about:blank")
        page.goto(lab.url(path))
        expect(told(page)).to_have_text(before, timeout=60_000)
        expect(page.get_by_text("Error displaying widget")).to_have_count(0)
        wait_for_kernel(page)
    # What needs no kernel goes on without one.
    channels_slider(page).last.press("Home")
    channels_slider(page).last.press("ArrowRight")
    expect(told(page).last).to_contain_text("channels=2, ")
    assert wrong == []
