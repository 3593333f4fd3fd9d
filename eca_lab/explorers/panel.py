"""What all panels are made of: a base class, controls, and HTML for the read-out."""

import base64

import ipywidgets

from eca_lab import checks


def state(name):
    """An attribute of a panel that is checked, and shown, when it is set."""
    return property(lambda panel: panel._state[name], lambda panel, new: panel._set(**{name: new}))


class Panel(ipywidgets.VBox):
    """Controls, a status line and a read-out beside a picture, all showing one checked state.

    A subclass gives `_build_controls`, which returns their rows; `_checked`, which returns the
    state to take, or raises; `_sync_controls`, `_show`, and the texts `_in_words` and `_result`.

    Args:
        picture: an `eca_lab.explorers.picture.Picture`, or alike.
        state: the attributes to begin with.
    """

    def __init__(self, picture, **state):
        self._picture = picture
        self._syncing = False
        rows = self._build_controls()
        self._status = ipywidgets.HTML()
        self._readout = ipywidgets.HTML()
        self._image = ipywidgets.Image(format="png")
        # Beside the controls where there is room for 540 pixels, below them elsewhere.
        self._image.layout = ipywidgets.Layout(
            flex="1 1 540px", min_width="0", max_width="min(720px, 100%)", height="auto"
        )
        self._state = {}
        self._set(**state)
        self._initial = dict(self._state)
        left = ipywidgets.VBox([*rows, self._status, self._readout])
        left.layout = ipywidgets.Layout(flex="1 1 400px", max_width="560px", margin="0 16px 0 0")
        body = ipywidgets.Box([left, self._image])
        body.layout = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start")
        super().__init__([body])

    def _repr_mimebundle_(self, **kwargs):
        # Beside the live view, what a reader without a kernel can see: the picture, and one line.
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = f"{self!r}: {self._result()}"
        bundle["image/png"] = base64.b64encode(self._image.value).decode()
        return bundle

    def _observe(self, controls):
        """Let each (control, attribute, how its value is read) set its attribute."""
        for control, name, read in controls:
            control.observe(
                lambda change, name=name, read=read: self._try(**{name: read(change.new)}), "value"
            )

    def _buttons(self, presets):
        """A button for each preset, and one that goes back to the first state."""
        reset = ipywidgets.Button(description="Reset", icon="undo")
        reset.on_click(lambda _: self._try(**self._initial))
        buttons = []
        for name, state in presets.items():
            button = ipywidgets.Button(description=name)
            button.on_click(lambda _, state=state: self._try(**state))
            buttons.append(button)
        for button in (*buttons, reset):
            button.layout = ipywidgets.Layout(width="auto")
        return [*buttons, reset]

    def _try(self, **changes):
        # Nobody sees what an observer raises, so a wrong entry is answered in the status line.
        if self._syncing:
            return
        try:
            self._set(**changes)
        except (TypeError, ValueError) as error:
            self._status.value = (
                f'<div style="color: var(--jp-error-color0)">{error}. '
                f"Still showing {self._in_words()}.</div>"
            )

    def _set(self, **changes):
        """Make all changes and show the result, or raise and change nothing."""
        state = self._checked(**{**self._state, **changes})
        self._state = state
        self._status.value = ""
        self._syncing = True
        try:
            self._sync_controls()
        finally:
            self._syncing = False
        self._show()

    def _read_out(self, lines):
        self._readout.value = (
            '<div style="color: var(--jp-ui-font-color1); line-height: 1.5">'
            + "".join(f"<div>{line}</div>" for line in lines)
            + "</div>"
        )


def new_slider(kind, description, lowest, highest, step):
    slider = kind(min=lowest, max=highest, step=step, description=description, readout=False)
    slider.layout = ipywidgets.Layout(flex="1 1 auto", width="auto")
    return slider


def new_box(kind, tooltip, step):
    # The visible label stands at the slider beside it; the tooltip names the box on its own.
    return kind(step=step, tooltip=tooltip, layout=ipywidgets.Layout(width="84px"))


def nearest(stops, channels):
    """Index of the stop that is nearest to a number of channels."""
    return min(range(len(stops)), key=lambda index: abs(stops[index] - channels))


def rows_as_html(rows):
    """A table of rows, each a title and its cells."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align: left">{title}</th>'
        + "".join(f'<td style="text-align: right; padding-left: 16px">{x}</td>' for x in row)
        + "</tr>"
        for title, *row in rows
    )
    return f"<table>{cells}</table>"


def check_within(name, value, limits):
    checks.check_integer(name, value)
    lowest, highest = limits
    if not lowest <= value <= highest:
        raise ValueError(f"{name}={value}: accepted here are {lowest} to {highest}")
