"""Explorers as files that live without a kernel: what is written, and what a reader sees of it."""

import re

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from in_browser import ROOT, needs_browser
from in_page import ExplorerInPage, draw_star
from playwright.sync_api import expect

from eca_lab import explore
from eca_lab.data import load_dataset
from eca_lab.explorers import ChannelWeightExplorer, KernelSizeExplorer
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model

HOSTILE = "</script><img src=x onerror=alert(1)>"
CLASSES = (HOSTILE, "b", "c")
LABELS = np.arange(12) % 3
LAYERS = ["layer1.attention", "layer2.attention", "layer3.0.attention", "layer3.1.attention"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model("tiny", "se(r=4)", num_classes=3, stem="cifar").eval()
    model.fc.weight.data *= 20  # so that predictions differ
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 3, 96, 80)


@pytest.fixture(scope="module")
def explorer(model, images):
    given = {"labels": LABELS, "classes": CLASSES, "layer": LAYERS[0], "image": 5}
    return explore(model, images, factor=2, **given)


@pytest.fixture(scope="module")
def file(explorer, tmp_path_factory):
    before = explorer._state(), explorer.answer
    file = explorer.save(tmp_path_factory.mktemp("saved") / "mine.html", title=HOSTILE)
    assert (explorer._state(), explorer.answer) == before
    return file


def test_a_saved_file_is_whole_and_names_are_text(file, explorer):
    page = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    assert page.title.string == page.h1.string == HOSTILE
    assert page("img") == []
    assert len(page("script")) == 2
    assert not page(src=True)
    assert [link["href"] for link in page(href=True)] == ["data:,"]
    policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; ")
    assert page.select_one(".explorer code").string == repr(explorer)
    bytes_of_image = 3 * 64 * 53 + (16 + 64 + 256 + 256) * (16 * 13 + 1)
    assert file.stat().st_size < 4 / 3 * 12 * bytes_of_image + 150_000


def test_a_file_is_written_over_and_a_wrong_path_refused_before_any_work(tmp_path, monkeypatch):
    panel = KernelSizeExplorer()
    assert panel.save(tmp_path / "a.html") == tmp_path / "a.html"
    first = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<title>Kernel size explorer</title>" in first
    panel.channels = 64
    panel.save(str(tmp_path / "a.html"))
    assert "KernelSizeExplorer(channels=64, " in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    monkeypatch.setattr(KernelSizeExplorer, "_alone", lambda _: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"path=.*: it is a folder; accepted is a file in one"):
        panel.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"path=.*: there is no folder .*nowhere"):
        panel.save(tmp_path / "nowhere" / "a.html")


# --- In a browser ---


@pytest.fixture
def offline(browser):
    """A page without a network, which says nothing to its console and fetches nothing."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 1000})
    page, wrong, fetched = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: fetched.append(request.url.split(":")[0]))
    yield page
    assert wrong == []
    assert set(fetched) <= {"file", "blob", "data"}
    context.close()


@pytest.fixture
def saved(offline, file):
    offline.goto(file.as_uri())
    found = ExplorerInPage(offline)
    expect(found.headline).to_contain_text("Image 5, b, channel 0: weight 0.")
    return found


class TestInBrowser:
    """What a reader sees of a saved file."""

    pytestmark = needs_browser

    def test_it_shows_what_the_network_does(self, saved, model, images):
        order = np.argsort(LABELS, kind="stable")
        images = images[torch.as_tensor(order)]
        weights = probe.record_weights(model, images).weights
        for layer, image, channel in ((LAYERS[0], 5, 0), (LAYERS[2], 0, 255), (LAYERS[3], 11, 7)):
            saved.shown("select").select_option(layer)
            saved.type_into("image", image)
            saved.type_into("channel", channel)
            of_class = CLASSES[LABELS[order][image]]
            words = f"Image {image}, {of_class}, channel {channel}: weight "
            expect(saved.headline).to_contain_text(words)
            shown = float(saved.headline.inner_text().removeprefix(words))
            assert shown == pytest.approx(weights[layer][image, channel], abs=0.008)
            with torch.inference_mode():
                plain = model(images).softmax(1)[image]
                with probe.intervene(model, layer, probe.off):
                    off = model(images).softmax(1)[image]
            best = [f"{CLASSES[each.argmax()]} ({100 * each.max():.1f}%)" for each in (plain, off)]
            said = f"Predicts {best[0]}, without the layer's attention {best[1]}."
            expect(saved.shown(".readout")).to_contain_text(said)
            rows = zip(plain, off, strict=True)
            chances = [f"{100 * new:.1f}%" if max(old, new) >= 0.005 else "" for old, new in rows]
            expect(saved.shown(".chances .asks text")).to_have_text(chances)

    def test_pointing_looks_at_a_cell_and_leaving_goes_back(self, saved):
        heat = saved.shown(".heat canvas").nth(1)
        heat.scroll_into_view_if_needed()
        place = heat.bounding_box()
        x = place["x"] + 9.5 * place["width"] / 16
        saved.page.mouse.move(x, place["y"] + 10.5 * place["height"] / 12, steps=3)
        expect(saved.headline).to_contain_text("Image 10, c, channel 9: weight 0.")
        expect(saved.shown(".maps")).to_contain_text("image 10map 9 before")
        saved.page.mouse.move(5, 5)
        expect(saved.headline).to_contain_text("Image 5, b, channel 0")

    def test_there_is_no_control_that_leads_nowhere(self, saved):
        for name in ("factor", "network"):
            expect(saved.root.get_by_label(name)).to_have_count(0)
        expect(saved.shown(".lever")).to_have_count(0)
        expect(saved.shown("button")).to_have_text(["Reset", "Copy", "Copy link"])
        expect(saved.shown(":disabled")).to_have_count(0)
        saved.check_places()

    def test_a_link_opens_a_cell_and_no_factor(self, saved, file):
        saved.page.goto("about:blank")
        said = f"#layer={LAYERS[1]}&image=3&channel=40&factor=3"
        saved.page.goto(file.as_uri() + said)
        expect(saved.headline).to_contain_text("Image 3, ")
        expect(saved.headline).to_contain_text("channel 40: weight 0.")
        expect(saved.state).not_to_contain_text("factor")

    def test_an_image_without_maps_says_so(self, offline, explorer, tmp_path, monkeypatch):
        monkeypatch.setattr(type(explorer), "ALONE_MAPS", 0)
        offline.goto(explorer.save(tmp_path / "few.html").as_uri())
        found = ExplorerInPage(offline)
        expect(found.shown(".maps canvas:visible")).to_have_count(3)
        found.type_into("image", 6)
        expect(found.shown(".maps canvas:visible")).to_have_count(1)
        expect(found.root).to_contain_text("No map of this image: there are those of 5.")


# --- Networks that the page runs ---


@pytest.fixture(scope="module")
def networks():
    from eca_lab.networks.checkpoints import find_checkpoint, load_checkpoint

    paths = {arm: find_checkpoint(ROOT / "data/checkpoints", arm, seed=0) for arm in ("eca", "se")}
    return {arm: load_checkpoint(path)[0] for arm, path in paths.items()}


@pytest.fixture(scope="module")
def running(networks, tmp_path_factory):
    """An explorer of networks that the page runs, and its file."""
    explorer = ChannelWeightExplorer(networks, load_dataset("shapes"), layer=LAYERS[0], image=25)
    return explorer, explorer.save(tmp_path_factory.mktemp("saved") / "running.html")


class TestRunningInBrowser:
    """What a reader does with networks without a kernel."""

    pytestmark = needs_browser

    def test_every_weight_can_be_changed(self, offline, running):
        explorer, file = running
        offline.goto(file.as_uri())
        found = ExplorerInPage(offline)
        states = [
            {"network": "eca", "layer": LAYERS[0], "image": 25, "channel": 4, "factor": 4},
            {"network": "eca", "layer": LAYERS[2], "image": 25, "channel": 255, "factor": 0.5},
            {"network": "se", "layer": LAYERS[2], "image": 199, "channel": 7, "factor": 1},
            {"network": "se", "layer": LAYERS[1], "image": 199, "channel": 63, "factor": 0},
        ]
        for state in states:
            found.choice("network").select_option(state["network"])
            found.choice("layer").select_option(state["layer"])
            for name in ("image", "channel", "factor"):
                found.type_into(name, state[name])
            explorer.set_state(state)
            answer = explorer.answer
            applied = f" × {state['factor']} = " if state["factor"] != 1 else ""
            words = re.compile(rf"channel {state['channel']}: weight 0\.\d{{3}}{applied}")
            expect(found.headline).to_have_text(words)
            weight = float(re.search(r"weight (0\.\d{3})", found.headline.inner_text())[1])
            assert weight == pytest.approx(answer["weight"], abs=0.003)
            expect(found.root).not_to_have_class(re.compile("waiting|unseen"))
            expect(found.shown(".maps canvas:visible")).to_have_count(3)
            rows = zip(answer["plain"], answer["changed"], strict=True)
            chances = [100 * new for old, new in rows if max(old, new) >= 0.005]
            texts = found.shown(".chances .asks text").all_text_contents()
            shown = [float(text.removesuffix("%")) for text in texts if text]
            # Of weights in float16, to a tenth of a percent.
            np.testing.assert_allclose(shown, chances, atol=0.3)
        found.push("Channel off")
        expect(found.headline).to_contain_text("× 0 = 0.000")
        found.press("ArrowRight", on=found.slider("factor"))
        expect(found.headline).to_contain_text("× 0.1")
        expect(found.root).not_to_contain_text("kernel")
        found.check_places()

    def test_a_link_opens_a_factor(self, offline, running):
        offline.goto(f"{running[1].as_uri()}#image=3&channel=4&factor=2.5")
        found = ExplorerInPage(offline)
        expect(found.headline).to_contain_text("Image 3, arrow, channel 4: weight 0.")
        expect(found.headline).to_contain_text("× 2.5")

    def test_a_reader_draws_a_star(self, offline, running, networks):
        offline.goto(running[1].as_uri())
        found = ExplorerInPage(offline)
        expect(found.shown(".drawing")).to_contain_text("Nothing is drawn yet.")
        draw_star(found)
        for name in networks:
            row = found.shown(".found tr").filter(has=offline.get_by_role("cell", name=name))
            expect(row).to_contain_text("star (")
        found.push("Clear")
        expect(found.shown(".drawing")).to_contain_text("Nothing is drawn yet.")
        expect(found.shown(".found")).to_be_hidden()
        # The image that is shown is answered as it is above.
        found.push("Copy the image above")
        above = found.shown(".chances .asks text").all_text_contents()
        expect(found.shown(".shares span:nth-child(3n)")).to_have_text(above)
