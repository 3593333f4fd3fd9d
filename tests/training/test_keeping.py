"""Networks of a plan that are trained and kept."""

from dataclasses import replace

import pytest

from eca_lab.data.augmentation import input_transform
from eca_lab.networks.backbones import build_model
from eca_lab.networks.checkpoints import load_checkpoint
from eca_lab.recipe import Recipe
from eca_lab.training import planning
from eca_lab.training.keeping import train_checkpoints
from eca_lab.training.planning import plan_sweep

QUICK = Recipe(epochs=1, batch_size=16, learning_rate=0.05)


def test_checkpoints_are_trained_once_and_kept(dataset, tmp_path, monkeypatch):
    plan = plan_sweep(dataset, "tiny", ["none", "eca(k=3)"], seeds=1, recipe=QUICK)
    paths = train_checkpoints(plan, tmp_path)
    assert [path.name for path in paths] == [
        f"colours16-tiny-{slug}-seed0-{trial.identity[:8]}.safetensors"
        for slug, trial in zip(("none", "eca_k_3"), plan.trials, strict=True)
    ]
    model, card = load_checkpoint(paths[1])
    assert card["trial"] == plan.trials[1].description
    assert card["classes"] == ["red", "green"]
    assert card["device"].startswith("cpu: ")
    right = model(input_transform(dataset)(dataset.test_images)).argmax(1) == dataset.test_labels
    assert 100 * right.float().mean() == pytest.approx(card["top1"])

    trained = []
    genuine = planning.train_network
    monkeypatch.setattr(
        planning, "train_network", lambda *a, **k: trained.append(str(a[2])) or genuine(*a, **k)
    )
    tensors = paths[0].read_bytes()
    assert train_checkpoints(plan, tmp_path) == paths
    assert trained == []
    paths[0].with_suffix(".json").unlink()  # as an interruption between the two leaves it
    with pytest.warns(UserWarning, match=r"none-seed0-\w+\.safetensors has no card"):
        train_checkpoints(plan, tmp_path)
    assert trained == ["none"]
    assert paths[0].read_bytes() == tensors


def test_networks_too_tell_of_emulated_bfloat16_with_its_time(dataset, tmp_path, monkeypatch):
    def fake(dataset, backbone, arm, seed, *_, **__):
        return build_model(backbone, arm, num_classes=len(dataset.classes), stem="cifar"), {
            "top1": 50.0
        }

    monkeypatch.setattr(planning, "train_network", fake)
    monkeypatch.setattr(planning, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(planning.Plan, "estimate_seconds", lambda *_: 60.0)
    plan = plan_sweep(dataset, "tiny", ["none", "eca"], seeds=1, recipe=QUICK, precision="bfloat16")
    with pytest.warns(UserWarning, match=r"bfloat16 is emulated .* 2 trials take about 0:02:00"):
        train_checkpoints(plan, tmp_path)
    with pytest.raises(ValueError, match="out='': accepted is the path of a folder"):
        train_checkpoints(plan, "")


def test_no_checkpoint_is_overwritten(dataset, tmp_path, monkeypatch):
    def fake(dataset, backbone, arm, seed, *_, **__):
        return build_model(backbone, arm, num_classes=len(dataset.classes), stem="cifar"), {
            "top1": 50.0
        }

    monkeypatch.setattr(planning, "train_network", fake)
    near = ["eca(gamma=1, b=1)", "eca(gamma=1, b=-1)"]
    plan = plan_sweep(dataset, "tiny", near, seeds=1, recipe=QUICK)
    longer = plan_sweep(dataset, "tiny", near, seeds=1, recipe=replace(QUICK, epochs=2))
    paths = train_checkpoints(plan, tmp_path) + train_checkpoints(longer, tmp_path)
    assert len(set(paths)) == 4
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 8

    monkeypatch.setattr(planning, "train_network", None)
    wider = plan_sweep(dataset, "tiny", [*near, "se"], seeds=1, recipe=QUICK)
    paths[0].write_bytes(b"damaged")
    before[paths[0].name] = b"damaged"
    with pytest.raises(ValueError, match=f"{paths[0].name} does not fit its card.*; remove"):
        train_checkpoints(wider, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
