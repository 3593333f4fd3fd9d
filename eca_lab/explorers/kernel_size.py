"""The explorer of the kernel size: from C, gamma and b to k. Needs no torch."""

from functools import partial
from typing import Any, ClassVar

from matplotlib.figure import Figure

from eca_lab import figures
from eca_lab.attention import kernel_size as ks
from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.explorers.explorer import Explorer, plain


class KernelSizeExplorer(Explorer):
    """Slide C, gamma and b; see k, what shares it, what it costs, and what networks really use.

    Args:
        channels: C, an integer from 1 to `MAX_CHANNELS`.
        gamma: slope of the mapping, a number within `GAMMA_LIMITS`.
        b: offset of the mapping, a number within `B_LIMITS`.
        ties: "up" or "down", as for `eca_lab.attention.kernel_size.adaptive_kernel_size`.
        network: one of `eca_lab.attention.kernel_size.NETWORKS`, whose stages are marked.

    Raises:
        StateError: naming what is not accepted.
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

    def __init__(
        self,
        channels: int = 256,
        gamma: float = 2,
        *,
        b: float = 1,
        ties: str = "up",
        network: str = "resnet50",
    ) -> None:
        networks = {}
        for name, label in ks.NETWORKS.items():
            networks[name] = {
                "label": label,
                "stages": ks.stage_channels(name),
                "released": ks.released_kernel_sizes(name),
            }
        super().__init__(
            (channels, gamma, b, ties, network),
            stops={"channels": self.CHANNEL_STOPS, "gamma": self.GAMMA_STOPS, "b": self.B_STOPS},
            reduction=self.REDUCTION,
            networks=networks,
        )

    @property
    def kernel_size(self) -> int:
        """k of the present state, a positive odd integer."""
        return ks.adaptive_kernel_size(self.channels, gamma=self.gamma, b=self.b, ties=self.ties)

    def _result(self) -> str:
        return f"k = {self.kernel_size}"

    def _figure(self) -> Figure:
        psi = partial(ks.adaptive_kernel_size, gamma=self.gamma, b=self.b, ties=self.ties)
        k = self.kernel_size
        widths = range(1, self.MAX_CHANNELS + 1)
        sizes = [psi(channels) for channels in widths]
        figure = figures.new_figure(7.2, 3.6)
        ax = figure.add_subplot()
        figures.dress(ax, "Kernel size over channels", "channels C", "kernel size k")
        ax.step(widths, sizes, where="post", color=figures.GREY, linewidth=2)
        ax.plot(self.channels, k, "o", color=figures.BLACK, markersize=9, label="chosen C, its k")
        stages = ks.stage_channels(self.network)
        formula = [psi(channels) for channels in stages]
        ax.plot(stages, formula, **figures.FORMULA_MARK, label="stage: Eq. 12")
        released = ks.released_kernel_sizes(self.network)
        ax.plot(stages, released, **figures.RELEASED_MARK, label="released")
        ax.set_title(f"C = {self.channels:,}, k = {k}", loc="right", fontweight="bold")
        figures.octaves(ax.xaxis, 0, 13)
        top = max(*sizes, *released)
        ax.set_yticks(range(1, top + 2, 2 if top < 19 else 4))
        ax.legend(loc="upper left")
        return figure

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        check_integer("channels", state["channels"], least=1, most=self.MAX_CHANNELS)
        least, most = self.GAMMA_LIMITS
        check_number("gamma", state["gamma"], least=least, most=most)
        least, most = self.B_LIMITS
        check_number("b", state["b"], least=least, most=most)
        check_choice("ties", state["ties"], ks.TIES)
        check_choice("network", state["network"], ks.NETWORKS)
        numbers = {name: plain(state[name]) for name in ("channels", "gamma", "b")}
        return {**state, **numbers}
