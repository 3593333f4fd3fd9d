import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from eca_lab.networks.imported import architecture, build_imported, import_function, uploads

SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    # A comment.
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))

def net(num_classes):
    stem = nn.Conv2d(3, 8, 3)
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, num_classes)]
    return nn.Sequential(stem, Block(8), Block(8), *ends)
"""


def fingerprint(backbone, num_classes=4, size=8):
    return architecture(backbone, num_classes=num_classes, size=size)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# A comment.", "# Another comment,\n    # of two lines."),
        ("stem", "beginning"),
        ("def forward(self, x):", "def forward(self, x):\n        'Says what it does.'"),
        ("channels, 3, padding=1", "channels, kernel_size=3, padding=1"),
    ],
)
def test_what_changes_no_network(module_of, old, new):
    assert SOURCE.count(old)
    plain, changed = module_of(SOURCE), module_of(SOURCE.replace(old, new))
    assert fingerprint(f"{plain}:net") == fingerprint(f"{changed}:net")


CHANGES = [
    ("Block(8), Block(8)", "Block(8)"),
    ("Conv2d(3, 8, 3)", "Conv2d(3, 8, 5)"),
    ("Conv2d(3, 8, 3)", "Conv2d(3, 8, 3, stride=2)"),
    ("bias=False", "bias=True"),
    ("torch.relu(", "torch.tanh("),
    ("x + self.bn", "x - self.bn"),
    ("x + self.bn", "0.5 * x + self.bn"),
    ("BatchNorm2d(channels)", "BatchNorm2d(channels, momentum=0.2)"),
    ("BatchNorm2d(channels)", "BatchNorm2d(channels, eps=1e-3)"),
    ("Dropout(0.5)", "Dropout(0.25)"),  # of which evaluation knows nothing
    ("self.bn(self.conv(x))", "(self.bn(self.conv(x)) if self.training else self.conv(x))"),
    ("self.bn = nn.BatchNorm2d(channels)", "self.norm = self.bn = nn.BatchNorm2d(channels)"),
    ("self.bn = ", "self.gain = nn.Parameter(torch.ones(1)); self.bn = "),
    # Values that no seed changes.
    (
        "self.bn = nn.BatchNorm2d(channels)",
        "self.bn = nn.BatchNorm2d(channels); nn.init.zeros_(self.bn.weight)",
    ),
    ("stem = nn.Conv2d(3, 8, 3)", "stem = nn.Conv2d(3, 8, 3).requires_grad_(False)"),
    ("ends = [", "nn.init.ones_(stem.weight); ends = ["),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_what_changes_the_network(module_of, old, new):
    assert SOURCE.count(old)
    plain, changed = module_of(SOURCE), module_of(SOURCE.replace(old, new))
    assert fingerprint(f"{plain}:net") != fingerprint(f"{changed}:net")


def test_the_fingerprint_is_of_classes_and_size_and_draws_nothing(module_of):
    name = module_of(SOURCE)
    before = torch.get_rng_state()
    found = {fingerprint(f"{name}:net", *sizes) for sizes in ((4, 8), (5, 8), (4, 16))}
    assert len(found) == 3
    assert all(len(each) == 64 for each in found)
    assert torch.equal(torch.get_rng_state(), before)
    # How weights are drawn is not seen, and the documentation says so.
    drawn = SOURCE.replace("ends = [", "nn.init.normal_(stem.weight); ends = [")
    assert fingerprint(f"{module_of(drawn)}:net") == fingerprint(f"{name}:net")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(num_classes): ...", "has no function net"),
        ("net = 3", "has no function net"),
        (
            "import nowhere_at_all",
            "ModuleNotFoundError: No module named 'nowhere_at_all' .looked f",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def net(:", "SyntaxError"),
        ("def net(classes): ...", "accepted is a function that takes num_classes="),
        ("def net(num_classes): return 3", "it gives 3: accepted is a torch.nn.Module"),
        ("def net(num_classes, depth): ...", "with num_classes=4: TypeError: .*'depth'"),
        (
            f"{SOURCE}\none = net(4)\ndef net(num_classes): return one",
            "it gives the same network again: accepted is a new one",
        ),
        (
            f"{SOURCE}\ngenerator = torch.Generator()\nplain = net\n"
            "def net(num_classes):\n    made = plain(num_classes)\n"
            "    made[0].weight.data.normal_(generator=generator)\n    return made",
            "its weights are drawn from elsewhere than torch's generator: one seed gives two",
        ),
        (SOURCE.replace("Conv2d(3, 8, 3)", "LazyConv2d(8, 3)"), "its weights have no values yet"),
        (SOURCE.replace("8, 3)", "8, 3, device='meta')"), "its weights have no values yet"),
        (SOURCE.replace("Conv2d(3, 8, 3)", "Conv2d(3, 8, 9)"), "cannot take images of 8 x 8 pixel"),
        (SOURCE.replace("Conv2d(3, 8, 3)", "Conv2d(1, 8, 3)"), "cannot take images of 8 x 8 pixel"),
        (
            SOURCE.replace("8, num_classes)", "8, 7)"),
            r"its network gives torch.float32 \(2, 7\) in training: accepted are logits \(N, 4\)",
        ),
        (
            SOURCE + "\nclass Two(nn.Sequential):\n    def forward(self, x):\n"
            "        x = super().forward(x)\n        return x if self.training else (x, x)\n"
            "plain = net\ndef net(num_classes): return Two(plain(num_classes))",
            r"its network gives a tuple in evaluation: accepted are logits",
        ),
    ],
)
def test_functions_that_are_refused(module_of, source, message):
    name = module_of(source)
    with pytest.raises(ValueError, match=f"^backbone='{name}:net': .*{message}"):
        fingerprint(f"{name}:net")


@pytest.mark.parametrize("name", ["net", ":net", "nets:", "nets:net()", "a b:c", "../x:y", None])
def test_what_is_no_name_of_a_function(name):
    with pytest.raises(ValueError, match=r"accepted are tiny, .*or package.module:function"):
        import_function(name)


def test_a_network_is_built_with_its_classes():
    model = build_imported("torchvision.models:resnet18", num_classes=7)
    assert isinstance(model, nn.Module)
    assert model.fc.out_features == 7


def test_what_other_machines_need(module_of, tmp_path):
    name = module_of(SOURCE)
    assert uploads("tiny") == []
    assert uploads("torchvision.models:resnet18") == []
    assert uploads(f"{name}:net") == [sys.modules[name]]
    package = tmp_path / f"package_of_{name}"
    package.mkdir()
    (package / "inner.py").write_text(SOURCE)
    [found] = uploads(f"{package.name}.inner:net")
    assert [Path(place) for place in found.__path__] == [package]
