"""Sweeps over arms in networks that functions make."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from eca_lab import __main__
from eca_lab.evidence.results import load_records, load_results, trial_identity
from eca_lab.networks.attach import attached
from eca_lab.networks.checkpoints import find_checkpoint, load_checkpoint
from eca_lab.recipe import Recipe
from eca_lab.training.keeping import train_checkpoints
from eca_lab.training.planning import check_arms, plan_sweep
from eca_lab.training.sweep import Sweep
from eca_lab.training.train import _with_and_without_decay, initial_imported, trial_description

QUICK = Recipe(epochs=1, batch_size=16, learning_rate=0.05)
SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))

def net(num_classes):
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), Block(16), Block(16), *ends)
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def backbone(module_of):
    return f"{module_of(SOURCE)}:net"


def test_the_description_and_its_identity(dataset, module_of, backbone):
    def described(arm="eca", backbone=backbone, at=None):
        return trial_description(dataset, backbone, arm, seed=0, recipe=QUICK, at=at)

    plain, eca = described("none"), described()
    assert eca["backbone"] == backbone
    assert eca["places"] == plain["places"] == {"1.bn": 16, "2.bn": 16}
    assert eca["attention"] == ["eca(k=3)"] * 2
    assert plain["attention"] == ["none"] * 2
    assert eca["parameters"] - plain["parameters"] == 3 + 3
    assert eca["architecture"] == plain["architecture"]
    assert json.loads(json.dumps(eca)) == eca
    # Alike is what resolves alike.
    identity = trial_identity(eca)
    assert trial_identity(described("eca(k=3)", at="*.bn")) == identity
    edited = module_of(SOURCE.replace("Block(16), Block(16)", "Block(16), Block(16), Block(16)"))
    others = [
        plain,
        described("eca(k=5)"),
        described(at="1.bn"),
        described(at="[12]"),
        described(backbone=f"{edited}:net"),
    ]
    identities = {trial_identity(each) for each in others}
    assert len(identities | {identity}) == len(others) + 1
    renamed = described(backbone=f"{module_of(SOURCE + '# the same')}:net")
    assert renamed["architecture"] == eca["architecture"]


def test_arms_start_from_equal_backbones(backbone):
    def weights(arm, seed):
        model = initial_imported(backbone, arm, num_classes=2, size=16, seed=seed)
        state = model.state_dict()
        return {name: value for name, value in state.items() if "attention" not in name}

    plain = weights("none", 0)
    for arm in ("se(r=4)", "eca", "eca(order=shuffled)"):
        other = weights(arm, 0)
        assert other.keys() == plain.keys()
        assert all(torch.equal(other[name], plain[name]) for name in plain)
    assert not torch.equal(weights("none", 1)["0.weight"], plain["0.weight"])


def test_a_sweep_is_recorded_paired_and_finished(dataset, backbone, tmp_path):
    plan = plan_sweep(dataset, backbone, ["none", "eca", "se(r=4)"], seeds=2, recipe=QUICK)
    assert Sweep(plan, tmp_path).run() == []
    table = load_results(tmp_path)
    assert len(table) == 6
    [shown] = table["backbone"].unique()
    assert shown.startswith(f"{backbone}#")
    assert Sweep(plan, tmp_path).remaining() == []
    for record in load_records(tmp_path).values():
        names = [] if record["arm"] == "none" else ["1.bn", "2.bn"]
        moved = {name.partition(".channel_attention.")[0] for name in record["attention_norms"]}
        assert sorted(moved) == names
    # Elsewhere in the network it is another setting.
    other = plan_sweep(dataset, backbone, ["eca"], seeds=1, recipe=QUICK, at="1.bn")
    Sweep(other, tmp_path).run()
    assert len(load_results(tmp_path)["backbone"].unique()) == 2


def test_worker_processes_import_the_function(dataset, backbone, tmp_path):
    plan = plan_sweep(dataset, backbone, ["none", "eca"], seeds=1, recipe=QUICK, at="*.bn")
    assert Sweep(plan, tmp_path / "here").run() == []
    assert Sweep(plan, tmp_path / "there", workers=2).run() == []
    here, there = (load_results(tmp_path / name) for name in ("here", "there"))
    assert here["identity"].tolist() == there["identity"].tolist()
    assert here["loss"].tolist() == pytest.approx(there["loss"].tolist(), rel=1e-3)


def test_a_function_that_is_edited_meanwhile_trains_nothing_else(dataset, module_of, tmp_path):
    name = module_of(SOURCE)
    plan = plan_sweep(dataset, f"{name}:net", ["eca"], seeds=1, recipe=QUICK)
    module_of(SOURCE.replace("torch.relu(", "torch.tanh("), name)
    del sys.modules[name]
    [failed] = Sweep(plan, tmp_path / "out").run()
    assert failed[
        "reason"
    ] == f"ValueError: {name}:net makes another network than when this was " + ("planned")


def test_networks_are_kept_and_loaded_by_their_function(dataset, module_of, tmp_path):
    name = module_of(SOURCE)
    plan = plan_sweep(dataset, f"{name}:net", ["none", "eca"], seeds=1, recipe=QUICK, at="*.bn")
    paths = train_checkpoints(plan, tmp_path / "kept")
    path = find_checkpoint(
        tmp_path / "kept", "eca", seed=0, dataset="colours16", backbone=f"{name}:net"
    )
    assert path in paths
    assert ":" not in path.name
    model, card = load_checkpoint(path)
    assert attached(model).keys() == {"1.bn", "2.bn"}
    assert attached(load_checkpoint(paths[0])[0]) == {}
    trained, outcome = plan.train(plan.trials[1])
    assert outcome["correct"] == card["correct"]
    images = dataset.test_images.float() / 255
    torch.testing.assert_close(model(images), trained(images))  # of another memory layout

    module_of(SOURCE.replace("torch.relu(", "torch.tanh("), name)
    del sys.modules[name]
    with pytest.raises(ValueError, match=f"{name}:net makes another network than the one that was"):
        load_checkpoint(path)
    (tmp_path / f"{name}.py").unlink()
    del sys.modules[name]
    with pytest.raises(ValueError, match=f"fit its card: .*No module named '{name}'"):
        load_checkpoint(path)


TIED = (
    SOURCE
    + """
class Tied(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(*net(num_classes))
        self[2].conv.weight = self[1].conv.weight

def tied(num_classes):
    return Tied(num_classes)
"""
)


def test_tied_weights_are_trained_once_and_kept(dataset, module_of, tmp_path):
    backbone = f"{module_of(TIED)}:tied"
    plan = plan_sweep(dataset, backbone, ["eca"], seeds=1, recipe=QUICK, keep=1)
    plan = dataclasses.replace(plan, checkpoints=tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    assert Sweep(plan, tmp_path / "out").run() == []
    [path] = (tmp_path / "kept").glob("*.safetensors")
    model, _ = load_checkpoint(path)
    assert model[1].conv.weight is model[2].conv.weight


def test_weight_decay_leaves_out_every_normalisation():
    norms = [
        nn.BatchNorm1d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
    ]
    model = nn.Sequential(nn.Linear(4, 4), *norms, nn.RMSNorm(4))
    decayed, undecayed = _with_and_without_decay(model)
    assert [id(each) for each in decayed] == [id(model[0].weight)]
    assert len(undecayed) == 1 + 2 * len(norms) + 1


def test_what_cannot_be_planned(dataset, backbone, module_of):
    def planned(**options):
        return plan_sweep(dataset, arms=["eca"], seeds=1, recipe=QUICK, **options)

    with pytest.raises(ValueError, match=r"at='\*\.bn': tiny has a place in every block"):
        planned(backbone="tiny", at="*.bn")
    with pytest.raises(ValueError, match="where='bn': no module of Sequential has such a name"):
        planned(backbone=backbone, at="bn")
    with pytest.raises(ValueError, match="has no function other"):
        check_arms(backbone.replace(":net", ":other"), ["eca"], seeds=1)
    with pytest.raises(ValueError, match=r"'eca\(k=3-5-7\)' gives 3 kernel sizes"):
        plan_sweep(dataset, backbone, ["eca(k=3-5-7)"], seeds=1, recipe=QUICK)
    with pytest.warns(UserWarning, match=f"not fused: the blocks of {backbone} are not ours"):
        assert not planned(backbone=backbone, fused=True).fused


def test_the_command_looks_in_the_working_directory(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    sizes = "--classes 2 --size 8 --per-class 8 --epochs 1 --batch-size 4 --seeds 1 --device cpu"
    arguments = [*sizes.split(), "--arms", "none", "eca", "--at", "*.bn", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "eca_lab", "sweep", "--backbone", "mine:net", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mine:net: 2 arms x 1 seeds = 2 trials" in done.stdout
    assert "attention goes behind 2 modules: 1.bn, 2.bn\n" in done.stdout
    assert "; mine:net#" in done.stdout
    assert len(load_results(tmp_path / "out")) == 2


def test_the_command_for_checkpoints(backbone, tmp_path, capsys):
    sizes = "--classes 2 --size 8 --per-class 8 --epochs 1 --batch-size 4 --seeds 1 --device cpu"
    arguments = ["--backbone", backbone, "--arms", "eca", "--at", "1.bn", "--out", str(tmp_path)]
    assert __main__.main(["checkpoints", *sizes.split(), *arguments]) == 0
    path = find_checkpoint(tmp_path, "eca", seed=0, dataset="shapes8", backbone=backbone)
    assert str(path) in capsys.readouterr().out
    assert attached(load_checkpoint(path)[0]).keys() == {"1.bn"}
