import copy
import math

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.layers import CecaModule, EcaModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn

from eca_lab.attention import modules
from eca_lab.data.augmentation import input_transform
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model

ARMS = ["se(r=4)", "cbam(r=4)", "eca(k=5, order=shuffled)", "eca_ns(k=3)"]
LAYERS = ["layer1.attention", "layer2.attention", "layer3.0.attention", "layer3.1.attention"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny(arm="eca"):
    return build_model("tiny", arm, num_classes=3, stem="cifar").eval()


def images(count=7):
    return torch.randn(count, 3, 8, 8)


def state(model):
    """Everything of a model that a probe might leave changed."""
    return {
        name: (
            module.training,
            sorted(vars(module)),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            {key: value.clone() for key, value in module._parameters.items() if value is not None},
        )
        for name, module in model.named_modules()
    }


def assert_same_state(before, after):
    assert before.keys() == after.keys()
    for name in before:
        *facts, parameters = before[name]
        *facts_after, parameters_after = after[name]
        assert facts == facts_after, name
        assert parameters.keys() == parameters_after.keys()
        assert all(torch.equal(parameters[key], parameters_after[key]) for key in parameters), name


def inputs_of(model, names, batch):
    """What reaches the modules of those names when the batch runs through the model."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].detach().clone()})
        )
        for name in names
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return seen


# --- Recording ---


@pytest.mark.parametrize("arm", ARMS)
def test_our_weights_and_descriptors_are_those_of_each_layer(arm):
    model, batch = tiny(arm), images()
    record = probe.record_weights(model, batch, batch_size=3, descriptors=True)
    assert list(record.weights) == LAYERS
    for layer, x in inputs_of(model, LAYERS, batch).items():
        module = model.get_submodule(layer)
        assert record.weights[layer].dtype == np.float32
        np.testing.assert_allclose(record.weights[layer], module.weights(x).detach(), atol=1e-6)
        np.testing.assert_allclose(record.descriptors[layer], module.squeeze(x), atol=1e-6)


class Scaled(nn.Module):
    """Around another library's module, so that its weights are known from outside: f(x) / x."""

    def __init__(self, module):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 16, 3), module)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.inner(x).mean((2, 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EcaModule(16),
        lambda: EcaModule(16, use_mlp=True),
        lambda: CecaModule(16, kernel_size=5),
        lambda: SEModule(16, rd_ratio=0.5),
        lambda: SEModule(16, rd_ratio=0.5, gate_layer="hard_sigmoid", add_maxpool=True),
        lambda: SqueezeExcite(16),
        lambda: torchvision.ops.SqueezeExcitation(16, 4),
        lambda: torchvision.ops.SqueezeExcitation(16, 4, scale_activation=nn.Hardsigmoid),
    ],
)
def test_other_libraries_weights_are_what_their_modules_multiply_by(make):
    model = Scaled(make()).eval()
    batch = images()
    x = inputs_of(model, ["inner.1"], batch)["inner.1"]
    gate = (model.inner[1](x) / x)[:, :, 0, 0].detach()
    assert gate.std() > 1e-4  # neither all open nor all closed
    record = probe.record_weights(model, batch, batch_size=4, descriptors=True)
    assert list(record.weights) == ["inner.1"]
    np.testing.assert_allclose(record.weights["inner.1"], gate, atol=1e-5)
    np.testing.assert_allclose(record.descriptors["inner.1"], x.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "size", "layers"),
    [
        (lambda: torchvision.models.mobilenet_v3_small(), 32, 9),
        (lambda: torchvision.models.efficientnet_b0(), 32, 16),
        (lambda: timm.create_model("ecaresnet26t"), 32, 8),
        (lambda: timm.create_model("seresnet18"), 32, 8),
    ],
)
def test_whole_networks_of_other_libraries(make, size, layers):
    model = make()
    batch = torch.randn(2, 3, size, size)
    before = state(model)
    record = probe.record_weights(model, batch)
    assert_same_state(before, state(model))
    assert len(record.weights) == layers
    model.eval()
    for layer, x in inputs_of(model, record.weights, batch).items():
        with torch.no_grad():
            expected = model.get_submodule(layer)(x.clone()).double().sum((2, 3))
        actual = record.weights[layer] * x.double().sum((2, 3)).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_batches_do_not_matter():
    model, batch = tiny(), images()
    whole = probe.record_weights(model, batch)
    for size in (1, 2, 7, 100):
        parts = probe.record_weights(model, batch, batch_size=size)
        for layer in whole.weights:
            np.testing.assert_allclose(parts.weights[layer], whole.weights[layer], atol=1e-6)


def test_images_of_a_data_set_are_prepared_batch_by_batch(dataset):
    model = tiny()
    prepare = input_transform(dataset)
    record = probe.record_weights(model, dataset.test_images, prepare=prepare, batch_size=8)
    same = probe.record_weights(model, prepare(dataset.test_images))
    for layer in LAYERS:
        np.testing.assert_allclose(record.weights[layer], same.weights[layer], atol=1e-6)


def test_the_model_keeps_its_dtype():
    model = tiny().double()
    record = probe.record_weights(model, images())
    assert {each.dtype for each in model.parameters()} == {torch.float64}
    single = probe.record_weights(model.float(), images())
    assert record.weights[LAYERS[0]].dtype == np.float32
    assert record.weights[LAYERS[0]].shape == single.weights[LAYERS[0]].shape


@pytest.mark.gpu
def test_recording_on_a_gpu_agrees_with_the_cpu():
    model, batch = tiny(), images()
    on_cpu = probe.record_weights(model, batch)
    on_gpu = probe.record_weights(model.cuda(), batch)
    for layer in LAYERS:
        np.testing.assert_allclose(on_gpu.weights[layer], on_cpu.weights[layer], atol=1e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = tiny("eca")
    model.train()
    model.layer2.eval()  # modes of their own are kept, too
    before = state(model)
    statistics = copy.deepcopy(model.bn1.state_dict())
    if fails:
        with pytest.raises(RuntimeError):
            probe.record_weights(model, torch.randn(2, 4, 8, 8), descriptors=True)
    else:
        probe.record_weights(model, images(), descriptors=True)
    assert_same_state(before, state(model))
    torch.testing.assert_close(model.bn1.state_dict(), statistics)


def test_the_last_batch_failing_leaves_nothing_behind():
    model = Scaled(EcaModule(16))
    before = state(model)
    calls = []

    def prepare(batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise KeyError("no second batch")
        return batch

    with pytest.raises(KeyError):
        probe.record_weights(model, images(), prepare=prepare, batch_size=5)
    assert calls == [5, 2]
    assert_same_state(before, state(model))


def test_what_cannot_be_recorded():
    message = "TinyResNet has no channel attention that could be found: looked for was a product"
    with pytest.raises(ValueError, match=message):
        probe.record_weights(tiny("none"), images())
    with pytest.raises(ValueError, match=r"images of torch\.uint8 without prepare"):
        probe.record_weights(tiny(), images().to(torch.uint8))
    with pytest.raises(ValueError, match="batch_size=0"):
        probe.record_weights(tiny(), images(), batch_size=0)
    shared = modules.ECA(3, kernel_size=1)
    with pytest.raises(ValueError, match="; 0: it runs more than once in a pass"):
        probe.record_weights(nn.Sequential(shared, shared), images())


def test_feature_maps_are_what_the_modules_are_given():
    for model in (tiny("eca"), nn.Sequential(nn.Conv2d(3, 16, 3), SEModule(16))):
        before, batch = state(model), images()
        maps = probe.feature_maps(model, batch)
        assert_same_state(before, state(model))
        model.eval()
        assert list(maps) == list(probe.record_weights(model, batch).weights)
        for layer, x in inputs_of(model, maps, batch).items():
            assert maps[layer].dtype == np.float32
            np.testing.assert_allclose(maps[layer], x, atol=1e-5)


# --- Interventions ---


MAKES = {
    "ours": lambda: nn.Sequential(modules.ECA(16, kernel_size=5)),
    "ours, cbam": lambda: nn.Sequential(modules.CBAM(16, reduction=4)),
    "timm, eca": lambda: nn.Sequential(EcaModule(16)),
    "timm, se": lambda: nn.Sequential(SEModule(16, rd_ratio=0.5)),
    "torchvision": lambda: nn.Sequential(torchvision.ops.SqueezeExcitation(16, 4)),
}


@pytest.mark.parametrize("kind", MAKES)
def test_changes_of_the_weights(kind):
    model = MAKES[kind]().eval()
    x = torch.randn(4, 16, 5, 5)
    spatial = model[0]._spatial_weights if "cbam" in kind else lambda scaled: 1
    weights = torch.from_numpy(probe.record_weights(model, x).weights["0"])
    order = torch.randperm(16)
    factor = torch.rand(16)
    expected = {
        probe.scale(2): 2 * weights,
        probe.scale(factor): factor * weights,
        probe.freeze(0.25): torch.full((4, 16), 0.25),
        probe.freeze(weights.mean(0)): weights.mean(0).expand(4, 16),
        probe.freeze(weights[2].numpy()): weights[2].expand(4, 16),
        probe.permute(order): weights[:, order],
        probe.permute(order.tolist()): weights[:, order],
        probe.swap(): weights[[3, 0, 1, 2]],
        probe.swap(2): weights[[2, 3, 0, 1]],
        probe.off: torch.ones(4, 16),
    }
    before, unchanged = state(model), model(x)
    for change, changed in expected.items():
        with probe.intervene(model, "0", change), torch.no_grad():
            out = model(x)
            # Within, the record is of the weights that act.
            acting = probe.record_weights(model, x).weights["0"]
        scaled = x * changed[:, :, None, None]
        torch.testing.assert_close(out, scaled * spatial(scaled))
        np.testing.assert_allclose(acting, changed, atol=1e-6)
    assert_same_state(before, state(model))
    torch.testing.assert_close(model(x), unchanged, rtol=0, atol=0)


def test_nested_changes_come_one_after_the_other():
    model = MAKES["timm, eca"]()
    x = torch.randn(2, 16, 3, 3)
    before = state(model)
    with probe.intervene(model, "0", probe.freeze(0.5)):
        with probe.intervene(model, "0", probe.scale(0.5)):
            torch.testing.assert_close(model(x), 0.25 * x)
        torch.testing.assert_close(model(x), 0.5 * x)
    assert_same_state(before, state(model))


def test_an_error_within_ends_the_intervention():
    model = MAKES["torchvision"]()
    before = state(model)
    with pytest.raises(KeyError), probe.intervene(model, "0", probe.off):
        raise KeyError
    with pytest.raises(KeyError), probe.renumber(model, "0", list(reversed(range(16)))):
        raise KeyError
    assert_same_state(before, state(model))


def test_one_layer_is_changed_and_the_others_react():
    model, batch = tiny("se(r=4)"), images()
    plain = probe.record_weights(model, batch)
    with probe.intervene(model, LAYERS[1], probe.freeze(1)):
        changed = probe.record_weights(model, batch)
    np.testing.assert_array_equal(changed.weights[LAYERS[0]], plain.weights[LAYERS[0]])
    assert (changed.weights[LAYERS[1]] == 1).all()
    assert np.abs(changed.weights[LAYERS[2]] - plain.weights[LAYERS[2]]).max() > 1e-5


def test_interventions_that_are_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"layer='layer9': accepted are layer1\.attention, layer2"):
        probe.intervene(model, "layer9", probe.off).__enter__()
    for act in (
        probe.intervene(model, "layer1", probe.off),
        probe.renumber(model, "layer1", torch.randperm(16)),
    ):
        with act, pytest.raises(ValueError, match="layer='layer1': no channel attention; accepted"):
            model(images())
    plain = tiny("none")
    with (
        probe.intervene(plain, "layer1.attention", probe.off),
        pytest.raises(ValueError, match="no channel attention that could be found"),
    ):
        plain(images())
    with pytest.raises(TypeError, match=r"change=0\.5: accepted are functions, such as"):
        probe.intervene(model, LAYERS[0], 0.5).__enter__()
    for change in (probe.scale([1, 2]), probe.freeze([1, 2]), probe.permute([1, 0])):
        with (
            probe.intervene(model, LAYERS[0], change),
            pytest.raises((ValueError, RuntimeError), match=r"2.*16|16.*2"),
        ):
            model(images())
    with (
        probe.renumber(model, LAYERS[0], [1, 0]),
        pytest.raises(ValueError, match="order of length 2: accepted is 16"),
    ):
        model(images())
    with (
        probe.intervene(model, LAYERS[0], probe.swap(7)),
        pytest.raises(ValueError, match="shift=7: 7 images would keep their weights"),
    ):
        model(images())
    with pytest.raises(ValueError, match="factor: accepted is a finite number"):
        probe.scale(math.nan)
    with pytest.raises(ValueError, match="weights: accepted is a finite number"):
        probe.freeze([[1, 2]])
    for order in ([0, 0, 1], [0.5, 1.0], [[0, 1]]):
        for act in (probe.permute, lambda each: probe.renumber(model, LAYERS[0], each).__enter__()):
            with pytest.raises(ValueError, match=r"order=.*: accepted is each integer"):
                act(order)


@pytest.mark.parametrize(
    ("make", "depends_on_the_order"),
    [
        (lambda: modules.CBAM(16, reduction=4), False),
        (lambda: modules.SEVar3(16), False),
        (lambda: SEModule(16, rd_ratio=0.5), False),
        (lambda: torchvision.ops.SqueezeExcitation(16, 4), False),
        (lambda: modules.ECA(16, kernel_size=5), True),
        (lambda: modules.ECA(16, kernel_size=5, order="shuffled"), True),
        (lambda: modules.ECANS(16, kernel_size=5), True),
        (lambda: EcaModule(16), True),
    ],
)
def test_renumbering_changes_what_depends_on_the_order_of_the_channels(make, depends_on_the_order):
    model = nn.Sequential(make()).eval()
    x = torch.randn(3, 16, 4, 4) + torch.randn(16, 1, 1)
    before, plain = state(model), model(x)
    with probe.renumber(model, "0", torch.randperm(16)):
        renumbered = model(x)
    assert_same_state(before, state(model))
    if depends_on_the_order:
        assert (renumbered - plain).abs().max() > 1e-3
    else:
        torch.testing.assert_close(renumbered, plain)


def test_turning_the_channels_of_a_circular_eca_changes_nothing():
    model = nn.Sequential(modules.ECA(16, kernel_size=5, padding="circular"))
    x = torch.randn(3, 16, 4, 4)
    with probe.renumber(model, "0", torch.arange(16).roll(3)):
        torch.testing.assert_close(model(x), model(x))
        turned = model(x)
    torch.testing.assert_close(turned, model(x))
