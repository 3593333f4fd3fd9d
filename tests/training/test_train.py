import dataclasses

import numpy as np
import pytest
import torch

from eca_lab.data.augmentation import input_transform, random_resized_crop
from eca_lab.evidence.results import unpack_correct
from eca_lab.recipe import Recipe
from eca_lab.training import train
from eca_lab.training.train import (
    batches,
    check_device,
    generator,
    initial_model,
    stem_for,
    train_network,
    trial_description,
)

QUICK = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
DECAYING = dataclasses.replace(QUICK, weight_decay=0.1)
MEASURED = {"seconds", "images_per_second"}


def outcome(dataset, backbone, arm, seed, recipe):
    """What a trial computed, without what it took."""
    _, trial = train_network(dataset, backbone, arm, seed=seed, recipe=recipe)
    return {name: value for name, value in trial.items() if name not in MEASURED}


def test_the_same_trial_gives_the_same_result_to_the_bit(dataset):
    torch.manual_seed(1)
    first = outcome(dataset, "tiny", "eca", 3, QUICK)
    torch.manual_seed(2)  # the caller's random numbers do not matter, and are not disturbed
    before = torch.random.get_rng_state()
    second = outcome(dataset, "tiny", "eca", 3, QUICK)
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)
    assert outcome(dataset, "tiny", "eca", 4, QUICK)["loss_curve"] != first["loss_curve"]


def test_dropout_is_seeded_too(dataset):
    torch.manual_seed(1)
    first = outcome(dataset, "mobilenet_v2", "none", 0, dataclasses.replace(QUICK, epochs=1))
    torch.manual_seed(2)
    assert (
        outcome(dataset, "mobilenet_v2", "none", 0, dataclasses.replace(QUICK, epochs=1)) == first
    )


def test_a_tiny_network_learns_to_tell_colours_apart(dataset):
    recipe = dataclasses.replace(QUICK, epochs=6)
    calls = []
    model, trial = train_network(
        dataset, "tiny", "eca", seed=0, recipe=recipe, on_epoch=lambda: calls.append(1)
    )
    assert len(calls) == 6
    assert trial["top1"] >= 90
    assert trial["top5"] == 100  # two classes
    assert len(trial["loss_curve"]) == 6
    assert trial["loss_curve"][-1] < trial["loss_curve"][0]
    assert trial["seconds"] > 0
    assert trial["images_per_second"] == pytest.approx(6 * 64 / trial["seconds"], rel=0.01)
    assert (trial["precision"], trial["path"]) == ("float32", "modules")

    assert not model.training
    correct = unpack_correct(
        {**trial, "trial": trial_description(dataset, "tiny", "eca", seed=0, recipe=recipe)}
    )
    assert trial["top1"] == pytest.approx(100 * correct.mean())
    with torch.no_grad():
        logits = model(input_transform(dataset)(dataset.test_images))
    assert (logits.argmax(1) == dataset.test_labels).tolist() == correct.tolist()


@pytest.fixture
def tf32():
    """The backends that may round to TF32, allowed to do so."""
    backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [each.fp32_precision for each in backends]
    for each in backends:
        each.fp32_precision = "tf32"
    yield backends
    for each, precision in zip(backends, before, strict=True):
        each.fp32_precision = precision


def test_accuracy_is_measured_without_tf32(dataset, monkeypatch, tf32):
    seen = {True: set(), False: set()}  # in training, and not

    def spy(*arguments, **keywords):
        model = initial_model(*arguments, **keywords)
        model.register_forward_pre_hook(
            lambda module, _: seen[module.training].update(b.fp32_precision for b in tf32)
        )
        return model

    monkeypatch.setattr(train, "initial_model", spy)
    train_network(dataset, "tiny", "none", seed=0, recipe=dataclasses.replace(QUICK, epochs=1))
    assert seen == {True: {"tf32"}, False: {"ieee"}}
    assert [each.fp32_precision for each in tf32] == ["tf32", "tf32"]


@pytest.mark.parametrize("backbone", ["tiny", "resnet10", "mobilenet_v2"])
def test_arms_start_from_equal_backbones(backbone):
    def backbone_weights(arm, seed):
        state = initial_model(backbone, arm, num_classes=10, stem="cifar", seed=seed).state_dict()
        return {name: value for name, value in state.items() if "attention" not in name}

    plain = backbone_weights("none", 0)
    for arm in ("se(r=4)", "eca", "eca(order=shuffled)"):
        weights = backbone_weights(arm, 0)
        assert weights.keys() == plain.keys()
        assert all(torch.equal(weights[name], plain[name]) for name in plain)
    other = backbone_weights("none", 1)
    assert not torch.equal(other[next(iter(other))], plain[next(iter(plain))])


def test_arms_see_equal_batches(dataset, monkeypatch):
    seen = []

    def recording(*arguments, **keywords):
        for images, labels in batches(*arguments, **keywords):
            seen[-1].append((images.clone(), labels.clone()))
            yield images, labels

    monkeypatch.setattr(train, "batches", recording)
    for arm in ("none", "se(r=4)", "eca", "eca(order=shuffled)"):
        seen.append([])
        train_network(dataset, "tiny", arm, seed=5, recipe=QUICK)
    assert [len(each) for each in seen] == [2 * 4] * 4
    for other in seen[1:]:
        for (images, labels), (same_images, same_labels) in zip(seen[0], other, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)
    assert not torch.equal(seen[0][0][0], seen[0][4][0])  # the second epoch is another


def test_the_first_epochs_may_show_smaller_images(dataset, monkeypatch):
    sides = []

    def recording(*arguments, **keywords):
        for images, labels in batches(*arguments, **keywords):
            sides.append(images.shape[-1])
            yield images, labels

    monkeypatch.setattr(train, "batches", recording)
    recipe = dataclasses.replace(QUICK, epochs=4, scales=((0.5, 2), (0.75, 1)))
    _, outcome = train_network(dataset, "tiny", "eca", seed=0, recipe=recipe)
    assert sides == [8] * 8 + [12] * 4 + [16] * 4
    assert len(outcome["loss_curve"]) == 4


def test_the_least_area_of_a_recipe_reaches_the_batches_and_its_record(dataset):
    def first_batch(recipe):
        streams = {"order": generator(0, "data order"), "augmentation": generator(0, "augment")}
        return next(batches(dataset, recipe, **streams))[0]

    recipe = dataclasses.replace(QUICK, least_area=0.08)
    order = torch.randperm(64, generator=generator(0, "data order"))
    expected = random_resized_crop(
        dataset.train_images[order[:16]], generator(0, "augment"), size=16, least_area=0.08
    )
    assert torch.equal(first_batch(recipe), expected)
    assert not torch.equal(first_batch(QUICK), expected)
    assert recipe.describe() == QUICK.describe() | {"least_area": 0.08}
    assert "least_area" not in QUICK.describe()


def test_an_epoch_shows_each_image_once(dataset):
    order, augmentation = generator(0, "data order"), generator(0, "augmentation")
    marked = dataclasses.replace(
        dataset,
        train_images=torch.arange(64, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16),
    )
    epoch = [
        images.amax((1, 2, 3))
        for images, _ in batches(
            marked, Recipe(batch_size=16), order=order, augmentation=augmentation
        )
    ]
    assert [len(each) for each in epoch] == [16] * 4
    assert sorted(torch.cat(epoch).tolist()) == list(range(64))
    rest = list(batches(marked, Recipe(batch_size=30), order=order, augmentation=augmentation))
    assert [len(labels) for _, labels in rest] == [30, 30]


def test_streams_differ_by_purpose_and_by_seed():
    draws = {
        torch.rand(1, generator=generator(seed, purpose)).item()
        for seed in range(20)
        for purpose in ("data order", "augmentation")
    }
    assert len(draws) == 40


def test_learning_rate_rises_and_decays_to_zero():
    recipe = Recipe(epochs=10, batch_size=10, learning_rate=0.4, warmup=0.3)
    optimizer, scheduler = train._optimizer(
        initial_model("tiny", "eca", num_classes=10, stem="cifar", seed=0), recipe, train_count=100
    )
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < 100:
            scheduler.step()
    peak = rates.index(max(rates))
    assert peak == pytest.approx(30, abs=1)
    assert max(rates) == pytest.approx(0.4)
    assert rates[-1] < 1e-4
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    middle = rates[peak + (100 - peak) // 4]  # a quarter down: a cosine is still above the line
    assert middle / 0.4 == pytest.approx(0.75, abs=0.02)


def test_weight_decay_leaves_out_biases_and_batchnorm():
    model = initial_model("tiny", "se_var2", num_classes=10, stem="cifar", seed=0)
    optimizer, _ = train._optimizer(model, QUICK, train_count=64)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, undecayed = (
        {names[each] for each in group["params"]} for group in optimizer.param_groups
    )
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]
    assert decayed | undecayed == set(names.values())
    assert {"conv1.weight", "fc.weight", "layer1.attention.weight"} <= decayed
    assert {"fc.bias", "bn1.weight", "bn1.bias", "layer3.0.downsample.1.weight"} <= undecayed
    assert all("bn" in name or "downsample.1" in name or "bias" in name for name in undecayed)


@pytest.mark.parametrize("name", ["static", "se", "cbam", "se_var2", "se_var3", "eca"])
def test_decay_0_changes_the_groups_of_the_optimizer_and_nothing_else(name, dataset):
    arms = name, f"{name}(decay=0)"
    models = [initial_model("tiny", arm, num_classes=10, stem="cifar", seed=0) for arm in arms]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    attention = {key for key in states[0] if ".attention." in key}
    for recipe in (QUICK, dataclasses.replace(QUICK, weight_decay=0.1)):
        undecayed = []
        for model in models:
            names = {parameter: key for key, parameter in model.named_parameters()}
            optimizer, _ = train._optimizer(model, recipe, train_count=64)
            decayed, without = optimizer.param_groups
            assert (decayed["weight_decay"], without["weight_decay"]) == (recipe.weight_decay, 0)
            undecayed.append({names[each] for each in without["params"]})
        assert undecayed[1] - undecayed[0] == attention
        assert undecayed[0] < undecayed[1]
    # Without any decay in the recipe the two are one network, to the bit.
    plain = dataclasses.replace(QUICK, weight_decay=0)
    for recipe, equal in ((plain, True), (DECAYING, False)):
        with_decay, without = (outcome(dataset, "tiny", arm, 0, recipe) for arm in arms)
        assert (with_decay == without) == equal


def test_how_far_attention_moved_is_told(dataset):
    model, outcome = train_network(dataset, "tiny", "se", seed=0, recipe=QUICK)
    begun = initial_model("tiny", "se", num_classes=2, stem="cifar", seed=0)
    parameters = dict(begun.named_parameters())
    norms = outcome["attention_norms"]
    assert list(norms) == [name for name in parameters if "attention" in name]
    for name, ended in model.named_parameters():
        if name in norms:
            start = parameters[name]
            expected = [np.linalg.norm(x.detach()) for x in (start, ended, ended - start)]
            assert norms[name] == pytest.approx(expected, abs=1e-5)
            assert norms[name][2] > 0
    assert train_network(dataset, "tiny", "none", seed=0, recipe=QUICK)[1]["attention_norms"] == {}


def test_a_loss_that_is_not_finite_ends_the_trial(dataset):
    with pytest.raises(FloatingPointError, match=r"the loss is \w+ in epoch \d"):
        train_network(
            dataset, "tiny", "none", seed=0, recipe=dataclasses.replace(QUICK, learning_rate=1e30)
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0: accepted is an integer from 1 to 100000"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"learning_rate": 0}, "learning_rate=0: accepted is a finite number above 0"),
        ({"momentum": 1}, "momentum=1: accepted is a finite number from 0 below 1"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"weight_decay": -1}, "weight_decay=-1: accepted is a finite number from 0"),
        ({"decay": "cosine"}, "decay='cosine': accepted are linear$"),
        ({"crop": -1}, "crop=-1: accepted is an integer from 0 to 32"),
        ({"least_area": 0}, "least_area=0: accepted is a finite number to 1 above 0"),
        ({"least_area": 0.08, "crop": 4}, "least_area=0.08 with crop=4: accepted is one of the"),
        ({"scales": [[1.5, 1]]}, "scales=1.5: accepted is a finite number to 1 above 0"),
        ({"scales": [0.5]}, "scales=0.5: accepted are pairs of a scale and epochs"),
        ({"scales": [[0.5, 0]]}, "epochs in scales=0: accepted is a positive integer"),
        ({"scales": [[0.5, 9], [0.75, 7]]}, "epochs in scales=16: accepted .* from 0 to 15"),
    ],
)
def test_recipes_that_are_refused(values, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe(**values)


def test_bad_trials_are_refused_before_any_work(dataset):
    with pytest.raises(ValueError, match="batch_size=128: accepted is an integer from 1 to 64"):
        train_network(dataset, "tiny", "eca", seed=0)
    with pytest.raises(ValueError, match="attention 'eca\\(k=4\\)'"):
        train_network(dataset, "tiny", "eca(k=4)", seed=0, recipe=QUICK)
    with pytest.raises(ValueError, match="device='tpu': accepted are 'cpu' and 'cuda'"):
        train_network(dataset, "tiny", "eca", seed=0, recipe=QUICK, device="tpu")


def test_devices():
    assert check_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device='meta': accepted are"):
        check_device("meta")
    with pytest.raises(ValueError, match="device='cuda:99': torch sees"):
        check_device("cuda:99")


def test_stems():
    assert [stem_for(size) for size in (16, 32, 64, 65, 224)] == ["cifar"] * 3 + ["imagenet"] * 2


def test_descriptions_resolve_the_arm(dataset):
    def described(arm):
        return trial_description(dataset, "tiny", arm, seed=0, recipe=QUICK)

    assert described("eca")["attention"] == ["eca(k=3)", "eca(k=3)", "eca(k=5)", "eca(k=5)"]
    assert described("eca") == described("eca(k=3-3-5)")
    assert described("eca") != described("eca(k=3)")
    assert described("eca")["recipe"]["epochs"] == 2
    assert described("eca")["dataset"]["train"] == 64


@pytest.mark.gpu
def test_a_trial_on_a_gpu_agrees_with_the_cpu(dataset):
    recipe = dataclasses.replace(QUICK, epochs=6)
    _, on_gpu = train_network(dataset, "tiny", "eca", seed=0, recipe=recipe, device="cuda")
    _, on_cpu = train_network(dataset, "tiny", "eca", seed=0, recipe=recipe)
    assert on_gpu["precision"] == "bfloat16"
    assert on_gpu["loss_curve"][0] == pytest.approx(on_cpu["loss_curve"][0], rel=0.05)
    assert on_gpu["top1"] >= 90


def test_a_training_that_diverges_in_its_last_step_is_no_success(dataset):
    # The only loss is that of the initial weights, and above a logit that is NaN there is none.
    recipe = Recipe(epochs=1, batch_size=64, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="the logits are not finite after the last epoch"):
        train_network(dataset, "tiny", "eca", seed=0, recipe=recipe)


def test_weights_that_are_not_finite_are_no_outcome(dataset, monkeypatch):
    monkeypatch.setattr(train, "_accuracy", lambda *_: {"top1": 50.0})
    recipe = Recipe(epochs=1, batch_size=64, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="weights of an attention are not finite"):
        train_network(dataset, "tiny", "eca", seed=0, recipe=recipe)
