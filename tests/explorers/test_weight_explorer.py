"""The explorer of the channel weights in Python; what its page draws is in test_browser.py."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from eca_lab import explore, figures
from eca_lab.data.augmentation import channel_statistics, input_transform
from eca_lab.explorers import ChannelWeightExplorer
from eca_lab.explorers.network import describe
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model

ARMS = {"eca": "eca", "se": "se(r=4)"}
IMAGES = [*range(0, 20, 2), *range(1, 20, 2)]  # ten of each class, which take turns


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        name: build_model("tiny", arm, num_classes=2, stem="cifar").eval()
        for name, arm in ARMS.items()
    }


@pytest.fixture(scope="module")
def shared(networks, dataset):
    return ChannelWeightExplorer(networks, dataset)


@pytest.fixture
def panel(shared):
    shared.set_state(shared.given["initial"])
    return shared


def test_networks_have_the_colors_of_their_arms(networks, dataset):
    names = {"se(r=4), seed 1": "se(r=4)", "se": "se", "my own": "eca"}
    made = ChannelWeightExplorer(dict.fromkeys(names, networks["se"]), dataset)
    assert made.given["colors"] == {name: figures.arm_color(arm) for name, arm in names.items()}


def test_a_layer_with_too_few_channels_is_refused(panel):
    panel.channel = 200
    with pytest.raises(ValueError, match="channel=200: accepted is an integer from 0 to 15"):
        panel.layer = "layer1.attention"
    panel.set_state({"layer": "layer1.attention", "channel": 15})  # as the page lowers it
    assert (panel.layer, panel.channel) == ("layer1.attention", 15)


def test_every_state_is_answered_by_what_the_probe_measures(panel, networks, dataset):
    prepare = input_transform(dataset)
    assert (panel.network, panel.layer) == ("eca", "layer3.1.attention")
    assert (panel.given["classes"], panel.given["counts"]) == (("red", "green"), [10, 10])
    assert np.frombuffer(panel.given["indices"], "<i4").tolist() == IMAGES
    images = dataset.test_images[IMAGES]
    pixels = np.frombuffer(panel.given["images"], np.uint8).reshape(20, 16, 16, 3)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), images)

    for name, model in networks.items():
        record = probe.record_weights(model, images, prepare=prepare)
        maps = probe.feature_maps(model, images, prepare=prepare)
        with torch.inference_mode():
            plain = model(prepare(images)).softmax(1).numpy()
        for layer, weights in record.weights.items():
            for image, factor in ((7, 2.5), (12, 0)):
                channel = weights.shape[1] - image
                state = {"network": name, "layer": layer, "image": image, "channel": channel}
                panel.set_state({**state, "factor": factor})
                answer = panel.answer
                assert answer["asked"] == panel._state()
                shades = np.frombuffer(answer["weights"], np.uint8).reshape(weights.shape)
                np.testing.assert_allclose(shades / 255, weights, atol=0.5001 / 255)
                np.testing.assert_array_equal(panel.weights, weights)
                assert answer["weight"] == weights[image, channel]
                seen = np.frombuffer(answer["map"], np.float32).reshape(answer["size"])
                np.testing.assert_allclose(seen, maps[layer][image, channel], atol=1e-5)

                def change(weights, channel=channel, factor=factor):
                    weights = weights.clone()
                    weights[:, channel] *= factor
                    return weights

                with probe.intervene(model, layer, change), torch.inference_mode():
                    changed = model(prepare(images[image, None]))[0].softmax(0).numpy()
                shown = panel.probabilities
                assert shown.index.tolist() == list(dataset.classes)
                np.testing.assert_allclose(shown["plain"], plain[image], atol=1e-6)
                np.testing.assert_allclose(shown["changed"], changed, atol=1e-6)
                assert (shown["plain"] != shown["changed"]).any()
                panel.factor = 1
                assert panel.answer["changed"] == panel.answer["plain"]


def test_controls_through_their_range(panel):
    panel.layer = "layer1.attention"
    stops = {"factor": panel.FACTOR_STOPS, "image": range(20), "channel": range(16)}
    for name in stops:
        for value in stops[name]:
            setattr(panel, name, value)
            assert panel.answer["asked"] == panel._state()


@pytest.fixture
def not_run(monkeypatch):
    """No network is small enough to run in the page."""
    monkeypatch.setattr(ChannelWeightExplorer, "RUN_BYTES", 0)


def test_a_page_runs_small_networks_of_a_data_set_itself(panel, networks, dataset):
    described = panel.given["described"]
    statistics = channel_statistics(dataset.train_images)
    for name, model in networks.items():
        assert described[name] == describe(model, statistics, size=(16, 16))
    assert not panel.given["board"]  # which has 32 x 32 cells
    told = panel._alone()
    assert set(told) == {"recorded"}
    for layers, name in zip(told["recorded"], networks, strict=True):
        panel.network = name
        for layer, recorded in zip(panel._channels[name], layers, strict=True):
            panel.layer = layer
            assert recorded["weights"] == panel.answer["weights"]


def test_networks_are_run_by_the_page_all_or_none(networks, dataset, monkeypatch):
    def described(networks, dataset=dataset):
        return ChannelWeightExplorer(networks, dataset).given["described"]

    other = build_model("tiny", "cbam", num_classes=2, stem="cifar").eval()
    assert described({**networks, "cbam": other}) is None
    training = {name: copy.deepcopy(model).train() for name, model in networks.items()}
    assert described(training) is not None
    assert all(model.training for model in training.values())
    count = sum(each.numel() for model in networks.values() for each in model.parameters())
    monkeypatch.setattr(ChannelWeightExplorer, "RUN_BYTES", 2 * count)
    assert described(networks) is not None
    monkeypatch.setattr(ChannelWeightExplorer, "RUN_BYTES", 2 * count - 1)
    assert described(networks) is None
    explorer = explore(networks["eca"], torch.rand(2, 3, 32, 32))
    assert explorer.given["described"] is None  # it may prepare its images in any way


def test_what_a_page_without_a_kernel_is_told(networks, dataset, not_run):
    panel = ChannelWeightExplorer(networks, dataset, image=4, channel=100, factor=3)
    before, prepare = panel._state(), input_transform(dataset)
    images = dataset.test_images[IMAGES]
    told = panel._alone()
    assert panel._state() == before
    assert told["initial"] == before | {"factor": 1}
    assert told["mapped"] == [*range(20)]  # there is room for all
    for model, layers in zip(networks.values(), told["recorded"], strict=True):
        record = probe.record_weights(model, images, prepare=prepare)
        maps = probe.feature_maps(model, images, prepare=prepare)
        with torch.inference_mode():
            plain = model(prepare(images)).softmax(1)
        for (layer, weights), recorded in zip(record.weights.items(), layers, strict=True):
            shades = np.frombuffer(recorded["weights"], np.uint8).reshape(weights.shape)
            np.testing.assert_allclose(shades / 255, weights, atol=0.5001 / 255)
            with probe.intervene(model, layer, probe.off), torch.inference_mode():
                off = model(prepare(images)).softmax(1)
            for name, expected in (("plain", plain), ("changed", off)):
                chances = np.frombuffer(recorded[name], "<f4").reshape(20, 2)
                np.testing.assert_allclose(chances, expected, atol=1e-6)
            assert np.frombuffer(recorded["classes"], "<i4").tolist() == [0, 1] * 20
            shares = np.frombuffer(recorded["map"], np.int8).reshape(maps[layer].shape) / 127
            most = np.abs(maps[layer]).max((2, 3), keepdims=True)
            np.testing.assert_allclose(shares, maps[layer] / most, atol=0.501 / 127)


def test_maps_are_kept_of_as_many_images_as_there_is_room_for(
    networks, dataset, monkeypatch, not_run
):
    one = {"eca": networks["eca"]}
    panel = ChannelWeightExplorer(one, dataset, image=4)
    cells = 16 * 16**2 + 64 * 8**2 + 2 * 256 * 4**2
    for room, mapped in (
        (0, [4]),
        (cells, [4]),
        (3 * cells, [0, 4, 10]),
        (4 * cells, [0, 1, 4, 10]),
    ):
        monkeypatch.setattr(ChannelWeightExplorer, "ALONE_MAPS", room)
        told = panel._alone()
        assert told["mapped"] == mapped
        assert sum(len(each["map"]) for each in told["recorded"][0]) == cells * len(mapped)


def test_the_figure_draws_the_state(panel):
    assert panel._result() == f"predicts {panel.probabilities['plain'].idxmax()}"
    panel.set_state({"image": 15, "channel": 3, "factor": 2})
    (ax,) = panel._figure().axes
    np.testing.assert_array_equal(ax.images[0].get_array(), panel.weights)
    assert ax.lines[0].get_xydata().tolist() == [[3, 15]]
    assert f"image 15, channel 3: {panel.weights[15, 3]:.3f}" in ax.get_title("left")


def test_what_cannot_be_shown(networks, dataset):
    with pytest.raises(ValueError, match="there are none; accepted is at least one"):
        ChannelWeightExplorer({}, dataset)
    plain = {**networks, "plain": build_model("tiny", "none", num_classes=2, stem="cifar")}
    with pytest.raises(
        ValueError, match=r"networks\['plain'\]: TinyResNet has no channel attention"
    ):
        ChannelWeightExplorer(plain, dataset)
    three = dataclasses.replace(dataset, classes=(*dataset.classes, "blue"))
    with pytest.raises(ValueError, match="class 'blue' has no test image"):
        ChannelWeightExplorer(networks, three)


class Changed(torch.nn.Module):
    """A model whose output is changed by a function."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            lambda out: (out, out),
            TypeError,
            r"gives a tuple: accepted is a tensor \(1, 2\), o",
        ),
        (lambda out: {"out": out}, TypeError, r"networks\['odd'\] gives a dict"),
        (
            lambda out: out[:, :1],
            ValueError,
            r"gives a tensor \(1, 1\): accepted is a te",
        ),
        (lambda out: out[0], ValueError, r"gives a tensor \(2,\)"),
        (lambda out: out * torch.nan, ValueError, r"networks\['odd'\] gives NaN or infinity: acc"),
        (lambda out: out + torch.inf, ValueError, "gives NaN or infinity"),
    ],
)
def test_models_that_do_not_give_a_number_for_each_class(change, error, match, networks, dataset):
    models = {**networks, "odd": Changed(networks["eca"], change)}
    with pytest.raises(error, match=match):
        ChannelWeightExplorer(models, dataset)


def test_weights_that_are_not_finite(networks, dataset):
    class Gate(torch.nn.Module):
        """Finite for the first image, by which networks are checked, but not for the fourth."""

        def forward(self, weights):
            fourth = torch.arange(len(weights))[:, None] == 3
            return weights.masked_fill(fourth, torch.nan)

    odd = copy.deepcopy(networks["se"])
    attention = odd.get_submodule("layer3.1.attention")
    attention.gate = torch.nn.Sequential(attention.gate, Gate())
    with pytest.raises(ValueError, match=r"\['odd'\]: weights of layer3.1.attention are not fin"):
        ChannelWeightExplorer({"odd": odd}, dataset)


@pytest.mark.parametrize(
    ("networks", "match"),
    [
        (torch.nn.ReLU(), r"networks=ReLU\(\): accepted is a dict of models by name"),
        ({"eca": "eca"}, r"networks\['eca'\]='eca': accepted is a torch.nn.Module"),
    ],
)
def test_what_is_no_network(networks, match, dataset):
    with pytest.raises(TypeError, match=match):
        ChannelWeightExplorer(networks, dataset)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda data: {"test_images": data.test_images.to(torch.int16)},
            r"test_images=torch.int16 \(20, 3, 16, 16\): accepted is torch.uint8 \(N, 3, H, W\)",
        ),
        (lambda data: {"train_images": data.train_images / 255}, "train_images=torch.float32"),
        (lambda data: {"test_images": data.test_images[:, :1]}, r"torch.uint8 \(20, 1, 16, 16\)"),
        (
            lambda data: {"test_labels": data.test_labels + 1},
            "test_labels: one is 2; accepted are 0 to 1, for 2 classes",
        ),
        (lambda data: {"test_labels": data.test_labels - 1}, "test_labels: one is -1; accepted"),
        (lambda data: {"test_labels": data.test_labels * 1.0}, "are 20 integers, one for each"),
        (lambda data: {"test_labels": data.test_labels[:4]}, r"test_labels=torch.int64 \(4,\)"),
        (
            lambda data: {"classes": tuple(map(str, range(1000)))},
            "dataset: 1,000 classes; accepted are at most 200, of each",
        ),
    ],
)
def test_data_sets_that_cannot_be_shown(change, match, networks, dataset):
    with pytest.raises(ValueError, match=match):
        ChannelWeightExplorer(networks, dataclasses.replace(dataset, **change(dataset)))


def test_200_classes_have_an_image_each(dataset):
    labels = torch.arange(400) % 200
    images = dataset.test_images[:1].expand(400, -1, -1, -1)
    many = dataclasses.replace(
        dataset, test_images=images, test_labels=labels, classes=tuple(map(str, range(200)))
    )
    panel = ChannelWeightExplorer(
        {"eca": build_model("tiny", "eca", num_classes=200, stem="cifar")}, many
    )
    assert len(panel.weights) == 200
    assert panel.given["counts"] == [1] * 200
    named = [label.get_text() for label in panel._figure().axes[0].get_yticklabels()]
    assert named == [str(label) for label in range(0, 200, 10)]
