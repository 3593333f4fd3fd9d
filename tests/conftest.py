# Whatever takes long to import is imported where it is used: pytest reads this file in each of its
# processes, those that only drive a browser among them.
import pytest
from in_browser import chromium, jupyterlab, new_page


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


def pytest_collection_modifyitems(items):
    # What takes longest first, so that no worker is left alone with it.
    items.sort(key=lambda item: (item.path.name != "test_ray.py", item.path.suffix == ".py"))
    for item in items:
        # An nbval cell says by options["check"] whether its outputs are compared.
        if hasattr(item, "cell"):
            item.user_properties.append(("compared", item.options["check"]))


def pytest_terminal_summary(terminalreporter):
    """Say how many notebook cells had their outputs compared, and how many only ran."""
    properties = (dict(each.user_properties) for each in terminalreporter.stats.get("passed", []))
    cells = [each["compared"] for each in properties if "compared" in each]
    if cells:
        terminalreporter.write_line(
            f"notebooks: outputs of {sum(cells)} of {len(cells)} cells compared "
            f"({sum(cells) / len(cells):.0%})"
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect

    expect.set_options(timeout=15_000)  # several times what a busy machine needs
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser):
    page = new_page(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="session")
def dataset():
    """Two classes of 16 x 16 images, 64 for training and 20 for testing: told apart by colour."""
    import torch

    from eca_lab.data import Dataset

    generator = torch.Generator().manual_seed(0)

    def images(labels):
        noise = torch.randint(0, 156, (len(labels), 3, 16, 16), generator=generator)
        noise[torch.arange(len(labels)), labels] += 100
        return noise.to(torch.uint8)

    train_labels, test_labels = torch.arange(64) % 2, torch.arange(20) % 2
    return Dataset(
        name="colours",
        train_images=images(train_labels),
        train_labels=train_labels,
        test_images=images(test_labels),
        test_labels=test_labels,
        classes=("red", "green"),
        fingerprint="0" * 64,
        skipped=0,
    )


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """A function that makes a module of a source, under a name that can be imported: the name."""
    import sys

    names = []
    monkeypatch.syspath_prepend(tmp_path)

    def make(source, name=None):
        name = name or f"nets_{tmp_path.name}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)
        return name

    yield make
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def results():
    """A function that makes a table of results: top-1 of each arm, seed by seed, None for none."""
    import pandas as pd

    def make(top1_by_arm=None, **more):
        rows = [
            {"arm": arm, "seed": seed, "top1": float(top1), "top5": 90.0, "dataset": "shapes"}
            for arm, values in {**(top1_by_arm or {}), **more}.items()
            for seed, top1 in enumerate(values)
            if top1 is not None
        ]
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def make_record(dataset):
    """A function that makes the record of a finished trial on `dataset`."""
    from eca_lab.evidence.results import SCHEMA, trial_identity
    from eca_lab.recipe import Recipe
    from eca_lab.training.train import trial_description

    def make(arm="eca", seed=0, top1=50.0, recipe=None, **values):
        trial = trial_description(dataset, "tiny", arm, seed=seed, recipe=recipe or Recipe())
        record = {
            "schema": SCHEMA,
            "identity": trial_identity(trial),
            "arm": arm,
            "status": "finished",
            "top1": top1,
            "top5": 100.0,
            "correct": "AAAA",
            "loss_curve": [1.5, 1.25],
            "seconds": 2.0,
            "images_per_second": 100.0,
            "trial": trial,
            "device": "cpu",
            "versions": {"torch": "2.15.0"},
        }
        return {**record, **values}

    return make
