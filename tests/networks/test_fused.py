import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

from eca_lab.attention.modules import make_attention
from eca_lab.looking import probe
from eca_lab.networks import fused
from eca_lab.networks.backbones import build_model
from eca_lab.training.train import Recipe, resolve_precision, train_network

SPECS = [
    "none",
    "static",
    "se(r=4)",
    "se_var1",
    "se_gc(groups=2)",
    "eca_ns(k=3)",
    "eca(k=1)",
    "eca(k=5)",
    "eca(k=3, padding=circular, order=shuffled)",
]


@pytest.fixture
def eager(monkeypatch):
    """The four functions as they stand: slow, and the same mathematics."""
    monkeypatch.setattr(fused, "_compiled", lambda function: function)


def layers(spec, dtype, momentum=0.1):
    torch.manual_seed(0)
    bn, attention = nn.BatchNorm2d(8, momentum=momentum), make_attention(spec, 8)
    with torch.no_grad():
        bn.weight.uniform_(-1, 2)
        bn.bias.uniform_(-1, 1)
    return nn.ModuleList([bn, attention]).to(dtype)


def maps(dtype, mean=0.0, layout=torch.channels_last):
    """x, shortcut, and the gradient of what comes out."""
    generator = torch.Generator().manual_seed(1)
    x, *others = torch.randn(3, 4, 8, 5, 3, generator=generator, dtype=torch.float64)
    # Images and channels that differ in mean and spread.
    x = (x + mean) * torch.linspace(0.5, 2, 8, dtype=torch.float64)[:, None, None] + x[:1, :, :1]
    return [each.to(dtype).contiguous(memory_format=layout) for each in (x, *others)]


def by_modules(x, shortcut, bn, attention):
    return F.relu(attention(bn(x)) + shortcut)


def results(end, layers, x, shortcut, upstream, autocast=False):
    """out, the gradients of x, the shortcut and all parameters, and the running statistics."""
    layers = copy.deepcopy(layers)
    x, shortcut = x.clone().requires_grad_(), shortcut.clone().requires_grad_()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = end(x, shortcut, *layers)
        out.backward(upstream)
    grads = [each.grad for each in (x, shortcut, *layers.parameters())]
    return [out.detach(), *grads, *(each for each in layers.buffers())]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("spec", SPECS)
def test_equals_the_modules_in_sequence(spec):
    for layout in (torch.channels_last, torch.contiguous_format):
        given = layers(spec, torch.float64), *maps(torch.float64, layout=layout)
        found, expected = (
            results(end, *given) for end in (fused.bn_attention_add_relu, by_modules)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert found[0].is_contiguous(memory_format=layout)
        assert found[0].min() == 0 < found[0].max()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("spec", ["none", "eca(k=3)", "se(r=4)"])
def test_gradcheck(spec):
    given = layers(spec, torch.float64)
    tensors = [each.requires_grad_() for each in maps(torch.float64)[:2]] + [*given.parameters()]
    # gradcheck moves the parameters where they are.
    assert torch.autograd.gradcheck(
        lambda x, shortcut, *_: fused.bn_attention_add_relu(x, shortcut, *given), tensors
    )


@pytest.mark.usefixtures("eager")
def test_a_cumulative_average_of_statistics_and_frozen_parameters():
    given = layers("se(r=4)", torch.float64, momentum=None)
    given[1].fc1.requires_grad_(False)
    found, expected = (
        results(end, given, *maps(torch.float64))
        for end in (fused.bn_attention_add_relu, by_modules)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("mean", [0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_further_from_the_exact_result_than_the_modules(dtype, mean):
    for spec in ("none", "eca(k=5)", "se(r=4)"):
        given = maps(dtype, mean)
        exact = results(by_modules, layers(spec, torch.float64), *(each.double() for each in given))
        found, modules = (
            results(end, layers(spec, torch.float32), *given, autocast=dtype == torch.bfloat16)
            for end in (fused.bn_attention_add_relu, by_modules)
        )
        assert found[0].dtype == found[1].dtype == found[2].dtype == dtype
        for mine, other, true in zip(found, modules, exact, strict=True):
            error, allowed = ((each.double() - true).norm() for each in (mine, other))
            assert error <= 2 * allowed + 1e-5 * true.double().norm()


@pytest.fixture
def calls(monkeypatch):
    """The attention modules that ran fused."""
    seen = []

    def spy(x, shortcut, bn, attention):
        seen.append(attention)
        return by_modules(x, shortcut, bn, attention)

    monkeypatch.setattr(fused, "bn_attention_add_relu", spy)
    monkeypatch.setattr(fused, "_compile_error", lambda *_: None)
    return seen


def test_blocks_run_fused_in_training_alone(calls):
    model = build_model("tiny", "eca", num_classes=10)
    images = torch.randn(2, 3, 32, 32)
    names = list(model.state_dict())
    with fused.training_path(model) as path:
        assert path == "fused"
        assert list(model.state_dict()) == names
        model(images)
        assert len(calls) == 4
        with torch.no_grad():
            model(images)
        model.eval()(images)
        assert len(calls) == 4
    model.train()(images)
    with fused.training_path(model, fused=False) as path:
        assert path == "modules"
        model(images)
    assert len(calls) == 4


def test_a_module_that_is_heard_or_changed_runs_itself(calls):
    model = build_model("tiny", "eca", num_classes=10)
    images, block = torch.randn(2, 3, 32, 32), model.layer2
    heard = []
    with fused.training_path(model):
        for module in (block.attention, block.bn2):
            hook = module.register_forward_hook(lambda *_: heard.append(1))
            model(images)
            hook.remove()
        assert len(heard) == 2
        hook = block.attention.register_full_backward_hook(lambda *_: heard.append(1))
        model(images).sum().backward()
        hook.remove()
        assert len(heard) == 3
        with probe.intervene(model, "layer2.attention", probe.off):
            model(images)
        assert block.attention not in calls
        model(images)
        assert block.attention in calls
        calls.clear()
        block.bn2 = nn.BatchNorm2d(64, affine=False)
        block.attention = make_attention("cbam", 64)
        model(images)
        assert len(calls) == 3


def path(model):
    with fused.training_path(model) as path:
        return path


@pytest.mark.parametrize(
    ("backbone", "spec", "reason"),
    [
        ("tiny", "cbam", "its attention depends on more than the means of the channels"),
        ("mobilenet_v2", "eca", "the blocks of MobileNetV2 do not end in a ReLU"),
    ],
)
def test_what_cannot_run_fused_trains_by_its_modules(backbone, spec, reason):
    model = build_model(backbone, spec, num_classes=10)
    assert fused.obstacle(model) == reason
    with pytest.warns(UserWarning, match=f"by the modules, not fused: {reason}$"):
        assert path(model) == "modules"
    assert path(model) == "modules"  # without another warning


def test_without_a_compiler_the_modules_train(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("InvalidCxxCompiler: No working\nC++ compiler\n\nSet TORCH_LOGS")

    monkeypatch.setattr(fused, "_compiled", lambda function: fails)
    with pytest.warns(UserWarning, match=r"torch.compile: Inv\w+: No working C\+\+ compiler$"):
        assert path(build_model("tiny", "eca", num_classes=10)) == "modules"


def trained(spec, batch_size, fuse):
    torch.manual_seed(0)
    model = build_model("tiny", spec, num_classes=10, stem="cifar").to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    images = torch.randn(2, batch_size, 3, 16, 16)
    with fused.training_path(model, fused=fuse) as path:
        assert path == ("fused" if fuse else "modules")
        for batch in images:
            optimizer.zero_grad()
            batch = batch.contiguous(memory_format=torch.channels_last)
            F.cross_entropy(model(batch), torch.arange(batch_size) % 10).backward()
            optimizer.step()
    return model


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_once_for_all_kernel_sizes_and_batches(dataset):
    counters.clear()
    for spec, batch_size in (("eca(k=3)", 6), ("eca(k=7)", 10), ("none", 10), ("se", 7)):
        found, expected = (trained(spec, batch_size, fuse) for fuse in (True, False))
        assert counters["stats"]["unique_graphs"] == 4
        for mine, other in zip(
            found.state_dict().values(), expected.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    # A loss that is no number stays one.
    bn, attention = layers("se(r=4)", torch.float32)
    x, shortcut, _ = maps(torch.float32)
    x[0, 0, 0, 0] = torch.nan
    out = fused.bn_attention_add_relu(x.requires_grad_(), shortcut.requires_grad_(), bn, attention)
    assert out[:, 0].isnan().all()
    out.backward(torch.ones_like(out))
    assert x.grad[:, 0].isnan().all()
    assert counters["stats"]["unique_graphs"] == 4
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
    curves = {}
    for fuse in (True, False):
        _, outcome = train_network(
            dataset, "tiny", "eca", seed=0, recipe=recipe, precision="float32", fused=fuse
        )
        assert outcome["path"] == ("fused" if fuse else "modules")
        assert outcome["precision"] == "float32"
        curves[fuse] = outcome["loss_curve"]
    assert curves[True] == pytest.approx(curves[False], rel=1e-3)
    assert counters["stats"]["unique_graphs"] == 4


def test_precision(monkeypatch, dataset):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert resolve_precision("auto", cuda) == "bfloat16"
    assert resolve_precision("float32", cuda) == "float32"
    for capability, expected in (
        ("avx512_bf16", "bfloat16"),
        ("amx_bf16", "bfloat16"),
        ("avx2", "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda each=capability: {each: True})
        assert resolve_precision("auto", cpu) == expected
    with pytest.raises(ValueError, match="precision='half': accepted are auto, float32, bfloat16"):
        resolve_precision("half", cpu)
    recipe = Recipe(epochs=1, batch_size=16)
    model, outcome = train_network(
        dataset, "tiny", "eca", seed=0, recipe=recipe, precision="bfloat16"
    )
    assert (outcome["precision"], outcome["path"]) == ("bfloat16", "modules")
    assert all(each.dtype == torch.float32 for each in model.parameters())
