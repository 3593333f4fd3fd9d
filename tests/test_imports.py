"""What may not be imported: no room from one above it, and nothing heavy where it is not needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eca_lab

# Room -> what of ours it may import, also within functions: the table of ARCHITECTURE.md.
SMALL = {"checks", "files", "progress", "provenance", "recipe"}
ROOMS = {
    "checks": set(),
    "files": set(),
    "lab": SMALL,
    "progress": set(),
    "provenance": set(),
    "recipe": {"checks"},
    "attention": SMALL,
    "data": {*SMALL, "attention"},
    "evidence": {*SMALL, "attention"},
    "figures": {"attention", "evidence"},
    "networks": {*SMALL, "attention", "evidence"},
    "looking": {*SMALL, "attention", "data", "networks"},
    "training": {*SMALL, "attention", "data", "evidence", "networks"},
    "explorers": {*SMALL, "attention", "data", "evidence", "networks", "looking", "training"}
    | {"figures"},
    "examine": {*SMALL, "figures", "networks", "looking", "explorers"},
    "site": {"explorers"},
}
# Each row is a fresh interpreter, and what its code does without.
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
    "from eca_lab.explorers import ModuleExplorer as M; M().channel = 8": (
        *("torch", "scipy"),
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


def imported_rooms(path):
    """The rooms that a file imports from, other than its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "eca_lab":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("eca_lab."))


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_from_one_above_it(room):
    package = Path(eca_lab.__file__).parent
    files = [*package.glob(f"{room}.py"), *(package / room).glob("*.py")]
    assert files
    found = {name for path in files for name in imported_rooms(path)}
    assert found - {room} <= ROOMS[room]


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
