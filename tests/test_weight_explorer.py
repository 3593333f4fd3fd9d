"""The panel of the channel weights, driven over all layers and classes."""

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


def test_the_state_to_begin_with(panel):
    state = panel.network, panel.layer, panel.first_class, panel.second_class
    assert state == ("eca", "layer3.1.attention", "red", "green")
    assert (panel.image, panel.channel, panel.factor) == (0, 0, 1)
    assert bytes(panel._image.value).startswith(b"\x89PNG")


def test_every_network_layer_and_class_shows_what_the_probe_records(panel, networks, dataset):
    images, labels = dataset.test_images[panel.indices], dataset.test_labels[panel.indices].numpy()
    assert labels.tolist() == [0] * 10 + [1] * 10
    for name, model in networks.items():
        panel.network = name
        record = probe.record_weights(model, images, labels, input_transform(dataset))
        for layer in record.layers:
            panel.layer = layer
            np.testing.assert_array_equal(panel.weights, record.weights[layer])
            moments = probe.class_moments(record.weights[layer], labels)
            for number, label in enumerate(dataset.classes):
                panel.first_class, panel.second_class = label, dataset.classes[1 - number]
                drawn = [line.get_ydata() for line in panel._picture.lines]
                np.testing.assert_allclose(drawn[0], moments.mean[number], rtol=1e-5)
                np.testing.assert_allclose(drawn[1], moments.mean[1 - number], rtol=1e-5)
                np.testing.assert_array_equal(panel.class_weights, drawn[:2])


def test_the_probabilities_are_those_of_a_forward_pass(panel, networks, dataset):
    for name, model in networks.items():
        panel.network = name
        for layer, module in probe.attention_layers(model).items():
            panel.layer, panel.image, panel.channel, panel.factor = layer, 7, 3, 2.5
            plain = forward(model, dataset, panel.indices[7])

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


def test_the_feature_map_is_what_the_module_gets_and_gives(panel, networks, dataset):
    panel.layer, panel.image, panel.channel = "layer2.attention", 12, 5
    module = probe.attention_layers(networks["eca"])["layer2.attention"]
    seen = []
    hook = module.register_forward_hook(lambda _, given, out: seen.extend((given[0], out)))
    forward(networks["eca"], dataset, panel.indices[12])
    hook.remove()
    before, after = (each[0, 5].numpy() for each in seen)
    largest = np.abs(before).max()
    drawn = [image.get_array() for image in panel._picture.maps]
    np.testing.assert_allclose(drawn[0], before / largest, atol=1e-6)
    np.testing.assert_allclose(drawn[1], after / largest, atol=1e-6)
    panel.factor = 0
    assert not panel._picture.maps[1].get_array().any()
    assert panel.weight == pytest.approx(float(panel.weights[12, 5]))


def test_controls_and_attributes_move_together(panel):
    for layer in panel._layers["eca"]:
        panel._choices["layer"].value = layer
        assert panel.layer == layer
        last = panel.weights.shape[1] - 1
        for channel in (0, 1, last):
            panel._channel_slider.value = channel
            assert panel.channel == panel._channel_box.value == channel
        panel._channel_box.value = 0
    for image in (0, 19):
        panel._image_box.value = image
        assert panel.image == panel._image_slider.value == image
    for factor in (0, 0.1, 0.3, 4):
        panel._factor_slider.value = factor
        assert panel.factor == panel._factor_box.value == factor
    panel._choices["network"].value = "se"
    panel._choices["first_class"].value = "green"
    assert (panel.network, panel.first_class) == ("se", "green")


def test_an_unchanged_weight_changes_nothing(panel):
    np.testing.assert_allclose(*panel.probabilities.to_numpy().T, atol=1e-7)


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


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("network", "none", ValueError, "network='none': accepted are eca, se"),
        ("layer", "fc", ValueError, "layer='fc': accepted are layer1.attention, "),
        ("first_class", "blue", ValueError, "first_class='blue': accepted are red, green"),
        ("second_class", 0, ValueError, "second_class=0: accepted are red, green"),
        ("image", 20, ValueError, "image=20: accepted here are 0 to 19"),
        ("image", 1.0, TypeError, "image=1.0: accepted is an integer"),
        ("channel", 256, ValueError, "channel=256: accepted here are 0 to 255"),
        ("channel", -1, ValueError, "channel=-1: accepted here are 0 to 255"),
        ("factor", 5, ValueError, "factor=5: accepted are 0 to 4"),
        ("factor", float("nan"), ValueError, "factor=nan: accepted are 0 to 4"),
    ],
)
def test_what_is_not_accepted_changes_nothing(panel, name, value, error, message):
    before = repr(panel)
    with pytest.raises(error, match=message):
        setattr(panel, name, value)
    assert repr(panel) == before


def test_a_wrong_entry_is_answered_in_the_panel(panel):
    panel._channel_box.value = 999
    assert "channel=999: accepted here are 0 to 255" in panel._status.value
    assert panel.channel == 0


def test_readers_without_a_kernel_see_the_picture(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["image/png"]
    assert bundle["text/plain"].startswith("ChannelWeightExplorer(networks, dataset, network='eca'")


def test_repr_gives_an_equal_panel(panel, networks, dataset):
    panel.network, panel.layer, panel.image, panel.factor = "se", "layer2.attention", 4, 0.5
    names = {"ChannelWeightExplorer": ChannelWeightExplorer}
    again = eval(repr(panel), {**names, "networks": networks, "dataset": dataset})
    assert again._state == panel._state
    assert again._image.value == panel._image.value


def test_networks_that_cannot_be_shown(networks, dataset):
    with pytest.raises(ValueError, match="there are none; accepted is at least one"):
        ChannelWeightExplorer({}, dataset)
    plain = {**networks, "plain": build_model("tiny", "none", 2, "cifar")}
    with pytest.raises(ValueError, match=r"networks\['plain'\] has no channel attention"):
        ChannelWeightExplorer(plain, dataset)
