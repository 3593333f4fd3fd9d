import os
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eca_lab.data import load_dataset
from eca_lab.data.dataset import TENSORS, Dataset
from eca_lab.recipe import Recipe
from eca_lab.training import placing, sweep
from eca_lab.training.placing import fits, place, placement, room, taken
from eca_lab.training.planning import plan_sweep
from eca_lab.training.sweep import Sweep
from eca_lab.training.train import train_network

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
QUICK = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
GIB = 2**30


@pytest.fixture
def mapped(dataset, tmp_path):
    """The data set of the tests as a folder, and mapped from its cache."""
    for split in ("train", "test"):
        images, labels = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            path = tmp_path / "colours" / split / dataset.classes[label] / f"{number:02}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return load_dataset(f"folder:{tmp_path / 'colours'}", root=tmp_path / "cache")


def _in_memory(dataset):
    return replace(dataset, files=(), **{name: getattr(dataset, name).clone() for name in TENSORS})


def _outcome(dataset, **options):
    _, outcome = train_network(dataset, "tiny", "eca", seed=0, recipe=QUICK, **options)
    return [outcome[name] for name in ("loss_curve", "attention_norms", "correct")]


def test_a_trial_is_the_same_to_the_bit_from_a_file_and_from_memory(mapped):
    assert mapped.files
    assert _outcome(mapped) == _outcome(_in_memory(mapped))


@pytest.mark.gpu
def test_a_trial_is_the_same_to_the_bit_from_the_host_and_on_the_device(mapped, monkeypatch):
    resident = _outcome(mapped, device="cuda")
    monkeypatch.setattr(placing, "IMAGE_SHARE", 0)
    assert not place(mapped, torch.device("cuda")).train_images.is_cuda
    assert _outcome(mapped, device="cuda") == resident
    assert _outcome(_in_memory(mapped), device="cuda") == resident


@pytest.mark.gpu
def test_batches_from_the_host_are_moved_whole(mapped, monkeypatch):
    monkeypatch.setattr(placing, "IMAGE_SHARE", 0)
    placed = place(mapped, torch.device("cuda"))
    order = torch.randperm(64)
    batches = [*taken(placed, "train", order, batch_size=10)]
    assert all(images.is_cuda and labels.is_cuda for images, labels in batches)
    assert torch.equal(
        torch.cat([images.cpu() for images, _ in batches]), mapped.train_images[order]
    )


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(9)), st.integers(1, 9), st.integers(1, 10))
def test_batches_are_those_of_the_indices(order, count, batch_size):
    images = torch.arange(9 * 12, dtype=torch.uint8).view(9, 3, 2, 2)
    indices = torch.tensor(order[:count])
    assert torch.equal(placing._gather(images, indices, pinned=False), images[indices])
    labels = torch.arange(9)
    dataset = Dataset("x", images, labels, images[:1], labels[:1], (), "")
    found = [*taken(dataset, "train", indices, batch_size=batch_size)]
    assert torch.equal(torch.cat([batch for batch, _ in found]), images[indices])
    assert torch.cat([batch for _, batch in found]).tolist() == order[:count]
    assert {len(batch) for batch, _ in found[:-1]} <= {batch_size}


def test_the_next_batch_is_read_while_one_is_used(mapped, monkeypatch):
    is_read = [threading.Event() for _ in range(5)]
    numbers = iter(is_read)

    def gather(images, indices, *, pinned):
        next(numbers).set()
        return images[indices]

    monkeypatch.setattr(placing, "_gather", gather)
    batches = taken(mapped, "train", torch.arange(50), batch_size=10)
    for number in range(5):
        images, _ = next(batches)
        assert torch.equal(images, mapped.train_images[10 * number : 10 * number + 10])
        if number < 4:
            assert is_read[number + 1].wait(60)
        assert not any(event.is_set() for event in is_read[number + 2 :])


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 16 GiB as torch tells of it; a dict of what it tells."""
    told = {"free": 12 * GIB, "whole": 16 * GIB, "reserved": 3 * GIB, "allocated": 1 * GIB}
    told["fraction"] = 1.0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (told["free"], told["whole"]))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: told["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: told["allocated"])
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: told["fraction"])
    return told


def _of_size(dataset, size):
    """The data set, with as many bytes of images, which take none."""
    images = torch.empty((1, 3, 1, size // 3), dtype=torch.uint8, device="meta")
    return replace(dataset, train_images=images, test_images=images[:, :, :, :0])


def test_half_of_what_is_free_on_a_device_is_for_images(dataset, gpu):
    assert room(CUDA) == 7 * GIB
    assert fits(_of_size(dataset, 7 * GIB), CUDA)
    assert not fits(_of_size(dataset, 7 * GIB + 3), CUDA)
    assert room(CUDA, gpu_share=0.25) == 2 * GIB  # of four that share it
    gpu["fraction"] = 0.5  # as a worker has set it
    assert room(CUDA) == 4 * GIB
    gpu["free"], gpu["reserved"] = 0, GIB  # full already
    assert room(CUDA) == 0
    assert not fits(dataset, CUDA)


def test_the_words_for_where_images_are(dataset, mapped, gpu):
    assert placement(dataset, CPU, batch_size=16) == (
        "0.1 MB of images, in memory as a whole in every process that trains"
    )
    assert placement(mapped, CPU, batch_size=16) == (
        "0.1 MB of images, mapped from a file, which all processes share: "
        "0.0 MB are read for each training step, one ahead"
    )
    assert "on cuda:0 as a whole in every" in placement(mapped, CUDA, batch_size=16)
    gpu["free"], gpu["reserved"] = 2**15, GIB
    assert placement(dataset, CUDA, batch_size=64) == (
        "0.1 MB of images, in memory: 0.0 MB are read for each training step, one ahead, "
        "and moved to cuda:0, which has room for 0.0 MB"
    )


def test_what_a_device_refuses_stays_on_the_host(dataset, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Dataset, "to", refuse)
    placed = place(dataset, CPU)
    assert placed.train_images is dataset.train_images
    assert placed.test_labels is dataset.test_labels


def test_a_file_that_is_cut_short_fails_a_trial_and_keeps_the_others(mapped, tmp_path, monkeypatch):
    plan = plan_sweep(mapped, "tiny", ["eca", "none"], seeds=1, recipe=QUICK)
    planned = Sweep(plan, tmp_path / "out")
    path = mapped.files[0].path
    train = type(plan).train

    def cut_short_for_the_second(plan, trial, *arguments, **keywords):
        if str(trial.arm) == "none":
            os.truncate(path, 1000)
        return train(plan, trial, *arguments, **keywords)

    monkeypatch.setattr(type(plan), "train", cut_short_for_the_second)
    failed = planned.run()
    assert [record["arm"] for record in failed] == ["none"]
    assert "OSError" in failed[0]["reason"]
    assert "cut short or changed while it was in use" in failed[0]["reason"]
    assert planned.results()["arm"].tolist() == ["eca"]


def test_a_file_that_was_cut_short_before_the_sweep_stops_it(mapped, tmp_path):
    plan = plan_sweep(mapped, "tiny", ["eca"], seeds=1, recipe=QUICK)
    os.truncate(mapped.files[0].path, 1000)
    with pytest.raises(OSError, match=r"cut short or changed .* start again"):
        Sweep(plan, tmp_path / "out", workers=2).run()


def test_to_ray_go_the_images_themselves(mapped, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def pool(job, address, **_):
        (plan,) = job.args
        assert plan.dataset.files == ()
        assert torch.equal(plan.dataset.train_images, mapped.train_images)
        raise Stop

    monkeypatch.setattr(sweep, "check_ray", lambda _: None)
    monkeypatch.setattr(sweep, "RayPool", pool)
    plan = plan_sweep(mapped, "tiny", ["eca"], seeds=1, recipe=QUICK)
    with pytest.raises(Stop):
        Sweep(plan, tmp_path / "out", ray="auto").run()
