"""That channel attention is found by what it does: with the very weights, and nowhere else."""

import threading

import numpy as np
import pasted
import pytest
import timm
import torch
import torchvision
from torch import nn

from eca_lab.looking import probe
from eca_lab.networks import passes
from eca_lab.networks.sites import modules_like_attention, watching

# Where modules of other libraries keep what gives their weights.
GATES = {
    "SEModule": ("gate", "sigmoid"),
    "SqueezeExcite": ("gate",),
    "EcaModule": ("gate",),
    "EffectiveSEModule": ("gate",),
    "SqueezeExcitation": ("scale_activation",),
}
TIMM = """
    seresnet18 seresnet34 seresnext26d_32x4d seresnet33ts seresnext26ts legacy_seresnet18
    legacy_seresnext26_32x4d ecaresnet26t ecaresnetlight eca_resnet33ts eca_resnext26ts
    efficientnet_b1_pruned mobilenetv3_small_050 mobilenetv3_small_100 mobilenetv3_large_075
    ghostnet_050 ghostnetv2_100 repghostnet_050 regnety_002 regnety_004 mnasnet_small semnasnet_050
    semnasnet_075 mixnet_s rexnet_100 hardcorenas_a hardcorenas_c lcnet_035 lcnet_075 fbnetv3_b
    tinynet_c tinynet_e ese_vovnet19b_slim ese_vovnet19b_dw eca_nfnet_l0 tf_efficientnetv2_b0
"""
TORCHVISION = """
    mobilenet_v3_small mobilenet_v3_large efficientnet_b0 efficientnet_v2_s regnet_y_400mf
    regnet_y_800mf
"""
WITHOUT = """
    resnet18 resnetv2_50 resnext26ts convnext_atto densenet121 hrnet_w18_small vit_tiny_patch16_224
    mixer_s32_224 poolformer_s12 repvgg_a0 dla34 res2net50_26w_4s mobilenetv2_050 pvt_v2_b0
    edgenext_xx_small starnet_s1 mobilevitv2_050
"""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def gate_of(module):
    names = GATES.get(type(module).__name__, ())
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def assert_found(model, batch):
    """Every module of a known kind, with the weights that a hook of the test's own reads off it."""
    model.eval()
    expected = {}
    hooks = []
    for name, module in model.named_modules():
        if (gate := gate_of(module)) is not None:

            def keep(_, __, out, name=name):
                expected[name] = out.flatten(1).clone()

            hooks.append(gate.register_forward_hook(keep))
    with torch.inference_mode():
        plain = model(batch)
    for hook in hooks:
        hook.remove()
    record = probe.record_weights(model, batch)
    assert expected
    assert [*record.weights] == [*expected]
    for name, weights in expected.items():
        np.testing.assert_array_equal(record.weights[name], weights)
    with torch.inference_mode(), watching(model, lambda site: None):
        torch.testing.assert_close(model(batch), plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", TIMM.split())
def test_networks_of_timm(name):
    assert_found(timm.create_model(name), torch.randn(3, 3, 64, 64))


@pytest.mark.parametrize("name", TORCHVISION.split())
def test_networks_of_torchvision(name):
    assert_found(torchvision.models.get_model(name), torch.randn(3, 3, 64, 64))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("name", WITHOUT.split())
def test_networks_without_channel_attention(name, images):
    model = timm.create_model(name)
    side = 224 if name.startswith(("vit", "mixer")) else 64
    with pytest.raises(ValueError, match="no channel attention that could be found: looked for"):
        probe.record_weights(model, torch.randn(images, 3, side, side))


# --- Pasted forms ---


def form(name):
    make, shape, sites = pasted.FORMS[name]
    return make(), torch.randn(5, *shape), sites


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("name", pasted.FORMS)
def test_pasted_forms(name, images, dtype):
    model, batch, sites = form(name)
    model = model.to(dtype)
    record = probe.record_weights(model, batch[:images], descriptors=True)
    applied = [module.applied for module in model.modules() if isinstance(module, pasted.Keeping)]
    [weights] = [found for found in applied if found]
    assert [*record.weights] == sites
    for site, expected in zip(sites, weights, strict=True):
        np.testing.assert_array_equal(record.weights[site], expected)
        assert record.descriptors[site].shape == (images, pasted.CHANNELS)
    assert not record.left_out


@pytest.mark.parametrize("name", pasted.FORMS)
def test_pasted_forms_are_changed(name):
    """With weights of zero, the network gives what it gives where its own are zero."""
    model, batch, sites = form(name)
    with torch.no_grad():
        plain = model(batch)
        with probe.intervene(model, sites[0], probe.scale(1)):
            torch.testing.assert_close(model(batch), plain)
        with probe.intervene(model, sites[0], probe.freeze(0.0)):
            changed = model(batch)
    assert not torch.allclose(changed, plain)
    if name not in ("residual", "the whole network", "CBAM in a block", "channel_and_space"):
        assert not changed.any()


WAYS = {
    "traced": lambda model, batch: torch.jit.trace(model.eval(), batch[:2]),
    "compiled": lambda model, batch: torch.compile(model, backend="eager"),
    "compiled in place": lambda model, batch: model.compile(backend="eager") or model,
    "exported": lambda model, batch: torch.export.export(
        model.eval(), (batch,), dynamic_shapes=({0: torch.export.Dim("n")},)
    ).module(),
    "channels last": lambda model, batch: model.to(memory_format=torch.channels_last),
    "parallel": lambda model, batch: nn.DataParallel(model),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_running(way):
    model = nn.Sequential(nn.Conv2d(3, 12, 3), pasted.SELayer(), pasted.Written(pasted.residual))
    batch = torch.randn(5, 3, 8, 8)
    for module in model.modules():
        vars(module).pop("keep", None)
    expected = probe.record_weights(model, batch).weights
    with torch.no_grad():
        plain = model(batch)
    for module in model[1:]:
        module.keep = lambda weights: weights  # lists of tensors cannot be traced
    other = WAYS[way](model, batch)
    with torch.no_grad():
        other(batch)
    found = probe.record_weights(other, batch).weights
    assert len(found) == 2
    for weights, same in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(weights, same, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(other(batch), plain)


# --- What is none ---


@pytest.mark.parametrize("name", pasted.LEFT_OUT)
def test_what_is_left_out_is_named_with_the_reason(name):
    make, site, reason = pasted.LEFT_OUT[name]
    model, batch = make(), torch.randn(5, *pasted.IMAGES)
    with pytest.raises(ValueError, match=f"looked for was .*{reason}" if site else reason):
        probe.record_weights(model, batch)
    beside = nn.Sequential(pasted.SELayer(), model)
    record = probe.record_weights(beside, batch)
    assert [*record.weights] == ["0"]
    if site is not None:
        [(left, why)] = record.left_out.items()
        assert left.startswith("1.")
        assert pytest.approx(why) == why
        with (
            probe.intervene(beside, left, probe.off),
            pytest.raises(ValueError, match=f"layer='{left}': .*; accepted are 0"),
        ):
            beside(batch)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("written", pasted.NONE)
def test_what_nobody_takes_for_attention(written, images):
    model = nn.Sequential(pasted.SELayer(), pasted.Written(written))
    record = probe.record_weights(model, torch.randn(images, *pasted.IMAGES))
    assert [*record.weights] == ["0"]
    assert record.left_out == {}


def test_what_does_not_run_in_every_pass_is_left_out():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = pasted.SELayer(), pasted.SELayer()

        def forward(self, x):
            x = self.first(x)
            return self.second(x) if len(x) == 3 else x

    for count in (5, 4):
        record = probe.record_weights(Sometimes(), torch.randn(count, 12, 4, 4), batch_size=3)
        assert [*record.weights] == ["first"]
        assert "does not run in every pass" in record.left_out["second"]


def test_scripted_modules_are_refused():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1)))
    for model, name in ((scripted, "RecursiveScriptModule"), (nn.Sequential(scripted), "0")):
        with pytest.raises(ValueError, match=f"{name} is scripted, and hooks cannot be put on it"):
            probe.record_weights(model, torch.randn(2, 3, 4, 4))


def test_another_thread_is_refused():
    model = nn.Sequential(pasted.SELayer())
    raised = []

    def run():
        try:
            model(torch.randn(2, 12, 4, 4))
        except RuntimeError as error:
            raised.append(str(error))

    with probe.intervene(model, "0", probe.off):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert raised == [
        "the model runs in another thread than the one that looks into it: run it there"
    ]


def test_modules_that_are_called_as_attention_is():
    model = nn.ModuleDict({name: nn.Module() for name in ("se", "attn", "eca", "base", "recall")})
    assert [*modules_like_attention(model)] == ["se", "attn", "eca"]
    assert [*modules_like_attention(timm.create_model("legacy_seresnet18"))][:2] == [
        "layer1.0.se_module",
        "layer1.1.se_module",
    ]
    assert modules_like_attention(timm.create_model("densenet121")) == {}
    # A block with SE in it is no attention, though its name ends as that of an SE module.
    kinds = {name: type(name, (nn.Module,), {}) for name in ("SEBlock", "ResidualSEBlock")}
    assert modules_like_attention(nn.Sequential(*(kind() for kind in kinds.values()))) == {
        "0": "SEBlock"
    }


# --- Images, and what models give ---


def test_images_in_batches():
    model, x = nn.Sequential(pasted.SELayer()), torch.randn(7, 12, 4, 4)
    labelled = torch.utils.data.TensorDataset(x, torch.arange(7))
    expected = probe.record_weights(model, x).weights["0"]
    for images in (
        torch.utils.data.DataLoader(labelled, batch_size=3),
        torch.utils.data.DataLoader(x, batch_size=4),
        iter(x.split(2)),
        [(x, "more", "than labels")],
    ):
        found = probe.record_weights(model, images).weights["0"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    labels = [labels for _, labels in passes.batches([(x, torch.arange(7))])]
    assert torch.equal(labels[0], torch.arange(7))


def test_models_that_are_called_in_other_ways():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.se = pasted.SELayer()

        def forward(self, pixels, mask=None):
            return {"out": self.se(pixels if mask is None else pixels * mask)}

    model, x = Many(), torch.randn(4, 12, 4, 4)
    expected = probe.record_weights(model, x).weights["se"]
    for images, prepare in (
        (x, lambda batch: {"pixels": batch, "mask": torch.ones(4, 1, 4, 4)}),
        (x, lambda batch: (batch, torch.ones(4, 1, 4, 4))),
        ([{"pixels": x}], None),
        ([{"image": x.to(torch.float64)}], lambda batch: {"pixels": batch["image"]}),
    ):
        found = probe.record_weights(model, images, prepare=prepare).weights["se"]
        np.testing.assert_array_equal(found, expected)


class Output:
    def __init__(self, logits):
        self.logits = logits


def test_logits_of_what_models_give():
    logits = torch.randn(2, 3)
    given = (logits, (logits, 1), [logits], {"logits": logits}, {"out": logits}, Output(logits))
    for output in given:
        assert passes.logits_of(output) is logits
    for output, named in (
        (torch.ones(2, 3, 4), r"\(2, 3, 4\)"),
        ({"a": logits}, "'a'"),
        (None, "None"),
    ):
        with pytest.raises(TypeError, match=f"{named}.*accepted are logits"):
            passes.logits_of(output)


def test_images_that_are_refused():
    model = nn.Sequential(pasted.SELayer())
    for images, error, message in (
        (torch.tensor(1.0), ValueError, r"images of shape \(\): accepted are one or more"),
        (torch.ones(0, 3, 4, 4), ValueError, r"images of shape \(0, 3, 4, 4\)"),
        ([], ValueError, r"images=\[\] gives no batch"),
        ("folder", TypeError, "images='folder': accepted is a tensor"),
        ({"pixels": 1}, TypeError, "accepted is a tensor"),
        (3, TypeError, "images=3: accepted is a tensor"),
        (["text"], TypeError, "a batch is .*: accepted is a tensor"),
    ):
        with pytest.raises(error, match=message):
            probe.record_weights(model, images)
