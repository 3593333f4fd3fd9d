"""Networks that are named on the command line: timm's, torchvision's, and those of a function."""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn

from eca_lab.checks import shown
from eca_lab.networks.checkpoints import one_line, read_state_dict
from eca_lab.networks.imported import build_imported

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation, of RGB
ACCEPTED = "timm:NAME, torchvision:NAME or package.module:function"


class Images(NamedTuple):
    """The images that a network expects.

    mean and std are those of the channels that they are normalised with, of RGB from 0 to 1; size
    is their side in pixels, None where the name does not tell.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None


def expected_images(name: str) -> Images:
    """The images that a network of a name expects: ImageNet's, where its name does not tell.

    Errors as for `named_network`, as far as they can be told without building it.
    """
    library, network = _parts(name)
    if library == "timm":
        wanted = _timm(network).get_pretrained_cfg(network)
        return Images(wanted.mean, wanted.std, size=wanted.input_size[-1])
    return Images(*IMAGENET, size=224 if library == "torchvision" else None)


def named_network(name: str, *, num_classes: int) -> nn.Module:
    """The network of a name, with random weights.

    Args:
        name: "timm:NAME", "torchvision:NAME", or "package.module:function" of a function that takes
            num_classes, see `eca_lab.networks.imported`.
        num_classes: how many logits it gives.

    Raises:
        ImportError: timm is not installed.
        ValueError: no such network.
    """
    library, network = _parts(name)
    if library == "timm":
        return _timm(network).create_model(network, num_classes=num_classes)
    if library == "torchvision":
        from torchvision import models

        if network not in models.list_models(module=models):
            raise ValueError(f"model={shown(name)}: torchvision has no classifier of that name")
        return models.get_model(network, weights=None, num_classes=num_classes)
    return build_imported(name, num_classes=num_classes)


def _parts(name: str) -> tuple[str, str]:
    library, colon, network = name.partition(":")
    if not (library and colon and network):
        raise ValueError(f"model={shown(name)}: accepted is {ACCEPTED}")
    return library, network


def _timm(network: str) -> ModuleType:
    """The library timm, if it is there and has the network."""
    try:
        import timm
    except ImportError:
        advice = "timm is not installed; `pip install timm` installs it"
        raise ImportError(f"model='timm:{network}': {advice}") from None
    if not timm.is_model(network):
        near = "".join(f", {other}" for other in timm.list_models(f"*{network}*")[:5])
        raise ValueError(f"model='timm:{network}': timm has none of that name{near}")
    return timm


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the weights in a file into a model.

    OSError, ValueError: as `eca_lab.networks.checkpoints.read_state_dict`; ValueError also where
    they do not fit, and in what.
    """
    state = read_state_dict(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {one_line(error)}") from None
