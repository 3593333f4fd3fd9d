import pytest

from eca_lab import results, studies
from eca_lab.recipe import Recipe
from eca_lab.spec import BACKBONES

TEXT = """
question = "Which?"
results = "mine"
baseline = "eca"
margin = 0.2
family = ["none", "eca( k=3 )"]
beside = ["cbam"]
seeds = 4

[slope]
over = { "eca(k=3)" = 3 }
per = "unit of k"

[settings.small]
data = "shapes"
size = 32
backbone = "tiny"
epochs = 2
device = "cpu"
family = ["eca(k=5)"]
"""


def declare(folder, text):
    (folder / "data" / "studies").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "studies" / "which.toml").write_text(text)
    return studies.load_study("which", folder / "data" / "studies")


def test_a_declaration(tmp_path):
    study = declare(tmp_path, TEXT)
    assert (study.name, study.question, study.margin) == ("which", "Which?", 0.2)
    assert study.results == tmp_path / "data" / "results" / "mine"
    small = study.settings["small"]
    assert small.family == ("none", "eca(k=3)", "eca(k=5)")
    assert small.arms == ("none", "cbam", "eca", "eca(k=3)", "eca(k=5)")
    assert (small.seeds, small.per_class) == (4, None)
    assert small.recipe == Recipe(epochs=2)
    assert study.slope.over == {"eca(k=3)": 3}
    assert not study.slope.primary
    assert study.primary is None


def test_a_primary_arm_is_run_and_is_not_of_the_family(tmp_path):
    text = TEXT.replace("seeds = 4", 'seeds = 4\nprimary = "eca(k=9)"', 1)
    more = "epochs = 2\ncrop = 1\nscales = [[0.5, 1]]\nkeep = 3"
    small = declare(tmp_path, text.replace("epochs = 2", more)).settings["small"]
    assert small.recipe == Recipe(epochs=2, crop=1, scales=[[0.5, 1]])
    assert "eca(k=9)" in small.arms
    assert "eca(k=9)" not in small.family
    assert small.keep == 3


CONTRASTS = """
question = "Why?"
results = "mine"
seeds = 4
beside = ["none"]

[families.first]
test = "t"
[families.first.contrasts.slope]
words = "it rises"
over = { "se" = -4, "se(r=1)" = 0 }
per = "halving of r"
margin = 0.05
[families.first.contrasts.matched]
words = "more"
weights = { "se_var3" = 0.5, "se" = 0.5, "cbam" = -1 }

[families.second]
test = "sign flips"
margin = 0.2
[families.second.contrasts.image]
words = "less"
weights = { "static" = 1, "eca" = -1 }

[settings.small]
data = "shapes"
size = 32
backbone = "tiny"
device = "cpu"
"""


def test_families_of_contrasts(tmp_path):
    study = declare(tmp_path, CONTRASTS)
    assert (study.baseline, study.margin) == (None, None)
    first, second = study.families
    assert [(each.name, each.test) for each in (first, second)] == [
        ("first", "t"), ("second", "sign flips"),
    ]  # fmt: skip
    assert [each.margin for each in (*first.contrasts, *second.contrasts)] == [0.05, None, 0.2]
    assert [each.arms for each in first.contrasts] == [("se", "se(r=1)"), ("se_var3", "se", "cbam")]
    small = study.settings["small"]
    assert small.arms == ("none", "static", "se", "se(r=1)", "cbam", "se_var3", "eca")
    assert small.family == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('test = "t"', 'test = "z"', "test='z': accepted are t, sign flips"),
        ('"cbam" = -1', '"cbam" = 0', "matched: its weights add up to 1, accepted is 0"),
        ('"cbam" = -1', '"cbam" = "x"', "matched, cbam='x': accepted is a finite number"),
        ('"cbam" = -1', '"cbam( )" = -1', "matched: 'cbam( )' is written 'cbam'"),
        ('"se(r=1)" = 0', '"se(r=1)" = -4', "slope: accepted is a slope over two numbers or more"),
        ('per = "halving of r"', 'weights = { "se" = 0 }', "slope: accepted is one of weights and"),
        ('over = { "se" = -4, "se(r=1)" = 0 }', "", "slope: accepted is one of weights and over"),
        ("margin = 0.05", "margin = 0", "margin=0: accepted is a finite number above 0"),
    ],
)
def test_contrasts_that_are_refused(old, new, message, tmp_path):
    with pytest.raises(ValueError, match=r"which\.toml declares no study") as error:
        declare(tmp_path, CONTRASTS.replace(old, new))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('baseline = "eca"', "", "baseline"),
        ("[settings.small]", "[settings.small", "declares no study"),
        ("eca(k=5)", "eca(k=4)", "kernel_size=4: accepted are odd"),
        ("margin = 0.2", "margin = -1", "margin=-1: accepted is a finite number above 0"),
        ("margin = 0.2", "margin = 0.2\nmagin = 1", "magin"),
        ("epochs = 2", "epoch = 2", "epoch"),
        ("epochs = 2", "epochs = 2\nscales = [[0.5, 3]]", "epochs in scales=3"),
        ("seeds = 4", "seeds = 0", "seeds=0: accepted is a positive integer"),
    ],
)
def test_a_file_that_declares_none(old, new, message, tmp_path):
    with pytest.raises(ValueError, match=r"which\.toml declares no study") as error:
        declare(tmp_path, TEXT.replace(old, new))
    assert message in str(error.value)


def test_what_is_declared_here_can_be_run():
    assert studies.names() == [
        "fixed-k", "imagenet-subset", "ladder", "photographs", "why",
    ]  # fmt: skip
    for name in studies.names():
        study = studies.load_study(name)
        assert study.results.is_dir()
        for setting in study.settings.values():
            assert setting.backbone in BACKBONES
            assert study.families or study.baseline in setting.arms
            assert study.baseline not in setting.family
            assert set(setting.family) < set(setting.arms)
            for family in study.families:
                assert all(set(each.arms) <= set(setting.arms) for each in family.contrasts)
            assert setting.arms.count("eca") == 1
            assert len(set(setting.arms)) == len(setting.arms)
            assert set(study.slope.over if study.slope else ()) <= set(setting.arms)
            assert study.primary is None or study.primary in set(setting.arms) - set(setting.family)
    with pytest.raises(ValueError, match="study='fixed': accepted are fixed-k, imagenet-subset, "):
        studies.load_study("fixed")


# Families as they were declared: their sizes bound what their seeds can show.
@pytest.mark.parametrize(("name", "arms", "family"), [("fixed-k", 12, 11), ("ladder", 16, 10)])
def test_the_small_settings_are_recorded_whole(name, arms, family):
    study = studies.load_study(name)
    small = study.settings["small"]
    assert (len(small.arms), len(small.family)) == (arms, family)
    trials = small.trials(results.load_results(study.results))
    assert list(dict.fromkeys(trials["arm"])) == list(small.arms)
    assert (trials.groupby("arm")["seed"].nunique() >= small.seeds).all()
    # Whole seeds on one device, at one precision, by one path: every trial has its pair.
    assert (trials.groupby("seed")[list(results.RUN)].nunique() == 1).all(axis=None)


def test_whole_seeds_have_all_arms_on_one_data_set():
    study = studies.load_study("fixed-k")
    small = study.settings["small"]
    found = small.trials(results.load_results(study.results))
    assert small.whole_seeds(found).equals(found)
    elsewhere = found["fingerprint"].where(found["seed"] > 2, "of three seeds")
    lacking = (found["arm"] == "se") & (found["seed"] == 4)
    kept = small.whole_seeds(found.assign(fingerprint=elsewhere)[~lacking])
    assert kept.equals(found[(found["seed"] > 2) & (found["seed"] != 4)])
    assert small.whole_seeds(found[:0]).empty


@pytest.mark.parametrize("name", studies.names())
def test_what_is_recorded_belongs_to_the_study(name):
    study = studies.load_study(name)
    found = results.load_results(study.results)
    for setting in study.settings.values():
        trials = setting.trials(found)
        assert not trials.duplicated(["arm", "seed"]).any()
        seeds = trials.groupby("seed")
        # In order, each on one device, and only one may be under way. Arms of another study may
        # have run before, with all of the seeds.
        assert list(seeds.groups) == list(range(seeds.ngroups))
        assert (seeds[list(results.RUN)].nunique() == 1).all(axis=None)
        arms = seeds["arm"].nunique()
        assert arms.is_monotonic_decreasing
        assert arms[arms < len(setting.arms)][1:].nunique() <= 1
