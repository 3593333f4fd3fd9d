import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from eca_lab.__main__ import main
from eca_lab.data.augmentation import input_transform
from eca_lab.looking import measures, probe
from eca_lab.looking.ranking import load_ranking
from eca_lab.looking.recording import (
    ORDERS,
    UNTOUCHED,
    in_turns,
    interventions,
    load_recording,
    record,
    save_recording,
)
from eca_lab.networks.backbones import build_model
from eca_lab.networks.checkpoints import load_checkpoint
from eca_lab.recipe import Recipe
from eca_lab.training.keeping import train_checkpoints
from eca_lab.training.planning import plan_sweep

LAYERS = ["layer1.attention", "layer2.attention", "layer3.0.attention", "layer3.1.attention"]


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """The folder of three trained networks, one of them without attention."""
    out = tmp_path_factory.mktemp("checkpoints")
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
    arms = ["none", "se", "eca(order=shuffled)"]
    train_checkpoints(plan_sweep(dataset, "tiny", arms, seeds=1, recipe=recipe), out)
    return out


@pytest.fixture(scope="module", params=["se-", "shuffled"])
def network(request, trained):
    return load_checkpoint(next(trained.glob(f"*{request.param}*.safetensors")))


def test_classes_take_turns():
    labels = torch.tensor([2, 0, 0, 1, 1, 2, 0, 1, 2])
    assert in_turns(labels, 2).tolist() == [1, 3, 0, 2, 4, 5]
    assert labels[in_turns(labels, 3)].tolist() == [0, 1, 2] * 3
    for asked in (1, 4):
        with pytest.raises(ValueError, match=f"per_class={asked}: accepted is an integer from 2"):
            in_turns(labels, asked)


def test_what_is_recorded_is_what_the_network_does(network, dataset):
    model, _ = network
    made = record(model, dataset, per_class=10)
    chosen = in_turns(dataset.test_labels, 10)
    assert np.array_equal(made.labels, dataset.test_labels[chosen])
    images, prepare = dataset.test_images[chosen], input_transform(dataset)
    expected = probe.record_weights(model, images, prepare=prepare, descriptors=True)
    assert list(made.weights) == list(made.neighbours) == LAYERS
    with torch.inference_mode():
        plain = model(prepare(images)).argmax(1).numpy() == made.labels
    assert np.array_equal(made.right[UNTOUCHED], plain)
    assert made.moved(*UNTOUCHED) == 0
    for layer, weights in expected.weights.items():
        np.testing.assert_array_equal(made.weights[layer], weights)
        with torch.inference_mode(), probe.intervene(model, layer, probe.off):
            off = model(prepare(images)).argmax(1).numpy() == made.labels
        assert np.array_equal(made.right[layer, "off"], off)
        assert made.moved(layer, "off") == pytest.approx(100 * (off.mean() - plain.mean()))
    # Twenty images in two classes fit in one batch, so a swap is a roll of all of them.
    layer = LAYERS[-1]
    with torch.inference_mode():
        for name, shift in (("other class", 1), ("same class", 2)):
            given = torch.from_numpy(expected.weights[layer]).roll(shift, 0)
            with probe.intervene(model, layer, lambda _, given=given: given):
                swapped = model(prepare(images)).argmax(1).numpy() == made.labels
            assert np.array_equal(made.right[layer, name], swapped)
    module, values = model.layer2.attention, expected.descriptors["layer2.attention"]
    values = values[:, getattr(module, "permutation", slice(None))]
    # Of 64 channels the adaptive kernel size is 3, which SE is measured with, too.
    assert made.neighbours["layer2.attention"] == measures.neighbour_correlation(
        values, 1, orders=2999
    )


def test_a_weight_that_follows_the_channel_s_own_mean(dataset):
    # With k = 1 the weight is a rising, or falling, function of the channel's own mean alone.
    model = build_model("tiny", "eca(k=1)", num_classes=2, stem="cifar").eval()
    for layer, sign in zip(LAYERS, (1, -1, 1, -1), strict=True):
        torch.nn.init.constant_(model.get_submodule(layer).conv.weight, 0.5 * sign)
    made = record(model, dataset, per_class=10)
    assert list(made.follows.values()) == pytest.approx([1, -1, 1, -1], abs=0.02)


def test_names_mean_nothing_to_se_alone(network, dataset):
    model, card = network
    made = record(model, dataset, per_class=10)
    assert set(made.right) == {
        UNTOUCHED,
        *ORDERS,
        *((layer, name) for layer in LAYERS for name in interventions(made.weights[layer], 2)),
    }
    if card["arm"] == "se":
        assert all(np.array_equal(made.right[each], made.right[UNTOUCHED]) for each in ORDERS)


def test_swaps_stay_in_their_class_over_all_batches(dataset, monkeypatch):
    # 400 images in batches of 250: whoever gives its weights away has the class it should have.
    many = {"test_images": dataset.test_images.repeat(20, 1, 1, 1)}
    many["test_labels"] = dataset.test_labels.repeat(20)
    many = type(dataset)(**{**vars(dataset), **many})
    given, real = {1: [], 2: []}, probe.swap

    def swap(shift):
        def change(weights):
            place = torch.arange(len(weights), dtype=weights.dtype)[:, None]
            given[shift].append(real(shift)(place).flatten())
            return weights

        return change

    monkeypatch.setattr(probe, "swap", swap)
    record(build_model("tiny", "eca", num_classes=2, stem="cifar").eval(), many, per_class=200)
    assert {len(each) for each in given[1]} == {250, 150}
    for shift, places in given.items():
        classes = [((each - torch.arange(len(each))) % 2).unique().tolist() for each in places]
        assert classes == [[1 if shift == 1 else 0]] * 8  # two batches in each of four layers


def test_a_file_gives_back_what_was_recorded(network, dataset, tmp_path):
    model, card = network
    made, path = record(model, dataset, per_class=10), tmp_path / "network.safetensors"
    save_recording(path, made, card)
    found = load_recording(path, card)
    assert np.array_equal(found.labels, made.labels)
    assert found.right.keys() == made.right.keys()
    assert all(np.array_equal(found.right[key], made.right[key]) for key in made.right)
    assert found.neighbours == made.neighbours
    assert found.follows == made.follows
    for layer, weights in made.weights.items():
        assert np.abs(found.weights[layer] - weights).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="is no recording of this network: it is of weights with"):
        load_recording(path, {**card, "sha256": "0" * 64})
    with pytest.raises(FileNotFoundError):
        load_recording(tmp_path / "other.safetensors", card)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no recording of this network"):
        load_recording(path, card)
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits
    with pytest.raises(ValueError, match="is no recording of this network: it is no regular"):
        load_recording(path, card)


def test_the_command_records_what_was_trained_on_the_data(
    trained, dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("eca_lab.data.load_dataset", lambda name, size: dataset)
    command = ["record", "--per-class", "4", "--checkpoints", str(trained), "--out", str(tmp_path)]
    assert main(command) == 0
    assert "2 of 3 networks recorded" in capsys.readouterr().out
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {each.name for each in trained.iterdir() if "none" not in each.name}
    for path in tmp_path.glob("*.json"):
        card = json.loads((trained / path.name).read_text())
        assert len(load_ranking(path, card).sets) == 4
    before = {each: each.stat().st_mtime_ns for each in tmp_path.iterdir()}
    assert main(command) == 0
    assert "0 of 3 networks recorded" in capsys.readouterr().out
    assert before == {each: each.stat().st_mtime_ns for each in tmp_path.iterdir()}
    other = type(dataset)(**{**vars(dataset), "fingerprint": "1" * 64})
    monkeypatch.setattr("eca_lab.data.load_dataset", lambda name, size: other)
    assert main(command) == 2
    assert "no network was trained on colours of this size" in capsys.readouterr().err


@pytest.fixture
def _few_orders(monkeypatch):
    """What takes the most time is no matter here."""
    told = measures.NeighbourCorrelation(0.5, 0.5, 0.4, 0.6, 1.0)
    monkeypatch.setattr(measures, "neighbour_correlation", lambda *_, **__: told)


@pytest.mark.usefixtures("_few_orders")
def test_recordings_that_do_not_fit_are_not_kept_in_silence(
    trained, dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("eca_lab.data.load_dataset", lambda name, size: dataset)
    command = ["record", "--per-class", "4", "--checkpoints", str(trained), "--out", str(tmp_path)]
    assert main(command) == 0
    first, second = sorted(tmp_path.glob("*.safetensors"))
    kept = second.read_bytes()
    first.write_bytes(kept)  # of the other network
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{first} is no recording of this network: it is of weights with SHA-256" in error
    assert "remove it to record the network again" in error
    first.write_bytes(b"")
    assert main(command) == 2
    assert first.read_bytes() == b""
    first.unlink()
    assert main([*command[:2], "5", *command[3:]]) == 2
    assert f"{second} is of 8 images, asked for are 10; remove it" in capsys.readouterr().err
    assert main(command) == 0
    assert "1 of 3 networks recorded" in capsys.readouterr().out
    assert second.read_bytes() == kept
    ranked, other = sorted(tmp_path.glob("*.json"))
    text = ranked.read_text()
    ranked.write_text(other.read_text())
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{ranked} is no ranking of this network: it is of weights with SHA-256" in error
    assert "remove it to rank the network again" in error
    ranked.unlink()
    assert main(command) == 0
    again, before = json.loads(ranked.read_text()), json.loads(text)
    assert {**again, "ended": None} == {**before, "ended": None}


@pytest.mark.usefixtures("_few_orders")
def test_other_people_s_files_among_the_networks_are_left_out(
    trained, dataset, tmp_path, monkeypatch, capsys
):
    networks = tmp_path / "networks"
    shutil.copytree(trained, networks)
    (networks / "a_foreign.safetensors").write_bytes(safetensors.torch.save({}))
    (networks / "b_foreign.safetensors").write_bytes(b"nonsense")
    (networks / "b_foreign.json").write_text('{"trial": {}}')
    card = next(networks.glob("*none*.json"))
    without = json.loads(card.read_text())
    del without["trial"]["dataset"]["fingerprint"]
    card.write_text(json.dumps(without))
    monkeypatch.setattr("eca_lab.data.load_dataset", lambda name, size: dataset)
    command = ["record", "--per-class", "4", "--checkpoints", str(networks)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "2 of 2 networks recorded" in printed.out
    for name, why in (("a_foreign", "No such file"), ("b_foreign", "does not fit its card")):
        assert f"warning: {networks / name}.safetensors is left out: " in printed.err
        assert why in printed.err
