import sys

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from eca_lab.networks.named import IMAGENET, expected_images, load_weights, named_network


def test_networks_of_libraries_and_of_functions(module_of):
    model = named_network("timm:seresnet18", num_classes=7).eval()
    assert isinstance(model, timm.models.ResNet)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    model = named_network("torchvision:mobilenet_v3_small", num_classes=7)
    assert isinstance(model, torchvision.models.MobileNetV3)
    model = named_network("torchvision.models:resnet18", num_classes=7)
    assert model.fc.out_features == 7


def test_the_images_that_they_expect():
    for name in ("ecaresnet50t", "mobilenetv3_small_050", "efficientnet_b0"):
        wanted = timm.data.resolve_data_config(
            pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
        )
        found = expected_images(f"timm:{name}")
        assert (found.mean, found.std) == (wanted["mean"], wanted["std"])
        assert found.size == wanted["input_size"][-1]
    assert expected_images("torchvision:resnet18") == (*IMAGENET, 224)
    assert expected_images("mine.networks:small") == (*IMAGENET, None)


def test_names_that_are_refused(monkeypatch):
    for name in ("resnet18", "timm:", ":resnet18", ""):
        with pytest.raises(ValueError, match=f"model='{name}': accepted is timm:NAME, torchvision"):
            named_network(name, num_classes=2)
    with pytest.raises(ValueError, match=r"timm has none of that name, .*resnet18"):
        named_network("timm:eresnet18", num_classes=2)
    with pytest.raises(ValueError, match="torchvision has no classifier of that name"):
        named_network("torchvision:fasterrcnn_resnet50_fpn", num_classes=2)
    with pytest.raises(ValueError, match="nothing_of_that_name"):
        named_network("nothing_of_that_name:small", num_classes=2)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="timm is not installed; `pip install timm`"):
        expected_images("timm:seresnet18")


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_of_files(tmp_path, ending, held):
    torch.manual_seed(0)
    saved, other = (named_network("timm:seresnet18", num_classes=2) for _ in range(2))
    state = {f"module.{name}": value for name, value in saved.state_dict().items()}
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if held else state, path)
    load_weights(other, path)
    for name, value in saved.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"does not fit ResNet: .*size mismatch for fc\.weight"):
        load_weights(named_network("timm:seresnet18", num_classes=3), path)


def test_files_that_hold_no_weights(tmp_path):
    model = torch.nn.Linear(2, 2)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "none.pth")
    for name, content in (("a.pth", b"nonsense"), ("a.safetensors", b"nonsense")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} (is not a file of tensors|holds no weights)"):
            load_weights(model, tmp_path / name)
    torch.save(model, tmp_path / "whole.pth")  # pickled as a whole
    with pytest.raises(ValueError, match=r"is not a file of tensors alone .*holds a 'torch\.nn"):
        load_weights(model, tmp_path / "whole.pth")
