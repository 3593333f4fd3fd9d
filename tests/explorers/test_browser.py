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
from in_page import ExplorerInPage, Finger, draw_star, middle
from playwright.sync_api import expect
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
layer = {arm: modules.make_attention(arm, 128) for arm in ('se', 'eca')}
layers = {hostile: {**layer, 'y': torch.randn(128)}}
explorers.ReductionExplorer(trained=layers)""",
    "module": "explorers.ModuleExplorer()",
    "names": """\
named = replace(shapes, classes=(hostile, *shapes.classes[1:]))
explorers.ChannelWeightExplorer({hostile: trained['eca'], 'b': trained['se']}, named)""",
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
    """A function that gives the explorer of a cell of CELLS."""
    page, wrong = everything
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.mouse.move(0, 0)

    def find(cell):
        root = page.locator(".jp-CodeCell").nth(list(CELLS).index(cell)).locator(".eca-lab")
        root.scroll_into_view_if_needed()
        return ExplorerInPage(page, root)

    yield find
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert wrong == []


@pytest.mark.parametrize("cell", ["module", "kernel size", "study", "weights", "reduction"])
def test_all_parts_of_an_explorer_have_their_places(find, cell):
    find(cell).check_places()


# --- The explorer of the module ---


NUMBERS = """async ([text, given, states]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {fits, reach, sigmoid, sums} = await import(URL.createObjectURL(blob));
    return states.map(state => {
        const {eca, se} = sums(state, given.se);
        const weights = {eca: eca.map(sigmoid), se: se.map(sigmoid)};
        return {...weights, reach: reach(state, given), fits: fits(state, given)};
    });
}"""


def test_the_page_weighs_channels_as_python_does(page):
    from eca_lab.explorers import ModuleExplorer

    explorer, rng, states = ModuleExplorer(), np.random.default_rng(0), []
    for k in 4 * explorer.KERNEL_SIZES:
        with explorer.hold_trait_notifications():
            explorer.averages = rng.uniform(0, 2, 24).round(2)
            explorer.kernel = rng.uniform(-2, 2, k).round(1)
            explorer.order = 1 + rng.permutation(24)
            explorer.channel = rng.integers(1, 25)
        states.append((explorer._state(), explorer.table, explorer.reach))
    given = [state for state, _, _ in states]
    found = page.evaluate(NUMBERS, [explorer._esm, explorer.given, given])
    for shown, (_, table, reach) in zip(found, states, strict=True):
        for arm in ("eca", "se"):
            np.testing.assert_allclose(shown[arm], table[arm], rtol=1e-12)
        assert shown["reach"] == list(reach.values())
        assert shown["fits"]


@pytest.fixture(scope="module")
def same_module():
    """The explorer of the module in Python, which computes what the page has to show."""
    from eca_lab.explorers import ModuleExplorer

    return ModuleExplorer()


class Module(ExplorerInPage):
    """The explorer of the module; same is that in Python."""

    def __init__(self, found, same):
        super().__init__(found.page, found.root)
        self.same = same
        self.averages = self.root.get_by_role("slider", name="average of the channel")
        self.kernel = self.root.get_by_role("slider", name="weight of the kernel")
        self.point = self.root.get_by_role("status")

    def follows(self, **changes):
        """The page shows what Python computes of its state after these changes."""
        same = self.same
        same.set_state(changes)
        expect(self.state).to_have_text(repr(same))
        weights = same.table.loc[same.channel]
        words = f"ECA × {weights['eca']:.2f}, SE × {weights['se']:.2f}"
        expect(self.headline).to_have_text(f"Channel {same.channel}: {words}")
        eca, se = same.reach.values()
        reach = f"{eca} weight{'' if eca == 1 else 's'} of ECA and {se} of SE."
        expect(self.shown(".readout b", has_text=" and ")).to_have_text(reach)

    def moved(self, eca, se):
        """The page marks so many weights as other than before."""
        for arm, number in (("eca", eca), ("se", se)):
            expect(self.root.get_by_text(f"{number} of 24 moved").first).to_be_visible()
            expect(self.shown(f".{arm} .was:not([height='0'])")).to_have_count(number)

    def averaged(self, channel, average):
        """The averages, with another one of a channel."""
        averages = list(self.same.averages)
        averages[channel - 1] = average
        return averages

    def knob(self, channel):
        return self.shown(".average .knob").nth(channel - 1)


@pytest.fixture
def module(find, same_module):
    """The explorer of the module, as it begins."""
    explorer = Module(find("module"), same_module)
    explorer.push("Reset")
    explorer.follows(**same_module.given["initial"])
    expect(explorer.root).not_to_have_class(re.compile("shuffling"))
    return explorer


def test_an_average_is_dragged_and_ecas_neighbours_follow_and_all_of_se(module):
    module.drag(module.knob(12), up=42)  # 42 pixels are 1
    module.follows(channel=12, averages=module.averaged(12, 1.6))
    module.moved(3, 24)
    module.drag(module.knob(1), up=500)
    module.follows(channel=1, averages=module.averaged(1, 2))
    module.moved(2, 24)
    hears = "Beyond the ends there are no channels: of its 3 numbers channel 1 hears 1 as 0."
    expect(module.point).to_have_text(hears)
    with module.held(module.knob(5)) as move:
        move(0, 60)
        expect(module.headline).to_contain_text("Channel 5: ")
        module.press("Escape")
        module.follows(channel=5)  # to which the mouse had come before the press


def test_the_kernel_is_dragged_and_slides(module):
    box = module.shown(".box")
    place = module.shown(".rim").bounding_box()
    wide = (place["width"] - 6) / 3
    module.drag(box.locator(".knob").nth(2), up=14.5)  # 14.5 pixels are 1
    module.follows(kernel=(-0.5, 1.5, 0.5))
    module.moved(23, 0)  # the last channel hears 0 by this weight
    module.drag(box.locator(".grip"), right=4 * wide)
    module.follows(channel=11)
    # Where the mouse points at a weight or an average, the kernel comes; on itself it stays.
    for mark, channel in ((module.shown(".se .bar").nth(19), 20), (module.knob(3), 3)):
        module.page.mouse.move(*middle(mark))
        module.follows(channel=channel)
    x, y = middle(box.locator(".tap").nth(2))
    module.page.mouse.move(x, y)
    module.follows(channel=3)
    module.moved(23, 0)


def test_keys_reach_all_averages_and_weights_of_the_kernel(module):
    module.averages.focus()
    for key, changes in (
        *(("ArrowRight", {"channel": 8}), ("ArrowUp", {"averages": (8, 0.9)})),
        *(("PageDown", {"averages": (8, 0.65)}), ("End", {"channel": 24})),
        *(("ArrowDown", {"averages": (24, 0.75)}), ("Home", {"channel": 1})),
        ("ArrowLeft", {}),
    ):
        module.press(key)
        if "averages" in changes:
            changes = {"averages": module.averaged(*changes["averages"])}
        module.follows(**changes)
    spoken = re.compile("^channel 1: average 0.30, ECA 0.54, SE ")
    expect(module.averages).to_have_attribute("aria-valuetext", spoken)
    module.kernel.focus()
    for key, kernel in (
        *(("Home", None), ("ArrowUp", (-0.4, 1.5, -0.5)), ("ArrowRight", None)),
        *(("PageDown", (-0.4, 1, -0.5)), ("End", None), ("ArrowDown", (-0.4, 1, -0.6))),
    ):
        module.press(key)
        module.follows(**({"kernel": kernel} if kernel else {}))
    expect(module.kernel).to_have_attribute("aria-valuetext", "weight 3 of 3: −0.60")


def test_k_takes_outer_weights_and_brings_them_back(module):
    k = module.slider("kernel k")
    k.focus()
    for key, kernel in (
        ("End", (-0.05, -0.1, -0.25, -0.5, 1.5, -0.5, -0.25, -0.1, -0.05)),
        ("Home", (1.5,)),
        ("ArrowRight", (-0.5, 1.5, -0.5)),
        ("ArrowRight", (-0.25, -0.5, 1.5, -0.5, -0.25)),
    ):
        module.press(key)
        module.follows(kernel=kernel)
    expect(module.point).to_have_text("Equation 12 gives 24 channels k = 3; this is k = 5.")


def test_boxes_of_the_module_say_why_they_do_not_take_what_is_written(module):
    kernel = module.root.get_by_label("kernel w")
    accepted = "accepted are 1 or 3 or 5 or 7 or 9 finite numbers from -2 to 2"
    for written in ("1, 1", "1, x, 1", "0.5, 3, 0.5", "", "NaN"):
        kernel.fill(written)
        kernel.press("Enter")
        message = module.root.get_by_text(f'kernel="{written}": {accepted}', exact=True)
        expect(message).to_be_visible()
        module.follows()
    kernel.press("Escape")
    expect(kernel).to_have_value("-0.5, 1.5, -0.5")
    expect(message).to_have_count(0)
    kernel.fill("0.25 −1; .25")
    kernel.press("Enter")
    module.follows(kernel=(0.25, -1, 0.25))
    for label, wrong, right, why, changes in (
        ("kernel k", 4, 1, "k=4: accepted is an odd integer", {"kernel": (-1,)}),
        ("kernel k", "x", 1, "k='x': accepted is an integer from 1 to 9", {}),
        ("channel", 25, 3, "channel=25: accepted is an integer from 1 to 24", {"channel": 3}),
        ("its average", "NaN", 0.123, "average='NaN': accepted is a finite number", {}),
    ):
        for value, shown in ((wrong, 1), (right, 0)):
            module.type_into(label, value)
            expect(module.root.get_by_text(why)).to_have_count(shown)
        module.follows(
            **changes or {"averages": module.averaged(3, 0.123)} if right != 1 else changes
        )


def test_presets_of_the_module_make_their_points(module):
    for preset, point in (
        ("k = 1 hears nobody", "k = 1 hears nobody: the weight of a channel follows its own"),
        ("The ends hear zeros", "All averages are alike, but 4 weights of ECA differ: beyond"),
        ("Reset", "k = 3 is what Equation 12 gives 24 channels."),
        ("Shuffle the channels", "Shuffled: among other neighbours 24 of 24 channels get another"),
    ):
        module.push(preset)
        module.follows(**module.same.PRESETS.get(preset, module.same.given["initial"]))
        expect(module.point).to_contain_text(point)
    module.moved(24, 0)
    expect(module.root).not_to_have_class(re.compile("shuffling"))
    numbers = module.shown(".average .number")
    expect(numbers.nth(9)).to_have_text("10")
    first, second = (middle(numbers.nth(channel - 1))[0] for channel in (10, 3))
    assert first < second  # after they have gone to their places
    module.press("ArrowLeft", on=module.averages)  # along the places
    order = module.same.order
    module.follows(channel=order[order.index(7) - 1])


# --- The explorer of the kernel size ---


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


def test_a_notebook_runs_and_its_explorer_lives_as_long_as_the_kernel(lab, page):
    errors, original = [], (ROOT / NOTEBOOK).read_bytes()
    page.on("pageerror", lambda error: errors.append(str(error)))
    run_notebook(page, lab.url(NOTEBOOK))
    check_outputs(save(page, lab.folder / NOTEBOOK))
    explorer = ExplorerInPage(page)
    expect(explorer.box("channels C")).to_have_value("256")
    explorer.press("ArrowLeft", on=channels_slider(page))
    expect(explorer.state).not_to_contain_text("channels=256,")
    explorer.check_places()

    # The kernel keeps the state when the page is loaded again; a new kernel begins anew.
    line = explorer.state.inner_text()
    save(page, lab.folder / NOTEBOOK)
    page.reload()
    expect(explorer.state).to_have_text(line, timeout=30_000)
    wait_for_kernel(page)
    choose(page, "Kernel", "Restart Kernel and Run All Cells…")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    begun = "KernelSizeExplorer(channels=256, gamma=2, b=1)"
    expect(explorer.state).to_have_text(begun, timeout=30_000)
    finish_notebook(page)
    explorer.press("ArrowRight", on=channels_slider(page))
    expect(explorer.state).to_contain_text("channels=267,")
    expect(page.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    assert errors == []
    assert (ROOT / NOTEBOOK).read_bytes() == original


@pytest.fixture
def sizes(find):
    """The explorer of the kernel size, as it begins."""
    explorer = find("kernel size")
    explorer.push("Reset")
    expect(explorer.state).to_have_text("KernelSizeExplorer(channels=256, gamma=2, b=1)")
    return explorer


def test_arrows_lead_through_the_channels(sizes):
    from eca_lab.explorers import KernelSizeExplorer

    # Seventeen stops down from 256 lead across 128, where k changes.
    stops = KernelSizeExplorer.CHANNEL_STOPS
    start = stops.index(256)
    sizes.slider("channels C").focus()
    for channels in reversed(stops[start - 17 : start]):
        sizes.press("ArrowLeft")
        line = f"KernelSizeExplorer(channels={channels}, gamma=2, b=1)"
        expect(sizes.state).to_have_text(line)
        k = re.compile(rf"k = {adaptive_kernel_size(channels)}$")
        expect(sizes.shown("[role=status]")).to_have_text(k)
    assert channels == 123


def test_keys_reach_all_of_the_kernel_size(sizes):
    for label, ends in (("channels C", (1, 8192)), ("slope γ", (0.5, 4)), ("offset b", (-4, 4))):
        sizes.slider(label).focus()
        for key, value in zip(("Home", "End"), ends, strict=True):
            sizes.press(key)
            expect(sizes.box(label)).to_have_value(str(value))
    sizes.press("ArrowDown", on=sizes.choice("ties go"))
    expect(sizes.state).to_contain_text("gamma=4, b=4, ties='down'")
    sizes.press("End", on=sizes.choice("network"))
    expect(sizes.shown("caption")).to_have_text("Stages of MobileNetV2")
    sizes.push("C = 320")
    expect(sizes.state).to_contain_text("channels=320, ")
    sizes.push("Reset")
    expect(sizes.state).to_have_text("KernelSizeExplorer(channels=256, gamma=2, b=1)")
    sizes.root.get_by_role("slider", name="row of the matrix").focus()
    for _ in range(3):
        sizes.press("ArrowDown")
    heard = "Channel 3 hears channels 1 to 5, by w₁ to w₅ of 5."
    expect(sizes.shown(".told")).to_have_text(heard)


def test_the_box_says_why_it_does_not_take_a_number_of_channels(sizes):
    box = sizes.box("channels C")
    for wrong in ("0", "64.5", "8193"):
        sizes.type_into("channels C", wrong)
        why = f"channels={wrong}: accepted is an integer from 1 to 8192"
        expect(sizes.why).to_have_text(why)
        expect(sizes.state).to_contain_text("channels=256,")
        # What was refused goes with any change, here one that sets the same state again.
        sizes.push("Reset")
        expect(box).to_have_value("256")
        expect(sizes.why).to_be_empty()
    sizes.type_into("channels C", 2048)
    tie = "A tie: 6 is midway between 5 and 7; ties go up: k = 7"
    expect(sizes.shown("[role=status]")).to_have_text(tie)
    expect(sizes.why).to_be_empty()


def test_the_chart_of_the_kernel_size_is_dragged(sizes):
    chart = sizes.shown(".chart")
    chart.scroll_into_view_if_needed()
    # 26 pixels are one k: the line at 2^12 goes from 6.5 to 7.5, so gamma from 2 to 13 / 7.5.
    sizes.drag(chart.locator(".handle", has_text="γ"), up=26)
    expect(sizes.state).to_contain_text("gamma=1.7, b=1")
    sizes.drag(chart.locator(".handle", has_text="b"), up=-26)
    expect(sizes.state).to_contain_text("gamma=1.7, b=-0.5")
    sizes.drag(chart.locator(".point"), right=-100)
    expect(sizes.state).not_to_contain_text("channels=256,")
    sizes.drag(chart.locator(".formula").nth(1))  # a press alone
    expect(sizes.state).to_contain_text("channels=512,")
    expect(chart.locator(".tip")).to_contain_text("Stage 2: C = 512, k = 5 by Equation 12, as")


# --- The explorer of a study ---


VERDICTS = """async ([text, given, margins, few]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {compared, verdicts, conclusions} = await import(URL.createObjectURL(blob));
    const found = [];
    for (const setting of given.settings)
        for (const [metric, baselines] of Object.entries(setting.compared))
            for (const [baseline, known] of Object.entries(baselines)) {
                if (known.why) { found.push(known.why); continue; }
                known.numbers = new DataView(new Uint8Array(known.numbers).buffer);
                const rows = compared(setting, metric, baseline, given.quantiles);
                const others = rows.filter(({arm}) => arm !== baseline);
                const pairs = others.map(row => row.pairs.map(one => [one.seed, one.difference]));
                const judge = margin => verdicts(rows, margin, given.level)
                    .filter((_, i) => rows[i].arm !== baseline);
                const judged = margins.map(judge);
                const said = few.map(margin => conclusions(known.facts, rows, margin, given));
                found.push({arms: others.map(({arm}) => arm), pairs, verdicts: judged, said});
            }
    return found;
}"""


def test_the_page_judges_a_study_as_python_does(page):
    import pandas as pd

    from eca_lab.evidence import report, results
    from eca_lab.evidence.stats import LEVEL
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
    adjusted = set()
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
            tables = [made.at(margin).table for margin in margins]
            assert shown["verdicts"] == [table["verdict"].tolist() for table in tables]
            adjusted |= {
                ((table["p_equivalence"] < LEVEL) & (table["p_equivalence_holm"] >= LEVEL)).any()
                for table in tables
            }
            expected = [report.conclusions(made.at(margin)) for margin in few]
            assert shown["said"] == expected
    assert next(found, None) is None
    assert adjusted == {False, True}  # some margins tell Holm's verdict from that of a test alone


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


class Study(ExplorerInPage):
    """The explorer of the study of the pilot."""

    @functools.cached_property
    def trials(self):
        from eca_lab.evidence import results

        return results.load_results(ROOT / "data/results/cifar10-tiny")

    @property
    def margin(self):
        return self.box("margin ±")

    def line(self, arm):
        """The line of the table of an arm."""
        arm = self.page.get_by_role("button", name=arm, exact=True)
        return self.root.get_by_role("row").filter(has=arm)

    def check(self, baseline="eca", metric="top1"):
        """The table shows what Python finds at the margin that the box shows; return that."""
        from eca_lab.evidence import stats

        expect(self.state).to_contain_text(f"metric='{metric}', baseline='{baseline}'")
        made = stats.compare(self.trials, baseline, metric=metric)
        made = made.at(float(self.margin.input_value()))
        for arm, row in made.table.iterrows():
            numbers = f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
            line = self.line(arm)
            expect(line).to_contain_text(re.sub(r"-(?=\d)", "−", numbers))
            expect(line).to_contain_text(row["verdict"])
            p = "p<0.01" if row["p_holm"] < 0.01 else f"p {row['p_holm']:.2f}"
            expect(line).to_contain_text(f"{p}, n {row['n']}")
        # And so do the intervals in the picture, by its own axis.
        n, difference, sd = made.table[["n", "difference", "sd"]].to_numpy().T
        for name, confidence in ((".interval", 0.95), (".inner", 0.9)):
            ends = t.interval(confidence, n - 1, difference, sd / n**0.5)
            shown = np.array(self.root.evaluate(INTERVALS, name)).T
            np.testing.assert_allclose(shown, ends, atol=0.01)
        return made


@pytest.fixture
def study(find):
    """The explorer of the study, as it begins."""
    found = find("study")
    explorer = Study(found.page, found.root)
    explorer.push("Reset")
    expect(explorer.margin).to_have_value("0.2")
    explorer.check()
    return explorer


def test_keys_choose_what_a_study_compares(study):
    from eca_lab.explorers import StudyExplorer

    for arm in ("none", "se", "eca(k=1)", "eca(k=3)"):
        study.push(arm)
        study.check(arm)
    study.press("ArrowDown", on=study.choice("metric"))
    study.check("eca(k=3)", "top5")
    study.slider("margin ±").focus()
    for key, value in (("Home", 0.01), ("ArrowRight", 0.02), ("End", 5), ("ArrowLeft", 4.47)):
        study.press(key)
        expect(study.margin).to_have_value(str(value))
        assert value in StudyExplorer.MARGIN_STOPS
        study.check("eca(k=3)", "top5")
    study.type_into("margin ±", 99)
    expect(study.why).to_have_text("margin=99: accepted is a finite number from 0.01 to 5")
    study.push("se")
    study.press("End", on=study.choice("setting"))  # whose trials have no se
    expect(study.state).to_contain_text(f"data='{HOSTILE}, ")
    rest = "backbone='b', metric='top5', baseline='eca', margin=4.47"
    expect(study.state).to_contain_text(rest)
    study.push("Reset")
    study.check()


def test_keys_step_through_the_trials_of_a_study(study):
    dots, trials = study.root.get_by_role("slider", name="trials"), study.trials
    dots.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):  # seed 0, seed 1, and that of the next arm
        study.press(key)
    trial = trials[(trials["arm"] == "se") & (trials["seed"] == 1)].iloc[0]
    shown = f"se: {trial['top1']:.2f}, {trial['identity']}.json"
    expect(study.tip).to_contain_text(shown)
    spoken = re.compile(f"^seed 1: .*; {re.escape(shown)}; ")
    expect(dots).to_have_attribute("aria-valuetext", spoken)
    expect(dots).to_have_attribute("aria-valuenow", "2")


def test_the_margin_of_a_study_is_dragged(study):
    study.shown(".forest").scroll_into_view_if_needed()
    wide = ["0.2"]
    with study.held(study.shown("circle.edge").last) as move:
        for step in range(1, 9):
            move(6 * step, steps=1)
            expect(study.margin).not_to_have_value(wide[-1])
            wide.append(study.margin.input_value())
    assert wide[1:] == sorted(wide[1:], key=float)
    assert (study.check().table["verdict"] == "equivalent").any()


def test_the_mouse_points_at_trials_and_chooses_the_baseline(study):
    trials = study.trials
    study.shown(".forest").scroll_into_view_if_needed()
    study.page.mouse.move(*middle(study.shown("circle.dot").first))
    expect(study.tip).to_contain_text(f"none: {trials['top1'].iloc[0]:.2f}")
    expect(study.tip).to_contain_text("cpu: ")
    others = trials["arm"].nunique() - 1
    expect(study.shown("circle.lit")).to_have_count(others)  # of that seed
    rows = study.root.get_by_role("row")
    rows.filter(has_text="se").first.locator("b").click()
    study.check("se")
    mean = trials.loc[trials["arm"] == "se", "top1"].mean()
    expect(rows.filter(has_text="baseline")).to_contain_text(f"semean {mean:.2f}")


def test_escape_undoes_a_press_on_an_arm_and_the_drag_of_the_margin(study):
    study.push("se")
    study.check("se")
    study.shown(".forest").scroll_into_view_if_needed()
    place = study.shown(".plot").bounding_box()
    study.page.mouse.move(place["x"] + 3, place["y"] + 60)  # on an arm
    study.page.mouse.down()
    study.press("Escape")
    study.page.mouse.up()
    expect(study.margin).to_have_value("0.2")
    study.check("se")
    with study.held(study.shown("circle.edge").last) as move:
        move(20)
        expect(study.margin).not_to_have_value("0.2")
        study.press("Escape")
    expect(study.margin).to_have_value("0.2")
    study.check("se")


# --- The explorer of the channel weights ---


DECODED = """async ([text, bytes, counts]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {decode} = await import(URL.createObjectURL(blob));
    const {C, at, means} = decode(new DataView(Uint8Array.from(bytes).buffer), counts);
    return [C, at(7, 2), means.map(row => [...row])];
}"""


@pytest.fixture(scope="module")
def same_weights():
    """The explorer of the weights in Python, which computes what the page has to show."""
    from eca_lab import data
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.networks import checkpoints

    path = functools.partial(checkpoints.find_checkpoint, ROOT / "data" / "checkpoints", seed=0)
    trained = {arm: checkpoints.load_checkpoint(path(arm))[0] for arm in ("eca", "se")}
    shapes = data.load_dataset("shapes")
    return ChannelWeightExplorer(trained, shapes, layer="layer1.attention", channel=3)


class Weights(ExplorerInPage):
    """The explorer of the weights; same is that in Python."""

    def __init__(self, found, same):
        super().__init__(found.page, found.root)
        self.same = same

    @property
    def heat(self):
        return self.shown(".heat")

    def follows(self, **changes):
        """The page shows what Python computes of its state after these changes."""
        same = self.same
        same.set_state(changes)
        state = repr(same).removeprefix("ChannelWeightExplorer(")
        expect(self.state).to_have_text(f"ChannelWeightExplorer({state}")
        of_class = same._classes[same.image // 20]
        weight = same.answer["weight"]
        words = f"Image {same.image}, {of_class}, channel {same.channel}: weight {weight:.3f}"
        changed = f" × {same.factor:g} = {weight * same.factor:.3f}"
        expect(self.headline).to_have_text(words + ("" if same.factor == 1 else changed))
        expect(self.shown(":scope.waiting")).to_have_count(0)
        rows = zip(same.answer["plain"], same.answer["changed"], strict=True)
        chances = [f"{100 * new:.1f}%" if max(old, new) >= 0.005 else "" for old, new in rows]
        expect(self.shown(".chances .asks text")).to_have_text(chances)

    def point(self, image, channel):
        """Move the mouse to a cell of the heat map of all images."""
        place = self.shown(".heat canvas").nth(1).bounding_box()
        x = place["x"] + (channel + 0.5) * place["width"] / 16
        self.page.mouse.move(x, place["y"] + (image + 0.5) * place["height"] / 200, steps=3)

    def leave(self):
        """Move the mouse off the heat map."""
        place = self.heat.bounding_box()
        self.page.mouse.move(place["x"] + 100, place["y"] - 10)


@pytest.fixture
def weights(find, same_weights):
    """The explorer of the weights, as it begins."""
    explorer = Weights(find("weights"), same_weights)
    explorer.push("Reset")
    explorer.follows(**same_weights.given["initial"])
    return explorer


def test_the_page_reads_the_weights_that_python_sends(weights):
    same = weights.same
    sent, counts = same.answer["weights"], same.given["counts"]
    C, weight, means = weights.page.evaluate(DECODED, [same._esm, [*sent], counts])
    assert (C, weight) == (16, pytest.approx(same.weights[7, 2], abs=0.002))
    expected = same.weights.reshape(10, 20, 16).mean(1)
    np.testing.assert_allclose(means, expected, atol=0.002)


def test_keys_reach_all_images_channels_and_factors(weights):
    for label, last in (("image", 199), ("channel", 15), ("factor", 4)):
        weights.slider(label).focus()
        for key, value in (("End", last), ("Home", 0), ("ArrowRight", 0.1 if last == 4 else 1)):
            weights.press(key)
            weights.follows(**{label: value})
    weights.push("Channel off")
    weights.follows(factor=0)
    weights.push("Original")
    weights.follows(factor=1)


def test_networks_answer_what_is_drawn_on_the_board(weights):
    draw_star(weights)
    rows = weights.shown(".found tr")
    for row, name in ((rows.nth(0), "eca"), (rows.nth(1), "se")):
        expect(row).to_have_text(re.compile(rf"^{name}star \(\d"))
    weights.push("Channel off")
    expect(weights.shown(".found")).to_contain_text(re.compile(r"channel 3: weight 0\.\d{3} × 0;"))
    weights.push("Clear")
    expect(weights.shown(".drawing")).to_contain_text("Nothing is drawn yet.")


def test_keys_step_through_the_heat_map(weights):
    for label in ("image", "channel"):
        weights.type_into(label, 1)
    weights.follows(image=1, channel=1)
    weights.heat.focus()
    for key, changes in (
        *(("ArrowDown", {"image": 2}), ("PageDown", {"image": 22}), ("ArrowRight", {"channel": 2})),
        *(("Escape", {"image": 1, "channel": 1}), ("End", {"channel": 15}), ("Enter", {})),
    ):
        weights.press(key)
        weights.follows(**changes)


def test_keys_choose_layer_and_network(weights):
    weights.press("End", on=weights.choice("layer"))
    weights.follows(layer="layer3.1.attention")
    weights.press("End", on=weights.slider("channel"))
    weights.follows(channel=255)
    weights.press("Home", on=weights.choice("layer"))
    weights.follows(layer="layer1.attention", channel=15)
    weights.press("ArrowDown", on=weights.choice("network"))
    weights.follows(network="se")


def test_pointing_shows_a_cell_for_a_while_and_a_click_for_good(weights):
    weights.type_into("image", 1)
    weights.follows(image=1)
    weights.heat.scroll_into_view_if_needed()
    box = weights.box("image")
    box.fill("17")  # and not entered yet
    weights.point(150, 4)
    weights.follows(image=150, channel=4)
    expect(box).to_have_value("17")
    weights.leave()
    weights.follows(image=1, channel=3)
    box.press("Enter")
    weights.follows(image=17)
    expect(box).to_have_value("17")
    weights.point(90, 6)
    weights.page.mouse.down()
    weights.page.mouse.up()
    weights.leave()
    weights.follows(image=90, channel=6)


def test_the_factor_is_dragged(weights):
    weights.heat.scroll_into_view_if_needed()
    weights.drag(weights.shown(".knob"), up=170 / 4, steps=20)  # 170 pixels are a factor of 4
    weights.follows(factor=2)


def test_the_box_says_why_it_does_not_take_an_image(weights):
    weights.type_into("image", 200)
    why = weights.page.get_by_text("image=200: accepted is an integer from 0 to 199")
    expect(why).to_be_visible()
    weights.button("Reset").click()
    weights.follows(**weights.same.given["initial"])
    expect(why).to_have_count(0)


# --- The explorer of the reduction ---


SETTLED = """async ([text, given, steps]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {wanted, lowered, costs, hears} = await import(URL.createObjectURL(blob));
    const states = steps.map(([state, changes]) => lowered(wanted(state, changes, given.layers)));
    return {states, costs: states.map(costs), heard: hears(Int16Array.of(-3, 0, 1, 9, 0, 2))};
}"""


@pytest.fixture(scope="module")
def unanswered():
    """An explorer in Python of two trained layers that computes nothing but its state."""
    import torch

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    class Unanswered(ReductionExplorer):
        def _answer(self):
            return {}

    layers = {str(C): {"se": SE(C, r), "eca": ECA(C, k)} for C, r, k in ((16, 4, 3), (64, 8, 5))}
    layers = {name: {**layer, "y": torch.ones(int(name))} for name, layer in layers.items()}
    return Unanswered(trained=layers)


def steps_of(explorer):
    """States of the explorer of the reduction, and after each what a reader may change there."""
    wide = {"channels": 512, "reduction": 512, "kernel_size": 511, "groups": 512}
    starts = [explorer._state(), {**explorer._state(), **wide}]
    starts += [
        {**explorer._state(), **layer, "weights": name} for name, layer in explorer._layers.items()
    ]
    changes = [{"channels": C} for C in (*range(8, 33), 63, 64, 97, 500, 511, 512)]
    changes += [{"reduction": 4}, {"kernel_size": 7}, {"groups": 2}, {"seed": 99}]
    changes += explorer.PRESETS.values()
    changes += [{"weights": name} for name in ("random", *explorer._layers)]
    return [*itertools.product(starts, changes)]


@functools.cache
def parameters_of(spec, channels):
    """The parameters of a module, counted on it."""
    import torch

    from eca_lab.attention.modules import make_attention
    from eca_lab.networks import cost

    with torch.device("meta"):
        return cost.parameters(make_attention(spec, channels))


def test_the_page_settles_a_state_as_python_does(page, unanswered):
    steps, expected = steps_of(unanswered), []
    for start, change in steps:
        with unanswered.hold_trait_notifications():
            for name, value in start.items():
                setattr(unanswered, name, value)
        # A preset of several sizes is one action of the page; alone they would lower others.
        for name, value in sorted(change.items(), key=lambda item: item[0] != "channels"):
            setattr(unanswered, name, value)
        expected.append(unanswered._state())
    result = page.evaluate(SETTLED, [unanswered._esm, unanswered.given, steps])
    assert result["states"] == expected
    for state, costs in zip(expected, result["costs"], strict=True):
        C, r, k, g = (state[name] for name in ("channels", "reduction", "kernel_size", "groups"))
        specs = f"se(r={r})", f"se_gc(groups={g})", f"eca(k={k})"
        se, se_gc, eca = (parameters_of(spec, C) for spec in specs)
        assert costs == {
            "hidden": C // r,
            "width": C // g,
            "parameters": [se, se_gc, eca],
            "multiplyAdds": [se, se_gc, C * eca],  # all channels share the kernel of ECA
        }
    assert result["heard"] == [4, [[4, 9], [1, -3], [6, 2]]]


@pytest.fixture(scope="module")
def same_reduction():
    """The explorer of the reduction in Python, which computes what the page has to show."""
    import torch

    from eca_lab.attention.modules import make_attention
    from eca_lab.explorers import ReductionExplorer

    torch.manual_seed(0)
    layer = {arm: make_attention(arm, 128) for arm in ("se", "eca")} | {"y": torch.randn(128)}
    return ReductionExplorer(trained={HOSTILE: layer})


class Reduction(ExplorerInPage):
    """The explorer of the reduction; same is that in Python."""

    def __init__(self, found, same):
        super().__init__(found.page, found.root)
        self.same = same

    @property
    def rows(self):
        return self.root.get_by_role("slider", name="row of the matrices")

    def check(self, **changes):
        """The read-outs are those of Python after these changes."""
        for trait, value in changes.items():
            setattr(self.same, trait, value)
        expect(self.state).to_have_text(repr(self.same))
        expect(self.root).not_to_have_class(re.compile("waiting"))
        measures = self.same.table
        for row, expected in enumerate(
            [
                *(measures[each].map("{:,}".format) for each in ("parameters", "multiply_adds")),
                measures["rank"].astype(str),
                ["–" if np.isnan(x) else f"{x:.1f}" for x in measures["effective_rank"]],
            ]
        ):
            cells = self.shown("table tr").nth(row + 1).locator("td")
            expect(cells).to_have_text(list(expected))

    def hears(self, row):
        """What the page shall say of a row, counted from 1."""
        answers = self.same.answer["modules"]
        for answer, label in zip(answers, ("SE", "SE-GC", "ECA"), strict=True):
            matrix = np.frombuffer(answer["matrix"], np.int16).reshape(64, 64)[row - 1]
            strongest = np.argsort(-np.abs(matrix.astype(int)), kind="stable")[:3] + 1
            strongest = [str(j) for j in strongest if matrix[j - 1]]
            yield f"{label} hears {np.count_nonzero(matrix)} of 64", strongest

    def check_row(self, row):
        """The row that is lit, and what is said of it."""
        expect(self.rows).to_have_attribute("aria-valuenow", str(row))
        spoken = self.rows.get_attribute("aria-valuetext")
        assert spoken.startswith(f"Channel {row}: ")
        parts = spoken.split(": ")[1].split("; ")
        for part, (words, strongest) in zip(parts, self.hears(row), strict=True):
            first, *others = part.split("\n")
            assert first == words
            assert [other.split(" by ")[0] for other in others] == strongest


@pytest.fixture
def reduction(find, same_reduction):
    """The explorer of the reduction, as it begins."""
    explorer = Reduction(find("reduction"), same_reduction)
    explorer.push("Reset")
    same_reduction.set_state(same_reduction.given["initial"])
    explorer.check(channels=64, reduction=16, kernel_size=3, groups=16, seed=0)
    return explorer


def test_keys_reach_all_sizes_of_the_reduction(reduction):
    for label, trait, values in (
        ("reduction r", "reduction", (1, 64)),
        ("kernel k", "kernel_size", (1, 63)),
        ("groups g", "groups", (1, 64)),
        ("seed", "seed", (0, 99)),
        ("channels C", "channels", (8, 512)),
    ):
        reduction.slider(label).focus()
        for key, value in zip(("Home", "End"), values, strict=True):
            reduction.press(key)
            reduction.check(**{trait: value})
            if value == 8:
                lowered = "Lowered to fit C = 8: reduction to 8, kernel_size to 7, groups to 8"
                expect(reduction.root.get_by_role("status")).to_have_text(lowered)


def test_keys_choose_weights_and_presets_of_the_reduction(reduction):
    reduction.press("End", on=reduction.choice("weights"))
    reduction.check(weights=HOSTILE)
    reduction.push("no interaction")
    reduction.check(kernel_size=1)
    reduction.push("Reset")
    reduction.check(channels=64, reduction=16, kernel_size=3, groups=16, seed=0)
    reduction.push("Draw again")
    reduction.check(seed=1)


def test_boxes_say_why_they_do_not_take_a_size(reduction):
    for label, trait, wrong, right, why in (
        ("groups g", "groups", 3, 8, "one of 1, 2, 4, 8, 16, 32, 64"),
        ("kernel k", "kernel_size", 4, 61, "an odd integer"),
        ("reduction r", "reduction", 65, 63, "an integer from 1 to 64"),
    ):
        said = f"{trait}={wrong}: accepted is {why}"
        message = reduction.root.get_by_text(said, exact=True)
        for value, shown in ((wrong, 1), (right, 0)):
            reduction.type_into(label, value)
            expect(message).to_have_count(shown)
        reduction.check(**{trait: right})


def test_rows_of_the_matrices_are_lit_by_mouse_and_keys(reduction):
    for label, trait, value in (("groups g", "groups", 8), ("kernel k", "kernel_size", 61)):
        reduction.type_into(label, value)
        reduction.check(**{trait: value})
    for number in range(3):
        canvas = reduction.rows.locator(".matrix canvas:first-child").nth(number)
        side = canvas.bounding_box()["height"]
        canvas.hover(position={"x": 40, "y": side * (10 + number + 0.5) / 64})
        reduction.check_row(11 + number)
    reduction.rows.focus()
    steps = (("ArrowDown", 14), ("ArrowUp", 13), ("End", 64), ("Home", 1))
    for key, row in (("Alt+ArrowDown", 13), *steps):  # with Alt an arrow is the browser's
        reduction.press(key)
        reduction.check_row(row)


# --- By a finger, and with names of others ---


@pytest.fixture
def finger(everything):
    page, _ = everything
    finger = Finger(page)
    yield finger
    finger.lift()


def test_a_second_finger_is_not_heard_and_a_scroll_undoes_a_touch(sizes, finger):
    chart, channels = sizes.shown(".chart"), sizes.box("channels C")
    chart.scroll_into_view_if_needed()
    place = chart.bounding_box()
    start, beside = ((place["x"] + x, place["y"] + 40) for x in (150, 250))
    finger.touch("touchStart", start)
    expect(channels).not_to_have_value("256")
    first = channels.input_value()
    finger.touch("touchStart", start, beside)
    sizes.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    expect(channels).to_have_value(first)
    finger.touch("touchCancel")  # as where the page scrolls
    expect(channels).to_have_value("256")


def test_a_finger_drags_the_point_while_a_number_is_written(sizes, finger):
    chart, channels = sizes.shown(".chart"), sizes.box("channels C")
    chart.scroll_into_view_if_needed()
    stages = [middle(chart.locator(".formula").nth(number))[0] for number in range(2)]
    channels.fill("300")
    for key, value in (("ArrowUp", "267"), ("ArrowDown", "256")):
        channels.press(key)
        expect(channels).to_have_value(value)
    channels.fill("300")  # and not entered before the point is pulled
    finger.drag(chart.locator(".point"), stages[1] - stages[0])  # an octave
    expect(channels).to_have_value("512")


def test_a_finger_drags_the_margin_of_a_study(study, finger):
    study.shown(".forest").scroll_into_view_if_needed()
    place = study.shown(".plot").bounding_box()
    finger.touch("touchStart", (place["x"] + 3, place["y"] + 60))  # on an arm
    finger.touch("touchCancel")
    expect(study.state).to_contain_text("baseline='eca'")
    edges = study.shown("circle.edge")
    grips = [middle(each)[0] for each in edges.all()]
    point = (grips[1] - grips[0] - 14) / 0.4  # the margin is 0.2, the grips stand 7 pixels beyond
    finger.drag(edges.last, 0.3 * point)
    expect(study.margin).to_have_value("0.5")
    expect(study.state).to_contain_text("baseline='eca', margin=0.5")


def test_a_finger_drags_an_average(module, finger):
    x, y = middle(module.knob(16))
    finger.touch("touchStart", (x, y))
    for step in range(1, 9):
        finger.touch("touchMove", (x, y - 42 * step / 8))
    finger.touch("touchEnd")
    module.follows(channel=16, averages=module.averaged(16, 1.4))
    module.moved(3, 24)


def test_copy_fills_the_clipboard(sizes):
    sizes.type_into("channels C", 512)
    sizes.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sizes.button("Copy").click()
    expect(sizes.button("Copied")).to_be_visible()
    copied = sizes.page.evaluate("navigator.clipboard.readText()")
    assert copied == "KernelSizeExplorer(channels=512, gamma=2, b=1)"


def test_names_run_nothing_in_the_page(find):
    explorer = find("names")
    expect(explorer.headline).to_contain_text(f"Image 0, {HOSTILE},")
    expect(explorer.shown(".heat text", has_text="<img src=x …")).to_have_count(2)
    network = explorer.choice("network").locator("option")
    expect(network).to_have_text([HOSTILE, "b"])
    expect(explorer.page.locator(".jp-OutputArea .eca-lab img")).to_have_count(0)


# --- Explorers in a page alone, without a kernel ---


@pytest.fixture
def show_alone(page, monkeypatch):
    """A function that shows an explorer as a page of the site does, without a kernel."""

    def show_alone(made):
        from eca_lab.site import pages

        shown = []
        monkeypatch.setattr(pages, "display", lambda data, raw: shown.append(data[pages.TOLD]))
        pages.record(made)
        state = f'<script id="told" type="application/json">{shown[0]}</script>'
        page.set_content(f'<style>{made._css}</style>{state}<div class="explorer"></div>')
        alone = ROOT / "eca_lab" / "explorers" / "alone.js"
        page.add_script_tag(content=alone.read_text(encoding="utf-8"), type="module")
        return ExplorerInPage(page)

    return show_alone


def test_the_kernel_slides_by_itself_until_it_is_stopped(show_alone):
    from eca_lab.explorers import ModuleExplorer

    explorer = show_alone(ModuleExplorer(channel=24))
    channel = explorer.box("channel")
    explorer.push("Slide the kernel")
    expect(channel).to_have_value(re.compile("^([2-9]|1[0-9])$"))
    explorer.push("Stop")
    stopped = channel.input_value()
    expect(explorer.button("Slide the kernel")).to_be_visible()
    explorer.page.wait_for_timeout(400)  # twice its pace
    assert channel.input_value() == stopped


def test_the_kernel_steps_for_readers_who_want_no_motion(show_alone):
    from eca_lab.explorers import ModuleExplorer

    explorer = show_alone(ModuleExplorer(channel=23))
    explorer.page.emulate_media(reduced_motion="reduce")
    for channel in ("24", "1", "2"):
        explorer.push("Slide the kernel")
        expect(explorer.box("channel")).to_have_value(channel)


def test_a_link_opens_a_module_and_leaves_out_what_is_not_accepted(show_alone):
    from eca_lab.explorers import ModuleExplorer

    explorer = show_alone(ModuleExplorer())
    for said, state in (
        ("kernel=[1]&channel=3", "kernel=(1,), channel=3)"),
        ("kernel=[1,2]&averages=[1]&order=[1]&channel=3", "kernel=(-0.5, 1.5, -0.5), channel=3)"),
        ("averages=x&order=7&channel=99", "ModuleExplorer(kernel=(-0.5, 1.5, -0.5))"),
        (f"averages={[1] * 24}&order={[*range(24, 0, -1)]}", f"averages={(1,) * 24}, "),
    ):
        explorer.page.evaluate("said => { location.hash = said; }", said.replace(" ", ""))
        expect(explorer.state).to_contain_text(state)
        expect(explorer.root).not_to_have_class(re.compile("unfit"))


READ = """async ([text, written]) => {
    const blob = new Blob([text], {type: "text/javascript"});
    const {numberOf} = await import(URL.createObjectURL(blob));
    return written.map(([text, integer]) => numberOf(text, integer));
}"""


def test_the_page_reads_numbers_as_people_and_the_lab_write_them(page):
    from eca_lab.explorers import KernelSizeExplorer

    integers = {"1,000": 1000, "2,047": 2047, "1_000": 1000, "12,345,678": 12345678, "64": 64}
    integers |= {f"1{space}000": 1000 for space in "\u00a0\u2009\u202f "}
    integers |= {" 7 ": 7, "+7": 7, "-7": -7, "−7": -7, "−1,000": -1000}
    integers |= dict.fromkeys(("1,5", "1.5", "1.000", "1,00", "10,00", "1,0000", "1,000_000"))
    integers |= dict.fromkeys((",000", "", "0x10", "1e3", "seven", "1 2", "1,000.5"))
    numbers = {"0,5": 0.5, "0.5": 0.5, "−0.5": -0.5, "1,5": 1.5, "2": 2, ".5": 0.5}
    numbers |= dict.fromkeys(("", "1,2,3", "x"))
    for integer, read in ((True, integers), (False, numbers)):
        texts = [[text, integer] for text in read]
        found = page.evaluate(READ, [KernelSizeExplorer()._esm, texts])
        assert [None if np.isnan(each) else each for each in found] == list(read.values())


def test_boxes_take_numbers_as_they_are_read(show_alone):
    from eca_lab.explorers import KernelSizeExplorer

    explorer = show_alone(KernelSizeExplorer())
    for text, channels, said in (
        ("1,000", 1000, ""),
        ("2 047", 2047, ""),
        ("1,5", 2047, "channels='1,5': accepted is an integer from 1 to 8192"),
        ("9,000", 2047, "channels='9,000': accepted is an integer from 1 to 8192"),
        ("1_024", 1024, ""),
    ):
        explorer.type_into("channels C", text)
        expect(explorer.state).to_contain_text(f"channels={channels}, ")
        expect(explorer.why).to_have_text(said)


def test_escape_takes_back_what_is_written(show_alone):
    from eca_lab.explorers import KernelSizeExplorer

    explorer = show_alone(KernelSizeExplorer())
    box = explorer.box("channels C")
    for text, enter, said in (("77", False, ""), ("1,5", True, "channels='1,5': accepted")):
        box.fill(text)
        if enter:
            box.press("Enter")
        expect(explorer.why).to_contain_text(said)
        box.press("Escape")
        expect(box).to_have_value("256")
        expect(explorer.why).to_be_empty()
    box.blur()
    expect(explorer.state).to_contain_text("channels=256, ")


def test_escape_takes_back_what_is_dragged(show_alone):
    from eca_lab.explorers import KernelSizeExplorer

    explorer = show_alone(KernelSizeExplorer())
    slider = explorer.slider("channels C")
    for dragged in (explorer.shown(".chart .point"), slider):
        with explorer.held(dragged) as move:
            move(40)
            expect(explorer.state).not_to_contain_text("channels=256, ")
            explorer.press("Escape")
            expect(explorer.state).to_contain_text("channels=256, ")
            move(60)  # still held, and yet dragged no more
        expect(explorer.state).to_contain_text("channels=256, ")
    slider.press("ArrowRight")
    expect(explorer.state).not_to_contain_text("channels=256, ")


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
    from eca_lab.data import load_dataset
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.explorers.explorer import _as_text
    from eca_lab.networks.backbones import build_model

    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    networks = {"eca": build_model("tiny", "eca", num_classes=10)}
    made = ChannelWeightExplorer(networks, load_dataset("shapes"))
    made.channel = 99
    page.evaluate(MODEL, [made._esm, _as_text(made.given), _as_text(made.answer), made._state()])
    explorer = ExplorerInPage(page)
    expect(explorer.headline).to_contain_text("Image 0, arrow, channel 99")
    # As while cells run: the layer arrives, which has 16 channels, and channel 99 still holds.
    page.evaluate("take({layer: 'layer1.attention'})")
    expect(explorer.root).to_have_class(re.compile("unfit"))
    expect(explorer.headline).to_contain_text("Image 0, arrow, channel 99")
    # The kernel refuses, and says what holds.
    refused = "channel=99: accepted is an integer from 0 to 15"
    page.evaluate("take({layer: 'layer3.1.attention', channel: 3})")
    page.evaluate("refused => tell('msg:custom', {refused})", refused)
    expect(explorer.root).not_to_have_class(re.compile("unfit"))
    expect(explorer.headline).to_contain_text("Image 0, arrow, channel 3")
    expect(page.get_by_text(refused)).to_be_visible()
    explorer.type_into("channel", 5)
    expect(page.get_by_text(refused)).to_have_count(0)
    assert wrong == []


SIZES = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16, "seed": 0}


@pytest.fixture
def one_recorded(monkeypatch):
    """Only the first state of the explorer of the reduction is recorded."""
    from eca_lab.explorers import ReductionExplorer

    recorded = {name: (size,) for name, size in SIZES.items()}
    monkeypatch.setattr(ReductionExplorer, "RECORDED", recorded)


@pytest.mark.usefixtures("one_recorded")
def test_trained_modules_beside_random_ones_are_told_apart(show_alone):
    import torch

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    layer = {"se": SE(64, 16), "eca": ECA(64, 3), "y": torch.randn(64)}
    explorer = show_alone(ReductionExplorer(trained={"layer3": layer}))
    names, all_random = ("SE", "SE-GC", "ECA"), ["random"] * 3
    for weights, kinds in (("random", all_random), ("layer3", ["trained", "random", "trained"])):
        explorer.choice("weights").select_option(weights)
        row = explorer.root.get_by_role("row").filter(has_text="weights")
        expect(row.locator("td")).to_have_text(kinds)
        titles = [re.compile(f"^{n}\\s.*, {k}$") for n, k in zip(names, kinds, strict=True)]
        expect(explorer.shown(".map .title")).to_have_text(titles)


@pytest.mark.usefixtures("one_recorded")
def test_a_link_of_trained_weights_opens_them(show_alone):
    import torch

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    layer = {"se": SE(256, 16), "eca": ECA(256, 5), "y": torch.randn(256)}
    explorer = show_alone(ReductionExplorer(trained={"layer3": layer}))
    trained = "channels=256, reduction=16, kernel_size=5, groups=16, weights='layer3')"
    for said, state in (
        ("channels=256&kernel_size=5&weights=layer3", trained),
        ("channels=1000000000&seed=0", "channels=64, reduction=16, kernel_size=3"),
    ):
        explorer.page.evaluate("said => { location.hash = said; }", said)
        expect(explorer.state).to_contain_text(state)


@pytest.fixture
def weights_alone(show_alone):
    """The explorer of the weights of a new network, without a kernel."""
    from eca_lab.data import load_dataset
    from eca_lab.explorers import ChannelWeightExplorer
    from eca_lab.networks.backbones import build_model

    networks = {"eca": build_model("tiny", "eca", num_classes=10)}
    return show_alone(ChannelWeightExplorer(networks, load_dataset("shapes")))


def test_what_is_set_by_others_is_not_taken_back(weights_alone):
    page, state = weights_alone.page, weights_alone.state
    page.locator(".heat").hover(position={"x": 400, "y": 300})
    expect(state).not_to_contain_text("layer3.1.attention')")  # but with image and channel
    page.evaluate("location.hash = 'layer=layer1.attention&channel=3'")
    expect(state).to_contain_text("layer='layer1.attention', channel=3)")
    page.mouse.move(0, 0)
    weights_alone.headline.hover()
    expect(state).to_contain_text("layer='layer1.attention', channel=3)")
    expect(weights_alone.headline).to_contain_text("channel 3")


def test_of_every_image_all_is_shown(weights_alone):
    page, pictures = weights_alone.page, weights_alone.shown(".maps canvas")
    for image in (0, 1, 199):
        weights_alone.type_into("image", image)
        expect(weights_alone.headline).to_contain_text(f"Image {image}, ")
        expect(page.get_by_text(f"image {image}", exact=True)).to_be_visible()
        for each in (*pictures.all(), page.locator(".chances")):
            expect(each).to_be_visible()
        expect(page.get_by_text("Predicts")).to_be_visible()


@pytest.mark.usefixtures("one_recorded")
def test_without_a_kernel_every_control_of_the_reduction_leads_to_what_is_recorded(show_alone):
    import torch

    from eca_lab.attention.modules import ECA, SE
    from eca_lab.explorers import ReductionExplorer

    layer = {"se": SE(32, 4), "eca": ECA(32, 5), "y": torch.randn(32)}
    explorer = show_alone(ReductionExplorer(trained={"layer3": layer}))
    note = explorer.shown(".note")

    def shows(channels, reduction, kernel_size, *words, near=""):
        sizes = f"channels={channels}, reduction={reduction}, kernel_size={kernel_size}, groups=16"
        expect(explorer.state).to_contain_text(", ".join([sizes, *words]) + ")")
        expect(explorer.headline).to_contain_text(f"Rank, of {channels}: ")
        expect(explorer.box("channels C")).to_have_value(str(channels))
        expect(note).to_have_text(near)
        expect(explorer.root).not_to_have_class(re.compile("waiting"))

    shows(64, 16, 3)
    explorer.push("no reduction")
    shows(64, 1, 3)
    explorer.push("ResNet-50, stage 1")
    shows(256, 16, 5)
    explorer.push("no interaction")
    shows(64, 16, 1, near="Nearest recorded: channels 64")
    explorer.press("End", on=explorer.slider("channels C"))
    shows(256, 16, 5, near="Nearest recorded: kernel_size 5")
    explorer.type_into("channels C", 97)
    shows(64, 16, 3, near="Nearest recorded: channels 64, kernel_size 3")
    explorer.choice("weights").select_option("layer3")
    shows(32, 4, 5, "weights='layer3'")
    explorer.choice("weights").select_option("random")
    shows(32, 4, 5)
    # A link may say what no control can.
    for said in ("channels=64&weights=layer3&seed=7", "channels=77&reduction=9&weights=layer3"):
        explorer.page.evaluate("said => { location.hash = said; }", said)
        shows(32, 4, 5, "weights='layer3'")
    expect(explorer.root).not_to_contain_text("kernel:")


# Moves each slider to an end, chooses all that can be chosen and pushes every button; tells how
# often something was done, and after what the explorer looked as before. A button may lead to where
# the sliders are already: then they are moved elsewhere, and it is pushed again.
ACT = """async root => {
    const all = selector => [...root.querySelectorAll(selector)];
    const frames = async () => { for (const _ of "123") await new Promise(requestAnimationFrame); };
    const shown = () => root.innerHTML + all("input, select").map(each => each.value);
    const send = (each, value) => {
        each.value = value;
        for (const name of ["input", "change"])
            each.dispatchEvent(new Event(name, {bubbles: true}));
    };
    const move = each => send(each, each.value === each.max ? each.min : each.max);
    const still = [];
    let done = 0;
    const acts = async act => {
        const before = shown();
        act();
        done++;
        await frames();
        return shown() !== before;
    };
    for (const each of all("input[type=range]"))
        if (!await acts(() => move(each))) still.push(each.ariaValueText);
    for (const each of all("select"))
        for (const {value} of [...each.options].reverse())
            if (each.value !== value && !await acts(() => send(each, value))) still.push(value);
    const usable = () =>
        all("button:not(:disabled, [aria-pressed=true])").filter(each => each.checkVisibility());
    const push = async i => {
        all("input[type=range]").forEach(move);
        await frames();
        return acts(() => usable()[i].click());
    };
    for (let i = 0; i < usable().length; i++)
        if (!await push(i) && !await push(i)) still.push(usable()[i].textContent);
    return [done, still];
}"""


@pytest.mark.parametrize("cell", ["module", "kernel size", "study", "weights", "reduction"])
def test_every_control_acts_without_a_kernel_and_a_network(cell, show_alone, page, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    scope = {}
    *lines, made = CELLS[cell].splitlines()
    exec("\n".join([CELLS["imports"], *lines]), scope)
    page.context.set_offline(True)
    explorer = show_alone(eval(made, scope))
    expect(explorer.headline).not_to_be_empty()
    done, still = explorer.root.evaluate(ACT)
    assert done >= 7
    assert still == []
    expect(explorer.root).not_to_have_class(re.compile("waiting|unfit"))
    expect(explorer.root).not_to_contain_text("kernel:")


# In Jupyter Notebook, which takes keys before the page has them, this attribute keeps them from it.
def test_keys_belong_to_the_explorer_and_those_with_ctrl_to_jupyter(show_alone):
    from eca_lab.explorers import KernelSizeExplorer

    explorer = show_alone(KernelSizeExplorer())
    explorer.page.evaluate("""() => {
        window.kept = [];
        document.addEventListener("keydown", ({target}) =>
            kept.push(target.hasAttribute("data-lm-suppress-shortcuts")), true);
    }""")
    for key in ("ArrowRight", "Control+s", "d"):
        explorer.press(key, on=explorer.slider("channels C"))
    assert explorer.page.evaluate("kept") == [True, False, False, True]  # Control is a key, too


def test_what_is_out_of_sight_is_spared_while_an_explorer_is_used(show_alone):
    from eca_lab.explorers import KernelSizeExplorer

    explorer = show_alone(KernelSizeExplorer())
    page, text = explorer.page, "<div class=rendered_html><h2>Far</h2><p>below</p></div>"
    page.add_style_tag(path=ROOT / "eca_lab" / "site" / "page.css")
    cells = f"<div style='height: 9000px'></div><div class=text_cell>{text}</div>"
    page.evaluate("cells => document.body.insertAdjacentHTML('beforeend', cells)", cells)
    page.wait_for_timeout(200)  # frames, in which the browser notes sizes
    far, height = page.locator(".text_cell"), "document.documentElement.scrollHeight"
    before = page.evaluate(height)
    expect(far).to_have_css("content-visibility", "visible")
    explorer.slider("channels C").focus()
    expect(far).to_have_css("content-visibility", "auto")
    page.wait_for_timeout(200)
    assert page.evaluate(height) == before  # as a link to what is far below needs it
    page.set_viewport_size({"width": 700, "height": 600})
    expect(far).to_have_css("content-visibility", "visible")


# The last of all, for it takes the kernel of the others.
def test_explorers_are_there_when_the_notebook_is_opened_again(lab, everything):
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
