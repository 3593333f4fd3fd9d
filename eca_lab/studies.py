"""Declared studies: what was written down before the trials, one TOML file each in data/studies.

A study has a question, and settings, each a data set, a backbone and a recipe. It asks by a
baseline and a family of arms that are compared with it, or by families of contrasts. The command
line, the Makefile and the notebooks read it here.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from eca_lab.checks import check_choice, check_integer, check_number
from eca_lab.recipe import Recipe, recipe_text
from eca_lab.spec import arm_order, parse_spec

FOLDER = Path(__file__).resolve().parent.parent / "data" / "studies"
TESTS = ("t", "sign flips")
_RECIPE = ("epochs", "crop", "scales")  # what a setting may say of its recipe


@dataclass(frozen=True)
class Slope:
    """The contrast beside a family: the slope of the metric over a number that arms have.

    over maps arms to that number, per names its unit. Where it is primary it is the one test that
    is not adjusted, and margin is what counts as no slope.
    """

    over: dict
    per: str
    primary: bool = False
    margin: float | None = None


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of what arms reach, which is 0 where nothing tells them apart.

    Either weights maps arms to their weights, whose sum is 0, as {"se": 1, "none": -1} does for a
    difference; or over maps arms to a number, and the contrast is the slope over it, per names its
    unit. words says what it tells; within margin of 0 it counts as none.
    """

    name: str
    words: str
    weights: dict | None = None
    over: dict | None = None
    per: str | None = None
    margin: float | None = None

    def __post_init__(self):
        if (self.weights is None) == (self.over is None):
            raise ValueError(f"{self.name}: accepted is one of weights and over")
        numbers = self.weights or self.over
        for arm, number in numbers.items():
            check_number(f"{self.name}, {arm}", number)
            if str(parse_spec(arm)) != arm:
                raise ValueError(f"{self.name}: {arm!r} is written {str(parse_spec(arm))!r}")
        if self.weights is not None and abs(sum(numbers.values())) > 1e-9:
            total = sum(numbers.values())
            raise ValueError(f"{self.name}: its weights add up to {total:g}, accepted is 0")
        if self.over is not None and len(set(numbers.values())) < 2:
            raise ValueError(f"{self.name}: accepted is a slope over two numbers or more")
        if self.margin is not None:
            check_number("margin", self.margin, above=0)

    @property
    def arms(self):
        return tuple(self.weights or self.over)


@dataclass(frozen=True)
class Family:
    """Contrasts whose p are adjusted together, by Holm, and those of equivalence likewise.

    test is one of `TESTS`: Student's t over the seeds, or all flips of their signs.
    """

    name: str
    test: str
    contrasts: tuple

    def __post_init__(self):
        check_choice("test", self.test, TESTS)


@dataclass(frozen=True)
class Setting:
    """Data, backbone and recipe of a study; what the study says of all its settings is in here too.

    data is what `eca_lab.data.load_dataset` takes, or "folder:" where only who runs it knows the
    folder; size is in pixels, per_class the training images of each class (None for all); device
    is "cpu" or "cuda"; precision and fused are as `eca_lab.train.train_network` takes them. arms
    are the baseline, the family, those of contrasts, and what is run beside; the networks of `keep`
    seeds are kept.
    """

    name: str
    data: str
    size: int
    backbone: str
    recipe: Recipe
    device: str
    seeds: int
    family: tuple
    arms: tuple
    per_class: int | None = None
    precision: str = "auto"
    fused: bool = False
    keep: int = 0

    def trials(self, results):
        """The rows of `eca_lab.results.load_results` that belong to this setting, its arms alone.

        In the order of `arms`.
        """
        chosen = results["arm"].isin(self.arms)
        chosen &= results["recipe"] == recipe_text(self.recipe.describe())
        for column in ("size", "backbone"):
            chosen &= results[column] == getattr(self, column)
        return results[chosen].sort_values("arm", key=arm_order, kind="stable")

    def whole_seeds(self, results):
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
    for `eca_lab.stats.compare`: studies that were declared before it was there do without.
    """

    name: str
    question: str
    results: Path
    settings: dict = field(repr=False)
    baseline: str | None = None
    margin: float | None = None
    adjust_equivalence: bool = False
    primary: str | None = None
    slope: Slope | None = None
    families: tuple = ()


def names(folder=FOLDER):
    """The names of the declared studies."""
    return sorted(path.stem for path in Path(folder).glob("*.toml"))


def load_study(name, folder=FOLDER):
    """The declaration of a study; ValueError for one that is not there, or not well declared."""
    check_choice("study", name, names(folder))
    path = Path(folder) / f"{name}.toml"
    try:
        declared = tomllib.loads(path.read_text(encoding="utf-8"))
        families = tuple(
            _family(title, **each) for title, each in declared.pop("families", {}).items()
        )
        baseline, family, contrasted = None, [], []
        if not families:
            baseline, family = declared.pop("baseline"), declared.pop("family")
            check_number("margin", declared["margin"], above=0)
            contrasted = [baseline]
        contrasted += [arm for each in families for one in each.contrasts for arm in one.arms]
        beside, seeds = declared.pop("beside", []), declared.pop("seeds")
        beside += [declared["primary"]] if "primary" in declared else []
        settings = {}
        for each, setting in declared.pop("settings").items():
            compared = _arms([*family, *setting.pop("family", [])])
            check_integer("seeds", setting.setdefault("seeds", seeds))
            arms = {*_arms(contrasted), *_arms(beside), *compared}
            arms = sorted(arms, key=lambda arm: parse_spec(arm).order)
            recipe = {name: setting.pop(name) for name in _RECIPE if name in setting}
            setting |= {"family": compared, "arms": tuple(arms), "recipe": Recipe(**recipe)}
            settings[each] = Setting(name=each, **setting)
        slope = Slope(**declared.pop("slope")) if "slope" in declared else None
        declared["results"] = path.parent.parent / "results" / declared["results"]
        return Study(
            name=name,
            baseline=baseline,
            settings=settings,
            slope=slope,
            families=families,
            **declared,
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} declares no study: {error}") from None


def _family(name, test, contrasts, margin=None):
    """A `Family`; its margin is that of every contrast that has none of its own."""
    contrasts = ({"margin": margin, **each, "name": name} for name, each in contrasts.items())
    return Family(name, test, tuple(Contrast(**each) for each in contrasts))


def _arms(texts):
    return tuple(str(parse_spec(text)) for text in texts)
