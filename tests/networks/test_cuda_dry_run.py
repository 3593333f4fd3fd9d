"""The CUDA path without a GPU: fake tensors have a device, a shape and a type, but no numbers.

A tensor that was left on the CPU meets those of the GPU, and torch refuses the two.
"""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from eca_lab import data
from eca_lab.attention import modules
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model
from eca_lab.recipe import Recipe
from eca_lab.training import placing, train


def moved(model, device, memory_format=None):
    """What Module.to does, which fails with fake tensors."""
    for module in model.modules():
        for name, each in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(each.detach().to(device)))
        for name, each in module.named_buffers(recurse=False):
            setattr(module, name, each.to(device))
    return model


def array(tensor):
    assert tensor.device.type == "cpu"
    return np.zeros(tensor.shape)


@pytest.fixture(autouse=True)
def fake_gpu(monkeypatch):
    """Whatever asks a real GPU, or for the numbers in a tensor, is answered here."""
    of = {
        "backward": lambda loss: None,
        "item": lambda number: 1.0,
        "numpy": array,
        "bincount": lambda values, minlength: values.new_zeros(minlength),
    }
    for name, answer in of.items():
        monkeypatch.setattr(torch.Tensor, name, answer)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(placing, "room", lambda device, gpu_share: 2**40)
    monkeypatch.setattr(train, "check_device", torch.device)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    with FakeTensorMode():
        yield


def train_on_gpu(size=32):
    images, labels = torch.zeros(32, 3, size, size, dtype=torch.uint8), torch.arange(32) % 10
    dataset = data.Dataset("none", images, labels, images, labels, tuple("abcdefghij"), "0")
    recipe = Recipe(epochs=1, batch_size=16)
    model, outcome = train.train_network(
        dataset, "tiny", "eca(k=3)", seed=0, recipe=recipe, device="cuda", precision="auto"
    )
    assert outcome["precision"] == "bfloat16"
    return next(model.parameters())


def record_on_gpu():
    model = build_model("tiny", "eca(k=3)", num_classes=10, stem="cifar").to("cuda")
    with probe.intervene(model, "layer1.attention", probe.swap(1)):
        record = probe.record_weights(model, torch.zeros(8, 3, 32, 32), descriptors=True)
    assert record.weights["layer1.attention"].shape == (8, 16)
    return next(model.parameters())


RUNS = [train_on_gpu, record_on_gpu]


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")  # says autocast
@pytest.mark.parametrize("run", [*RUNS, lambda: train_on_gpu(size=96)])
def test_everything_is_on_the_gpu(run):
    assert run().device.type == "cuda"


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("run", RUNS)
def test_a_tensor_on_the_cpu_is_found(monkeypatch, run):
    score = modules.ECA.score
    monkeypatch.setattr(modules.ECA, "score", lambda self, y: score(self, y) + torch.zeros(1))
    with pytest.raises(RuntimeError, match=r"(?s)cuda.*cpu|cpu.*cuda"):
        run()
