"""`explore`, of models and images as people have them; what its page draws is in test_alone.py."""

from types import SimpleNamespace

import numpy as np
import pasted
import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from eca_lab import explore
from eca_lab.explorers import shown
from eca_lab.explorers.channel_weights import ChannelWeightExplorer, _drawn, _limits
from eca_lab.looking import probe
from eca_lab.networks import passes
from eca_lab.networks.backbones import build_model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny(arm="eca", classes=3):
    return build_model("tiny", arm, num_classes=classes, stem="cifar")


def pictures(count=5, channels=3, side=8):
    return torch.randn(count, channels, side, side)


class Headed(nn.Module):
    """A network of maps with a head of some classes, and what it gives changed by a function."""

    def __init__(self, body, classes=3, give=lambda logits: logits):
        super().__init__()
        self.body = body
        self.head = nn.LazyLinear(classes)
        self.give = give

    def forward(self, x):
        return self.give(self.head(self.body(x).flatten(1)))


def made(model, images):
    """The model, with the sizes of its layers settled by some images."""
    with torch.no_grad():
        model.eval()(images)
    return model.train()


def form(name):
    make, shape, _ = pasted.FORMS[name]
    images = torch.randn(5, *shape)
    return made(Headed(make()), images), images


def gray():
    images = pictures(channels=1)
    return made(Headed(nn.Sequential(nn.Conv2d(1, 12, 3), pasted.SELayer())), images), images


def giving(give):
    return made(Headed(tiny(), give=give), pictures()), pictures()


# What people have: a model and its images, and how many classes the explorer shows.
MODELS = {
    "ours": lambda: (tiny(), pictures(), 3),
    "seresnet18": lambda: (timm.create_model("seresnet18"), pictures(side=64), 1000),
    "half precision": lambda: (tiny().bfloat16(), pictures(), 3),
    "gray": lambda: (*gray(), 3),
    "a dict": lambda: (*giving(lambda out: {"logits": out}), 3),
    "an object": lambda: (*giving(lambda out: SimpleNamespace(logits=out)), 3),
    "a tuple": lambda: (*giving(lambda out: (out, None)), 3),
    **{name: lambda name=name: (*form(name), 3) for name in pasted.FORMS},
}
WITHOUT = {
    "segmentation": (lambda out: out[:, :, None, None], r"a tensor \(5, 3, 1, 1\), and no logits"),
    "one number": (lambda out: out[:, :1], r"a tensor \(5, 1\), and no logits"),
    "a list of boxes": (lambda out: [{"boxes": out}], "a list, and no logits"),
    "text": (lambda _: "nothing", "a str, and no logits"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_answer_is_what_the_probe_measures(name):
    model, images, classes = MODELS[name]()
    modes = [module.training for module in model.modules()]
    explorer = explore(model, images, labels=[1, 0, 2, 0, 1])
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert np.frombuffer(explorer.given["indices"], "<i4").tolist() == [1, 3, 0, 4, 2]
    assert (explorer.given["groups"], explorer.given["counts"]) == (("0", "1", "2"), [2, 2, 1])
    assert explorer.given["classes"] == tuple(map(str, range(classes)))

    close = {"atol": 2e-2} if name == "half precision" else {"atol": 2e-5}
    images = images[[1, 3, 0, 4, 2]]
    record = probe.record_weights(model, images)
    maps = probe.feature_maps(model, images)
    [(_, layers)] = explorer.given["networks"]
    assert layers == [(layer, weights.shape[1]) for layer, weights in record.weights.items()]
    model.eval()
    with torch.inference_mode():
        plain = passes.logits_of(passes.call(model, images)).float().softmax(1).numpy()
    for layer, channels in {layers[0], layers[-1]}:
        explorer.set_state({"layer": layer, "image": 3, "channel": channels - 1, "factor": 0})
        weights = record.weights[layer]
        np.testing.assert_allclose(explorer.weights, weights, **close)
        answer = explorer.answer
        low, high = answer["limits"]
        shades = np.frombuffer(answer["weights"], np.uint8).reshape(weights.shape)
        step = 0.501 * (high - low) / 255 + close["atol"]
        np.testing.assert_allclose(low + (high - low) * shades / 255, weights, atol=step)
        assert answer["weight"] == pytest.approx(weights[3, -1], abs=close["atol"])
        [[expected]], _ = _drawn(maps[layer][3:4, -1:], explorer.MAP_SIDE)
        drawn = np.frombuffer(answer["map"], np.float32).reshape(answer["size"])
        np.testing.assert_allclose(drawn, expected, rtol=2e-2, atol=close["atol"])
        factors = torch.ones(channels)
        factors[-1] = 0
        change = probe.scale(factors)
        with probe.intervene(model, layer, change), torch.inference_mode():
            output = passes.call(model, images[3, None])
        changed = passes.logits_of(output).float().softmax(1)[0].numpy()
        shown_chances = explorer.probabilities
        np.testing.assert_allclose(shown_chances["plain"], plain[3], **close)
        np.testing.assert_allclose(shown_chances["changed"], changed, **close)
        bars = answer["classes"]
        np.testing.assert_array_equal(answer["plain"], shown_chances["plain"].iloc[bars])
        np.testing.assert_array_equal(answer["changed"], shown_chances["changed"].iloc[bars])


@pytest.mark.parametrize("name", WITHOUT)
def test_without_logits_a_line_says_so_and_the_rest_lives(name):
    give, why = WITHOUT[name]
    explorer = explore(*giving(give))
    assert explorer.given["classes"] == ()
    assert (explorer.answer["classes"], explorer.answer["plain"]) == ([], [])
    assert explorer._result() == f"weight {explorer.answer['weight']:.3f}"
    explorer.factor = 0
    with pytest.raises(ValueError, match=f"No bars of classes: the model gives {why}"):
        _ = explorer.probabilities
    assert explorer._figure().axes[0].images[0].get_array().shape == explorer.weights.shape


def test_probabilities_are_taken_as_they_are():
    model, images = giving(lambda out: out.softmax(1))
    with torch.inference_mode():
        expected = model.eval()(images)[0]
    np.testing.assert_allclose(explore(model, images).probabilities["plain"], expected, atol=1e-6)


def test_changed_weights_may_lead_beyond_finite_numbers():
    # Of all images it gives finite numbers, but not of one alone, for which a weight is changed.
    broken = explore(*giving(lambda out: out if len(out) > 1 else out + torch.inf), factor=4)
    assert broken.probabilities["plain"].sum() == pytest.approx(1)
    assert broken.probabilities["changed"].isna().all()
    assert broken.answer["changed"] == [0, 0, 0]
    assert broken._result().endswith("changed NaN or infinity")


def test_of_many_classes_ten_have_a_bar():
    model, images = tiny(classes=40), pictures(4)
    explorer = explore(model, images, labels=[39, 7, 7, 7], image=3)
    explorer.set_state({"layer": "layer1.attention", "factor": 4})
    own, table = 39, explorer.probabilities
    bars = explorer.answer["classes"]
    assert len(set(bars)) == 10
    assert own in bars
    most = table.max(axis=1).drop(str(own)).nlargest(9)
    assert {*map(str, bars)} == {str(own), *most.index}
    assert explorer.answer["plain"] == sorted(explorer.answer["plain"], reverse=True)


# --- Images ---


def facts(explorer):
    """What an explorer shows, but for how it was called."""
    told = explorer.given
    names = ("groups", "counts", "labels", "classes", "indices", "images", "size", "notes")
    return [told[name] for name in names]


def test_loaders_and_batches_are_what_a_tensor_is():
    model, images, labels = tiny(), pictures(7), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    whole = explore(model, images, labels=labels, classes=["a", "b", "<c>"])
    assert (whole.given["groups"], whole.given["counts"]) == (("a", "b", "<c>"), [2, 2, 3])
    loader = DataLoader(TensorDataset(images, labels), batch_size=3)
    halves = [images[:4], images[4:]]
    for given in (
        explore(model, loader, classes=["a", "b", "<c>"]),
        explore(model, halves, labels=labels.tolist(), classes=("a", "b", "<c>")),
    ):
        assert facts(given) == facts(whole)
        np.testing.assert_allclose(given.weights, whole.weights, atol=1e-6)


def test_batches_are_dicts_for_models_that_are_called_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = tiny()

        def forward(self, pixel_values, labels):
            return {"logits": self.model(pixel_values), "loss": labels.sum()}

    images = pictures(6)
    batch = {"pixel_values": images, "labels": torch.arange(6)}
    model = Named()
    explorer = explore(model, [batch])
    np.testing.assert_allclose(
        explorer.weights, explore(model.model, images).weights, rtol=0, atol=1e-6
    )
    assert explorer.given["size"] == (8, 8)


def test_labels_that_are_no_classes_are_none():
    model, images = tiny(), pictures(4)
    for own in (torch.rand(4), torch.zeros(4, 8, 8).long(), [{"boxes": 1}] * 4):
        explorer = explore(model, [(images, own)])
        assert (explorer.given["groups"], explorer.given["labels"]) == (("all images",), None)
        assert explorer.given["notes"][0] == "Images in the order in which they were given."


def test_at_most_so_many_images_are_shown_evenly_over_the_classes():
    def chosen(count, labels=None, **more):
        images = torch.zeros(count, 1)
        found = shown.of_images(images, labels=labels, classes=None, prepare=None, most=20, **more)
        return found.indices.tolist(), found.counts, found.notes[0]

    assert chosen(20, [0] * 18 + [1, 1]) == (
        [*range(10), 18, 19],
        (10, 2),
        "12 of 20 images: of each class the first, at most 10.",
    )
    indices, counts, note = chosen(25)
    assert (indices, counts) == ([*range(20)], (20,))
    assert note == "The first 20 images, in the order in which they were given."
    indices, counts, note = chosen(90, [*range(30)] * 3)
    assert (indices, counts) == ([*range(20)], (1,) * 20)
    assert note == "The first image of each of the first 20 of 30 classes."


def test_of_a_stream_only_the_beginning_is_looked_at(monkeypatch):
    monkeypatch.setattr(shown, "LOOKED", 30)

    def stream():
        while True:
            yield torch.zeros(10, 1), torch.arange(10) // 5

    found = shown.of_images(stream(), labels=None, classes=None, prepare=None, most=8)
    assert found.counts == (4, 4)
    assert found.notes[0] == "8 of the first 30 images: of each class the first, at most 4."


def drawn(images):
    found = shown.of_images(images, labels=None, classes=None, prepare=None, most=200)
    return found.pictures, found.notes[1:]


def test_pictures_show_what_was_given():
    colors = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    as_they_are = colors.permute(0, 2, 3, 1).numpy()
    for images in (colors, colors / 255, (colors / 255).half(), colors.permute(0, 2, 3, 1)):
        pictures, notes = drawn(images)
        np.testing.assert_allclose(pictures, as_they_are, atol=images.dtype == torch.half)
        assert notes == ()
    gray, _ = drawn(colors[:, :1])
    np.testing.assert_array_equal(gray, as_they_are[..., :1].repeat(3, axis=3))
    stretched, notes = drawn(torch.tensor([-3.0, -1.0, 1.0, 1.0]).view(1, 1, 2, 2))
    assert stretched[0, :, :, 0].tolist() == [[0, 128], [255, 255]]
    assert notes == ("Pictures go from their lowest value, black, to their highest, white.",)
    constant, _ = drawn(torch.full((1, 1, 2, 2), 7.0))
    assert not constant.any()


def test_large_pictures_are_averages_of_small_size():
    blocks = torch.rand(1, 3, 64, 32)
    large = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    pictures, _ = drawn(large)
    expected = (255 * blocks).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pictures, expected, atol=1)
    noise = torch.randint(0, 2, (1, 1, 224, 224)).float()
    small, _ = drawn(noise)
    assert small.shape == (1, 64, 64, 3)
    assert 120 < small.mean() < 136
    assert small.std() < 50  # every third pixel would have 128


def test_what_is_no_picture_is_not_drawn():
    for shape, words in (((12, 9), "12 × 9"), ((4, 8, 8), "4 × 8 × 8"), ((3, 2, 2, 2), "3 × 2 ×")):
        pictures, notes = drawn(torch.randn(2, *shape))
        assert pictures is None
        assert notes[0].startswith(f"Images of {words}")
        assert "no pictures, which have 1 or 3 channels" in notes[0]


def test_maps_of_other_dimensions_say_what_is_drawn():
    maps = np.random.default_rng(0).normal(size=(1, 2, 5, 6, 4)).astype(np.float32)
    for given, expected, told in (
        (maps[:, :, 0], maps[:, :, 0], ""),
        (maps[:, :, 0, 0], maps[:, :, 0, :1], "4 positions, from left to right"),
        (maps, maps[:, :, 2], "slice 3 of 5"),
    ):
        pictures, form = _drawn(given, 64)
        np.testing.assert_array_equal(pictures, expected)
        assert form == told
    [[half, _]], _ = _drawn(maps[:, :, 0], 3)
    averages = maps[0, 0, 0].reshape(3, 2, 2, 2).mean((1, 3))
    np.testing.assert_allclose(half, averages, atol=1e-6)


def test_weights_beyond_0_and_1_have_their_true_range():
    for weights, limits in (
        ([[0.2, 0.9]], (0, 1)),
        ([[-0.5, 0.5]], (-0.5, 1)),
        ([[0.5, 40.0]], (0, 40)),
    ):
        assert _limits(np.array(weights)) == limits
    model, images = form("softmax")
    explorer = explore(model, images)
    assert explorer.answer["limits"] == [0, max(1, explorer.weights.max())]
    assert explorer.answer["limits"][1] > 1
    assert explorer.answer["spread"] == [explorer.weights.min(), explorer.weights.max()]
    assert explorer._figure().axes[0].images[0].get_clim() == tuple(explorer.answer["limits"])


def test_what_was_left_out_is_said():
    make, layer, _ = pasted.LEFT_OUT["additive"]
    model = nn.Sequential(pasted.SELayer(), make())
    explorer = explore(model, torch.randn(4, 12, 8, 8))
    left_out = (
        f"Left out: 1.{layer}, since a GlobalContextAttention in which there is no such product."
    )
    assert explorer.given["notes"][-1] == left_out


# --- What is refused ---


def test_classes_that_do_not_fit_the_output_are_told_of():
    why = "No bars of classes: the model gives 3 numbers for an image, and "
    named = explore(tiny(), pictures(), classes=["a", "b"])
    assert named.given["why"] == why + "there are names of 2 classes."
    labelled = explore(tiny(), pictures(), labels=[0, 1, 2, 3, 4])
    assert labelled.given["why"] == why + "one label is 4."


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model": "resnet"}, TypeError, "model='resnet': accepted is a torch.nn.Module"),
        (
            {"model": tiny("none")},
            ValueError,
            "model: TinyResNet has no channel attention that could be found: looked for was",
        ),
        ({"images": "photos"}, TypeError, "images='photos': accepted is a tensor"),
        (
            {"images": np.zeros((2, 3, 8, 8))},
            TypeError,
            "images, a NumPy array .* torch.from",
        ),
        ({"images": pictures()[:0]}, ValueError, "images of shape"),
        ({"images": []}, ValueError, "gives no batch"),
        ({"images": [1, 2]}, TypeError, "images: a batch is 1: accepted is a tensor"),
        ({"images": [(pictures()[0], 3)]}, TypeError, "single images with a label each: accepted"),
        (
            {"images": [pictures(1), pictures(1, side=9)]},
            ValueError,
            r"images of \(3, 8, 8\) and \(3, 9, 9\): accepted are images of one shape",
        ),
        ({"images": pictures().byte()}, ValueError, "images of torch.uint8 without prepare"),
        ({"images": pictures() * torch.nan}, ValueError, "model: weights of .* are not finite"),
        ({"labels": [0, 1]}, ValueError, "labels: 2; accepted are 5, one for each image"),
        ({"labels": [0, 1, 2, 0, -1]}, ValueError, "labels: one is -1; accepted are integers from"),
        ({"labels": ["a"] * 5}, TypeError, "labels=.*: accepted are integers, one for each image"),
        ({"labels": torch.rand(5)}, TypeError, "labels=float32"),
        (
            {"labels": [0, 1, 2, 0, 1], "classes": ["a", "b"]},
            ValueError,
            "classes: 2 names; accepted are 3 or more, for labels up to 2",
        ),
        ({"classes": "abc"}, TypeError, "classes='abc': accepted are names"),
        ({"layer": "fc"}, ValueError, "layer='fc': accepted are layer1.attention, "),
        ({"image": 5}, ValueError, "image=5: accepted is an integer from 0 to 4"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(change, error, match):
    with pytest.raises(error, match=match):
        explore(**{"model": tiny(), "images": pictures(), **change})


def test_batches_have_as_many_labels_as_images():
    for labels in ([0, 1], [0, 1] * 4):
        with pytest.raises(ValueError, match=f"labels: {len(labels)}; accepted"):
            explore(tiny(), [pictures(3), pictures(2)], labels=labels)
    with pytest.raises(ValueError, match="some batches have labels, and some have none"):
        explore(tiny(), [(pictures(2), torch.zeros(2).long()), pictures(2)])


def test_repr_is_a_call_that_gives_an_equal_explorer():
    given = {"model": tiny(), "images": pictures(), "labels": [0, 1, 2, 0, 1], "explore": explore}
    explorer = explore(given["model"], given["images"], labels=given["labels"], image=3)
    layer = "layer='layer3.1.attention', image=3"
    assert repr(explorer) == f"explore(model, images, labels=labels, {layer})"
    again = eval(repr(explorer), given)
    assert (again.answer, again.given) == (explorer.answer, explorer.given)
    assert isinstance(explorer, ChannelWeightExplorer)


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_explored_there():
    model, images = tiny(), pictures()
    on_cpu = explore(model, images, factor=0)
    on_gpu = explore(model.cuda(), [images.cuda()], factor=0)
    assert facts(on_gpu) == facts(on_cpu)
    np.testing.assert_allclose(on_gpu.weights, on_cpu.weights, atol=1e-3)
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=1e-3)
