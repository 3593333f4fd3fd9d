"""What all panels are made of: a checked state, controls that are bound to it, escaped text.

Whatever reaches the page as HTML goes through `markupsafe`: text is escaped, `Markup` is not.
"""

import base64
from typing import ClassVar

import ipywidgets
from markupsafe import Markup


class Panel(ipywidgets.VBox):
    """Controls, a status line and a read-out beside a picture, all showing one checked state.

    A subclass names its attributes in STATE, and gives `_build_controls`, which returns rows of
    controls; `_checked(state)`, which returns the state to take, or raises; `_shown`, which returns
    the lines of the read-out and the arguments of the picture's png; and `_result`, in a few words.

    Args:
        picture: has a method png, such as an `eca_lab.explorers.picture.Picture`.
        state: the attributes to begin with.
    """

    STATE = ()
    GIVEN = ()  # arguments of the constructor that are no state, as repr shows them
    PRESETS: ClassVar = {}  # description of a button -> what it sets

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        for name in cls.STATE:
            setattr(cls, name, _attribute(name))

    def __init__(self, picture, **state):
        self._picture, self._state, self._syncing = picture, {}, False
        self._syncs = []  # functions that make a control show the state
        rows = self._build_controls()
        self._status, self._readout = ipywidgets.HTML(), ipywidgets.HTML()
        self._image = ipywidgets.Image(format="png")
        # Beside the controls where there is room for 540 pixels, below them elsewhere.
        self._image.layout = ipywidgets.Layout(
            flex="1 1 540px", min_width="0", max_width="min(720px, 100%)", height="auto"
        )
        self._set(**state)
        self._initial = dict(self._state)
        left = ipywidgets.VBox([*rows, self._buttons(), self._status, self._readout])
        left.layout = ipywidgets.Layout(flex="1 1 400px", max_width="560px", margin="0 16px 0 0")
        super().__init__([wrapped(left, self._image, align_items="flex-start")])

    def __repr__(self):
        """The constructor call that gives an equal panel, of the same networks or results."""
        arguments = (f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({', '.join([*self.GIVEN, *arguments])})"

    def _arguments(self):
        return self._state

    def _repr_mimebundle_(self, **kwargs):
        # Beside the live view, what a reader without a kernel can see: the picture, and one line.
        bundle = super()._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = f"{self!r}: {self._result()}"
        bundle["image/png"] = base64.b64encode(self._image.value).decode()
        return bundle

    # --- Controls ---

    def _row(self, name, label, stops, hint, step=1):
        """A slider that halts at stops(), asked anew at every change, beside a box.

        The box takes any number, an integer if step is one. Only the slider has a visible label;
        the hint names the box.
        """
        slider = ipywidgets.IntSlider(description=label, readout=False)
        slider.layout = ipywidgets.Layout(flex="1 1 auto", width="auto")
        kind = ipywidgets.IntText if isinstance(step, int) else ipywidgets.FloatText
        box = kind(step=step, tooltip=hint, layout=ipywidgets.Layout(width="84px"))
        slider.observe(lambda change: self._try(**{name: stops()[change.new]}), "value")
        box.observe(lambda change: self._try(**{name: change.new}), "value")

        def sync():
            values, value = stops(), self._state[name]
            slider.max = len(values) - 1
            slider.value = min(range(len(values)), key=lambda index: abs(values[index] - value))
            box.value = value

        self._syncs.append(sync)
        return ipywidgets.HBox([slider, box])

    def _choice(self, name, label, options):
        """A dropdown of options(), asked anew at every change: values, or pairs (label, value)."""
        choice = ipywidgets.Dropdown(description=label)
        choice.layout = ipywidgets.Layout(width="300px", max_width="100%")
        choice.observe(lambda change: self._try(**{name: change.new}), "value")

        def sync():
            if choice.options != (now := tuple(options())):
                choice.options = now
            choice.value = self._state[name]

        self._syncs.append(sync)
        return choice

    def _buttons(self):
        """A button for each preset, and one that goes back to the first state."""
        states = {**self.PRESETS, "Reset": self._initial}
        buttons = [button(name, lambda new=new: self._try(**new)) for name, new in states.items()]
        buttons[-1].icon = "undo"
        return wrapped(*buttons)

    # --- State ---

    def _try(self, **changes):
        # Nobody sees what an observer raises, so a wrong entry is answered in the status line.
        if self._syncing:
            return
        try:
            self._set(**changes)
        except (TypeError, ValueError) as error:
            self._say(f"{error}. Still showing {self!r}.", "error-color0")

    def _set(self, **changes):
        """Make all changes and show the result, or raise and change nothing."""
        changes, note = self._fitted(changes) if self._state else (changes, "")
        self._state = self._checked({**self._state, **changes})
        self._syncing = True
        try:
            for sync in self._syncs:
                sync()
        finally:
            self._syncing = False
        lines, drawn = self._shown()
        self._say(note)
        self._readout.value = themed(
            *lines, Markup("This state: <code>{}</code>").format(repr(self))
        )
        self._image.value = self._picture.png(**drawn)

    def _fitted(self, changes):
        """The changes and those that they entail, and a note on what was lowered."""
        return changes, ""

    def _say(self, text, color="ui-font-color1"):
        line = Markup('<div style="color: var(--jp-{})">{}</div>').format(color, text)
        self._status.value = str(line) if text else ""


def _attribute(name):
    return property(lambda panel: panel._state[name], lambda panel, new: panel._set(**{name: new}))


def button(description, act):
    """A button as wide as its text, which calls act()."""
    made = ipywidgets.Button(description=description, layout=ipywidgets.Layout(width="auto"))
    made.on_click(lambda _: act())
    return made


def wrapped(*children, **layout):
    """Widgets in a row that breaks where it is too long."""
    return ipywidgets.Box(children, layout=ipywidgets.Layout(flex_flow="row wrap", **layout))


def themed(*lines, style=""):
    """Lines, escaped unless they are Markup, as HTML in the colours of JupyterLab's theme."""
    block = Markup('<div style="color: var(--jp-ui-font-color1); line-height: 1.5; {}">{}</div>')
    lines = Markup().join(Markup("<div>{}</div>").format(line) for line in lines)
    return str(block.format(style, lines))


def table(rows):
    """Rows, each a title and its cells, as Markup; what is none itself is escaped."""
    title = Markup('<th scope="row" style="text-align: left">{}</th>')
    cell = Markup('<td style="text-align: right; padding-left: 16px">{}</td>')
    lines = [
        Markup("<tr>{}{}</tr>").format(title.format(first), Markup().join(map(cell.format, rest)))
        for first, *rest in rows
    ]
    return Markup("<table>{}</table>").format(Markup().join(lines))
