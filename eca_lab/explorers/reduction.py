"""The panel of the reduction: what SE, SE-GC and ECA let channels tell each other."""

import html
from functools import lru_cache
from numbers import Integral
from typing import ClassVar

import ipywidgets

from eca_lab import checks
from eca_lab import kernel_size as ks
from eca_lab.explorers.panel import (
    Panel,
    check_within,
    nearest,
    new_box,
    new_slider,
    rows_as_html,
    state,
)
from eca_lab.explorers.reduction_picture import ReductionPicture


class ReductionExplorer(Panel):
    """Slide C, r, k and groups; see what SE, SE-GC and ECA let channels tell each other.

    Side by side: the matrix that takes channel means to logits (of SE, whose ReLU bends the map,
    its Jacobian W2 D W1 at one descriptor y), its singular values, its rank, and its cost.

    Args:
        channels: C, an integer within `CHANNEL_LIMITS`.
        reduction: r of SE, an integer from 1 to C.
        kernel_size: k of ECA, odd and at most C.
        groups: g of SE-GC, a divisor of C.
        seed: of the random weights and of y, a non-negative integer.
        weights: "random", or the name of a layer of `trained`, which fixes all but the seed: what
            is given beside it must agree.
        trained: layer name -> dict with "se", an `eca_lab.attention.SE`; "eca", an ECA of as many
            channels; and, if at hand, "se_gc", an SEGroup, and "y", a (C,) descriptor, such as the
            mean over images of what SE's `squeeze` gives. SE-GC and y are random without them.

    What is left out is 64, 16, 3, 16 and 0, or as in the trained layer. All but trained can be read
    and set as attributes. Setting weights to a layer sets the rest to that layer's; setting one of
    the rest makes the weights random again. Where C no longer has room for r or k, or is no
    multiple of groups, these are lowered, and the status line says so. Any other value that is not
    accepted raises a ValueError or a TypeError that names it; typed into a box, it shows that
    message instead.

    Raises:
        TypeError, ValueError: also for trained modules of other classes or widths.
    """

    CHANNEL_LIMITS = (8, 512)
    CHANNEL_STOPS = (8, 16, 32, 64, 128, 256, 512)
    LAST_KERNEL_STOP = 31  # the slider's; the box takes more

    PRESETS: ClassVar = {
        "ResNet-50, stage 1": {"channels": 256, "reduction": 16, "kernel_size": 5, "groups": 16},
        "no reduction": {"reduction": 1},
        "no interaction": {"kernel_size": 1},
    }

    channels = state("channels")
    reduction = state("reduction")
    kernel_size = state("kernel_size")
    groups = state("groups")
    seed = state("seed")
    weights = state("weights")

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
        given = {
            "channels": channels,
            "reduction": reduction,
            "kernel_size": kernel_size,
            "groups": groups,
        }
        given = {name: value for name, value in given.items() if value is not None}
        usual = {"channels": 64, "reduction": 16, "kernel_size": 3, "groups": 16}
        if weights in self._trained:
            usual.update(self._sizes_of(weights, usual["groups"]))
        super().__init__(
            ReductionPicture(self.CHANNEL_LIMITS[1]),
            **{**usual, **given},
            seed=seed,
            weights=weights,
        )

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
        """The constructor call that gives an equal panel; the seed only where it is not 0."""
        state = dict(self._state)
        if state["weights"] == "random":
            del state["weights"]
        else:
            # All that the layer fixes goes without saying.
            kept = ("groups", "seed", "weights")
            if "se_gc" in self._trained[self.weights]:
                kept = ("seed", "weights")
            state = {name: state[name] for name in kept}
        if not state["seed"]:
            del state["seed"]
        shown = [f"{name}={value!r}" for name, value in state.items()]
        shown += ["trained=trained"] if "weights" in state else []
        return f"ReductionExplorer({', '.join(shown)})"

    def _result(self):
        ranks = ", ".join(f"{name} {rank}" for name, rank in self.measures["rank"].items())
        return f"ranks {ranks} of {self.channels}"

    def _in_words(self):
        return (
            f"C = {self.channels}, r = {self.reduction}, k = {self.kernel_size}, "
            f"{self.groups} groups, {self.weights} weights, seed {self.seed}"
        )

    def _build_controls(self):
        self._channels_slider = new_slider(
            ipywidgets.IntSlider, "channels C", 0, len(self.CHANNEL_STOPS) - 1, 1
        )
        self._reduction_slider = new_slider(ipywidgets.IntSlider, "reduction r", 0, 1, 1)
        self._kernel_slider = new_slider(ipywidgets.IntSlider, "kernel k", 0, 1, 1)
        self._groups_slider = new_slider(ipywidgets.IntSlider, "groups g", 0, 1, 1)
        self._channels_box = new_box(ipywidgets.IntText, "channels C, any whole number", 1)
        self._reduction_box = new_box(ipywidgets.IntText, "reduction r, at most C", 1)
        self._kernel_box = new_box(ipywidgets.IntText, "kernel k, odd and at most C", 2)
        self._groups_box = new_box(ipywidgets.IntText, "groups g, a divisor of C", 1)
        self._seed_box = ipywidgets.IntText(
            description="seed", layout=ipywidgets.Layout(width="180px")
        )
        draw = ipywidgets.Button(description="Draw again", icon="random")
        draw.layout = ipywidgets.Layout(width="auto")
        draw.on_click(lambda _: self._try(seed=self.seed + 1))
        self._weights_choice = ipywidgets.Dropdown(
            options=[("random", "random"), *((f"trained, {each}", each) for each in self._trained)],
            description="weights",
            layout=ipywidgets.Layout(width="300px"),
        )
        self._observe(
            [
                (self._channels_slider, "channels", self.CHANNEL_STOPS.__getitem__),
                (self._channels_box, "channels", int),
                (self._reduction_slider, "reduction", lambda i: _octave_stops(self.channels)[i]),
                (self._reduction_box, "reduction", int),
                (self._kernel_slider, "kernel_size", lambda i: 2 * i + 1),
                (self._kernel_box, "kernel_size", int),
                (self._groups_slider, "groups", lambda i: _divisors(self.channels)[i]),
                (self._groups_box, "groups", int),
                (self._seed_box, "seed", int),
                (self._weights_choice, "weights", str),
            ]
        )
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        return [
            ipywidgets.HBox([self._channels_slider, self._channels_box]),
            ipywidgets.HBox([self._reduction_slider, self._reduction_box]),
            ipywidgets.HBox([self._kernel_slider, self._kernel_box]),
            ipywidgets.HBox([self._groups_slider, self._groups_box]),
            ipywidgets.Box([self._seed_box, draw], layout=wrap),
            # With random weights alone there is nothing to choose.
            *([self._weights_choice] if self._trained else []),
            ipywidgets.Box(self._buttons(self.PRESETS), layout=wrap),
        ]

    def _set(self, **changes):
        note = ""
        if self._state:
            changes, note = self._fitted(changes)
        super()._set(**changes)
        self._status.value = note

    def _fitted(self, changes):
        """The changes, and those that they entail, with a note on what was lowered."""
        layer = changes.get("weights", self.weights)
        if "weights" in changes and layer in self._trained:
            return {**self._sizes_of(layer, self.groups), **changes}, ""
        changed = {name: v for name, v in changes.items() if v != self._state[name]}
        if changed and "weights" not in changes:
            changes = {**changes, "weights": "random"}
        if "channels" not in changed:
            return changes, ""
        channels = changes["channels"]
        check_within("channels", channels, self.CHANNEL_LIMITS)
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

    def _checked(self, channels, reduction, kernel_size, groups, seed, weights):
        check_within("channels", channels, self.CHANNEL_LIMITS)
        checks.check_integer("reduction", reduction)
        if reduction > channels:
            raise ValueError(f"reduction={reduction}: accepted are at most channels={channels}")
        ks.check_kernel_size(kernel_size, channels)
        checks.check_integer("groups", groups)
        if channels % groups:
            raise ValueError(f"groups={groups}: accepted are divisors of channels={channels}")
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise TypeError(f"seed={seed!r}: accepted is an integer")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed}: accepted are 0 to 2^63 - 1")
        if weights != "random" and weights not in self._trained:
            accepted = ", ".join(map(repr, ("random", *self._trained)))
            raise ValueError(f"weights={weights!r}: accepted are {accepted}")
        state = {
            "channels": int(channels),
            "reduction": int(reduction),
            "kernel_size": int(kernel_size),
            "groups": int(groups),
        }
        if weights != "random":
            for name, value in self._sizes_of(weights, groups).items():
                if state[name] != value:
                    raise ValueError(
                        f"{name}={state[name]} with weights={weights!r}: accepted is {value}"
                    )
        return {**state, "seed": int(seed), "weights": weights}

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

    def _sync_controls(self):
        channels = self.channels
        kernels = range(1, min(channels, self.LAST_KERNEL_STOP) + 1, 2)
        for slider, box, stops, value in (
            (self._channels_slider, self._channels_box, self.CHANNEL_STOPS, channels),
            (self._reduction_slider, self._reduction_box, _octave_stops(channels), self.reduction),
            (self._kernel_slider, self._kernel_box, kernels, self.kernel_size),
            (self._groups_slider, self._groups_box, _divisors(channels), self.groups),
        ):
            slider.max = len(stops) - 1
            slider.value = nearest(stops, value)
            box.value = value
        self._seed_box.value = self.seed
        self._weights_choice.value = self.weights

    def _show(self):
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
        self._read_out(self._lines())
        self._image.value = self._picture.png(
            matrices=[module["matrix"] for module in modules],
            ranks=[module["measures"]["rank"] for module in modules],
            spectra=[module["spectrum"] / (module["spectrum"][0] or 1) for module in modules],
            parameters=[module["measures"]["parameters"] for module in modules],
        )

    def _lines(self):
        channels, r, k, groups = self.channels, self.reduction, self.kernel_size, self.groups
        hidden, width = channels // r, channels // groups
        return [
            f"<b>SE</b>: W<sub>2</sub> ReLU(W<sub>1</sub> y). C // r = {channels} // {r} = "
            f"{hidden} hidden {_plural(hidden, 'unit')}, so rank ≤ {hidden}, and less where y "
            f"switches some off. 2C (C // r) = 2 · {channels} · {hidden} = "
            f"{2 * channels * hidden:,} parameters.",
            f"<b>SE-GC</b>: {groups} {_plural(groups, 'block')} of C/g = {channels}/{groups} = "
            f"{width} {_plural(width, 'channel')}. C²/g = {channels}²/{groups} = "
            f"{channels * width:,} parameters.",
            f"<b>ECA</b>: a channel sees those up to k // 2 = {k // 2} away. "
            f"k = {k} {_plural(k, 'parameter')}.",
            _measures_table(self.measures),
            "Rank: singular values above 10<sup>−5</sup> of the largest.",
            f"This state: <code>{html.escape(repr(self))}</code>",
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
        "rank": jacobian.rank(spectrum).item(),
        "effective_rank": jacobian.effective_rank(spectrum).item(),
        "diagonal_share": jacobian.diagonal_share(matrix).item(),
        "bandwidth": jacobian.bandwidth(matrix).item(),
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
        for key, kind in kinds.items():
            if key in modules and type(modules[key]) is not kind:
                raise TypeError(
                    f"trained[{layer!r}][{key!r}] is a {type(modules[key]).__name__}: accepted is "
                    f"{kind.__name__}"
                )
        channels = modules["se"].channels
        check_within(f"trained[{layer!r}]: channels", channels, limits)
        widths = {modules[key].channels for key in kinds if key in modules}
        if "y" in modules:
            widths.add(tuple(modules["y"].shape))
        if not widths <= {channels, (channels,)}:
            raise ValueError(
                f"trained[{layer!r}] has widths {widths}: accepted is one number of channels"
            )
    return trained


def _divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def _octave_stops(largest):
    """1, 2, 4, ... up to a largest number."""
    return [2**n for n in range(int(largest).bit_length())]


def _plural(number, noun):
    return noun if number == 1 else f"{noun}s"


def _measures_table(measures):
    """The measures of three modules as HTML, one column each."""
    rows = {
        "parameters": "{:,}",
        "multiply_adds": "{:,}",
        "rank": "<b>{}</b>",
        "effective_rank": "{:.1f}",
        "diagonal_share": "{:.1%}",
        "bandwidth": "{}",
    }
    columns = [("", *(name.replace("_", " ") for name in rows))]
    for name, values in measures.iterrows():
        columns.append((name, *(rows[each].format(values[each]) for each in rows)))
    return rows_as_html(zip(*columns, strict=True))
