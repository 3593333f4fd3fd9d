"""The networks of a plan, kept as checkpoints; what is written down of a trial that has ended."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from eca_lab.files import check_folder
from eca_lab.networks.checkpoints import checkpoint_name, load_checkpoint, save_checkpoint
from eca_lab.progress import progress_bar
from eca_lab.provenance import code_version, provenance
from eca_lab.training.planning import Plan, Trial
from eca_lab.training.train import check_device


def train_checkpoints(
    plan: Plan, out: str | Path, *, device: str | torch.device = "cpu"
) -> list[Path]:
    """Save the networks of a plan in the folder `out`, training those that are not there.

    Args:
        plan: whose trials are trained.
        out: the folder, made where there is none.
        device: where, as for `check_device`.

    Returns:
        The paths of all its networks.

    Raises:
        TypeError, ValueError, OSError: before any training, as `check_device`, `check_folder` and
            `load_checkpoint`, such as for a network that does not fit its card.
        FloatingPointError: for a loss that is no longer finite.
    """
    device = check_device(device)
    check_folder("out", out)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = {out / checkpoint_name(trial.description, trial.arm): trial for trial in plan.trials}
    todo = {path: trial for path, trial in paths.items() if not _is_saved(path)}
    plan.warn_of_emulation(list(todo.values()), device)
    with progress_bar(len(todo) * plan.recipe.epochs) as bar:
        for path, trial in todo.items():
            bar.set_postfix_str(path.stem)
            model, outcome = plan.train(trial, device, on_epoch=bar.update)
            keep_checkpoint(
                plan, trial, folder=out, model=model, outcome=outcome | provenance(device)
            )
    return list(paths)


def keep_checkpoint(
    plan: Plan,
    trial: Trial,
    *,
    folder: str | Path,
    model: torch.nn.Module,
    outcome: Mapping[str, Any],
) -> None:
    """Save the network of a trial in a folder.

    Args:
        plan: the one that the trial is of.
        trial: what was trained.
        folder: where the network and its card go.
        model: the network.
        outcome: how the training ended and where it ran, for the card.

    Raises:
        OSError: FileExistsError for a network that is there, or where the folder cannot take it.
    """
    path = Path(folder) / checkpoint_name(trial.description, trial.arm)
    card = {"classes": list(plan.dataset.classes)} | describe(trial, outcome)
    save_checkpoint(path, model, card=card)


def describe(trial: Trial, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What is written down of a trial that has ended, as JSON holds it."""
    return {
        "arm": str(trial.arm),
        **outcome,
        "trial": trial.description,
        "code": code_version(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_saved(path: Path) -> bool:
    """Whether a network is there, with its card; ValueError where the two do not fit."""
    if path.with_suffix(".json").exists():
        try:
            load_checkpoint(path)
        except ValueError as error:
            raise ValueError(f"{error}; remove {path.stem}.* to train it again") from None
        return True
    if path.exists():
        warnings.warn(f"{path} has no card, so it is trained again", stacklevel=3)
    return False
