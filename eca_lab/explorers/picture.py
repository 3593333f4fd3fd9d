"""The base of the pictures: one Figure that is redrawn at every change."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

from eca_lab.figures import decades, dress, new_figure, palette_png


class Picture:
    """One Figure that is redrawn at every change.

    What never moves is drawn once and kept as pixels; `_blit` puts those pixels back and draws only
    the moving artists on top. Rendering glyphs is what costs most, so few of the texts move.
    """

    def __init__(self, height=5.6):
        self.figure = new_figure(7.2, height, layout=None)
        self.canvas = FigureCanvasAgg(self.figure)
        self._backgrounds = {}  # a key of the background -> pixels without the moving artists
        self._moving = []  # (Axes, artist), in the order in which they are drawn

    def _axes(self, place, title="", xlabel="", ylabel="", **title_style):
        ax = self.figure.add_axes(place)
        dress(ax, "", xlabel, ylabel)
        ax.set_title(title, **{"fontsize": 11.5, "loc": "left", **title_style})
        return ax

    def _build_parameters(self, place, names, colors):
        ax = self._axes(place, "Parameters of one module", "number of parameters")
        rows = range(len(names))[::-1]  # from top to bottom
        decades(ax.xaxis)
        ax.set(xlim=(0.5, 5e8), ylim=(-0.6, len(names) - 0.4))
        ax.set_yticks(rows, names)
        ax.grid(visible=False, axis="y")
        self.bars = ax.barh(rows, 1, left=0.5, height=0.5, color=colors)
        self.numbers = []
        for bar, y in zip(self.bars, rows, strict=True):
            self._move(ax, bar)
            text = ax.text(1, y, "", fontsize=11, verticalalignment="center")
            self.numbers.append(self._move(ax, text))

    def _move_parameters(self, parameters):
        for bar, text, number in zip(self.bars, self.numbers, parameters, strict=True):
            bar.set_width(number - bar.get_x())
            text.set_x(1.5 * max(number, bar.get_x()))
            text.set_text(f"{number:,.0f}" if number >= 10 else f"{number:.3g}")

    def _line(self, ax, **style):
        return self._move(ax, ax.plot([], [], **style)[0])

    def _move(self, ax, artist):
        """Take an artist out of the background: the Figure's own draw skips animated ones."""
        artist.set_animated(True)
        self._moving.append((ax, artist))
        return artist

    def _blit(self, key):
        if key not in self._backgrounds:
            self.canvas.draw()
            self._backgrounds[key] = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._backgrounds[key])
        for ax, artist in self._moving:
            ax.draw_artist(artist)
        return palette_png(self.canvas)
