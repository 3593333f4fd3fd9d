"""The numbers of the channel weights' panel; what all panels promise is in test_explorers.py."""

import numpy as np
import pytest
import torch

from eca_lab import probe
from eca_lab.explorers import ChannelWeightExplorer
from eca_lab.models import build_model
from eca_lab.train import input_transform

ARMS = {"eca": "eca", "se": "se(r=4)"}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {name: build_model("tiny", arm, 2, "cifar") for name, arm in ARMS.items()}


@pytest.fixture(scope="module")
def shared(networks, dataset):
    return ChannelWeightExplorer(networks, dataset)


@pytest.fixture
def panel(shared):
    shared._set(**shared._initial)
    return shared


def forward(model, dataset, number):
    with torch.inference_mode():
        images = input_transform(dataset)(dataset.test_images[number : number + 1])
        return model(images)[0].softmax(0).numpy()


def test_every_network_layer_and_class_shows_what_the_probe_records(panel, networks, dataset):
    state = panel.network, panel.layer, panel.first_class, panel.second_class
    assert state == ("eca", "layer3.1.attention", "red", "green")
    images, labels = dataset.test_images[panel.indices], dataset.test_labels[panel.indices].numpy()
    assert labels.tolist() == [0] * 10 + [1] * 10
    picture = panel._picture
    for name, model in networks.items():
        panel.network = name
        record = probe.record_weights(model, images, input_transform(dataset))
        for layer in record.layers:
            panel.layer, panel.image, panel.channel = layer, 13, 2
            expected = record.weights[layer]
            np.testing.assert_array_equal(panel.weights, expected)
            means = [expected[labels == label].mean(0) for label in range(2)]
            for number, label in enumerate(dataset.classes):
                panel.first_class, panel.second_class = label, dataset.classes[1 - number]
                drawn = [line.get_ydata() for line in picture.lines]
                np.testing.assert_allclose(drawn[0], means[number], rtol=1e-5)
                np.testing.assert_allclose(drawn[1], means[1 - number], rtol=1e-5)
                np.testing.assert_array_equal(panel.class_weights, drawn[:2])
            np.testing.assert_array_equal(drawn[2], expected[13])
            assert picture.dot.get_xydata().tolist() == [[2, expected[13, 2]]]
            np.testing.assert_array_equal(picture.heat.get_array(), expected)
            assert [each.get_text() for each in picture.names] == ["green", "red"]
            ends = [each.get_ydata().tolist() for each in picture.brackets]
            assert ends == [[9.5, 19.5], [-0.5, 9.5]]
            shares = [each.get_data()[0] for each in picture.histograms]
            counted = np.histogram(expected[labels == 1], panel.BINS, range=(0, 1))[0]
            np.testing.assert_allclose(shares[0], counted / max(counted) * shares[0].max())
            assert max(map(max, shares)) == 1


def test_the_probabilities_are_those_of_a_forward_pass(panel, networks, dataset):
    for name, model in networks.items():
        panel.network = name
        for layer, module in probe.attention_layers(model).items():
            panel.layer, panel.image, panel.channel = layer, 7, 3
            plain = forward(model, dataset, panel.indices[7])
            np.testing.assert_allclose(*panel.probabilities.to_numpy().T, atol=1e-7)
            panel.factor = 2.5

            def change(weights):
                weights = weights.clone()
                weights[:, 3] *= 2.5
                return weights

            with probe.intervene(model, layer, change):
                changed = forward(model, dataset, panel.indices[7])
            shown = panel.probabilities
            assert shown.index.tolist() == list(dataset.classes)
            np.testing.assert_allclose(shown["plain"], plain, atol=1e-6)
            np.testing.assert_allclose(shown["changed"], changed, atol=1e-6)
            assert not module._forward_pre_hooks
            bars = [[bar.get_width() for bar in each] for each in panel._picture.bars]
            np.testing.assert_allclose(bars, shown.to_numpy().T, atol=1e-6)
            assert (plain != changed).any()
            panel.factor = 1


def test_the_feature_map_is_shown_before_and_after_its_weight(panel, networks, dataset):
    panel.layer, panel.image, panel.channel = "layer2.attention", 12, 5
    image = dataset.test_images[panel.indices[12:13]]
    maps = probe.feature_maps(networks["eca"], image, input_transform(dataset))
    before = maps["layer2.attention"][0, 5]
    largest = np.abs(before).max()
    drawn = [image.get_array() for image in panel._picture.maps]
    np.testing.assert_allclose(drawn[0], before / largest, atol=1e-6)
    np.testing.assert_allclose(drawn[1], before * panel.weights[12, 5] / largest, atol=1e-6)
    panel.factor = 0
    assert not panel._picture.maps[1].get_array().any()
    assert panel.weight == pytest.approx(float(panel.weights[12, 5]))


def test_a_narrower_layer_lowers_the_channel(panel):
    panel.channel = 200
    panel.layer = "layer1.attention"
    assert panel.channel == 15
    assert "channel to 15" in panel._status.value
    panel.layer = "layer2.attention"
    assert panel.channel == 15
    assert panel._status.value == ""


def test_another_network_takes_over_what_it_has(networks, dataset):
    wide = build_model("resnet10", "eca", 2, "cifar")
    panel = ChannelWeightExplorer({**networks, "wide": wide}, dataset, channel=9, image=3)
    panel.network = "wide"
    assert (panel.layer, panel.channel, panel.image) == ("layer4.0.attention", 9, 3)
    panel.network = "se"
    assert panel.layer == "layer3.1.attention"


def test_networks_that_cannot_be_shown(networks, dataset):
    with pytest.raises(ValueError, match="there are none; accepted is at least one"):
        ChannelWeightExplorer({}, dataset)
    plain = {**networks, "plain": build_model("tiny", "none", 2, "cifar")}
    with pytest.raises(ValueError, match=r"networks\['plain'\] has no channel attention"):
        ChannelWeightExplorer(plain, dataset)
