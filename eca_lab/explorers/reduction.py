"""The explorer of the reduction: what SE, SE-GC and ECA let channels tell each other."""

from functools import lru_cache
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
import traitlets

from eca_lab import figures
from eca_lab.attention import jacobian
from eca_lab.attention.kernel_size import check_kernel_size
from eca_lab.attention.modules import ECA, make_attention
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

    Setting C, r or k makes the weights random again. Where channels are set alone and have no room
    for r, k or groups, these are lowered, and the page says so.
    """

    MODULE = "reduction.js"
    SIZES = ("channels", "reduction", "kernel_size", "groups")
    STATE = ASKED = (*SIZES, "seed", "weights")
    USUAL: ClassVar = {"seed": 0, "weights": "random"}
    LIMITS: ClassVar = {"channels": (8, 512), "seed": (0, 99)}
    PRESETS: ClassVar = {
        "ResNet-50, stage 1": {"channels": 256, "reduction": 16, "kernel_size": 5, "groups": 16},
        "no reduction": {"reduction": 1},
        "no interaction": {"kernel_size": 1},
    }
    RECORDED: ClassVar = {  # all combinations: where sliders halt on a page without a kernel
        **{"channels": (16, 64, 128), "reduction": (1, 2, 4, 8, 16), "kernel_size": (1, 3, 5, 9)},
        **{"groups": (1, 4, 16), "seed": (0, 1, 2)},
    }

    def __init__(
        self,
        channels=64,
        reduction=16,
        kernel_size=3,
        groups=16,
        seed=0,
        weights="random",
        trained=None,
    ):
        self._trained = trained or {}
        self._layers = dict(_sizes_of_layers(self._trained))
        sizes = dict(zip(self.SIZES, (channels, reduction, kernel_size, groups), strict=True))
        if weights in self._layers:
            sizes = _lowered({**sizes, **self._layers[weights]})
        super().__init__(
            (*sizes.values(), seed, weights),
            **{"layers": self._layers, "limits": self.LIMITS, "recorded": self.RECORDED},
            arguments=["trained=trained"] if trained else [],
        )

    @property
    def measures(self):
        """DataFrame indexed by SE, SE-GC and ECA: cost, and the measures of
        `eca_lab.attention.jacobian`.
        """
        rows = {name: module["measures"] for name, module in self._modules().items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def _checked(self, state):
        check_integer("channels", state["channels"], *self.LIMITS["channels"])
        if state["channels"] != self.channels:
            state = _lowered(state)  # the rest gives way as soon as these channels are taken
        check_integer("reduction", state["reduction"], 1, state["channels"])
        check_kernel_size(state["kernel_size"], state["channels"])
        check_integer("groups", state["groups"])
        check_choice("groups", state["groups"], _divisors(state["channels"]))
        check_integer("seed", state["seed"], *self.LIMITS["seed"])
        check_choice("weights", state["weights"], ("random", *self._layers))
        return {name: v if name == "weights" else plain(v) for name, v in state.items()}

    @traitlets.observe(*SIZES, "weights")
    def _give_way(self, change):
        layer = self._layers.get(self.weights, {})
        sizes = {name: getattr(self, name) for name in self.SIZES}
        sizes = _lowered({**sizes, **(layer if change.name == "weights" else {})})
        with self.hold_trait_notifications():
            for name, size in sizes.items():
                setattr(self, name, size)
            if not layer.items() <= sizes.items():
                self.weights = "random"

    def _modules(self):
        """What `_measured` tells of SE, SE-GC and ECA."""
        specs = {"SE": f"se(r={self.reduction})", "SE-GC": f"se_gc(groups={self.groups})"}
        specs["ECA"] = f"eca(k={self.kernel_size})"
        modules = {name: _drawn(spec, self.channels, self.seed) for name, spec in specs.items()}
        if layer := self._trained.get(self.weights):
            modules |= {name: _measured(layer[name.lower()], layer["y"]) for name in ("SE", "ECA")}
        return modules

    def _answer(self):
        return {"modules": list(self._modules().values())}

    def _recorded(self):
        for values in product(*self.RECORDED.values()):
            yield dict(zip(self.RECORDED, values, strict=True))
        yield from self.PRESETS.values()
        for layer, sizes in self._layers.items():
            yield {**_lowered({**self.given["initial"], **sizes}), "weights": layer}

    def _result(self):
        ranks = ", ".join(f"{name} {rank}" for name, rank in self.measures["rank"].items())
        return f"ranks {ranks} of {self.channels}"

    def _figure(self):
        figure, side = figures.new_figure(7.2, 3.0), self.channels
        for number, (name, module) in enumerate(self._modules().items(), start=1):
            ax = figure.add_subplot(1, 3, number)
            trained = self.weights != "random" and name != "SE-GC"
            title = f"{name}, {'trained' if trained else 'random'}"
            title += f"\nrank {module['measures']['rank']} of {side}"
            figures.dress(ax, title, "input channel", "output channel")
            matrix = np.frombuffer(module["matrix"], np.int16).reshape(side, side) / LARGEST
            ax.imshow(matrix, **figures.SIGNED, extent=(0.5, side + 0.5, side + 0.5, 0.5))
            ax.spines[:].set(visible=True, color=figures.GREY)
            ax.grid(visible=False)
            ax.label_outer()
        return figure


def _lowered(state):
    """A state with r, k and groups lowered to what C has room for: at most C, odd, a divisor."""
    channels = state["channels"]
    return {
        **state,
        "reduction": min(state["reduction"], channels),
        "kernel_size": min(state["kernel_size"], channels - 1 + channels % 2),
        "groups": max(each for each in _divisors(channels) if each <= state["groups"]),
    }


def _divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def _measured(module, y):
    """The matrix of a module at the (C,) descriptor y, its spectrum and its measures.

    Both are bytes: the (C, C) matrix int16, in units of its largest absolute entry / `LARGEST` and
    rounded away from zero, so that 0 is what counts as zero; the spectrum float32, as shares.
    """
    matrix = jacobian.logit_jacobian(module, y[None].to(next(module.parameters())))[0].cpu()
    spectrum, largest = torch.linalg.svdvals(matrix), matrix.abs().max().item()
    steps = torch.ceil(LARGEST * (matrix.abs() / (largest or 1) - jacobian.TOLERANCE))
    measures = {name: getattr(jacobian, name)(spectrum) for name in ("rank", "effective_rank")}
    measures |= {name: getattr(jacobian, name)(matrix) for name in ("diagonal_share", "bandwidth")}
    measures = {name: value.item() for name, value in measures.items()}
    if not measures["rank"]:
        measures |= {"effective_rank": None, "diagonal_share": None}  # NaN, which JSON has not
    measures["parameters"] = cost.parameters(module)
    # ECA uses each weight for every channel. (To import torch's counter takes five seconds.)
    uses = module.channels if isinstance(module, ECA) else 1
    measures["multiply_adds"] = uses * measures["parameters"]
    return {
        "matrix": (steps * matrix.sign()).to(torch.int16).numpy().tobytes(),
        "spectrum": (spectrum / (spectrum[0] or 1)).numpy().tobytes(),
        "largest": largest,
        "measures": measures,
    }


@lru_cache(maxsize=128)
def _drawn(spec, channels, seed):
    """`_measured` of an untrained module at a random y, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make_attention(spec, channels)
    y = torch.randn(channels, generator=torch.Generator().manual_seed(seed))
    return _measured(module, y)


def _sizes_of_layers(trained):
    """Pairs of a layer and the sizes that it gives, or an error that names what is wrong."""
    for layer, modules in trained.items():
        name, se, eca = f"trained[{layer!r}]", modules["se"], modules["eca"]
        check_choice(f"{name}: types", (type(se).__name__, type(eca).__name__), [("SE", "ECA")])
        widths = eca.channels, *modules["y"].shape
        check_choice(f"{name}: widths of eca and y", widths, [2 * (se.channels,)])
        sizes = {"reduction": se.reduction, "kernel_size": eca.kernel_size}
        yield layer, {"channels": se.channels, **sizes}
