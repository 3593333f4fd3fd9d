"""The panel of a study, and its picture."""

import html

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eca_lab.explorers.panel import Panel, new_box, rows_as_html, state
from eca_lab.figures import draw_differences, draw_kernel_sweep, palette_png


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
    typed into a box, it shows that message instead.

    Raises:
        TypeError, ValueError: also for results without a row.
    """

    METRICS = ("top1", "top5")
    MARGIN_LIMITS = (0.01, 5)

    data = state("data")
    backbone = state("backbone")
    metric = state("metric")
    baseline = state("baseline")
    margin = state("margin")

    def __init__(self, results, data=None, backbone=None, metric="top1", baseline=None, margin=0.2):
        if not len(results):
            raise ValueError("results without a trial: accepted is at least one finished trial")
        self._settings = _named_settings(results)
        data = self.data_sets[0] if data is None else data
        if backbone is None and data in self._settings:
            backbone = next(iter(self._settings[data]))
        if baseline is None and data in self._settings and backbone in self._settings[data]:
            baseline = _usual_baseline(self._settings[data][backbone])
        super().__init__(
            StudyPicture(),
            data=data,
            backbone=backbone,
            metric=metric,
            baseline=baseline,
            margin=margin,
        )
        # Below the rest: it is wider than the column of the controls.
        self.children = [*self.children, self._table]

    @property
    def data_sets(self):
        """The data that there are results on, each with its size and recipe."""
        return tuple(self._settings)

    @property
    def compared(self):
        """DataFrame of `eca_lab.stats.compare` for the present state."""
        return self._compared

    @property
    def conclusions(self):
        """The sentences of `eca_lab.stats.conclusions` for the present state."""
        return self._conclusions

    def __repr__(self):
        """The constructor call that gives an equal panel of the same results."""
        state = ", ".join(f"{name}={value!r}" for name, value in self._state.items())
        return f"StudyExplorer(results, {state})"

    def _result(self):
        verdicts = self._compared["verdict"].value_counts()
        return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())

    def _in_words(self):
        return f"{self.data}, {self.backbone}, {self.metric}, {self.baseline}, ±{self.margin:g}"

    def _build_controls(self):
        self._choices = {
            "data": ipywidgets.Dropdown(options=self.data_sets, description="data"),
            "backbone": ipywidgets.Dropdown(description="backbone"),
            "metric": ipywidgets.Dropdown(options=self.METRICS, description="metric"),
            "baseline": ipywidgets.Dropdown(description="baseline"),
        }
        for choice in self._choices.values():
            choice.layout = ipywidgets.Layout(width="auto")
        self._margin_slider = ipywidgets.FloatLogSlider(
            min=-2, max=0.7, step=0.05, description="margin", readout=False
        )
        self._margin_slider.layout = ipywidgets.Layout(flex="1 1 auto", width="auto")
        # Resampling at every step of the way would make the slider stutter.
        self._margin_slider.continuous_update = False
        self._margin_box = new_box(ipywidgets.FloatText, "margin in percentage points", 0.1)
        self._table = ipywidgets.HTML()
        self._observe([(choice, name, str) for name, choice in self._choices.items()])
        self._observe(
            [
                (self._margin_slider, "margin", lambda value: round(value, 2)),
                (self._margin_box, "margin", float),
            ]
        )
        return [
            *self._choices.values(),
            ipywidgets.HBox([self._margin_slider, self._margin_box]),
            ipywidgets.Box(self._buttons({})),
        ]

    def _set(self, **changes):
        # What other data do not have gives way to what they have.
        data = changes.get("data", self._state.get("data"))
        if self._state and data in self._settings:
            backbones = self._settings[data]
            backbone = changes.get("backbone", self.backbone)
            if "data" in changes and backbone not in backbones:
                backbone = changes["backbone"] = next(iter(backbones))
            if backbone in backbones and "baseline" not in changes:
                arms = set(backbones[backbone]["arm"])
                if self.baseline not in arms:
                    changes["baseline"] = _usual_baseline(backbones[backbone])
        super()._set(**changes)

    def _checked(self, data, backbone, metric, baseline, margin):
        if data not in self._settings:
            raise ValueError(f"data={data!r}: accepted are {'; '.join(self.data_sets)}")
        backbones = self._settings[data]
        if backbone not in backbones:
            raise ValueError(f"backbone={backbone!r}: accepted are {', '.join(backbones)}")
        if metric not in self.METRICS:
            raise ValueError(f"metric={metric!r}: accepted are {', '.join(self.METRICS)}")
        arms = backbones[backbone]["arm"].unique()
        if baseline not in arms:
            raise ValueError(f"baseline={baseline!r}: accepted are {', '.join(arms)}")
        lowest, highest = self.MARGIN_LIMITS
        if not lowest <= margin <= highest:
            raise ValueError(f"margin={margin}: accepted are {lowest} to {highest}")
        return {
            "data": data,
            "backbone": backbone,
            "metric": metric,
            "baseline": baseline,
            "margin": float(margin),
        }

    def _sync_controls(self):
        backbones = self._settings[self.data]
        self._choices["backbone"].options = tuple(backbones)
        self._choices["baseline"].options = tuple(backbones[self.backbone]["arm"].unique())
        for name, choice in self._choices.items():
            choice.value = self._state[name]
        self._margin_slider.value = self._margin_box.value = self.margin

    def _show(self):
        from eca_lab import stats

        trials = self._settings[self.data][self.backbone]
        asked = trials, self.baseline, self.metric
        self._compared = stats.compare(*asked, self.margin)
        fixed = {stats.fixed_kernel_size(arm) for arm in trials["arm"].unique()} - {None}
        slope = stats.trend(trials, metric=self.metric) if len(fixed) > 1 else None
        self._conclusions = stats.conclusions(self._compared, slope, self.baseline, self.margin)
        rows = [("arm", "n", "difference", "95% interval", "p (Holm)", "verdict")]
        for _, row in self._compared.iterrows():
            interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
            numbers = f"{row['difference']:+.2f}", interval, f"{row['p_holm']:.2f}"
            rows.append((row["arm"], f"{row['n']}", *numbers, row["verdict"]))
        self._read_out(map(html.escape, self._conclusions))
        self._table.value = (
            '<div style="color: var(--jp-ui-font-color1); overflow-x: auto; white-space: nowrap">'
            f"{rows_as_html(rows)}</div>"
        )
        self._image.value = self._picture.png(
            trials,
            stats.means(trials, self.metric),
            self._compared,
            stats.paired_differences(*asked),
            self.metric,
            self.baseline,
            self.margin,
        )


def _usual_baseline(trials):
    arms = list(trials["arm"].unique())
    return "eca" if "eca" in arms else arms[0]


def _named_settings(results):
    """The trials of each setting by a name for its data and recipe, and by backbone."""
    from eca_lab.results import SETTING

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


class StudyPicture:
    """The picture of `eca_lab.explorers.StudyExplorer`: differences, and below accuracy over k."""

    def __init__(self):
        self.figure = Figure(figsize=(7.2, 7.8), dpi=100, facecolor="white", layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)

    def png(self, results, means, compared, paired, metric, baseline, margin):
        """Draw one state, as `differences_figure` and `kernel_sweep_figure` do.

        Returns:
            The bytes of a PNG, 720 x 780 pixels.
        """
        self.figure.clear()
        upper, lower = self.figure.subplots(2, height_ratios=(max(3, len(compared)), 6))
        draw_differences(upper, compared, paired, baseline, margin)
        draw_kernel_sweep(lower, results, means, metric)
        for ax in (upper, lower):
            ax.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        self.canvas.draw()
        return palette_png(self.canvas)
