"""The explorer of a study: what its recorded trials say of every arm against a baseline."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from eca_lab.attention.spec import parse_spec
from eca_lab.checks import check_choice, check_number
from eca_lab.evidence import report, stats
from eca_lab.evidence.results import RUN
from eca_lab.explorers.explorer import Explorer, plain
from eca_lab.figures import arm_color, differences_figure

# Metric -> baseline -> the comparison of all arms with it, or why there is none.
_Made = dict[str, dict[str, stats.Comparison | ValueError]]


class StudyExplorer(Explorer):
    """Choose data, backbone, metric, baseline and margin; see what the recorded trials say.

    Args:
        results: DataFrame of `eca_lab.evidence.results.load_results`, not empty.
        data, backbone: one of the settings of these results, the first if left out.
        metric: "top1" or "top5".
        baseline: the arm that all others are compared with; if left out "eca" where it is there.
        margin: in points, 0.01 to 5; differences nearer to 0 do not matter.

    ValueError also for a baseline that has no pair with any arm, telling why.
    """

    MODULE = "study.js"
    ARGUMENTS = ("recorded",)
    STATE = ("data", "backbone", "metric", "baseline", "margin")
    METRICS: ClassVar = {name: stats.METRICS[name].words for name in ("top1", "top5")}
    MARGIN_STOPS = tuple(sorted({min(round(10 ** (step / 20 - 2), 2), 5) for step in range(55)}))
    NUMBERS: ClassVar = ["difference", "low", "high", "p_holm", "sd"]

    def __init__(
        self,
        results: pd.DataFrame,
        data: str | None = None,
        *,
        backbone: str | None = None,
        metric: str = "top1",
        baseline: str | None = None,
        margin: float = 0.2,
    ) -> None:
        if not len(results):
            raise ValueError("results without a trial: accepted is at least one finished trial")
        # data -> backbone -> metric -> baseline -> Comparison, or the error that it raised
        self._made: dict[str, dict[str, _Made]] = {}
        settings = []
        for name, network, trials in _named_settings(results):
            made = {each: _compare_all(trials, each) for each in self.METRICS}
            self._made.setdefault(name, {})[network] = made
            settings.append({"data": name, "backbone": network, **self._told(trials, made)})
        data = settings[0]["data"] if data is None else data
        backbone = next(iter(self._made.get(data, [None]))) if backbone is None else backbone
        if baseline is None:
            known = self._made.get(data, {}).get(str(backbone), {}).get(metric, {})
            can = (arm for arm in ("eca", *known) if isinstance(known.get(arm), stats.Comparison))
            baseline = next(can, "eca")
        given = {"metrics": self.METRICS, "stops": {"margin": self.MARGIN_STOPS}}
        colors = {arm: arm_color(arm) for arm in results["arm"].unique()}
        given |= {"level": stats.LEVEL, "settings": settings, "colors": colors}
        given["sentences"] = report.SENTENCES
        given["quantiles"] = _equivalence_quantiles(settings)
        super().__init__((data, backbone, metric, baseline, margin), **given)

    def _told(self, trials: pd.DataFrame, made: _Made) -> dict[str, Any]:
        arms, first = list(trials["arm"].unique()), trials.iloc[0]
        columns = trials.reindex(columns=["arm", "seed", *self.METRICS, *RUN, "identity"])

        def told(each: stats.Comparison | ValueError) -> dict[str, Any]:
            if isinstance(each, ValueError):
                return {"why": str(each)}
            numbers = each.table.reindex(arms)[self.NUMBERS].to_numpy()
            return {"numbers": numbers.tobytes(), "facts": report.facts(each)}

        return {
            "about": f"{first['train']:,} training images; {first['recipe']}",
            "arms": {arm: parse_spec(arm).fixed_kernel_size for arm in arms},
            "trials": columns.astype(object).where(columns.notna(), None).to_dict("list"),
            "compared": {of: {arm: told(made[of][arm]) for arm in arms} for of in self.METRICS},
        }

    @property
    def comparison(self) -> stats.Comparison:
        """The `eca_lab.evidence.stats.Comparison` of the present state."""
        made = self._made[self.data][self.backbone][self.metric]
        return made[self.baseline].at(self.margin)

    def _result(self) -> str:
        verdicts = self.comparison.table["verdict"].value_counts()
        return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())

    def _figure(self) -> Figure:
        return differences_figure({f"{self.data}, {self.backbone}": self.comparison})

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        made: Any = self._made
        for name in self.STATE[:-1]:
            check_choice(name, state[name], made)
            made = made[state[name]]
        if isinstance(made, ValueError):
            raise made
        check_number(
            "margin", state["margin"], least=self.MARGIN_STOPS[0], most=self.MARGIN_STOPS[-1]
        )
        return {**state, "margin": plain(state["margin"])}


def _equivalence_quantiles(settings: list[dict[str, Any]]) -> dict[int, list[float]]:
    """Of every number n of pairs the factors by which the page finds an arm's margins.

    With j tests left, Holm rejects p below LEVEL / j. The test of equivalence has such a p at a
    margin above |difference| + t sd / sqrt(n), where t is the upper quantile of LEVEL / j.
    """
    tests = np.arange(1, max(len(each["arms"]) for each in settings))
    most = max(len(set(each["trials"]["seed"])) for each in settings)
    return {n: (-special.stdtrit(n - 1, stats.LEVEL / tests)).tolist() for n in range(2, most + 1)}


def _compare_all(trials: pd.DataFrame, metric: str) -> dict[str, stats.Comparison | ValueError]:
    made: dict[str, stats.Comparison | ValueError] = {}
    for arm in trials["arm"].unique():
        try:
            made[arm] = stats.compare(trials, arm, metric=metric)
        except ValueError as error:  # nothing can be paired with it
            made[arm] = error
    return made


def _named_settings(results: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The trials of each setting, with a short name for its data and recipe, and its backbone."""
    names = results["dataset"] + results["size"].map(", {} px".format)
    names += results["epochs"].map(", {} epochs".format)
    recipes = results["train"].map("{:,} images, ".format) + results["recipe"]
    results = results.assign(_name=names, _recipe=recipes + ", " + results["fingerprint"])
    for (name, backbone), alike in results.groupby(["_name", "backbone"], sort=False):
        shared = set.intersection(*(set(recipe.split(", ")) for recipe in alike["_recipe"]))
        for recipe, trials in alike.groupby("_recipe", sort=False):
            added = (part for part in recipe.split(", ") if part not in shared)
            yield ", ".join([name, *added]), backbone, trials
