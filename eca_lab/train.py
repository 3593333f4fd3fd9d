"""One trial: train one arm with one seed, by one recipe, and measure its final accuracy."""

import base64
import hashlib
import time
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from eca_lab.checks import check_choice, check_integer
from eca_lab.data import augment, channel_statistics, normalize
from eca_lab.fused import training_path
from eca_lab.models import add_attention, attention_specs, build_model

DECAYS = {"linear": "linear", "cosine": "cos"}  # ours -> torch's name
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a trial trains: SGD with Nesterov momentum, warm-up, then decay to zero.

    learning_rate is the peak, for this batch_size. warmup is the share of all steps that the
    learning rate takes to rise. Weight decay leaves out biases and BatchNorm.

    Raises:
        TypeError, ValueError: naming the first value that is not accepted.
    """

    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.2
    decay: str = "linear"

    def __post_init__(self):
        check_integer("epochs", self.epochs)
        check_integer("batch_size", self.batch_size)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r}: accepted is a number above 0")
        for name in ("momentum", "label_smoothing", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: accepted are 0 <= {name} < 1")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay!r}: accepted are 0 and more")
        if self.decay not in DECAYS:
            accepted = " and ".join(map(repr, DECAYS))
            raise ValueError(f"decay={self.decay!r}: accepted are {accepted}")


def run_trial(
    dataset,
    backbone,
    arm,
    seed,
    recipe=None,
    device="cpu",
    on_epoch=None,
    precision="auto",
    fused=False,
):
    """Train one arm with one seed and measure the accuracy of the last epoch on the test set.

    Random numbers come from one stream per purpose, seeded from (seed, purpose) and never from
    the arm: for one seed, all arms start from equal backbone weights and see equal batches. On
    one CPU with one number of threads, the same trial gives the same result to the bit.

    On a GPU the data stay there as uint8. Trials compare at one precision and by one path alone.

    Args:
        dataset: an `eca_lab.data.Dataset`.
        backbone, arm: as `eca_lab.models.build_model` takes them; the stem follows from the size
            of the images, see `stem_for`.
        seed: an integer.
        recipe: a `Recipe`, its defaults if left out.
        device: "cpu", or a CUDA device, see `check_device`.
        on_epoch: called without arguments after every epoch.
        precision: of training, "float32" or "bfloat16" autocast; "auto", see `resolve_precision`.
        fused: train the blocks fused where that can be, see `eca_lab.fused.training_path`. It
            takes up to a minute of compiling in each process.

    Returns:
        dict: precision, "float32" or "bfloat16", and path, "modules" or "fused", that it trained
        by; top1 and top5 in percent (top5 with fewer than five classes: of all of them),
        loss_curve (mean training loss of each epoch), seconds (of training), images_per_second,
        correct (the test images classified correctly, packed bits in base64, see
        `eca_lab.results.unpack_correct`).

    Raises:
        ValueError: a backbone, arm or device that is not accepted; fewer images than a batch.
        FloatingPointError: the loss is no longer finite.
    """
    arguments = dataset, backbone, arm, seed, recipe, device, on_epoch, precision, fused
    return train_network(*arguments)[1]


def train_network(
    dataset,
    backbone,
    arm,
    seed,
    recipe=None,
    device="cpu",
    on_epoch=None,
    precision="auto",
    fused=False,
):
    """The trained network of a trial, in evaluation mode on the device, and its outcome.

    Arguments and errors as `run_trial`, whose result is the outcome.
    """
    recipe = recipe or Recipe()
    device = check_device(device)
    precision = resolve_precision(precision, device)
    dtype = getattr(torch, precision)
    if len(dataset.train_images) < recipe.batch_size:
        raise ValueError(
            f"batch_size={recipe.batch_size}: accepted are at most the "
            f"{len(dataset.train_images)} training images"
        )
    model = initial_model(backbone, arm, len(dataset.classes), stem_for(dataset.size), seed)
    model = model.to(device, memory_format=torch.channels_last)
    dataset = dataset.to(device)
    mean, std = channel_statistics(dataset.train_images)

    optimizer, scheduler = _optimizer(model, recipe, len(dataset.train_images))
    order, augmentation = generator(seed, "data order"), generator(seed, "augmentation")
    loss_curve = []
    # Dropout (MobileNetV2 has some) draws from the global generator.
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        training_path(model, fused, dtype) as path,
    ):
        torch.manual_seed(_stream(seed, "dropout"))
        start = time.perf_counter()
        model.train()
        for epoch in range(recipe.epochs):
            total, steps = torch.zeros((), device=device), 0
            for images, labels in batches(dataset, recipe.batch_size, order, augmentation):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    loss = _loss(model, images, labels, mean, std, recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                total += loss.detach()
                steps += 1
            loss_curve.append(total.item() / steps)
            if not np.isfinite(loss_curve[-1]):
                raise FloatingPointError(f"the loss is {loss_curve[-1]} in epoch {epoch + 1}")
            if on_epoch is not None:
                on_epoch()
        seconds = time.perf_counter() - start
    images_seen = recipe.epochs * steps * recipe.batch_size
    return model, {
        "precision": precision,
        "path": path,
        **_accuracy(model, dataset, mean, std),
        "loss_curve": [round(loss, 5) for loss in loss_curve],
        "seconds": round(seconds, 3),
        "images_per_second": round(images_seen / seconds, 1),
    }


def input_transform(dataset):
    """What turns images of a data set into the input of a network trained on it.

    Returns:
        function: uint8 (N, 3, H, W), on any device, to float32 of the same shape, normalised by
        the statistics of the training images.
    """
    mean, std = channel_statistics(dataset.train_images)
    return partial(_as_input, mean=mean, std=std)


def correct_predictions(model, dataset):
    """Which test images a model classifies correctly; 100 times the mean is top-1 in percent.

    The model works on the device of its parameters and is left in evaluation mode.

    Args:
        model: as `eca_lab.models.build_model` gives it, trained on the data set.
        dataset: an `eca_lab.data.Dataset`.

    Returns:
        bool (N,), in the order of the test images.
    """
    dataset = dataset.to(next(model.parameters()).device)
    return _ranks(model, dataset, *channel_statistics(dataset.train_images)) < 1


def estimate_seconds(dataset, backbone, arm, recipe, device, precision="auto", fused=False):
    """About how long a trial takes, from a few batches of it.

    Arguments and errors as `run_trial`.
    """
    sample = replace(
        dataset,
        train_images=dataset.train_images[: 4 * recipe.batch_size],
        train_labels=dataset.train_labels[: 4 * recipe.batch_size],
        test_images=dataset.test_images[: recipe.batch_size],
        test_labels=dataset.test_labels[: recipe.batch_size],
    )
    one_epoch = replace(recipe, epochs=1)
    measure = partial(run_trial, sample, backbone, arm, 0, one_epoch, device)
    measure(precision=precision, fused=fused)  # warms up
    trial = measure(precision=precision, fused=fused)
    # A forward pass takes about a third of a training step.
    images = recipe.epochs * len(dataset.train_images) + len(dataset.test_images) / 3
    return images / trial["images_per_second"]


def trial_description(dataset, backbone, arm, seed, recipe):
    """What a trial computes, as a JSON-ready dict, with the attention of every block resolved.

    Raises:
        ValueError: a backbone or an arm that is not accepted.
    """
    stem = stem_for(dataset.size)
    model = build_model(backbone, arm, len(dataset.classes), stem)
    return {
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": len(dataset.classes),
            "train": len(dataset.train_images),
            "test": len(dataset.test_images),
            "size": dataset.size,
            "skipped": dataset.skipped,
        },
        "backbone": backbone,
        "stem": stem,
        "attention": attention_specs(model),
        "parameters": sum(each.numel() for each in model.parameters()),
        "recipe": asdict(recipe),
        "seed": seed,
    }


def initial_model(backbone, arm, num_classes, stem, seed):
    """A model with its weights drawn from the streams of a seed.

    The backbone's weights do not depend on the arm. Arguments and errors as `build_model`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream(seed, "backbone init"))
        model = build_model(backbone, "none", num_classes, stem)
        torch.manual_seed(_stream(seed, "attention init"))
        add_attention(model, arm)
    return model


def batches(dataset, batch_size, order, augmentation):
    """One epoch of (images, labels), augmented, uint8, shuffled; the incomplete rest is left out.

    Args:
        dataset: an `eca_lab.data.Dataset`.
        batch_size: images a batch.
        order, augmentation: torch.Generator on the CPU; both move on.
    """
    indices = torch.randperm(len(dataset.train_images), generator=order)
    indices = indices.to(dataset.train_images.device)
    for batch in indices[: len(indices) // batch_size * batch_size].split(batch_size):
        yield augment(dataset.train_images[batch], augmentation), dataset.train_labels[batch]


def generator(seed, purpose):
    """A torch.Generator on the CPU for one purpose of one seed."""
    return torch.Generator().manual_seed(_stream(seed, purpose))


def stem_for(size):
    """The stem for square images of `size` pixels: "cifar" up to 64, "imagenet" above."""
    return "cifar" if size <= 64 else "imagenet"


def check_device(device):
    """The torch.device of that name.

    Raises:
        ValueError: not "cpu" or a CUDA device, or a CUDA device that is not there.
    """
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}: accepted are 'cpu' and 'cuda'") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={str(device)!r}: accepted are 'cpu' and 'cuda'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={str(device)!r}: torch sees {torch.cuda.device_count()} CUDA devices here; "
            "accepted is 'cpu'"
        )
    return device


def resolve_precision(precision, device):
    """The precision by name; for "auto" bfloat16 where the device has instructions for it.

    These are every GPU, and CPUs with AVX512-BF16 or AMX.

    Raises:
        ValueError: not one of `PRECISIONS`.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    cpu = torch.cpu.get_capabilities()
    fast = device.type == "cuda" or cpu.get("avx512_bf16") or cpu.get("amx_bf16")
    return "bfloat16" if fast else "float32"


def _stream(seed, purpose):
    """A 63-bit seed for one purpose: near seeds and different purposes give unrelated streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _optimizer(model, recipe, train_size):
    undecayed = {
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, torch.nn.BatchNorm2d)
    }
    groups = [
        {
            "params": [each for each in model.parameters() if each not in undecayed],
            "weight_decay": recipe.weight_decay,
        },
        {
            "params": [each for each in model.parameters() if each in undecayed],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.SGD(
        groups, recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=recipe.epochs * (train_size // recipe.batch_size),
        pct_start=recipe.warmup,
        anneal_strategy=DECAYS[recipe.decay],
        cycle_momentum=False,
    )
    return optimizer, scheduler


def _accuracy(model, dataset, mean, std):
    """top1 and top5 in percent, and which test images were right."""
    ranks = _ranks(model, dataset, mean, std)
    return {
        "top1": round(100 * float((ranks < 1).mean()), 4),
        "top5": round(100 * float((ranks < 5).mean()), 4),
        "correct": base64.b64encode(np.packbits(ranks < 1)).decode(),
    }


@torch.inference_mode()
def _ranks(model, dataset, mean, std):
    """How many classes score above the true one, for each test image: (N,)."""
    model.eval()
    ranks = []
    for images, labels in zip(
        dataset.test_images.split(500), dataset.test_labels.split(500), strict=True
    ):
        # In float32 on any device: bfloat16 logits would tie.
        logits = model(_as_input(images, mean, std))
        # How many classes score above the true one: 0 is right, below 5 is in the top 5.
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(1).cpu())
    return torch.cat(ranks).numpy()


def _loss(model, images, labels, mean, std, label_smoothing):
    logits = model(_as_input(images, mean, std))
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def _as_input(images, mean, std):
    return normalize(images, mean, std).contiguous(memory_format=torch.channels_last)
