"""The panel of a study, and its picture."""

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg

from eca_lab import report, stats
from eca_lab.checks import check_choice, check_number
from eca_lab.explorers.panel import Panel, table, themed
from eca_lab.figures import draw_differences, draw_kernel_sweep, new_figure, palette_png
from eca_lab.results import SETTING


class StudyExplorer(Panel):
    """Choose data, backbone, metric, baseline and margin; see what the recorded trials say.

    Args:
        results: DataFrame of `eca_lab.results.load_results`, not empty.
        data: one of `data_sets`, the first if left out.
        backbone: one that these data were run on, the first if left out.
        metric: one of `METRICS`.
        baseline: an arm, the one that the others are compared with; "eca" if left out and there.
        margin: in points, 0.01 to 5; differences nearer to 0 do not matter.

    All but results can be read and set as attributes. Other data, or another backbone, take over
    what they have of the rest. Any other value that is not accepted raises an error that names it;
    typed into a box, it shows that message instead. So do results without a row.
    """

    STATE = ("data", "backbone", "metric", "baseline", "margin")
    GIVEN = ("results",)
    METRICS = ("top1", "top5")
    MARGIN_LIMITS = (0.01, 5)
    MARGIN_STOPS = tuple(sorted({min(round(10 ** (step / 20 - 2), 2), 5) for step in range(55)}))

    def __init__(self, results, data=None, backbone=None, metric="top1", baseline=None, margin=0.2):
        if not len(results):
            raise ValueError("results without a trial: accepted is at least one finished trial")
        self._settings = _named_settings(results)
        data = self.data_sets[0] if data is None else data
        backbones = self._settings.get(data, {})
        if backbone is None:
            backbone = next(iter(backbones), None)
        if baseline is None and backbone in backbones:
            baseline = _usual_baseline(backbones[backbone])
        self._table, self._made = ipywidgets.HTML(), {}
        state = {"data": data, "backbone": backbone, "metric": metric}
        super().__init__(StudyPicture(), **state, baseline=baseline, margin=margin)
        # Below the rest: it is wider than the column of the controls.
        self.children = [*self.children, self._table]

    @property
    def data_sets(self):
        """The data that there are results on, each with its size and recipe."""
        return tuple(self._settings)

    @property
    def comparison(self):
        """The `eca_lab.stats.Comparison` of the present state."""
        return self._comparison

    def _result(self):
        verdicts = self._comparison.table["verdict"].value_counts()
        return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())

    def _build_controls(self):
        return [
            self._choice("data", "data", lambda: self.data_sets),
            self._choice("backbone", "backbone", lambda: self._settings[self.data]),
            self._choice("metric", "metric", lambda: self.METRICS),
            self._choice("baseline", "baseline", lambda: _arms(self._trials)),
            self._row(
                "margin", "margin", lambda: self.MARGIN_STOPS, "margin in percentage points", 0.1
            ),
        ]

    @property
    def _trials(self):
        return self._settings[self.data][self.backbone]

    def _fitted(self, changes):
        # What other data do not have gives way to what they have.
        backbones = self._settings.get(changes.get("data", self.data), {})
        backbone = changes.get("backbone", self.backbone)
        if "data" in changes and backbone not in backbones:
            backbone = changes["backbone"] = next(iter(backbones), None)
        trials = backbones.get(backbone)
        if trials is not None and "baseline" not in changes and self.baseline not in _arms(trials):
            changes["baseline"] = _usual_baseline(trials)
        return changes, ""

    def _checked(self, state):
        check_choice("data", state["data"], self.data_sets)
        backbones = self._settings[state["data"]]
        check_choice("backbone", state["backbone"], tuple(backbones))
        check_choice("metric", state["metric"], self.METRICS)
        check_choice("baseline", state["baseline"], _arms(backbones[state["backbone"]]))
        check_number("margin", state["margin"], *self.MARGIN_LIMITS)
        self._compare(state)
        return {**state, "margin": float(state["margin"])}

    def _compare(self, state):
        """The comparison at some margin; ValueError where nothing can be paired."""
        *asked, _ = (state[name] for name in self.STATE)
        if tuple(asked) not in self._made:
            data, backbone, metric, baseline = asked
            trials = self._settings[data][backbone]
            self._made[tuple(asked)] = stats.compare(trials, baseline, metric=metric)
        return self._made[tuple(asked)]

    def _shown(self):
        self._comparison = self._compare(self._state).at(self.margin)
        rows = [("arm", "n", "difference", "95% interval", "p (Holm)", "verdict")]
        for arm, row in self._comparison.table.iterrows():
            interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
            numbers = f"{row['difference']:+.2f}", interval, f"{row['p_holm']:.2f}"
            rows.append((arm, row["n"], *numbers, row["verdict"]))
        self._table.value = themed(table(rows), style="overflow-x: auto; white-space: nowrap")
        return report.conclusions(self._comparison), {"comparison": self._comparison}


class StudyPicture:
    """The picture of a `StudyExplorer`: differences, and below the same over k."""

    def __init__(self):
        self.figure = new_figure(7.2, 7.8)
        self.canvas = FigureCanvasAgg(self.figure)

    def png(self, comparison):
        """Draw one state, as two figures of `eca_lab.figures` do; a PNG of 720 x 780 pixels."""
        self.figure.clear()
        upper, lower = self.figure.subplots(2, height_ratios=(max(3, len(comparison.table)), 6))
        draw_differences(upper, comparison)
        draw_kernel_sweep(lower, comparison)
        for ax in (upper, lower):
            ax.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        self.canvas.draw()
        return palette_png(self.canvas)


def _arms(trials):
    return tuple(trials["arm"].unique())


def _usual_baseline(trials):
    arms = _arms(trials)
    return "eca" if "eca" in arms else arms[0]


def _named_settings(results):
    """The trials of each setting by a name for its data and recipe, and by backbone."""
    named = {}
    for _, trials in results.groupby(list(SETTING), sort=False):
        first = trials.iloc[0]
        name = (
            f"{first['dataset']}, {first['size']} px, {first['train']:,} images, "
            f"{first['epochs']} epochs"
        )
        if first["backbone"] in named.get(name, {}):  # it differs in something else
            name += f", {first['recipe']}, {first['fingerprint']}"
        named.setdefault(name, {})[first["backbone"]] = trials
    return named
