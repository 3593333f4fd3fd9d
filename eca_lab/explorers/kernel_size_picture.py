"""The picture of the kernel size's panel."""

import numpy as np
from matplotlib import colormaps

from eca_lab.explorers.picture import Picture
from eca_lab.figures import (
    BLACK,
    BLUE,
    FORMULA_MARK,
    GREY,
    ORANGE,
    RELEASED_MARK,
    SKY,
    VERMILLION,
    octaves,
    odd_ticks,
)


class KernelSizePicture(Picture):
    """The picture of a `KernelSizeExplorer`: k over C, the band of the kernel, and the parameters.

    Args:
        largest_channels: C, where the axis of channels ends.
    """

    # Upper ends of the k axis. The axis belongs to the background, so there are only a few.
    K_AXES = (9, 19, 37)
    # Channels: the side of the largest corner of the interaction matrix that is shown.
    SIDE = 32

    def __init__(self, largest_channels):
        super().__init__()
        self._build_steps(largest_channels)
        self._build_band((0.075, 0.085, 0.257, 0.33))
        place = (0.575, 0.085, 0.405, 0.33)
        self._build_parameters(place, ["ECA", "SE, r = 16"], [BLUE, ORANGE])

    def png(self, point, interval, steps, stages, band, parameters):
        """Draw one state, and return a PNG of 720 x 560 pixels.

        Args:
            point: (C, k), the state to show.
            interval: (first, last) of the C that share this k.
            steps: (C, k) of the step curve, two sequences of equal length: the first C of every run
                of equal k. The last C lies beyond the axis of channels.
            stages: (C, k by Equation 12, k as released), three sequences of equal length.
            band: (n, n) integers, n <= SIDE: which of the weights 1..k an entry of the interaction
                matrix is, 0 for none.
            parameters: (of an ECA module, of an SE module).
        """
        channels, k = point
        self._move_steps(channels, k, interval, steps, stages)
        colors = colormaps["viridis"](np.linspace(0, 1, k))[:, :3]
        self.matrix.set_data(np.vstack([[1, 1, 1], colors])[band])
        self.matrix.set_extent((0.5, len(band) + 0.5, len(band) + 0.5, 0.5))
        self.key.set_data(colors[:, None])
        self._move_parameters(parameters)
        k_end = min(end for end in self.K_AXES if end >= max(steps[1][:-1]))
        self.steps.set_ylim(0, k_end)
        odd_ticks(self.steps.yaxis, k_end)
        return self._blit(k_end)

    def _build_steps(self, largest_channels):
        ax = self.steps = self._axes(
            (0.075, 0.565, 0.905, 0.33),
            "Kernel size over channels",
            "channels C",
            "kernel size k",
            y=1.15,
        )
        octaves(ax.xaxis, 0, 13)
        ax.set_xlim(2**-0.4, largest_channels * 2**0.4)
        self.span = self._move(ax, ax.axvspan(1, 2, color=SKY, alpha=0.3, linewidth=0))
        self.curve = self._line(ax, color=GREY, linewidth=2, drawstyle="steps-post")
        self.cross = self._line(ax, color=BLACK, linewidth=1, linestyle=":")
        self.dot = self._line(
            ax, color=BLACK, marker="o", markersize=9, linestyle="none", clip_on=False
        )
        self.formula = self._line(ax, **FORMULA_MARK)
        self.released = self._line(ax, **RELEASED_MARK)
        title = ax.set_title("", fontsize=11.5, fontweight="bold", loc="right", y=1.15)
        self.steps_title = self._move(ax, title)
        ax.legend(
            handles=[self.dot, self.formula, self.released, self.span],
            labels=["chosen C, its k", "stage: Eq. 12", "stage: released", "C with this k"],
            fontsize=9.5,
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.98),
            ncols=4,
            frameon=False,
            handletextpad=0.3,
        )

    def _move_steps(self, channels, k, interval, steps, stages):
        first, last = interval
        self.span.set_x(first)
        self.span.set_width(last - first)
        self.curve.set_data(*steps)
        self.cross.set_data([channels, channels, 0.01], [0, k, k])
        self.dot.set_data([channels], [k])
        widths, formula, released = stages
        self.formula.set_data(widths, formula)
        self.released.set_data(widths, released)
        buildable = k <= channels
        self.steps_title.set_text(
            f"C = {channels:,}, k = {k}" + ("" if buildable else " > C: cannot be built")
        )
        self.steps_title.set_color(BLACK if buildable else VERMILLION)

    def _build_band(self, place):
        left, bottom, width, height = place
        title = f"C × C interactions, {self.SIDE} × {self.SIDE} corner"
        ax = self._axes(place, title, "input channel", "output channel")
        ax.grid(visible=False)
        ax.set_facecolor("#dddddd")  # what lies beyond the matrix of a layer with fewer channels
        self.matrix = self._move(ax, ax.imshow([[0]], aspect="auto", interpolation="nearest"))
        ax.set(xlim=(0.5, self.SIDE + 0.5), ylim=(self.SIDE + 0.5, 0.5))
        ax.set(xticks=[1, 8, 16, 24, 32], yticks=[1, 8, 16, 24, 32])
        # The key to the colours: the k weights, from the one left of the diagonal to the one right.
        key = self.figure.add_axes((left + width + 0.02, bottom, 0.022, height))
        self.key = self._move(key, key.imshow([[0]], aspect="auto", extent=(0, 1, 1, 0)))
        key.set(xticks=[], yticks=[])
        key.text(1.4, 0, "w₁", fontsize=10.5, verticalalignment="top")
        key.text(1.4, 1, "wₖ", fontsize=10.5, verticalalignment="bottom")
