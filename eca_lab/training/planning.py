"""What a sweep trains: every arm with every seed, each trial known before it runs."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import torch

from eca_lab.attention.spec import Spec, is_function, parse_spec
from eca_lab.checks import check_choice, check_integer
from eca_lab.data.dataset import TENSORS, Dataset
from eca_lab.evidence.results import trial_identity
from eca_lab.files import DATA
from eca_lab.networks.backbones import add_attention, build_model
from eca_lab.networks.fused import obstacle
from eca_lab.networks.imported import architecture, import_function
from eca_lab.provenance import cpu_has_bfloat16, provenance
from eca_lab.recipe import MOST_SEEDS, PRECISIONS, Recipe
from eca_lab.training.train import (
    check_at,
    check_device,
    resolve_precision,
    train_network,
    trial_description,
)


@dataclass(frozen=True)
class Trial:
    """An arm with a seed; its description is that of `eca_lab.training.train.trial_description`."""

    arm: Spec
    seed: int
    identity: str
    description: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep, in the order in which they run: all arms of seed 0, then of seed 1.

    duplicates maps an arm to the one that is the same network and runs in its place. The networks
    of the first `keep` seeds are kept in the folder `checkpoints`. The rest is what all trials
    share, see `eca_lab.training.train.train_network`.
    """

    dataset: Dataset
    backbone: str
    recipe: Recipe
    trials: tuple[Trial, ...]
    duplicates: Mapping[Spec, Spec]
    precision: str = "float32"
    fused: bool = False
    keep: int = 0
    at: str | None = None
    checkpoints: Path = DATA / "checkpoints"

    @property
    def arms(self) -> list[Spec]:
        """The arms that run, each once."""
        return list(dict.fromkeys(trial.arm for trial in self.trials))

    @property
    def identities(self) -> set[str]:
        """The identities of all trials."""
        return {trial.identity for trial in self.trials}

    def train(
        self,
        trial: Trial,
        device: str | torch.device = "cpu",
        *,
        on_epoch: Callable[[], object] | None = None,
    ) -> tuple[torch.nn.Module, dict[str, Any]]:
        """Train one of the trials: network and outcome, as by `train_network`.

        ValueError where the backbone is a function that makes another network by now.
        """
        self._check_unchanged(trial)
        return train_network(
            self.dataset,
            self.backbone,
            trial.arm,
            seed=trial.seed,
            recipe=self.recipe,
            device=device,
            on_epoch=on_epoch,
            precision=self.precision,
            fused=self.fused,
            at=self.at,
        )

    def _check_unchanged(self, trial: Trial) -> None:
        planned = trial.description.get("architecture")
        if planned is None:  # of a network of ours
            return
        classes, size = len(self.dataset.classes), self.dataset.size
        if architecture(self.backbone, num_classes=classes, size=size) != planned:
            raise ValueError(f"{self.backbone} makes another network than when this was planned")

    def estimate_seconds(self, trial: Trial, device: str | torch.device = "cpu") -> float | None:
        """About how many seconds a trial takes, from a few batches of it.

        None where it cannot be told, as for lack of memory: the trial itself will say why.
        """
        few = 4 * self.recipe.batch_size
        tensors = {name: getattr(self.dataset, name)[:few] for name in TENSORS}
        dataset = replace(self.dataset, **tensors)
        sample = replace(self, dataset=dataset, recipe=replace(self.recipe, epochs=1, scales=()))
        try:
            sample.train(trial, device)  # warms up
            _, outcome = sample.train(trial, device)
        except Exception:
            return None
        rate = outcome["images_per_second"]
        if not rate:  # rounded to 0.0
            return None
        # A forward pass takes about a third of a training step, and a pixel as long as another.
        epochs = sum(scale**2 for scale in self.recipe.epoch_scales)
        train_count, test_count = len(self.dataset.train_images), len(self.dataset.test_images)
        images = epochs * train_count + test_count / 3
        return images / rate

    def warn_of_emulation(
        self,
        trials: Sequence[Trial],
        device: str | torch.device,
        *,
        at_once: int = 1,
        seconds: float | None = None,
    ) -> None:
        """Warn where trials are to run in bfloat16 on a processor that only emulates it.

        Args:
            trials: those that are to run; without any there is nothing to warn of.
            device: where, as for `check_device`.
            at_once: how many of them run side by side.
            seconds: how many one takes; measured where not known.
        """
        device = check_device(device)
        precision = resolve_precision(self.precision, device)
        if not trials or device.type != "cpu" or precision != "bfloat16" or cpu_has_bfloat16():
            return
        seconds = seconds or self.estimate_seconds(trials[-1], device)
        whole = duration(len(trials), at_once=at_once, seconds=seconds)
        warnings.warn(
            f"bfloat16 is emulated on this processor, {provenance(device)['device']}, and takes "
            f"about ten times as long as where it is built in: {len(trials)} trials take {whole}. "
            "precision='float32' (--precision float32) is faster here, but no pair for trials in "
            "bfloat16",
            stacklevel=3,
        )


def duration(trials: int, *, at_once: int, seconds: float | None) -> str:
    """How long so many trials take, at_once side by side, of so many seconds each: in words."""
    if seconds is None:
        return "an unknown time"
    rounds = ceil(trials / at_once)
    try:
        return f"about {timedelta(seconds=round(rounds * seconds))}"
    except OverflowError:
        return "more than a million years"


def check_arms(
    backbone: str, arms: Iterable[str | Spec], *, seeds: int, at: str | None = None
) -> list[Spec]:
    """The arms as `Spec` objects, each once; nothing is drawn or loaded for that.

    Args:
        backbone, at: as for `eca_lab.training.train.train_network`. A function is only imported:
            what its network takes is known with the data set.
        arms: specs, or their text.
        seeds: how many there are to be of each.

    Raises:
        TypeError, ValueError: for no arms, so many seeds, an arm that the backbone cannot take, or
            a function that cannot be imported.
    """
    check_integer("seeds", seeds, most=MOST_SEEDS)
    specs = list(dict.fromkeys(map(parse_spec, arms)))
    if not specs:
        raise ValueError("arms=[]: accepted is at least one spec, such as eca")
    check_at(backbone, at)
    if is_function(backbone):
        import_function(backbone)
        return specs
    with torch.device("meta"):
        model = build_model(backbone)
        for spec in specs:
            add_attention(model, spec)
    return specs


def plan_sweep(
    dataset: Dataset,
    backbone: str,
    arms: Iterable[str | Spec],
    *,
    seeds: int,
    recipe: Recipe,
    precision: str = "float32",
    fused: bool = False,
    keep: int = 0,
    at: str | None = None,
) -> Plan:
    """The `Plan` of a sweep: seeds 0 to seeds - 1 of every arm.

    Arms that resolve to the same network are one trial per seed, under the name that gives the
    kernel size. Where one arm cannot train fused none does, with a warning: trials of different
    paths would be no pairs.

    Args:
        dataset, backbone, recipe, precision, fused, at: as for
            `eca_lab.training.train.train_network`.
        arms: specs, or their text.
        seeds: how many trials there are of each arm.
        keep: of how many seeds the networks are kept.

    Raises:
        TypeError, ValueError: as `check_arms`; a batch of more than all training images.
    """
    check_choice("precision", precision, PRECISIONS)
    check_integer("batch_size", recipe.batch_size, most=len(dataset.train_images))
    specs = check_arms(backbone, arms, seeds=seeds, at=at)
    if fused and (reasons := _obstacles(backbone, specs)):
        fused = False
        warnings.warn(f"all arms train by the modules, not fused: {reasons}", stacklevel=2)
    described = {
        arm: trial_description(dataset, backbone, arm, seed=0, recipe=recipe, at=at)
        for arm in specs
    }
    networks = {arm: trial_identity(description) for arm, description in described.items()}
    runs: dict[str, Spec] = {}  # network -> the arm that runs it
    for arm in sorted(specs, key=lambda arm: arm.kernel_sizes is None):
        runs.setdefault(networks[arm], arm)
    chosen = {arm: runs[networks[arm]] for arm in specs}
    trials = []
    for seed in range(seeds):
        for arm in dict.fromkeys(chosen.values()):
            description = {**described[arm], "seed": seed}
            trials.append(Trial(arm, seed, trial_identity(description), description))
    return Plan(
        dataset=dataset,
        backbone=backbone,
        recipe=recipe,
        trials=tuple(trials),
        duplicates={arm: same for arm, same in chosen.items() if arm != same},
        precision=precision,
        fused=fused,
        keep=keep,
        at=at,
    )


def _obstacles(backbone: str, arms: Iterable[Spec]) -> str:
    """Which arms cannot train fused, and why; empty where all can."""
    if is_function(backbone):
        return f"the blocks of {backbone} are not ours"
    with torch.device("meta"):
        reasons = {arm: obstacle(build_model(backbone, arm)) for arm in arms}
    return "; ".join(f"{arm}: {reason}" for arm, reason in reasons.items() if reason)
