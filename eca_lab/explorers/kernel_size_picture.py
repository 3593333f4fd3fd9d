"""What the explorer of the kernel size shows to readers without a kernel."""

import numpy as np
from matplotlib import colormaps

from eca_lab import kernel_size as ks
from eca_lab.figures import (
    BLACK,
    BLUE,
    FORMULA_MARK,
    GREY,
    ORANGE,
    RELEASED_MARK,
    SKY,
    VERMILLION,
    decades,
    dress,
    new_figure,
    octaves,
    odd_ticks,
)

SIDE = 32  # channels: the corner of the interaction matrix that is shown


def kernel_size_figure(state, largest_channels):
    """k over C with the stages of a network, the band of the kernel, and the parameters.

    Args:
        state: has the attributes of a `KernelSizeExplorer`.
        largest_channels: C, where the axis of channels ends.
    """
    figure = new_figure(7.2, 5.6)
    axes = figure.subplot_mosaic("SSS;BPP")
    _draw_steps(axes["S"], state, np.arange(1, largest_channels + 1))
    _draw_band(axes["B"], min(state.channels, SIDE), state.kernel_size)

    ax = axes["P"]
    dress(ax, "Parameters of one module", "number of parameters", "")
    counts = [2 * state.channels**2 / state.REDUCTION, state.kernel_size]
    bars = ax.barh([f"SE, r = {state.REDUCTION}", "ECA"], counts, height=0.5, color=[ORANGE, BLUE])
    ax.bar_label(bars, [f"{number:,.6g}" for number in counts], padding=4, fontsize=11)
    decades(ax.xaxis)
    ax.set_xlim(0.1, 5e8)
    ax.grid(visible=False, axis="y")
    return figure


def _draw_steps(ax, state, channels):
    mapping = state.gamma, state.b, state.ties
    sizes = np.array([ks.adaptive_kernel_size(int(C), *mapping) for C in channels])
    k, stages = state.kernel_size, ks.stage_channels(state.network)
    dress(ax, "Kernel size over channels", "channels C", "kernel size k")
    octaves(ax.xaxis, 0, 13)
    ax.step(channels, sizes, where="post", color=GREY, linewidth=2)
    # The run of equal k around the chosen C; in the mirrored branch the same k can come twice.
    ends = np.flatnonzero(np.diff(sizes)) + 1
    run = np.searchsorted(ends, state.channels - 1, side="right")
    first, last = np.concatenate([[0], ends, [len(channels)]])[run : run + 2]
    ax.axvspan(channels[first], channels[last - 1], color=SKY, alpha=0.3, linewidth=0)
    ax.plot(state.channels, k, "o", color=BLACK, markersize=9, label="chosen C, its k")
    formula = [ks.adaptive_kernel_size(width, *mapping) for width in stages]
    ax.plot(stages, formula, **FORMULA_MARK, label="stage: Eq. 12")
    ax.plot(stages, ks.released_kernel_sizes(state.network), **RELEASED_MARK, label="released")
    ax.set_ylim(0, max(sizes.max(), 7) + 2)
    odd_ticks(ax.yaxis, int(ax.get_ylim()[1]))
    unbuildable = k > state.channels
    ax.set_title(
        f"C = {state.channels:,}, k = {k}" + (" > C: cannot be built" if unbuildable else ""),
        **{"loc": "right", "fontsize": 11.5, "fontweight": "bold"},
        color=VERMILLION if unbuildable else BLACK,
    )
    ax.legend(fontsize=9.5, loc="upper left")


def _draw_band(ax, side, k):
    dress(ax, f"C × C, {SIDE} × {SIDE} corner", "input channel", "output channel")
    ax.grid(visible=False)
    ax.set_facecolor("#dddddd")  # what lies beyond the matrix of a layer with fewer channels
    index = np.arange(side)
    weight = index - index[:, None] + (k + 1) // 2  # which of w1..wk stands there
    colors = np.vstack([[1, 1, 1], colormaps["viridis"](np.linspace(0, 1, k))[:, :3]])
    ax.imshow(
        colors[np.where((weight >= 1) & (weight <= k), weight, 0)],
        extent=(0.5, side + 0.5, side + 0.5, 0.5),
    )
    ax.set(xlim=(0.5, SIDE + 0.5), ylim=(SIDE + 0.5, 0.5), xticks=[1, 16, 32], yticks=[1, 16, 32])
