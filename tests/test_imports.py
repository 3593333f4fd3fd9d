"""What may not be imported: each row is a fresh interpreter, and what its code does without."""

import subprocess
import sys

import pytest

import eca_lab

JUPYTER = ("ipywidgets", "IPython", "matplotlib", "seaborn", "jupyterlab", "nbval")
NOTHING = ("torch", "numpy", "pandas", "scipy", *JUPYTER)
TRAIN = """
from eca_lab.__main__ import main
options = "--data shapes --classes 2 --size 8 --per-class 8 --epochs 1 --batch-size 4 --device cpu"
assert main(["sweep", *options.split(), "--arms", "eca", "--seeds", "1", "--out", OUT]) == 0
"""
SHOW = """
from eca_lab import data, explorers
from eca_lab.data.augmentation import input_transform
from eca_lab.training import train
shapes = data.load_dataset("shapes")
model = train.initial_model(
    "tiny", "eca", num_classes=len(shapes.classes), stem="cifar", seed=0
)
model(input_transform(shapes)(shapes.test_images[:1]))
explorers.ChannelWeightExplorer({"eca": model}, shapes)
explorers.ReductionExplorer()
"""
WITHOUT = {
    "import eca_lab; dir(eca_lab)": NOTHING,
    "from eca_lab import adaptive_kernel_size, parse_spec, Recipe": NOTHING,
    "from eca_lab.evidence import studies; studies.names()": NOTHING,
    "from eca_lab import compare, load_results": ("torch", *JUPYTER),
    "from eca_lab import ECA": ("torchvision", "pandas", *JUPYTER),
    "from eca_lab.explorers import KernelSizeExplorer as K; K().channels = 64": (
        "torch",
        "matplotlib.pyplot",
    ),
    # A room imports from those above it in the table of ARCHITECTURE.md, and never from one below.
    "import eca_lab.networks.checkpoints, eca_lab.networks.cost, eca_lab.networks.fused": (
        "eca_lab.training",
        "eca_lab.looking",
    ),
    # Six seconds of imports, before anybody sees an explorer.
    SHOW: ("torchvision", "torch._dynamo"),
    # Where training runs there may be only what pyproject.toml lists as dependencies.
    TRAIN: (*JUPYTER, "timm", "playwright", "ray"),
}


@pytest.mark.parametrize("code", WITHOUT)
def test_what_is_done_without(code, tmp_path):
    check = (
        f"import sys; assert not (found := [x for x in {WITHOUT[code]} if x in sys.modules]), found"
    )
    script = f"OUT = {str(tmp_path)!r}\n{code}\n{check}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_front_door():
    assert {"ECA", "SE", "adaptive_kernel_size", "build_model", "compare"} <= {*eca_lab.__all__}
    assert {*eca_lab.__all__} <= {*dir(eca_lab)}
    for name in eca_lab.__all__:
        assert getattr(eca_lab, name).__doc__
    with pytest.raises(AttributeError, match="module eca_lab has no attribute nothing"):
        _ = eca_lab.nothing
