"""The panel of the reduction: what SE, SE-GC and ECA let channels tell each other."""

from functools import lru_cache
from typing import ClassVar

import ipywidgets
from markupsafe import Markup

from eca_lab.checks import check_choice, check_integer
from eca_lab.explorers.panel import Panel, button, table, wrapped
from eca_lab.explorers.reduction_picture import ReductionPicture
from eca_lab.kernel_size import check_kernel_size


class ReductionExplorer(Panel):
    """Slide C, r, k and groups; see what SE, SE-GC and ECA let channels tell each other.

    Side by side: the matrix that takes channel means to logits (of SE, whose ReLU bends the map,
    its Jacobian W2 D W1 at one descriptor y), its singular values, its rank, and its cost.

    Args:
        channels: C, an integer within `CHANNEL_LIMITS`; 64 if left out.
        reduction: r of SE, an integer from 1 to C; 16 if left out.
        kernel_size: k of ECA, odd and at most C; 3 if left out.
        groups: g of SE-GC, a divisor of C; 16 if left out.
        seed: of the random weights and of y, a non-negative integer.
        weights: "random", or the name of a layer of `trained`, which fixes all but the seed: what
            is given beside it must agree.
        trained: layer name -> dict with "se", an `eca_lab.attention.SE`; "eca", an ECA of as many
            channels; and, if at hand, "se_gc", an SEGroup, and "y", a (C,) descriptor, such as the
            mean over images of what SE's `squeeze` gives. SE-GC and y are random without them.

    All but trained can be read and set as attributes. Setting weights to a layer sets the rest to
    that layer's; setting one of the rest makes the weights random again. Where C no longer has room
    for r or k, or is no multiple of groups, these are lowered, and the status line says so. Any
    other value that is not accepted raises an error that names it; typed into a box, it shows that
    message instead. So do trained modules of other classes or widths.
    """

    STATE = ("channels", "reduction", "kernel_size", "groups", "seed", "weights")
    CHANNEL_LIMITS = (8, 512)
    CHANNEL_STOPS = (8, 16, 32, 64, 128, 256, 512)
    LAST_KERNEL_STOP = 31  # the slider's; the box takes more

    PRESETS: ClassVar = {
        "ResNet-50, stage 1": {"channels": 256, "reduction": 16, "kernel_size": 5, "groups": 16},
        "no reduction": {"reduction": 1},
        "no interaction": {"kernel_size": 1},
    }

    def __init__(
        self,
        channels=None,
        reduction=None,
        kernel_size=None,
        groups=None,
        seed=0,
        weights="random",
        trained=None,
    ):
        self._trained = _checked_layers(trained or {}, self.CHANNEL_LIMITS)
        given = dict(zip(self.STATE, (channels, reduction, kernel_size, groups), strict=False))
        given = {name: value for name, value in given.items() if value is not None}
        usual = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16}
        if weights in self._trained:
            usual.update(self._sizes_of(weights, usual["groups"]))
        picture = ReductionPicture(self.CHANNEL_LIMITS[1])
        super().__init__(picture, **{**usual, **given}, seed=seed, weights=weights)

    @property
    def measures(self):
        """DataFrame indexed by SE, SE-GC and ECA: cost, and the measures of `eca_lab.jacobian`.

        Columns: spec, parameters, multiply_adds (of one image, without the squeeze), rank,
        effective_rank, diagonal_share, bandwidth.
        """
        import pandas as pd

        rows = {name: module["measures"] for name, module in self._modules.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self):
        """The constructor call that gives an equal panel of the same trained layers."""
        call = super().__repr__()
        return call if self.weights == "random" else f"{call[:-1]}, trained=trained)"

    def _arguments(self):
        state = dict(self._state)
        if not state["seed"]:
            del state["seed"]
        if state["weights"] == "random":
            del state["weights"]
            return state
        # All that the layer fixes goes without saying.
        fixed = ["channels", "reduction", "kernel_size"]
        fixed += ["groups"] if "se_gc" in self._trained[self.weights] else []
        return {name: value for name, value in state.items() if name not in fixed}

    def _result(self):
        ranks = ", ".join(f"{name} {rank}" for name, rank in self.measures["rank"].items())
        return f"ranks {ranks} of {self.channels}"

    def _build_controls(self):
        def kernels():
            return range(1, min(self.channels, self.LAST_KERNEL_STOP) + 1, 2)

        def octaves():
            return [2**n for n in range(self.channels.bit_length())]

        seed = ipywidgets.IntText(description="seed", layout=ipywidgets.Layout(width="180px"))
        seed.observe(lambda change: self._try(seed=change.new), "value")
        self._syncs.append(lambda: setattr(seed, "value", self.seed))
        again = button("Draw again", lambda: self._try(seed=self.seed + 1))
        again.icon = "random"
        weights = [("random", "random"), *((f"trained, {each}", each) for each in self._trained)]
        return [
            self._row(
                "channels", "channels C", lambda: self.CHANNEL_STOPS, "channels C, any whole number"
            ),
            self._row("reduction", "reduction r", octaves, "reduction r, at most C"),
            self._row("kernel_size", "kernel k", kernels, "kernel k, odd and at most C", step=2),
            self._row(
                "groups", "groups g", lambda: _divisors(self.channels), "groups g, a divisor of C"
            ),
            wrapped(seed, again),
            # With random weights alone there is nothing to choose.
            *([self._choice("weights", "weights", lambda: weights)] if self._trained else []),
        ]

    def _fitted(self, changes):
        layer = changes.get("weights", self.weights)
        if "weights" in changes and layer in self._trained:
            return {**self._sizes_of(layer, self.groups), **changes}, ""
        changed = {name: v for name, v in changes.items() if v != self._state[name]}
        if changed and "weights" not in changes:
            changes = {**changes, "weights": "random"}
        if "channels" not in changed:
            return changes, ""
        channels = changes["channels"]
        check_integer("channels", channels, *self.CHANNEL_LIMITS)
        largest = {
            "reduction": min(self.reduction, channels),
            "kernel_size": min(self.kernel_size, channels - 1 + channels % 2),
            "groups": max(each for each in _divisors(channels) if each <= self.groups),
        }
        lowered = {
            name: value
            for name, value in largest.items()
            if name not in changes and value < self._state[name]
        }
        words = ", ".join(f"{name} to {value}" for name, value in lowered.items())
        return {**changes, **lowered}, f"Lowered to fit C = {channels}: {words}" if words else ""

    def _checked(self, state):
        channels, weights = state["channels"], state["weights"]
        check_integer("channels", channels, *self.CHANNEL_LIMITS)
        check_integer("reduction", state["reduction"], 1, channels)
        check_kernel_size(state["kernel_size"], channels)
        check_integer("groups", state["groups"])
        check_choice("groups", state["groups"], _divisors(channels))
        check_integer("seed", state["seed"], 0, 2**63 - 1)
        check_choice("weights", weights, ("random", *self._trained))
        if weights != "random":
            for name, value in self._sizes_of(weights, state["groups"]).items():
                if state[name] != value:
                    raise ValueError(
                        f"{name}={state[name]} with weights={weights!r}: accepted is {value}"
                    )
        return {name: v if name == "weights" else int(v) for name, v in state.items()}

    def _sizes_of(self, layer, groups):
        """The sizes of a trained layer; groups, where it has no SE-GC, the nearest divisor."""
        modules = self._trained[layer]
        channels = modules["se"].channels
        if "se_gc" in modules:
            groups = modules["se_gc"].conv.groups
        return {
            "channels": channels,
            "reduction": modules["se"].reduction,
            "kernel_size": modules["eca"].kernel_size,
            "groups": max(each for each in _divisors(channels) if each <= groups),
        }

    def _shown(self):
        layer = self._trained.get(self.weights, {})
        self._modules = {}
        for name, key, spec in (
            ("SE", "se", f"se(r={self.reduction})"),
            ("SE-GC", "se_gc", f"se_gc(groups={self.groups})"),
            ("ECA", "eca", f"eca(k={self.kernel_size})"),
        ):
            # A trained SE is looked at where its network was, an untrained one anywhere.
            self._modules[name] = (
                _measured(layer[key], layer.get("y"), self.seed)
                if key in layer
                else _drawn(spec, self.channels, self.seed)
            )
        modules = self._modules.values()
        return self._lines(), {
            "matrices": [module["matrix"] for module in modules],
            "ranks": [module["measures"]["rank"] for module in modules],
            "spectra": [module["spectrum"] / (module["spectrum"][0] or 1) for module in modules],
            "parameters": [module["measures"]["parameters"] for module in modules],
        }

    def _lines(self):
        channels, r, k, groups = self.channels, self.reduction, self.kernel_size, self.groups
        hidden, width = channels // r, channels // groups
        return [
            Markup("<b>SE</b>: W<sub>2</sub> ReLU(W<sub>1</sub> y). ")
            + f"C // r = {channels} // {r} = {hidden} hidden {_plural(hidden, 'unit')}, so rank ≤ "
            f"{hidden}, and less where y switches some off. 2C (C // r) = 2 · {channels} · "
            f"{hidden} = {2 * channels * hidden:,} parameters.",
            Markup("<b>SE-GC</b>: ")
            + f"{groups} {_plural(groups, 'block')} of C/g = {channels}/{groups} = {width} "
            f"{_plural(width, 'channel')}. C²/g = {channels}²/{groups} = {channels * width:,} "
            "parameters.",
            Markup("<b>ECA</b>: ") + f"a channel sees those up to k // 2 = {k // 2} away. k = {k} "
            f"{_plural(k, 'parameter')}.",
            _measures_table(self.measures),
            Markup("Rank: singular values above 10<sup>−5</sup> of the largest."),
        ]


def _measured(module, y, seed):
    """What a panel shows of a module: its matrix, its spectrum and a dict of its measures.

    y is the (C,) descriptor at which to look; drawn from a normal distribution if left out.
    """
    import torch

    from eca_lab import cost, jacobian

    weight = next(module.parameters())
    if y is None:
        y = torch.randn(module.channels, generator=torch.Generator().manual_seed(seed))
    matrix = jacobian.logit_jacobian(module, y[None].to(weight))[0].cpu()
    spectrum = torch.linalg.svdvals(matrix)
    measures = {
        "spec": module.spec,
        "parameters": cost.parameters(module),
        "multiply_adds": cost.multiply_adds(module, 1, module.channels),
        **jacobian.measures(matrix[None]).drop(columns="sensitivity").to_dict("records")[0],
    }
    return {"matrix": matrix.numpy(), "spectrum": spectrum.numpy(), "measures": measures}


@lru_cache(maxsize=32)
def _drawn(spec, channels, seed):
    """`_measured` of an untrained module, the same for the same seed."""
    import torch

    from eca_lab.attention import make_attention

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _measured(make_attention(spec, channels), None, seed)


def _checked_layers(trained, limits):
    """Trained layers as `ReductionExplorer` takes them, or an error that names what is wrong."""
    if not trained:
        return {}
    from eca_lab.attention import ECA, SE, SEGroup

    kinds = {"se": SE, "eca": ECA, "se_gc": SEGroup}
    for layer, modules in trained.items():
        if layer == "random":
            raise ValueError("trained['random']: accepted is any other name of a layer")
        if not {"se", "eca"} <= modules.keys() <= {*kinds, "y"}:
            raise ValueError(
                f"trained[{layer!r}] holds {', '.join(modules)}: accepted are se and eca, and "
                "beside them se_gc and y"
            )
        found = {key: module for key, module in modules.items() if key != "y"}
        for key, module in found.items():
            if type(module) is not kinds[key]:
                raise TypeError(
                    f"trained[{layer!r}][{key!r}] is a {type(module).__name__}: accepted is "
                    f"{kinds[key].__name__}"
                )
        check_integer(f"trained[{layer!r}]: channels", modules["se"].channels, *limits)
        widths = {(module.channels,) for module in found.values()}
        widths |= {tuple(modules["y"].shape)} if "y" in modules else set()
        if len(widths) > 1:
            raise ValueError(
                f"trained[{layer!r}] has widths {widths}: accepted is one number of channels"
            )
    return trained


def _divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def _plural(number, noun):
    return noun if number == 1 else f"{noun}s"


def _measures_table(measures):
    """The measures of three modules as HTML, one column each."""
    rows = {
        "parameters": "{:,}",
        "multiply_adds": "{:,}",
        "rank": Markup("<b>{}</b>"),
        "effective_rank": "{:.1f}",
        "diagonal_share": "{:.1%}",
        "bandwidth": "{}",
    }
    columns = [("", *(name.replace("_", " ") for name in rows))]
    for name, values in measures.iterrows():
        columns.append((name, *(rows[each].format(values[each]) for each in rows)))
    return table(zip(*columns, strict=True))
