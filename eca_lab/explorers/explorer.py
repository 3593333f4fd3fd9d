"""What explorers drawn in the page are made of: a checked state, an ES module that draws it."""

import base64
from pathlib import Path
from typing import ClassVar

import anywidget
import traitlets


class StateError(traitlets.TraitError, ValueError):
    """A state that is not accepted. traitlets takes back all changes that were made together."""


class Explorer(anywidget.AnyWidget):
    """A state that Python and the page share, drawn by an ES module in the page.

    The attributes of the state are traits: they can be set, observed and linked. They are checked
    together; what is not accepted raises a `StateError` and changes nothing. Several are changed at
    once within ``hold_trait_notifications()``.

    A subclass names them in STATE, defines each as ``traitlets.TraitType(None).tag(sync=True)``
    (which has None checked too, unlike Any), sets
    ``_proposed = traitlets.validate(*STATE)(check_proposal)``, and names in MODULE the file that
    draws. It gives `_checked(state)`, which returns the state to take or raises; `_result()`, in a
    few words; and `_figure()`, for readers without a kernel.

    What the page cannot compute itself it asks the kernel: a subclass names in ASKED the attributes
    that this follows from, and gives `_answer()`, a dict as JSON can hold it, but for arrays, as
    bytes. The page meets the answer's `asked` again, and so knows whether it is the latest one's.
    `_recorded()` gives the states (changes of the first) that a page without a kernel shall answer.

    Args:
        state: the attributes to begin with.
        given: what else the page is told, as JSON can hold it; `arguments` are those of the call
            that are no state, as the notebook writes them.
    """

    MODULE = ""
    STATE = ()
    ARGUMENTS = ()  # of the constructor, which are no state, as repr names them
    USUAL: ClassVar = {}  # what repr leaves out
    PRESETS: ClassVar = {}  # description of a button -> what it sets

    ASKED = ()

    _css = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")
    given = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **keywords):
        # A page cannot fetch the kit, so the kit stands before what uses it, in one text.
        if "MODULE" in vars(cls):  # and not where anywidget adds traits to a class
            files = [Path(__file__).with_name(name) for name in ("kit.js", cls.MODULE)]
            cls._esm = "\n".join(file.read_text(encoding="utf-8") for file in files)
        super().__init_subclass__(**keywords)

    def __init__(self, state, **given):
        super().__init__(**state)
        told = {"name": type(self).__name__, "usual": self.USUAL, "presets": self.PRESETS}
        told["arguments"] = self.ARGUMENTS
        self.given = {**told, "initial": self._state(), **given}
        if self.ASKED:
            self._answer_anew()
            self.observe(self._answer_anew, self.ASKED)

    def _answer_anew(self, _=None):
        # Called once for each of the traits that changed together: the first call sees them all.
        asked = {name: getattr(self, name) for name in self.ASKED}
        if self.answer.get("asked") != asked:
            self.answer = {"asked": asked, **self._answer()}

    def _recorded(self):
        return ()

    def _state(self):
        return {name: getattr(self, name) for name in self.STATE}

    def __repr__(self):
        """The constructor call that gives an equal explorer."""
        state = {name: v for name, v in self._state().items() if self.USUAL.get(name) != v}
        named = [f"{name}={value!r}" for name, value in state.items()]
        return f"{type(self).__name__}({', '.join([*self.given['arguments'], *named])})"

    def _repr_mimebundle_(self, **kwargs):
        # Beside the live view, what a reader without a kernel can see: the picture, and one line.
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/plain"] = f"{self!r}: {self._result()}"
        data["image/png"] = base64.b64encode(self._figure()._repr_png_()).decode()
        return data, metadata


def check_proposal(explorer, proposal):
    """Return what a trait shall hold, given the rest of the state, or raise a `StateError`."""
    name = proposal.trait.name
    try:
        return explorer._checked({**explorer._state(), name: proposal.value})[name]
    except (TypeError, ValueError) as error:
        raise StateError(str(error)) from None
