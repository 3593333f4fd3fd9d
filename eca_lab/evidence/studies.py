"""Declared studies: what was written down before the trials, one TOML file each in data/studies.

A study has a question, and settings, each a data set, a backbone and a recipe. It asks by a
baseline and a family of arms that are compared with it, or by families of contrasts. The command
line, the Makefile and the notebooks read it here.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eca_lab.attention.spec import BACKBONES, DATASETS, arm_order, parse_spec
from eca_lab.checks import check_choice, check_integer, check_number, shown
from eca_lab.files import DATA, listed, read_regular
from eca_lab.recipe import MOST_EPOCHS, MOST_SEEDS, PRECISIONS, Recipe, recipe_text

if TYPE_CHECKING:  # the command line's help needs no pandas
    import pandas as pd

FOLDER = DATA / "studies"
TESTS = ("t", "sign flips")
_RECIPE = ("epochs", "crop", "least_area", "scales")  # what a setting may say of its recipe


@dataclass(frozen=True)
class Slope:
    """The contrast beside a family: the slope of the metric over a number that arms have.

    over maps arms to that number, per names its unit. Where it is primary it is the one test that
    is not adjusted, and margin is what counts as no slope.
    """

    over: Mapping[str, float]
    per: str
    primary: bool = False
    margin: float | None = None

    def __post_init__(self) -> None:
        _check_numbers("slope", self.over)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of what arms reach, which is 0 where nothing tells them apart.

    Either weights maps arms to their weights, whose sum is 0, as {"se": 1, "none": -1} does for a
    difference; or over maps arms to a number, and the contrast is the slope over it, per names its
    unit. words says what it tells; within margin of 0 it counts as none.
    """

    name: str
    words: str
    weights: Mapping[str, float] | None = None
    over: Mapping[str, float] | None = None
    per: str | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.over is None):
            raise ValueError(f"{self.name}: accepted is one of weights and over")
        if (self.per is None) != (self.over is None):
            raise ValueError(f"{self.name}: accepted are over and per together")
        _check_numbers(self.name, self._numbers)
        total = sum(self._numbers.values())
        if self.weights is not None and abs(total) > 1e-9:
            raise ValueError(f"{self.name}: its weights add up to {total:g}, accepted is 0")
        if self.over is not None and len(set(self._numbers.values())) < 2:
            raise ValueError(f"{self.name}: accepted is a slope over two numbers or more")
        if self.margin is not None:
            check_number("margin", self.margin, above=0)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it weighs."""
        return tuple(self._numbers)

    @property
    def _numbers(self) -> Mapping[str, float]:
        return self.weights or self.over or {}


@dataclass(frozen=True)
class Family:
    """Contrasts whose p are adjusted together, by Holm, and those of equivalence likewise.

    contrasts are of the class `Contrast`. test is one of `TESTS`: Student's t over the seeds, or
    all flips of their signs.
    """

    name: str
    test: str
    contrasts: tuple

    def __post_init__(self) -> None:
        check_choice("test", self.test, TESTS)


@dataclass(frozen=True)
class Setting:
    """Data, backbone and recipe of a study; what the study says of all its settings is in here too.

    data is what `eca_lab.data.load_dataset` takes, or "folder:" where only who runs it knows the
    folder; size is in pixels, per_class the training images of each class (None for all); device is
    "cpu" or "cuda"; precision and fused are as `eca_lab.training.train.train_network` takes them.
    arms are the baseline, the family, those of contrasts, and what is run beside; the networks of
    `keep` seeds are kept.
    """

    name: str
    data: str
    size: int
    backbone: str
    recipe: Recipe
    device: str
    seeds: int
    family: tuple[str, ...]
    arms: tuple[str, ...]
    per_class: int | None = None
    precision: str = "auto"
    fused: bool = False
    keep: int = 0

    def trials(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """The rows of `eca_lab.evidence.results.load_results` that belong to this setting, its arms
        alone.

        In the order of `arms`.
        """
        chosen = results["arm"].isin(self.arms)
        chosen &= results["recipe"] == recipe_text(self.recipe.describe())
        for column in ("size", "backbone"):
            chosen &= results[column] == getattr(self, column)
        return results[chosen].sort_values("arm", key=arm_order, kind="stable")

    def whole_seeds(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """Those of `trials` whose seeds have all arms, on the data set with the most trials.

        A study is told by them: what is added on other images is a study of its own.
        """
        found = self.trials(results)
        found = found[found["fingerprint"] == found["fingerprint"].mode().get(0)]
        return found[found.groupby("seed")["arm"].transform("nunique") == len(self.arms)]


@dataclass(frozen=True)
class Study:
    """A declaration. results is the folder of its trials; margin is in points of top-1.

    Where there is a primary arm, the baseline minus it is the one test that is not adjusted. A
    study that asks by families of contrasts has neither baseline nor margin. adjust_equivalence is
    for `eca_lab.evidence.stats.compare`: studies that were declared before it was there do without.
    """

    name: str
    question: str
    results: Path
    settings: dict[str, Setting] = field(repr=False)
    baseline: str = ""
    margin: float = math.nan
    adjust_equivalence: bool = False
    primary: str = ""
    slope: Slope | None = None
    families: tuple[Family, ...] = ()


def names(folder: str | Path = FOLDER) -> list[str]:
    """The names of the declared studies; OSError for a folder that cannot be listed."""
    try:
        return [path.stem for path in listed(folder, ".toml")]
    except FileNotFoundError:  # of an installed package
        return []


def load_study(name: str, folder: str | Path = FOLDER) -> Study:
    """The declaration of a study; ValueError for one that is not there, or not well declared.

    It is checked as a whole before anything is made of it: each key that is unknown, missing, or
    has a value that is not accepted is named.
    """
    if not (known := names(folder)):
        accepted = "accepted is the working directory or one above it, in a checkout of ECA Lab"
        raise ValueError(f"study={shown(name)}: no study is declared in {folder}; {accepted}")
    check_choice("study", name, known)
    path = Path(folder) / f"{name}.toml"
    try:
        declared = tomllib.loads(read_regular(path).decode())
        keys = _WITH_FAMILIES if "families" in declared else _WITH_BASELINE
        if problems := list(keys("", declared)):
            raise ValueError("; ".join(problems))
        results = path.parent.parent / "results" / declared.pop("results")
        return _study(name, results, **declared)
    except RecursionError:
        raise ValueError(f"{path} declares no study: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} declares no study: {error}") from None


def _study(
    name: str,
    results: Path,
    *,
    question: str,
    settings: Mapping[str, Mapping[str, Any]],
    seeds: int,
    baseline: str = "",
    primary: str = "",
    family: Sequence[str] = (),
    beside: Sequence[str] = (),
    families: Mapping[str, Mapping[str, Any]] | None = None,
    slope: Mapping[str, Any] | None = None,
    margin: float = math.nan,
) -> Study:
    """The `Study` of a declaration that was checked key by key; ValueError for what contradicts."""
    baseline = str(parse_spec(baseline)) if baseline else ""
    primary = str(parse_spec(primary)) if primary else ""
    contrasts = tuple(_family(title, **declared) for title, declared in (families or {}).items())
    shared = [arm for arm in (baseline, primary, *beside) if arm]
    for asked in contrasts:
        for contrast in asked.contrasts:
            shared += contrast.arms
    made = {}
    for title, declared in settings.items():
        try:
            made[title] = _setting(title, family, shared=shared, **{"seeds": seeds, **declared})
        except (TypeError, ValueError) as error:
            raise ValueError(f"settings.{title}: {error}") from None
    trend = Slope(**slope) if slope else None
    for setting in made.values():
        for key, arm in (("baseline", baseline), ("primary", primary)):
            if arm in setting.family:
                raise ValueError(f"{key}={arm!r}: accepted is an arm outside the family")
        for arm in trend.over if trend else ():
            check_choice("slope.over", arm, setting.arms)
    if primary and primary == baseline:
        raise ValueError(f"primary={primary!r}: accepted is another arm than the baseline")
    return Study(
        name=name,
        question=question,
        results=results,
        settings=made,
        baseline=baseline,
        margin=margin,
        primary=primary,
        slope=trend,
        families=contrasts,
    )


def _setting(
    name: str,
    shared_family: Sequence[str],
    *,
    shared: Sequence[str],
    family: Sequence[str] = (),
    **declared: Any,
) -> Setting:
    """A `Setting`, with the arms of all settings and of its own; what is declared is the rest."""
    recipe = Recipe(**{key: declared.pop(key) for key in _RECIPE if key in declared})
    own_family = _arms([*shared_family, *family])
    arms = sorted({*_arms(shared), *own_family}, key=lambda arm: parse_spec(arm).order)
    return Setting(name=name, recipe=recipe, family=own_family, arms=tuple(arms), **declared)


def _family(
    name: str,
    test: str,
    *,
    contrasts: Mapping[str, Mapping[str, Any]],
    margin: float | None = None,
) -> Family:
    """A `Family`; its margin is that of every contrast that has none of its own."""
    made = []
    for title, declared in contrasts.items():
        made.append(Contrast(**{"margin": margin, **declared, "name": title}))
    return Family(name, test, tuple(made))


def _arms(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(parse_spec(text)) for text in texts)


def _check_numbers(name: str, numbers: Mapping[str, float]) -> None:
    """Raise unless they map arms, written as results have them, to numbers."""
    for arm, number in numbers.items():
        check_number(f"{name}, {arm}", number)
        if str(parse_spec(arm)) != arm:
            raise ValueError(f"{name}: {arm!r} is written {str(parse_spec(arm))!r}")


# What a file must say and what it may: the keys of each table, each with the check of its value. A
# check raises, or gives sentences on all that is wrong inside.
_Check = Callable[[str, Any], Iterable[str] | None]


def _found(check: _Check, where: str, value: object) -> Iterator[str]:
    try:
        yield from check(where, value) or ()
    except (TypeError, ValueError) as error:
        yield str(error)


def _table(
    required: Mapping[str, _Check], optional: Mapping[str, _Check]
) -> Callable[[str, Any], Iterator[str]]:
    """The check of a table with such keys; where is its own key, as settings.small."""
    accepted = {**required, **optional}

    def check(where: str, value: Any) -> Iterator[str]:
        _check_kind(where, value, dict, "a table")
        for key in required:
            if key not in value:
                yield f"{where}.{key} is missing".lstrip(".")
        for key, entry in value.items():
            place = f"{where}.{key}".lstrip(".")
            if key in accepted:
                yield from _found(accepted[key], place, entry)
            else:
                yield f"{place}={shown(entry)}: no such key, accepted are {', '.join(accepted)}"

    return check


def _tables(check_one: _Check) -> _Check:
    """The check of a table of one table or more, whose names a command line can give."""

    def check(where: str, value: Any) -> Iterator[str]:
        _check_kind(where, value, dict, "a table of tables")
        if not value:
            raise ValueError(f"{where} is empty: accepted is one table or more")
        for name, table in value.items():
            yield from _found(_check_name, f"a name in {where}", name)
            yield from _found(check_one, f"{where}.{name}", table)

    return check


def _check_kind(where: str, value: object, kind: type, accepted: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{where}={shown(value)}: accepted is {accepted}")


def _check_name(where: str, value: Any) -> None:
    """Of a folder, or what is typed on a command line: no path, and nothing hidden."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", value):
        accepted = (
            "a name of up to 100 letters, digits, _, - and ., which does not begin with - or ."
        )
        raise ValueError(f"{where}={shown(value)}: accepted is {accepted}")


def _check_text(where: str, value: Any) -> None:
    _check_kind(where, value, str, "text")
    if not value.strip():
        raise ValueError(f"{where}={shown(value)}: accepted is text that is not empty")


def _check_flag(where: str, value: Any) -> None:
    _check_kind(where, value, bool, "true or false")


def _check_arm(where: str, value: Any) -> None:
    try:
        parse_spec(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _check_arms(where: str, value: Any) -> Iterator[str]:
    _check_kind(where, value, list, "a list of arms")
    for arm in value:
        yield from _found(_check_arm, where, arm)


def _check_weighted(where: str, value: Any) -> None:
    _check_kind(where, value, dict, "a table of arms and their numbers")
    if not value:
        raise ValueError(f"{where} is empty: accepted is one arm or more")


def _check_scales(where: str, value: Any) -> None:
    _check_kind(where, value, list, "a list of pairs of a scale and epochs")


def _one_of(*choices: str) -> _Check:
    return partial(check_choice, choices=choices)


_count = partial(check_integer, most=MOST_SEEDS)
_margin = partial(check_number, above=0)
_SETTING: dict[str, _Check] = {
    "data": _one_of(*DATASETS, "folder:"),
    "size": partial(check_integer, least=4, most=1024),
    "backbone": _one_of(*BACKBONES),
    "device": _one_of("cpu", "cuda"),
}
_OF_SETTING: dict[str, _Check] = {
    "seeds": _count,
    "per_class": check_integer,
    "precision": _one_of(*PRECISIONS),
    "fused": _check_flag,
    "keep": partial(check_integer, least=0),
    "epochs": partial(check_integer, most=MOST_EPOCHS),
    "crop": partial(check_integer, least=0, most=32),
    "least_area": partial(check_number, above=0, most=1),
    "scales": _check_scales,
}
_SLOPE: dict[str, _Check] = {"over": _check_weighted, "per": _check_text}
_CONTRAST = _table(
    {"words": _check_text}, {**_SLOPE, "weights": _check_weighted, "margin": _margin}
)
_FAMILY = _table({"test": _one_of(*TESTS), "contrasts": _tables(_CONTRAST)}, {"margin": _margin})
_STUDY: dict[str, _Check] = {"question": _check_text, "results": _check_name, "seeds": _count}
_WITH_FAMILIES = _table(
    {**_STUDY, "families": _tables(_FAMILY), "settings": _tables(_table(_SETTING, _OF_SETTING))},
    {"beside": _check_arms},
)
_WITH_BASELINE = _table(
    {
        **_STUDY,
        "baseline": _check_arm,
        "margin": _margin,
        "family": _check_arms,
        "settings": _tables(_table(_SETTING, {**_OF_SETTING, "family": _check_arms})),
    },
    {
        "beside": _check_arms,
        "primary": _check_arm,
        "slope": _table(_SLOPE, {"primary": _check_flag, "margin": _margin}),
    },
)
