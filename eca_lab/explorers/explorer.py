"""What explorers drawn in the page are made of: a checked state, an ES module that draws it."""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from eca_lab import figures

# The colours of figures, for the page: of weights, of signed numbers, and of arms.
_PALETTES = {"weight": figures.WEIGHT_COLORS, "signed": figures.SIGNED_COLORS}
_ARMS_CSS = "".join(f"--arm-{name}: {figures.HUES[name]}; " for name in ("se", "se_gc", "eca"))


class StateError(traitlets.TraitError, ValueError):
    """A state that is not accepted. traitlets takes back all changes that were made together."""


class _Attribute(traitlets.TraitType):
    """One of the state. (traitlets.Any would let None pass unchecked.)"""

    def validate(self, explorer: "Explorer", value: Any) -> Any:
        # What equals an accepted value is no change: held, traitlets would not check 64.0 for 64.
        now = explorer._trait_values.get(self.name)
        if isinstance(now, tuple) and isinstance(value, Iterable):
            items = tuple(value)
            return now if all(isinstance(each, Real) for each in items) and items == now else value
        return plain(now) if isinstance(now, Real) and now == value else value


def _as_text(value: Any, _: object = None) -> str:
    """What the page is told: a notebook that is saved would sort the keys of objects."""

    def coded(data: bytes) -> dict[str, str]:
        return {"base64": base64.b64encode(data).decode()}

    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=coded)


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)


def glued(name: str) -> str:
    """The text of an ES module below those that it imports from: a page cannot fetch them."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        text = _file(name)
        for other in _IMPORT.findall(text):
            if other not in texts:
                add(other)
        texts[name] = _IMPORT.sub("", text)

    add(name)
    return "\n".join(texts.values())


class Explorer(anywidget.AnyWidget):
    """A state that Python and the page share, drawn by an ES module in the page.

    The attributes of the state are traits: they can be set, observed and linked. They are checked
    together; what is not accepted raises a `StateError` that names it, and changes nothing. Several
    are changed at once within ``hold_trait_notifications()``.

    A subclass names them in STATE, and in MODULE the file that draws. It gives `_checked(state)`,
    which returns the state to take or raises; `_result()`, in a few words; and `_figure()`, for
    readers without a kernel.

    What the page cannot compute itself it asks the kernel: a subclass names in ASKED the attributes
    that this follows from, and gives `_answer()`, a dict as JSON can hold it, but for arrays, as
    bytes. The page meets the answer's `asked` again, and so knows whether it is the latest one's.
    `_recorded()` gives the states (changes of the first) that a page without a kernel shall answer;
    or `_alone()` tells such a page more, of which it answers every state itself.

    Args:
        state: the values of STATE to begin with.
        given: what else the page is told, as JSON can hold it, but for bytes; `name` is that of
            the call that makes the explorer, `arguments` are those that are no state, as the
            notebook writes them.
    """

    MODULE = ""
    STATE: ClassVar[tuple[str, ...]] = ()
    # Of the constructor, which are no state, as repr names them.
    ARGUMENTS: ClassVar[tuple[str, ...]] = ()
    USUAL: ClassVar[dict[str, Any]] = {}  # what repr leaves out
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}  # description of a button -> what it sets
    ASKED: ClassVar[tuple[str, ...]] = ()
    _css = f".eca-lab {{ {_ARMS_CSS}}}\n" + _file("explorer.css")
    given = traitlets.Dict().tag(sync=True, to_json=_as_text)
    answer = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **keywords: Any) -> None:
        # anywidget makes further subclasses: what follows is for those that say something new.
        if "MODULE" in vars(cls):
            cls._esm = glued(cls.MODULE)
        if "STATE" in vars(cls):
            members = {name: _Attribute(None).tag(sync=True) for name in cls.STATE}
            members["_proposed"] = traitlets.validate(*cls.STATE)(_check_proposal)
            for name, member in members.items():
                setattr(cls, name, member)
                member.class_init(cls, name)  # traitlets does so for what the class body defines
        super().__init_subclass__(**keywords)

    def __init__(self, state: Iterable[Any], **given: Any) -> None:
        super().__init__(**dict(zip(self.STATE, state, strict=True)))
        name = type(self).__name__
        told = {"kind": name, "name": name, "usual": self.USUAL, "presets": self.PRESETS}
        told |= {"arguments": self.ARGUMENTS, "palettes": _PALETTES}
        self.given = {**told, "initial": self._state(), **given}
        if self.ASKED:
            self._answer_anew()
            self.observe(self._answer_anew, self.ASKED)

    def _answer_anew(self, _: object = None) -> None:
        # Called once for each of the traits that changed together: the first call sees them all.
        asked = {name: getattr(self, name) for name in self.ASKED}
        if self.answer.get("asked") != asked:
            self.answer = {"asked": asked, **self._answer()}

    @contextmanager
    def hold_trait_notifications(self) -> Iterator[None]:
        """As that of traitlets; and the page is told all changes at once, never a part of them."""
        with self.hold_sync(), super().hold_trait_notifications():
            yield

    _from_page = False  # whether it is the page that sets the state

    def _handle_msg(self, msg: dict[str, Any]) -> None:
        self._from_page = True
        try:
            super()._handle_msg(msg)
        finally:
            self._from_page = False

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """As that of ipywidgets; a page that is refused is told what holds, and why.

        A page may set what STATE names, and nothing else of what is told to it. A cell may have
        changed the state after the page asked: ipywidgets would print the error into the output of
        a cell, and leave the page as it is.
        """
        if self._from_page:
            sync_data = {name: value for name, value in sync_data.items() if name in self.STATE}
        try:
            super().set_state(sync_data)
        except StateError as error:
            if not self._from_page:
                raise
            self.send_state(["answer", *self.STATE])
            self.send({"refused": str(error)})

    def _recorded(self) -> Iterable[dict[str, Any]]:
        return ()

    def _alone(self) -> dict[str, Any]:
        return {}

    def save(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write the explorer as one file that lives without a kernel, and fetches nothing.

        It opens from the disk, in dark or light. What only the kernel can compute is recorded
        beforehand, with a bar of progress where that takes long; of sizes that were not recorded
        the nearest that were are shown. A file of that name is written over.

        Of channel weights it shows the weights, pictures and predictions of all images, the
        predictions without the attention of each layer, and the maps of as many images as 2 MB
        hold; single weights cannot be changed there. (The small networks of a `Dataset` run in the
        page, see `eca_lab.explorers.network`: there they can.) It takes a pass over the images for
        each layer. Of 200 images and SE-ResNet-18 the file has up to 7 MB, of SE-ResNet-50, which
        has eight times the weights, 11 MB.

        Args:
            path: of the file, such as "mine.html", in a folder that is there.
            title: of the page, by default the kind of the explorer.

        Returns:
            The path.

        Raises:
            ValueError, OSError: a path where no file can be written, before any work is done.
        """
        from eca_lab.explorers import alone

        return alone.save(self, path, title=title)

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def __repr__(self) -> str:
        """The constructor call that gives an equal explorer."""
        usual = self.given["usual"]
        state = {name: v for name, v in self._state().items() if usual.get(name) != v}
        named = [f"{name}={value!r}" for name, value in state.items()]
        return f"{self.given['name']}({', '.join([*self.given['arguments'], *named])})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        # Beside the live view, what a reader without a kernel can see: the picture, and one line.
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle
        figure = self._figure()
        figure.suptitle("A picture of an explorer. Run the cells to touch it.", fontsize=10.5)
        picture, metadata["image/png"] = figure._repr_png_()
        data["text/plain"] = f"{self!r}: {self._result()}"
        data["image/png"] = base64.b64encode(picture).decode()
        return data, metadata


def _check_proposal(explorer: Explorer, proposal: Any) -> Any:
    """Return what a trait shall hold, given the rest of the state, or raise a `StateError`."""
    name = proposal.trait.name
    try:
        return explorer._checked({**explorer._state(), name: proposal.value})[name]
    except (TypeError, ValueError) as error:
        raise StateError(str(error)) from None


def plain(number: Any) -> Any:
    """A number as repr shall write it: an int where it is one."""
    return int(number) if float(number).is_integer() else float(number)
