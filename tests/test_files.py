import pytest

from eca_lab.files import written_whole


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
