"""One trial: train one arm with one seed, by one recipe, and measure its final accuracy."""

import base64
import hashlib
import os
import re
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from eca_lab.attention.modules import ChannelAttention
from eca_lab.checks import check_choice, check_integer, shown
from eca_lab.data.augmentation import augment, input_transform
from eca_lab.networks.backbones import add_attention, attention_specs, blocks, build_model
from eca_lab.networks.fused import training_path
from eca_lab.provenance import cpu_has_bfloat16
from eca_lab.recipe import DECAYS, PRECISIONS, Recipe


def train_network(
    dataset,
    backbone,
    arm,
    seed,
    recipe=None,
    device="cpu",
    on_epoch=None,
    precision="float32",
    fused=False,
):
    """Train one arm with one seed and measure the accuracy of the last epoch on the test set.

    Random numbers come from one stream per purpose, seeded from (seed, purpose) and never from
    the arm: for one seed, all arms start from equal backbone weights and see equal batches. On
    one CPU with one number of threads, the same trial gives the same result to the bit.

    dataset is an `eca_lab.data.Dataset`; backbone and arm are as for
    `eca_lab.networks.backbones.build_model`; recipe is a `Recipe`; device, precision and fused are
    as for `check_device`, `resolve_precision` and `eca_lab.networks.fused.training_path`. on_epoch
    is called after every epoch.

    Gives the network, in evaluation mode on the device, and a dict: top1 and top5 in percent,
    correct (for `eca_lab.evidence.results.unpack_correct`), loss_curve (mean training loss of each
    epoch), attention_norms (see `_norms`), seconds (of training), images_per_second, precision
    ("float32" or "bfloat16") and path ("modules" or "fused"). ValueError for what is not accepted,
    or fewer images than a batch; FloatingPointError for a loss that is no longer finite, or logits
    or weights that are not.
    """
    recipe = recipe or Recipe()
    device = check_device(device)
    precision = resolve_precision(precision, device)
    dtype = getattr(torch, precision)
    check_integer("batch_size", recipe.batch_size, most=len(dataset.train_images))
    model = initial_model(backbone, arm, len(dataset.classes), stem_for(dataset.size), seed)
    model = model.to(device, memory_format=torch.channels_last)
    dataset = dataset.to(device)
    as_input = input_transform(dataset)
    initial = {name: each.detach().clone() for name, each in _attention_parameters(model)}
    optimizer, scheduler = _optimizer(model, recipe, len(dataset.train_images))
    order, augmentation = generator(seed, "data order"), generator(seed, "augmentation")
    loss_curve = []
    # Dropout (MobileNetV2 has some) draws from the global generator.
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        training_path(model, fused=fused, dtype=dtype) as path,
    ):
        torch.manual_seed(_stream(seed, "dropout"))
        import torchvision  # noqa: F401 (else the first batch does, and is timed)

        start = time.perf_counter()
        model.train()
        for epoch, scale in enumerate(recipe.epoch_scales):
            total, steps = torch.zeros((), device=device), 0
            for images, labels in batches(dataset, recipe, order, augmentation, scale):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits = model(as_input(images))
                    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
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
        **_accuracy(model, dataset, as_input),
        "loss_curve": [round(loss, 5) for loss in loss_curve],
        "attention_norms": _norms(model, initial),
        "seconds": round(seconds, 3),
        "images_per_second": round(images_seen / seconds, 1),
        "precision": precision,
        "path": path,
    }


def resolve_precision(precision, device):
    """The precision; for "auto" bfloat16 on GPUs and on CPUs with AVX512-BF16 or AMX."""
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    fast = device.type == "cuda" or cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def progress_bar(total, unit="epoch"):
    """A progress bar for people: none where nobody looks on."""
    # tqdm's bar for notebooks overlooks this variable, which its bar for terminals obeys.
    quiet = True if os.environ.get("TQDM_DISABLE") else None
    return tqdm(total=total, unit=unit, smoothing=0.05, disable=quiet)


def trial_description(dataset, backbone, arm, seed, recipe):
    """What a trial computes, as a JSON-ready dict, with the attention of every block resolved."""
    stem = stem_for(dataset.size)
    with torch.device("meta"):  # shapes are enough
        model = build_model(backbone, arm, num_classes=len(dataset.classes), stem=stem)
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
        "recipe": recipe.describe(),
        "seed": seed,
    }


def initial_model(backbone, arm, num_classes, stem, seed):
    """A model with the weights that a seed draws; those of the backbone whatever the arm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream(seed, "backbone init"))
        model = build_model(backbone, "none", num_classes=num_classes, stem=stem)
        torch.manual_seed(_stream(seed, "attention init"))
        add_attention(model, arm)
    return model


def batches(dataset, recipe, order, augmentation, scale=1.0):
    """One epoch of whole (images, labels); one generator shuffles them, the other augments."""
    indices = torch.randperm(len(dataset.train_images), generator=order)
    indices = indices.to(dataset.train_images.device)
    whole = len(indices) // recipe.batch_size * recipe.batch_size
    for batch in indices[:whole].split(recipe.batch_size):
        images = augment(dataset.train_images[batch], augmentation, scale=scale, crop=recipe.crop)
        yield images, dataset.train_labels[batch]


def generator(seed, purpose):
    """A torch.Generator on the CPU for one purpose of one seed."""
    return torch.Generator().manual_seed(_stream(seed, purpose))


def stem_for(size):
    """The stem for square images of `size` pixels: "cifar" up to 64, "imagenet" above."""
    return "cifar" if size <= 64 else "imagenet"


def check_device(device):
    """The torch.device of that name; ValueError unless it is the CPU or a CUDA device here."""
    name, count = str(device), torch.cuda.device_count()
    here = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    if name not in ("cpu", *here):
        is_cuda = re.fullmatch("cuda(:[0-9]+)?", name)
        words = (
            f"torch sees {count} CUDA devices here" if is_cuda else "accepted are 'cpu' and 'cuda'"
        )
        raise ValueError(f"device={shown(name)}: {words}")
    return torch.device(name)


@contextmanager
def _without_tf32():
    """Convolutions and matrix products of float32 in float32, on GPUs that would round to TF32."""
    with ExitStack() as stack:
        for backend in (torch.backends.cudnn.conv, torch.backends.cuda.matmul):
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = "ieee"
        yield


def _stream(seed, purpose):
    """A 63-bit seed for one purpose: near seeds and different purposes give unrelated streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _optimizer(model, recipe, train_size):
    decayed = {"params": [], "weight_decay": recipe.weight_decay}
    undecayed = {"params": [], "weight_decay": 0.0}
    attention = (each for each in model.modules() if isinstance(each, ChannelAttention))
    without_decay = {part for each in attention if each.decay == 0 for part in each.modules()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            exempt = name == "bias" or isinstance(module, torch.nn.BatchNorm2d)
            exempt = exempt or module in without_decay
            (undecayed if exempt else decayed)["params"].append(parameter)
    rate, steps = recipe.learning_rate, recipe.epochs * (train_size // recipe.batch_size)
    how = {"pct_start": recipe.warmup, "anneal_strategy": DECAYS[recipe.decay]}
    groups = [decayed, undecayed]
    optimizer = torch.optim.SGD(groups, rate, recipe.momentum, nesterov=True, fused=True)
    schedules = torch.optim.lr_scheduler
    return optimizer, schedules.OneCycleLR(optimizer, rate, steps, cycle_momentum=False, **how)


def _attention_parameters(model):
    """(name, parameter) of all attention in a model, the names those of its `named_parameters`."""
    for name, block, *_ in blocks(model):
        yield from block.attention.named_parameters(f"{name}.attention")


@torch.no_grad()
def _norms(model, initial):
    """How far training moved each attention parameter from its initial value.

    Name -> the norm it had, the norm it has, and the norm of the difference of the two, each the
    Euclidean one over all entries. JSON-ready: FloatingPointError for one that is not finite.
    """
    norms = {
        name: [round(each.norm().item(), 6) for each in (initial[name], now, now - initial[name])]
        for name, now in _attention_parameters(model)
    }
    if not np.isfinite([*norms.values()]).all():
        raise FloatingPointError("the weights of an attention are not finite after the last epoch")
    return norms


@torch.inference_mode()
@_without_tf32()
def _accuracy(model, dataset, as_input):
    """top1 and top5 in percent, and which test images were right.

    FloatingPointError: the last step of a training may have no loss that tells that it diverged.
    """
    model.eval()
    ranks = []  # how many classes score above the true one: 0 is right, below 5 is in the top 5
    broken = []  # above NaN there is no logit, so all would be right
    tests = dataset.test_images.split(500), dataset.test_labels.split(500)
    for images, labels in zip(*tests, strict=True):
        # In float32 on any device: bfloat16 logits would tie.
        logits = model(as_input(images))
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(1).cpu())
        broken.append((~logits.isfinite()).any(1).cpu())
    if torch.cat(broken).numpy().any():
        raise FloatingPointError("the logits are not finite after the last epoch")
    ranks = torch.cat(ranks).numpy()
    return {
        "top1": round(100 * float((ranks < 1).mean()), 4),
        "top5": round(100 * float((ranks < 5).mean()), 4),
        "correct": base64.b64encode(np.packbits(ranks < 1)).decode(),
    }
