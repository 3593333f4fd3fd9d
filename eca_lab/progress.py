"""Progress of long work, for people."""

import os

from tqdm.auto import tqdm


def progress_bar(total: int, unit: str = "epoch") -> tqdm:
    """A progress bar for people: none where nobody looks on."""
    # tqdm's bar for notebooks overlooks this variable, which its bar for terminals obeys.
    quiet = True if os.environ.get("TQDM_DISABLE") else None
    return tqdm(total=total, unit=unit, smoothing=0.05, disable=quiet)
