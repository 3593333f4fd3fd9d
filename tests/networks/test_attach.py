import copy
import json
from functools import cache

import pytest
import torch
import torch.distributed as dist
import torchvision.models as vision
from torch import nn
from torchvision.models.resnet import BasicBlock

import eca_lab
from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.attention.modules import ECA, SE
from eca_lab.attention.spec import NAMES
from eca_lab.networks.attach import CHILD, attach, attach_again, attached, detach
from eca_lab.networks.backbones import attention_specs, blocks, build_model
from eca_lab.networks.cost import multiply_adds, parameters

REQUIRED = {"se_gc": "se_gc(groups=2)", "eca_ns": "eca_ns(k=3)"}
ARMS = [
    *(REQUIRED.get(name, name) for name in NAMES if name != "none"),
    *("eca(padding=circular)", "eca(order=shuffled)", "se(r=4, decay=0)"),
]


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES = images(2, 3, 32, 32)


def resnet():
    """A new ResNet-10, whose running statistics are those of images."""
    return copy.deepcopy(_resnet())


@cache
def _resnet():
    torch.manual_seed(0)
    model = vision.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    model(images(4, 3, 32, 32, seed=1))
    return model.eval()


def small():
    """Three modules that are followed by others, for what costs by their number."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize(
    ("name", "where", "count", "weights"),
    [
        ("resnet50", "layer*.bn3", 16, 86),  # 86 is the number of the paper's ECA-Net50
        ("resnet50", None, 16, 86),
        ("convnext_tiny", None, 18, 84),
        ("mobilenet_v2", "features.*.conv", 17, 59),  # as every block of eca_lab's own has
    ],
)
def test_known_numbers(name, where, count, weights):
    with torch.device("meta"):
        model = getattr(vision, name)()
        before = parameters(model)
        record = attach(model, "eca", where=where, example=images(1, 3, 64, 64))
    assert len(record) == count
    assert parameters(model) - before == weights
    channels = [entry["channels"] for entry in record.values()]
    assert sum(map(adaptive_kernel_size, channels)) == weights
    assert [entry["attention"] for entry in record.values()] == [
        f"eca(k={adaptive_kernel_size(width)})" for width in channels
    ]


@pytest.mark.parametrize("where", [None, "layer*.bn2"])
def test_it_computes_what_a_network_built_with_it_does(where):
    model, built = resnet(), resnet()
    attach(model, "se", where=where, example=IMAGES)
    for name, module in built.named_modules():
        for child in ("bn2", "bn3"):
            if name.startswith("layer") and child in module._modules:
                inside = model.get_submodule(f"{name}.{child}.{CHILD}")
                module.add_module(child, nn.Sequential(getattr(module, child), inside))
    assert sum(isinstance(each, SE) for each in built.modules()) == 4
    for training in (False, True):
        outputs = [each.train(training)(IMAGES) for each in (model, built)]
        assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for one, other in ((model.conv1, built.conv1), (model.layer1[0].bn2, built.layer1[0].bn2[0])):
        torch.testing.assert_close(one.weight.grad, other.weight.grad)
    assert model.layer4[0].bn2.channel_attention.fc2.weight.grad.abs().sum() > 0


def test_in_a_network_of_ours_it_computes_what_ours_does():
    torch.manual_seed(0)
    ours = build_model("tiny", "eca", num_classes=4, stem="cifar").eval()
    plain = build_model("tiny", "none", num_classes=4, stem="cifar").eval()
    plain.load_state_dict(ours.state_dict(), strict=False)
    record = attach(plain, "eca", example=IMAGES)
    assert [entry["attention"] for entry in record.values()] == attention_specs(ours)
    for (name, _), (_, block, *_) in zip(record.items(), blocks(ours), strict=True):
        plain.get_submodule(f"{name}.{CHILD}").load_state_dict(block.attention.state_dict())
    assert torch.equal(plain(IMAGES), ours(IMAGES))


def test_every_name_stays_and_weights_load_as_before():
    model = resnet()
    trained = resnet().state_dict()
    before = dict(model.named_parameters())
    attach(model, "eca", example=IMAGES)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(f".bn2.{CHILD}." in name for name in after.keys() - before.keys())
    missing, unexpected = model.load_state_dict(trained, strict=False)
    assert unexpected == []
    assert set(missing) == after.keys() - before.keys()
    assert isinstance(model.layer1[0].bn2, nn.BatchNorm2d)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_detached_is_as_before(training):
    model = resnet().train(training)
    model.layer1[0].eval()
    before, state, modules = modes(model), model.state_dict(), list(model.modules())
    state = {name: value.clone() for name, value in state.items()}
    logits = model.eval()(IMAGES)
    model.train(training)
    model.layer1[0].eval()
    attach(model, "cbam", example=IMAGES)
    assert before.items() <= modes(model).items()
    assert not model.layer1[0].bn2.channel_attention.training
    assert model.layer2[0].bn2.channel_attention.training == training
    assert not torch.equal(copy.deepcopy(model).eval()(IMAGES), logits)
    detach(model)
    assert modes(model) == before
    assert list(model.modules()) == modules
    assert not any(module._forward_hooks for module in model.modules())
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(IMAGES), logits)
    with pytest.raises(ValueError, match="ResNet has no attention that was attached"):
        detach(model)


@pytest.mark.parametrize("arm", ARMS)
def test_a_network_begins_as_it_was_or_says_why_not(arm):
    model = resnet()
    logits = model(IMAGES)
    if arm in ("cbam", "se_var1"):
        reason = {"cbam": "its spatial map would still", "se_var1": "it has no weights, so"}[arm]
        with pytest.raises(ValueError, match=f"{arm}' with start='as it was': {reason}"):
            attach(model, arm, example=IMAGES, start="as it was")
        assert attached(model) == {}
        return
    attach(model, arm, example=IMAGES, start="as it was")
    assert torch.equal(model(IMAGES), logits)
    gate = model.layer1[0].bn2.channel_attention
    assert torch.equal(gate.weights(torch.zeros(1, 64, 2, 2)), torch.ones(1, 64))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for _ in range(2):  # SE's first layer learns once its second has
        optimizer.zero_grad()
        model(IMAGES).square().sum().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in gate.parameters())
    assert not torch.equal(model(IMAGES), logits)


@pytest.mark.parametrize("start", ["drawn", "as it was"])
@pytest.mark.parametrize("arm", ["se", "eca(k=3-5-5-7)", "eca(order=shuffled)"])
def test_a_record_attaches_again(arm, start):
    model = resnet()
    record = attach(model, arm, example=IMAGES, start=start)
    assert record == attached(model)
    for parameter in model.parameters():
        parameter.data += 0.01
    again = resnet()
    attach_again(again, json.loads(json.dumps(record)))
    assert attached(again) == record
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], r"record=\[\]: accepted is what attach gave"),
        ({"bn1": "eca"}, "record of 'bn1': 'eca': accepted are attention, channels and start"),
        ({"bn1": {"attention": "eca"}}, "accepted are attention, channels and start"),
        ({"bn1": {"attention": "no", "channels": 8, "start": "drawn"}}, "attention 'no': accepted"),
        ({"bn1": {"attention": "eca", "channels": 0, "start": "drawn"}}, "channels=0: accepted"),
        ({"bn1": {"attention": "eca", "channels": 8, "start": "now"}}, "start='now': accepted are"),
        (
            {
                "bn1": {"attention": "eca", "channels": 8, "start": "drawn"},
                "bn9": {"attention": "eca", "channels": 8, "start": "drawn"},
            },
            "ResNet has no module 'bn9'",
        ),
    ],
)
def test_what_is_no_record(record, message):
    model = resnet()
    with pytest.raises((TypeError, ValueError), match=message):
        attach_again(model, record)
    assert attached(model) == {}


def test_none_is_recorded_and_attaches_nothing():
    model = resnet()
    logits = model(IMAGES)
    record = attach(model, "none", example=IMAGES)
    assert {entry["attention"] for entry in record.values()} == {"none"}
    assert len(record) == 4
    assert attached(model) == {}
    assert torch.equal(model(IMAGES), logits)
    attach_again(model, record)
    assert attached(model) == {}


def test_several_attachments_and_attention_that_is_there():
    model = resnet()
    attach(model, "eca(k=3)", where="layer1*.bn2", example=IMAGES)
    attach(model, "se", where="layer4*.bn2", example=IMAGES)
    specs = {name: entry["attention"] for name, entry in attached(model).items()}
    assert specs == {
        "layer1.0.bn2": "eca(k=3)",
        "layer4.0.bn2": "se(r=16)",
    }
    with pytest.raises(ValueError, match=r"layer1\.0\.bn2: it gives a map that channel attention"):
        attach(model, "se", where="layer*.bn2", example=IMAGES)
    assert len(attached(model)) == 2
    with pytest.raises(ValueError, match=r"layer1\.0\.bn2 has channel_attention already: accepted"):
        attach_again(model, {name: attached(model)[name] for name in ("layer1.0.bn2",)})

    own = nn.Sequential(nn.Conv2d(3, 8, 3), ECA(8), nn.ReLU())
    with pytest.raises(ValueError, match="fits 1: it gives a map that channel attention has weig"):
        attach(own, "eca", where="1", example=IMAGES)
    with pytest.warns(UserWarning, match="attention of its own in 1 places, such as 1: what is"):
        attach(own, "eca", where="2", example=IMAGES)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("eca(k=3-5)", r"'eca\(k=3-5\)' gives 2 kernel sizes: .* one for each of 4 stages"),
        ("eca(k=129)", "kernel_size=129"),
        ("se(r=65)", "reduction=65"),
        ("sse", "attention 'sse': accepted are none"),
        (3, "attention 3: accepted is a spec string"),
    ],
)
def test_attention_that_does_not_fit_changes_nothing(arm, message):
    model = resnet()
    with pytest.raises((TypeError, ValueError), match=message):
        attach(model, arm, example=IMAGES)
    assert attached(model) == {}


def test_examples_that_do_not_fit():
    for example, message in (
        (
            images(1, 1, 32, 32),
            "example does not go through ResNet: .* to have 3 channels, but got",
        ),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "images of torch.uint8 without prepare"),
        ("photo.jpg", "'photo.jpg'.*: accepted is a tensor, or what holds one"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            attach(resnet(), "eca", example=example)


def test_what_is_attached_without_gradients_learns():
    model = small()
    with torch.inference_mode():
        attach(model, "eca", where="1", example=IMAGES)
    model(IMAGES).sum().backward()
    assert model[1].channel_attention.conv.weight.grad.abs().sum() > 0


class Looping(nn.Module):
    """Runs whatever is in it, one after the other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


def test_a_module_that_would_run_it_twice():
    model = nn.Sequential(Looping())
    with pytest.raises(ValueError, match=r"^0 runs all that is in it: accepted is a module in it"):
        attach(model, "eca", where="0", example=IMAGES)
    assert attached(model) == {}
    assert attach(model, "eca", where="0.conv", example=IMAGES).keys() == {"0.conv"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_models_that_are_more_than_modules():
    for wrapped, how in (
        (torch.compile(small(), backend="eager"), "OptimizedModule is compiled"),
        (torch.jit.script(small()), "is scripted"),
        (3, "model=3: accepted is a torch.nn.Module"),
    ):
        with pytest.raises((TypeError, ValueError), match=how):
            attach(wrapped, "eca", where="1", example=IMAGES)
    model = small()
    model.compile(backend="eager")
    with pytest.raises(ValueError, match="Sequential is compiled: accepted is the model before"):
        attach(model, "eca", where="1", example=IMAGES)


def test_a_conversion_that_leaves_it_behind_is_told():
    model = small()
    attach(model, "eca", where="1", example=IMAGES)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(ValueError, match="attention of 1 does not run: SyncBatchNorm was made ane"):
        attached(converted)
    before = nn.SyncBatchNorm.convert_sync_batchnorm(small())
    assert attach(before, "eca", where="1", example=IMAGES).keys() == {"1"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_takes_the_dtype_and_the_memory_layout(dtype):
    model = resnet().to(dtype, memory_format=torch.channels_last)
    attach(model, "se", example=IMAGES)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    seen = []
    model.layer2[0].bn2.register_forward_hook(lambda _, __, out: seen.append(out))
    assert model(IMAGES.to(dtype, memory_format=torch.channels_last)).dtype == dtype
    assert seen[0].shape == (2, 128, 4, 4)
    assert seen[0].dtype == dtype
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_it_goes_where_the_module_is():
    model = resnet().cuda()
    attach(model, "eca", example=IMAGES)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    logits = model(IMAGES.cuda()).cpu()
    detach(model)
    assert not torch.equal(model(IMAGES.cuda()).cpu(), logits)


def test_a_module_without_weights_is_near_others():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())).double()
    model[1].bfloat16()
    model[1].register_forward_pre_hook(lambda _, inputs: inputs[0].bfloat16())
    attach(model, "eca", where="1.1", example=IMAGES)
    assert model[1][1].channel_attention.conv.weight.dtype == torch.bfloat16


def test_a_copy_has_its_own():
    model = resnet()
    attach(model, "eca", example=IMAGES)
    logits = model(IMAGES)
    other = copy.deepcopy(model)
    assert torch.equal(other(IMAGES), logits)
    for parameter in other.layer1[0].bn2.channel_attention.parameters():
        parameter.data += 1
    assert not torch.equal(other(IMAGES), logits)
    assert torch.equal(model(IMAGES), logits)
    detach(other)
    assert len(attached(model)) == 4


def test_it_is_compiled_traced_and_exported(tmp_path):
    model = small()
    attach(model, "eca(k=3)", where="1", example=IMAGES)
    logits = model(IMAGES)
    assert not torch.equal(logits, small()(IMAGES))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    exported = torch.export.export(model, (IMAGES,)).module()
    symbolic = torch.fx.symbolic_trace(model)
    for form in (compiled, exported, symbolic, nn.DataParallel(model)):
        torch.testing.assert_close(form(IMAGES), logits)

    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = str(tmp_path / "small.onnx")
    torch.onnx.export(model, (IMAGES,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    [found] = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), logits.detach(), atol=1e-5, rtol=1e-4)


def test_it_trains_in_parallel():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = small()
        attach(model, "eca", where="1", example=IMAGES)
        parallel = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(ValueError, match="is wrapped by DistributedDataParallel: accepted is"):
            attach(parallel, "eca", where="module.2", example=IMAGES)
        parallel(IMAGES).sum().backward()
        assert model[1].channel_attention.conv.weight.grad.abs().sum() > 0
    finally:
        dist.destroy_process_group()


def test_its_cost_is_counted():
    model = small()
    before = multiply_adds(model, 32)
    attach(model, "se", where="1", example=IMAGES)
    assert multiply_adds(model, 32) - before == 2 * 32 * 2  # W1 and W2 of C = 32, r = 16


def test_the_front_door():
    model = small()
    assert eca_lab.attach(model, "eca", where="1", example=IMAGES).keys() == {"1"}
    eca_lab.detach(model)
    assert attached(model) == {}
