"""The picture of the reduction's panel."""

import numpy as np

from eca_lab.explorers.picture import Picture
from eca_lab.figures import SIGNED, STYLES, decades, frame, octaves, unit


class ReductionPicture(Picture):
    """The picture of a `ReductionExplorer`: SE, SE-GC and ECA side by side.

    Args:
        largest_channels: C, where the axis of singular values ends.
    """

    NAMES = ("SE", "SE-GC", "ECA")
    _TITLES = ("SE: W₂ D W₁", "SE-GC: blocks", "ECA: band")

    def __init__(self, largest_channels):
        super().__init__()
        self.matrices, self.captions = [], []
        for left, title in zip((0.07, 0.365, 0.66), self._TITLES, strict=True):
            self._build_matrix(left, title)
        key = self.figure.add_axes((0.935, 0.545, 0.018, 0.334))
        key.imshow(np.linspace(1, -1, 101)[:, None], **SIGNED, aspect="auto", extent=(0, 1, -1, 1))
        key.set(xticks=[], yticks=[-1, 0, 1], yticklabels=["−", "0", "+"])
        key.yaxis.tick_right()
        self._build_spectra(largest_channels)
        colors = [style["color"] for style in STYLES[:3]]
        self._build_parameters((0.665, 0.085, 0.315, 0.32), self.NAMES, colors)

    def png(self, matrices, ranks, spectra, parameters):
        """Draw one state, in the order of `NAMES`, and return a PNG of 720 x 560 pixels.

        Args:
            matrices: three (C, C), shown each in units of its largest absolute entry.
            ranks: three integers.
            spectra: three (C,) singular values as shares of the largest, in descending order.
            parameters: three integers.
        """
        for image, caption, matrix, rank in zip(
            self.matrices, self.captions, matrices, ranks, strict=True
        ):
            image.set_data(unit(matrix))
            caption.set_text(f"{len(matrix)} × {len(matrix)}, rank {rank}")
        for line, values in zip(self.lines, spectra, strict=True):
            line.set_data(range(1, len(values) + 1), values)
        self._move_parameters(parameters)
        return self._blit(None)

    def _build_matrix(self, left, title):
        # Square: 187 pixels each way.
        place, ylabel = (left, 0.545, 0.26, 0.334), "output channel, 1 to C" if left < 0.1 else ""
        ax = self._axes(place, title, "input channel, 1 to C", ylabel, y=1.08)
        ax.set(xticks=[], yticks=[])
        frame(ax)
        square = {"extent": (0, 1, 1, 0), "aspect": "auto", "interpolation": "nearest"}
        self.matrices.append(self._move(ax, ax.imshow([[0]], **SIGNED, **square)))
        for side in ax.spines.values():
            self._move(ax, side)  # over the edge of the matrix
        caption = ax.text(0, 1.02, "", fontsize=10, transform=ax.transAxes)
        self.captions.append(self._move(ax, caption))

    def _build_spectra(self, largest_channels):
        labels = "Singular values", "number of the singular value", "share of the largest"
        ax = self._axes((0.1, 0.085, 0.435, 0.275), *labels, y=1.15)
        octaves(ax.xaxis, 0, int(np.log2(largest_channels)))
        decades(ax.yaxis)
        ax.set(xlim=(2**-0.3, largest_channels * 2**0.3), ylim=(1e-5, 2))
        self.lines = [
            self._line(ax, **style | {"markersize": 4}, label=name)
            for name, style in zip(self.NAMES, STYLES, strict=False)
        ]
        ax.legend(
            handles=self.lines,
            fontsize=9.5,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.97),
            ncols=3,
            frameon=False,
        )
