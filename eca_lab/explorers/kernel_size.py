"""The explorer of the kernel size: from C, gamma and b to k. Needs no torch."""

from typing import ClassVar

import traitlets

from eca_lab import kernel_size as ks
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.explorers.explorer import Explorer, check_proposal
from eca_lab.explorers.kernel_size_picture import kernel_size_figure

NETWORK_NAMES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet152": "ResNet-152",
    "mobilenet_v2": "MobileNetV2",
}


class KernelSizeExplorer(Explorer):
    """Slide C, gamma and b; see k, what shares it, what it costs, and what networks really use.

    Args:
        channels: C, an integer from 1 to `MAX_CHANNELS`.
        gamma: slope of the mapping, a number within `GAMMA_LIMITS`.
        b: offset of the mapping, a number within `B_LIMITS`.
        ties: "up" or "down", as for `eca_lab.kernel_size.adaptive_kernel_size`.
        network: one of `eca_lab.kernel_size.NETWORKS`, whose stages are marked.

    All five are traits. A value that is not accepted raises a ValueError that names it; typed into
    a box of the page, it is answered beside the box.
    """

    MODULE = "kernel_size.js"
    STATE = ("channels", "gamma", "b", "ties", "network")
    USUAL: ClassVar = {"ties": "up", "network": "resnet50"}
    MAX_CHANNELS = 8192
    GAMMA_LIMITS = (0.5, 4)
    B_LIMITS = (-4, 4)
    REDUCTION = 16  # r of the SE module that ECA is compared with

    # Where the sliders halt. C: sixteenths of an octave, as far as they are different integers.
    CHANNEL_STOPS = tuple(sorted({round(2 ** (step / 16)) for step in range(16 * 13 + 1)}))
    GAMMA_STOPS = tuple(tenths / 10 for tenths in range(5, 41))
    B_STOPS = tuple(halves / 2 for halves in range(-8, 9))

    PRESETS: ClassVar = {
        "C = 128, a tie": {"channels": 128, "gamma": 2, "b": 1},
        "C = 2048, a tie": {"channels": 2048, "gamma": 2, "b": 1},
        "ResNet-50": {"channels": 256, "gamma": 2, "b": 1, "network": "resnet50"},
        "k > C": {"channels": 4, "gamma": 0.5, "b": 1},
    }

    channels = traitlets.TraitType(None).tag(sync=True)
    gamma = traitlets.TraitType(None).tag(sync=True)
    b = traitlets.TraitType(None).tag(sync=True)
    ties = traitlets.TraitType(None).tag(sync=True)
    network = traitlets.TraitType(None).tag(sync=True)
    _proposed = traitlets.validate(*STATE)(check_proposal)

    def __init__(self, channels=256, gamma=2, b=1, ties="up", network="resnet50"):
        networks = {
            name: {
                "label": label,
                "stages": ks.stage_channels(name),
                "released": ks.released_kernel_sizes(name),
            }
            for name, label in NETWORK_NAMES.items()
        }
        super().__init__(
            {"channels": channels, "gamma": gamma, "b": b, "ties": ties, "network": network},
            stops={"channels": self.CHANNEL_STOPS, "gamma": self.GAMMA_STOPS, "b": self.B_STOPS},
            reduction=self.REDUCTION,
            networks=networks,
        )

    @property
    def kernel_size(self):
        """k of the present state, a positive odd integer."""
        return ks.adaptive_kernel_size(self.channels, self.gamma, self.b, self.ties)

    def _result(self):
        return f"k = {self.kernel_size}"

    def _figure(self):
        return kernel_size_figure(self, self.MAX_CHANNELS)

    def _checked(self, state):
        check_integer("channels", state["channels"], 1, self.MAX_CHANNELS)
        check_number("gamma", state["gamma"], *self.GAMMA_LIMITS)
        check_number("b", state["b"], *self.B_LIMITS)
        check_choice("ties", state["ties"], ks.TIES)
        check_choice("network", state["network"], ks.NETWORKS)
        numbers = {name: float(state[name]) for name in ("gamma", "b")}
        numbers = {name: int(x) if x.is_integer() else x for name, x in numbers.items()}
        return {**state, "channels": int(state["channels"]), **numbers}
