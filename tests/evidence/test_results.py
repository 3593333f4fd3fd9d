import errno
import json
import os
import re
from pathlib import Path

import pytest

from eca_lab.evidence.results import (
    finished,
    is_finished,
    load_records,
    load_results,
    summarize,
    trial_identity,
    write_record,
)
from eca_lab.training.train import Recipe, trial_description


def test_records_come_back_as_rows(tmp_path, make_record):
    for arm, seed, top1 in [("se", 1, 61), ("none", 0, 50), ("se", 0, 60), ("eca(k=9)", 0, 55)]:
        write_record(tmp_path, make_record(arm, seed, float(top1)))
    results = load_results(tmp_path)
    assert results["arm"].tolist() == ["none", "se", "se", "eca(k=9)"]
    assert results["seed"].tolist() == [0, 0, 1, 0]
    assert results["top1"].tolist() == [50, 60, 61, 55]
    assert results["kernel_sizes"].tolist() == ["", "", "", "9-9-9-9"]
    assert results["loss"].tolist() == [1.25] * 4
    assert set(results["dataset"]) == {"colours"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{identity}.json" for identity in results["identity"]
    )


def test_table_of_means(tmp_path, make_record):
    for seed, top1 in enumerate([50.0, 52.0, 57.0]):
        write_record(tmp_path, make_record("eca", seed, top1))
    write_record(tmp_path, make_record("none", 0, 40.0))
    table = summarize(load_results(tmp_path)).reset_index().set_index("arm")
    assert table.loc["eca", "mean"] == pytest.approx(53)
    assert table.loc["eca", "sd"] == pytest.approx(((9 + 1 + 16) / 2) ** 0.5)
    assert table["n"].to_dict() == {"none": 1, "eca": 3}
    assert table["sd"].isna().to_dict() == {"none": True, "eca": False}


def test_identity_is_what_is_computed(dataset, make_record):
    def identity(arm="eca", seed=0, backbone="tiny", recipe=None):
        return trial_identity(
            trial_description(dataset, backbone, arm, seed=seed, recipe=recipe or Recipe())
        )

    assert identity("eca") == identity("eca(k=3-3-5)") == identity("eca(gamma=2, b=1)")
    others = {
        identity("eca(k=3)"),
        identity("eca(padding=circular)"),
        identity("eca(order=shuffled)"),
        identity("none"),
        identity(seed=1),
        identity(backbone="resnet10"),
        identity(recipe=Recipe(epochs=3)),
        identity(recipe=Recipe(crop=2)),
        identity(recipe=Recipe(crop=0)),
        identity(recipe=Recipe(scales=((0.5, 1),))),
        identity(recipe=Recipe(least_area=0.08)),
    }
    assert len(others) == 11
    assert identity() not in others


def test_the_name_of_a_data_set_is_not_its_identity(make_record):
    trial = make_record()["trial"]
    renamed = {**trial, "dataset": {**trial["dataset"], "name": "folder:/elsewhere"}}
    assert trial_identity(renamed) == trial_identity(trial)
    changed = {**trial, "dataset": {**trial["dataset"], "fingerprint": "1" * 64}}
    assert trial_identity(changed) != trial_identity(trial)


def test_files_that_hold_no_valid_record_are_named_and_left_out(tmp_path, make_record):
    (tmp_path / "elsewhere").mkdir()
    good = make_record()
    write_record(tmp_path, good)
    written = (tmp_path / f"{good['identity']}.json").read_text()
    write_record(tmp_path / "elsewhere", make_record(seed=1, schema=0))
    write_record(tmp_path / "elsewhere", {**make_record(seed=2), "identity": "0" * 16})
    write_record(tmp_path / "elsewhere", {k: v for k, v in make_record().items() if k != "top1"})
    older, misnamed, incomplete = (
        (tmp_path / "elsewhere" / f"{identity}.json").read_text()
        for identity in (make_record(seed=1)["identity"], "0" * 16, good["identity"])
    )
    bad = {
        "a" * 16: written[:100],
        "b" * 16: "",
        "c" * 16: "\0\1",
        "d" * 16: written.replace('"top1": 50.0', '"top1": 55.0'),
        "e" * 16: json.dumps(good),
        "1" * 16: older,
        "2" * 16: misnamed,
        "3" * 16: incomplete,
        "4" * 16: written,  # of another trial
        "5" * 16: "[" * 100_000 + "]" * 100_000,
    }
    for name, text in bad.items():
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.warns(UserWarning, match="is not counted") as caught:
        records = load_records(tmp_path)
    assert list(records.values()) == [good]
    for name in bad:
        assert any(f"{name}.json is not counted" in str(each.message) for each in caught)


def test_other_people_s_files_are_left_alone_and_told_of_in_one_line(tmp_path, make_record):
    good = make_record()
    write_record(tmp_path, good)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "dangling.json").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.json")  # whoever opens it waits
    os.mkfifo(tmp_path / f"{'1' * 16}.json")
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    (tmp_path / f"{'0' * 16}.json").write_text('{"loss": 1.5}')
    (tmp_path / f"{'2' * 16}.json").write_text('["identity", "schema"]')
    before = sorted(tmp_path.iterdir())
    # The name of a FIFO is that of a record, so it is named, too.
    with pytest.warns(UserWarning, match="1{16}.json is not counted: it is no regular") as caught:
        assert list(load_records(tmp_path, set_aside=["3" * 16]).values()) == [good]
    _, others = (str(each.message) for each in caught)
    assert "of what ends in .json, 7 are no records and are left alone: 000" in others
    assert len(others) < 300
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arm", "ecb"),  # of a later version, say
        ("arm", ["eca"]),
        ("loss_curve", []),
        ("loss_curve", 0),
        ("device", []),
        ("versions", {}),
        ("versions", {"torch": 2}),
        ("top1", "50"),
        ("top1", None),
        ("seconds", True),
        ("status", "running"),
        ("status", "failed"),  # and why?
    ],
)
def test_a_record_that_lacks_something_stops_no_other(tmp_path, make_record, name, value):
    good, bad = make_record(), make_record(seed=1) | {name: value}
    write_record(tmp_path, good)
    write_record(tmp_path, bad)
    with pytest.warns(UserWarning, match=f"{bad['identity']}.json is not counted: ") as caught:
        assert load_results(tmp_path)["identity"].tolist() == [good["identity"]]
    assert len(caught) == 1
    assert not is_finished(tmp_path, bad["identity"])
    with pytest.warns(UserWarning, match="was moved to .*rejected"):
        load_records(tmp_path, set_aside=[bad["identity"]])
    assert len(load_results(tmp_path)) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE])
def test_what_cannot_be_read_is_neither_left_out_nor_moved(
    tmp_path, make_record, monkeypatch, number
):
    for seed in range(2):
        write_record(tmp_path, make_record(seed=seed))
    unreadable = tmp_path / f"{make_record(seed=1)['identity']}.json"
    before, genuine = sorted(tmp_path.iterdir()), Path.read_bytes

    def read_bytes(path):
        if path == unreadable:
            raise OSError(number, os.strerror(number), str(path))
        return genuine(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    for set_aside in ((), [unreadable.stem]):
        with pytest.raises(OSError, match=f"{unreadable.name} cannot be read: ") as error:
            load_records(tmp_path, set_aside)
        assert os.strerror(number) in str(error.value)
        assert "make it readable, or move it" in str(error.value)
    with pytest.raises(OSError, match=os.strerror(number)):
        is_finished(tmp_path, unreadable.stem)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path, make_record, monkeypatch):
    write_record(tmp_path, make_record())

    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "scandir", denied)  # of which `glob` would say nothing
    with pytest.raises(PermissionError, match=re.escape(str(tmp_path))):
        finished(tmp_path)


def test_what_became_known_of_a_device_later(tmp_path, make_record):
    write_record(tmp_path, make_record(seed=0, device="cpu: A, 1 threads"))
    write_record(tmp_path, make_record(seed=1, device="cpu: B, 2 threads"))
    write_record(tmp_path, make_record(seed=2, device="cpu: A, with bfloat16, 4 threads"))
    write_record(tmp_path, make_record(seed=3, status="failed", reason="", device=None))
    known = tmp_path / "devices.toml"
    known.write_text('["cpu: A"]\ndevice = "cpu: A, with bfloat16"\n')
    table = load_results(tmp_path)
    assert table["device"].tolist() == ["cpu: A, with bfloat16", "cpu: B", "cpu: A, with bfloat16"]
    texts = "[", '"cpu: A" = 3', '["cpu: A"]\nname = "B"', '["cpu: A"]\ndevice = 3'
    for text in (*texts, "a = " + "[" * 5000, "\xff"):
        known.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"devices\.toml tells of no devices"):
            load_results(tmp_path)


def test_how_a_trial_was_computed(tmp_path, make_record):
    devices = {"cpu: A, 1 threads": ("cpu: A", "float32"), "cuda: B": ("cuda: B", "bfloat16")}
    for seed, device in enumerate(devices):
        write_record(tmp_path, make_record(seed=seed, device=device))
    new = {"precision": "bfloat16", "path": "fused", "code": {"commit": "0" * 40, "changed": True}}
    write_record(tmp_path, make_record(seed=2, **new))
    table = load_results(tmp_path)
    assert list(zip(table["device"], table["precision"], strict=True)) == [
        *devices.values(), ("cpu", "bfloat16"),
    ]  # fmt: skip
    assert table["path"].tolist() == ["modules", "modules", "fused"]
    assert table["code"].tolist() == ["", "", "00000000+"]


def test_failed_trials_are_not_counted(tmp_path, make_record):
    write_record(tmp_path, make_record())
    failed = make_record(seed=1, status="failed", reason="FloatingPointError: the loss is nan")
    write_record(tmp_path, {k: v for k, v in failed.items() if k not in ("top1", "loss_curve")})
    assert len(load_records(tmp_path)) == 2
    assert load_results(tmp_path)["seed"].tolist() == [0]


def test_a_write_that_fails_leaves_the_old_record(tmp_path, make_record, monkeypatch):
    good = make_record()
    write_record(tmp_path, good)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, {**good, "top1": 99.0})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [f"{good['identity']}.json"]
    assert load_results(tmp_path)["top1"].tolist() == [50]


def test_not_a_number_is_never_written(tmp_path, make_record):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path, make_record(top1=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_no_folder_and_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of results"):
        load_results(tmp_path / "none")
    with pytest.raises(ValueError, match="folder='': accepted is the path of a folder"):
        load_results("")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"folder: Not a directory: '.*file'"):
        load_results(tmp_path / "file")
    (tmp_path / "file").unlink()
    empty = load_results(tmp_path)
    assert len(empty) == 0
    assert "top1" in empty
