"""What every committed notebook must be, whatever it says. nbval compares the outputs."""

import json
from pathlib import Path

import pytest

from eca_lab import explorers, load_results

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULTS = ROOT / "data" / "results"
# What takes a cell out of nbval's comparison, as a tag or as a comment.
UNCOMPARED = ("nbval-ignore-output", "nbval-skip", "NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP")


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_start_here",
        "01_kernel_size",
        "02_channel_weights",
        "03_kernel_sweep",
        "04_se_vs_eca",
        "05_your_network",
    ]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def uncompared(cell):
    tags = cell["metadata"].get("tags", [])
    return any(mark in tags or mark in source(cell) for mark in UNCOMPARED)


def test_executed_from_a_fresh_kernel(code_cells):
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))


def test_outputs_hold_no_errors_and_no_warnings(code_cells):
    for cell in code_cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", output


def test_small_and_for_any_machine(path, notebook):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 500_000  # half of it figures, with two pixels for each one in the page
    assert str(Path.home()) not in text
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_no_output_is_a_large_share_of_its_notebook(code_cells):
    for cell in code_cells:
        for output in cell["outputs"]:
            size = len(json.dumps(output, ensure_ascii=False))
            # Large figures have some 60,000.
            assert size < 100_000, f"{size} characters: {source(cell)}"


def test_explorers_that_need_no_kernel_are_saved_as_they_are_now(path, notebook):
    state = "application/vnd.jupyter.widget-state+json"
    saved = notebook["metadata"].get("widgets", {state: {"state": {}}})[state]["state"]
    models = [each["state"] for each in saved.values() if each["model_name"] == "AnyModel"]
    make = {
        "00_start_here": explorers.ModuleExplorer,
        "01_kernel_size": explorers.KernelSizeExplorer,
        "03_kernel_sweep": lambda: explorers.StudyExplorer(load_results(RESULTS / "photographs")),
    }.get(path.stem)
    if make is None:
        assert not saved
        return
    (model,) = models
    explorer = make()
    assert model["_esm"] == explorer._esm
    assert model["_css"] == explorer._css
    told, now = (json.loads(each["given"]) for each in (model, explorer.get_state("given")))
    assert told["kind"] == now["kind"]  # of which its styles are
    assert told.keys() == now.keys()
    if path.stem != "03_kernel_sweep":  # which joins several folders of results
        assert told == now


def test_the_top_says_in_one_line_what_was_found(notebook):
    title, _, found, *_ = source(notebook["cells"][0]).splitlines()
    assert title.startswith("# ")
    assert found.startswith("> **Found:** ")


def test_readable(notebook, code_cells):
    kinds = "".join(cell["cell_type"][0] for cell in notebook["cells"])
    assert "cccc" not in kinds
    assert kinds.count("m") >= kinds.count("c")
    for cell in code_cells:
        assert len([line for line in source(cell).splitlines() if line.strip()]) <= 25
    assert any("assert " in source(cell) for cell in code_cells)


def test_at_least_four_fifths_of_the_cells_are_compared(code_cells):
    left_out = sum(map(uncompared, code_cells))
    assert left_out <= 0.2 * len(code_cells)


def test_links_lead_somewhere(path, notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for part in source(cell).split("](")[1:]:
                target = part.split(")")[0]
                if not target.startswith("http"):
                    assert (path.parent / target).exists(), target
