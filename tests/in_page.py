"""An explorer in a page, and what a reader does with it: by keys, by the mouse, by a finger."""

import math
from contextlib import contextmanager

from in_browser import told

# Waits until all is drawn in a new size, of which the page hears in a frame, and draws in the next.
_DRAWN = """() => new Promise(done => {
    const wait = frames => requestAnimationFrame(() => frames ? wait(frames - 1) : done());
    wait(4);
})"""
# Of one moment, for while a page takes its new size things move.
_PLACES = """root => [".headline", ".main", ".picture", ".controls", ".readout"].map(each =>
    root.querySelector(each).getBoundingClientRect().toJSON())"""
# What is cut off at the right of its explorer.
_STICKING_OUT = """root => [...root.querySelectorAll("*")].filter(each =>
    each.getBoundingClientRect().right > root.getBoundingClientRect().right + 1
).map(each => each.outerHTML.slice(0, 200))"""


class ExplorerInPage:
    """The one explorer of a page, or that which is the locator `root`.

    state is the line of Python that gives it, headline and tip what they say; why is the first
    answer to what was refused.
    """

    def __init__(self, page, root=None):
        self.page = page
        self.root = page.locator(".eca-lab") if root is None else root
        self.state = told(self.root)
        self.headline, self.tip = self.shown(".headline"), self.shown(".tip")
        self.why = self.root.get_by_role("alert").first

    def shown(self, selector, **filters):
        """What a CSS selector finds in it."""
        return self.root.locator(selector, **filters)

    def slider(self, label):
        return self.root.get_by_label(label, exact=True)

    def choice(self, label):
        """A list to choose from, whose label holds what there is, too."""
        return self.root.get_by_label(label)

    def box(self, label):
        """The box beside a slider, which takes any value."""
        return self.root.get_by_label(f"{label}, any value")

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def press(self, key, on=None):
        """Press a key: on what then has the focus, or on what has it already."""
        if on is not None:
            on.focus()
        self.page.keyboard.press(key)

    def push(self, name):
        """Push the button of that name by a key."""
        self.press("Enter", on=self.button(name))

    def type_into(self, label, value):
        """Write a value into a box, and enter it."""
        self.box(label).fill(str(value))
        self.press("Enter", on=self.box(label))

    @contextmanager
    def held(self, mark):
        """Hold a mark by the mouse.

        Gives a function that moves it in some steps by so many pixels to the right and up, as
        counted from where it was held.
        """
        x, y = middle(mark)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        try:
            yield lambda right, up=0, steps=3: self.page.mouse.move(x + right, y - up, steps=steps)
        finally:  # or the next story would begin with it held
            self.page.mouse.up()

    def drag(self, mark, right=0, up=0, steps=5):
        """Drag a mark by the mouse, by so many pixels."""
        with self.held(mark) as move:
            move(right, up, steps)

    def check_places(self):
        """The picture stands beside or directly above the controls, where there is room or not.

        The main sliders stand directly below the headline, above the picture where it is narrow.
        """
        for width in (1000, 720, 350):  # of windows of 1040, 760 and 390 pixels
            self.root.evaluate("(root, width) => { root.style.width = `${width}px`; }", width)
            self.page.evaluate(_DRAWN)
            headline, main, picture, controls, readout = self.root.evaluate(_PLACES)
            assert 0 <= main["top"] - headline["bottom"] < 20
            assert picture["top"] <= controls["top"] < readout["top"]
            beside = picture["right"] <= controls["left"]
            assert beside or controls["top"] - picture["bottom"] < 20
            assert width == 1000 or picture["top"] >= main["bottom"]
            assert self.root.evaluate(_STICKING_OUT) == []
        self.root.evaluate("root => { root.style.width = ''; }")


class Finger:
    """A finger on a page, or two."""

    def __init__(self, page):
        self.page = page
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def touch(self, kind, *points):
        """Send an event, such as touchStart, with all points (x, y) that are touched."""
        points = [{"x": x, "y": y} for x, y in points]
        self.devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drag(self, mark, right):
        """Drag a mark by so many pixels to the right, and a little down."""
        x, y = middle(mark)
        self.touch("touchStart", (x, y))
        for step in range(1, 9):
            self.touch("touchMove", (x + right * step / 8, y + step))
        self.touch("touchEnd")

    def lift(self):
        """Give the page back to the mouse."""
        self.devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
        self.devtools.detach()


def middle(mark):
    """Where (x, y) the middle of a locator's element is in the window."""
    place = mark.bounding_box()
    return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2


def draw_star(explorer):
    """Go round a star on the board of an explorer, by the mouse."""
    canvas = explorer.shown(".board canvas")
    canvas.scroll_into_view_if_needed()
    x, y = middle(canvas)
    mouse = explorer.page.mouse
    for corner in range(11):
        angle, radius = math.pi * corner / 5, 34 if corner % 2 else 80
        mouse.move(x + radius * math.sin(angle), y - radius * math.cos(angle))
        if corner == 0:
            mouse.down()
    mouse.up()
