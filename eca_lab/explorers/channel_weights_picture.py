"""The picture of the channel weights' panel."""

import numpy as np

from eca_lab.explorers.picture import Picture
from eca_lab.figures import BLACK, BLUE, GREEN, GREY, ORANGE, SIGNED, VERMILLION


class ChannelWeightPicture(Picture):
    """The picture of a `ChannelWeightExplorer`.

    Args:
        classes: names of the G classes.
        counts: images of each; the images stand sorted by class.
    """

    def __init__(self, classes, counts):
        super().__init__(height=7.4)
        self._ends = np.cumsum([0, *counts])
        self._build_lines()
        self._build_heat(classes)
        self._build_histogram()
        self._build_maps()
        self._build_probabilities(classes)

    def png(self, weights, means, classes, image, channel, histograms, picture, maps, chances):
        """Draw one state, and return a PNG of 720 x 740 pixels.

        Args:
            weights: (N, C) of all images, sorted by class.
            means: two (C,), of the two classes.
            classes: two pairs (number of the class, its name).
            image, channel: the row and the column of weights that are chosen.
            histograms: two (bins,) shares of all weights of a class, in equal bins of [0, 1].
            picture: (H, W, 3) uint8, the image.
            maps: two (h, w), the channel's feature map before and after the weight.
            chances: two (G,) probabilities, of the network as it is and as it is changed.
        """
        channels = weights.shape[1]
        index = range(channels)
        for line, values in zip(self.lines, (*means, weights[image]), strict=True):
            line.set_data(index, values)
        for name, (_, text) in zip(self.names, classes, strict=True):
            name.set_text(text)
        for cross in self.crosses:
            cross.set_xdata([channel, channel])
        self.dot.set_data([channel], [weights[image, channel]])
        self.heat.set_data(weights)
        self.heat.set_extent((-0.5, channels - 0.5, self._ends[-1] - 0.5, -0.5))
        for bracket, (number, _) in zip(self.brackets, classes, strict=True):
            bracket.set_ydata(self._ends[[number, number + 1]] - 0.5)
        self.row.set_ydata([image])
        edges = np.linspace(0, 1, len(histograms[0]) + 1)
        for steps, shares in zip(self.histograms, histograms, strict=True):
            steps.set_data(shares / max(map(np.max, histograms)), edges)
        self.picture.set_data(picture)
        largest = np.abs(maps[0]).max() or 1
        for drawn, values in zip(self.maps, maps, strict=True):
            drawn.set_data(values / largest)
        for bars, values in zip(self.bars, chances, strict=True):
            for bar, value in zip(bars, values, strict=True):
                bar.set_width(value)
        for ax in (self.line_axes, self.heat_axes):
            ax.set_xlim(-0.5, channels - 0.5)
        return self._blit(channels)

    def _build_lines(self):
        place = (0.115, 0.765, 0.845, 0.18)
        ax = self.line_axes = self._axes(place, "Mean weights of", "", "weight")
        ax.set_ylim(0, 1)
        styles = (ORANGE, "-", 1.5, 0.28, ""), (BLUE, "--", 1.5, 0.48, "")
        self.lines, texts = [], []
        for color, dash, width, left, name in (*styles, (BLACK, ":", 0.8, 0.68, "the image")):
            style = {"color": color, "linestyle": dash}
            self.lines.append(self._line(ax, **style, linewidth=width))
            where = {"transform": ax.transAxes}
            texts.append(ax.text(left, 1.05, name, fontsize=11.5, color=color, **where))
            ax.plot([left - 0.037, left - 0.007], [1.08, 1.08], **style, **where, clip_on=False)
        self.names = [self._move(ax, text) for text in texts[:2]]
        self.crosses = [self._move(ax, ax.axvline(0, color=GREY, linewidth=1))]
        self.dot = self._line(ax, color=VERMILLION, marker="o", markersize=7, clip_on=False)

    def _build_heat(self, classes):
        title = "Weights of the images, sorted by class: dark 0, bright 1"
        ax = self.heat_axes = self._axes((0.115, 0.41, 0.845, 0.28), title, "channel")
        ax.set_ylim(self._ends[-1] - 0.5, -0.5)
        ax.set_yticks((self._ends[:-1] + self._ends[1:]) / 2 - 0.5, classes, fontsize=9)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False)
        image = ax.imshow([[0]], vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        self.heat = self._move(ax, image)
        lines = ax.hlines(self._ends[1:-1] - 0.5, 0, 1, color="white", linewidth=0.5)
        lines.set_transform(ax.get_yaxis_transform())
        self._move(ax, lines)
        self.crosses.append(self._move(ax, ax.axvline(0, color="white", linewidth=1)))
        # In the margins: which rows are the two classes, and which is the image.
        margin = {"transform": ax.get_yaxis_transform(), "clip_on": False}
        self.brackets = [
            self._move(ax, ax.plot([x, x], [0, 1], color=color, linewidth=4, **margin)[0])
            for x, color in ((1.008, ORANGE), (1.016, BLUE))
        ]
        (self.row,) = ax.plot([-0.006], [0], ">", color=VERMILLION, markersize=7, **margin)
        self._move(ax, self.row)

    def _build_histogram(self):
        place = (0.06, 0.075, 0.21, 0.2)
        ax = self._axes(place, "Histogram", "weight", "share of the weights")
        ax.set(xlim=(0, 1), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[])
        self.histograms = [
            self._move(ax, ax.stairs([0, 0], color=color, linewidth=1.5, linestyle=style))
            for color, style in ((ORANGE, "-"), (BLUE, "--"))
        ]

    def _build_maps(self):
        def place(left, title):
            ax = self.figure.add_axes((left, 0.115, 0.118, 0.115))
            ax.set_title(title, fontsize=10.5)
            ax.set(xticks=[], yticks=[])
            return ax

        square = {"extent": (0, 1, 0, 1), "aspect": "auto", "interpolation": "nearest"}
        ax = place(0.3, "image")
        self.picture = self._move(ax, ax.imshow(np.zeros((1, 1, 3)), **square))
        self.maps = []
        for left, title in ((0.43, "before"), (0.56, "after")):
            ax = place(left, title)
            self.maps.append(self._move(ax, ax.imshow([[0]], **SIGNED, **square)))
        self.figure.text(0.43, 0.098, "feature map of the channel", fontsize=9.5, va="top")

    def _build_probabilities(self, classes):
        style = {"fontsize": 10.5, "loc": "right"}
        place = (0.795, 0.075, 0.165, 0.235)
        ax = self._axes(place, "Plain (grey), changed", "probability", **style)
        rows = np.arange(len(classes))
        ax.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xticks=[0, 0.5, 1])
        ax.set_yticks(rows, classes, fontsize=9)
        ax.grid(visible=False, axis="y")
        self.bars = [
            ax.barh(rows - 0.2, 0, height=0.38, color="#aaaaaa"),
            ax.barh(rows + 0.2, 0, height=0.38, color=GREEN),
        ]
        for bars in self.bars:
            for bar in bars:
                self._move(ax, bar)
