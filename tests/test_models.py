import hashlib
import json

import pytest
import torch
import torchvision

from eca_lab.attention import ECA, SE
from eca_lab.kernel_size import NETWORKS, released_kernel_sizes, stage_channels
from eca_lab.models import (
    BACKBONES,
    _blocks,
    add_attention,
    attention_specs,
    build_model,
    kernel_sizes,
    load_checkpoint,
    load_released_checkpoint,
    pad_kernels,
    save_checkpoint,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_plain_backbones_are_torchvisions(backbone):
    ours = build_model(backbone).eval()
    theirs = getattr(torchvision.models, backbone)(weights=None).eval()
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("network", NETWORKS)
def test_stage_widths_are_those_of_the_kernel_size_tables(network):
    with torch.device("meta"):
        model = build_model(network)
    widths = {stage: channels for *_, channels, stage in _blocks(model)}
    assert tuple(widths.values()) == stage_channels(network)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("spec", ["se(r=4)", "cbam(r=4)", "eca", "eca(k=3, order=shuffled)"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_every_backbone_takes_attention_and_both_stems(backbone, spec, stem):
    with torch.device("meta"):
        model = build_model(backbone, spec, num_classes=7, stem=stem)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
    names = attention_specs(model)
    assert all(each.startswith(spec.split("(")[0]) for each in names)
    assert len(names) == len(list(_blocks(model)))


def test_the_cifar_stem_keeps_the_resolution():
    sizes = []
    for backbone, last in (
        ("resnet18", "layer1"),
        ("tiny", "layer1"),
        ("mobilenet_v2", "features.1"),
    ):
        model = build_model(backbone, num_classes=10, stem="cifar").eval()
        model.get_submodule(last).register_forward_hook(
            lambda _, __, out: sizes.append(out.shape[2])
        )
        model(torch.randn(1, 3, 32, 32))
    assert sizes == [32, 32, 32]


# The module stands on the residual branch, after the last BatchNorm and before the addition:
# a gate of zeros leaves the shortcut alone.
@pytest.mark.parametrize("backbone", ["tiny", "resnet50", "mobilenet_v2"])
def test_the_attention_stands_before_the_shortcut(backbone):
    class Closed(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    model = build_model(backbone, num_classes=10, stem="cifar").eval()
    identity_blocks = 0
    for name, block, channels, _ in _blocks(model):
        x = torch.rand(1, channels, 4, 4)
        block.attention = Closed()
        takes = next(block.parameters()).shape[1]
        if takes == channels and getattr(block, "downsample", None) is None:
            if backbone == "mobilenet_v2" and not block.use_res_connect:
                continue
            torch.testing.assert_close(block(x), x, msg=name)
            identity_blocks += 1
    assert identity_blocks > 0


@pytest.mark.parametrize(
    ("backbone", "spec", "sizes"),
    [
        ("tiny", "eca", [3, 3, 5, 5]),
        ("tiny", "eca(k=5-3-3)", [5, 3, 3, 3]),
        ("tiny", "eca_ns(k=3)", [3, 3, 3, 3]),
        ("tiny", "se", []),
        ("resnet10", "eca", [3, 5, 5, 5]),
        ("resnet18", "eca(k=3-5-7-7)", [3, 3, 5, 5, 7, 7, 7, 7]),
        ("resnet50", "eca", [5] * 3 + [5] * 4 + [5] * 6 + [7] * 3),
        ("resnet50", "eca(gamma=1, b=1)", [9] * 3 + [11] * 4 + [11] * 6 + [13] * 3),
        ("mobilenet_v2", "eca", [3] * 13 + [5] * 4),
    ],
)
def test_resolved_kernel_sizes(backbone, spec, sizes):
    with torch.device("meta"):
        model = build_model(backbone, spec)
    resolved = kernel_sizes(model)
    assert list(resolved.values()) == sizes
    for name, size in resolved.items():
        assert model.get_submodule(name).kernel_size == size


def test_adaptive_k_on_tiny_is_no_fixed_k():
    adaptive = attention_specs(build_model("tiny", "eca"))
    assert adaptive == ["eca(k=3)", "eca(k=3)", "eca(k=5)", "eca(k=5)"]
    assert attention_specs(build_model("tiny", "eca(k=3-3-5)")) == adaptive
    for k in (1, 3, 5, 7, 9):
        assert attention_specs(build_model("tiny", f"eca(k={k})")) != adaptive


def test_the_backbone_is_drawn_before_the_attention():
    states = []
    for spec in ("none", "se", "eca(order=shuffled)"):
        torch.manual_seed(1)
        model = build_model("tiny", spec, num_classes=10)
        state = {
            name: value for name, value in model.state_dict().items() if "attention" not in name
        }
        states.append(state)
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_add_attention_replaces_every_module():
    model = build_model("tiny", "se")
    add_attention(model, "eca(k=3)")
    assert attention_specs(model) == ["eca(k=3)"] * 4
    before = [block.attention for _, block, *_ in _blocks(model)]
    with pytest.raises(ValueError, match="kernel_size=17: accepted are at most channels=16"):
        add_attention(model, "eca(k=17)")
    assert [block.attention for _, block, *_ in _blocks(model)] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg16"}, "backbone='vgg16': accepted are tiny, resnet10"),
        ({"stem": "patch"}, "stem='patch': accepted are 'imagenet' and 'cifar'"),
        ({"attention": "senet"}, "attention 'senet': accepted are none, se"),
        ({"attention": "eca(k=3-5)"}, "2 kernel sizes: accepted are one, or one for each of the 3"),
        ({"attention": "eca(k=17)"}, "kernel_size=17: accepted are at most channels=16"),
    ],
)
def test_what_cannot_be_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"backbone": "tiny", **arguments})


def released_state(backbone, sizes, num_classes=10):
    """A state dict with the names of the authors' release, and the model that it describes."""
    spec = f"eca(k={'-'.join(map(str, sizes))})"
    model = build_model(backbone, spec, num_classes).eval()
    state = {}
    for name, value in model.state_dict().items():
        if backbone == "mobilenet_v2" and ".attention." in name:
            block = model.get_submodule(name.split(".attention")[0])
            name = name.replace("attention.conv", f"conv.{len(block.conv)}.conv")
        state[name.replace(".attention.", ".eca.")] = value
    return state, model


@pytest.mark.parametrize("network", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_released_checkpoints_load(tmp_path, network, prefix, wrapped):
    state, model = released_state(network, released_kernel_sizes(network))
    names = {"resnet18": "layer1.0.eca.conv.weight", "resnet50": "layer4.2.eca.conv.weight"}
    assert names.get(network, "features.2.conv.4.conv.weight") in state
    state = {prefix + name: value for name, value in state.items()}
    path = tmp_path / "eca.pth.tar"
    torch.save({"epoch": 100, "state_dict": state} if wrapped else state, path)
    loaded = load_released_checkpoint(path, network)
    assert not loaded.training
    assert kernel_sizes(loaded) == kernel_sizes(model)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), model(x))


def test_released_checkpoints_that_do_not_fit_are_refused(tmp_path):
    def refused(state, backbone="resnet18"):
        path = tmp_path / "eca.pth"
        torch.save(state, path)
        with pytest.raises(ValueError, match=r"eca\.pth") as caught:
            load_released_checkpoint(path, backbone)
        return str(caught.value)

    state, _ = released_state("resnet18", (3, 5, 7, 7))
    plain = {name: value for name, value in state.items() if ".eca." not in name}
    assert "layer1.0.eca.conv.weight" in refused(plain)
    assert "layer1.1.conv1.weight" in refused(
        {name: value for name, value in state.items() if name != "layer1.1.conv1.weight"}
    )
    assert "surplus.weight" in refused({**state, "surplus.weight": torch.ones(1)})
    assert "conv1.weight" in refused({**state, "conv1.weight": torch.ones(1)})
    assert "(3,): accepted is (1, 1, odd k)" in refused(
        {**state, "layer1.0.eca.conv.weight": torch.ones(3)}
    )
    assert "(1, 1, 4): accepted" in refused(
        {**state, "layer1.0.eca.conv.weight": torch.ones(1, 1, 4)}
    )
    assert "layer1.2.eca.conv.weight" in refused(state, "resnet50")
    assert "classifier.1.bias" in refused(state, "mobilenet_v2")
    assert "not a file of tensors" in refused({**state, "args": torch.nn.Linear(2, 2)})
    (tmp_path / "eca.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="not a file of tensors"):
        load_released_checkpoint(tmp_path / "eca.pth", "resnet18")
    with pytest.raises(FileNotFoundError):
        load_released_checkpoint(tmp_path / "none.pth", "resnet18")


def test_modules_are_of_the_named_classes():
    assert isinstance(build_model("tiny", "eca").layer1.attention, ECA)
    assert isinstance(build_model("tiny", "se").layer1.attention, SE)


def card_of(model, arm, backbone="tiny", stem="cifar"):
    """As much of a card as loading needs."""
    trial = {
        "backbone": backbone,
        "stem": stem,
        "dataset": {"classes": 3},
        "attention": attention_specs(model),
    }
    return {"arm": arm, "top1": 81.5, "trial": trial}


def saved(path, arm="eca"):
    model = build_model("tiny", arm, 3, "cifar")
    for each in model.buffers():  # no longer what a new model has
        each.copy_(each.flip(0) if each.dim() else each + 7)
    save_checkpoint(path, model, card_of(model, arm))
    return model


@pytest.mark.parametrize("arm", ["none", "se", "eca", "eca(k=9)", "eca(order=shuffled)"])
def test_checkpoints_come_back_as_they_were_saved(tmp_path, arm):
    path = tmp_path / "a.b.safetensors"
    model = saved(path, arm).eval()
    loaded, card = load_checkpoint(path)
    assert not loaded.training
    assert {**card_of(model, arm), "sha256": card["sha256"]} == card
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.b.json", "a.b.safetensors"]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), model(x))


def test_a_model_in_another_memory_layout_is_saved_all_the_same(tmp_path):
    model = build_model("tiny", "eca", 3, "cifar")
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(path, model, card_of(model, "eca"))
    save_checkpoint(other, model.to(memory_format=torch.channels_last), card_of(model, "eca"))
    assert path.read_bytes() == other.read_bytes()


def test_checkpoints_that_do_not_fit_their_card_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    card_path = path.with_suffix(".json")
    saved(path)
    tensors, card = path.read_bytes(), json.loads(card_path.read_text())

    def refused(message, tensors=tensors, **changes):
        path.write_bytes(tensors)
        digest = {"sha256": hashlib.sha256(tensors).hexdigest()}
        card_path.write_text(json.dumps({**card, **digest, **changes}))
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path)

    flipped = tensors[:-1] + bytes([tensors[-1] ^ 1])
    refused(r"net\.safetensors has SHA-256 \w+, its card says \w+", sha256="0" * 64)
    refused("has SHA-256", flipped, sha256=card["sha256"])
    refused("is not a file of tensors", b"not tensors")
    refused(r"describes attention .* the model has", arm="eca(padding=circular)")
    refused("layer1.attention.fc1.weight", arm="se")
    refused(
        r"fc\.weight.*\[3, 256\].*\[4, 256\]",
        trial={**card["trial"], "dataset": {"classes": 4}},
    )
    refused("backbone='vgg'", trial={**card["trial"], "backbone": "vgg"})
    refused(r"net\.json is not the card of a checkpoint: KeyError\('stem'", trial={
        key: value for key, value in card["trial"].items() if key != "stem"
    })  # fmt: skip
    card_path.write_text("{")
    with pytest.raises(ValueError, match=r"net\.json is not the card of a checkpoint"):
        load_checkpoint(path)
    card_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.json"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_checkpoints_that_cannot_be_saved(tmp_path):
    model = build_model("tiny", "eca", 3, "cifar")
    with pytest.raises(ValueError, match=r"net\.pt': accepted is a name that ends in \.safetens"):
        save_checkpoint(tmp_path / "net.pt", model, card_of(model, "eca"))
    other = build_model("tiny", "se", 3, "cifar")
    with pytest.raises(ValueError, match="the card describes attention"):
        save_checkpoint(tmp_path / "net.safetensors", model, card_of(other, "se"))
    assert list(tmp_path.iterdir()) == []


def test_kernels_are_padded_where_there_is_room():
    model = build_model("tiny", "eca(k=3-3-13)")
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        pad_kernels(model, 9)
        torch.testing.assert_close(model(x), expected)
    assert list(kernel_sizes(model).values()) == [9, 9, 13, 13]
    pad_kernels(model, 17)  # more than the 16 channels of the first stage
    assert list(kernel_sizes(model).values()) == [9, 17, 17, 17]
