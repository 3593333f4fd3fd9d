import errno
import math
import os

import pytest

from eca_lab.attention.spec import BACKBONES, DATASETS
from eca_lab.evidence import results, studies
from eca_lab.recipe import Recipe

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
    assert study.primary == ""


def test_a_primary_arm_is_run_and_is_not_of_the_family(tmp_path):
    text = TEXT.replace("seeds = 4", 'seeds = 4\nprimary = "eca(k=9)"', 1)
    more = "epochs = 2\nleast_area = 0.08\nscales = [[0.5, 1]]\nkeep = 3"
    small = declare(tmp_path, text.replace("epochs = 2", more)).settings["small"]
    assert small.recipe == Recipe(epochs=2, least_area=0.08, scales=[[0.5, 1]])
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
    assert study.baseline == ""
    assert math.isnan(study.margin)
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
        ("epochs = 2", "crop = 2\nleast_area = 0.1", "least_area=0.1 with crop=2"),
        ("seeds = 4", "seeds = 0", "seeds=0: accepted is an integer from 1 to 10000"),
    ],
)
def test_a_file_that_declares_none(old, new, message, tmp_path):
    with pytest.raises(ValueError, match=r"which\.toml declares no study") as error:
        declare(tmp_path, TEXT.replace(old, new))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", 'fused = "no"', "small.fused='no': accepted is true or false"),
        (
            "epochs = 2",
            'keep = "2"',
            "small.keep='2': accepted is an integer of at",
        ),
        (
            "epochs = 2",
            'arms = ["se"]',
            "small.arms=['se']: no such key, accepted are data",
        ),
        (
            "epochs = 2",
            "epochs = 1e9",
            "small.epochs=1000000000.0: accepted is an integer",
        ),
        ("epochs = 2", "scales = 3", "small.scales=3: accepted is a list of pairs"),
        ("epochs = 2", "scales = [3]", "settings.small: scales=3: accepted are pairs"),
        ("epochs = 2", "least_area = 2", "small.least_area=2: accepted is a finite number to 1"),
        ("epochs = 2", "recipe = 3", "small.recipe=3: no such key"),
        ("epochs = 2", 'name = "x"', "small.name='x': no such key"),
        ("epochs = 2", "per_class = 0", "small.per_class=0: accepted is a positive"),
        ("epochs = 2", 'precision = "half"', "small.precision='half': accepted are auto"),
        ("epochs = 2", "seeds = true", "small.seeds=True: accepted is an integer from 1"),
        (
            'backbone = "tiny"',
            'backbone = "vgg"',
            "small.backbone='vgg': accepted are tiny",
        ),
        ('device = "cpu"', 'device = "tpu"', "small.device='tpu': accepted are cpu, cuda"),
        ('device = "cpu"', 'device = ["cpu"]', "small.device=['cpu']: accepted are cpu"),
        ('device = "cpu"', "", "small.device is missing"),
        ('data = "shapes"', 'data = "mnist"', "small.data='mnist': accepted are shapes"),
        ('data = "shapes"', 'data = "folder:/x"', "small.data='folder:/x': accepted are"),
        (
            "size = 32",
            "size = 2.5",
            "small.size=2.5: accepted is an integer from 4",
        ),
        (
            'results = "mine"',
            'results = "../../x"',
            "results='../../x': accepted is a name",
        ),
        ('results = "mine"', 'results = "/x"', "results='/x': accepted is a name"),
        ('results = "mine"', 'results = ".."', "results='..': accepted is a name"),
        ('results = "mine"', 'results = ""', "results='': accepted is a name"),
        (
            'results = "mine"',
            'results = "a\\u0000"',
            "results='a\\x00': accepted is a name",
        ),
        ("[settings.small]", '[settings."a/b"]', "a name in settings='a/b': accepted is a name"),
        ("[settings.small]", "[[settings]]", "accepted is a table of tables"),
        ("[settings.small]", "[[settings.small]]", "accepted is a table"),
        ('question = "Which?"', "question = 3", "question=3: accepted is text"),
        ('question = "Which?"', "", "question is missing"),
        ("margin = 0.2", "margin = nan", "margin=nan: accepted is a finite number above 0"),
        ("margin = 0.2", 'margin = "0.2"', "margin='0.2': accepted is a finite number above 0"),
        ("seeds = 4", "seeds = 4.0", "seeds=4.0: accepted is an integer from 1 to 10000"),
        ('["none", "eca( k=3 )"]', '"none"', "family='none': accepted is a list of arms"),
        ('["none", "eca( k=3 )"]', '["non", 3]', "family: attention 3: accepted is a spec string"),
        ('["none", "eca( k=3 )"]', '["eca()"]', "baseline='eca': accepted is an arm outside the"),
        ('beside = ["cbam"]', 'primary = "eca"', "primary='eca': accepted is another arm than the"),
        ('beside = ["cbam"]', 'primary = "none"', "primary='none': accepted is an arm outside the"),
        ('{ "eca(k=3)" = 3 }', '{ "eca( k=3)" = 3 }', "slope: 'eca( k=3)' is written 'eca(k=3)'"),
        ('{ "eca(k=3)" = 3 }', '{ "eca(k=7)" = 3 }', "slope.over='eca(k=7)': accepted are none"),
        ('{ "eca(k=3)" = 3 }', "{}", "slope.over is empty: accepted is one arm or more"),
        ('{ "eca(k=3)" = 3 }', "[3]", "slope.over=[3]: accepted is a table of arms and their"),
        (
            'per = "unit of k"',
            'per = "k"\nprimary = 1',
            "slope.primary=1: accepted is true",
        ),
        ("[slope]", "[families]", "baseline='eca': no such key, accepted are question"),
        ('question = "Which?"', "x = " + "[" * 5000 + "]" * 5000, "it is nested too deeply"),
        ("Which?", "\\ud800", "declares no study"),
    ],
)
def test_every_key_and_value_is_checked(old, new, message, tmp_path):
    assert old in TEXT
    with pytest.raises(ValueError, match=r"which\.toml declares no study") as error:
        declare(tmp_path, TEXT.replace(old, new, 1))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('test = "t"', 'tets = "t"', "families.first.test is missing; families.first.tets='t': no"),
        (
            "[families.first.contrasts.slope]",
            "[families.first.contrasts.slope]\narms = 3",
            "arms=3",
        ),
        ('words = "it rises"', "", "families.first.contrasts.slope.words is missing"),
        ('per = "halving of r"', "", "slope: accepted are over and per together"),
        ('{ "static" = 1, "eca" = -1 }', "{}", "contrasts.image.weights is empty"),
        ('{ "static" = 1, "eca" = -1 }', '["se"]', "contrasts.image.weights=['se']: accepted is a"),
        ("margin = 0.05", "margin = nan", "contrasts.slope.margin=nan: accepted is a finite"),
        ("seeds = 4", 'seeds = 4\nfamily = ["se"]', "family=['se']: no such key"),
        (
            'data = "shapes"',
            'data = "shapes"\nfamily = []',
            "small.family=[]: no such key",
        ),
    ],
)
def test_every_key_of_contrasts_is_checked(old, new, message, tmp_path):
    assert old in CONTRASTS
    with pytest.raises(ValueError, match=r"which\.toml declares no study") as error:
        declare(tmp_path, CONTRASTS.replace(old, new, 1))
    assert message in str(error.value)


def test_all_mistakes_are_named_at_once(tmp_path):
    text = TEXT.replace("seeds = 4", "seeds = 4.5").replace("size = 32", "size = true")
    text = text.replace('backbone = "tiny"', 'backbone = "tinny"\nkept = 2')
    with pytest.raises(ValueError, match="declares no study") as error:
        declare(tmp_path, text)
    for place in (
        "seeds=4.5",
        "small.size=True",
        "small.backbone='tinny'",
        "small.kept=2",
    ):
        assert place in str(error.value)


def test_a_declaration_that_is_no_file(tmp_path, monkeypatch):
    declare(tmp_path, TEXT)
    folder = tmp_path / "data" / "studies"
    (folder / "which.toml").unlink()
    os.mkfifo(folder / "which.toml")
    with pytest.raises(ValueError, match="declares no study: it is no regular file"):
        studies.load_study("which", folder)

    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(PermissionError):  # rather than that there is no such study
        studies.load_study("which", folder)


def test_without_studies(tmp_path):
    assert studies.names(tmp_path / "nowhere") == []  # as where the package alone is installed
    with pytest.raises(ValueError, match="study='why': no study is declared in "):
        studies.load_study("why", tmp_path / "nowhere")


def test_a_named_data_set_has_as_many_classes_as_declared():
    from eca_lab import data

    shapes = data.load_dataset("shapes")
    assert len(shapes.classes) == DATASETS["shapes"]


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
            assert not study.primary or study.primary in set(setting.arms) - set(setting.family)
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
