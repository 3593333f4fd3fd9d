"""A network as data, and that the page computes of it what torch computes."""

import base64
import copy
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from in_browser import ROOT, needs_browser
from in_page import Finger
from playwright.sync_api import expect
from torch import nn

from eca_lab.attention.modules import make_attention
from eca_lab.data import load_dataset
from eca_lab.data.augmentation import channel_statistics, input_transform
from eca_lab.explorers.network import MOST_MULTIPLY_ADDS, MOST_WEIGHTS, describe
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model
from eca_lab.networks.checkpoints import find_checkpoint, load_checkpoint

ENGINE = Path(ROOT, "eca_lab", "explorers", "network.js")
STATISTICS = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="found no node")
TRAINED = [("eca", 0), ("eca", 1), ("se", 0), ("se", 1)]  # those of notebook 02

# Of a described network and the images (N, H, W, 3): logits, and what `look` finds of the first.
RUN = """(engine, description, bytes, layer, factors) => {
    const {load, forward, look} = engine();
    const network = load(description), each = 3 * description.size[0] * description.size[1];
    const images = Array.from({length: bytes.length / each},
        (_, n) => bytes.subarray(n * each, n * each + each));
    const logits = images.map(image => [...forward(network, image)]);
    if (!layer) return {logits};
    const seen = look(network, {pixels: images[0], layer, factors});
    const fresh = forward(load(description), images[0], {[layer]: factors});
    const {weights, means} = seen.attention[layer];
    return {logits, plain: [...seen.plain], changed: [...seen.changed], maps: [...seen.maps],
        size: seen.size, weights: [...weights], means: [...means], fresh: [...fresh]};
}"""
# The same in node, of what stands in the standard input.
SCRIPT = f"""
import {{ readFileSync }} from "node:fs";
import {{ engine }} from {json.dumps(ENGINE.as_uri())};
const bytes = text => new Uint8Array(Buffer.from(text, "base64"));
const given = JSON.parse(readFileSync(0));
given.description.weights = bytes(given.description.weights);
const run = {RUN};
console.log(JSON.stringify(
    run(engine, given.description, bytes(given.images), given.layer, given.factors)));
"""


def coded(data):
    return base64.b64encode(data).decode()


def given_to_page(description, images, layer=None, factors=None):
    told = {**description, "weights": coded(description["weights"])}
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    return {"description": told, "images": coded(pixels), "layer": layer, "factors": factors}


def in_node(description, images, layer=None, factors=None):
    """What network.js computes of images (N, 3, H, W)."""
    given = json.dumps(given_to_page(description, images, layer, factors))
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", SCRIPT], input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
def rounded(model):
    """A copy of a model that computes in float64, with the weights that are written down."""
    model = copy.deepcopy(model).double()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for conv, bn in zip(convs, norms, strict=True):
        # What the two give for zeros and for units is the one that they are.
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        bias = bn.bias - bn.running_mean * scale
        conv.weight.mul_(scale[:, None, None, None])
        bn.weight.fill_(1)
        bn.bias.copy_(bias)
        bn.running_mean.zero_()
        bn.running_var.fill_(1 - bn.eps)
    for weights in model.parameters():  # torch would round to float32 on the way
        weights.copy_(torch.from_numpy(weights.numpy().astype("f2")))
    return model


def logits(model, images, prepare):
    with torch.inference_mode():
        return model(prepare(images).double()).numpy()


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


@pytest.fixture(scope="module")
def trained(shapes):
    """(arm, seed) -> a network of notebook 02, and how it is described."""
    statistics = channel_statistics(shapes.train_images)
    networks = {}
    for arm, seed in TRAINED:
        path = find_checkpoint(ROOT / "data/checkpoints", arm, seed=seed, dataset="shapes32")
        model, _ = load_checkpoint(path)
        networks[arm, seed] = model, describe(model, statistics, size=(32, 32))
    return networks


@needs_node
@pytest.mark.parametrize(("arm", "seed"), TRAINED)
def test_trained_networks_answer_in_node_as_in_torch(shapes, trained, arm, seed):
    model, description = trained[arm, seed]
    assert len(description["weights"]) < 440_000
    images, prepare = shapes.test_images[:50], input_transform(shapes)
    expected = logits(rounded(model), images, prepare)
    found = np.array(in_node(description, images)["logits"])
    assert abs(found - expected).max() < 1e-4
    assert (found.argmax(1) == expected.argmax(1)).all()
    # Nor does it matter to what is predicted that the weights were rounded.
    with torch.inference_mode():
        whole = model(prepare(images)).numpy()
    assert abs(found - whole).max() < 0.02
    assert (found.argmax(1) == whole.argmax(1)).all()


def random_network(arm, **options):
    """A network whose BatchNorms do something, and images for it."""
    torch.manual_seed(0)
    model = build_model("tiny", arm, num_classes=7, stem="cifar", **options)
    return trained_a_little(model), torch.randint(0, 256, (2, 3, 16, 20), dtype=torch.uint8)


def trained_a_little(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def normalized(images):
    mean, std = (each[:, None, None] for each in STATISTICS)
    return (images.float() - 255 * mean) / (255 * std)


@needs_node
@pytest.mark.parametrize(
    "arm",
    [
        "none",
        "eca",
        "eca(k=1)",
        "eca(k=9,padding=circular)",
        "eca(order=shuffled)",
        "se",
        "se(r=4)",
    ],
)
def test_every_kind_of_attention_is_computed(arm):
    model, images = random_network(arm)
    description = describe(model, STATISTICS, size=(16, 20))
    assert json.dumps({**description, "weights": ""})
    layer, factors = None, None
    if arm != "none":
        layer, factors = "layer2.attention", [0.25 * (channel % 9) for channel in range(64)]
    found = in_node(description, images, layer, factors)
    model = rounded(model)
    expected = logits(model, images, normalized)
    np.testing.assert_allclose(found["logits"], expected, atol=1e-6)
    if layer is None:
        return
    first = images[:1]
    np.testing.assert_allclose(found["plain"], expected[0], atol=1e-6)
    np.testing.assert_equal(found["changed"], found["fresh"])  # whatever was computed before
    with probe.intervene(model, layer, probe.scale(torch.tensor(factors))):
        changed = logits(model, first, normalized)
    np.testing.assert_allclose(found["changed"], changed[0], atol=1e-6)
    assert abs(changed[0] - expected[0]).max() > 1e-3

    def prepare(images):
        return normalized(images).double()

    weights = probe.record_weights(model, first, prepare=prepare).weights[layer]
    maps = probe.feature_maps(model, first, prepare=prepare)[layer][0]
    np.testing.assert_allclose(found["weights"], weights[0], atol=1e-6)
    assert found["size"] == list(maps.shape)
    np.testing.assert_allclose(found["maps"], maps.flatten(), atol=1e-5)
    np.testing.assert_allclose(found["means"], maps.mean((1, 2)), atol=1e-5)


class Own(nn.Module):
    """A network of one's own, which is no residual one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, 2, 1)  # with a bias, and no BatchNorm
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.attention = make_attention("se(r=2)", 6)
        self.second = nn.Conv2d(6, 5, 4, bias=True)
        self.norm = nn.BatchNorm2d(5, affine=False)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(5, 6, bias=False)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = self.attention(self.pool(self.first(x)))
        x = torch.flatten(self.mean(self.norm(self.second(x))), 1)
        x = torch.relu(self.hidden(x))
        return self.last(x + x)


@needs_node
def test_a_network_of_ones_own_is_computed():
    torch.manual_seed(1)
    model = Own()
    nn.init.uniform_(model.norm.running_mean, -1, 1)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    images = torch.randint(0, 256, (2, 3, 21, 26), dtype=torch.uint8)
    found = in_node(describe(model.eval(), STATISTICS, size=(21, 26)), images)["logits"]
    expected = logits(model.double(), images, normalized)
    # Of weights in float16 and of those that were not: 11 bits are known.
    np.testing.assert_allclose(found, expected, atol=0.01 * abs(expected).max())


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("cbam", "layer1.attention: it is a CBAM, which a page does not compute"),
        ("static", "layer1.attention: it is a Static"),
    ],
)
def test_other_attention_is_refused(arm, reason):
    model, _ = random_network(arm)
    with pytest.raises(ValueError, match=reason):
        describe(model, STATISTICS, size=(32, 32))


def sequence(*modules):
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*modules, *ends).eval()


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ([nn.BatchNorm2d(3)], "0: it is a BatchNorm2d"),
        ([nn.Conv2d(3, 6, 3, groups=3)], "0: Conv2d.*without groups"),
        ([nn.Conv2d(3, 6, (1, 3))], "accepted are square ones"),
        ([nn.Conv2d(3, 6, 3, padding="same")], "accepted are square ones"),
        ([nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")], "accepted are square ones"),
        ([nn.MaxPool2d(2, ceil_mode=True)], "accepted are square ones that round down"),
        ([nn.AdaptiveAvgPool2d(2)], "accepted is an output of one position"),
        ([nn.Sigmoid()], "0: it is a Sigmoid"),
        ([nn.Conv2d(3, 700_000, 1)], f"at most {MOST_WEIGHTS:,} parameters"),
        ([nn.Conv2d(3, 600, 9), nn.Conv2d(600, 600, 1)], f"at most {MOST_MULTIPLY_ADDS:,} mult"),
    ],
)
def test_what_the_page_does_not_compute_is_refused(modules, reason):
    with pytest.raises(ValueError, match=reason):
        describe(sequence(*modules), STATISTICS, size=(32, 32))


def test_a_model_is_refused_that_is_none_trains_or_cannot_be_read():
    with pytest.raises(TypeError, match=r"model=3: accepted is a torch\.nn\.Module"):
        describe(3, STATISTICS, size=(32, 32))
    with pytest.raises(ValueError, match="height=0: accepted"):
        describe(Own().eval(), STATISTICS, size=(0, 32))
    with pytest.raises(ValueError, match="accepted is one in evaluation mode"):
        describe(Own(), STATISTICS, size=(32, 32))
    large = sequence(nn.Conv2d(3, 4, 1))
    large[0].weight.data[1] = 1e6
    with pytest.raises(ValueError, match="0: its weights are no numbers that float16 can hold"):
        describe(large, STATISTICS, size=(32, 32))

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="layers cannot be told from its code"):
        describe(Branching().eval(), STATISTICS, size=(32, 32))


# --- In a page ---

PAGE = """<!doctype html><meta charset="utf-8"><style>.eca-lab { width: 600px; height: 700px; }
.board canvas { width: 320px; height: 320px; display: block; touch-action: pinch-zoom; }
</style><div class="eca-lab"></div>"""
# The board, whose images four networks answer, in window.heard.
START = """async ([text, told]) => {
    const url = URL.createObjectURL(new Blob([text], {type: "text/javascript"}));
    const {board, bytes, crew, engine} = await import(url);
    const descriptions = Object.fromEntries(Object.entries(told).map(
        ([name, each]) => [name, {...each, weights: bytes(each.weights)}]));
    Object.assign(window, {descriptions, engine, bytes, crew});
    window.heard = {image: null, answers: {}, count: 0};
    const {ask} = crew(descriptions, (found, {looks}) => found.forEach(({plain}, i) => {
        heard.answers[looks[i].network] = [[...looks[i].pixels], [...plain]];
    }));
    const root = document.querySelector(".eca-lab");
    const made = board(root, image => {
        heard.count += 1;
        heard.image = image && [...image];
        const pixels = image;
        if (image) ask({looks: Object.keys(told).map(network => ({network, pixels}))});
    });
    root.append(made.node);
}"""
IN_PAGE = """([run, name, images]) =>
    eval(run)(engine, descriptions[name], bytes(images), null, null)"""
# An answer where there can be no worker: it cannot be made, or does not start.
ALONE = """([kind, network, pixels]) => new Promise(done => {
    const usual = Worker;
    window.Worker = class {
        constructor() {
            if (kind === "throws") throw Error("forbidden");
            setTimeout(() => this.onerror(), 100);
        }
        postMessage() {}
        terminate() {}
    };
    const {ask, close} = crew(descriptions, ([{plain}]) => { close(); done([...plain]); });
    window.Worker = usual;
    ask({looks: [{network, pixels: Uint8Array.from(pixels)}]});
})"""
WAIT = "() => new Promise(done => requestAnimationFrame(() => done(true)))"
ANSWERED = """() => heard.image && Object.keys(descriptions).every(name =>
    JSON.stringify(heard.answers[name]?.[0]) === JSON.stringify(heard.image))"""


def star(turn=0.0):
    """The corners of a star within (-1, 1), to the right and down."""
    angles = np.pi * np.arange(10) / 5 + turn
    radii = np.where(np.arange(10) % 2, 0.42, 1)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1)


def heart():
    t = np.linspace(0, 2 * np.pi, 40)
    across = 16 * np.sin(t) ** 3
    up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([across, -up], 1) / 17


def circle():
    t = np.linspace(0, 2 * np.pi, 40)
    return np.stack([np.cos(t), np.sin(t)], 1)


@pytest.fixture
def drawing(page, trained):
    """A page with the board; it draws, and asks the four networks of notebook 02."""
    from eca_lab.explorers import explorer

    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_content(PAGE)
    text = f"{explorer.glued('board.js')}\n{explorer.glued('network.js')}"
    told = {
        f"{arm} {seed}": {**description, "weights": coded(description["weights"])}
        for (arm, seed), (_, description) in trained.items()
    }
    page.evaluate(START, [text, told])
    yield page
    assert wrong == []


def draw(page, points, radius=9.5):
    """Draw along points within (-1, 1) by the mouse."""
    place = page.locator("canvas").bounding_box()
    cell = place["width"] / 32
    middle = place["x"] + 16 * cell, place["y"] + 16 * cell
    points = [(middle[0] + cell * radius * x, middle[1] + cell * radius * y) for x, y in points]
    page.mouse.move(*points[0])
    page.mouse.down()
    for x, y in [*points[1:], points[0]]:
        page.mouse.move(x, y)
    page.mouse.up()


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def in_browser(test):
    for mark in needs_browser:
        test = mark(test)
    return test


def answers(page):
    """The image that is drawn, (1, 3, 32, 32), and the logits of the networks."""
    page.wait_for_function(WAIT)
    page.wait_for_function(ANSWERED, timeout=30_000)
    heard = page.evaluate("heard")
    image = torch.tensor(heard["image"], dtype=torch.uint8).reshape(1, 32, 32, 3)
    return image.permute(0, 3, 1, 2), {name: each[1] for name, each in heard["answers"].items()}


@in_browser
@pytest.mark.parametrize("shape", ["star", "heart", "ring"])
def test_a_shape_drawn_by_mouse_is_known_by_all_networks(shapes, trained, drawing, shape):
    if shape == "ring":
        button(drawing, "Line").click()
    draw(drawing, {"star": star, "heart": heart, "ring": circle}[shape]())
    image, found = answers(drawing)
    for (arm, seed), (model, _) in trained.items():
        expected = logits(rounded(model), image, input_transform(shapes))[0]
        np.testing.assert_allclose(found[f"{arm} {seed}"], expected, atol=1e-4)
        assert shapes.classes[int(np.argmax(expected))] == shape, (arm, seed)


@in_browser
def test_the_page_predicts_the_test_images_as_torch_does(shapes, trained, drawing):
    images, prepare = shapes.test_images[::100], input_transform(shapes)
    for (arm, seed), (model, _) in trained.items():
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
        asked = [RUN, f"{arm} {seed}", coded(pixels)]
        found = np.array(drawing.evaluate(IN_PAGE, asked)["logits"])
        expected = logits(rounded(model), images, prepare)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (found.argmax(1) == expected.argmax(1)).all()


@in_browser
def test_a_stroke_can_be_undone_and_the_board_cleared(drawing):
    assert drawing.evaluate("heard.image") is None
    expect(button(drawing, "Undo")).to_be_disabled()
    draw(drawing, star())
    first, _ = answers(drawing)
    before = drawing.evaluate("heard.count")
    button(drawing, "blue").click()
    draw(drawing, [(-1, -1), (1, 1)])
    second, _ = answers(drawing)
    assert not torch.equal(first, second)
    assert drawing.evaluate("heard.count") > before
    drawing.locator("canvas").focus()
    drawing.keyboard.press("Control+z")
    again, _ = answers(drawing)
    assert torch.equal(first, again)
    button(drawing, "Clear").click()
    drawing.wait_for_function("heard.image === null")
    button(drawing, "Undo").click()
    again, _ = answers(drawing)
    assert torch.equal(first, again)
    # Escape takes a stroke back that is being drawn, and what follows of it.
    place = drawing.locator("canvas").bounding_box()
    drawing.mouse.move(place["x"] + 20, place["y"] + 20)
    drawing.mouse.down()
    drawing.mouse.move(place["x"] + 200, place["y"] + 20, steps=3)
    drawing.wait_for_function(WAIT)
    drawing.keyboard.press("Escape")
    drawing.mouse.move(place["x"] + 200, place["y"] + 200, steps=3)
    drawing.mouse.up()
    again, _ = answers(drawing)
    assert torch.equal(first, again)


@in_browser
def test_keys_paint_cells(drawing):
    drawing.locator("canvas").focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "Space"):
        drawing.keyboard.press(key)
    image, _ = answers(drawing)
    rows, columns = np.nonzero((image[0] != 120).any(0).numpy())
    assert (rows.mean(), columns.mean()) == (14, 15)
    label = "Board of 32 × 32 cells, at column 16, row 15"
    assert drawing.get_by_role("application", name=label).count() == 1


@in_browser
def test_a_finger_draws(drawing):
    finger = Finger(drawing)
    place = drawing.locator("canvas").bounding_box()
    x, y = place["x"] + 100, place["y"] + 100
    finger.touch("touchStart", (x, y))
    for right, down in ((50, 0), (100, 0), (100, 50), (100, 100)):
        finger.touch("touchMove", (x + right, y + down))
    finger.touch("touchEnd")
    image, _ = answers(drawing)
    finger.lift()
    # A triangle of 10 x 10 cells, whose edge is drawn one wide.
    assert 50 <= (image[0] != 120).any(0).sum() <= 90


@in_browser
def test_pictures_are_taken_and_what_is_none_is_answered_in_words(drawing, tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    drawing.locator("input[type=file]").set_input_files(tmp_path / "noise.png")
    told = drawing.locator(".told")
    expect(told).to_have_text("noise.png: its middle square.")
    image, _ = answers(drawing)
    middle = pixels[:, 16:80].reshape(32, 2, 32, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert abs(image[0].numpy() - middle).max() <= 0.5

    drop = """([name, text, selector]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name));
        const node = document.querySelector(selector);
        return ["dragover", "drop"].map(type => node.dispatchEvent(new DragEvent(
            type, {dataTransfer: data, bubbles: true, cancelable: true})));
    }"""
    # Beside the canvas, too: the page stays, and so does what was drawn.
    for selector in ("canvas", ".eca-lab"):
        assert drawing.evaluate(drop, ["a.png", "no picture", selector]) == [False, False]
        why = "a.png is no picture that this browser reads: accepted are PNG, JPEG, GIF and WebP."
        expect(told).to_have_text(why)
    (tmp_path / "large.png").write_bytes(bytes(21_000_000))
    drawing.locator("input[type=file]").set_input_files(tmp_path / "large.png")
    expect(told).to_have_text("large.png has 21 MB: accepted are pictures up to 20 MB.")
    Image.new("1", (8000, 8000)).save(tmp_path / "wide.png")
    drawing.locator("input[type=file]").set_input_files(tmp_path / "wide.png")
    wide = "wide.png has 8000 × 8000 pixels: accepted are 1 to 50 million."
    expect(told).to_have_text(wide)
    again, _ = answers(drawing)
    assert torch.equal(image, again)


@in_browser
def test_networks_answer_where_the_page_may_have_no_worker(shapes, trained, drawing):
    image, prepare = shapes.test_images[7:8], input_transform(shapes)
    pixels = image[0].permute(1, 2, 0).flatten().tolist()
    for kind in ("throws", "fails"):
        found = drawing.evaluate(ALONE, [kind, "se 1", pixels])
        expected = logits(rounded(trained["se", 1][0]), image, prepare)[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
