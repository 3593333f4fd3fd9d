import copy
import itertools
import math
import re

import numpy as np
import pytest
import timm.layers
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.cbam import CbamModule

from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.attention.modules import (
    CBAM,
    ECA,
    ECANS,
    SE,
    SEGroup,
    SEVar1,
    SEVar2,
    SEVar3,
    Static,
    make_attention,
)
from eca_lab.attention.spec import NAMES, Spec, parse_spec

SPECS = [
    "static",
    "se(r=4)",
    "se(decay=0)",
    "cbam(r=4)",
    "se_var1",
    "se_var2",
    "se_var3",
    "se_gc(groups=4)",
    "eca_ns(k=3)",
    "eca",
    "eca(k=7)",
    "eca(padding=circular)",
    "eca(k=5, order=shuffled)",
]
gpu = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features(channels=32, images=2, dtype=torch.float32):
    return torch.randn(images, channels, 6, 5).to(dtype)


def assert_same_function(ours, theirs, x, tolerance=1e-6):
    """Equal outputs and equal gradients of input and parameters, in order of registration."""
    x1, x2 = (x.clone().requires_grad_() for _ in range(2))
    out1, out2 = ours(x1), theirs(x2)
    torch.testing.assert_close(out1, out2, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(out1)
    out1.backward(upstream)
    out2.backward(upstream)
    torch.testing.assert_close(x1.grad, x2.grad, rtol=tolerance, atol=tolerance)
    theirs_by_size = [each for each in theirs.parameters() if each.requires_grad]
    for mine, other in zip(ours.parameters(), theirs_by_size, strict=True):
        torch.testing.assert_close(
            mine.grad.flatten(), other.grad.flatten(), rtol=tolerance, atol=1e-5
        )


@pytest.mark.parametrize(("channels", "kernel_size"), [(64, None), (256, None), (48, 9), (7, 1)])
def test_eca_equals_timm(channels, kernel_size):
    ours = ECA(channels, kernel_size)
    # Given both, timm computes k from the channels and drops the kernel size without a word.
    arguments = {"kernel_size": kernel_size} if kernel_size else {"channels": channels}
    theirs = timm.layers.EcaModule(**arguments)
    theirs.conv.weight.data.copy_(ours.conv.weight.data)
    assert_same_function(ours, theirs, features(channels))


@pytest.mark.parametrize(("channels", "kernel_size"), [(64, 3), (48, 9), (9, 9)])
def test_circular_eca_equals_timm(channels, kernel_size):
    ours = ECA(channels, kernel_size, padding="circular")
    theirs = timm.layers.CecaModule(kernel_size=kernel_size)
    theirs.conv.weight.data.copy_(ours.conv.weight.data)
    assert_same_function(ours, theirs, features(channels))


@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (32, 1), (24, 5)])
def test_se_equals_timm(channels, reduction):
    ours = SE(channels, reduction)
    theirs = timm.layers.SEModule(channels, rd_channels=channels // reduction, bias=False)
    copy_se(ours, theirs)
    assert_same_function(ours, theirs, features(channels))


def test_se_equals_torchvision():
    ours = SE(64, 16)
    theirs = torchvision.ops.SqueezeExcitation(64, 4)
    copy_se(ours, theirs)
    for layer in (theirs.fc1, theirs.fc2):
        torch.nn.init.zeros_(layer.bias)
        layer.bias.requires_grad_(False)
    assert_same_function(ours, theirs, features(64))


def copy_se(ours, theirs):
    for mine, other in ((ours.fc1, theirs.fc1), (ours.fc2, theirs.fc2)):
        other.weight.data.copy_(mine.weight.data[:, :, None, None])


def test_cbam_equals_timm():
    ours = CBAM(64, 16)
    theirs = CbamModule(64, rd_channels=4)
    copy_se(ours, theirs.channel)
    theirs.spatial.conv.conv.weight.data.copy_(ours.conv.weight.data)
    theirs.spatial.conv.bn.eval()  # timm has a BatchNorm there: the identity, when fresh
    theirs.spatial.conv.bn.eps = 1e-12
    for parameter in theirs.spatial.conv.bn.parameters():
        parameter.requires_grad_(False)
    assert_same_function(ours, theirs, features(64), tolerance=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec):
    module = make_attention(spec, 32)
    x = features()
    y = module.squeeze(x)
    torch.testing.assert_close(y, x.mean((2, 3)))
    assert module.score(y).shape == (2, 32)
    weights = module.weights(x)
    assert weights.shape == (2, 32)
    assert ((weights > 0) & (weights < 1)).all()
    expected = x * weights[:, :, None, None]
    if isinstance(module, CBAM):
        positions = module._spatial_weights(expected)
        assert positions.shape == (2, 1, 6, 5)
        expected = expected * positions
    else:
        torch.testing.assert_close(weights, torch.sigmoid(module.score(y)))
    torch.testing.assert_close(module(x), expected)
    alone = torch.cat([module(image[None]) for image in x])  # each image has its own weights
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)
    out = module(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([spec for spec in SPECS if "cbam" not in spec]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_positions_may_have_any_number_of_dimensions(spec, sizes):
    module = make_attention(spec, 32)
    x = torch.randn(2, 32, *sizes)
    expected = module(x.reshape(2, 32, -1, 1)).view_as(x)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.squeeze(x), x.flatten(2).mean(2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_maps_that_are_refused(spec):
    module = make_attention(spec, 32)
    planar = isinstance(module, CBAM)
    shapes = [(2, 32), (32,), (), (2, 31, 6, 5), (2, 1, 6, 5), (2, 64, 6, 5), (32, 6, 5)]
    if planar:  # a two-dimensional convolution would take (2, C, L) for one image of two channels
        shapes += [(2, 32, 6), (2, 32, 4, 6, 5)]
    accepted = re.escape("(N, 32, H, W)" if planar else "(N, 32, L, ...)")
    for shape, call in itertools.product(shapes, (module, module.weights, module.squeeze)):
        written = re.escape(str(list(shape)))
        with pytest.raises(ValueError, match=f"^maps of shape {written}: accepted is {accepted}$"):
            call(torch.zeros(shape))
    with pytest.raises(TypeError, match=r"^maps of type ndarray: accepted is a tensor$"):
        module(np.zeros((2, 32, 6, 5)))


# One of each way to compute: by layers, by none, by groups, by windows, as a product, in an order.
KINDS = ["cbam(r=4)", "se_var1", "se_gc(groups=4)", "eca_ns(k=3)", "eca(k=5, order=shuffled)"]


@pytest.mark.parametrize("spec", KINDS)
def test_dtypes(spec):
    module = make_attention(spec, 32)
    x = features()
    expected = module(x)
    for dtype, off in ((torch.float64, 1e-6), (torch.bfloat16, 0.05), (torch.float16, 0.01)):
        out = copy.deepcopy(module).to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=off, atol=off)


@pytest.mark.parametrize("device", ["cpu", gpu])
def test_autocast_keeps_the_dtype_of_the_features(device):
    for spec, dtype in itertools.product(SPECS, (torch.float32, torch.bfloat16)):
        module = make_attention(spec, 32).to(device)
        x = features().to(device)
        expected = module(x)
        given = x.detach().to(dtype, copy=True).requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            out = module(given)
        out.float().sum().backward()
        assert out.dtype == given.grad.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("spec", KINDS)
def test_compiles_to_one_graph(spec):
    torch.compiler.reset()
    module = make_attention(spec, 32)
    x = features().requires_grad_()
    # The graph is captured in full and differentiated; only the generation of code is left out.
    out = torch.compile(module, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(out, module(x))
    (compiled_grad,) = torch.autograd.grad(out.sum(), x)
    (eager_grad,) = torch.autograd.grad(module(x).sum(), x)
    torch.testing.assert_close(compiled_grad, eager_grad)


# Rows take from columns: what the logit of channel i sees of channel j.
def test_interaction_matrices_of_table_2():
    matrices = {
        spec: make_attention(spec, 12).interaction_matrix()
        for spec in (
            "static",
            "se_var1",
            "se_var2",
            "se_var3",
            "se_gc(groups=3)",
            "eca_ns(k=5)",
            "eca(k=5)",
        )
    }
    torch.testing.assert_close(matrices["se_var1"], torch.eye(12))
    distance = (torch.arange(12)[:, None] - torch.arange(12)).abs()
    same_group = torch.arange(12)[:, None] // 4 == torch.arange(12) // 4
    for spec, allowed in {
        "static": distance < 0,
        "se_var2": distance == 0,
        "se_var3": distance >= 0,
        "se_gc(groups=3)": same_group,
        "eca_ns(k=5)": distance <= 2,
        "eca(k=5)": distance <= 2,
    }.items():
        assert ((matrices[spec] != 0) == allowed).all(), spec


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(0, 10).map(lambda i: 2 * i + 1), st.data())
def test_eca_is_a_toeplitz_band(channels, kernel_size, data):
    kernel_size = min(kernel_size, channels - 1 + channels % 2)
    padding = data.draw(st.sampled_from(["zeros", "circular"]))
    module = ECA(channels, kernel_size, padding=padding)
    matrix = module.interaction_matrix()
    weight = module.conv.weight.detach().flatten()
    expected = torch.zeros(channels, channels)
    for i in range(channels):
        for tap in range(kernel_size):
            j = i + tap - kernel_size // 2
            if padding == "circular":
                expected[i, j % channels] += weight[tap]
            elif 0 <= j < channels:
                expected[i, j] += weight[tap]
    torch.testing.assert_close(matrix, expected)
    y = torch.randn(3, channels)
    torch.testing.assert_close(module.score(y), y @ matrix.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("order", ["identity", "shuffled"])
def test_eca_convolves_as_torch_does(padding, order):
    for kernel_size in (1, 5, 9):
        torch.manual_seed(0)
        conv = torch.nn.Conv1d(
            1, 1, kernel_size, padding=kernel_size // 2, padding_mode=padding, bias=False
        )
        torch.manual_seed(0)
        module = ECA(9, kernel_size, padding=padding, order=order)
        assert torch.equal(module.conv.weight, conv.weight)
        module, conv = module.double(), conv.double()
        y = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
        p = module.permutation if order == "shuffled" else torch.arange(9)
        logits, expected = module.score(y), conv(y[:, None, p])[:, 0, p.argsort()]
        torch.testing.assert_close(logits, expected)
        upstream = torch.randn_like(logits)
        torch.testing.assert_close(
            torch.autograd.grad(logits, [y, module.conv.weight], upstream),
            torch.autograd.grad(expected, [y, conv.weight], upstream),
        )


def test_shuffled_eca_is_a_permuted_band():
    torch.manual_seed(3)
    shuffled = ECA(32, 5, order="shuffled")
    plain = ECA(32, 5)
    plain.conv.load_state_dict(shuffled.conv.state_dict())
    order = shuffled.permutation
    assert sorted(order.tolist()) == list(range(32))
    assert order.tolist() != list(range(32))
    matrix = shuffled.interaction_matrix()
    torch.testing.assert_close(matrix[order][:, order], plain.interaction_matrix())
    restored = ECA(32, 5, order="shuffled")
    restored.load_state_dict(shuffled.state_dict())  # the order travels with the weights
    torch.testing.assert_close(restored.interaction_matrix(), matrix)


def test_static_ignores_its_input():
    module = Static(8)
    x, other = features(8), features(8)
    assert torch.equal(module.weights(x), torch.full((2, 8), 0.5))
    torch.nn.init.normal_(module.weight)
    assert torch.equal(module.weights(x), module.weights(other))
    torch.testing.assert_close(module(x), x * module.weight.sigmoid()[:, None, None])
    # So that its logits decay: the optimizer's rule keeps decay off what is called bias.
    assert [name for name, _ in module.named_parameters()] == ["weight"]


def test_parameters_of_table_2():
    counts = {
        Static(64): 64,
        SE(64, 16): 2 * 64**2 // 16,
        CBAM(64, 16): 2 * 64**2 // 16 + 2 * 7 * 7,
        SEVar1(64): 0,
        SEVar2(64): 64,
        SEVar3(64): 64**2,
        SEGroup(64, 16): 64**2 // 16,
        SEGroup(64, 64 // 16): 16 * 64,
        SEGroup(64, 64 // 8): 8 * 64,
        ECANS(64, 3): 3 * 64,
        ECA(64, 3): 3,
    }
    for module, count in counts.items():
        assert sum(each.numel() for each in module.parameters()) == count, module.spec


def test_adaptive_eca_follows_equation_12():
    for channels in (8, 64, 128, 512, 2048):
        assert ECA(channels).kernel_size == adaptive_kernel_size(channels)
        # At 8 channels gamma = 1 and b = 1 give k = 5, still no more than C.
        assert ECA(channels, gamma=1, b=1).kernel_size == adaptive_kernel_size(
            channels, gamma=1, b=1
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ECA(64, 3, gamma=2), "kernel_size=3 with gamma: accepted is one of the two"),
        (lambda: ECA(64, 4), "kernel_size=4: accepted are odd"),
        (lambda: ECA(4, 5), "kernel_size=5: accepted are at most channels=4"),
        (lambda: ECA(64, padding="same"), "padding='same': accepted are zeros, circular"),
        (lambda: ECA(64, order="sorted"), "order='sorted': accepted are identity, shuff"),
        (lambda: ECANS(4, 5), "kernel_size=5: accepted are at most channels=4"),
        (lambda: SEGroup(64, 5), "groups=5: accepted are divisors of channels=64"),
        (lambda: SE(8, 16), "reduction=16: accepted is an integer from 1 to 8"),
        (lambda: CBAM(8, 0), "reduction=0: accepted is an integer from 1 to 8"),
        (lambda: SEVar1(0), "channels=0: accepted is a positive integer"),
    ],
)
def test_what_cannot_be_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("channels", [16, 256])
@pytest.mark.parametrize("size", [16, 8])  # SE-GC2: C/16 groups, 16 C weights; SE-GC3: C/8, 8 C
def test_a_group_size_gives_the_papers_other_groupings(size, channels):
    module = make_attention(f"se_gc(group_size={size})", channels)
    assert module.conv.groups == channels // size
    assert sum(each.numel() for each in module.parameters()) == size * channels
    assert module.spec == f"se_gc(groups={channels // size})"


def test_make_attention_reports_the_spec_that_does_not_fit():
    with pytest.raises(ValueError, match="group_size=5: accepted are divisors of channels=8"):
        make_attention("se_gc(group_size=5)", 8)
    with pytest.raises(ValueError, match="attention 'eca\\(k=9\\)': kernel_size=9: accepted are a"):
        make_attention("eca(k=9)", 8)
    with pytest.raises(ValueError, match="attention 'eca\\(k=3, b=1\\)': kernel_size=3 with"):
        make_attention("eca(k=3, b=1)", 8)
    with pytest.raises(ValueError, match="per stage: accepted are stages 0 to 1, not stage=2"):
        make_attention("eca(k=3-5)", 8, stage=2)
    with pytest.raises(TypeError, match=r"channels=64\.0"):
        make_attention("eca", 64.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_named_by_its_resolved_spec(name):
    given = {"se_gc": "se_gc(groups=4)", "eca_ns": "eca_ns(k=3)"}.get(name, name)
    module = make_attention(given, 32)
    if name == "none":
        assert isinstance(module, torch.nn.Identity)
        return
    if any(True for _ in module.parameters()):
        without = Spec(name, {**parse_spec(module.spec).arguments, "decay": 0})
        assert make_attention(without, 32).spec == str(without)
    again = make_attention(module.spec, 32)
    assert again.spec == module.spec
    assert type(again) is type(module)
    shapes = [[each.shape for each in m.parameters()] for m in (module, again)]
    assert shapes[0] == shapes[1]


def test_initial_scale_follows_the_fan_in():
    # Uniform within 1/sqrt(fan-in), as torch's own layers: standard deviation 1/sqrt(3 fan-in).
    for module, fan_in in ((ECANS(4096, 9), 9), (SEVar2(4096), 1), (SEVar3(256), 256)):
        weight = next(module.parameters())
        assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)
