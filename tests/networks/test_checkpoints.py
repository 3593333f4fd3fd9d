"""The files of trained networks: ours, the authors', and that those in data/ are what they say."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eca_lab.attention.kernel_size import released_kernel_sizes
from eca_lab.data import load_dataset
from eca_lab.data.augmentation import input_transform
from eca_lab.evidence.results import load_records, run_of, trial_identity, unpack_correct
from eca_lab.evidence.studies import load_study
from eca_lab.looking.recording import load_recording
from eca_lab.networks.backbones import attention_specs, build_model
from eca_lab.networks.checkpoints import (
    checkpoint_name,
    find_checkpoint,
    load_checkpoint,
    load_released_checkpoint,
    save_checkpoint,
)
from eca_lab.recipe import Recipe
from eca_lab.training import train
from eca_lab.training.train import train_network, trial_description

FOLDER = Path(__file__).parents[2] / "data" / "checkpoints"
QUICK = Recipe(epochs=1, batch_size=16, learning_rate=0.05)
PATHS = sorted(FOLDER.glob("*.safetensors"))
OF_STUDY = "cifar10-jpeg7532"
OF_SHAPES = [path for path in PATHS if path.name.startswith("shapes")]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def released_state(backbone, sizes, num_classes=10):
    """A state dict with the names of the authors' release, and the model that it describes."""
    spec = f"eca(k={'-'.join(map(str, sizes))})"
    model = build_model(backbone, spec, num_classes=num_classes).eval()
    state = {}
    for name, value in model.state_dict().items():
        if backbone == "mobilenet_v2" and ".attention." in name:
            block = model.get_submodule(name.split(".attention")[0])
            name = name.replace("attention.conv", f"conv.{len(block.conv)}.conv")
        state[name.replace(".attention.", ".eca.")] = value
    return state, model


@pytest.mark.parametrize(
    ("network", "prefix", "wrapped"),
    [("resnet18", "", True), ("resnet50", "module.", True), ("mobilenet_v2", "module.", False)],
)
def test_released_checkpoints_load(tmp_path, network, prefix, wrapped):
    state, model = released_state(network, released_kernel_sizes(network))
    names = {"resnet18": "layer1.0.eca.conv.weight", "resnet50": "layer4.2.eca.conv.weight"}
    assert names.get(network, "features.2.conv.4.conv.weight") in state
    state = {prefix + name: value for name, value in state.items()}
    path = tmp_path / "eca.pth.tar"
    torch.save({"epoch": 100, "state_dict": state} if wrapped else state, path)
    loaded = load_released_checkpoint(path, network)
    assert not loaded.training
    assert attention_specs(loaded) == attention_specs(model)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x), model(x))


def test_released_checkpoints_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "eca.pth"

    def refused(content, *words, backbone="resnet18"):
        torch.save(content, path)
        is_refused(path, *words, backbone=backbone)

    def is_refused(path, *words, backbone="resnet18"):
        with pytest.raises(ValueError, match=path.name) as caught:
            load_released_checkpoint(path, backbone)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message
        assert "weights_only" not in message  # torch's advice to load it unsafely
        assert len(message) < 1000

    state, _ = released_state("resnet18", (3, 5, 7, 7))
    released = "layer1.0.eca.conv.weight"
    refused({name: value for name, value in state.items() if ".eca." not in name}, released)
    lacking = {name: value for name, value in state.items() if name != "layer1.1.conv1.weight"}
    refused(lacking, "layer1.1.conv1.weight")
    refused({**state, "surplus.weight": torch.ones(1)}, "surplus.weight")
    refused({**state, "conv1.weight": torch.ones(1)}, "conv1.weight")
    refused({**state, released: torch.ones(3)}, "layer1.0.attention.conv.weight")
    refused({**state, released: torch.ones(1, 1, 4)}, "kernel_size=4: accepted are odd")
    refused(state, "layer1.2.eca.conv.weight", backbone="resnet50")
    refused(state, "classifier.1.bias", backbone="mobilenet_v2")
    refused({**state, "args": torch.nn.Linear(2, 2)}, "not a file of tensors alone")
    for content in ({**state, 7: torch.ones(1)}, {"state_dict": [1, 2]}, [state], 3.5, {}):
        refused(content, "does not fit resnet18")
    path.write_bytes(b"<html>not found</html>")
    is_refused(path, "not a file of tensors alone")
    with pytest.raises(FileNotFoundError):
        load_released_checkpoint(tmp_path / "none.pth", "resnet18")


@pytest.mark.parametrize("holder", ["state_dict", "model_state_dict", "model", "net", None])
@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "net.", ""])
def test_what_training_scripts_put_around_a_state_dict(tmp_path, holder, prefix):
    state, model = released_state("resnet18", (3, 5, 7, 7))
    state = {prefix + name: value for name, value in state.items()}
    path = tmp_path / "eca.pth"
    torch.save({"epoch": 3, "optimizer": {"state": {}}, holder: state} if holder else state, path)
    loaded = load_released_checkpoint(path, "resnet18")
    assert attention_specs(loaded) == attention_specs(model)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_a_checkpoint_without_a_network_is_told_by_its_first_keys(tmp_path):
    path = tmp_path / "eca.pth"
    torch.save({f"encoder.{number}.weight": torch.ones(1) for number in range(50)}, path)
    with pytest.raises(ValueError, match=r"there is no fc\.bias; the first keys are") as error:
        load_released_checkpoint(path, "resnet18")
    assert "'encoder.0.weight', 'encoder.1.weight', 'encoder.2.weight'" in str(error.value)
    assert len(str(error.value)) < 400
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="the first keys are none"):
        load_released_checkpoint(path, "resnet18")
    endless = {}
    endless["model"] = endless
    torch.save(endless, path)
    with pytest.raises(ValueError, match="the first keys are 'model'"):
        load_released_checkpoint(path, "resnet18")


@pytest.mark.parametrize("zipped", [True, False])  # the authors' are of torch before 1.6
def test_what_is_no_tensor_is_named(tmp_path, zipped):
    state, _ = released_state("resnet18", (3, 5, 7, 7))
    path = tmp_path / "eca.pth.tar"
    content = {"state_dict": state, "best_prec1": np.float64(78.9)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"not a file of tensors alone .*multiarray\.scalar") as e:
        load_released_checkpoint(path, "resnet18")
    assert "save the weights alone: torch.save(model.state_dict(), path)" in str(e.value)
    assert "weights_only" not in str(e.value)


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
    model = build_model("tiny", arm, num_classes=3, stem="cifar")
    for each in model.buffers():  # no longer what a new model has
        each.copy_(each.flip(0) if each.dim() else each + 7)
    save_checkpoint(path, model, card=card_of(model, arm))
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


def test_a_file_depends_on_the_weights_alone_and_is_kept(tmp_path):
    model = build_model("tiny", "eca", num_classes=3, stem="cifar")
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(path, model, card=card_of(model, "eca"))
    with pytest.raises(FileExistsError, match=r"a\.safetensors has a card already"):
        save_checkpoint(
            path,
            build_model("tiny", "eca", num_classes=3, stem="cifar"),
            card=card_of(model, "eca"),
        )
    save_checkpoint(other, model.to(memory_format=torch.channels_last), card=card_of(model, "eca"))
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
    refused(
        r"net\.safetensors does not fit its card: .*it has SHA-256 \w+, not 0000", sha256="0" * 64
    )
    refused("has SHA-256", flipped, sha256=card["sha256"])
    refused("does not fit its card", b"not tensors")
    refused("it has attention .*circular.*, not", arm="eca(padding=circular)")
    refused("it has attention .*se.*, not", arm="se")
    refused(
        r"fc\.weight.*\[3, 256\].*\[4, 256\]",
        trial={**card["trial"], "dataset": {"classes": 4}},
    )
    refused("backbone='vgg'", trial={**card["trial"], "backbone": "vgg"})
    refused("does not fit its card: KeyError: 'stem'", trial={
        key: value for key, value in card["trial"].items() if key != "stem"
    })  # fmt: skip
    card_path.write_text("{")
    with pytest.raises(ValueError, match="does not fit its card: JSONDecodeError"):
        load_checkpoint(path)
    card_path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="does not fit its card: RecursionError"):
        load_checkpoint(path)
    card_path.unlink()
    os.mkfifo(card_path)  # whoever opens it waits
    with pytest.raises(ValueError, match="does not fit its card: ValueError: it is no regular"):
        load_checkpoint(path)
    card_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.json"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_a_network_is_found_by_what_was_trained(tmp_path):
    names = {
        "shapes32-tiny-eca-seed0-00000000",
        "shapes32-tiny-eca-seed1-00000001",
        "shapes32-tiny-eca-seed1-00000002",
        "shapes32-tiny-eca-seed10-00000003",
        "shapes32-tiny-eca_k_3-seed0-00000004",
        "shapes24-resnet10-eca-seed0-00000005",
    }
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
        (tmp_path / f"{name}.json").touch()

    def found(arm, seed, **where):
        return int(find_checkpoint(tmp_path, arm, seed=seed, **where).stem[-8:])

    assert found("eca", 0) == 0
    assert found("eca()", 10) == 3
    assert found("eca(k=3)", 0) == 4
    assert found("eca", 0, dataset="shapes24", backbone="resnet10") == 5
    with pytest.raises(FileNotFoundError, match=r"no network shapes32-tiny-se-seed0-\*\.safetens"):
        found("se", 0)
    with pytest.raises(ValueError, match=r"2 networks, load one by its path: .*00000001.*00000002"):
        found("eca", 1)


def test_a_folder_of_networks_that_cannot_be_listed(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", denied)
    with pytest.raises(PermissionError):  # rather than that there is no such network
        find_checkpoint(tmp_path, "eca", seed=0)


# The networks that come with the package.


def test_they_are_there_and_small():
    cards = {path: load_checkpoint(path)[1] for path in PATHS}
    arms = {cards[path]["arm"] for path in OF_SHAPES}
    assert arms == {"se", "eca"}
    # Of each arm as many seeds as the study keeps, of the first on.
    setting = load_study("photographs").settings["cifar10"]
    kept = sorted((cards[p]["arm"], cards[p]["trial"]["seed"]) for p in PATHS if p not in OF_SHAPES)
    arms = {arm for arm, _ in kept}
    assert kept == [(arm, seed) for arm in sorted(arms) for seed in range(setting.keep)]
    assert {"none", "se", "eca", "eca(k=3)", "eca(order=shuffled)"} <= arms
    assert arms <= {*setting.arms, "eca(order=shuffled)"}
    for path, card in cards.items():
        assert checkpoint_name(card["trial"], card["arm"]) == path.name
    assert {path.stem for path in PATHS} == {path.stem for path in FOLDER.glob("*.json")}
    assert find_checkpoint(FOLDER, "eca", seed=2) in PATHS
    recordings = FOLDER.with_name("recordings")
    for path, card in cards.items():
        if card["arm"] != "none" and card["trial"]["dataset"]["size"] == 32:
            made = load_recording(recordings / path.name, card)
            assert len(made.labels) == (300 if path in OF_SHAPES else 1000)
    of_photographs = [*FOLDER.glob("cifar10*"), *recordings.glob("cifar10*")]
    assert sum(path.stat().st_size for path in of_photographs) < 1.34e6 * len(kept)


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


@pytest.mark.parametrize("path", sorted(set(PATHS) - set(OF_SHAPES)), ids=lambda path: path.stem)
def test_networks_of_a_study_are_those_of_its_trials(path):
    card = load_checkpoint(path)[1]
    records = load_records(FOLDER.parent / "results" / "photographs")
    if card["arm"] == "eca(order=shuffled)":  # trained beside the study, as its arms are
        twin = load_checkpoint(
            find_checkpoint(FOLDER, "eca", seed=card["trial"]["seed"], dataset=OF_STUDY)
        )[1]
        own = "attention", "parameters"
        trials = ({k: v for k, v in each["trial"].items() if k not in own} for each in (card, twin))
        assert len({str(trial) for trial in trials}) == 1
        assert run_of(card) == run_of(twin)
        return
    record = records[trial_identity(card["trial"])]
    for name in ("arm", "trial", "top1", "correct", "loss_curve", "code"):
        assert card[name] == record[name]
    # Of the device more is known by now.
    assert run_of(record)[0].startswith(run_of(card)[0])
    assert run_of(record)[1:] == run_of(card)[1:]


@pytest.mark.parametrize("path", OF_SHAPES, ids=lambda path: path.stem)
def test_a_trained_network_does_what_its_card_says(path, shapes):
    model, card = load_checkpoint(path)
    trial = card["trial"]
    if trial["dataset"]["classes"] < 10:
        shapes = load_dataset("shapes", classes=card["classes"], size=trial["dataset"]["size"])
    assert card["classes"] == list(shapes.classes)
    recipe = Recipe(**trial["recipe"])
    described = trial_description(
        shapes, trial["backbone"], card["arm"], seed=trial["seed"], recipe=recipe
    )
    assert described == trial
    # 200 images, since all would take a second and a half for each network. Other processors
    # round otherwise, which may turn an image that is on the brink.
    recorded = unpack_correct(card)
    assert 100 * recorded.mean() == pytest.approx(card["top1"], abs=1e-3)
    with torch.no_grad():
        predicted = model(input_transform(shapes)(shapes.test_images[:200])).argmax(1)
    right = (predicted == shapes.test_labels[:200]).numpy()
    assert (right == recorded[:200]).mean() >= 0.99


def test_a_training_begins_as_its_card_says(monkeypatch):
    _, card = load_checkpoint(find_checkpoint(FOLDER, "eca", seed=0, dataset="shapes24"))
    dataset = load_dataset("shapes", classes=card["classes"], size=24)
    dataset = replace(dataset, test_images=dataset.test_images[:1])
    losses, genuine = [], train.F.cross_entropy

    def spy(*arguments, **keywords):
        losses.append(genuine(*arguments, **keywords))
        return losses[-1]

    def after_two_epochs():
        if len(losses) == 2 * (1000 // 32):
            raise InterruptedError

    monkeypatch.setattr(train.F, "cross_entropy", spy)
    recipe = Recipe(**card["trial"]["recipe"])
    with pytest.raises(InterruptedError):
        train_network(
            dataset, "tiny", card["arm"], seed=0, recipe=recipe, on_epoch=after_two_epochs
        )
    first, second = torch.stack(losses).detach().view(2, -1).mean(1).tolist()
    # Equal on equal machines. Elsewhere rounding differs, and the training drifts apart.
    assert first == pytest.approx(card["loss_curve"][0], rel=0.03)
    assert second == pytest.approx(card["loss_curve"][1], rel=0.1)
