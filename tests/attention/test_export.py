"""What other runtimes compute: TorchScript, torch.fx, torch.export and ONNX, as the modules do."""

import warnings

import pytest
import torch
from torch import nn

from eca_lab.attention.modules import make_attention
from eca_lab.attention.spec import NAMES, parse_spec
from eca_lab.networks.backbones import blocks, build_model

# One of each class, and of each way in which ECA computes.
SPECS = [
    "static",
    "se(r=4)",
    "cbam(r=4)",
    "se_var1",
    "se_var2",
    "se_var3",
    "se_gc(groups=4)",
    "eca_ns(k=3)",
    "eca(k=1)",
    "eca(k=5)",
    "eca(k=5, padding=circular)",
    "eca(k=3, order=shuffled)",
]
# torch advises against its TorchScript, which is still asked for.
deprecated = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
ANY = torch.export.Dim.DYNAMIC
ANY_IMAGES = {0: ANY, 2: ANY, 3: ANY}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_no_kind_of_attention_is_left_out():
    assert {parse_spec(spec).name for spec in SPECS} == {*NAMES} - {"none"}


class Every(nn.Module):
    """All modules side by side: one graph is exported where twelve would take as many times."""

    def __init__(self):
        super().__init__()
        self.kinds = nn.ModuleList(trained(make_attention(spec, 16)) for spec in SPECS)

    def forward(self, x):
        return torch.stack([module(x) for module in self.kinds])


def trained(module):
    """With weights of which none is zero or one half."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def maps(*shape):
    return torch.randn(2, 16, *shape)


def assert_equal(exported, module, inputs):
    for x in inputs:
        torch.testing.assert_close(exported(x), module(x), rtol=1e-5, atol=1e-6)


@deprecated
@pytest.mark.parametrize("spec", SPECS)
def test_torchscript(spec):
    module = trained(make_attention(spec, 16))
    scripted = torch.jit.script(module)
    sizes = [(6, 5), (1, 1)] if "cbam" in spec else [(6, 5), (7,), (3, 2, 4)]
    assert_equal(scripted, module, [maps(*size) for size in sizes])
    with pytest.raises(
        torch.jit.Error, match=r"maps of shape \[2, 15, 4, 4\]: accepted is \(N, 16, "
    ):
        scripted(torch.zeros(2, 15, 4, 4))


# That the check of the shape is no part of a trace is what torch warns of.
@deprecated
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
def test_a_trace_takes_other_sizes():
    every = Every()
    traced = torch.jit.trace(every, maps(6, 5))
    assert_equal(traced, every, [torch.randn(3, 16, 4, 7)])


@deprecated
@pytest.mark.parametrize("spec", SPECS)
def test_fx_traces_the_check_as_well(spec):
    module = trained(make_attention(spec, 16))
    traced = torch.fx.symbolic_trace(module)
    assert_equal(traced, module, [maps(6, 5), maps(3, 8)])
    with pytest.raises(ValueError, match=r"maps of shape \[2, 16\]: accepted is \(N, 16, "):
        traced(torch.zeros(2, 16))


def exported(model, x):
    """By torch.export and by ONNX, for images of any number and size, without a warning."""
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Torch 2.11 and onnx 1.18 warn of what they do themselves.
        warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", "Conversion of an array with ndim", DeprecationWarning)
        program = torch.export.export(model, (x,), dynamic_shapes=(ANY_IMAGES,))
        yield program.module()
        model_proto = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    yield runtime(model_proto)


def runtime(model_proto):
    """The function that onnxruntime makes of an ONNX graph."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@torch.no_grad()
def test_every_module_exports_for_all_sizes():
    every = Every()
    for function in exported(every, maps(6, 5)):
        assert_equal(
            function, every, [maps(6, 5), torch.randn(5, 16, 9, 3), torch.randn(1, 16, 1, 1)]
        )


@torch.no_grad()
@pytest.mark.parametrize("size", [(7,), (3, 2, 4)])
def test_other_numbers_of_dimensions_export(size):
    every = nn.Sequential(
        *(trained(make_attention(spec, 16)) for spec in SPECS if "cbam" not in spec)
    )
    program = torch.export.export(every, (maps(*size),))
    assert_equal(program.module(), every, [maps(*size)])


@torch.no_grad()
def test_a_whole_network_exports():
    model = build_model("tiny", num_classes=10)
    for place, spec in zip(blocks(model), ["eca", "se", "cbam", "none"], strict=True):
        place.block.attention = trained(make_attention(spec, place.channels))
    model(torch.randn(8, 3, 32, 32) + 1)  # moves the statistics of the BatchNorms
    for function in exported(model, torch.randn(2, 3, 32, 32)):
        assert_equal(function, model, [torch.randn(3, 3, 48, 40)])


# The warning is about the constructor that torch.fx gives the modules it makes.
@pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support instance-level")
@deprecated
@torch.no_grad()
@pytest.mark.parametrize("backbone", ["tiny", "resnet10", "mobilenet_v2"])
def test_whole_networks_become_torchscript_by_way_of_fx(backbone):
    model = build_model(backbone, "eca", num_classes=10).eval()
    scripted = torch.jit.script(torch.fx.symbolic_trace(model))
    assert_equal(scripted, model, [torch.randn(3, 3, 48, 40)])
