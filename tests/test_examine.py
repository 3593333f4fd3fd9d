"""That a report on a network says what its parts compute, by the command and by the function."""

import json

import pandas as pd
import pytest
import safetensors.numpy
import timm
import torch
from bs4 import BeautifulSoup

from eca_lab.__main__ import main
from eca_lab.data.augmentation import normalize
from eca_lab.looking.probe import record_weights
from eca_lab.looking.ranking import rank_attention
from eca_lab.looking.table import attention_table
from eca_lab.networks.named import IMAGENET

SEEN = ["examine", "--data", "shapes", "--per-class", "2", "--device", "cpu"]


def prepare(images):
    return normalize(images, *map(torch.tensor, IMAGENET))


@pytest.fixture(scope="module")
def shapes():
    from eca_lab.data import load_dataset

    return load_dataset("shapes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "lcnet.pth"
    torch.save(timm.create_model("lcnet_035", num_classes=10).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory, weights):
    out = tmp_path_factory.mktemp("report") / "new"
    command = [*SEEN, "timm:lcnet_035", "--size", "32", "--weights", str(weights)]
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_the_folder_has_what_its_parts_compute(report, weights, shapes):
    model = timm.create_model("lcnet_035", num_classes=10)
    model.load_state_dict(torch.load(weights, weights_only=True))
    order = [torch.where(shapes.test_labels == label)[0][:2] for label in range(10)]
    chosen = torch.stack(order, 1).flatten()
    images, labels = shapes.test_images[chosen], shapes.test_labels[chosen]
    table = attention_table(model, images[:8], prepare=prepare).table
    found = pd.read_csv(report / "attention.csv", index_col="site")
    assert [*found["parameters"]] == [*table["parameters"]]
    seen = safetensors.numpy.load_file(report / "weights.safetensors")
    assert (seen.pop("labels") == labels.numpy()).all()
    for site, expected in record_weights(model, images, prepare=prepare).weights.items():
        assert abs(seen[site] - expected).max() < 1e-6
    ranking = rank_attention(model, images, labels, prepare=prepare)
    pd.testing.assert_frame_equal(pd.read_csv(report / "layers.csv", index_col=0), ranking.layers)
    constants = safetensors.numpy.load_file(report / "constants.safetensors")
    assert constants.keys() == ranking.constants.keys() == {*table.index}


def test_the_page_says_it(report):
    page = BeautifulSoup((report / "index.html").read_text(), "html.parser")
    assert page.h1.get_text() == "The channel attention of timm:lcnet_035"
    heads = [head.get_text() for head in page("h2")]
    assert heads == [
        "How it was made",
        "Where its attention is, and which k it has",
        "What each is worth",
        "What can be taken out",
    ]
    facts = dict(
        zip(*([each.get_text() for each in page(kind)] for kind in ("dt", "dd")), strict=True)
    )
    assert facts["images"] == "20 of 32 x 32 pixels"
    assert facts["data"] == "shapes, 10 classes, test images"
    assert facts["weights"].endswith("lcnet.pth")
    assert "SqueezeExcite" in page.find("table").get_text()
    assert json.loads(page.find(id="told").string.replace("\\u003c", "<"))
    assert "http" not in {str(link.get("src"))[:4] for link in page(["script", "img", "link"])}


def test_random_weights_are_said_to_be(tmp_path, capsys):
    assert main([*SEEN, "timm:lcnet_035", "--size", "32", "--out", str(tmp_path)]) == 0
    assert "index.html is the page to read" in capsys.readouterr().out
    assert (
        "random: its accuracy and its costs mean nothing" in (tmp_path / "index.html").read_text()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["resnet"], "model='resnet': accepted is timm:NAME"),
        (["timm:nothing"], "timm has none of that name"),
        (["timm:resnet18", "--size", "32"], "no channel attention that could be found"),
        (["timm:seresnet18", "--size", "32", "--weights", "no.pth"], "no.pth"),
        (["timm:seresnet18", "--size", "32", "--per-class", "100000"], "per_class=100000"),
        (["timm:seresnet18", "--out", ""], "out='': accepted is the path of a folder"),
    ],
)
def test_what_is_refused_writes_nothing(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SEEN, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
