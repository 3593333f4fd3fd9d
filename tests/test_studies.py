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
    assert studies.names() == ["fixed-k", "imagenet-subset", "ladder", "photographs"]
    for name in studies.names():
        study = studies.load_study(name)
        assert study.results.is_dir()
        for setting in study.settings.values():
            assert setting.backbone in BACKBONES
            assert study.baseline in setting.arms
            assert study.baseline not in setting.family
            assert set(setting.family) < set(setting.arms)
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
        # In order, each on one device, and only the last may be under way.
        assert list(seeds.groups) == list(range(seeds.ngroups))
        assert (seeds[list(results.RUN)].nunique() == 1).all(axis=None)
        assert (seeds["arm"].nunique()[:-1] == len(setting.arms)).all()
