"""That the training benchmarks run and compute what they print; what they measure is not tested."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from eca_lab.data.augmentation import channel_statistics, normalize
from eca_lab.training.train import check_device

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import cpu_layouts
import mapped_images
import train_throughput

QUICK = ["--size", "8", "--batch-size", "4", "--steps", "2", "--repeats", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def threads():
    """The benchmarks set the number of threads of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_three_loops_are_compared(capsys, tmp_path):
    table = tmp_path / "rates.csv"
    options = [*QUICK, "--loader-workers", "1", "--precision", "bfloat16", "--modules"]
    options += ["--csv", str(table)]
    assert train_throughput.main(options) == 0
    printed = capsys.readouterr().out
    assert "tiny with eca, 8 x 8 pixels, epochs of 2 batches of 4" in printed
    assert f"torch {torch.__version__.split('+')[0]}" in printed
    rows = {line[:33].strip(): line[33:] for line in printed.splitlines() if line.endswith(")")}
    ours, *theirs = rows
    assert ours == "eca_lab, bfloat16, modules"
    assert rows[ours].endswith("1.00 (1.00 to 1.00)")
    assert theirs == [
        f"{loop}, {precision}"
        for precision in ("bfloat16", "float32")
        for loop in ("DataLoader, torchvision", "timm")
    ]
    rates = pd.read_csv(table)
    assert list(rates.columns) == list(rows)
    assert rates.shape == (2, 5)
    assert (rates > 0).all(axis=None)


@pytest.mark.parametrize("loop", [train_throughput.plain_rate, train_throughput.timm_rate])
def test_the_other_loops_train_on_the_same_images(monkeypatch, loop):
    seen = []

    def spy(*arguments, **keywords):
        model = initial_model(*arguments, **keywords)
        model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        return model

    initial_model = train_throughput.initial_model
    monkeypatch.setattr(train_throughput, "initial_model", spy)
    monkeypatch.setattr(train_throughput, "_augmentation", lambda size: [])
    dataset = train_throughput.random_dataset(12, size=8)
    recipe = train_throughput.one_epoch(batch_size=4)
    options = {"recipe": recipe, "device": check_device("cpu"), "precision": "float32"}
    assert loop(dataset, "tiny", workers=0, **options)() > 0
    assert [len(batch) for batch in seen] == [4, 4, 4]
    images = dataset.train_images
    expected = normalize(images, *channel_statistics(images))

    def in_order(batch):
        return batch[batch[:, 0, 0, 0].argsort()]

    # ToTensor divides by 255 before, normalize works on 0..255: equal but for rounding.
    assert len(images[:, 0, 0, 0].unique()) == len(images)
    assert torch.allclose(in_order(torch.cat(seen)), in_order(expected), atol=1e-5)


def test_one_round_is_for_nothing_and_then_they_take_turns():
    calls = []

    def function(name):
        def call():
            calls.append(name)
            return len(calls)

        return call

    results = train_throughput.take_turns({"a": function("a"), "b": function("b")}, repeats=2)
    assert "".join(calls) == "ababab"
    assert results == {"a": [3, 5], "b": [4, 6]}


def test_ratios_are_those_of_each_repeat(capsys):
    train_throughput.print_rates({"ours": [1000, 1200, 1100], "b": [500, 400, 550]})
    *_, row, note = capsys.readouterr().out.splitlines()
    assert row.split(maxsplit=1)[1].strip().startswith("500 (400 to 550)")
    assert row.endswith("2.00 (2.00 to 3.00)")
    assert note == "medians (lowest to highest) of 3 repeats"


def test_cpu_layouts_change_the_layout_and_nothing_else(monkeypatch):
    layouts = []

    def spy(*arguments, **keywords):
        layouts.append(torch.channels_last)
        return None, {"images_per_second": 1.0}

    class Gate:
        def wait(self):
            pass

    channels_last = torch.channels_last
    monkeypatch.setattr(cpu_layouts, "_gate", Gate())
    monkeypatch.setattr(cpu_layouts, "train_network", spy)
    for layout in ("channels_last", "contiguous_format"):
        assert cpu_layouts._trial(layout, "tiny", 8, 4, 1) == 1.0
    assert layouts == [torch.channels_last, torch.contiguous_format]
    assert torch.channels_last is channels_last


@pytest.mark.parametrize("main", [train_throughput.main, cpu_layouts.main, mapped_images.main])
@pytest.mark.parametrize(
    ("option", "value"), [("steps", "0"), ("repeats", "-1"), ("threads", "0"), ("batch-size", "0")]
)
def test_bad_input_gives_one_line(capsys, main, option, value):
    assert main([*QUICK, f"--{option}", value]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {option.replace('-', '_')}={value}")
    assert len(output.err.splitlines()) == 1


def test_mapped_images_are_those_in_memory(tmp_path, capsys):
    whole = train_throughput.random_dataset(12, size=8)
    mapped = mapped_images.mapped_dataset(whole, tmp_path / "x.images")
    assert mapped.file_of(mapped.train_images)
    assert torch.equal(mapped.train_images, whole.train_images)
    assert mapped_images.main(QUICK) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith(")")]
    assert [row.split("  ")[0] for row in rows] == ["in memory", "mapped"] * 2
