import os
from pathlib import Path

import pytest

from eca_lab.files import check_folder, listed, read_regular, written_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"
    with written_whole(path) as file:
        file.write(b"one")
    assert path.read_bytes() == b"one"

    def interrupted():
        with written_whole(path) as file:
            file.write(b"two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_listed_whole(tmp_path):
    for name in ("b.json", ".a.json", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in listed(tmp_path, ".json")] == [".a.json", "b.json"]
    with pytest.raises(FileNotFoundError):
        listed(tmp_path / "none", ".json")


def test_what_is_read_ends(tmp_path):
    (tmp_path / "file").write_bytes(b"all")
    assert read_regular(tmp_path / "file") == b"all"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="it is no regular file"):
            read_regular(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_where_a_folder_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_folder("out", tmp_path) == tmp_path
    assert check_folder("out", Path("a") / "b") == tmp_path
    assert check_folder("out", ".") == tmp_path
    with pytest.raises(ValueError, match="out='': accepted is the path of a folder"):
        check_folder("out", "")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "file/a/b", "link"):
        with pytest.raises(NotADirectoryError, match=f"out: Not a directory: '{name}', since '/"):
            check_folder("out", name)
