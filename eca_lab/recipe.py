"""How a trial trains. Needs no torch, so that the command line can tell its defaults at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eca_lab.checks import check_choice, check_integer, check_number, shown

MOST_EPOCHS = 100_000  # the scale of each is a number in a list
MOST_SEEDS = 10_000  # to plan their trials takes a second
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, warm-up, then decay to zero; refuses values out of range.

    learning_rate is the peak, for this batch_size. warmup is the share of all steps that the
    learning rate takes to rise; decay, by which it falls, is linear and nothing else, and written
    down with every trial. Weight decay leaves out biases and normalisation. crop is the width in
    pixels of the border from within which images of up to 32 pixels are cut; None is an eighth of
    their size. Larger images are cut to boxes of random size and shape, of which least_area is the
    smallest share of the image: None is 0.35, and 0.08 is usual for ImageNet. Where it is given,
    small images are cut so, too. The test images are whole. scales makes the first epochs cheap by
    smaller images (progressive resizing): pairs of a share of the full size and a number of
    epochs, such as ((0.5, 5), (0.75, 4)).
    """

    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.2
    decay: str = "linear"
    crop: int | None = None
    scales: Sequence[tuple[float, int]] = ()
    least_area: float | None = None

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, most=MOST_EPOCHS)
        check_integer("batch_size", self.batch_size)
        check_number("learning_rate", self.learning_rate, above=0)
        for name in ("momentum", "label_smoothing", "warmup"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_choice("decay", self.decay, ("linear",))
        if self.crop is not None:
            check_integer("crop", self.crop, least=0, most=32)
        if self.least_area is not None:
            check_number("least_area", self.least_area, above=0, most=1)
            if self.crop is not None:
                both = f"least_area={self.least_area} with crop={self.crop}"
                raise ValueError(f"{both}: accepted is one of the two")
        self._check_scales()

    def _check_scales(self) -> None:
        accepted = "accepted are pairs of a scale and epochs"
        if not isinstance(self.scales, (list, tuple)):
            raise TypeError(f"scales={shown(self.scales)}: {accepted}")
        for pair in self.scales:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise TypeError(f"scales={shown(pair)}: {accepted}")
            scale, epochs = pair
            check_number("scales", scale, above=0, most=1)
            check_integer("epochs in scales", epochs)
        small = sum(epochs for _, epochs in self.scales)
        check_integer("epochs in scales", small, least=0, most=self.epochs)

    @property
    def _small(self) -> list[float]:
        """The scale of each epoch that has one."""
        return [scale for scale, epochs in self.scales for _ in range(epochs)]

    @property
    def epoch_scales(self) -> list[float]:
        """The share of the full size that images have, for every epoch."""
        return self._small + [1.0] * (self.epochs - len(self._small))

    def describe(self) -> dict[str, Any]:
        """As a JSON-ready dict. What says nothing is left out: it came after the first trials."""
        described = asdict(self) | {"scales": list(map(list, self.scales))}
        return {name: value for name, value in described.items() if value not in (None, [])}


def recipe_text(described: Mapping[str, Any]) -> str:
    """A recipe of `Recipe.describe` in one line."""
    return ", ".join(f"{name}={value}" for name, value in described.items())
