"""Command line: ``python -m eca_lab.site`` writes the notebooks as pages."""

import argparse
from pathlib import Path

from eca_lab.site import pages

parser = argparse.ArgumentParser(prog="python -m eca_lab.site", description=pages.__doc__)
parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
parser.add_argument("--out", type=Path, default=Path("site"), help="a folder (default: site)")
options = parser.parse_args()
pages.build(options.notebooks or sorted(Path("notebooks").glob("*.ipynb")), options.out)
