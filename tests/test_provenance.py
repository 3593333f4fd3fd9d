import subprocess

import pytest

from eca_lab import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A function that runs git in a repository whose folder package/ has the code that runs."""
    path = tmp_path / "package" / "provenance.py"
    path.parent.mkdir()
    path.write_text("")
    (tmp_path / "own.txt").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(path))
    provenance._code_version.cache_clear()
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]

    def git(*arguments):
        provenance._code_version.cache_clear()
        command = ["git", "-C", tmp_path, *who, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    yield git
    provenance._code_version.cache_clear()


def test_the_commit_is_that_of_the_repository_that_tracks_the_code(repository, tmp_path):
    assert provenance.code_version() == {}
    repository("init")
    repository("add", "own.txt")
    repository("commit", "-m", "of another project")
    assert provenance.code_version() == {}  # installed into a folder of it
    repository("add", "package")
    repository("commit", "-m", "of this one")
    assert provenance.code_version() == {
        "commit": repository("rev-parse", "HEAD"),
        "changed": False,
    }
    (tmp_path / "package" / "provenance.py").write_text("changed = True")
    repository("status")
    assert provenance.code_version()["changed"]


def test_a_repository_that_the_environment_names_is_another(repository, tmp_path, monkeypatch):
    repository("init")
    repository("add", "package")
    repository("commit", "-m", "of this one")
    commit = repository("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance.code_version()["commit"] == commit


def test_what_is_told_of_the_code_cannot_be_changed_by_who_asked(repository):
    repository("init")
    repository("add", ".")
    repository("commit", "-m", "all")
    told = provenance.code_version()
    provenance.code_version()["commit"] = "another"
    assert provenance.code_version() == told
