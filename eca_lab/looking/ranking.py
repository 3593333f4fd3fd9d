"""What each channel attention of a network is worth: ranked by what it costs to freeze it.

Frozen attention gives every image the same weights, the mean over images. What hardly depends on
the image can be frozen for nothing, and what is frozen can be folded into its neighbours, see
`eca_lab.networks.fold`.

Shapes: N images, C channels of a layer.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from eca_lab.checks import check_integer, check_number, shown
from eca_lab.files import read_regular, written_whole
from eca_lab.looking import probe
from eca_lab.networks import passes
from eca_lab.progress import progress_bar
from eca_lab.provenance import code_version, provenance

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Ranking:
    """What freezing costs; made by `rank_attention`. All costs are percentage points of top-1.

    The layers were ordered, and the constants taken, on one half of the images: `chosen` is the
    cost there, and flatters what was chosen by it. `told` is the cost on the other half, with its
    95% interval low and high (`paired_interval`): for one set that was chosen on the first half.

    Attributes:
        top1: of the network as it is, in percent, on the half that tells.
        images: how many images chose, and how many tell.
        layers: a row a layer, frozen alone, the cheapest first: chosen, told, low, high.
        sets: a row for each number of layers, the cheapest that are frozen together: the layer that
            it adds, chosen, told, low, high; indexed by the number, from 1.
        constants: layer -> (C,) float32, the mean weights over the images that chose.
        left_out: what was not ranked, and why.
    """

    top1: float
    images: tuple[int, int]
    layers: pd.DataFrame
    sets: pd.DataFrame
    constants: Mapping[str, np.ndarray]
    left_out: Mapping[str, str]

    def cheapest(self, within: float = 0.5) -> dict[str, np.ndarray]:
        """The largest set that cost at most so many points where it was chosen: layer -> constants.

        Empty if every layer costs more. ValueError for what is no number.
        """
        check_number("within", within)
        count = max(self.sets.index[self.sets["chosen"] <= within], default=0)
        return {layer: self.constants[layer] for layer in self.sets["layer"][:count]}


def rank_attention(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    labels: Tensor | ArrayLike | None = None,
    *,
    prepare: passes.Prepare | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> Ranking:
    """Freeze every channel attention of a classifier in turn, then more and more: a `Ranking`.

    Each of n layers is frozen alone, then the cheapest two together, three, and so on: 2 n passes
    over the images. A random half of the images gives the constants and the order, the other half
    tells the costs.

    Args:
        model: any whose channel attention is found, see `eca_lab.looking.probe.record_weights`;
            gives logits (N, classes), see `eca_lab.networks.passes.logits_of`.
        images: (N, ...), or batches that can be gone through again and again in the same order: a
            DataLoader that does not shuffle, or a list.
        labels: (N,), the classes; left out, if the batches bring them.
        prepare: makes what the model is called with of a batch.
        batch_size: how many images of a tensor run at once.
        seed: of the halves.

    Raises:
        TypeError, ValueError: a model in which no attention is found, or that gives no logits; no
            labels, or not one for each image; fewer than four images; images that come in another
            order every time, or only once.
    """
    _check_order(images)
    passing = _Passing(model, images, labels, prepare=prepare, batch_size=batch_size)
    right = passing.right({})
    count = len(right)
    check_integer("number of images", count, least=4)
    choosing = np.zeros(count, bool)
    choosing[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    constants, left_out = passing.means(choosing)

    def costs(frozen: Iterable[str]) -> dict[str, float]:
        lost = passing.right({layer: constants[layer] for layer in frozen})
        chosen = right[choosing].mean() - lost[choosing].mean()
        low, high = paired_interval(right[~choosing], lost[~choosing])
        told = right[~choosing].mean() - lost[~choosing].mean()
        found = {"chosen": chosen, "told": told, "low": low, "high": high}
        return {name: 100 * float(value) for name, value in found.items()}

    with progress_bar(2 * len(constants) - 1, "pass") as bar:
        alone = {}
        for layer in constants:
            alone[layer] = costs([layer])
            bar.update()
        layers = pd.DataFrame.from_dict(alone, orient="index").rename_axis("layer")
        layers = layers.sort_values("chosen", kind="stable")
        sets = []
        for size, layer in enumerate(layers.index, start=1):
            together = alone[layer] if size == 1 else costs(layers.index[:size])
            sets.append({"layer": layer, **together})
            bar.update(size > 1)
    return Ranking(
        top1=100 * float(right[~choosing].mean()),
        images=(int(choosing.sum()), int((~choosing).sum())),
        layers=layers,
        sets=pd.DataFrame(sets, pd.RangeIndex(1, len(sets) + 1, name="frozen")),
        constants=constants,
        left_out=left_out,
    )


def paired_interval(before: ArrayLike, after: ArrayLike) -> tuple[float, float]:
    """95% interval of the share that is lost, of the same images before and after.

    Of two proportions in pairs, by the adjusted Wald interval: one image more of either kind that
    changes, two more in all (Bonett and Price 2012, J. Educ. Behav. Stat. 37(4)).

    Args:
        before, after: (N,), whether each image was classified rightly.

    Raises:
        ValueError: shapes that are not (N,) and (N,), or N = 0.
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    if before.ndim != 1 or before.shape != after.shape or not len(before):
        shapes = f"before of shape {before.shape}, after of {after.shape}"
        raise ValueError(f"{shapes}: accepted are (N,) and (N,), of one image or more")
    n = len(before) + 2
    lost = ((before & ~after).sum() + 1) / n
    won = ((after & ~before).sum() + 1) / n
    middle = lost - won
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * np.sqrt((lost + won - middle**2) / n)
    return max(-1.0, float(middle - reach)), min(1.0, float(middle + reach))


def save_ranking(path: str | Path, ranking: Ranking, card: Mapping[str, Any]) -> None:
    """Write a ranking, made on the CPU, to a JSON file in a folder that is there.

    The constants are rounded to six decimals. card is that of the network that was ranked. OSError
    where the file cannot be written.
    """
    about = {
        "network": {name: card[name] for name in ("arm", "sha256", "trial")},
        "top1": ranking.top1,
        "images": ranking.images,
        "layers": ranking.layers.reset_index().to_dict("records"),
        "sets": ranking.sets.reset_index().to_dict("records"),
        "constants": {
            layer: [round(float(value), 6) for value in values]
            for layer, values in ranking.constants.items()
        },
        "left_out": dict(ranking.left_out),
        "code": code_version(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(torch.device("cpu")),
    }
    with written_whole(path) as file:
        file.write(json.dumps(about).encode() + b"\n")


def load_ranking(path: str | Path, card: Mapping[str, Any]) -> Ranking:
    """The `Ranking` in a file of `save_ranking`.

    FileNotFoundError; ValueError for another file, or one of another network than the card's.
    """
    try:
        about = json.loads(read_regular(path))
        recorded = about["network"]["sha256"]
        if recorded != card["sha256"]:
            raise ValueError(f"it is of weights with SHA-256 {recorded}, not {card['sha256']}")
        constants = {
            layer: np.array(values, np.float32) for layer, values in about["constants"].items()
        }
        chose, told = about["images"]
        return Ranking(
            top1=about["top1"],
            images=(chose, told),
            layers=pd.DataFrame(about["layers"]).set_index("layer"),
            sets=pd.DataFrame(about["sets"]).set_index("frozen"),
            constants=constants,
            left_out=about["left_out"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no ranking of this network: {error}") from None


class _Passing:
    """Passes of the same labelled images through one model."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor | Iterable[Any],
        labels: Tensor | ArrayLike | None,
        *,
        prepare: passes.Prepare | None,
        batch_size: int,
    ) -> None:
        self._model = model
        self._images = images
        self._labels = None if labels is None else torch.as_tensor(labels).cpu()
        self._prepare = prepare
        self._batch_size = batch_size
        self._seen: Tensor | None = None  # the labels of the first pass

    def _batches(self) -> Iterator[tuple[Any, Tensor]]:
        """Batches and their labels, (n,) each, checked to be those of the first time."""
        begin = 0
        seen = []
        for batch, labels in passes.batches(self._images, self._batch_size):
            count = passes.count_of(batch)
            if self._labels is not None:
                labels = self._labels[begin : begin + count]
            if labels is None:
                raise ValueError("labels: missing; accepted are integers, one for each image")
            labels = torch.as_tensor(labels).cpu()
            if labels.shape != (count,) or labels.is_floating_point():
                has = f"{labels.dtype} {tuple(labels.shape)}"
                raise ValueError(f"labels={has}: accepted are {count} integers for {count} images")
            seen.append(labels)
            begin += count
            yield batch, labels
        if self._labels is not None and len(self._labels) != begin:
            raise ValueError(f"labels: {len(self._labels)}; accepted are {begin}, one an image")
        found = torch.cat(seen)
        if self._seen is not None and not torch.equal(found, self._seen):
            raise ValueError("images: they come in another order every time; accepted is one order")
        self._seen = found

    def right(self, frozen: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which images are classified rightly with these layers frozen, bool (N,)."""
        found = []
        with ExitStack() as stack:
            stack.enter_context(passes.evaluating(self._model))
            stack.enter_context(torch.inference_mode())
            for layer, weights in frozen.items():
                stack.enter_context(probe.intervene(self._model, layer, probe.freeze(weights)))
            for batch, labels in self._batches():
                logits = passes.logits_of(passes.call(self._model, batch, self._prepare))
                if len(logits) != len(labels):
                    accepted = f"accepted is one for each of {len(labels)} images"
                    raise ValueError(f"the model gives {len(logits)} rows of logits: {accepted}")
                found.append(logits.argmax(1).cpu() == labels)
        return torch.cat(found).numpy()

    def means(self, chosen: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Layer -> mean weights (C,) over the chosen images; and what was left out."""
        sums: dict[str, np.ndarray] = {}
        counts: dict[str, int] = {}
        left_out: dict[str, str] = {}
        begin = 0
        for batch, labels in self._batches():
            record = probe.record_weights(self._model, [batch], prepare=self._prepare)
            left_out |= record.left_out
            for layer, weights in record.weights.items():
                of_chosen = weights[chosen[begin : begin + len(labels)]].sum(0, dtype=np.float64)
                sums[layer] = sums.get(layer, 0) + of_chosen
                counts[layer] = counts.get(layer, 0) + len(labels)
            begin += len(labels)
        for layer, count in counts.items():
            if count < begin:
                left_out.setdefault(layer, "it does not run in every pass")
        means = {
            layer: (total / chosen.sum()).astype(np.float32)
            for layer, total in sums.items()
            if layer not in left_out
        }
        return means, left_out


def _check_order(images: object) -> None:
    """Raise for images that come only once, or shuffled."""
    if isinstance(images, DataLoader) and not isinstance(images.sampler, SequentialSampler):
        sampler = type(images.sampler).__name__
        raise ValueError(
            f"images: a DataLoader with a {sampler}; accepted is one with shuffle=False, since "
            "every image is compared with itself"
        )
    if isinstance(images, Iterator):
        raise TypeError(
            f"images={shown(images)}: accepted is what can be gone through more than once, such as "
            "a tensor, a list of batches or a DataLoader"
        )
