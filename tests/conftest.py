import pytest
import torch
from eca_lab.data import Dataset


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def pytest_terminal_summary(terminalreporter):
    """Say how many notebook cells had their outputs compared, and how many only ran."""
    passed = terminalreporter.config.stash.get(_cells, [])
    if passed:
        compared = sum(passed)
        terminalreporter.write_line(
            f"notebooks: outputs of {compared} of {len(passed)} cells compared "
            f"({compared / len(passed):.0%})"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # An nbval cell says by options["check"] whether its outputs are compared.
    if hasattr(item, "cell") and call.when == "call" and report.passed:
        item.config.stash.setdefault(_cells, []).append(item.options["check"])
    return report


_cells = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def dataset():
    """Two classes of 16 x 16 images, 64 for training and 20 for testing: told apart by colour."""
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
