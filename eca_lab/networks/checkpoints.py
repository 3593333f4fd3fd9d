"""Trained networks as files: ours, of weights and a card, and those of the ECA-Net authors."""

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from eca_lab.attention.modules import ECA
from eca_lab.attention.spec import Spec, is_function, parse_spec
from eca_lab.checks import shown
from eca_lab.evidence.results import trial_identity
from eca_lab.files import check_regular, listed, read_regular, written_whole
from eca_lab.networks.attach import attach_again
from eca_lab.networks.backbones import attention_specs, blocks, build_model
from eca_lab.networks.imported import architecture, build_imported

SUFFIX = ".safetensors"


def checkpoint_name(description: Mapping[str, Any], arm: str | Spec) -> str:
    """The file name of a trained network, which no other trial has."""
    dataset = "{name}{size}".format(**description["dataset"])
    backbone, seed = description["backbone"], description["seed"]
    beginning = _beginning(arm, dataset=dataset, backbone=backbone, seed=seed)
    return f"{beginning}{trial_identity(description)[:8]}{SUFFIX}"


def find_checkpoint(
    folder: str | Path,
    arm: str | Spec,
    *,
    seed: int,
    dataset: str = "shapes32",
    backbone: str = "tiny",
) -> Path:
    """The path of the one network in a folder that was trained so; `load_checkpoint` loads it.

    Args:
        folder: of the networks.
        arm, seed, backbone: as it was trained.
        dataset: the name of the data set, with the size of its images in pixels.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where there are several, such as of two recipes.
        OSError: where the folder cannot be listed.
    """
    beginning = _beginning(arm, dataset=dataset, backbone=backbone, seed=seed)
    name = re.compile(f"{re.escape(beginning)}[0-9a-f]{{8}}{re.escape(SUFFIX)}")
    found = [path for path in listed(folder, SUFFIX) if name.fullmatch(path.name)]
    if not found:
        raise FileNotFoundError(f"{folder}: no network {beginning}*{SUFFIX}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: {len(found)} networks, load one by its path: {names}")
    return found[0]


def save_checkpoint(path: str | Path, model: nn.Module, *, card: Mapping[str, Any]) -> None:
    """Write the weights of a model to a file, and its card as JSON beside it.

    Args:
        path: of the file, ends in ".safetensors"; the card gets the same name with ".json".
        model: of `build_model`, or of a function, as the card tells.
        card: to load the model again, it needs "arm", the spec string, and "trial" of
            `eca_lab.training.train.trial_description`. The SHA-256 of the weights is added.

    Raises:
        FileExistsError: for a network that is there, with its card: it stays as it is.
        OSError: where the folder cannot take it.
    """
    path = Path(path)
    if path.with_suffix(".json").exists():
        raise FileExistsError(f"{path} has a card already: accepted is the name of a new file")
    # In evaluation the memory layout does not matter, and the format knows one only. Nor does it
    # know tensors that share their memory, as tied weights do.
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    tensors = safetensors.torch.save(state)
    card = {**card, "sha256": hashlib.sha256(tensors).hexdigest()}
    # The card last: weights without a card are what an interruption leaves.
    with written_whole(path) as file:
        file.write(tensors)
    with written_whole(path.with_suffix(".json")) as file:
        file.write(json.dumps(card, indent=1).encode() + b"\n")


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model that `save_checkpoint` wrote, in evaluation mode, on the CPU, and its card.

    A network that a function made is made by it again: the card names the module to import, so load
    what you trust. FileNotFoundError without the file or its card; ValueError where they do not
    fit, and in what, or where the function cannot be imported, or makes another network by now.
    """
    path = Path(path)
    try:
        tensors = read_regular(path)
        card = json.loads(read_regular(path.with_suffix(".json")))
        trial, classes = card["trial"], card["trial"]["dataset"]["classes"]
        if (found := hashlib.sha256(tensors).hexdigest()) != card["sha256"]:
            raise ValueError(f"it has SHA-256 {found}, not {card['sha256']}")
        if is_function(trial["backbone"]):
            model = _imported(trial)
        else:
            stem = trial["stem"]
            model = build_model(trial["backbone"], card["arm"], num_classes=classes, stem=stem)
            if (actual := attention_specs(model)) != trial["attention"]:
                raise ValueError(f"it has attention {actual}, not {trial['attention']}")
        model.load_state_dict(safetensors.torch.load(tensors))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit its card: {one_line(error)}") from None
    return model.eval(), card


def _imported(trial: Mapping[str, Any]) -> nn.Module:
    """The network of a trial that a function made, with attention where the trial had it."""
    backbone, dataset = trial["backbone"], trial["dataset"]
    classes = dataset["classes"]
    if architecture(backbone, num_classes=classes, size=dataset["size"]) != trial["architecture"]:
        raise ValueError(f"{backbone} makes another network than the one that was trained")
    model = build_imported(backbone, num_classes=classes)
    places = zip(trial["places"].items(), trial["attention"], strict=True)
    attach_again(
        model,
        {
            name: {"attention": spec, "channels": channels, "start": "drawn"}
            for (name, channels), spec in places
        },
    )
    return model


def load_released_checkpoint(path: str | Path, backbone: str) -> nn.Module:
    """The model of a checkpoint of the authors' code release, in evaluation mode, on the CPU.

    path is a file written by torch.save: a state dict, or a dict that holds one under one of
    `HOLDERS`. What wrappers put before its names, such as ``module.``, does not count.
    ECA's weights are ``layer1.0.eca.conv.weight`` in ResNets, and stand last in the ``conv``
    sequence of MobileNetV2's blocks. Kernel sizes and the number of classes are read from them.
    ValueError for a file that holds more than tensors, or does not fit the backbone.
    """
    content = _read_tensors(path)
    classifier = "classifier.1.bias" if backbone == "mobilenet_v2" else "fc.bias"
    try:
        state = _state_dict(content)
        if classifier not in state:
            first = ", ".join(shown(name) for name in list(state)[:5])
            raise ValueError(f"there is no {classifier}; the first keys are {first or 'none'}")
        model = build_model(backbone, num_classes=len(state[classifier]))
        for name, block, channels, _ in blocks(model):
            place = "eca"
            if backbone == "mobilenet_v2":
                place = f"conv.{len(list(block.conv.children()))}"
            weight = state.pop(f"{name}.{place}.conv.weight")
            block.attention = ECA(channels, kernel_size=weight.shape[-1])
            state[f"{name}.attention.conv.weight"] = weight
        model.load_state_dict(state)
    except (KeyError, AttributeError, TypeError, IndexError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit {backbone}: {one_line(error)}") from None
    return model.eval()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors, or of torch.save, its names as the network has them.

    It may be held by a dict under one of `HOLDERS`. OSError where the file cannot be read; nothing
    is unpickled: ValueError for a file that holds more than tensors.
    """
    try:
        check_regular(path)
        if Path(path).suffix != SUFFIX:
            return _state_dict(_read_tensors(path))
        return _state_dict(safetensors.torch.load(read_regular(path)))
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no weights: {one_line(error)}") from None


def _read_tensors(path: str | Path) -> Any:
    """What torch.save wrote, if it is tensors in dicts and lists; OSError, ValueError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # many kinds; torch's words are long, and advise to load it unsafely
        words = f"{path} is not a file of tensors alone that torch.save wrote"
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            words += (
                f": it holds a {shown(found[1])}. Where you trust it, load it with what made it, "
                "and save the weights alone: torch.save(model.state_dict(), path)"
            )
        raise ValueError(words) from None


# Where training scripts put the state dict of a network, and what wrappers put before its names.
HOLDERS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = re.compile(r"^((module|model|net|_orig_mod)\.)+")


def _state_dict(content: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint, its names as the network itself has them."""
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, accepted is a dict of tensors")
    for _ in HOLDERS:  # not for ever, where one holds itself
        held = [content[name] for name in HOLDERS if isinstance(content.get(name), dict)]
        content = held[0] if held else content
    return {_WRAPPERS.sub("", name): value for name, value in content.items()}


def _beginning(arm: str | Spec, *, dataset: str, backbone: str, seed: int) -> str:
    made_by = backbone.replace(":", ".")  # which not all file systems take
    return f"{dataset}-{made_by}-{parse_spec(arm).slug}-seed{seed}-"


def one_line(error: Exception) -> str:
    """An error, by its kind and in at most 500 characters."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 500, placeholder=" ...")
