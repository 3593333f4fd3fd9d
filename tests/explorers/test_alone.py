"""Explorers as files that live without a kernel: what is written, and what a reader sees of it."""

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from in_browser import needs_browser
from in_page import ExplorerInPage
from playwright.sync_api import expect

from eca_lab import explore
from eca_lab.explorers import KernelSizeExplorer
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
