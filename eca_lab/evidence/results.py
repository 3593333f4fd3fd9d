"""Recorded trials: one JSON file each, written atomically; and as a DataFrame."""

import base64
import hashlib
import json
import os
import re
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eca_lab.attention.spec import arm_order, parse_spec
from eca_lab.checks import check_choice, check_integer, check_number, shown
from eca_lab.files import DATA, check_folder, listed, read_regular, written_whole
from eca_lab.recipe import recipe_text

ROOT = DATA / "results"
SCHEMA = 2
# What trials must share to be compared: the columns of `load_results` that tell everything but the
# arm and the seed. fingerprint is the beginning of that of the data set.
SETTING = ("dataset", "fingerprint", "size", "train", "backbone", "recipe")
# How a trial was computed: what an arm and its baseline must share beside the seed to be a pair.
RUN = ("device", "precision", "path")


def trial_identity(description: Mapping[str, Any]) -> str:
    """The name of a trial: a hash of what it computes, 16 hexadecimal digits.

    Of the description, by `eca_lab.training.train.trial_description`, only what the computation
    depends on counts: of the data set its fingerprint, of the arm the resolved attention.
    """
    return _digest({**description, "dataset": description["dataset"]["fingerprint"]})


def write_record(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write a trial's record to `folder` under its identity, whole or not at all.

    A checksum of the record goes into the file, so that a change to it does not go unnoticed.
    """
    record = {**record, "checksum": _digest(record)}
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    with written_whole(Path(folder) / f"{record['identity']}.json") as file:
        file.write(text.encode())


def load_records(folder: str | Path, set_aside: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The records in a folder, by identity; FileNotFoundError without such a folder.

    A record is in a file that has its identity as its name. One that was read and is not valid (of
    another schema, or it does not fit its checksum or its identity) is named in a warning and left
    out. Of other people's files that end in .json, one warning tells how many there are.

    set_aside are the identities of trials that are to be recorded here: what stands in the place of
    one and is no valid record moves into a folder `rejected`. All else is left as it is.

    A file `devices.toml` in the folder may say more of a device than its records do, which then
    have the longer name: (name in the records, without threads) -> device.

    OSError: the folder, or a file that may be a record, cannot be read. It is not left out, since
    nobody knows what is in it.
    """
    check_folder("folder", folder)
    folder = Path(folder)
    records = {}
    others = []  # names of files that are no records
    try:
        paths = listed(folder, ".json")
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: no such folder of results") from None
    known_devices = _known_devices(folder)
    for path in paths:
        try:
            record = _read(path)
            if record["status"] == "finished":
                device, threads = _split_threads(record["device"])
                record["device"] = known_devices.get(device, device) + threads
            records[record["identity"]] = record
        except FileNotFoundError:  # moved by another sweep in the meantime
            continue
        except OSError as error:
            why = error.strerror or error
            advice = "It may be a finished trial: make it readable, or move it to another folder"
            raise OSError(f"{path} cannot be read: {why}. {advice}") from error
        except ValueError as error:
            if path.stem in set_aside:
                rejected = folder / "rejected" / f"{path.stem}-{time.time_ns()}.json"
                rejected.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # another sweep was faster
                    path.rename(rejected)
                    warnings.warn(f"{path} was moved to {rejected}: {error}", stacklevel=2)
            elif isinstance(error, _ForeignError):
                others.append(path.name)
            else:
                warnings.warn(f"{path} is not counted: {error}", stacklevel=2)
    if others:
        first = ", ".join(others[:3])
        if len(others) > 3:
            first += ", ..."
        words = f"of what ends in .json, {len(others)} are no records and are left alone"
        # From this line whoever calls, and so Python tells it once.
        warnings.warn(f"{folder}: {words}: {first}", stacklevel=1)
    return records


def is_finished(folder: str | Path, identity: str) -> bool:
    """Whether a folder has a valid record of that trial as finished; OSError: it cannot be read."""
    try:
        return _read(Path(folder) / f"{identity}.json")["status"] == "finished"
    except (FileNotFoundError, ValueError):
        return False


def run_of(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """How a trial was computed, as the values of `RUN`: device, precision and path.

    The number of threads is no part of the device. Records from before precision and path were
    written have float32 on the CPU, bfloat16 on a GPU, and modules.
    """
    device, _ = _split_threads(record["device"])
    usual = "float32" if device.startswith("cpu") else "bfloat16"
    return device, record.get("precision", usual), record.get("path", "modules")


def load_results(folder: str | Path) -> pd.DataFrame:
    """The finished trials in a folder of results as a DataFrame, one row a trial.

    Columns: those of `SETTING`, test (images), epochs, arm, kernel_sizes, seed, top1, top5 (in
    percent), loss (mean of the last epoch), seconds, images_per_second, parameters, those of `RUN`,
    torch, code (the commit, "+" where it was changed), identity. Sorted by setting, arm and seed.
    FileNotFoundError: no such folder.
    """
    return as_results(load_records(folder).values())


def as_results(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The finished ones among records, as the DataFrame of `load_results`."""
    rows = (_row(record) for record in records if record["status"] == "finished")
    results = pd.DataFrame(rows, columns=_COLUMNS).sort_values("seed")
    results = results.sort_values("arm", key=arm_order, kind="stable")
    return results.sort_values(list(SETTING), kind="stable", ignore_index=True)


def read_results(path: str | Path) -> pd.DataFrame:
    """The trials in a folder of records, or in a CSV file that `write_csv` made.

    LookupError where there are none; FileNotFoundError; ValueError for a file that is no such CSV.
    """
    path = Path(path)
    if not path.is_file():
        return finished(path)
    try:
        table = pd.read_csv(path, dtype=_TEXTS, keep_default_na=False, na_values=_MISSING)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own are ValueErrors
        raise ValueError(f"{path}: no table of trials as CSV: {error}") from None
    if not is_recorded(table):
        missing = [name for name in _COLUMNS if name not in table]
        raise ValueError(f"{path}: no column {', '.join(missing)}, so no CSV of recorded trials")
    if table.empty:
        raise LookupError(f"no trials in {path}")
    return table


def is_recorded(table: pd.DataFrame) -> bool:
    """Whether a table is of trials of this lab, for it has all columns of `load_results`."""
    return all(name in table for name in _COLUMNS)


def recorded(root: Path = ROOT) -> list[str]:
    """The folders of recorded trials that come with this package, or are made beside them."""
    return sorted({os.path.relpath(path.parent) for path in root.glob("*/*.json")})


def write_csv(tables: Mapping[str, pd.DataFrame], file: TextIO) -> None:
    """Write results of `load_results` to an open text file as one CSV; tables: folder -> results.

    The column "folder" comes first: trials of different folders are not compared.
    """
    whole = pd.concat([table.assign(folder=folder) for folder, table in tables.items()])
    whole[["folder", *_COLUMNS]].to_csv(file, index=False, lineterminator="\n")


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (of one trial, n - 1) and n of the top-1 of every arm.

    Gives a DataFrame indexed by the columns of `SETTING` and arm, in the order of the results of
    `load_results`: mean, sd (NaN where n is 1), n and parameters.
    """
    groups = results.groupby([*SETTING, "arm"], sort=False)
    summary = groups["top1"].agg(mean="mean", sd="std", n="size")
    return summary.assign(parameters=groups["parameters"].first())


def unpack_correct(record: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which test images a recorded trial classified correctly, bool (test,)."""
    packed = np.frombuffer(base64.b64decode(record["correct"]), dtype=np.uint8)
    return np.unpackbits(packed, count=record["trial"]["dataset"]["test"]).astype(bool)


def finished(folder: str | Path) -> pd.DataFrame:
    """The finished trials in a folder, as `load_results` gives them.

    LookupError without any, telling how many failed, and why; FileNotFoundError: no such folder.
    """
    records = load_records(folder).values()
    table = as_results(records)
    if table.empty:
        failures = (record for record in records if record["status"] == "failed")
        reasons = Counter(record["reason"] for record in failures)
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        failed = f", and {reasons.total()} failed: {why}" if reasons else ""
        raise LookupError(f"no finished trials in {folder}{failed}")
    return table


def settings(table: pd.DataFrame, *, arm: str = "arm") -> list[pd.DataFrame]:
    """The trials of each setting: of one folder, where that is told, data set, backbone, recipe.

    arm is the column of the arms. Where that is another one, the table is not of this lab's making,
    and a column "folder" does not count.
    """
    columns = ["folder", *SETTING] if arm == "arm" else [name for name in SETTING if name != arm]
    columns = [name for name in columns if name in table]
    if not columns:
        return [table]
    return [trials for _, trials in table.groupby(columns, sort=False, dropna=False)]


_COLUMNS = [
    *SETTING, "test", "epochs", "arm", "kernel_sizes", "seed", "top1", "top5", "loss", "seconds",
    "images_per_second", "parameters", *RUN, "torch", "code", "identity",
]  # fmt: skip


# What `load_results` has of numbers; the rest is text.
_NUMBERS = {
    "size", "train", "test", "epochs", "seed", "top1", "top5", "loss", "seconds",
    "images_per_second", "parameters",
}  # fmt: skip
# Of a CSV: what is text whatever it looks like, and what stands for a number that is missing.
_TEXTS = {name: str for name in ("folder", *_COLUMNS) if name not in _NUMBERS}
_MISSING = {name: [""] for name in _NUMBERS}


class _ForeignError(ValueError):
    """Of a file that does not claim to be a record."""


def _read(path: Path) -> dict[str, Any]:
    """The record in a file; ValueError if it has none that counts, OSError if nobody can tell."""
    if not re.fullmatch("[0-9a-f]{16}", path.stem):
        raise _ForeignError("its name is no identity of a trial")
    content = read_regular(path)
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or not record.keys() >= {"schema", "identity"}:
            raise _ForeignError("no record of a trial")
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {shown(record['schema'])}, read is {SCHEMA}")
        if record.pop("checksum") != _digest(record):
            raise ValueError("its checksum does not fit, so it was changed")
        if trial_identity(record["trial"]) != record["identity"]:
            raise ValueError("its trial does not hash to its identity")
        if record["identity"] != path.stem:
            raise ValueError(f"it is the record of the trial {record['identity']}")
        _check(record)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"no record of a trial: {error!r}") from None
    return record


def _check(record: Mapping[str, Any]) -> None:
    """Raise unless a record has all that is needed of it."""
    check_choice("status", record["status"], ("finished", "failed"))
    parse_spec(record["arm"])
    if record["status"] == "failed":
        _check_text("reason", record["reason"])
        return
    row = _row(record)
    check_integer("seed", row["seed"], least=0)
    for name, value in row.items():
        if name in _NUMBERS:
            check_number(name, value)
        else:
            _check_text(name, value)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={shown(value)}: accepted is text")


def _known_devices(folder: Path) -> dict[str, str]:
    """What a file in the folder says of devices: (name in the records) -> device."""
    path = folder / "devices.toml"
    try:
        entries = tomllib.loads(read_regular(path).decode())
        devices = {name: entry["device"] for name, entry in entries.items()}
        for name, device in devices.items():
            _check_text(name, device)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} tells of no devices: {error!r}") from None
    return devices


def _split_threads(device: str) -> Sequence[str]:
    """A device as it is recorded, split before its number of threads."""
    return re.fullmatch(r"(.*?)((?:, \d+ threads)?)", device, re.DOTALL).groups()


def _digest(content: object) -> str:
    """16 hexadecimal digits of the SHA-256 of JSON content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a finished trial in the table of `load_results`."""
    trial = record["trial"]
    code = record.get("code", {})
    sizes = [parse_spec(spec).kernel_sizes for spec in trial["attention"]]
    return {
        **{name: trial["dataset"][name] for name in ("size", "train", "test")},
        **{name: trial[name] for name in ("parameters", "seed")},
        **{name: record[name] for name in ("arm", "top1", "top5", "seconds", "images_per_second")},
        **dict(zip(RUN, run_of(record), strict=True)),
        "backbone": _backbone(trial),
        "dataset": trial["dataset"]["name"],
        "fingerprint": trial["dataset"]["fingerprint"][:8],
        "recipe": recipe_text(trial["recipe"]),
        "epochs": trial["recipe"]["epochs"],
        "kernel_sizes": "-".join(map(str, sizes)) if any(sizes) else "",
        "loss": record["loss_curve"][-1],
        "torch": record["versions"]["torch"],
        "code": code.get("commit", "")[:8] + "+" * bool(code.get("changed")),
        "identity": record["identity"],
    }


def _backbone(trial: Mapping[str, Any]) -> str:
    """The backbone of a trial; of a function, with what tells its network and places from others.

    A function may make other networks later, and attention may go elsewhere in them: no pairs.
    """
    if "architecture" not in trial:
        return trial["backbone"]
    return f"{trial['backbone']}#{_digest([trial['architecture'], trial['places']])[:8]}"
