"""A network as data, and that the page computes of it what torch computes."""

import base64
import copy
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from in_browser import ROOT, needs_browser
from torch import nn

from eca_lab.attention.modules import make_attention
from eca_lab.data import load_dataset
from eca_lab.data.augmentation import channel_statistics, input_transform
from eca_lab.explorers.network import MOST_MULTIPLY_ADDS, MOST_WEIGHTS, describe
from eca_lab.looking import probe
from eca_lab.networks.backbones import build_model
from eca_lab.networks.checkpoints import find_checkpoint, load_checkpoint

ENGINE = Path(ROOT, "eca_lab", "explorers", "network.js")
STATISTICS = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="found no node")
TRAINED = [("eca", 0), ("eca", 1), ("se", 0), ("se", 1)]  # those of notebook 02

# Of a described network and the images (N, H, W, 3): logits, and what `look` finds of the first.
RUN = """(engine, description, bytes, layer, factors) => {
    const {load, forward, look} = engine();
    const network = load(description), each = 3 * description.size[0] * description.size[1];
    const images = Array.from({length: bytes.length / each},
        (_, n) => bytes.subarray(n * each, n * each + each));
    const logits = images.map(image => [...forward(network, image)]);
    if (!layer) return {logits};
    const seen = look(network, images[0], layer, factors);
    const fresh = forward(load(description), images[0], {[layer]: factors});
    const {weights, means} = seen.attention[layer];
    return {logits, plain: [...seen.plain], changed: [...seen.changed], maps: [...seen.maps],
        size: seen.size, weights: [...weights], means: [...means], fresh: [...fresh]};
}"""
# The same in node, of what stands in the standard input.
SCRIPT = f"""
import {{ readFileSync }} from "node:fs";
import {{ engine }} from {json.dumps(ENGINE.as_uri())};
const bytes = text => new Uint8Array(Buffer.from(text, "base64"));
const given = JSON.parse(readFileSync(0));
given.description.weights = bytes(given.description.weights);
const run = {RUN};
console.log(JSON.stringify(
    run(engine, given.description, bytes(given.images), given.layer, given.factors)));
"""


def coded(data):
    return base64.b64encode(data).decode()


def given_to_page(description, images, layer=None, factors=None):
    told = {**description, "weights": coded(description["weights"])}
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    return {"description": told, "images": coded(pixels), "layer": layer, "factors": factors}


def in_node(description, images, layer=None, factors=None):
    """What network.js computes of images (N, 3, H, W)."""
    given = json.dumps(given_to_page(description, images, layer, factors))
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", SCRIPT], input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
def rounded(model):
    """A copy of a model that computes in float64, with the weights that are written down."""
    model = copy.deepcopy(model).double()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for conv, bn in zip(convs, norms, strict=True):
        # What the two give for zeros and for units is the one that they are.
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        bias = bn.bias - bn.running_mean * scale
        conv.weight.mul_(scale[:, None, None, None])
        bn.weight.fill_(1)
        bn.bias.copy_(bias)
        bn.running_mean.zero_()
        bn.running_var.fill_(1 - bn.eps)
    for weights in model.parameters():  # torch would round to float32 on the way
        weights.copy_(torch.from_numpy(weights.numpy().astype("f2")))
    return model


def logits(model, images, prepare):
    with torch.inference_mode():
        return model(prepare(images).double()).numpy()


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes")


@needs_node
@pytest.mark.parametrize(("arm", "seed"), TRAINED)
def test_trained_networks_predict_in_node_what_they_predict_in_torch(shapes, arm, seed):
    path = find_checkpoint(ROOT / "data/checkpoints", arm, seed=seed, dataset="shapes32")
    model, _ = load_checkpoint(path)
    description = describe(model, channel_statistics(shapes.train_images), size=(32, 32))
    assert len(description["weights"]) < 440_000
    images = shapes.test_images
    prepare = input_transform(shapes)
    expected = logits(rounded(model), images, prepare)
    found = np.array(in_node(description, images)["logits"])
    print(arm, seed, abs(found - expected).max())
    assert abs(found - expected).max() < 1e-4
    assert (found.argmax(1) == expected.argmax(1)).all()
