"""JupyterLab on the notebooks: what ``python -m eca_lab lab`` and `make lab` open."""

import os
from collections.abc import Sequence
from pathlib import Path

from eca_lab.files import CHECKOUT

FIRST = "notebooks/00_start_here.ipynb"
# Their explorers need no kernel: the state of these is saved with the notebook, and JupyterLab
# shows it before any cell has run, if the notebook is trusted.
ALIVE = (
    "notebooks/00_start_here.ipynb",
    "notebooks/01_kernel_size.ipynb",
    "notebooks/03_kernel_sweep.ipynb",
)


def settings(root: Path) -> dict[str, str]:
    """The environment variables that JupyterLab gets.

    The folder jupyter has it save the state of all explorers with a notebook: else it could not
    show them where the notebook is opened again.
    """
    return {"JUPYTER_CONFIG_PATH": str(root / "jupyter")}


def command(root: Path) -> list[str]:
    """The arguments that JupyterLab gets: it answers this machine alone, and asks for its token."""
    options = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # there is no root on Windows
        options.append("--allow-root")
    return options


def start(arguments: Sequence[str] = (), *, root: Path = CHECKOUT) -> None:
    """Run JupyterLab until it is shut down.

    Args:
        arguments: more for JupyterLab, such as "--no-browser".
        root: the folder that has the folder notebooks.

    Raises:
        FileNotFoundError: there are no notebooks.
        ImportError: JupyterLab is not installed.
    """
    if not (root / FIRST).is_file():
        accepted = "accepted is the working directory or one above it, in a checkout of ECA Lab"
        raise FileNotFoundError(f"lab: no {FIRST} in {root}; {accepted}")
    try:
        from jupyterlab.labapp import LabApp
    except ImportError:
        missing = 'no JupyterLab here; install it with: pip install -e ".[notebooks]"'
        raise ImportError(missing) from None
    _trust(root)
    os.environ.update(settings(root))
    LabApp.launch_instance([*command(root), *arguments])


def _trust(root: Path) -> None:
    import nbformat
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    for name in ALIVE:
        notary.sign(nbformat.read(root / name, as_version=4))
