import copy
import pickle
import time

import pytest

from eca_lab.attention.spec import Spec, check_backbone, is_function, parse_spec


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" eca() ", "eca"),
        ("se(r=8)", "se(r=8)"),
        ("eca( b=1.0 ,gamma=1.5 )", "eca(gamma=1.5, b=1)"),
        ("eca(k=3-5-5-7)", "eca(k=3-5-5-7)"),
        ("se( decay = 0, r=8)", "se(r=8, decay=0)"),
        ("static()", "static"),
        ("eca(order=shuffled,k=5,padding=circular)", "eca(k=5, padding=circular, order=shuffled)"),
    ],
)
def test_canonical_specs(text, canonical):
    assert str(parse_spec(text)) == canonical
    assert parse_spec(canonical) == parse_spec(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("senet", "accepted are none, static, se, cbam"),
        ("eca(k=3", "accepted are none, static, se, cbam"),
        ("eca(k=3)(k=5)", "k='3\\)\\(k=5'"),
        ("none(k=3)", "'k=3': accepted are no arguments"),
        ("none(decay=0)", "'decay=0': accepted are no arguments"),
        ("se_var1(decay=0)", "'decay=0': accepted are no arguments"),
        ("static(k=3)", "'k=3': accepted are decay=..."),
        ("se(decay=1)", "decay='1': accepted is 0, no weight decay for its parameters"),
        ("se(decay=0.0)", "decay='0.0': accepted is 0"),
        ("se(decay=)", "decay='': accepted is 0"),
        ("se(k=3)", "'k=3': accepted are r=..., decay=..."),
        ("eca(3)", "'3': accepted are k=..., gamma=..."),
        ("eca(k=3, k=5)", "k is given twice"),
        ("eca(k=3-4-5)", "kernel_size=4: accepted are odd"),
        ("eca(k=-3)", "k='-3': accepted is an odd integer, or one for each stage"),
        ("eca(k=3-)", "k='3-': accepted is an odd integer, or one for each stage"),
        ("eca(k=)", "k='': accepted is an odd integer, or one for each stage"),
        ("eca(k=\u0663)", "k='\u0663': accepted is an odd integer"),
        ("eca(k=3.0)", "k='3.0': accepted is an odd integer"),
        ("eca(k=__import__('os'))", "accepted is an odd integer"),
        ("eca(gamma=0)", "gamma=0.0: accepted is a finite number from 0.001 to 1000"),
        ("eca(b=inf)", "b=inf: accepted is a finite number"),
        ("eca(padding=same)", "padding='same': accepted are zeros, circular"),
        ("se(r=0)", "r=0: accepted is a positive integer"),
        ("se_gc", "accepted is one of groups=... and group_size=..."),
        ("se_gc(groups=4, group_size=4)", "accepted is one of groups=... and group_size=..."),
        ("eca_ns()", "accepted is one of k=..."),
    ],
)
def test_specs_that_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


def test_order_of_arms():
    arms = [
        "none", "static", "se", "se(decay=0)", "se(r=4)", "cbam", "se_var1", "eca", "eca(k=1)",
        "eca(k=3)", "eca(k=3-3-5)", "eca(k=9)", "eca(order=shuffled)",
    ]  # fmt: skip
    assert sorted(reversed(arms), key=lambda arm: parse_spec(arm).order) == arms


def test_fixed_kernel_size():
    assert parse_spec("eca(k=3)").fixed_kernel_size == 3
    for arm in (
        "eca",
        "eca(k=3-5)",
        "eca_ns(k=3)",
        "se",
        "eca(k=3, padding=circular)",
        "eca(k=3, decay=0)",
    ):
        assert parse_spec(arm).fixed_kernel_size is None


def test_a_spec_is_parsed_once():
    spec = parse_spec("eca(k=3)")
    assert parse_spec("eca(k=3)") is spec
    assert parse_spec(spec) is spec
    assert spec == Spec("eca", {"k": 3})
    with pytest.raises(TypeError, match="attention 3: accepted is a spec string"):
        parse_spec(3)


def test_a_spec_that_all_share_cannot_be_changed():
    spec = parse_spec("eca(k=3-5)")
    with pytest.raises(TypeError, match="does not support item assignment"):
        spec.arguments["k"] = 9
    given = {"k": 3}
    own = Spec("eca", given)
    given["k"] = 5
    assert str(own) == "eca(k=3)"
    for copied in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert copied == spec
        assert str(copied) == "eca(k=3-5)"


def test_blanks_take_no_longer_than_they_are_long():
    start = time.perf_counter()
    for text in (" " * 100_000, "eca" + " " * 100_000 + "x", "eca" + " " * 100_000 + "(k=3"):
        with pytest.raises(ValueError, match="accepted are none"):
            parse_spec(text)
    assert time.perf_counter() - start < 2  # from 30 s on where it is quadratic


def test_different_specs_have_different_file_names():
    specs = [
        "eca(gamma=1, b=1)", "eca(gamma=1, b=-1)", "eca(gamma=1.5, b=1)", "eca(gamma=15, b=1)",
        "eca(b=1e-05)", "eca(b=-1e-05)", "eca(k=3-5)", "eca(k=35)", "eca(k=3, order=shuffled)",
        "eca(k=3, padding=circular)", "se_gc(groups=4)", "se_gc(group_size=4)", "eca_ns(k=3)",
        "eca(k=3, decay=0)",
    ]  # fmt: skip
    slugs = [parse_spec(spec).slug for spec in specs]
    assert len(set(slugs)) == len(specs)
    assert all(slug.isidentifier() for slug in slugs)
    assert parse_spec("eca(k=3-5-5-7)").slug == "eca_k_3_5_5_7"


@pytest.mark.parametrize("text", ["eca(b=1e-310, gamma=1e-310)", "se(r=" + "9" * 5000 + ")"])
def test_a_long_number_gives_a_short_message(text):
    with pytest.raises(ValueError, match="accepted is") as error:
        parse_spec(text)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["nets:small", "my_nets.of_2026:Net", "größe:netz"])
def test_names_of_functions(name):
    assert is_function(name)
    check_backbone(name)


@pytest.mark.parametrize(
    "name", ["tiny", "nets", "nets.small", ":a", "a:", "a:b:c", "a:b.c", "a b:c"]
)
def test_what_names_no_function(name):
    assert not is_function(name)
    if name != "tiny":
        with pytest.raises(
            ValueError, match=r"accepted are tiny, resnet10, .*, or package.module:f"
        ):
            check_backbone(name)
