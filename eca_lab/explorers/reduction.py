"""The explorer of the reduction: what SE, SE-GC and ECA let channels tell each other."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure

from eca_lab import figures
from eca_lab.attention import jacobian
from eca_lab.attention.kernel_size import check_kernel_size
from eca_lab.attention.modules import ECA, ChannelAttention, make_attention
from eca_lab.checks import check_choice, check_integer
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.networks import cost

LARGEST = 2**15 - 1  # stands for the largest absolute entry of a matrix


class ReductionExplorer(Explorer):
    """Slide C, r, k and groups; see what SE, SE-GC and ECA let channels tell each other.

    Args:
        channels: C, an integer from 8 to 512.
        reduction: r of SE, an integer from 1 to C.
        kernel_size: k of ECA, odd and at most C.
        groups: g of SE-GC, a divisor of C.
        seed: of random weights and of the descriptor y, an integer from 0 to 99.
        weights: "random", or the name of a layer of `trained`, which then gives C, r and k.
        trained: layer name -> dict of "se" and "eca", modules of as many channels, and "y", the
            (C,) descriptor at which to look at SE.

    Raises:
        TypeError, ValueError: trained modules that do not fit; and, as a `StateError`, what is not
            accepted of the rest.

    Setting C, r or k makes the weights random again. Where channels are set alone and have no room
    for r, k or groups, these are lowered, and the page says so.
    """

    MODULE = "reduction.js"
    SIZES = ("channels", "reduction", "kernel_size", "groups")
    STATE = ASKED = (*SIZES, "seed", "weights")
    weights: str  # of STATE, as the rest of it a trait
    USUAL: ClassVar = {"seed": 0, "weights": "random"}
    LIMITS: ClassVar = {"channels": (8, 512), "seed": (0, 99)}
    PRESETS: ClassVar = {
        "ResNet-50, stage 1": {"channels": 256, "reduction": 16, "kernel_size": 5, "groups": 16},
        "no reduction": {"reduction": 1},
        "no interaction": {"kernel_size": 1},
    }
    # All combinations, for a page without a kernel, which goes to the nearest.
    RECORDED: ClassVar = {
        "channels": (16, 64, 128),
        "reduction": (1, 2, 4, 8, 16),
        "kernel_size": (1, 3, 5, 9),
        "groups": (1, 4, 16),
        "seed": (0, 1, 2),
    }

    def __init__(
        self,
        channels: int = 64,
        reduction: int = 16,
        *,
        kernel_size: int = 3,
        groups: int = 16,
        seed: int = 0,
        weights: str = "random",
        trained: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._trained = trained or {}
        self._layers = dict(_sizes_of_layers(self._trained))
        sizes = {
            "channels": channels,
            "reduction": reduction,
            "kernel_size": kernel_size,
            "groups": groups,
        }
        if weights in self._layers:
            sizes = _lowered({**sizes, **self._layers[weights]})
        super().__init__(
            (*sizes.values(), seed, weights),
            layers=self._layers,
            limits=self.LIMITS,
            arguments=["trained=trained"] if trained else [],
        )

    @property
    def table(self) -> pd.DataFrame:
        """DataFrame indexed by SE, SE-GC and ECA: cost, and the measures of
        `eca_lab.attention.jacobian`.
        """
        rows = {name: module["measures"] for name, module in self._modules().items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        least, most = self.LIMITS["channels"]
        check_integer("channels", state["channels"], least=least, most=most)
        if state["channels"] != self.channels:
            state = _lowered(state)  # the rest gives way as soon as these channels are taken
        check_integer("reduction", state["reduction"], least=1, most=state["channels"])
        check_kernel_size(state["kernel_size"], state["channels"])
        check_integer("groups", state["groups"])
        check_choice("groups", state["groups"], _divisors(state["channels"]))
        least, most = self.LIMITS["seed"]
        check_integer("seed", state["seed"], least=least, most=most)
        check_choice("weights", state["weights"], ("random", *self._layers))
        numbers = {name: plain(state[name]) for name in (*self.SIZES, "seed")}
        return {**numbers, "weights": state["weights"]}

    @traitlets.observe(*SIZES, "weights")
    def _give_way(self, change: Any) -> None:
        layer = self._layers.get(self.weights, {})
        sizes = {name: getattr(self, name) for name in self.SIZES}
        if change.name == "weights":
            sizes.update(layer)
        sizes = _lowered(sizes)
        with self.hold_trait_notifications():
            for name, size in sizes.items():
                setattr(self, name, size)
            if not layer.items() <= sizes.items():
                self.weights = "random"

    def _modules(self) -> dict[str, dict[str, Any]]:
        """What `_measured` tells of SE, SE-GC and ECA."""
        specs = {
            "SE": f"se(r={self.reduction})",
            "SE-GC": f"se_gc(groups={self.groups})",
            "ECA": f"eca(k={self.kernel_size})",
        }
        modules = {name: _drawn(spec, self.channels, self.seed) for name, spec in specs.items()}
        if layer := self._trained.get(self.weights):
            modules["SE"] = _measured(layer["se"], layer["y"])
            modules["ECA"] = _measured(layer["eca"], layer["y"])
        return modules

    def _answer(self) -> dict[str, Any]:
        return {"modules": list(self._modules().values())}

    def _recorded(self) -> Iterator[dict[str, Any]]:
        for values in product(*self.RECORDED.values()):
            yield dict(zip(self.RECORDED, values, strict=True))
        yield from self.PRESETS.values()
        for layer, sizes in self._layers.items():
            initial = _lowered({**self.given["initial"], **sizes})
            yield {**initial, "weights": "random"}
            for seed in self.RECORDED["seed"]:
                yield {**initial, "weights": layer, "seed": seed}
            for groups in self.RECORDED["groups"]:
                yield _lowered({**initial, "weights": layer, "groups": groups})

    def _result(self) -> str:
        ranks = ", ".join(f"{name} {rank}" for name, rank in self.table["rank"].items())
        return f"ranks {ranks} of {self.channels}"

    def _figure(self) -> Figure:
        side = self.channels
        figure = figures.new_figure(7.2, 3.0)
        for number, (name, module) in enumerate(self._modules().items(), start=1):
            ax = figure.add_subplot(1, 3, number)
            kind = "random" if self.weights == "random" or name == "SE-GC" else "trained"
            rank = module["measures"]["rank"]
            title = f"{name}, {kind}\nrank {rank} of {side}"
            figures.dress(ax, title, "input channel", "output channel")
            matrix = np.frombuffer(module["matrix"], np.int16).reshape(side, side) / LARGEST
            ax.imshow(matrix, **figures.SIGNED, extent=(0.5, side + 0.5, side + 0.5, 0.5))
            ax.spines[:].set(visible=True, color=figures.GREY)
            ax.grid(visible=False)
            ax.label_outer()
        return figure


def _lowered(state: dict[str, Any]) -> dict[str, Any]:
    """A state with r, k and groups lowered to what C has room for: at most C, odd, a divisor."""
    channels = state["channels"]
    return {
        **state,
        "reduction": min(state["reduction"], channels),
        "kernel_size": min(state["kernel_size"], channels - 1 + channels % 2),
        "groups": max(g for g in _divisors(channels) if g <= state["groups"]),
    }


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _measured(module: ChannelAttention, y: torch.Tensor) -> dict[str, Any]:
    """The matrix of a module at the (C,) descriptor y, its spectrum and its measures.

    Both are bytes: the (C, C) matrix int16, in units of its largest absolute entry / `LARGEST` and
    rounded away from zero, so that 0 is what counts as zero; the spectrum float32, as shares.
    """
    matrix = jacobian.logit_jacobian(module, y[None].to(next(module.parameters())))[0].cpu()
    spectrum = torch.linalg.svdvals(matrix)
    largest = matrix.abs().max().item()
    steps = torch.ceil(LARGEST * (matrix.abs() / (largest or 1) - jacobian.TOLERANCE))
    rank = jacobian.rank(spectrum).item()
    parameters = cost.parameters(module)
    # ECA uses each weight for every channel. (To import torch's counter takes five seconds.)
    uses = module.channels if isinstance(module, ECA) else 1
    measures = {
        "rank": rank,
        # None for NaN, which JSON has not.
        "effective_rank": jacobian.effective_rank(spectrum).item() if rank else None,
        "diagonal_share": jacobian.diagonal_share(matrix).item() if rank else None,
        "bandwidth": jacobian.bandwidth(matrix).item(),
        "parameters": parameters,
        "multiply_adds": uses * parameters,
    }
    return {
        "matrix": (steps * matrix.sign()).to(torch.int16).numpy().tobytes(),
        "spectrum": (spectrum / (spectrum[0] or 1)).numpy().tobytes(),
        "largest": largest,
        "measures": measures,
    }


@lru_cache(maxsize=128)
def _drawn(spec: str, channels: int, seed: int) -> dict[str, Any]:
    """`_measured` of an untrained module at a random y, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make_attention(spec, channels)
    assert isinstance(module, ChannelAttention)  # "none" is never drawn
    y = torch.randn(channels, generator=torch.Generator().manual_seed(seed))
    return _measured(module, y)


def _sizes_of_layers(
    trained: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, dict[str, int]]]:
    """Pairs of a layer and the sizes that it gives, or an error that names what is wrong."""
    for layer, modules in trained.items():
        name = f"trained[{layer!r}]"
        se = modules["se"]
        eca = modules["eca"]
        check_choice(f"{name}: types", (type(se).__name__, type(eca).__name__), [("SE", "ECA")])
        widths = eca.channels, *modules["y"].shape
        check_choice(f"{name}: widths of eca and y", widths, [2 * (se.channels,)])
        sizes = {
            "channels": se.channels,
            "reduction": se.reduction,
            "kernel_size": eca.kernel_size,
        }
        yield layer, sizes
