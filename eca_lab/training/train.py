"""One trial: train one arm with one seed, by one recipe, and measure its final accuracy."""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eca_lab.attention.modules import ChannelAttention
from eca_lab.attention.spec import Spec, is_function
from eca_lab.checks import check_choice, check_integer, shown
from eca_lab.data.augmentation import augment, input_transform
from eca_lab.data.dataset import Dataset
from eca_lab.networks.attach import attach
from eca_lab.networks.backbones import add_attention, attention_specs, build_model
from eca_lab.networks.cost import parameters
from eca_lab.networks.fused import training_path
from eca_lab.networks.imported import architecture, build_imported, example_of
from eca_lab.networks.passes import without_tf32
from eca_lab.provenance import cpu_has_bfloat16
from eca_lab.recipe import PRECISIONS, Recipe
from eca_lab.training.placing import place, taken

# Whose parameters weight decay leaves alone.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def train_network(
    dataset: Dataset,
    backbone: str,
    arm: str | Spec,
    *,
    seed: int,
    recipe: Recipe | None = None,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[], object] | None = None,
    precision: str = "float32",
    fused: bool = False,
    at: str | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train one arm with one seed and measure the accuracy of the last epoch on the test set.

    Random numbers come from one stream per purpose, seeded from (seed, purpose) and never from
    the arm: for one seed, all arms start from equal backbone weights and see equal batches. On
    one CPU with one number of threads, the same trial gives the same result to the bit.

    Args:
        dataset: what it trains on, and is tested on.
        backbone, arm: as for `eca_lab.networks.backbones.build_model`; or the backbone is a
            function's name, see `eca_lab.networks.imported`.
        seed: of all random numbers.
        recipe: how it trains; the usual `Recipe` without one.
        device: as for `check_device`.
        on_epoch: called after every epoch.
        precision: as for `resolve_precision`.
        fused: as for `eca_lab.networks.fused.training_path`.
        at: in a function's network, where `eca_lab.networks.attach.attach` puts the attention.

    Returns:
        The network, in evaluation mode on the device, and a dict: top1 and top5 in percent,
        correct (for `eca_lab.evidence.results.unpack_correct`), loss_curve (mean training loss of
        each epoch), attention_norms (see `_norms`), seconds (of training), images_per_second,
        precision ("float32" or "bfloat16") and path ("modules" or "fused").

    Raises:
        TypeError, ValueError: for what is not accepted, or fewer images than a batch.
        FloatingPointError: for a loss that is no longer finite, or logits or weights that are not.
        OSError: for a file of images that is cut short or changed meanwhile.
    """
    recipe = recipe or Recipe()
    device = check_device(device)
    precision = resolve_precision(precision, device)
    dtype = getattr(torch, precision)
    check_integer("batch_size", recipe.batch_size, most=len(dataset.train_images))
    model = _network_for(dataset, backbone, arm, seed=seed, device=device, at=at)
    dataset = place(dataset, device)
    as_input = input_transform(dataset)
    initial = {name: value.detach().clone() for name, value in _attention_parameters(model)}
    optimizer, scheduler = _optimizer(model, recipe, train_count=len(dataset.train_images))
    order = generator(seed, "data order")
    augmentation = generator(seed, "augmentation")
    steps = len(dataset.train_images) // recipe.batch_size  # an epoch
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
            total = torch.zeros((), device=device)
            for images, labels in batches(
                dataset, recipe, order=order, augmentation=augmentation, scale=scale
            ):
                loss = _loss(model, as_input(images), labels, recipe=recipe, dtype=dtype)
                total += _step(loss, optimizer, scheduler=scheduler)
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


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision; for "auto" bfloat16 on GPUs and on CPUs with AVX512-BF16 or AMX."""
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    fast = device.type == "cuda" or cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def trial_description(
    dataset: Dataset,
    backbone: str,
    arm: str | Spec,
    *,
    seed: int,
    recipe: Recipe,
    at: str | None = None,
) -> dict[str, Any]:
    """What a trial computes, as a JSON-ready dict, with the attention of every block resolved.

    The arguments are those of `train_network`, and so are the errors for an arm or backbone.
    """
    classes, size = len(dataset.classes), dataset.size
    describe = _describe_imported if is_function(backbone) else _describe_ours
    return {
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": classes,
            "train": len(dataset.train_images),
            "test": len(dataset.test_images),
            "size": size,
            "skipped": dataset.skipped,
        },
        "backbone": backbone,
        **describe(backbone, arm, classes=classes, size=size, at=at),
        "recipe": recipe.describe(),
        "seed": seed,
    }


def check_at(backbone: str, at: str | None) -> None:
    """Raise ValueError for a pattern of places in a network of ours, which has its own."""
    if at is not None and not is_function(backbone):
        accepted = "accepted is backbone=package.module:function beside it"
        raise ValueError(f"at={shown(at)}: {backbone} has a place in every block; {accepted}")


def _describe_ours(
    backbone: str, arm: str | Spec, *, classes: int, size: int, at: str | None
) -> dict[str, Any]:
    check_at(backbone, at)
    stem = stem_for(size)
    with torch.device("meta"):  # shapes are enough
        model = build_model(backbone, arm, num_classes=classes, stem=stem)
    return {"stem": stem, "attention": attention_specs(model), "parameters": parameters(model)}


def _describe_imported(
    backbone: str, arm: str | Spec, *, classes: int, size: int, at: str | None
) -> dict[str, Any]:
    """Of a function's network, also what it is, and where the attention goes: name -> channels."""
    fingerprint = architecture(backbone, num_classes=classes, size=size)
    with torch.random.fork_rng(devices=[]):
        model = build_imported(backbone, num_classes=classes)
        record = attach(model, arm, where=at, example=example_of(size))
    return {
        "architecture": fingerprint,
        "places": {name: entry["channels"] for name, entry in record.items()},
        "attention": [entry["attention"] for entry in record.values()],
        "parameters": parameters(model),
    }


def initial_model(
    backbone: str, arm: str | Spec, *, num_classes: int, stem: str, seed: int
) -> nn.Module:
    """A model with the weights that a seed draws; those of the backbone whatever the arm.

    The other arguments are those of `eca_lab.networks.backbones.build_model`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream(seed, "backbone init"))
        model = build_model(backbone, "none", num_classes=num_classes, stem=stem)
        torch.manual_seed(_stream(seed, "attention init"))
        add_attention(model, arm)
    return model


def initial_imported(
    backbone: str, arm: str | Spec, *, num_classes: int, size: int, seed: int, at: str | None = None
) -> nn.Module:
    """As `initial_model`, of a function's network, for images of so many pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream(seed, "backbone init"))
        model = build_imported(backbone, num_classes=num_classes)
        torch.manual_seed(_stream(seed, "attention init"))
        attach(model, arm, where=at, example=example_of(size))
    return model


def batches(
    dataset: Dataset,
    recipe: Recipe,
    *,
    order: torch.Generator,
    augmentation: torch.Generator,
    scale: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of whole batches.

    Args:
        dataset: its training images are shuffled; what makes no whole batch is left out.
        recipe: its batch_size, crop and least_area count.
        order, augmentation: one shuffles the images, the other augments them.
        scale: the share of the full size that images have.

    Yields:
        Images, uint8 (batch_size, 3, side, side), and labels (batch_size,).
    """
    indices = torch.randperm(len(dataset.train_images), generator=order)
    whole = len(indices) // recipe.batch_size * recipe.batch_size
    for images, labels in taken(dataset, "train", indices[:whole], batch_size=recipe.batch_size):
        views = augment(
            images, augmentation, scale=scale, crop=recipe.crop, least_area=recipe.least_area
        )
        yield views, labels


def generator(seed: int, purpose: str) -> torch.Generator:
    """A torch.Generator on the CPU for one purpose of one seed."""
    return torch.Generator().manual_seed(_stream(seed, purpose))


def stem_for(size: int) -> str:
    """The stem for square images of `size` pixels: "cifar" up to 64, "imagenet" above."""
    return "cifar" if size <= 64 else "imagenet"


def check_device(device: str | torch.device) -> torch.device:
    """The torch.device of that name; ValueError unless it is the CPU or a CUDA device here."""
    name = str(device)
    count = torch.cuda.device_count()
    here = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    if name in ("cpu", *here):
        return torch.device(name)
    accepted = "accepted are 'cpu' and 'cuda'"
    if re.fullmatch("cuda(:[0-9]+)?", name):
        accepted = f"torch sees {count} CUDA devices here"
    raise ValueError(f"device={shown(name)}: {accepted}")


def _stream(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose: near seeds and different purposes give unrelated streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _optimizer(
    model: nn.Module, recipe: Recipe, *, train_count: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """What changes the weights, and what changes the learning rate, for so many training images."""
    decayed, undecayed = _with_and_without_decay(model)
    optimizer = torch.optim.SGD(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": undecayed, "weight_decay": 0.0},
        ],
        recipe.learning_rate,
        recipe.momentum,
        nesterov=True,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        recipe.epochs * (train_count // recipe.batch_size),
        pct_start=recipe.warmup,
        anneal_strategy="linear",  # the decay of every recipe
        cycle_momentum=False,
    )
    return optimizer, scheduler


def _with_and_without_decay(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that weight decay pulls to zero, and those that it leaves alone.

    It leaves alone biases, normalisation, and any attention whose spec says decay=0.
    """
    attention = [module for module in model.modules() if isinstance(module, ChannelAttention)]
    spared = {part for module in attention if module.decay == 0 for part in module.modules()}
    groups: dict[nn.Parameter, bool] = {}  # whether it is spared, by the first module that has it
    for module in model.modules():
        is_spared = module in spared or isinstance(module, _NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            groups.setdefault(parameter, is_spared or name == "bias")
    decayed = [parameter for parameter, is_spared in groups.items() if not is_spared]
    undecayed = [parameter for parameter, is_spared in groups.items() if is_spared]
    return decayed, undecayed


def _network_for(
    dataset: Dataset,
    backbone: str,
    arm: str | Spec,
    *,
    seed: int,
    device: torch.device,
    at: str | None,
) -> nn.Module:
    """The initial network for a data set, on a device, in the memory layout that trains fastest."""
    classes, size = len(dataset.classes), dataset.size
    if is_function(backbone):
        model = initial_imported(backbone, arm, num_classes=classes, size=size, seed=seed, at=at)
    else:
        check_at(backbone, at)
        stem = stem_for(size)
        model = initial_model(backbone, arm, num_classes=classes, stem=stem, seed=seed)
    # Which torch can, and its stubs do not know.
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _loss(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, recipe: Recipe, dtype: torch.dtype
) -> Tensor:
    """The loss of a batch, under autocast where the precision is not float32."""
    with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(inputs)
        return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def _step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> Tensor:
    """One step down the gradient of a loss; the loss without its graph."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    return loss.detach()


def _attention_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of all attention in a model, the names those of its `named_parameters`."""
    for name, module in model.named_modules():
        if isinstance(module, ChannelAttention):
            yield from module.named_parameters(name)


@torch.no_grad()
def _norms(model: nn.Module, initial: dict[str, Tensor]) -> dict[str, list[float]]:
    """How far training moved each attention parameter from its initial value.

    Name -> the norm it had, the norm it has, and the norm of the difference of the two, each the
    Euclidean one over all entries. JSON-ready: FloatingPointError for one that is not finite.
    """
    norms = {}
    for name, now in _attention_parameters(model):
        before = initial[name]
        norms[name] = [round(vector.norm().item(), 6) for vector in (before, now, now - before)]
    if not np.isfinite([*norms.values()]).all():
        raise FloatingPointError("the weights of an attention are not finite after the last epoch")
    return norms


@torch.inference_mode()
@without_tf32()
def _accuracy(
    model: nn.Module, dataset: Dataset, as_input: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """top1 and top5 in percent, and which test images were right.

    FloatingPointError: the last step of a training may have no loss that tells that it diverged.
    """
    model.eval()
    ranks = []  # how many classes score above the true one: 0 is right, below 5 is in the top 5
    broken = []  # above NaN there is no logit, so all would be right
    everything = torch.arange(len(dataset.test_images))
    for images, labels in taken(dataset, "test", everything, batch_size=500):
        # In float32 on any device: bfloat16 logits would tie.
        logits = model(as_input(images))
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(1).cpu())
        broken.append((~logits.isfinite()).any(1).cpu())
    if torch.cat(broken).numpy().any():
        raise FloatingPointError("the logits are not finite after the last epoch")
    rank = torch.cat(ranks).numpy()
    return {
        "top1": round(100 * float((rank < 1).mean()), 4),
        "top5": round(100 * float((rank < 5).mean()), 4),
        "correct": base64.b64encode(np.packbits(rank < 1).tobytes()).decode(),
    }
